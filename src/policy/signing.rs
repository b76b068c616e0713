//! Which keys sign a message of ours.

use config::DomainPattern;
use mail::TenantId;

use crate::{Policy, names::Domains};

/// For which mail a key is.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    name: Box<str>,
    authors: Domains,
    /// Any, when there is none.
    tenants: Vec<TenantId>,
}

impl Rule {
    pub(crate) fn new(dkim: &config::Dkim) -> Self {
        let own = dkim.domain.clone().map(DomainPattern::Exact);
        let authors = if dkim.authors.is_empty() { own.as_slice() } else { &dkim.authors };
        Self {
            name: dkim.name.as_str().into(),
            authors: Domains::new(authors),
            tenants: dkim.tenants.iter().map(|name| TenantId::of(name)).collect(),
        }
    }
}

impl Policy {
    /// The keys for mail of this author's domain that is this tenant's, by their places in the configuration.
    pub fn keys(&self, author: &str, tenant: TenantId) -> impl Iterator<Item = usize> {
        let is_for = move |rule: &Rule| {
            rule.authors.contains(author) && (rule.tenants.is_empty() || rule.tenants.contains(&tenant))
        };
        self.keys.iter().enumerate().filter(move |(_, rule)| is_for(rule)).map(|(key, _)| key)
    }

    /// The key of that name, by its place in the configuration.
    pub fn key_named(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|rule| rule.name.eq_ignore_ascii_case(name))
    }

    /// What a key is called.
    pub fn key_name(&self, key: usize) -> &str {
        self.keys.get(key).map_or("", |rule| &rule.name)
    }
}

#[cfg(test)]
mod test {
    use config::{Config, Source};

    use super::*;

    #[test]
    fn keys_are_for_authors_and_tenants() {
        let text = "[[tenant]]\nname = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n\
                    [[dkim]]\nname = \"a\"\ndomain = \"example.org\"\nselector = \"a\"\nkey = \"a\"\n\
                    [[dkim]]\nname = \"b\"\ndomain = \"example.org\"\nselector = \"b\"\nkey = \"b\"\n\
                    authors = [\"*.example.org\", \"example.net\"]\n\
                    [[dkim]]\nname = \"c\"\ndomain = \"example.org\"\nselector = \"c\"\nkey = \"c\"\n\
                    tenants = [\"Shop\"]\n\
                    [[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n";
        let config = Config::from_sources(&[Source { file: "a".into(), text: text.into() }]).unwrap();
        let policy = Policy::new(&config);
        let keys = |author: &str, tenant: &str| {
            let keys = policy.keys(author, TenantId::of(tenant));
            keys.map(|key| policy.key_name(key).to_owned()).collect::<Vec<_>>().concat()
        };
        for (author, tenant, expected) in [
            ("example.org", "other", "a"),
            ("Example.ORG", "shop", "ac"),
            ("news.example.org", "shop", "b"),
            ("example.net", "shop", "b"),
            ("example.com", "shop", ""),
            ("notexample.org", "shop", ""),
        ] {
            assert_eq!(keys(author, tenant), expected, "{author} {tenant}");
        }
    }
}
