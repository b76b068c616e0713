//! SMTP and LMTP as pure state machines, both sides (RFC 5321, 2033).
//!
//! The server side is four things that know nothing of each other:
//!
//! - [`LineScanner`] cuts the stream into command lines;
//! - [`Session`] is told each line, and says what is to be done;
//! - [`MailDataScanner`] and [`ChunkScanner`] find the content in what follows DATA and BDAT;
//! - [`Reply`] spells what is sent.

pub mod client;

mod chunk;
mod claims;
mod command;
mod content;
mod extension;
mod forwarding;
mod line;
mod mail_data;
mod parameters;
mod refusal;
mod reply;
mod session;

pub use chunk::ChunkScanner;
pub use claims::{Claim, Claims};
pub use command::{Command, SyntaxError};
pub use content::{ContentRules, Findings, Tolerance};
pub use extension::{Extension, Extensions};
pub use forwarding::Forwarding;
pub use line::{Line, LineScanner};
pub use mail_data::{MailDataScanner, Piece, Progress};
pub use parameters::{By, Hold, MailParameters, Parameters, RcptParameters};
pub use refusal::{Aftermath, Refusal};
pub use reply::Reply;
pub use session::{Action, Hello, Limits, Options, Owed, Role, Session, Stage, TlsState, Verdict, Waiting};
