//! TLS records and certificates; no sockets.
