//! How long each wait may last (RFC 5321 §4.5.3.2).

use std::time::Duration;

/// A step of the conversation: what we wait for, and where something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The connection itself.
    Connect,
    /// The `220` that opens the session.
    Greeting,
    /// The reply to `EHLO` or `HELO`.
    Ehlo,
    /// The reply to `STARTTLS`.
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// The reply to `AUTH`, or to what we answered to a challenge.
    Auth,
    /// The reply to `RSET`.
    Rset,
    /// The reply to `XFORWARD`.
    Xforward,
    /// The reply to `MAIL`.
    Mail,
    /// The reply to `RCPT`.
    Rcpt,
    /// The reply to `DATA`.
    Data,
    /// The next hop takes another block of content.
    Content,
    /// The reply to the final dot or to `BDAT`.
    End,
    /// The reply to `QUIT`.
    Quit,
}

/// How long each stage may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until TCP is connected. RFC 5321 leaves it to us.
    pub connect: Duration,
    /// At least 5 minutes (RFC 5321 §4.5.3.2.1).
    pub greeting: Duration,
    /// For `EHLO`, `HELO`, `STARTTLS`, `AUTH`, `RSET` and `XFORWARD`: as long as for `MAIL`.
    pub command: Duration,
    /// The TLS handshake as a whole.
    pub handshake: Duration,
    /// At least 5 minutes (RFC 5321 §4.5.3.2.2).
    pub mail: Duration,
    /// At least 5 minutes (RFC 5321 §4.5.3.2.3).
    pub rcpt: Duration,
    /// At least 2 minutes (RFC 5321 §4.5.3.2.4).
    pub data: Duration,
    /// For each block: at least 3 minutes (RFC 5321 §4.5.3.2.5).
    pub content: Duration,
    /// At least 10 minutes (RFC 5321 §4.5.3.2.6).
    pub end: Duration,
    /// Nothing is lost when this one ends.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            connect: MINUTE / 2,
            greeting: 5 * MINUTE,
            command: 5 * MINUTE,
            handshake: MINUTE,
            mail: 5 * MINUTE,
            rcpt: 5 * MINUTE,
            data: 2 * MINUTE,
            content: 3 * MINUTE,
            end: 10 * MINUTE,
            quit: MINUTE / 12,
        }
    }
}

impl Timeouts {
    /// How long this stage may last.
    pub const fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Connect => self.connect,
            Stage::Greeting => self.greeting,
            Stage::Ehlo | Stage::StartTls | Stage::Auth | Stage::Rset | Stage::Xforward => self.command,
            Stage::Handshake => self.handshake,
            Stage::Mail => self.mail,
            Stage::Rcpt => self.rcpt,
            Stage::Data => self.data,
            Stage::Content => self.content,
            Stage::End => self.end,
            Stage::Quit => self.quit,
        }
    }
}
