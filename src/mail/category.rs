//! Why mail was not taken, in the kinds that high-volume senders sort refusals into.

use std::fmt;

/// What a refusal, a failed attempt or a returned message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// There is no such mailbox.
    BadMailbox,
    /// There is one, and nobody uses it: disabled, suspended, given up.
    InactiveMailbox,
    /// The mailbox is full.
    Quota,
    /// There is no such domain, or it takes no mail.
    BadDomain,
    /// The DNS did not say, or not what is needed.
    Dns,
    /// No connection, or a lost one.
    Connection,
    /// No TLS, or none that is good enough.
    Tls,
    /// The message looks like spam, or harmful.
    SpamContent,
    /// Our address, our domain or a link has a bad name: a listing, a block.
    SpamReputation,
    /// SPF, DKIM or DMARC did not prove who we are.
    Authentication,
    /// The site, or the recipient, does not want this mail for a reason of its own.
    Policy,
    /// Too much, too fast, or too many connections.
    Rate,
    /// Who comes for the first time is to come again.
    Greylisted,
    /// The message is larger than the site or the mailbox takes.
    TooLarge,
    /// The other side, or we, did not speak SMTP as the other understands it.
    Protocol,
    /// The message is not made as the site wants it.
    MessageFormat,
    /// The site does not relay for us.
    Relaying,
    /// The message goes in circles.
    Loop,
    /// Its time was up.
    Expired,
    /// An answer by a program, and no refusal: out of office, a new address.
    AutoReply,
    /// The site has trouble of its own.
    System,
    /// Nothing that a rule knows.
    Other,
    /// The recipient is on the tenant's suppression list, and was not asked.
    Suppressed,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::BadMailbox,
        Self::InactiveMailbox,
        Self::Quota,
        Self::BadDomain,
        Self::Dns,
        Self::Connection,
        Self::Tls,
        Self::SpamContent,
        Self::SpamReputation,
        Self::Authentication,
        Self::Policy,
        Self::Rate,
        Self::Greylisted,
        Self::TooLarge,
        Self::Protocol,
        Self::MessageFormat,
        Self::Relaying,
        Self::Loop,
        Self::Expired,
        Self::AutoReply,
        Self::System,
        Self::Other,
        Self::Suppressed,
    ];

    /// Its number where it is kept: its place in [`Self::ALL`], from 1 on. Numbers are for ever; a new category goes last.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The one of that number, if it is known.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// As it is written everywhere.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadMailbox => "bad-mailbox",
            Self::InactiveMailbox => "inactive-mailbox",
            Self::Quota => "quota",
            Self::BadDomain => "bad-domain",
            Self::Dns => "dns",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::SpamContent => "spam-content",
            Self::SpamReputation => "spam-reputation",
            Self::Authentication => "authentication",
            Self::Policy => "policy",
            Self::Rate => "rate",
            Self::Greylisted => "greylisted",
            Self::TooLarge => "too-large",
            Self::Protocol => "protocol",
            Self::MessageFormat => "message-format",
            Self::Relaying => "relaying",
            Self::Loop => "loop",
            Self::Expired => "expired",
            Self::AutoReply => "auto-reply",
            Self::System => "system",
            Self::Suppressed => "suppressed",
            Self::Other => "other",
        }
    }
}

/// The text is none of the words for categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such category: docs/reply-rules.md has their words, such as greylisted, quota, rate")]
pub struct CategoryError;

impl std::str::FromStr for Category {
    type Err = CategoryError;

    fn from_str(text: &str) -> Result<Self, CategoryError> {
        Self::ALL.into_iter().find(|category| category.word() == text).ok_or(CategoryError)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn numbers_and_words_and_back() {
        for category in Category::ALL {
            assert_eq!(Category::of_number(category.number()), Some(category));
            assert_eq!(category.word().parse(), Ok(category));
        }
        assert_eq!((Category::of_number(0), Category::of_number(200)), (None, None));
        assert_eq!("greylist".parse::<Category>(), Err(CategoryError));
        // They are on disks.
        assert_eq!((Category::BadMailbox.number(), Category::Other.number()), (1, 22));
    }
}
