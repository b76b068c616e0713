//! Who may ask for which domain's waiting mail (RFC 1985).

use std::net::IpAddr;

use config::DomainPattern;
use mail::{Domain, Node, Reach};
use smtp::{Refusal, Verdict};

use crate::{Networks, Policy};

/// Who asks: an address where that says who it is, and the SHA-256 of the certificate that was shown, if one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// What it has shown.
    pub certificate: Option<[u8; 32]>,
}

/// Clients that may ask for the mail of domains.
#[derive(Clone, Debug)]
pub(crate) struct Askers {
    networks: Networks,
    certificates: Vec<[u8; 32]>,
    domains: Vec<DomainPattern>,
}

impl Askers {
    pub(crate) fn new(rule: &config::Etrn) -> Self {
        Self {
            networks: Networks::new(&rule.networks),
            certificates: rule.certificates.iter().map(|certificate| *certificate.as_bytes()).collect(),
            domains: rule.domains.clone(),
        }
    }

    fn are(&self, asker: Asker) -> bool {
        asker.address.is_some_and(|address| self.networks.contains(address))
            || asker.certificate.is_some_and(|certificate| self.certificates.contains(&certificate))
    }

    /// "only allow certain combinations for each of the nodes" (RFC 1985 §5.3): all that is asked for must be theirs.
    fn may_have(&self, node: &Node) -> bool {
        let itself = self.domains.iter().any(|pattern| is_of(pattern, &node.domain));
        let all_below = || {
            self.domains.iter().any(|pattern| match pattern {
                DomainPattern::Any => true,
                DomainPattern::Below(parent) => *parent == node.domain || is_of(pattern, &node.domain),
                DomainPattern::Exact(_) => false,
            })
        };
        match node.reach {
            Reach::Itself => itself,
            Reach::Below => itself && all_below(),
        }
    }
}

pub(crate) fn is_of(pattern: &DomainPattern, domain: &Domain) -> bool {
    match pattern {
        DomainPattern::Any => true,
        DomainPattern::Exact(exact) => exact == domain,
        DomainPattern::Below(parent) => {
            let below = Node { domain: parent.clone(), reach: Reach::Below };
            below.covers(domain) && parent != domain
        }
    }
}

impl Policy {
    /// Whether a client may ask for any domain's mail: then it is told of the command.
    pub fn offers_etrn(&self, asker: Asker) -> bool {
        self.askers.iter().any(|askers| askers.are(asker))
    }

    /// Whether a client may come for any domain's mail: only a certificate says who it is, for a host may be given
    /// another's address, and no mail of that one (RFC 2645 §8).
    pub fn offers_atrn(&self, certificate: Option<[u8; 32]>) -> bool {
        self.askers.iter().any(|askers| certificate.is_some_and(|own| askers.certificates.contains(&own)))
    }

    /// May it have the mail of this domain?
    pub fn may_fetch(&self, certificate: [u8; 32], domain: &Domain) -> bool {
        self.askers.iter().any(|askers| {
            askers.certificates.contains(&certificate)
                && askers.domains.iter().any(|pattern| is_of(pattern, domain))
        })
    }

    /// May it have the mail of all of them? "the provider MUST NOT send mail for any domains to the customer" otherwise
    /// (RFC 2645 §5.2.1).
    ///
    /// # Errors
    /// [`Refusal::FetchNotAllowed`].
    pub fn atrn(&self, certificate: [u8; 32], domains: &[Domain]) -> Verdict {
        let may = domains.iter().all(|domain| self.may_fetch(certificate, domain));
        if may { Ok(()) } else { Err(Refusal::FetchNotAllowed) }
    }

    /// May it ask for this?
    ///
    /// # Errors
    /// [`Refusal::NodeNotAllowed`].
    pub fn etrn(&self, asker: Asker, node: &Node) -> Verdict {
        let may = self.askers.iter().any(|askers| askers.are(asker) && askers.may_have(node));
        if may { Ok(()) } else { Err(Refusal::NodeNotAllowed) }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn clients_ask_for_what_is_theirs() {
        let askers = |domains: &[&str]| {
            let domain = |text: &str| Domain::parse(text).unwrap();
            let pattern = |text: &&str| match text.strip_prefix("*.") {
                Some(parent) => DomainPattern::Below(domain(parent)),
                None if *text == "*" => DomainPattern::Any,
                None => DomainPattern::Exact(domain(text)),
            };
            let rule = config::Etrn {
                name: "branch".into(),
                networks: vec!["192.0.2.0/24".parse().unwrap()],
                certificates: Vec::new(),
                domains: domains.iter().map(pattern).collect(),
            };
            Askers::new(&rule)
        };
        for (domains, node, expected) in [
            (&["x.example"][..], "x.example", true),
            (&["x.example"], "a.x.example", false),
            (&["x.example"], "@x.example", false),
            (&["*.x.example"], "x.example", false),
            (&["*.x.example"], "a.x.example", true),
            (&["*.x.example"], "@a.x.example", true),
            (&["*.x.example"], "@x.example", false),
            (&["x.example", "*.x.example"], "@x.example", true),
            (&["*.x.example"], "@y.example", false),
            (&["*"], "@x.example", true),
            (&[], "x.example", false),
        ] {
            assert_eq!(askers(domains).may_have(&Node::parse(node).unwrap()), expected, "{domains:?} {node}");
        }
    }
    #[test]
    fn clients_are_known_by_address_or_certificate() {
        let hash = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let text = format!(
            "hostname = \"mx.example\"\n[[listener]]\nname = \"a\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n\
             [[etrn]]\nname = \"a\"\nnetworks = [\"192.0.2.0/24\"]\ndomains = [\"a.example\"]\n\
             [[etrn]]\nname = \"b\"\ncertificates = [\"{}\"]\ndomains = [\"b.example\"]\n",
            hash("1")
        );
        let config = config::Config::from_sources(&[config::Source { file: "c.toml".into(), text }]).unwrap();
        let policy = Policy::new(&config);
        let near = Some([192, 0, 2, 7].into());
        let far = Some([198, 51, 100, 7].into());
        for (address, certificate, a, b) in [
            (near, None, true, false),
            (near, Some([0x11; 32]), true, true),
            (far, Some([0x11; 32]), false, true),
            (None, Some([0x11; 32]), false, true),
            (far, Some([0x22; 32]), false, false),
            (None, None, false, false),
        ] {
            let asker = Asker { address, certificate };
            let may = |domain: &str| policy.etrn(asker, &Node::parse(domain).unwrap()).is_ok();
            assert_eq!((may("a.example"), may("b.example")), (a, b), "{asker:?}");
            assert_eq!(policy.offers_etrn(asker), a || b, "{asker:?}");
            // To come for it takes a certificate.
            let known = certificate == Some([0x11; 32]);
            assert_eq!(policy.offers_atrn(certificate), known, "{asker:?}");
            let domains = ["b.example", "a.example"].map(|text| Domain::parse(text).unwrap());
            let own = certificate.unwrap_or_default();
            assert_eq!(policy.atrn(own, &domains[..1]).is_ok(), known, "{asker:?}");
            assert_eq!(policy.atrn(own, &domains), Err(Refusal::FetchNotAllowed), "{asker:?}");
        }
    }
}
