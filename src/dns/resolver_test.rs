//! A resolver in a lossy world.
