//! Whose mail it is: tenants share the queue by their weights, so that the crowd of one is no concern of another.

use config::DomainPattern;
use mail::{ReversePath, TenantId};

use crate::{Asker, Networks, Policy, etrn::is_of};

/// Which mail is a tenant's.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    id: TenantId,
    networks: Networks,
    certificates: Vec<[u8; 32]>,
    api_keys: Vec<String>,
    /// Any, when there is none.
    senders: Vec<DomainPattern>,
}

impl Rule {
    pub(crate) fn new(tenant: &config::Tenant) -> Self {
        Self {
            id: TenantId::of(&tenant.name),
            networks: Networks::new(&tenant.networks),
            certificates: tenant.certificates.iter().map(|certificate| *certificate.as_bytes()).collect(),
            api_keys: tenant.api_keys.clone(),
            senders: tenant.senders.clone(),
        }
    }

    fn is_for(&self, asker: Asker, api_key: Option<&str>, reverse_path: &ReversePath) -> bool {
        let brings = asker.address.is_some_and(|address| self.networks.contains(address))
            || asker.certificate.is_some_and(|certificate| self.certificates.contains(&certificate))
            || api_key.is_some_and(|key| self.api_keys.iter().any(|own| own.eq_ignore_ascii_case(key)));
        let sends = || {
            let domain = reverse_path.address().map(mail::Address::domain);
            domain.is_some_and(|domain| self.senders.iter().any(|pattern| is_of(pattern, &domain)))
        };
        brings && (self.senders.is_empty() || sends())
    }
}

impl Policy {
    /// Whose a message is that somebody of ours brings: the first tenant's that it may be; nobody's in particular when there
    /// is none. A stranger's is never a tenant's: anybody may write any reverse-path.
    pub fn tenant(&self, asker: Asker, api_key: Option<&str>, reverse_path: &ReversePath) -> TenantId {
        let rule = self.tenants.iter().find(|rule| rule.is_for(asker, api_key, reverse_path));
        rule.map_or(TenantId::NOBODY, |rule| rule.id)
    }
}

#[cfg(test)]
mod test {
    use config::{Config, Tenant};
    use mail::Domain;

    use super::*;

    #[test]
    fn the_first_tenant_that_it_may_be() {
        let named = |name: &str| Tenant { name: name.into(), ..Tenant::default() };
        let example = DomainPattern::Below(Domain::parse("example").unwrap());
        let tenants = vec![
            Tenant {
                networks: vec!["192.0.2.0/24".parse().unwrap()],
                senders: vec![example],
                ..named("news")
            },
            Tenant { networks: vec!["192.0.2.0/24".parse().unwrap()], ..named("office") },
            Tenant { api_keys: vec!["shop".into()], ..named("shop") },
        ];
        let policy = Policy::new(&Config { tenants, ..Config::default() });
        let check = |address: Option<&str>, key, from: &str, expected: Option<&str>| {
            let asker = Asker { address: address.map(|text| text.parse().unwrap()), certificate: None };
            let from = match from {
                "" => ReversePath::Null,
                from => ReversePath::Address(from.parse().unwrap()),
            };
            let expected = expected.map_or(TenantId::NOBODY, TenantId::of);
            assert_eq!(policy.tenant(asker, key, &from), expected, "{address:?} {key:?} {from}");
        };
        check(Some("192.0.2.1"), None, "ann@list.example", Some("news"));
        check(Some("192.0.2.1"), None, "ann@example.org", Some("office"));
        check(Some("192.0.2.1"), None, "", Some("office"));
        check(Some("198.51.100.1"), None, "ann@list.example", None);
        check(None, Some("Shop"), "ann@example.org", Some("shop"));
        check(None, None, "ann@example.org", None);
    }
}
