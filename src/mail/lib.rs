//! The nouns: address, path, envelope, status code, message id.
