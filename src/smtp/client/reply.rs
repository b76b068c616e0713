//! A next hop's reply, as a value (RFC 5321 §4.2).

use std::{fmt, sync::Arc};

use mail::Status;

/// A complete reply. A clone is cheap: recipients share the reply to the final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<Status>,
    text: Arc<str>,
}

/// The first digit of a reply code (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyClass {
    /// `2yz`: done.
    Completion,
    /// `3yz`: go on.
    Intermediate,
    /// `4yz`: not now.
    Transient,
    /// `5yz`: not ever.
    Permanent,
}

impl Reply {
    /// A reply from its parts; the lines of its text are parted by `\n`.
    ///
    /// # Panics
    /// When the code is not within 200 to 599.
    pub fn new(code: u16, status: Option<Status>, text: &str) -> Self {
        assert!((200..600).contains(&code), "no reply has the code {code}");
        Self { code, status, text: text.into() }
    }

    /// The three digits.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, when there is one and its class agrees with the reply code.
    pub const fn status(&self) -> Option<Status> {
        self.status
    }

    /// The text without codes: sanitised, bounded, its lines parted by `\n`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the first digit says.
    pub const fn class(&self) -> ReplyClass {
        match self.code / 100 {
            2 => ReplyClass::Completion,
            3 => ReplyClass::Intermediate,
            4 => ReplyClass::Transient,
            _ => ReplyClass::Permanent,
        }
    }

    /// Whether the command was done: `2yz`.
    pub fn is_completion(&self) -> bool {
        self.class() == ReplyClass::Completion
    }
}

impl fmt::Display for Reply {
    /// In one line, as a log and a Diagnostic-Code field want it: `550 5.1.1 no such user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        self.text.split('\n').filter(|line| !line.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}
