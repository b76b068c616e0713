//! Proxies: the PROXY protocol, read and written, and SOCKS5; no sockets.
//!
//! A proxy in front of us is the other end of every connection. What it says before anything else tells us for whom: a
//! line of text in version 1, octets in version 2 (HAProxy's `proxy-protocol.txt`). Whether a proxy is to be believed is
//! for the caller to know: anybody can write such a header.
//!
//! A proxy that connects for us is told from where to where by the same header, or is asked by SOCKS5 (RFC 1928).

mod header;
mod socks;
mod write;

pub use header::{Header, HeaderError, read};
pub use socks::{Next, Reason, Socks5, SocksError};
pub use write::{Version, own, write};
