//! Login mechanisms as challenge and response (RFC 4422).
//!
//! The client's side: an [`Exchange`] is told what the server said and gives what we say to it, as bytes; how these travel is the
//! protocol's. It has no socket and no random number of its own. What ties it to a TLS connection is told by whoever has that.
//!
//! ```text
//!  begin ─▶ initial response, if the mechanism has one
//!    on_challenge ─▶ Send(response)                       PLAIN, LOGIN, XOAUTH2
//!                 ─▶ Derive(…) ─▶ on_derived ─▶ response  SCRAM (RFC 5802, RFC 7677)
//!    on_success   ─▶ whether the server knows the password as well, where the mechanism can tell
//! ```

mod binding;
mod credentials;
mod exchange;
mod mechanism;
mod scram;

pub use binding::{Binding, BindingType, ChannelBinding};
pub use credentials::{Credentials, Secret, SecretError};
pub use exchange::{Exchange, ExchangeError, Response};
pub use mechanism::{Mechanism, Mechanisms};
pub use scram::{Derivation, ITERATIONS_MAX, ITERATIONS_MIN, Salted};
