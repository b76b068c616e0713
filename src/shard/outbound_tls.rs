//! TLS towards next hops: which configuration a connection has, and what a domain says of its hosts.
//!
//! `delivery` decides what a host is held to, `tls` whether it keeps to it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use bridge::{PolicyErrand, PolicyFound};
use delivery::{
    Basis, Hop, TlsLevel, TlsPolicy,
    dane::{DaneHost, DaneUsage, Matching, Selector},
    sts::{FetchFailure, Look, Policy},
    tally::{Detail, Finding, Reported, TlsResult},
};
use dns::{Name, Question};
use tls::{
    Association, Authentication, ClientConfig, Dane, Form, Holder, Identity, Judge, Part, SettingsError,
    Version,
};

use crate::{facts, shard::Shard, socket::Socket};

/// What our clients speak, by the certificate that they show.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// None.
    pub nameless: Speaking,
    /// The one in this file.
    pub by_certificate: BTreeMap<Box<str>, Speaking>,
    /// Whose word counts.
    pub judge: Judge,
}

/// What clients that show the same certificate speak.
#[derive(Clone)]
pub struct Speaking {
    /// What they show.
    pub identity: Option<Identity>,
    /// To next hops whose certificate does not matter.
    pub lenient: Arc<ClientConfig>,
    /// Where it does.
    pub verified: Arc<ClientConfig>,
}

/// What a configuration is made of: the file of our certificate, and the records.
type Asked = (Box<str>, Dane);

/// What one shard's clients speak.
#[derive(Debug)]
pub(crate) struct OutboundTls {
    clients: Option<ClientTls>,
    /// To hosts with TLSA records: one for each set of records, so that sessions can be resumed there.
    by_records: RefCell<HashMap<Asked, Arc<ClientConfig>>>,
}

/// Whether a host kept to what its protection was decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    No,
}

/// Sets of records whose configuration is kept; then all are forgotten, and with them sessions that could be resumed.
const RECORD_SETS_MAX: usize = 1000;
/// Sessions of one host that are kept for resumption.
const SESSIONS_MAX: usize = 8;

impl OutboundTls {
    pub(crate) fn new(clients: Option<ClientTls>) -> Self {
        Self { clients, by_records: RefCell::default() }
    }

    /// What is spoken to a host at this level, by whoever shows that certificate; and the name that it is asked for.
    pub(crate) fn configuration(
        &self,
        certificate: Option<&str>,
        hop: &Hop,
        level: TlsLevel,
    ) -> Result<Option<(Arc<ClientConfig>, String)>, SettingsError> {
        let Some(clients) = &self.clients else { return Ok(None) };
        let speaking =
            certificate.and_then(|file| clients.by_certificate.get(file)).unwrap_or(&clients.nameless);
        let named = |config: &Arc<ClientConfig>| Ok(Some((config.clone(), name(hop))));
        match (level, &hop.basis) {
            (TlsLevel::None, _) => Ok(None),
            (TlsLevel::Opportunistic | TlsLevel::Required, _) => named(&speaking.lenient),
            (TlsLevel::Verified | TlsLevel::Demanded, Basis::Dane(host)) => {
                let config = self.by_records(certificate.unwrap_or_default(), speaking, host)?;
                Ok(Some((config, host.base.to_string())))
            }
            (
                TlsLevel::Verified | TlsLevel::Demanded,
                Basis::Route | Basis::DaneUnusable | Basis::Sts(_) | Basis::StsTesting(_),
            ) => named(&speaking.verified),
        }
    }

    fn by_records(
        &self,
        certificate: &str,
        speaking: &Speaking,
        host: &DaneHost,
    ) -> Result<Arc<ClientConfig>, SettingsError> {
        let key = (certificate.into(), dane(host));
        let mut known = self.by_records.borrow_mut();
        if let Some(config) = known.get(&key) {
            return Ok(config.clone());
        }
        let authentication = Authentication::Records(&key.1);
        let config =
            tls::client_config_as(speaking.identity.as_ref(), authentication, Version::Tls12, SESSIONS_MAX)?;
        if known.len() >= RECORD_SETS_MAX {
            known.clear();
        }
        known.insert(key, config.clone());
        Ok(config)
    }

    /// Whether a host whose certificate does not matter has shown one that would do, and why not.
    pub(crate) fn judge(&self, socket: &Socket, hop: &Hop) -> Result<(), tls::TlsError> {
        match &self.clients {
            Some(clients) => socket.verify_peer(
                &clients.judge,
                &name(hop),
                std::time::Duration::from_micros(ring::clock::unix_micros()),
            ),
            None => Ok(()),
        }
    }
}

/// The policy of a domain whose TXT record has this id now. Mail waits for it.
pub(crate) async fn policy(shard: &Shard, domain: &Name, id: Option<&str>) -> PolicyFound {
    let now = facts::now();
    match (shard.policies.look(domain, id, now), id) {
        (Look::Known(policy, failure), _) => PolicyFound { policy, failure },
        (Look::Fetch, None) => PolicyFound::default(),
        (Look::Fetch, Some(id)) => {
            let none = |why: &str| shard.policies.failed(domain, FetchFailure::Fetch(why.into()), now);
            let Ok(host) = Name::parse(&format!("mta-sts.{domain}")) else {
                return none("the name of its host is too long");
            };
            let asked = [Question::aaaa(host.clone()), Question::a(host.clone())]
                .map(|question| shard.resolve.ask(&question));
            let mut addresses: Vec<IpAddr> = Vec::new();
            for answer in asked {
                addresses.extend(answer.await.addresses());
            }
            if addresses.is_empty() {
                return none(&format!("{host} has no address"));
            }
            let errand = PolicyErrand { domain: domain.clone(), id: id.into(), host, addresses };
            shard.policies.fetch(errand, now).await
        }
    }
}

