//! Accept, defer or refuse: one verdict per stage.
//!
//! Every verdict is a function of facts that the shard has gathered; nothing here waits, counts or remembers.
//! The rule that matters most: mail to other people's domains is taken from our own networks and from nobody
//! else, so that the default is never an open relay.

mod admission;
mod authenticity;
mod content;
mod etrn;
mod greylisting;
mod names;
mod network;
mod recipient;
mod screening;
mod signing;
mod stranger;
mod tenant;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use config::{Config, DomainKind};
use mail::{Address, Domain, ForwardPath, ReversePath};
use smtp::{Refusal, Role, Verdict};
use trust::KnownDomains;

use crate::{
    etrn::Askers,
    names::{Addresses, Domains},
};

pub use admission::{Connections, Listing, Lists, Pace, Turned};
pub use authenticity::{Against, Treatment, is_vouched_for, trick_action};
pub use content::{Completion, Presence};
pub use etrn::Asker;
pub use greylisting::{Excuses, Newcomer, Treat};
pub use network::Networks;
pub use recipient::{Addressee, Mailbox, Query};
pub use screening::{screened, screening};
pub use signing::Signable;
pub use stranger::{Introduction, Reverse};

/// What the site wants, ready to be asked.
#[derive(Clone, Debug)]
pub struct Policy {
    hostname: Domain,
    relay: Networks,
    domains: HashMap<Domain, recipient::Domain>,
    /// Whether one of them does not take whatever comes.
    choosy: bool,
    lists: Lists,
    connections_max: u32,
    deny_names: Domains,
    deny_senders: Addresses,
    allow_senders: Addresses,
    askers: Vec<Askers>,
    tenants: Vec<tenant::Rule>,
    keys: Vec<signing::Rule>,
    /// What becomes of mail of some authors that does not pass DMARC.
    authors: Vec<(names::Domains, config::AuthAction)>,
    /// Domains that others are not to be taken for.
    known: KnownDomains,
}

/// Whether the client is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In a network that may relay.
    Own,
    /// Anybody else.
    Stranger,
}

/// Who speaks to us, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whether it is one of ours; see [`Policy::standing`].
    pub standing: Standing,
    /// Whom its listener serves.
    pub role: Role,
}

/// What the routes say of a recipient's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// There is a route for it.
    Yes,
    /// There is none.
    No,
}

/// What state we are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// There is room for another message.
    Room,
    /// There is none: the disk, the segments or the queue are full.
    Full,
    /// The disk failed. Nothing can be made durable until somebody has looked.
    Failed,
    /// There is room on disk, but no memory to receive into.
    Busy,
}

