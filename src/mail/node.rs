//! Whose waiting mail a client asks for.

use std::fmt;

use crate::Domain;

/// The argument of `ETRN` (RFC 1985 §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// A domain of recipients.
    pub domain: Domain,
    /// How much of it.
    pub reach: Reach,
}

/// How far down a node reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The domain alone.
    Itself,
    /// `@`: the domain and all that is below it (RFC 1985 §5.3).
    Below,
}

impl Node {
    /// Reads one, if it is a domain of two labels at least: "The specified node name must be a fully qualified domain
    /// name" (RFC 1985 §5). Queues that are no domains (`#`) we have none of.
    pub fn parse(text: &str) -> Option<Self> {
        let (reach, name) = match text.strip_prefix('@') {
            Some(name) => (Reach::Below, name),
            None => (Reach::Itself, text),
        };
        let domain = Domain::parse(name).ok()?;
        let qualified = domain.literal().is_none() && domain.as_str().contains('.') && !name.starts_with('[');
        qualified.then_some(Self { domain, reach })
    }

    /// Whether mail to this domain is meant.
    pub fn covers(&self, domain: &Domain) -> bool {
        *domain == self.domain || self.reach == Reach::Below && is_below(domain, &self.domain)
    }
}

/// Whether the first domain is below the second.
fn is_below(domain: &Domain, parent: &Domain) -> bool {
    domain.as_str().strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.reach {
            Reach::Itself => "",
            Reach::Below => "@",
        };
        write!(f, "{sign}{}", self.domain)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn nodes_are_domains_with_or_without_what_is_below() {
        for wrong in [
            "",
            "@",
            "localname",
            "@com",
            "#uucp",
            "[192.0.2.1]",
            "[IPv6:::1.2]",
            "a b.example",
            "ann@x.example",
        ] {
            assert_eq!(Node::parse(wrong), None, "{wrong}");
        }
        for (node, domain, expected) in [
            ("X.example", "x.EXAMPLE", true),
            ("x.example", "a.x.example", false),
            ("@x.example", "x.example", true),
            ("@x.example", "a.b.x.example", true),
            ("@x.example", "ax.example", false),
        ] {
            let node = Node::parse(node).unwrap();
            assert_eq!(node.covers(&Domain::parse(domain).unwrap()), expected, "{node} {domain}");
            assert_eq!(Node::parse(&node.to_string()), Some(node));
        }
    }
}