/// Whether a host in testing mode is named by the policy and would have passed (RFC 8461 §5).
pub(crate) fn keeps_to(
    policy: &Policy,
    outbound: &OutboundTls,
    socket: &Socket,
    hop: &Hop,
) -> Result<(), (TlsResult, Option<String>)> {
    if !host_name(hop).is_some_and(|host| policy.names(&host)) {
        return Err((TlsResult::ValidationFailure, Some("the policy does not name the host".to_owned())));
    }
    outbound.judge(socket, hop).map_err(|error| (result_of(&error), Some(error.to_string())))
}

/// Counts for the report that the domain may ask for how it went with a host.
pub(crate) fn report(
    shard: &Shard,
    domain: &Name,
    hop: &Hop,
    result: Result<(), (TlsResult, Option<String>)>,
) {
    let policy = match &hop.basis {
        Basis::Dane(host) => Reported::records(host),
        Basis::DaneUnusable => Reported::Tlsa(host_name(hop).unwrap_or_else(|| domain.clone()), Vec::new()),
        Basis::Sts(policy) | Basis::StsTesting(policy) => Reported::Sts(domain.clone(), Some(policy.clone())),
        Basis::Route => Reported::NotFound(domain.clone()),
    };
    // "None of the records in the RRset were found to be valid" (RFC 8460 §4.3.2.1), though TLS stands.
    let result = match (result, &hop.basis) {
        (Ok(()), Basis::DaneUnusable) => Err((TlsResult::TlsaInvalid, None)),
        (result, _) => result,
    };
    let mut tally = shard.tally.borrow_mut();
    match result {
        Ok(()) => tally.succeeded(domain, policy),
        Err((result, reason)) => {
            let remote = &hop.remote;
            let (host, reason) = (Some(remote.name.clone()), reason.map(Into::into));
            let detail = Detail { result, from: hop.source, host, to: remote.address(), reason };
            tally.failed(domain, policy, detail);
        }
    }
}

/// The same for what came out before there was a connection.
pub(crate) fn report_findings(shard: &Shard, domain: &Name, findings: Vec<Finding>) {
    let mut tally = shard.tally.borrow_mut();
    for Finding { policy, detail } in findings {
        tally.failed(domain, policy, detail);
    }
}

/// The same for a policy that cannot be had.
pub(crate) fn report_policy(shard: &Shard, domain: &Name, failure: &FetchFailure) {
    let (result, reason) = (TlsResult::of_fetch(failure), Some(failure.to_string().into()));
    let detail = Detail { result, from: None, host: None, to: None, reason };
    shard.tally.borrow_mut().failed(domain, Reported::Sts(domain.clone(), None), detail);
}

/// What is wrong, in the words of a report.
pub(crate) const fn result_of(error: &tls::TlsError) -> TlsResult {
    match error.flaw() {
        tls::Flaw::Name => TlsResult::CertificateHostMismatch,
        tls::Flaw::Time => TlsResult::CertificateExpired,
        tls::Flaw::Issuer => TlsResult::CertificateNotTrusted,
        tls::Flaw::Other => TlsResult::ValidationFailure,
    }
}

fn host_name(hop: &Hop) -> Option<Name> {
    Name::parse(&hop.remote.name).ok()
}

/// As it is counted.
pub(crate) const fn label(policy: TlsPolicy) -> watch::TlsPolicy {
    match policy {
        TlsPolicy::None => watch::TlsPolicy::None,
        TlsPolicy::Opportunistic => watch::TlsPolicy::Opportunistic,
        TlsPolicy::Required => watch::TlsPolicy::Required,
        TlsPolicy::Verified => watch::TlsPolicy::Verified,
        TlsPolicy::Dane => watch::TlsPolicy::Dane,
        TlsPolicy::DaneUnusable => watch::TlsPolicy::DaneUnusable,
        TlsPolicy::Sts => watch::TlsPolicy::Sts,
        TlsPolicy::StsTesting => watch::TlsPolicy::StsTesting,
    }
}

/// A next hop without a name has an address literal in its place, which is no name for TLS.
fn name(hop: &Hop) -> String {
    let remote = &hop.remote;
    let literal = remote.address().filter(|_| remote.name.starts_with('['));
    literal.map_or_else(|| remote.name.to_string(), |address| address.to_string())
}

/// What `delivery` has read, in the words of `tls`.
fn dane(host: &DaneHost) -> Dane {
    let records = host.records.iter().map(|record| Association {
        holder: match record.usage {
            DaneUsage::TrustAnchor => Holder::Authority,
            DaneUsage::EndEntity => Holder::Server,
        },
        part: match record.selector {
            Selector::Certificate => Part::Certificate,
            Selector::PublicKey => Part::PublicKey,
        },
        form: match record.matching {
            Matching::Full => Form::Full,
            Matching::Sha256 => Form::Sha256,
            Matching::Sha512 => Form::Sha512,
        },
        data: record.data.clone(),
    });
    Dane { records: records.collect(), names: host.names.iter().map(ToString::to_string).collect() }
}

// What is in there is none of our settings, and has no words that could be compared.
impl fmt::Debug for Speaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Speaking")
    }
}
