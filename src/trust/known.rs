//! Domains that readers know, and that others are not to be taken for.

use std::collections::BTreeSet;

use dns::Name;

use crate::lookalike::skeleton;

/// Domains that are known here, by what they look like.
#[derive(Clone, Debug, Default)]
pub struct KnownDomains {
    domains: BTreeSet<Box<str>>,
    skeletons: BTreeSet<Box<str>>,
}

impl KnownDomains {
    /// These domains; what is no name of a domain is left out.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Self::default();
        for name in domains.into_iter().filter_map(|domain| Name::parse(domain).ok()) {
            known.skeletons.insert(skeleton(&name).into());
            known.domains.insert(name.as_str().into());
        }
        known
    }

    /// Whether a domain, or one above it, looks like one of these and neither is one nor lies below one.
    pub fn is_imitated_by(&self, author: &Name) -> bool {
        if self.domains.is_empty() || above(author.as_str()).any(|domain| self.domains.contains(domain)) {
            return false;
        }
        above(&skeleton(author)).any(|skeleton| self.skeletons.contains(skeleton))
    }
}

/// A name, and each above it.
fn above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn who_looks_like_one_that_is_known_and_is_not() {
        let known =
            KnownDomains::new(["example.org", "examp1e.net", "Example.NET", "bücher.example", "no name"]);
        for (author, expected) in [
            ("example.org", false),
            ("mail.example.org", false),
            ("examp1e.org", true),
            ("mail.examp1e.org", true),
            ("ехаmрlе.org", true),
            ("exarnple.org", true),
            ("example.org.evil.example", false),
            ("notexample.org", false),
            // Both are known.
            ("examp1e.net", false),
            ("example.net", false),
            ("bücher.example", false),
            ("bucher.example", true),
            ("other.example", false),
        ] {
            assert_eq!(known.is_imitated_by(&Name::parse(author).unwrap()), expected, "{author}");
        }
        assert!(!KnownDomains::new([]).is_imitated_by(&Name::parse("example.org").unwrap()));
    }
}
