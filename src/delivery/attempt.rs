//! One attempt to reach a destination: which host is asked for, connected to, and when to give up.
//!
//! ```text
//!  start --> Ask MX --> AskPolicy --> Ask addresses of a host --> Ask its TLSA records --> Connect --+--> session: transactions, fates
//!    |                    ^  ^                       ^  |     |
//!    +--- named hosts ----+  |   no answer, no TLS --+  |     | lost, refused
//!    +--- an address --------|--------------------------+     |
//!                            +--- next host ------------------+
//!                            +--- none left --> End(outcome for all who remain)
//! ```
//!
//! The driver does each [`Step`] and tells what came of it. For [`Step::Connect`] it asks its
//! [`TlsMemory`](crate::TlsMemory) for the level first, and tells it ([`TlsMemory::remember`](crate::TlsMemory::remember)) when a
//! session with [`TlsLevel::Opportunistic`] ends with a failed handshake; the attempt then gives the same host once more
//! with [`TlsLevel::None`]. When the session has ended and recipients remain, [`Attempt::on_ending`] says how to go on.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use dns::{Answer, ExchangeHost, Kind, Name, Outcome as Dns, Question, Records, Security};
use mail::{Domain, Status};
use smtp::client::{Ending, Loss, NoLogin, Protocol, ReplyClass, Stage, TlsLevel};

use crate::{
    Basis, DaneUse, Demand, Endpoint, Family, Outcome, Place, Protection, Remote, Route, Sources, StsUse,
    Teller, TlsPolicy, Via,
    dane::{self, DaneHost},
    protection::{Published, Terms, rank},
    sts::{self, Policy},
    tally::{Detail, Finding, Reported, TlsResult},
};

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Ask these questions, all at once, then call [`Attempt::on_answers`] with the answers in their order.
    Ask(Vec<Question>),
    /// Look up the MTA-STS policy of this domain, whose TXT record has this id, if it has one; then call
    /// [`Attempt::on_policy`].
    AskPolicy(Name, Option<Box<str>>),
    /// Connect, then run a session; or call [`Attempt::on_connect_failed`].
    Connect(Hop),
    /// Wait for what is under way: connections, or answers.
    Await,
    /// Nothing is left to try: this is the outcome for all recipients that remain.
    End(Outcome),
}

/// A host to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Which, and where.
    pub remote: Arc<Remote>,
    /// How much TLS.
    pub tls: TlsLevel,
    /// Why, and by whose word the host is proven.
    pub basis: Basis,
    /// From which of our addresses.
    pub source: Option<IpAddr>,
}

impl Hop {
    /// By which its protection is decided, at the level that the connection really has.
    pub const fn policy(&self, tls: TlsLevel) -> TlsPolicy {
        TlsPolicy::of(&self.basis, tls)
    }
}

/// Who we are, so that mail for ourselves is not sent in circles (RFC 5321 §5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The names of this host, in lower case.
    pub names: Vec<Box<str>>,
    /// Its addresses. Loopback and unspecified addresses always are.
    pub addresses: Vec<IpAddr>,
    /// The ports at which it takes mail.
    pub ports: Vec<u16>,
}

/// Upper bounds of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimits {
    /// Hosts of a domain.
    pub hosts_max: usize,
    /// Addresses of a host; at least 2 (RFC 5321 §5.1).
    pub addresses_max: usize,
    /// Addresses tried in all.
    pub connections_max: usize,
    /// Connections on their way at once.
    pub connecting_max: usize,
    /// Connections made again to a host that has taken its fill of transactions.
    pub reconnections_max: usize,
}