impl Policy {
    /// From the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            hostname: config.hostname.clone(),
            relay: Networks::new(&config.relay.networks),
            domains: config
                .domains
                .iter()
                .map(|domain| (domain.name.clone(), recipient::Domain::new(domain)))
                .collect(),
            choosy: config.domains.iter().any(|domain| recipient::Domain::new(domain).is_choosy()),
            lists: Lists::new(config),
            connections_max: config.clients.connections_max,
            deny_names: Domains::new(&config.clients.deny_names),
            deny_senders: Addresses::new(&config.senders.deny),
            allow_senders: Addresses::new(&config.senders.allow),
            askers: config.etrn.iter().map(Askers::new).collect(),
            tenants: config.tenants.iter().map(tenant::Rule::new).collect(),
            keys: config.dkim.iter().map(signing::Rule::new).collect(),
            authors: config
                .author_rules
                .iter()
                .map(|rule| (names::Domains::new(&rule.domains), rule.not_passed))
                .collect(),
            known: authenticity::known(config),
        }
    }

    /// Whether a client at this address may send to any domain.
    pub fn may_relay(&self, address: IpAddr) -> bool {
        self.relay.contains(address)
    }

    /// Whether a client is one of ours. One without an address came by a Unix socket: it is on this host,
    /// and may do what this host may.
    pub fn standing(&self, address: Option<IpAddr>) -> Standing {
        let own = self.may_relay(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if own { Standing::Own } else { Standing::Stranger }
    }

    /// What a domain is to us; `None` when it is somebody else's.
    pub fn domain(&self, domain: &Domain) -> Option<DomainKind> {
        self.domains.get(domain).map(|domain| domain.kind)
    }

    /// May this client send with this reverse-path?
    ///
    /// # Errors
    /// [`Refusal::AuthenticationRequired`] to a stranger on a listener for our own users;
    /// [`Refusal::SenderNotAllowed`] for a reverse-path that is on the list.
    pub fn mail(&self, client: Client, reverse_path: &ReversePath) -> Verdict {
        let denied = |address| self.deny_senders.contains(address) && !self.allow_senders.contains(address);
        if reverse_path.address().is_some_and(denied) {
            return Err(Refusal::SenderNotAllowed);
        }
        match (client.role, client.standing) {
            // RFC 6409 §4.3: "MUST by default issue an error response to the MAIL command if the session has not
            // been authenticated using [SMTP-AUTH], unless it has already independently established
            // authentication or authorization (such as being within a protected subnetwork)".
            (Role::Submission, Standing::Stranger) => Err(Refusal::AuthenticationRequired),
            (Role::Submission, Standing::Own)
            | (Role::Relay | Role::Lmtp, Standing::Own | Standing::Stranger) => Ok(()),
        }
    }

    /// May mail of this client go to this forward-path?
    ///
    /// # Errors
    /// [`Refusal::RelayDenied`] when neither the client nor the domain is ours; [`Refusal::Policy`] when no
    /// route is for it.
    pub fn rcpt(&self, client: Client, forward_path: &ForwardPath, routed: Routed) -> Verdict {
        let address = match forward_path {
            // "Any system that includes an SMTP server supporting mail relaying or delivery MUST support the
            // reserved mailbox "postmaster"" (RFC 5321 §4.5.1).
            ForwardPath::Postmaster => return Ok(()),
            ForwardPath::Address(address) => address,
        };
        match client.standing {
            Standing::Own => {}
            Standing::Stranger if self.is_ours(address) && !is_routed_by_local_part(address) => {}
            Standing::Stranger => return Err(Refusal::RelayDenied),
        }
        match routed {
            Routed::Yes => Ok(()),
            Routed::No => Err(Refusal::Policy),
        }
    }

    /// May the mail data come?
    ///
    /// # Errors
    /// [`Refusal::StorageFull`], [`Refusal::StorageFailed`] or [`Refusal::Busy`]: before the client sends
    /// in vain.
    pub fn data(&self, storage: Storage) -> Verdict {
        match storage {
            Storage::Room => Ok(()),
            Storage::Full => Err(Refusal::StorageFull),
            Storage::Failed => Err(Refusal::StorageFailed),
            Storage::Busy => Err(Refusal::Busy),
        }
    }

    /// Whether a recipient is a postmaster of ours, to whom "every reasonable effort" is to be made that mail from any other
    /// system comes through (RFC 5321 §4.5.1).
    pub fn is_postmaster(&self, forward_path: &ForwardPath) -> bool {
        match forward_path {
            ForwardPath::Postmaster => true,
            ForwardPath::Address(address) => {
                address.local_part().as_str().eq_ignore_ascii_case("postmaster") && self.is_ours(address)
            }
        }
    }

    /// Whether mail to the address is taken from anybody.
    fn is_ours(&self, address: &Address) -> bool {
        let domain = address.domain();
        // Our own name is a domain in that respect (RFC 5321 §4.5.1).
        let own_postmaster =
            || domain == self.hostname && address.local_part().as_str().eq_ignore_ascii_case("postmaster");
        self.domains.contains_key(&domain) || own_postmaster()
    }
}

/// Whether the local-part names another domain, for a host behind us to send the mail on to: the percent hack,
/// a bang path, an address within quotes. Taken from strangers, it would make that host an open relay.
fn is_routed_by_local_part(address: &Address) -> bool {
    address.local_part().as_str().bytes().any(|byte| matches!(byte, b'%' | b'!' | b'@'))
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod test;
