//! The load generator: a source that pours mail, a sink that swallows it, and a crowd that says nothing.
//!
//! Each message carries a mark ([`message::Mark`]): run, number, recipients, and length and checksum of all that
//! follows the mark. So the sink knows each message again, byte for byte, whatever fields servers on the way put in
//! front; it counts what came twice, and two lists of numbers tell what got a 250 and never arrived
//! ([`compare::compare`]).
//!
//! Both ends speak SMTP by themselves, without the rooms of the server: what they agree on with it is the protocol,
//! not code.

pub mod compare;
pub mod histogram;
pub mod hold;
pub mod message;
mod random;
pub mod report;
pub mod sink;
pub mod source;
mod wire;

#[cfg(test)]
mod loadtest_test;