/// What becomes of mail when a next hop refuses our login for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusedLogin {
    /// It waits: whoever runs this server has to see to it, and senders cannot.
    #[default]
    Defers,
    /// It comes back.
    Fails,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// Nobody answers.
    #[error("connection timed out")]
    TimedOut,
    /// No way leads there.
    #[error("host or network unreachable")]
    Unreachable,
    /// Something else, in the system's words.
    #[error("cannot connect: {0}")]
    Other(Box<str>),
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    own: Arc<Own>,
    limits: AttemptLimits,
    /// What all hosts are held to.
    terms: Terms,
    sts: StsUse,
    /// Whether DNSSEC or the operator says which hosts there are.
    proven: bool,
    /// Whether the hosts keep the mail, and relay none.
    is_final: bool,
    /// Names of the domain: as it was asked for, and at the end of its aliases.
    domains: Vec<Name>,
    /// What the host that is tried is held to.
    protection: Protection,
    /// What domains would like to hear of.
    findings: Vec<Finding>,
    family: Family,
    sources: Sources,
    refused_login: RefusedLogin,
    random: u64,
    origin: Origin,
    /// Hosts that are still to be tried.
    hosts: VecDeque<Candidate>,
    /// Addresses of the host that is tried, still to be tried.
    addresses: VecDeque<Remote>,
    /// Where connections were tried: two hosts may share an address.
    tried: Vec<Endpoint>,
    /// The preference of the host that is tried.
    preference: u16,
    /// What is being connected to, where that is more than one.
    racing: Vec<Hop>,
    /// What was being connected to when another was quicker.
    spare: VecDeque<Hop>,
    reconnections: usize,
    /// What [`Step::End`] will say, as things stand.
    verdict: Option<Outcome>,
    waiting: Waiting,
}

/// Where the hosts are from: only what strangers say can lead to ourselves by mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// MX records, or the domain itself in their place.
    Mx(Domain, u16),
    /// An operator.
    Route(Vec<crate::HopHost>),
}

#[derive(Clone, Debug)]
struct Candidate {
    place: Place,
    port: u16,
    preference: u16,
}

/// A host whose addresses are known.
#[derive(Debug)]
struct Located {
    name: Name,
    /// What it is an alias of, when it is one.
    alias_of: Option<Name>,
    host: Candidate,
    addresses: Vec<IpAddr>,
}

/// What the driver was asked to do.
#[derive(Debug)]
enum Waiting {
    Start,
    Mx(Name),
    Policy(Name, Arc<Answer>),
    Addresses(Name, Candidate),
    /// Whether DNSSEC proves that the host is an alias.
    Alias(Located),
    /// The TLSA records for the first of these names.
    Tlsa(Located, VecDeque<Name>),
    Session(Hop),
    /// Nothing but connections on their way.
    Race,
    Ended,
}

/// "REQUIRETLS support required" (RFC 8689 §4.2.1).
const REQUIRETLS: Status = Status(5, 7, 30);
/// "Authentication credentials invalid" (RFC 4954 §6).
const CREDENTIALS_INVALID: Status = Status(5, 7, 8);
/// "Encryption needed" (RFC 8689 §4.2.1).
const ENCRYPTION_NEEDED: Status = Status(5, 7, 10);

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            hosts_max: 10,
            addresses_max: 5,
            connections_max: 10,
            connecting_max: 4,
            reconnections_max: 100,
        }
    }
}

impl Attempt {
    /// An attempt to deliver to a domain by a route. The seed decides the order of equals.
    ///
    /// # Panics
    /// When the route discards or holds, or the pool delivers: no connection is made by it.
    pub fn new(route: &Route, domain: &Domain, own: Arc<Own>, limits: AttemptLimits, seed: u64) -> Self {
        let origin = match &route.via {
            Via::Mx(port) => Origin::Mx(domain.clone(), *port),
            Via::NextHop(hosts) => Origin::Route(hosts.clone()),
            via @ (Via::Discard | Via::Hold | Via::Reports | Via::Pool(_)) => {
                unreachable!("no attempt is made via {via:?}")
            }
        };
        Self {
            own,
            limits,
            terms: Terms {
                tls: route.options.tls,
                demand: Demand::None,
                dane: route.options.dane,
                policy: None,
            },
            sts: route.options.sts,
            proven: matches!(route.via, Via::NextHop(_)),
            is_final: route.options.protocol == Protocol::Lmtp,
            domains: Vec::new(),
            protection: Protection { tls: route.options.tls, basis: Basis::Route },
            findings: Vec::new(),
            family: route.options.family,
            sources: route.options.sources,
            refused_login: RefusedLogin::default(),
            random: seed,
            origin,
            hosts: VecDeque::new(),
            addresses: VecDeque::new(),
            tried: Vec::new(),
            preference: 0,
            racing: Vec::new(),
            spare: VecDeque::new(),
            reconnections: 0,
            verdict: None,
            waiting: Waiting::Start,
        }
    }

