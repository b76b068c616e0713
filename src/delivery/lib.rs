//! One attempt: hosts in order, TLS level, an outcome per recipient.
