//! Sites: domains whose mail goes to the same hosts are one, and are treated as one.
//!
//! A provider has one door for all the domains it hosts, and counts what comes to it from us without asking for which of
//! them. So connections are opened, shared and limited for the site. It is named by a rule that knows the provider, whatever its
//! hosts are called today: `site:example`; or by its hosts, those of one preference sorted: `hosts:mx1.example,mx2.example>backup.example`.
//! Another order of preference is another site: on a connection to one's first choice the mail of a domain that would rather
//! go elsewhere has no business (RFC 5321 §5.1). A provider's hosts are one farm.

use dns::{Answer, ExchangeHost, Name, Outcome, Records, Security};
use mail::Domain;
use smtp::client::TlsLevel;

use crate::{
    Own, Owner, Owners, Pattern,
    sts::{Mode, Policy},
    without_owner,
};

/// What a provider's hosts are called, or the domains whose mail it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRule {
    /// What the site is called.
    pub name: Box<str>,
    /// It is this one when all mail hosts of a domain are among these.
    pub hosts: Vec<Pattern>,
    /// Or when the domain is.
    pub domains: Vec<Pattern>,
    /// Whose mail it is for. What it limits, it limits for each of them.
    pub owners: Owners,
    /// The least TLS that its hosts have to have, where it asks for some.
    pub tls: Option<TlsLevel>,
}

/// The mail hosts of a domain, as far as they name its site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// These, by preference, and by name where that is the same.
    Shared(Vec<(u16, Name)>),
    /// The domain has hosts of its own, or none that are known: it is a site of its own.
    Own,
}

/// Before the name of a site that a rule knows.
const SITE: &str = "site:";
/// Before the names of its hosts.
const HOSTS: &str = "hosts:";
/// Octets of host names in a site's name. Who has more is a site of its own.
const NAMES_MAX: usize = 4000;

impl SiteRule {
    /// Whether the rule is for this one's mail to this domain, which has these hosts.
    pub fn is_for(&self, owner: Owner<'_>, domain: &Domain, hosts: &[(u16, Name)]) -> bool {
        let is_host = |(_, host): &(u16, Name)| {
            Domain::parse(host.as_str())
                .is_ok_and(|host| self.hosts.iter().any(|pattern| pattern.matches(&host)))
        };
        self.owners.has(owner)
            && (self.domains.iter().any(|pattern| pattern.matches(domain))
                || !hosts.is_empty() && hosts.iter().all(is_host))
    }
}

impl Pattern {
    /// Whether a domain is meant.
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == domain,
            Self::Below(suffix) => {
                let above = domain.as_str().strip_suffix(suffix.as_str());
                above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
            }
        }
    }
}

impl Hosts {
    /// By which rule the domain is a site, to this one's mail: the same for all whose mail may share its connections.
    pub fn rule<'a>(&self, owner: Owner<'_>, domain: &Domain, rules: &'a [SiteRule]) -> Option<&'a SiteRule> {
        let hosts = match self {
            Self::Shared(hosts) => &hosts[..],
            Self::Own => &[],
        };
        rules.iter().find(|rule| rule.is_for(owner, domain, hosts))
    }