    /// For mail that asks this of TLS. What is to travel under TLS alone goes to hosts whose names are proven and whose
    /// certificates are good, or it comes back (RFC 8689 §4.2.1).
    pub fn demanding(mut self, demand: Demand) -> Self {
        self.terms.demand = demand;
        if demand == Demand::Waived {
            // What is waived is the word of the recipient's domain, not that of the operator (RFC 8689 §3).
            (self.terms.dane, self.sts) = (DaneUse::Off, StsUse::Off);
        }
        self
    }

    /// The site has to have as much TLS, beyond what is asked for anyway. Call it before the hosts are known to [`Attempt`].
    pub fn hold_to_at_least(&mut self, tls: TlsLevel) {
        self.terms.tls = stronger(self.terms.tls, tls);
    }

    /// With these addresses first, where a host has both kinds: those of the other kind have led nowhere lately.
    pub fn preferring(mut self, family: Family) -> Self {
        if matches!(self.family, Family::PreferIpv6 | Family::PreferIpv4) {
            self.family = family;
        }
        self
    }

    /// With this for mail, when we are not let in.
    pub fn when_refused(mut self, then: RefusedLogin) -> Self {
        self.refused_login = then;
        self
    }

    /// The first step.
    pub fn start(&mut self) -> Step {
        assert!(matches!(self.waiting, Waiting::Start), "an attempt starts once");
        let (domain, port) = match &self.origin {
            Origin::Mx(domain, port) => (domain, *port),
            Origin::Route(hosts) => {
                // "The best first": none is as good as another.
                self.hosts = (0..)
                    .zip(hosts)
                    .map(|(preference, host)| Candidate {
                        place: host.place.clone(),
                        port: host.port,
                        preference,
                    })
                    .collect();
                return self.next();
            }
        };
        if let Some(address) = domain.literal() {
            self.hosts.push_back(Candidate { place: Place::Address(address), port, preference: 0 });
            return self.next();
        }
        if domain.as_str().starts_with('[') {
            let text = format_args!("{domain} is no address that we can connect to");
            self.note(Outcome::failed(Status(5, 1, 2), text));
            return self.next();
        }
        match Name::parse(domain.as_str()) {
            Ok(name) => {
                let mut questions = vec![Question::mx(name.clone())];
                if self.sts != StsUse::Off {
                    let record = Name::parse(&format!("_mta-sts.{name}"));
                    // What is too long for that has no policy.
                    questions.extend(record.ok().map(|name| Question { name, kind: Kind::Txt }));
                }
                self.waiting = Waiting::Mx(name);
                Step::Ask(questions)
            }
            Err(error) => {
                self.note(Outcome::failed(Status(5, 1, 2), format_args!("{domain}: {error}")));
                self.next()
            }
        }
    }

    /// The answers to [`Step::Ask`], in the order of the questions.
    pub fn on_answers(&mut self, answers: &[Arc<Answer>]) -> Step {
        match std::mem::replace(&mut self.waiting, Waiting::Ended) {
            Waiting::Mx(domain) => {
                let (answer, texts) = match answers {
                    [mx] => (mx, None),
                    [mx, texts] => (mx, Some(texts)),
                    _ => unreachable!("one question was asked, or two"),
                };
                self.proven = answer.security == Security::Secure;
                self.domains.extend([Some(domain.clone()), answer.alias_of.clone()].into_iter().flatten());
                let exists = matches!(answer.outcome, Dns::NoData | Dns::Found(_));
                match texts {
                    Some(texts) if exists => {
                        let id = match &texts.outcome {
                            Dns::Found(Records::Texts(texts)) => sts::record_id(texts),
                            Dns::Found(_) | Dns::NoData | Dns::NxDomain | Dns::TempFail(_) => None,
                        };
                        self.waiting = Waiting::Policy(domain.clone(), Arc::clone(answer));
                        return Step::AskPolicy(domain, id);
                    }
                    Some(_) | None => self.on_exchanges(domain, &answer.outcome),
                }
            }
            Waiting::Addresses(name, host) => {
                if let Some(step) = self.on_addresses(name, host, answers) {
                    return step;
                }
            }
            Waiting::Alias(located) => {
                let [answer] = answers else { unreachable!("one question was asked") };
                // Where the alias leads is not proven; that the name is one may be (RFC 7672 §2.2.2).
                let is_proven =
                    answer.security == Security::Secure && matches!(answer.outcome, Dns::Found(_));
                let bases = if is_proven { VecDeque::from([located.name.clone()]) } else { VecDeque::new() };
                if let Some(step) = self.ask_tlsa(located, bases) {
                    return step;
                }
            }
            Waiting::Tlsa(located, bases) => {
                let [answer] = answers else { unreachable!("one question was asked") };
                if let Some(step) = self.on_tlsa(located, bases, answer) {
                    return step;
                }
            }
            waiting @ (Waiting::Start
            | Waiting::Policy(..)
            | Waiting::Session(_)
            | Waiting::Race
            | Waiting::Ended) => {
                unreachable!("nothing was asked: {waiting:?}")
            }
        }
        self.next()
    }

