//! The house checks itself: rooms, captions, imports.
