//! Sites whose hosts have addresses of one family alone, as attempts from sources without one of it have found.
//!
//! A pool may have sources with an IPv4 address and others with an IPv6 address. Which hosts a site has is known when somebody
//! connects there; that they cannot be reached from one source is no fault of theirs, and no reason to wait: mail for
//! the site leaves from a source that can, as if the others were out of use. What is remembered is a look saved, and nothing that may not be
//! forgotten.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, time::Duration};

use delivery::{Routes, egress::Source};

/// For each site an address of the family that its hosts have, and until when that is believed.
#[derive(Default)]
pub(crate) struct Families(RefCell<HashMap<Box<str>, (IpAddr, Duration)>>);

/// So long: a host may have an address of the other family meanwhile.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// Sites that are remembered at once; for others each attempt finds out.
const SITES_MAX: usize = 4096;

impl Families {
    /// The hosts of the site with this key, whatever the source in it, have addresses of this family alone.
    pub(crate) fn remember(&self, key: &str, address: IpAddr, now: Duration) {
        let mut sites = self.0.borrow_mut();
        if sites.len() >= SITES_MAX {
            sites.retain(|_, (_, until)| *until > now);
        }
        let key = Routes::without_source(key);
        if sites.len() < SITES_MAX || sites.contains_key(&*key) {
            sites.insert(key.into(), (address, now + GOOD_FOR));
        }
    }

    /// Whether a site cannot be reached from a source, as far as is known.
    pub(crate) fn is_beyond(&self, key: &str, source: &Source, now: Duration) -> bool {
        let sites = self.0.borrow();
        if sites.is_empty() {
            return false;
        }
        let found = sites.get(&*Routes::without_source(key));
        found.is_some_and(|(address, until)| now < *until && !source.can_reach(*address))
    }
}

#[cfg(test)]
mod test {
    use delivery::Sources;

    use super::*;

    #[test]
    fn a_site_is_beyond_sources_without_its_family_for_a_while() {
        let source = |addresses| Source {
            name: "a".into(),
            addresses,
            public: Vec::new(),
            ehlo_name: None,
            identity: None,
            proxy: None,
        };
        let v4 = source(Sources { v4: Some([192, 0, 2, 1].into()), v6: None });
        let v6 = source(Sources { v4: None, v6: Some([0; 16].into()) });
        let (families, now) = (Families::default(), Duration::from_secs(10));
        assert!(!families.is_beyond("hosts:mx.example", &v4, now));
        families.remember("a@hosts:mx.example", "2001:db8::1".parse().unwrap(), now);
        for (key, source, at, expected) in [
            ("b@hosts:mx.example", &v4, now, true),
            ("hosts:mx.example", &v4, now, true),
            ("b@hosts:mx.example", &v6, now, false),
            ("b@hosts:other.example", &v4, now, false),
            ("b@hosts:mx.example", &v4, now + GOOD_FOR, false),
        ] {
            assert_eq!(families.is_beyond(key, source, at), expected, "{key} {at:?}");
        }
    }

    #[test]
    fn there_is_no_end_of_sites_and_an_end_of_memory() {
        let families = Families::default();
        for number in 0..2 * SITES_MAX as u64 {
            families.remember(&number.to_string(), [192, 0, 2, 1].into(), Duration::from_secs(1));
        }
        assert_eq!(families.0.borrow().len(), SITES_MAX);
        families.remember("late", [192, 0, 2, 1].into(), Duration::from_secs(2) + GOOD_FOR);
        assert_eq!(families.0.borrow().len(), 1);
    }
}