    /// The policy that [`Step::AskPolicy`] asked for; none when the domain has none, or none that can be had.
    pub fn on_policy(&mut self, policy: Option<Arc<Policy>>) -> Step {
        let Waiting::Policy(domain, answer) = std::mem::replace(&mut self.waiting, Waiting::Ended) else {
            unreachable!("no policy was asked for")
        };
        self.terms.policy = policy;
        self.on_exchanges(domain, &answer.outcome);
        self.next()
    }

    /// The session with the host of [`Step::Connect`] ended, and recipients remain.
    pub fn on_ending(&mut self, ending: &Ending) -> Step {
        let mut hop = self.session();
        let remote = Arc::clone(&hop.remote);
        match (ending, hop.tls) {
            // Better in clear than not at all: that is what opportunistic means (RFC 7435 §3).
            (Ending::TlsFailed(_) | Ending::Lost(Stage::Handshake, _), TlsLevel::Opportunistic) => {
                hop.tls = TlsLevel::None;
                self.waiting = Waiting::Session(hop.clone());
                return Step::Connect(hop);
            }
            // "Unable to establish TLS-protected SMTP session: 5.7.10" (RFC 8689 §4.2.1): not deferred.
            (Ending::TlsFailed(failure), TlsLevel::Demanded) => {
                self.note(Outcome::failed(
                    ENCRYPTION_NEEDED,
                    format_args!("REQUIRETLS: {remote}: {failure}"),
                ));
            }
            (Ending::TlsNotOffered, TlsLevel::Demanded) => {
                let text = format_args!("REQUIRETLS: {remote} does not offer TLS");
                self.note(Outcome::failed(ENCRYPTION_NEEDED, text));
            }
            (Ending::RequireTlsNotOffered, _) => {
                let text = format_args!("REQUIRETLS: {remote} does not offer it");
                self.note(Outcome::failed(REQUIRETLS, text));
            }
            (Ending::NoLogin(why), _) => self.note_login(why, remote),
            (Ending::TlsFailed(failure), _) => {
                self.note(Outcome::deferred(Status(4, 7, 5), Some(remote), failure));
            }
            (Ending::TlsNotOffered, _) => {
                let text = "TLS is required, but was not offered";
                self.note(Outcome::deferred(Status(4, 7, 4), Some(remote), text));
            }
            (Ending::Refused(stage, reply), _) => {
                self.note(Outcome::of_reply(*stage, reply, &remote, Teller::We))
            }
            (Ending::Lost(stage, loss), _) => self.note(Outcome::lost(*stage, *loss, remote)),
            // Our own end, when the connection had all its transactions: nothing is wrong with the host.
            (Ending::Quit, _) if self.reconnections < self.limits.reconnections_max => {
                self.reconnections += 1;
                self.waiting = Waiting::Session(hop.clone());
                return Step::Connect(hop);
            }
            (Ending::Quit | Ending::Idle, _) => self.note(Outcome::lost(Stage::Mail, Loss::Closed, remote)),
        }
        self.next()
    }

