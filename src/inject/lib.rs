//! Mail taken in over HTTP: keys, JSON, MIME, and the API's own description.
//!
//! The path of a request, in the order in which it takes it:
//!
//! - `service`      the routes, the body, the answer
//! - `keys`         whose key it is, what it may send as (`scope`) and how much (`rate`)
//! - `idempotency`  whether the request was answered before
//! - `decode`       JSON to drafts: every mistake with its place; `json` reads it, `fields` lists what it may have,
//!   `mailbox` and `template` read what stands in strings, `raw` takes whole messages
//! - `compose`      a draft to a message
//! - `problem`      what is said when it cannot be done
//!
//! What becomes of a message is decided by a shard, as for mail that comes by SMTP. `openapi` describes all this to
//! programs, from the same tables.

mod compose;
pub mod decode;
mod fields;
mod idempotency;
mod json;
mod keys;
mod mailbox;
mod openapi;
mod problem;
mod rate;
mod raw;
mod scope;
mod service;
mod template;

pub use keys::{KEY_PREFIX, hash_of, key_from};
pub use problem::STATUSES;
pub use service::{Injections, PATHS, Settings};
