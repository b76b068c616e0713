//! As whom a key may send: the reverse-path, and what readers are shown as the sender.

use config::DomainPattern;
use mail::{Address, Domain, ReversePath};

use crate::raw::{self, RawError};

/// As whom one may send.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scope {
    domains: Vec<DomainPattern>,
    addresses: Vec<Address>,
}

/// A message says it is from somebody whom its key does not stand for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// Another's address.
    #[error("this key may not send as {1} ({0})")]
    Address(&'static str, Address),
    /// What cannot be read cannot be allowed.
    #[error("{0}, so nobody can say whether this key may send so")]
    Unreadable(RawError),
}

impl Scope {
    pub(crate) fn new(domains: &[DomainPattern], addresses: &[Address]) -> Self {
        Self { domains: domains.to_vec(), addresses: addresses.to_vec() }
    }

    pub(crate) fn covers(&self, address: &Address) -> bool {
        let same = |other: &Address| {
            // The case of a local-part is its owner's affair; whoever wrote the configuration meant one mailbox.
            other.domain_str() == address.domain_str()
                && other.local_part().as_str().eq_ignore_ascii_case(address.local_part().as_str())
        };
        self.addresses.iter().any(same) || self.covers_domain(&address.domain())
    }

    fn covers_domain(&self, domain: &Domain) -> bool {
        self.domains.iter().any(|pattern| match pattern {
            DomainPattern::Any => true,
            DomainPattern::Exact(exact) => exact == domain,
            DomainPattern::Below(above) => {
                let below = domain.as_str().strip_suffix(above.as_str());
                below.is_some_and(|below| below.ends_with('.') && below.len() > 1)
            }
        })
    }

    /// Looks at the reverse-path, and at every From and Sender of the header section.
    pub(crate) fn check(&self, reverse_path: &ReversePath, content: &[u8]) -> Result<(), Denied> {
        let allow = |what, address: &Address| {
            if self.covers(address) { Ok(()) } else { Err(Denied::Address(what, address.clone())) }
        };
        reverse_path.address().map_or(Ok(()), |address| allow("the reverse-path", address))?;
        for field in raw::fields(content) {
            const SHOWN: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];
            let shown = SHOWN.into_iter().find(|name| name.as_bytes().eq_ignore_ascii_case(field.name));
            let Some(name) = shown else { continue };
            for address in raw::addresses(name, field.value).map_err(Denied::Unreadable)? {
                allow(name, &address)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn scope() -> Scope {
        let domain = |text| Domain::parse(text).unwrap();
        let domains =
            [DomainPattern::Exact(domain("example.org")), DomainPattern::Below(domain("shop.example"))];
        Scope::new(&domains, &["Ann@example.net".parse().unwrap()])
    }

    #[test]
    fn addresses_are_covered_or_not() {
        for (address, covered) in [
            ("bob@example.org", true),
            ("bob@EXAMPLE.ORG", true),
            ("bob@sub.example.org", false),
            ("bob@evilexample.org", false),
            ("bob@shop.example", false),
            ("bob@mail.shop.example", true),
            ("bob@evilshop.example", false),
            ("ann@example.net", true),
            ("bob@example.net", false),
        ] {
            assert_eq!(scope().covers(&address.parse().unwrap()), covered, "{address}");
        }
        assert!(!Scope::default().covers(&"a@b.example".parse().unwrap()));
    }

    #[test]
    fn every_sender_of_a_message_is_looked_at() {
        let check = |reverse_path: &str, content: &str| {
            let reverse_path = match reverse_path {
                "" => ReversePath::Null,
                address => ReversePath::Address(address.parse().unwrap()),
            };
            scope().check(&reverse_path, content.as_bytes()).is_ok()
        };
        assert!(check("a@example.org", "From: A <a@example.org>\r\nTo: x@y.example\r\n\r\n"));
        assert!(check("", "From: a@example.org,\r\n b@mail.shop.example\r\n\r\nFrom: eve@evil.example\r\n"));
        assert!(!check("a@evil.example", "From: a@example.org\r\n\r\n"));
        for content in [
            "From: eve@evil.example\r\n\r\n",
            "from : eve@evil.example\r\n\r\n",
            "From: a@example.org, eve@evil.example\r\n\r\n",
            "From: a@example.org\r\nFrom: eve@evil.example\r\n\r\n",
            "From: a@example.org\r\nSender: eve@evil.example\r\n\r\n",
            "From: a@example.org\r\nResent-From: eve@evil.example\r\n\r\n",
            "From: a@example.org\r\nno field\r\nFrom: eve@evil.example\r\n\r\n",
            "From: a@example.org <eve@evil.example> x\r\n\r\n",
            "From: \"a@example.org\" <eve@evil.example>\r\n\r\n",
            "From: a@example.org\r\n\tSubject: x, eve@evil.example\r\n\r\n",
        ] {
            assert!(!check("", content), "{content:?}");
        }
    }
}
