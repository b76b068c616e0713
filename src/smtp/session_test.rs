//! Transcripts, and the player that plays them.
