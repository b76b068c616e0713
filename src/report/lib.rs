//! The mail we write ourselves: DSN, DMARC and TLS reports (RFC 3464).
