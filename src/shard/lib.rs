//! One core: listeners, sessions, queue partition, journal, and the loop.