    /// The next address, the next host, or the end.
    fn next(&mut self) -> Step {
        if !self.racing.is_empty() {
            return self.next_rival();
        }
        loop {
            if let Some(hop) = self.spare.pop_front() {
                self.waiting = Waiting::Session(hop.clone());
                return Step::Connect(hop);
            }
            if self.tried.len() >= self.limits.connections_max {
                return self.end();
            }
            if let Some(remote) = self.addresses.pop_front() {
                let hop = self.hop(remote);
                self.waiting = Waiting::Session(hop.clone());
                return Step::Connect(hop);
            }
            let Some(host) = self.hosts.pop_front() else { return self.end() };
            if let Some(step) = self.look_up(host) {
                return step;
            }
        }
    }

    fn hop(&mut self, remote: Remote) -> Hop {
        self.tried.push(remote.endpoint.clone());
        let source = match remote.address() {
            Some(IpAddr::V4(_)) => self.sources.v4.map(IpAddr::V4),
            Some(IpAddr::V6(_)) => self.sources.v6.map(IpAddr::V6),
            None => None,
        };
        let Protection { tls, basis } = self.protection.clone();
        Hop { remote: Arc::new(remote), tls, basis, source }
    }

    /// Finds out the addresses of a host, which may take questions.
    fn look_up(&mut self, host: Candidate) -> Option<Step> {
        self.preference = host.preference;
        match host.place.clone() {
            Place::Address(address) => {
                self.hold_to(None, Published::Nothing, &literal(address), &host, vec![address]);
                None
            }
            // What does not leave the host needs no TLS.
            Place::Unix(path) => {
                self.protection = Protection { tls: TlsLevel::None, basis: Basis::Route };
                let name = format!("unix:{}", path.display()).into();
                let endpoint = Endpoint::Unix(path);
                if !self.tried.contains(&endpoint) {
                    self.addresses.push_back(Remote { name, endpoint, is_final: self.is_final });
                }
                None
            }
            Place::Name(name) => {
                let kinds: &[Kind] = match self.family {
                    Family::PreferIpv6 | Family::PreferIpv4 => &[Kind::Aaaa, Kind::A],
                    Family::OnlyIpv4 => &[Kind::A],
                    Family::OnlyIpv6 => &[Kind::Aaaa],
                };
                let question = |kind: &Kind| Question { name: name.clone(), kind: *kind };
                let questions = kinds.iter().map(question).collect();
                self.waiting = Waiting::Addresses(name, host);
                Some(Step::Ask(questions))
            }
        }
    }

    fn on_exchanges(&mut self, domain: Name, answer: &Dns) {
        let Origin::Mx(_, port) = self.origin else { unreachable!("MX is asked by MX routes alone") };
        // By DNSSEC, or by a policy that names them (RFC 8689 §4.2.1).
        let is_known = self.proven || self.terms.is_enforced() || matches!(answer, Dns::TempFail(_));
        let demanded = matches!(self.terms.demand, Demand::Required | Demand::Preferred);
        if demanded && !is_known {
            let text =
                format_args!("REQUIRETLS: neither DNSSEC nor MTA-STS proves the mail hosts of {domain}");
            return self.note(Outcome::failed(REQUIRETLS, text));
        }
        let implicit = |domain| Candidate { place: Place::Name(domain), port, preference: 0 };
        let exchanges = match answer {
            // "treated as if it was associated with an implicit MX RR, with a preference of 0" (RFC 5321 §5.1).
            Dns::NoData => return self.hosts.push_back(implicit(domain)),
            Dns::NxDomain => {
                let text = format_args!("the domain {domain} does not exist");
                return self.note(Outcome::failed(Status(5, 1, 2), text));
            }
            Dns::TempFail(failure) => {
                let text = format_args!("looking up the mail hosts of {domain}: {failure}");
                return self.note(Outcome::deferred(Status(4, 4, 3), None, text));
            }
            Dns::Found(Records::Exchanges(exchanges)) => exchanges,
            Dns::Found(Records::Addresses(_) | Records::Names(_) | Records::Texts(_) | Records::Tlsa(_)) => {
                unreachable!("the answer to MX has exchanges")
            }
        };
        // A null MX stands alone (RFC 7505 §3); beside others it is a mistake, and no host.
        if let [dns::Exchange { host: ExchangeHost::Null, .. }] = exchanges[..] {
            let text = format_args!("the domain {domain} takes no mail");
            return self.note(Outcome::failed(Status(5, 1, 10), text));
        }
        let mut hosts: Vec<_> = exchanges
            .iter()
            .filter_map(|exchange| match &exchange.host {
                ExchangeHost::Name(name) => Some(Candidate {
                    place: Place::Name(name.clone()),
                    port,
                    preference: exchange.preference,
                }),
                ExchangeHost::Null | ExchangeHost::Malformed => None,
            })
            .collect();
        if hosts.is_empty() {
            let text = format_args!("the MX records of {domain} name no host");
            return self.note(Outcome::failed(Status(5, 4, 4), text));
        }
        // Where we stand in the list ourselves, only those before us may be tried (RFC 5321 §5.1).
        let own = hosts.iter().filter(|host| self.own.is_host(host)).map(|host| host.preference).min();
        if let Some(own) = own {
            hosts.retain(|host| host.preference < own);
            self.note_loop(&domain);
        }
        // "the sender-SMTP MUST randomize them" among equals (RFC 5321 §5.1).
        self.shuffle(&mut hosts);
        hosts.sort_by_key(|host| host.preference);
        hosts.truncate(self.limits.hosts_max);
        self.hosts = hosts.into();
    }

