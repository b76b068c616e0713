//! The configuration as types; what does not parse does not start.
