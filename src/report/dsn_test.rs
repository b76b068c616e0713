//! Reports, as they go out.
