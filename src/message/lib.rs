//! Message format: header fields, MIME tree, composing (RFC 5322, 2045).