    fn on_addresses(&mut self, name: Name, host: Candidate, answers: &[Arc<Answer>]) -> Option<Step> {
        let mut addresses = Vec::new();
        let (mut exists, mut unknown, mut is_proven) = (false, None, true);
        for answer in answers {
            match &answer.outcome {
                Dns::Found(Records::Addresses(found)) => {
                    addresses.extend(found);
                    is_proven &= answer.security == Security::Secure;
                }
                Dns::NoData => exists = true,
                Dns::NxDomain => {}
                Dns::TempFail(failure) => unknown = Some(failure),
                Dns::Found(
                    Records::Exchanges(_) | Records::Names(_) | Records::Texts(_) | Records::Tlsa(_),
                ) => unreachable!("the answer to A and AAAA has addresses"),
            }
        }
        if let (true, Some(failure)) = (addresses.is_empty(), unknown) {
            let text = format_args!("looking up the addresses of {name}: {failure}");
            self.note(Outcome::deferred(Status(4, 4, 3), None, text));
            return None;
        }
        if addresses.is_empty() {
            let what = if exists { "has no address" } else { "does not exist" };
            self.note(match &self.origin {
                // Where the host is the domain itself, the address is bad; else the way to it is (RFC 3463 §3.5).
                Origin::Mx(domain, _) if Name::parse(domain.as_str()).as_ref() == Ok(&name) => {
                    Outcome::failed(Status(5, 1, 2), format_args!("the domain {name} {what}"))
                }
                Origin::Mx(..) => {
                    Outcome::failed(Status(5, 4, 4), format_args!("the mail host {name} {what}"))
                }
                // The sender cannot help a mistake of the operator, who can.
                Origin::Route(_) => {
                    Outcome::deferred(Status(4, 4, 4), None, format_args!("the next hop {name} {what}"))
                }
            });
            return None;
        }
        let alias_of = answers.iter().find_map(|answer| answer.alias_of.clone());
        let located = Located { name, alias_of, host, addresses };
        if self.terms.dane == DaneUse::Off || !self.proven {
            return self.ask_tlsa(located, VecDeque::new());
        }
        // Without proof of the addresses no TLSA records are asked for: servers that fail at such questions serve zones that
        // are not signed (RFC 7672 §2.2.1).
        match (is_proven, &located.alias_of) {
            // The end of the aliases first (RFC 7672 §2.2.2).
            (true, alias_of) => {
                let bases = alias_of.iter().chain([&located.name]).cloned().collect();
                self.ask_tlsa(located, bases)
            }
            (false, None) => self.ask_tlsa(located, VecDeque::new()),
            (false, Some(_)) => {
                let question = Question { name: located.name.clone(), kind: Kind::Cname };
                self.waiting = Waiting::Alias(located);
                Some(Step::Ask(vec![question]))
            }
        }
    }

