//! SMTP and LMTP as pure state machines, both sides (RFC 5321, 2033).

pub mod client;
