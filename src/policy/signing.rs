//! Which keys sign a message of ours.

use config::DomainPattern;
use mail::{ReversePath, TenantId};
use trust::{Author, Digest};

use crate::{
    Policy,
    names::{Addresses, Domains},
};

/// A message that may be signed.
#[derive(Clone, Copy, Debug)]
pub struct Signable<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// Where reports on it go.
    pub reverse_path: &'a ReversePath,
    /// The message.
    pub digest: &'a Digest,
}

/// For which mail a key is.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    name: Box<str>,
    authors: Domains,
    /// Any, when there is none.
    tenants: Vec<TenantId>,
    /// Any, when there is none.
    senders: Option<Addresses>,
    /// A field and its value.
    when: Option<(Box<str>, Box<str>)>,
}

impl Rule {
    pub(crate) fn new(dkim: &config::Dkim) -> Self {
        let own = dkim.domain.clone().map(DomainPattern::Exact);
        let authors = if dkim.authors.is_empty() { own.as_slice() } else { &dkim.authors };
        Self {
            name: dkim.name.as_str().into(),
            authors: Domains::new(authors),
            tenants: dkim.tenants.iter().map(|name| TenantId::of(name)).collect(),
            senders: (!dkim.senders.is_empty()).then(|| Addresses::new(&dkim.senders)),
            when: dkim.when.as_deref().and_then(|when| {
                let (name, value) = when.split_once(':')?;
                Some((name.into(), value.trim().into()))
            }),
        }
    }
}

impl Policy {
    /// The keys for a message, by their places in the configuration: none where it has no one author.
    pub fn keys<'a>(&'a self, message: Signable<'a>) -> impl Iterator<Item = usize> + 'a {
        let is_for = move |rule: &Rule| {
            let Author::Domain(author) = message.digest.author() else { return false };
            let is_sent = |senders: &Addresses| {
                message.reverse_path.address().is_some_and(|address| senders.contains(address))
            };
            rule.authors.contains(author.as_str())
                && (rule.tenants.is_empty() || rule.tenants.contains(&message.tenant))
                && rule.senders.as_ref().is_none_or(is_sent)
                && rule.when.as_ref().is_none_or(|(name, value)| message.digest.has_field(name, value))
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
    use trust::{Digester, Limits};

    use super::*;

    #[test]
    fn keys_are_for_authors_and_tenants() {
        let text = "[[tenant]]\nname = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n\
                    [[dkim]]\nname = \"a\"\ndomain = \"example.org\"\nselector = \"a\"\nkey = \"a\"\n\
                    [[dkim]]\nname = \"b\"\ndomain = \"example.org\"\nselector = \"b\"\nkey = \"b\"\n\
                    authors = [\"*.example.org\", \"example.net\"]\n\
                    [[dkim]]\nname = \"c\"\ndomain = \"example.org\"\nselector = \"c\"\nkey = \"c\"\n\
                    tenants = [\"Shop\"]\n\
                    [[dkim]]\nname = \"s\"\ndomain = \"example.org\"\nselector = \"s\"\nkey = \"s\"\n\
                    senders = [\"sender.test\", \"ann@news.test\"]\n\
                    [[dkim]]\nname = \"n\"\ndomain = \"example.org\"\nselector = \"n\"\nkey = \"n\"\n\
                    senders = [\"news.test\"]\n\
                    [[dkim]]\nname = \"w\"\ndomain = \"example.org\"\nselector = \"w\"\nkey = \"w\"\n\
                    when = \"x-brand: news\"\n\
                    [[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n";
        let config = Config::from_sources(&[Source { file: "a".into(), text: text.into() }]).unwrap();
        let policy = Policy::new(&config);
        let keys = |author: &str, tenant: &str, more: &str, from: &str| {
            let mut digester = Digester::new(Limits::default());
            digester.push(format!("From: x@{author}\r\n{more}\r\n").as_bytes());
            let reverse_path = match from {
                "" => ReversePath::Null,
                address => ReversePath::Address(address.parse().unwrap()),
            };
            let digest = digester.finish();
            let message =
                Signable { tenant: TenantId::of(tenant), reverse_path: &reverse_path, digest: &digest };
            policy.keys(message).map(|key| policy.key_name(key).to_owned()).collect::<Vec<_>>().concat()
        };
        for (author, tenant, expected) in [
            ("example.org", "other", "a"),
            ("Example.ORG", "shop", "ac"),
            ("news.example.org", "shop", "b"),
            ("example.net", "shop", "b"),
            ("example.com", "shop", ""),
            ("notexample.org", "shop", ""),
        ] {
            assert_eq!(keys(author, tenant, "", ""), expected, "{author} {tenant}");
        }
        for (more, from, expected) in [
            ("", "ann@news.test", "asn"),
            ("", "bob@sender.test", "as"),
            ("X-Brand:  NEWS \r\n", "", "aw"),
            ("X-Brand: new\r\nx-brand: other\r\n", "", "a"),
            ("X-Other: x\r\nX-Brand:\r\n news\r\n", "ann@news.test", "asnw"),
        ] {
            assert_eq!(keys("example.org", "other", more, from), expected, "{more} {from}");
        }
        assert_eq!(policy.key_named("W"), Some(5));
    }
}
