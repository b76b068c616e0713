//! What is checked: the domain, and what this host does with its mail.

use std::net::IpAddr;

use dns::Name;
use trust::{DnsList, Limits, Signer};

/// What is checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The domain, as it stands behind the `@` of authors.
    pub domain: Name,
    /// From where its mail leaves.
    pub addresses: Vec<EgressAddress>,
    /// Domains that reverse-paths of it may have instead: those of reports, and of mail that is passed on.
    pub reverse_paths: Vec<Name>,
    /// What signs it.
    pub signers: Vec<Signer>,
    /// Who is asked about its addresses, and about itself.
    pub lists: Vec<DnsList>,
    /// What is done for those who want to leave a list of it.
    pub unsubscribe: UnsubscribeLinks,
    /// The port of its mail hosts.
    pub port: u16,
    /// Whether they are connected to.
    pub connects: bool,
    /// How much is looked up at most.
    pub limits: Limits,
}

impl Plan {
    /// Whether hosts may be anywhere: for trials, which have a port of their own. Else what a domain's owner writes
    /// into the DNS leads nowhere behind our own walls.
    pub(crate) const fn is_trial(&self) -> bool {
        self.port != 25
    }
}

/// An address that mail leaves from, as the world sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressAddress {
    /// The address.
    pub address: IpAddr,
    /// As what we greet from there.
    pub ehlo: String,
    /// Where that is configured, in words.
    pub from: String,
}

/// Whether messages get a link to leave a list by one click (RFC 8058).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsubscribeLinks {
    /// There is nothing that links could lead to.
    Unconfigured,
    /// There is, and nobody's mail gets one.
    Unused,
    /// Mail of tenants gets them: this is one for nobody.
    Used(String),
}
