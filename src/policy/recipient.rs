//! Is there such a recipient, and may this mail go to it?

use std::{collections::HashSet, net::SocketAddr};

use config::{Checks, DomainKind, MailDomain, Tolerance, VerifyFailure};
use mail::{Address, ForwardPath, ReversePath};
use smtp::{Refusal, Verdict};

use crate::Policy;

/// What a domain of ours is.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) kind: DomainKind,
    /// Its local-parts, when they are known.
    recipients: Option<HashSet<Box<str>>>,
    /// Who knows of others.
    verify: Option<SocketAddr>,
    /// What stands behind this in a local-part does not count.
    subaddress: Option<Box<str>>,
    reports: Tolerance,
}

/// A recipient beside what its transaction has already.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// The recipient.
    pub forward_path: &'a ForwardPath,
    /// Whom the mail is from.
    pub reverse_path: &'a ReversePath,
    /// Recipients accepted before.
    pub before: usize,
}

/// A question to the program that knows the recipients of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where it listens.
    pub at: SocketAddr,
    /// The address, in lower case and without what does not count.
    pub key: String,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mailbox {
    /// There is such a recipient.
    Known,
    /// There is none.
    Unknown,
    /// Nothing, or nothing now.
    Unanswered,
}

impl Domain {
    pub(crate) fn new(domain: &MailDomain) -> Self {
        let recipients = || domain.recipients.iter().map(|local_part| key(local_part)).collect();
        Self {
            kind: domain.kind,
            recipients: (!domain.recipients.is_empty()).then(recipients),
            verify: domain.verify,
            subaddress: domain.subaddress.as_deref().filter(|text| !text.is_empty()).map(Into::into),
            reports: domain.reports,
        }
    }

    /// Whether it does not take whatever comes.
    pub(crate) fn is_choosy(&self) -> bool {
        self.recipients.is_some() || self.verify.is_some() || self.reports == Tolerance::Refuse
    }

    /// Whether the address is known here; `None`: whoever is asked knows, or nobody does.
    fn has(&self, address: &Address) -> Option<bool> {
        match (&self.recipients, self.verify) {
            (None, None) => Some(true),
            (None, Some(_)) if is_postmaster(address) => Some(true),
            (None, Some(_)) => None,
            (Some(recipients), _) if self.is_among(recipients, address) => Some(true),
            (Some(_), None) => Some(false),
            (Some(_), Some(_)) => None,
        }
    }

    fn is_among(&self, recipients: &HashSet<Box<str>>, address: &Address) -> bool {
        let local_part = key(address.local_part().as_str());
        recipients.contains(&local_part)
            || recipients.contains(self.user(&local_part))
            || is_postmaster(address)
    }

    /// What counts of a local-part.
    fn user<'a>(&self, local_part: &'a str) -> &'a str {
        let separator = self.subaddress.as_deref();
        let user = separator.and_then(|separator| local_part.split_once(separator)).map(|(user, _)| user);
        user.filter(|user| !user.is_empty()).unwrap_or(local_part)
    }
}

/// RFC 5321 §4.5.1: every domain has one.
fn is_postmaster(address: &Address) -> bool {
    address.local_part().as_str().eq_ignore_ascii_case("postmaster")
}

/// Looser than RFC 5321 §2.4: no host of today has two mailboxes that differ in case.
fn key(local_part: &str) -> Box<str> {
    local_part.to_lowercase().into()
}

impl Policy {
    /// Is there such a recipient, and does it take this mail? `checks`: what is looked at, for a stranger.
    ///
    /// # Errors
    /// [`Refusal::NoSuchRecipient`], [`Refusal::Policy`] for a report that the domain does not want, or
    /// [`Refusal::TooManyRecipients`] for a report to many.
    pub fn recipient(&self, addressee: Addressee<'_>, checks: Option<&Checks>) -> Verdict {
        let Addressee { forward_path, reverse_path, before } = addressee;
        let for_many =
            before > 0 && checks.is_some_and(|checks| checks.reports_for_many == Tolerance::Refuse);
        if for_many && *reverse_path == ReversePath::Null {
            return Err(Refusal::TooManyRecipients);
        }
        let ForwardPath::Address(address) = forward_path else { return Ok(()) };
        // Nothing is looked up, and so nothing allocated, where nothing was asked for.
        if !self.choosy {
            return Ok(());
        }
        let Some(domain) = self.domains.get(&address.domain()) else { return Ok(()) };
        if domain.has(address) == Some(false) {
            return Err(Refusal::NoSuchRecipient);
        }
        match (reverse_path, domain.reports) {
            (ReversePath::Null, Tolerance::Refuse) => Err(Refusal::Policy),
            (ReversePath::Null, Tolerance::Accept) | (ReversePath::Address(_), _) => Ok(()),
        }
    }
}

impl Policy {
    /// What is to be asked of a recipient that nothing else stands against.
    pub fn query(&self, forward_path: &ForwardPath) -> Option<Query> {
        let ForwardPath::Address(address) = forward_path else { return None };
        if !self.choosy {
            return None;
        }
        let domain = self.domains.get(&address.domain())?;
        let at = domain.verify.filter(|_| domain.has(address).is_none())?;
        let local_part = key(address.local_part().as_str());
        let key = format!("{}@{}", domain.user(&local_part), address.domain_str().to_lowercase());
        Some(Query { at, key })
    }

