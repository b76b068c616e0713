//! The PROXY protocol: for whom a proxy opened a connection; no sockets.
//!
//! A proxy in front of us is the other end of every connection. What it says before anything else tells us for whom: a
//! line of text in version 1, octets in version 2 (HAProxy's `proxy-protocol.txt`). Whether a proxy is to be believed is
//! for the caller to know: anybody can write such a header.

mod header;

pub use header::{Header, HeaderError, read};
