//! Is there such a recipient, and may this mail go to it?

use std::collections::HashSet;

use config::{Checks, DomainKind, MailDomain, Tolerance};
use mail::{Address, ForwardPath, ReversePath};
use smtp::{Refusal, Verdict};

use crate::Policy;

/// What a domain of ours is.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) kind: DomainKind,
    /// Its local-parts, when they are known.
    recipients: Option<HashSet<Box<str>>>,
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

impl Domain {
    pub(crate) fn new(domain: &MailDomain) -> Self {
        let recipients = || domain.recipients.iter().map(|local_part| key(local_part)).collect();
        Self {
            kind: domain.kind,
            recipients: (!domain.recipients.is_empty()).then(recipients),
            subaddress: domain.subaddress.as_deref().filter(|text| !text.is_empty()).map(Into::into),
            reports: domain.reports,
        }
    }

    fn has(&self, address: &Address) -> bool {
        let Some(recipients) = &self.recipients else { return true };
        let local_part = key(address.local_part().as_str());
        // RFC 5321 §4.5.1.
        if recipients.contains(&local_part) || &*local_part == "postmaster" {
            return true;
        }
        let separator = self.subaddress.as_deref();
        let user = separator.and_then(|separator| local_part.split_once(separator)).map(|(user, _)| user);
        user.is_some_and(|user| recipients.contains(user))
    }
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
        // Without a copy of the domain where none is listed.
        if self.domains.is_empty() {
            return Ok(());
        }
        let Some(domain) = self.domains.get(&address.domain()) else { return Ok(()) };
        if !domain.has(address) {
            return Err(Refusal::NoSuchRecipient);
        }
        match (reverse_path, domain.reports) {
            (ReversePath::Null, Tolerance::Refuse) => Err(Refusal::Policy),
            (ReversePath::Null, Tolerance::Accept) | (ReversePath::Address(_), _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use config::Config;

    fn policy() -> Policy {
        let domain = |name: &str, recipients: &[&str]| MailDomain {
            name: name.parse().unwrap(),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            ..MailDomain::default()
        };
        let domains = vec![
            MailDomain { subaddress: Some("+".into()), ..domain("plus.test", &["Ann", "c++"]) },
            domain("exact.test", &["ann"]),
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
