//! What a stranger's name and address have to be.

use std::net::IpAddr;

use config::{Checks, ReverseRule, Tolerance};
use mail::Domain;
use smtp::{Refusal, Verdict};

use crate::{Listing, Policy};

/// How a client introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// What the lists say of it.
    pub listing: Listing,
    /// Its address, unless it came by a Unix socket.
    pub address: Option<IpAddr>,
    /// The name it gives.
    pub name: &'a str,
}

/// What is known of the name of a client's address (RFC 8601 §2.7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// Nobody has asked.
    Unasked,
    /// One of its names leads back to it.
    Confirmed,
    /// It has a name, and none that leads back.
    Unconfirmed,
    /// It has none.
    Nameless,
    /// The DNS did not say.
    Unknown,
}

impl Policy {
    /// May a client of this name go on? What the name says is not proven, and in general "if the verification fails,
    /// the server MUST NOT refuse to accept a message on that basis" (RFC 5321 §4.1.4): whoever turns a check on
    /// refuses names that no proper client would give.
    ///
    /// # Errors
    /// [`Refusal::EhloNameRefused`].
    pub fn ehlo(&self, introduction: Introduction<'_>, checks: &Checks) -> Verdict {
        let Introduction { listing, address, name } = introduction;
        match listing {
            Listing::Spared => return Ok(()),
            Listing::Unlisted | Listing::Denied => {}
        }
        let domain = Domain::parse(name).ok().filter(|_| name.parse::<IpAddr>().is_err());
        let literal = domain.as_ref().and_then(Domain::literal);
        let qualified = domain.is_none() || literal.is_some() || name.trim_end_matches('.').contains('.');
        let others =
            literal.is_some_and(|literal| Some(literal.to_canonical()) != address.map(|a| a.to_canonical()));
        let ours = domain.as_ref() == Some(&self.hostname);
        let refused = |wrong, rule| wrong && rule == Tolerance::Refuse;
        let wrong = refused(domain.is_none(), checks.malformed_names)
            || refused(!qualified, checks.unqualified_names)
            || refused(others, checks.foreign_literals)
            || refused(ours, checks.our_name)
            || self.deny_names.contains(name);
        if wrong { Err(Refusal::EhloNameRefused) } else { Ok(()) }
    }

    /// May a client send whose address is named like this?
    ///
    /// # Errors
    /// [`Refusal::ReverseName`], or [`Refusal::PolicyUnavailable`] when the DNS did not say.
    pub fn reverse(&self, reverse: Reverse, rule: ReverseRule) -> Verdict {
        match (rule, reverse) {
            (ReverseRule::Ignore | ReverseRule::Look, _)
            | (_, Reverse::Unasked | Reverse::Confirmed)
            | (ReverseRule::Named, Reverse::Unconfirmed) => Ok(()),
            (ReverseRule::Named | ReverseRule::Confirmed, Reverse::Unknown) => {
                Err(Refusal::PolicyUnavailable)
            }
            (ReverseRule::Named | ReverseRule::Confirmed, Reverse::Nameless)
            | (ReverseRule::Confirmed, Reverse::Unconfirmed) => Err(Refusal::ReverseName),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use config::Config;

    fn checks([malformed_names, unqualified_names, foreign_literals, our_name]: [Tolerance; 4]) -> Checks {
        Checks { malformed_names, unqualified_names, foreign_literals, our_name, ..Checks::default() }
    }

    fn policy() -> Policy {
        let mut config = Config { hostname: "mx.example.org".parse().unwrap(), ..Config::default() };
        let pattern = |text: &str| config::DomainPattern::Below(text.parse().unwrap());
        config.clients.deny_names = vec![pattern("dynamic.test")];
        Policy::new(&config)
    }

    #[test]
    fn names_of_strangers() {
        let check = |name, address: &str, refused_by: &[usize]| {
            let ask = |listing, checks: &Checks| {
                let introduction = Introduction { listing, address: Some(address.parse().unwrap()), name };
                policy().ehlo(introduction, checks)
            };
            for at in 0..4 {
                let mut rules = [Tolerance::Accept; 4];
                rules[at] = Tolerance::Refuse;
                let refused = ask(Listing::Unlisted, &checks(rules)).is_err();
                assert_eq!(refused, refused_by.contains(&at), "{name} from {address}, rule {at}");
            }
            assert_eq!(ask(Listing::Spared, &checks([Tolerance::Refuse; 4])), Ok(()), "{name}");
            let expected = if refused_by.is_empty() { Ok(()) } else { Err(Refusal::EhloNameRefused) };
            assert_eq!(ask(Listing::Unlisted, &checks([Tolerance::Refuse; 4])), expected, "{name}");
        };
        check("client.example.com", "192.0.2.1", &[]);
        check("[192.0.2.1]", "192.0.2.1", &[]);
        check("[192.0.2.1]", "::ffff:192.0.2.1", &[]);
        check("[IPv6:2001:db8::1]", "2001:db8::1", &[]);
        check("[192.0.2.2]", "192.0.2.1", &[2]);
        check("[IPv6:2001:db8::1]", "192.0.2.1", &[2]);
        check("192.0.2.1", "192.0.2.1", &[0]);
        check("my_host!", "192.0.2.1", &[0]);
        check("a..b", "192.0.2.1", &[0]);
        check("[not.a.literal]", "192.0.2.1", &[0]);
        check("localhost", "192.0.2.1", &[1]);
        check("MX.example.ORG", "192.0.2.1", &[3]);
        check("sub.mx.example.org", "192.0.2.1", &[]);
        check("host.dynamic.test", "192.0.2.1", &[0, 1, 2, 3]);
        check("dynamic.test", "192.0.2.1", &[]);
    }

    #[test]
    fn names_of_addresses() {
        use ReverseRule::{Confirmed, Ignore, Look, Named};
        let all =
            [Reverse::Unasked, Reverse::Confirmed, Reverse::Unconfirmed, Reverse::Nameless, Reverse::Unknown];
        let (no, later) = (Err(Refusal::ReverseName), Err(Refusal::PolicyUnavailable));
        for (rule, expected) in [
            (Ignore, [Ok(()); 5]),
            (Look, [Ok(()); 5]),
            (Named, [Ok(()), Ok(()), Ok(()), no, later]),
            (Confirmed, [Ok(()), Ok(()), no, no, later]),
        ] {
            assert_eq!(all.map(|reverse| policy().reverse(reverse, rule)), expected, "{rule:?}");
        }
    }
}