    /// Does mail go to a recipient of which that is said?
    ///
    /// # Errors
    /// [`Refusal::NoSuchRecipient`], or [`Refusal::PolicyUnavailable`] when there was no answer.
    pub fn answered(&self, mailbox: Mailbox, on_failure: VerifyFailure) -> Verdict {
        match (mailbox, on_failure) {
            (Mailbox::Known, _) | (Mailbox::Unanswered, VerifyFailure::Accept) => Ok(()),
            (Mailbox::Unknown, _) => Err(Refusal::NoSuchRecipient),
            (Mailbox::Unanswered, VerifyFailure::Defer) => Err(Refusal::PolicyUnavailable),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use config::Config;

    const AT: &str = "127.0.0.1:10025";

    fn policy() -> Policy {
        let domain = |name: &str, recipients: &[&str]| MailDomain {
            name: name.parse().unwrap(),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            ..MailDomain::default()
        };
        let domains = vec![
            MailDomain { subaddress: Some("+".into()), ..domain("plus.test", &["Ann", "c++"]) },
            domain("exact.test", &["ann"]),
            MailDomain {
                verify: Some(AT.parse().unwrap()),
                subaddress: Some("+".into()),
                ..domain("asked.test", &["ann"])
            },
            MailDomain { verify: Some(AT.parse().unwrap()), ..domain("all.asked.test", &[]) },
            domain("any.test", &[]),
            MailDomain { reports: Tolerance::Refuse, ..domain("silent.test", &[]) },
        ];
        Policy::new(&Config { domains, ..Config::default() })
    }

    fn ask(to: &str, from: &str, before: usize, checks: Option<&Checks>) -> Verdict {
        let reverse_path = match from {
            "" => ReversePath::Null,
            address => ReversePath::Address(address.parse().unwrap()),
        };
        let forward_path = match to {
            "postmaster" => ForwardPath::Postmaster,
            address => ForwardPath::Address(address.parse().unwrap()),
        };
        let addressee = Addressee { forward_path: &forward_path, reverse_path: &reverse_path, before };
        policy().recipient(addressee, checks)
    }

    #[test]
    fn who_is_there() {
        for (to, there) in [
            ("ann@plus.test", true),
            ("ANN@Plus.Test", true),
            ("ann+shop@plus.test", true),
            ("ann+@plus.test", true),
            ("c++@plus.test", true),
            ("+ann@plus.test", false),
            ("bob@plus.test", false),
            ("bob+ann@plus.test", false),
            ("postmaster@plus.test", true),
            ("PostMaster@exact.test", true),
            ("ann@exact.test", true),
            ("ann+shop@exact.test", false),
            ("bob@any.test", true),
            ("bob@other.test", true),
            ("postmaster", true),
        ] {
            let expected = if there { Ok(()) } else { Err(Refusal::NoSuchRecipient) };
            assert_eq!(ask(to, "bob@example.org", 5, None), expected, "{to}");
        }
    }

    #[test]
    fn who_is_asked_for() {
        for (to, key) in [
            ("ann@asked.test", None),
            ("ann+list@asked.test", None),
            ("postmaster@asked.test", None),
            ("Bob+list@Asked.test", Some("bob@asked.test")),
            ("+bob@asked.test", Some("+bob@asked.test")),
            ("bob+list@all.asked.test", Some("bob+list@all.asked.test")),
            ("postmaster@all.asked.test", None),
            ("bob@exact.test", None),
            ("bob@other.test", None),
            ("postmaster", None),
        ] {
            let forward_path = match to {
                "postmaster" => ForwardPath::Postmaster,
                address => ForwardPath::Address(address.parse().unwrap()),
            };
            let expected = key.map(|key| Query { at: AT.parse().unwrap(), key: key.into() });
            assert_eq!(policy().query(&forward_path), expected, "{to}");
        }
        assert_eq!(ask("bob@asked.test", "bob@example.org", 0, None), Ok(()), "for all that is known here");
        let answered = |mailbox, rule| policy().answered(mailbox, rule);
        for rule in [VerifyFailure::Defer, VerifyFailure::Accept] {
            assert_eq!(answered(Mailbox::Known, rule), Ok(()));
            assert_eq!(answered(Mailbox::Unknown, rule), Err(Refusal::NoSuchRecipient));
        }
        assert_eq!(answered(Mailbox::Unanswered, VerifyFailure::Accept), Ok(()));
        let later = Err(Refusal::PolicyUnavailable);
        assert_eq!(answered(Mailbox::Unanswered, VerifyFailure::Defer), later);
    }

    #[test]
    fn who_gets_reports() {
        assert_eq!(ask("ann@silent.test", "", 0, None), Err(Refusal::Policy));
        assert_eq!(ask("ann@silent.test", "bob@example.org", 0, None), Ok(()));
        assert_eq!(ask("ann@any.test", "", 0, None), Ok(()));
        let strict = Checks { reports_for_many: Tolerance::Refuse, ..Checks::default() };
        let many = Err(Refusal::TooManyRecipients);
        assert_eq!(ask("ann@any.test", "", 0, Some(&strict)), Ok(()));
        assert_eq!(ask("ann@any.test", "", 1, Some(&strict)), many);
        assert_eq!(ask("postmaster", "", 1, Some(&strict)), many);
        assert_eq!(ask("ann@any.test", "bob@example.org", 1, Some(&strict)), Ok(()));
        assert_eq!(ask("ann@any.test", "", 1, Some(&Checks::default())), Ok(()));
        assert_eq!(ask("ann@any.test", "", 1, None), Ok(()));
    }
}