    /// From the answer to the question for a domain's MX records.
    ///
    /// Where we are among its hosts ourselves, only those before us may be tried (RFC 5321 §5.1): that is another list for
    /// each order of preferences, and such a domain stays alone.
    pub fn of(answer: &Answer, own: &Own) -> Self {
        let Outcome::Found(Records::Exchanges(exchanges)) = &answer.outcome else { return Self::Own };
        let mut hosts = Vec::with_capacity(exchanges.len());
        for exchange in exchanges {
            match &exchange.host {
                ExchangeHost::Name(name) if own.names.iter().any(|own| **own == *name.as_str()) => {
                    return Self::Own;
                }
                // Another character could pass for a mark in the site's name.
                ExchangeHost::Name(name) if !is_plain(name) => return Self::Own,
                ExchangeHost::Name(name) => hosts.push((exchange.preference, name.clone())),
                ExchangeHost::Null | ExchangeHost::Malformed => {}
            }
        }
        hosts.sort_unstable_by(|(one, name), (other, another)| {
            (one, name.as_str()).cmp(&(other, another.as_str()))
        });
        // One that is named twice is asked at its better place.
        let mut seen = Vec::with_capacity(hosts.len());
        hosts.retain(|(_, name)| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        if hosts.is_empty() { Self::Own } else { Self::Shared(hosts) }
    }

    /// The name of the site of a domain with these hosts, to this one's mail; none when it is a site of its own.
    ///
    /// The hosts are in it to the last one, whether a rule names it or not: mail shares a connection when it would be
    /// connected to the same hosts in the same order, and not because somebody says so of a domain of theirs.
    pub fn site(&self, owner: Owner<'_>, domain: &Domain, rules: &[SiteRule]) -> Option<String> {
        let Self::Shared(hosts) = self else { return None };
        let mut names = String::new();
        let mut preference = None;
        for (next, host) in hosts {
            match preference.replace(*next) {
                None => {}
                Some(before) if before == *next => names.push(','),
                Some(_) => names.push('>'),
            }
            names.push_str(host.as_str());
        }
        if names.len() > NAMES_MAX {
            return None;
        }
        Some(match self.rule(owner, domain, rules) {
            Some(rule) => [SITE, &rule.name, &rule.owners.mark(owner), "+=", &names].concat(),
            None => [HOSTS, &names].concat(),
        })
    }
}

/// What is published about a domain's hosts marks its site: a connection that was held to less is not for its mail.
///
/// Where DNSSEC proves which hosts there are, TLSA records hold them to something (RFC 7672 §2.2.1); an MTA-STS policy holds
/// them to what it says (RFC 8461 §4.1), and domains with the same policy to the same.
pub fn marked(mut site: String, security: Security, policy: Option<&Policy>) -> String {
    if security == Security::Secure {
        site.push_str("+dnssec");
    }
    if let Some(Policy { mode: mode @ (Mode::Enforce | Mode::Testing), mx, .. }) = policy {
        site.push_str(if *mode == Mode::Enforce { "+sts=" } else { "+sts-testing=" });
        let patterns: Vec<_> = mx.iter().map(ToString::to_string).collect();
        site.push_str(&patterns.join(","));
    }
    site
}

fn is_plain(name: &Name) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// A site's name without marks.
pub(crate) fn unmarked(site: &str) -> &str {
    site.split_once('+').map_or(site, |(site, _)| site)
}

/// The name of the rule that a site is named by.
pub fn rule_of_site(site: &str) -> Option<&str> {
    unmarked(site).strip_prefix(SITE).map(without_owner)
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use dns::{Exchange, Security};

    use super::*;

    fn answer(hosts: &[(u16, &str)]) -> Answer {
        let exchange = |(preference, host): &(u16, &str)| Exchange {
            preference: *preference,
            host: match *host {
                "." => ExchangeHost::Null,
                host => ExchangeHost::Name(Name::parse(host).unwrap()),
            },
        };
        let outcome = Outcome::Found(Records::Exchanges(hosts.iter().map(exchange).collect()));
        Answer { outcome, security: Security::Unproven, ttl: Duration::ZERO, alias_of: None }
    }

    const ANYBODY: Owner<'_> = Owner { tenant: None, campaign: None };

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn the_same_hosts_are_one_site_as_long_as_they_are_preferred_alike() {
        let check = |hosts: &[(u16, &str)], site: Option<&str>| {
            let own = Own { names: vec!["us.example".into()], ..Own::default() };
            let found = Hosts::of(&answer(hosts), &own).site(ANYBODY, &domain("a.example"), &[]);
            assert_eq!(found.as_deref(), site, "{hosts:?}");
        };
        check(&[(10, "mx1.example"), (20, "mx2.example")], Some("hosts:mx1.example>mx2.example"));
        check(&[(1, "mx1.example"), (2, "mx2.example")], Some("hosts:mx1.example>mx2.example"));
        check(&[(20, "mx1.example"), (10, "mx2.example")], Some("hosts:mx2.example>mx1.example"));
        let equal = Some("hosts:mx1.example,mx2.example");
        check(&[(5, "mx2.example"), (5, "mx1.example"), (7, "mx1.example")], equal);
        check(&[(0, "mx1.example"), (0, "mx2.example")], equal);
        check(&[(5, "mx2.example")], Some("hosts:mx2.example"));
        check(&[(10, "mx1.example"), (20, "us.example")], None);
        check(&[(0, ".")], None);
    }

    #[test]
    fn what_is_not_known_is_a_site_of_its_own() {
        for outcome in [Outcome::NoData, Outcome::NxDomain, Outcome::TempFail(dns::Failure::Unusable)] {
            let answer =
                Answer { outcome, security: Security::Unproven, ttl: Duration::ZERO, alias_of: None };
            assert_eq!(Hosts::of(&answer, &Own::default()), Hosts::Own);
            assert_eq!(Hosts::Own.site(ANYBODY, &domain("a.example"), &[]), None);
        }
    }

    #[test]
    fn no_host_can_be_left_out_of_a_name_and_none_can_forge_one() {
        let hosts = |last: &str| {
            let mut names: Vec<_> = (0..50).map(|number| format!("mx{number:02}.provider.example")).collect();
            names.push(last.to_owned());
            let list: Vec<_> = names.iter().map(|name| (10, name.as_str())).collect();
            Hosts::of(&answer(&list), &Own::default()).site(ANYBODY, &domain("a.example"), &[])
        };
        assert_ne!(hosts("y.example"), hosts("z.example"));
        assert!(hosts("y.example").is_some_and(|name| name.contains("y.example")));
        let many: Vec<_> = (0..500).map(|number| format!("mx{number:03}.provider.example")).collect();
        let many: Vec<_> = many.iter().map(|name| (10, name.as_str())).collect();
        assert_eq!(Hosts::of(&answer(&many), &Own::default()).site(ANYBODY, &domain("a.example"), &[]), None);
        for forged in ["mx.example+dnssec", "a,b.example", "a>b.example", "mx.example;2"] {
            assert_eq!(Hosts::of(&answer(&[(1, forged)]), &Own::default()), Hosts::Own, "{forged}");
        }
    }

    #[test]
    fn what_holds_hosts_to_something_marks_their_site() {
        let policy = |mode, host: &str| Policy {
            mode,
            max_age: 86_400,
            mx: vec![crate::sts::MxPattern::Host(Name::parse(host).unwrap())],
        };
        let (plain, secure) = (Security::Unproven, Security::Secure);
        let mark = |security, policy: Option<&Policy>| marked("site:a".into(), security, policy);
        assert_eq!(mark(plain, None), "site:a");
        assert_eq!(mark(secure, None), "site:a+dnssec");
        let enforced = policy(Mode::Enforce, "mx.example");
        let all = [
            mark(plain, Some(&enforced)),
            mark(plain, Some(&policy(Mode::Testing, "mx.example"))),
            mark(plain, Some(&policy(Mode::Enforce, "other.example"))),
            mark(secure, Some(&enforced)),
            mark(plain, None),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{all:?}");
            assert_eq!((rule_of_site(one), unmarked(one)), (Some("a"), "site:a"));
        }
        // Domains that say the same share what there is.
        assert_eq!(mark(plain, Some(&policy(Mode::Enforce, "mx.example"))), all[0]);
        assert_eq!(mark(plain, Some(&policy(Mode::None, "mx.example"))), "site:a");
    }

    #[test]
    fn a_rule_names_a_provider() {
        let rule = SiteRule {
            name: "provider".into(),
            hosts: vec![
                Pattern::Below(domain("provider.example")),
                Pattern::Exact(domain("mx.other.example")),
            ],
            domains: vec![Pattern::Exact(domain("mail.example"))],
            owners: Owners::default(),
            tls: Some(TlsLevel::Required),
        };
        let held = |to: &str, hosts: &[(u16, &str)]| {
            let hosts = Hosts::of(&answer(hosts), &Own::default());
            hosts.rule(ANYBODY, &domain(to), std::slice::from_ref(&rule)).and_then(|rule| rule.tls)
        };
        assert_eq!(held("a.example", &[(1, "a.mx.provider.example")]), Some(TlsLevel::Required));
        assert_eq!(held("a.example", &[(1, "a.mx.provider.example"), (2, "backup.example")]), None);
        // Whatever the DNS says of its hosts, or does not.
        assert_eq!(held("mail.example", &[(1, "anything.example")]), Some(TlsLevel::Required));
        assert_eq!(held("mail.example", &[]), Some(TlsLevel::Required));
        let check = |to: &str, hosts: &[(u16, &str)], site: Option<&str>| {
            let hosts = Hosts::of(&answer(hosts), &Own::default());
            let found = hosts.site(ANYBODY, &domain(to), std::slice::from_ref(&rule));
            assert_eq!(found.as_deref(), site, "{to} {hosts:?}");
        };
        let both = Some("site:provider+=a.mx.provider.example>mx.other.example");
        check("a.example", &[(1, "a.mx.provider.example"), (2, "MX.other.example")], both);
        check("a.example", &[(1, "provider.example")], Some("hosts:provider.example"));
        check(
            "a.example",
            &[(1, "x.provider.example"), (2, "backup.example")],
            Some("hosts:x.provider.example>backup.example"),
        );
        check("mail.example", &[(1, "anything.example")], Some("site:provider+=anything.example"));
        check("mail.example", &[], None);
        assert_eq!(rule_of_site("site:provider"), Some("provider"));
        assert_eq!(rule_of_site("hosts:provider"), None);
    }

    #[test]
    fn a_rule_for_some_is_a_site_of_each_of_them() {
        let rule = |name: &str, owners| SiteRule {
            name: name.into(),
            hosts: vec![Pattern::Below(domain("provider.example"))],
            domains: Vec::new(),
            owners,
            tls: None,
        };
        let both = Owners { tenants: vec!["shop".into(), "office".into()], ..Owners::default() };
        let news = Owners { campaigns: vec!["news".into()], ..Owners::default() };
        let rules = [rule("news", news), rule("own", both), rule("all", Owners::default())];
        let hosts = Hosts::of(&answer(&[(1, "mx.provider.example")]), &Own::default());
        for (tenant, campaign, expected, rule) in [
            (None, None, "site:all+=mx.provider.example", "all"),
            (Some("shop"), None, "site:own,tenant=shop+=mx.provider.example", "own"),
            (Some("office"), None, "site:own,tenant=office+=mx.provider.example", "own"),
            (Some("other"), Some("sale"), "site:all+=mx.provider.example", "all"),
            (Some("shop"), Some("news"), "site:news,campaign=news+=mx.provider.example", "news"),
        ] {
            let site = hosts.site(Owner { tenant, campaign }, &domain("a.example"), &rules).unwrap();
            assert_eq!((&*site, rule_of_site(&site)), (expected, Some(rule)));
            // Connections, rates and throttles are those of what stands before the hosts.
            assert_eq!(crate::Routes::limit_key(&site), expected.split_once('+').unwrap().0);
        }
    }
}