    /// Asks for the TLSA records at the first of these names; when there is none, the host has none.
    fn ask_tlsa(&mut self, located: Located, mut bases: VecDeque<Name>) -> Option<Step> {
        while let Some(base) = bases.front() {
            // A name that is too long for it has no such records.
            if let Ok(name) = base.tlsa(located.host.port) {
                self.waiting = Waiting::Tlsa(located, bases);
                return Some(Step::Ask(vec![Question { name, kind: Kind::Tlsa }]));
            }
            bases.pop_front();
        }
        self.settle(located, Published::Nothing);
        None
    }

    fn on_tlsa(&mut self, located: Located, mut bases: VecDeque<Name>, answer: &Answer) -> Option<Step> {
        let base = bases.pop_front().expect("it was asked for");
        let records = match &answer.outcome {
            Dns::Found(Records::Tlsa(records)) if answer.security == Security::Secure => records,
            // A host whose records cannot be had, or are bogus, is passed over (RFC 7672 §2.1.2): whoever keeps them from us
            // would have us do without.
            Dns::TempFail(failure) => {
                let text = format_args!("looking up the TLSA records of {base}: {failure}");
                let reason = Some(failure.to_string().into());
                self.find(
                    Reported::Tlsa(base.clone(), Vec::new()),
                    TlsResult::DnssecInvalid,
                    &located.name,
                    reason,
                );
                self.note(Outcome::deferred(Status(4, 7, 5), None, text));
                return None;
            }
            Dns::Found(_) | Dns::NoData | Dns::NxDomain => return self.ask_tlsa(located, bases),
        };
        let records = dane::usable(records);
        let published = if records.is_empty() {
            Published::Unusable
        } else {
            let mut names = vec![base.clone()];
            for name in [&located.name].into_iter().chain(&self.domains) {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            Published::Records(Arc::new(DaneHost { base, names, records }))
        };
        self.settle(located, published);
        None
    }

    fn settle(&mut self, located: Located, published: Published) {
        let Located { name, host, addresses, .. } = located;
        self.hold_to(Some(&name), published, name.as_str(), &host, addresses);
    }

    /// Decides what a host is held to, and takes its addresses; or leaves it out.
    fn hold_to(
        &mut self,
        name: Option<&Name>,
        published: Published,
        called: &str,
        host: &Candidate,
        addresses: Vec<IpAddr>,
    ) {
        // What an operator has named is what an operator wants.
        let policed = name.filter(|_| matches!(self.origin, Origin::Mx(..)));
        match self.terms.of(policed, published) {
            Ok(protection) => {
                self.protection = protection;
                self.use_addresses(called, host, addresses);
            }
            Err(outcome) => {
                if let (Some(name), Some(domain)) = (policed, self.domains.first().cloned()) {
                    let (policy, result, reason) = match (self.terms.dane, &self.terms.policy) {
                        (DaneUse::Required, _) => (Reported::NotFound(domain), TlsResult::DaneRequired, None),
                        (DaneUse::Off | DaneUse::WherePublished, policy) => {
                            let reason = Some("the policy does not name the host".into());
                            (Reported::Sts(domain, policy.clone()), TlsResult::ValidationFailure, reason)
                        }
                    };
                    self.find(policy, result, name, reason);
                }
                self.note(outcome);
            }
        }
    }

    fn find(&mut self, policy: Reported, result: TlsResult, host: &Name, reason: Option<Box<str>>) {
        let detail = Detail { result, from: None, host: Some(host.as_str().into()), to: None, reason };
        self.findings.push(Finding { policy, detail });
    }

    /// What went wrong with the hosts before there was a connection, since this was asked last: for the reports that domains
    /// ask for (RFC 8460).
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn use_addresses(&mut self, name: &str, host: &Candidate, mut addresses: Vec<IpAddr>) {
        let is_own = |address: &IpAddr| self.own.is_address(*address, host.port);
        if matches!(self.origin, Origin::Mx(..)) && addresses.iter().any(is_own) {
            self.hosts.retain(|other| other.preference < host.preference);
            return self.note_loop(name);
        }
        addresses.sort_unstable();
        addresses.dedup();
        let endpoint = |address| Endpoint::Tcp(SocketAddr::new(address, host.port));
        addresses.retain(|address| !self.tried.contains(&endpoint(*address)));
        self.shuffle(&mut addresses);
        // A host has addresses of both kinds, and one that cannot be reached by the one is tried by the other (RFC 3974 §3).
        let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
        let (first, second) = match self.family {
            Family::PreferIpv6 | Family::OnlyIpv6 => (v6, v4),
            Family::PreferIpv4 | Family::OnlyIpv4 => (v4, v6),
        };
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        while self.addresses.len() < self.limits.addresses_max {
            let before = self.addresses.len();
            for address in [first.next(), second.next()].into_iter().flatten() {
                let (name, endpoint) = (name.into(), endpoint(address));
                self.addresses.push_back(Remote { name, endpoint, is_final: self.is_final });
            }
            if self.addresses.len() == before {
                break;
            }
        }
        self.addresses.truncate(self.limits.addresses_max);
    }

    fn note_loop(&mut self, name: &(impl std::fmt::Display + ?Sized)) {
        let text = format_args!("mail for {name} loops back to this host");
        self.note(Outcome::failed(Status(5, 4, 6), text));
    }

    fn note_login(&mut self, why: &NoLogin, remote: Arc<Remote>) {
        let (status, for_good) = match why {
            NoLogin::Refused(_, reply, _) => (reply.status(), reply.class() == ReplyClass::Permanent),
            NoLogin::NotProtected(_) => (Some(ENCRYPTION_NEEDED), false),
            NoLogin::NotOffered | NoLogin::Broken(..) | NoLogin::NoSecret(_) => (None, false),
        };
        let Status(_, subject, detail) = status.unwrap_or(CREDENTIALS_INVALID);
        self.note(match (self.refused_login, for_good) {
            (RefusedLogin::Fails, true) => {
                Outcome::failed(Status(5, subject, detail), format_args!("{remote}: {why}"))
            }
            (RefusedLogin::Fails, false) | (RefusedLogin::Defers, _) => {
                Outcome::deferred(Status(4, subject, detail), Some(remote), why)
            }
        });
    }

    /// As long as one host may take the mail later, the recipients are deferred, not failed.
    fn note(&mut self, outcome: Outcome) {
        let keep = match (&self.verdict, &outcome) {
            (Some(Outcome::Deferred(_)), Outcome::Failed(_)) => true,
            (Some(_) | None, Outcome::Delivered(..) | Outcome::Deferred(_) | Outcome::Failed(_)) => false,
        };
        if !keep {
            self.verdict = Some(outcome);
        }
    }

    fn end(&mut self) -> Step {
        self.waiting = Waiting::Ended;
        let nowhere = || Outcome::deferred(Status(4, 4, 4), None, "the route names no host");
        Step::End(self.verdict.take().unwrap_or_else(nowhere))
    }

    fn session(&mut self) -> Hop {
        match std::mem::replace(&mut self.waiting, Waiting::Ended) {
            Waiting::Session(hop) => hop,
            waiting @ (Waiting::Start
            | Waiting::Mx(_)
            | Waiting::Policy(..)
            | Waiting::Addresses(..)
            | Waiting::Alias(_)
            | Waiting::Tlsa(..)
            | Waiting::Race
            | Waiting::Ended) => {
                unreachable!("no connection was asked for: {waiting:?}")
            }
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.random() % (i as u64 + 1)) as usize);
        }
    }

    /// SplitMix64: good enough to spread load.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Own {
    fn is_host(&self, host: &Candidate) -> bool {
        match &host.place {
            Place::Name(name) => {
                self.ports.contains(&host.port) && self.names.iter().any(|own| **own == *name.as_str())
            }
            Place::Address(address) => self.is_address(*address, host.port),
            Place::Unix(_) => false,
        }
    }

    fn is_address(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.ports.contains(&port)
            && (address.is_loopback()
                || [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].contains(&address)
                || self.addresses.contains(&address))
    }
}

const fn stronger(one: TlsLevel, other: TlsLevel) -> TlsLevel {
    if rank(one) < rank(other) { other } else { one }
}

fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

mod race;

#[cfg(test)]
#[path = "attempt_test.rs"]
mod test;
