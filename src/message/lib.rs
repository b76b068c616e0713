//! Message format: header fields, MIME tree, composing (RFC 5322, 2045).
//!
//! Content travels as slices of receive buffers, `&[Bytes]`, split anywhere: lines end in CRLF, dots are
//! not stuffed. [`HeaderScan`] reads the header section once; [`trace`] writes the fields a server adds;
//! [`compose`] makes the mail that we write ourselves; [`convert`] writes what others wrote so that more hops can take it.

pub mod compose;
pub mod content;
pub mod convert;
pub mod date;
mod field;
pub mod local;
mod scan;
pub mod trace;

pub use field::{field, fields, list_name, one_line};
pub use scan::{EightBit, Fields, HeaderEnd, HeaderLimits, HeaderScan, HeaderSummary};
