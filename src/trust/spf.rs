//! SPF: may this address send for this domain? (RFC 7208)
//!
//! The evaluation is our own. mail-auth's (`spf/verify.rs`, `check_host`) keeps no count of void look-ups, leaves
//! all levels of `include` at once when the innermost passes, so that a `?include` or `-include` further out says
//! nothing, takes the first name of an address for `%{p}` without validating it, counts each name that `ptr` finds
//! as a term, and takes AAAA records for `exists`; its reader (`spf/parse.rs`) lets prefix lengths above 32 and 128,
//! domains without a top label and malformed modifiers pass. Of the 203 cases of the community's suite it gets more
//! than forty wrong.

mod check;
mod macros;
mod record;
mod survey;

#[cfg(test)]
mod rules_test;
#[cfg(test)]
mod suite_test;

pub(crate) use check::{Question, check};
pub use survey::{SpfSurvey, spf_of, survey_spf};

/// What SPF says of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spf {
    /// The verdict.
    pub result: SpfResult,
    /// What was checked.
    pub identity: SpfIdentity,
    /// The domain that was checked, as it was given.
    pub domain: String,
    /// What the domain's owner tells those who are refused (RFC 7208 §6.2): somebody else's words, in printable
    /// US-ASCII.
    pub explanation: Option<String>,
    /// The directive that matched, as it stands in the record.
    pub mechanism: Option<String>,
    /// Why there is an error.
    pub problem: Option<SpfProblem>,
}

/// The results of RFC 7208 §2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpfResult {
    /// There is no domain to check, or it says nothing.
    None,
    /// The domain does not want to say.
    Neutral,
    /// The address may send for the domain.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// It cannot be told now.
    TempError,
    /// The domain's records make no sense.
    PermError,
}

/// The two identities of RFC 7208 §2.3, §2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpfIdentity {
    /// The argument of EHLO or HELO.
    Helo,
    /// The reverse-path; with the null reverse-path, `postmaster` at the argument of EHLO (RFC 7208 §2.4).
    MailFrom,
}

/// Why a check ended in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpfProblem {
    /// A record could not be looked up in time.
    #[error("DNS failure")]
    Unavailable,
    /// A record is malformed.
    #[error("malformed record")]
    Syntax,
    /// A record is longer than [`crate::Limits::spf_record_size_max`].
    #[error("record too long")]
    TooLong,
    /// A domain has several records.
    #[error("more than one record")]
    ManyRecords,
    /// `include` or `redirect` leads to no record.
    #[error("included domain has no record")]
    NoRecord,
    /// More terms need look-ups than [`crate::Limits::spf_terms_max`].
    #[error("too many DNS look-ups")]
    TooManyTerms,
    /// More look-ups found nothing than [`crate::Limits::spf_void_max`].
    #[error("too many void DNS look-ups")]
    TooManyVoid,
    /// A domain has more mail exchanges than [`crate::Limits::spf_exchanges_max`].
    #[error("too many mail exchanges")]
    TooManyExchanges,
}

impl SpfResult {
    /// As in the header fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl SpfIdentity {
    /// As in `Received-SPF` (RFC 7208 §9.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "helo",
            Self::MailFrom => "mailfrom",
        }
    }
}
