//! Questions, answers, cache; no sockets (RFC 1035).
//!
//! A [`Resolver`] is the stub of one shard: it is asked [`Question`]s, remembers [`Answer`]s for as long
//! as their TTL says, and tells its driver which bytes to send to which server. The recursion, and the
//! proof by DNSSEC, are the servers' work: a validating resolver on the loopback is what we believe.

mod answer;
mod cache;
mod hosts;
mod list;
mod name;
mod question;
mod resolv_conf;
mod resolver;
mod update;

pub use answer::{
    Answer, AnswerError, Exchange, ExchangeHost, Failure, Outcome, Records, Security, Tlsa, decode_answer,
};
pub use hosts::StaticHosts;
pub use list::{CodePattern, ListAnswer};
pub use name::{Name, NameError};
pub use question::{Kind, LetterCase, Question, encode_query};
pub use resolv_conf::{ResolvConf, Server, Trust};
pub use resolver::{Asked, Counters, Limits, Order, Resolver, Socket, Ticket, Transport, Waiter};
pub use update::{Change, TsigAlgorithm, TsigKey, Update, UpdateError, Updated};
