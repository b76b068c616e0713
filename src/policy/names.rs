//! Lists of domains and addresses, however long: each look-up costs as much as the name has labels.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use config::{DomainPattern, SenderPattern};
use mail::{Address, Domain};

/// Domains, as patterns say which.
#[derive(Clone, Default)]
pub(crate) struct Domains {
    any: bool,
    exact: HashSet<Box<str>>,
    below: HashSet<Box<str>>,
}

/// Addresses, each by itself or by its domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    domains: Domains,
    exact: HashSet<Box<str>>,
}

impl Domains {
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a DomainPattern>) -> Self {
        let mut domains = Self::default();
        let key = |domain: &Domain| domain.as_str().to_ascii_lowercase().into_boxed_str();
        for pattern in patterns {
            match pattern {
                DomainPattern::Any => domains.any = true,
                DomainPattern::Exact(domain) => _ = domains.exact.insert(key(domain)),
                DomainPattern::Below(domain) => _ = domains.below.insert(key(domain)),
            }
        }
        domains
    }

    pub(crate) fn contains(&self, domain: &str) -> bool {
        if self.any || (self.exact.is_empty() && self.below.is_empty()) {
            return self.any;
        }
        let domain = domain.to_ascii_lowercase();
        if self.exact.contains(domain.as_str()) {
            return true;
        }
        let mut rest = domain.as_str();
        while let Some((_, above)) = rest.split_once('.') {
            if self.below.contains(above) {
                return true;
            }
            rest = above;
        }
        false
    }
}

impl fmt::Debug for Domains {
    /// In order: what is the same looks the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = |names: &HashSet<Box<str>>| names.iter().cloned().collect::<BTreeSet<_>>();
        let (exact, below) = (sorted(&self.exact), sorted(&self.below));
        f.debug_struct("Domains")
            .field("any", &self.any)
            .field("exact", &exact)
            .field("below", &below)
            .finish()
    }
}

impl Addresses {
    pub(crate) fn new(patterns: &[SenderPattern]) -> Self {
        let domain = |pattern: &'_ SenderPattern| match pattern {
            SenderPattern::Domains(domains) => Some(domains.clone()),
            SenderPattern::Address(_) => None,
        };
        let domains: Vec<_> = patterns.iter().filter_map(domain).collect();
        let address = |pattern: &SenderPattern| match pattern {
            SenderPattern::Domains(_) => None,
            SenderPattern::Address(address) => Some(key(address)),
        };
        Self { domains: Domains::new(&domains), exact: patterns.iter().filter_map(address).collect() }
    }

    pub(crate) fn contains(&self, address: &Address) -> bool {
        self.domains.contains(address.domain_str())
            || (!self.exact.is_empty() && self.exact.contains(&key(address)))
    }
}

/// Looser than RFC 5321 §2.4: whoever puts an address on a list means it however it is written.
fn key(address: &Address) -> Box<str> {
    address.as_str().to_lowercase().into()
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(patterns: &[&str], inside: &[&str], outside: &[&str]) {
        let patterns: Vec<_> = patterns.iter().map(|text| pattern(text)).collect();
        let set = Addresses::new(&patterns);
        for address in inside {
            assert!(set.contains(&address.parse().unwrap()), "{address} in {patterns:?}");
        }
        for address in outside {
            assert!(!set.contains(&address.parse().unwrap()), "{address} in {patterns:?}");
        }
    }

    fn pattern(text: &str) -> SenderPattern {
        let domain = |text: &str| Domain::parse(text).unwrap();
        match text.strip_prefix("*.") {
            _ if text.contains('@') => SenderPattern::Address(text.parse().unwrap()),
            _ if text == "*" => SenderPattern::Domains(DomainPattern::Any),
            Some(below) => SenderPattern::Domains(DomainPattern::Below(domain(below))),
            None => SenderPattern::Domains(DomainPattern::Exact(domain(text))),
        }
    }

    #[test]
    fn in_and_out() {
        check(&[], &[], &["ann@example.org"]);
        check(&["*"], &["ann@example.org", "ann@[192.0.2.1]"], &[]);
        check(&["Example.org"], &["ann@EXAMPLE.ORG"], &["ann@sub.example.org", "ann@notexample.org"]);
        check(
            &["*.example.org"],
            &["ann@sub.example.org", "ann@a.b.Example.org"],
            &["ann@example.org", "ann@subexample.org", "ann@org"],
        );
        check(
            &["Ann@example.org", "*.test"],
            &["ann@Example.org", "a@b.test"],
            &["bob@example.org", "ann@example.com"],
        );
    }
}
