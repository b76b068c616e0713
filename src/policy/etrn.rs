//! Who may ask for which domain's waiting mail (RFC 1985).

use std::net::IpAddr;

use config::DomainPattern;
use mail::{Domain, Node, Reach};
use smtp::{Refusal, Verdict};

use crate::{Networks, Policy};

/// Clients that may ask for the mail of domains.
#[derive(Clone, Debug)]
pub(crate) struct Askers {
    networks: Networks,
    domains: Vec<DomainPattern>,
}

impl Askers {
    pub(crate) fn new(rule: &config::Etrn) -> Self {
        Self { networks: Networks::new(&rule.networks), domains: rule.domains.clone() }
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

fn is_of(pattern: &DomainPattern, domain: &Domain) -> bool {
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
    /// Whether a client at this address may ask for any domain's mail: then it is told of the command.
    pub fn offers_etrn(&self, address: IpAddr) -> bool {
        self.askers.iter().any(|askers| askers.networks.contains(address))
    }

    /// May it ask for this?
    ///
    /// # Errors
    /// [`Refusal::NodeNotAllowed`].
    pub fn etrn(&self, address: IpAddr, node: &Node) -> Verdict {
        let may = self.askers.iter().any(|askers| askers.networks.contains(address) && askers.may_have(node));
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
}
