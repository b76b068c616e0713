//! The end-to-end tests and the tidy test; this library holds what they share.
