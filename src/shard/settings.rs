//! The configuration as one shard uses it: made at start and again at each reload.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use config::{
    ClientCertificate, Config, DomainKind, DomainPattern, Host, InboundTimeouts, ListenAddress, ListenerKind,
    ListenerTls, Rate,
};
use delivery::{
    Classifier, DaneUse, Demand, EightBitContent, Forwarding, HopHost, Means, Own, Owners, Pattern, Place,
    RetryRules, ReversePaths, Route, RouteOptions, Routes, SiteRule, Sources, StsUse, ThrottleLimits,
    TlsLevel, Via, rule_of_site,
};
use dns::{CodePattern, Name};
use mail::{Domain, Envelope, TenantId};
use policy::Listing;
use policy::Networks;
use report::{ReturnPathOptions, ReturnPaths, Srs};
use smtp::{
    ContentRules, Extension, Extensions, Options, Role, TlsState, Tolerance,
    client::{Chaining, Chunking, Protocol},
};
use tls::{Credentials, ServerConfig};
use trust::{DnsList, ListSubject, Signer};

use crate::{
    campaigns::Campaigns,
    consent::Consent,
    crowd::{Prefixes, Rates},
    dmarc_rows,
    egress::Egress,
    greylist::Grey,
    locate, means,
    outbound_tls::{ClientTls, OutboundTls},
    reports_in::{self, ReportsIn},
    reputation,
    resolve::Resolving,
    retry,
    shard::{Held, Way},
    throttles,
};

/// What all shards are given, and given anew at a reload.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The addresses that this host has.
    pub addresses: Vec<IpAddr>,
    /// What refusals are about: one table for all, since it takes some time to make.
    pub reply_rules: Arc<Classifier>,
    /// What our servers speak; none without a certificate.
    pub server_tls: Option<ServerTls>,
    /// What our clients speak to next hops.
    pub client_tls: Option<ClientTls>,
    /// What signs mail of ours now: for each `[[dkim]]`, in their order.
    pub signers: Arc<[Box<[Signer]>]>,
}

/// What our servers speak, by how they treat the certificates of clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// They do not ask for one.
    pub not_asking: Arc<ServerConfig>,
    /// They do.
    pub asking: Arc<ServerConfig>,
    /// They want one of the credentials.
    pub requiring: Arc<ServerConfig>,
    /// Those that are good for something.
    pub credentials: Arc<Credentials>,
}

/// One shard's view of a [`Snapshot`]: whatever a reload changes is in here, and nothing else.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) hostname: mail::Domain,
    pub(crate) policy: policy::Policy,
    /// How wide the networks of strangers are.
    pub(crate) prefixes: Prefixes,
    /// Connections of strangers in a minute.
    pub(crate) connection_rate: Option<u32>,
    /// Whether a shard that has many connections gives new ones to one that has few.
    pub(crate) balance: bool,
    /// How programs are asked for recipients.
    pub(crate) verify: config::Verify,
    pub(crate) routes: Routes,
    /// What refusals are about.
    pub(crate) reply_rules: Arc<Classifier>,
    /// When what is refused is tried again.
    pub(crate) retry_rules: RetryRules,
    /// Where reports on our mail come to.
    pub(crate) returns: Option<Returns>,
    /// The addresses that reports of others come to.
    pub(crate) reports_in: ReportsIn,
    /// The addresses of senders whose mail is passed on.
    pub(crate) srs: Option<Srs>,
    /// Whose mail is ours.
    pub(crate) own_domains: BTreeSet<Domain>,
    pub(crate) own: Arc<Own>,
    pub(crate) client_timeouts: smtp::client::Timeouts,
    /// After so long another host that is as good is connected to as well; none: when the first one has failed.
    pub(crate) attempt_delay: Option<Duration>,
    pub(crate) schedule: queue::Schedule,
    pub(crate) queue_limits: queue::Limits,
    /// Which domains are one site, beside those that have the same hosts.
    pub(crate) site_rules: Vec<SiteRule>,
    /// What holds for sites that rules name.
    shapes: BTreeMap<Box<str>, config::Site>,
    /// How sites that complain get less; none: they do not.
    pub(crate) throttle: Option<ThrottleLimits>,
    /// From which of our addresses mail leaves.
    pub(crate) egress: Egress,
    /// Turns of tenants.
    pub(crate) weights: Vec<(queue::Tenant, u32)>,
    /// What their recipients want, and what they may send.
    pub(crate) consent: Consent,
    /// What tenants are called.
    pub(crate) tenants: BTreeMap<TenantId, Rc<str>>,
    /// And by the numbers that the queue knows them under.
    pub(crate) tenant_names: BTreeMap<queue::Tenant, Rc<str>>,
    /// Which campaign mail is of.
    pub(crate) campaigns: Campaigns,
    /// What rules for replies want to know of mail: addresses for reports tell it.
    pub(crate) asked_of_replies: delivery::Asked,
    /// Destinations that are located at once.
    pub(crate) located_at_once: usize,
    /// How long a connection is busy before another core may have its place.
    pub(crate) connection_turn: Duration,
    /// Percent of the core that a long change may take while there is mail.
    pub(crate) task_share: u32,
    pub(crate) resolving: Resolving,
    /// Lists of the DNS that know strangers.
    pub(crate) lists: Vec<List>,
    /// What is made of what strangers have done.
    pub(crate) reputation: config::Reputation,
    /// What signs mail of ours, one for each key of the policy.
    pub(crate) signers: Arc<[Box<[Signer]>]>,
    /// Mail larger than this is written in pieces.
    pub(crate) spill: u64,
    /// Whether some route hands on where mail first came from.
    pub(crate) forwards: bool,
    /// How much may wait to be sent on one connection.
    pub(crate) send_max: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) outbound_tls: OutboundTls,
    /// As whom routes log in, by name.
    pub(crate) credentials: BTreeMap<Box<str>, config::Credential>,
    /// Programs that say a token for one of these, by name.
    pub(crate) token_programs: BTreeMap<Box<str>, delivery::Hearing>,
    /// Whether it is counted how TLS goes, for reports.
    pub(crate) tls_reports: bool,
    /// Within which bounds mail is counted for reports, where there are any.
    pub(crate) dmarc_reports: Option<report::dmarc::Limits>,
    /// How much of a message's header section is handed over to tell its domain that it failed, where any is.
    pub(crate) dmarc_failures: Option<usize>,
    /// Whether anybody is believed about certificates of pictures.
    pub(crate) judges_marks: bool,
    doors: BTreeMap<String, Rc<Door>>,
    /// For mail that comes by HTTP.
    pub(crate) http_door: Rc<Door>,
}

/// What holds for the connections to a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Open at once.
    pub(crate) connections_max: u32,
    /// New ones.
    pub(crate) connection_rate: Option<Rate>,
    /// Messages on all of them.
    pub(crate) message_rate: Option<Rate>,
    /// Messages on one.
    pub(crate) transactions_max: u32,
    /// Recipients in one transaction.
    pub(crate) recipients_max: usize,
    /// How long one is kept that has nothing to send.
    pub(crate) idle: Duration,
}

/// The addresses that reports on our mail come to.
#[derive(Debug)]
pub(crate) struct Returns {
    pub(crate) paths: ReturnPaths,
    /// What becomes of mail to those that we did not make.
    pub(crate) unsigned: config::UnsignedReports,
}

/// What the sessions of one listener have in common.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) name: Box<str>,
    pub(crate) role: Role,
    pub(crate) tls: TlsStart,
    /// Whether clients show a certificate, and which are good for something.
    pub(crate) certificates: ClientCertificate,
    pub(crate) credentials: Option<Arc<Credentials>>,
    /// Who may speak for others.
    pub(crate) spokesmen: Networks,
    /// Who may tell where mail first came from.
    pub(crate) forwarders: Networks,
    /// The proxies that stand before it, when some do.
    pub(crate) proxies: Option<Networks>,
    pub(crate) limits: config::Limits,
    pub(crate) timeouts: InboundTimeouts,
    pub(crate) rules: ContentRules,
    pub(crate) checks: config::Checks,
    /// How the mail of strangers is verified.
    pub(crate) authentication: Rc<config::Authentication>,
    /// What is found out about them before.
    pub(crate) strangers: config::Strangers,
    /// Which lists are asked.
    pub(crate) lists: Vec<Rc<DnsList>>,
    /// Who is to come again; none: nobody.
    pub(crate) grey: Option<Grey>,
    /// Whether it is remembered what strangers do.
    pub(crate) learns: bool,
    options: Arc<Options>,
}

/// A list of the DNS that knows strangers, and how it is watched.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) of: Rc<DnsList>,
    pub(crate) probe_interval: Duration,
    /// How long it is set aside before it is probed again.
    pub(crate) rest: Duration,
}

/// When TLS begins.
pub(crate) enum TlsStart {
    Never,
    OnRequest(Arc<ServerConfig>),
    AtOnce(Arc<ServerConfig>),
}

impl Settings {
    /// Whether anything signs mail of ours.
    pub(crate) fn signs(&self) -> bool {
        self.signers.iter().any(|signers| !signers.is_empty())
    }

    /// As the snapshot has them.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let config = &snapshot.config;
        let door = |listener: &config::Listener| {
            (listener.name.clone(), Rc::new(Door::new(config, listener, snapshot.server_tls.as_ref())))
        };
        Self {
            hostname: config.hostname.clone(),
            policy: policy::Policy::new(config),
            prefixes: Prefixes { v4: config.clients.network_v4, v6: config.clients.network_v6 },
            connection_rate: config.clients.connection_rate,
            balance: config.cores.balance,
            verify: config.verify.clone(),
            routes: Routes::new(routes(config)).named(config.routes.iter().map(|route| route.name.as_str())),
            reply_rules: snapshot.reply_rules.clone(),
            retry_rules: retry::rules(config),
            returns: returns(&config.bounces),
            reports_in: ReportsIn::new(&config.reports_in),
            srs: srs(&config.srs),
            own_domains: config.domains.iter().map(|domain| domain.name.clone()).collect(),
            own: Arc::new(own(config, &snapshot.addresses)),
            client_timeouts: client_timeouts(&config.timeouts.outbound),
            attempt_delay: Some(config.timeouts.outbound.attempt_delay).filter(|delay| !delay.is_zero()),
            schedule: schedule(&config.queue),
            queue_limits: queue_limits(config),
            site_rules: config.sites.iter().map(site_rule).collect(),
            shapes: config.sites.iter().map(|site| (site.name.as_str().into(), site.clone())).collect(),
            throttle: throttle(&config.throttle),
            egress: Egress::new(config),
            weights: config
                .tenants
                .iter()
                .map(|tenant| (locate::tenant(TenantId::of(&tenant.name)), tenant.weight))
                .collect(),
            tenants: config
                .tenants
                .iter()
                .map(|tenant| (TenantId::of(&tenant.name), tenant.name.as_str().into()))
                .collect(),
            tenant_names: config
                .tenants
                .iter()
                .map(|tenant| (locate::tenant(TenantId::of(&tenant.name)), tenant.name.as_str().into()))
                .collect(),
            campaigns: Campaigns::new(config),
            asked_of_replies: snapshot.reply_rules.asks_for(),
            consent: Consent::new(config),
            located_at_once: config.dns.sockets.into(),
            connection_turn: config.queue.connection_turn,
            task_share: config.queue.task_share.into(),
            resolving: Resolving::new(&config.dns),
            lists: lists(config),
            reputation: config.reputation.clone(),
            signers: snapshot.signers.clone(),
            spill: config.journal.spill,
            forwards: config.routes.iter().any(|route| route.xforward),
            send_max: to_usize(config.buffers.send),
            checkpoint_interval: config.index.checkpoint_interval,
            outbound_tls: OutboundTls::new(snapshot.client_tls.clone()),
            credentials: config
                .credentials
                .iter()
                .map(|credential| (credential.name.to_ascii_lowercase().into(), credential.clone()))
                .collect(),
            token_programs: means::of_tokens(config),
            tls_reports: config.tls_reports.enabled,
            dmarc_reports: dmarc_rows::limits(&config.dmarc_reports),
            dmarc_failures: config.dmarc_failures.enabled.then(|| to_usize(config.dmarc_failures.header_max)),
            judges_marks: !config.bimi.authorities.is_empty(),
            doors: config.listeners.iter().map(door).collect(),
            http_door: Rc::new(Door::new(config, &http_listener(config), None)),
        }
    }

    /// By which way each recipient's mail leaves.
    pub(crate) fn ways(&self, envelope: &Envelope) -> Vec<Way> {
        let demand = Demand::of(envelope.handling.tls, &envelope.reverse_path);
        envelope.recipients.iter().map(|recipient| self.way(&recipient.address.domain(), demand)).collect()
    }

    /// By which way a domain's mail leaves that an operator may have chosen a route for. Of a route that is gone the choice
    /// is, too.
    pub(crate) fn way_by(&self, chosen: Option<&str>, domain: &mail::Domain, demand: Demand) -> Way {
        let chosen = chosen.and_then(|name| self.routes.destination_by(name, domain, demand));
        match chosen {
            Some(destination) => {
                let via = Held::from(&self.routes.route(destination.route).via);
                Way { key: destination.key, via }
            }
            None => self.way(domain, demand),
        }
    }

    /// By which way a domain's mail leaves. A domain without a route, as a reload may leave behind, waits for
    /// one: whoever took the route away is told by the outcome.
    pub(crate) fn way(&self, domain: &mail::Domain, demand: Demand) -> Way {
        match self.routes.destination_for(domain, demand) {
            Some(destination) => {
                let held = Held::from(&self.routes.route(destination.route).via);
                Way { key: destination.key, via: held }
            }
            None => Way { key: Routes::unrouted(domain, demand), via: Held::No },
        }
    }

    /// What holds for the connections to a site: its rule's word, else its route's.
    pub(crate) fn shape(&self, key: &str, route: &Route) -> Shape {
        let rule = rule_of_site(Routes::site_of_key(key)).and_then(|rule| self.shapes.get(rule));
        let options = &route.options;
        Shape {
            connections_max: rule.and_then(|rule| rule.connections_max).unwrap_or(options.concurrency_max),
            connection_rate: rule.and_then(|rule| rule.connection_rate),
            message_rate: rule.and_then(|rule| rule.message_rate),
            transactions_max: rule.and_then(|rule| rule.transactions_max).unwrap_or(options.transactions_max),
            recipients_max: rule
                .and_then(|rule| rule.recipients_per_transaction)
                .map_or(usize::MAX, |max| max as usize),
            idle: rule.and_then(|rule| rule.idle).unwrap_or(options.idle_max),
        }
    }

    /// The pool that the rule of a site has chosen.
    pub(crate) fn pool_of_site(&self, key: &str) -> Option<&str> {
        let rule = rule_of_site(Routes::site_of_key(key)).and_then(|rule| self.shapes.get(rule))?;
        rule.pool.as_deref()
    }

    /// The key that says so of a site: its rule's, where that says anything, else its route's.
    pub(crate) fn set_by(&self, key: &str, what: &str) -> String {
        let rule = rule_of_site(Routes::site_of_key(key)).and_then(|rule| self.shapes.get(rule));
        match (rule, what) {
            (Some(rule), "connections-max") if rule.connections_max.is_none() => {
                "route.concurrency-max".into()
            }
            (None, _) => "route.concurrency-max".into(),
            (Some(rule), what) => format!("site.{}.{what}", rule.name),
        }
    }

    /// The listener of that name, unless a reload took it away.
    pub(crate) fn door(&self, name: &str) -> Option<Rc<Door>> {
        self.doors.get(name).cloned()
    }
}

impl Door {
    fn new(config: &Config, listener: &config::Listener, server_tls: Option<&ServerTls>) -> Self {
        let credentials = server_tls.map(|tls| tls.credentials.clone());
        let server_tls = server_tls.map(|tls| match listener.client_certificate {
            ClientCertificate::None => &tls.not_asking,
            ClientCertificate::Request => &tls.asking,
            ClientCertificate::Require => &tls.requiring,
        });
        let limits = &listener.limits;
        let (start, state) = match (listener.tls, server_tls) {
            (ListenerTls::None, _) => (TlsStart::Never, TlsState::Absent),
            (ListenerTls::Starttls, Some(tls)) => (TlsStart::OnRequest(tls.clone()), TlsState::Offered),
            (ListenerTls::Implicit, Some(tls)) => (TlsStart::AtOnce(tls.clone()), TlsState::Active),
            (ListenerTls::Required, Some(tls)) => (TlsStart::OnRequest(tls.clone()), TlsState::Required),
            (ListenerTls::Starttls | ListenerTls::Required | ListenerTls::Implicit, None) => {
                (TlsStart::Never, TlsState::Unavailable)
            }
        };
        let role = match listener.kind {
            ListenerKind::Smtp => Role::Relay,
            ListenerKind::Submission => Role::Submission,
            ListenerKind::Lmtp => Role::Lmtp,
        };
        let options = Options {
            hostname: config.hostname.clone(),
            limits: smtp::Limits {
                recipients_max: limits.recipients_max as usize,
                line_max: to_usize(limits.command_line_max),
                message_size_max: limits.message_size_max,
                errors_max: limits.errors_max,
                commands_max: limits.commands_max,
                transactions_max: limits.transactions_max,
                recipients_per_session_max: limits.recipients_per_session_max,
                recipients_refused_max: limits.recipients_refused_max,
                discard_max: limits.discard_max,
                hold_max: limits.hold_max,
            },
            extensions: extensions(config, listener),
            tls: state,
            role,
        };
        Self {
            name: listener.name.as_str().into(),
            role,
            tls: start,
            certificates: listener.client_certificate,
            credentials,
            spokesmen: Networks::new(&listener.xclient_networks),
            forwarders: Networks::new(&listener.xforward_networks),
            proxies: (!listener.proxy_networks.is_empty()).then(|| Networks::new(&listener.proxy_networks)),
            limits: limits.clone(),
            timeouts: listener.timeouts.clone(),
            rules: ContentRules {
                size_max: limits.message_size_max,
                bare_line_end: tolerance(listener.bare_line_ends),
                nul: tolerance(listener.nul_bytes),
                long_line: tolerance(listener.long_lines),
            },
            checks: listener.checks.clone(),
            authentication: Rc::new(listener.authentication.clone()),
            strangers: listener.strangers.clone(),
            grey: Grey::new(&listener.greylist),
            learns: reputation::is_on(&config.reputation),
            lists: lists(config)
                .into_iter()
                .map(|list| list.of)
                .filter(|list| listener.strangers.asks(&list.name))
                .collect(),
            options: options.shared(),
        }
    }

    /// When the mail data that began then, and of which so much has come, is too slow; `None`: never.
    pub(crate) fn too_slow_at(&self, began: Duration, octets: u64) -> Option<Duration> {
        let rate = self.limits.data_rate_min;
        let due = octets.saturating_mul(1000).checked_div(rate)?;
        Some(began + self.timeouts.data_grace + Duration::from_millis(due))
    }

    /// What is looked at of a client.
    pub(crate) const fn checks_of(&self, listing: Listing) -> Option<&config::Checks> {
        match listing {
            Listing::Spared => None,
            Listing::Unlisted | Listing::Denied => Some(&self.checks),
        }
    }

    /// Connections of strangers in a minute.
    pub(crate) const fn connection_rates(&self) -> Rates {
        let limits = &self.limits;
        Rates { client: limits.connection_rate_per_client, network: limits.connection_rate_per_network }
    }

    /// Their messages.
    pub(crate) const fn message_rates(&self) -> Rates {
        let limits = &self.limits;
        Rates { client: limits.message_rate_per_client, network: limits.message_rate_per_network }
    }

    /// The recipients of these.
    pub(crate) const fn recipient_rates(&self) -> Rates {
        let limits = &self.limits;
        Rates { client: limits.recipient_rate_per_client, network: limits.recipient_rate_per_network }
    }

    /// For [`smtp::Session::open`].
    pub(crate) fn options(&self) -> Arc<Options> {
        self.options.clone()
    }
}

/// What a listener offers, STARTTLS apart.
fn extensions(config: &Config, listener: &config::Listener) -> Extensions {
    let config::Extensions {
        pipelining,
        size,
        eight_bit_mime,
        smtputf8,
        chunking,
        binarymime,
        dsn,
        deliverby,
        mt_priority,
        futurerelease,
        requiretls,
        limits,
        etrn,
        atrn,
        enhanced_status_codes,
    } = listener.extensions;
    let asks_who = listener.client_certificate != ClientCertificate::None;
    let all = [
        (pipelining, Extension::Pipelining),
        (size, Extension::Size),
        (eight_bit_mime, Extension::EightBitMime),
        // "MUST provide support for, and announce, the 8BITMIME extension" (RFC 6531 §3.1).
        (smtputf8 && eight_bit_mime, Extension::SmtpUtf8),
        (chunking, Extension::Chunking),
        // It travels by BDAT alone (RFC 3030 §3).
        (binarymime && chunking, Extension::BinaryMime),
        (dsn, Extension::Dsn),
        (deliverby, Extension::DeliverBy),
        (mt_priority, Extension::MtPriority),
        (futurerelease, Extension::FutureRelease),
        // Where the connection has TLS.
        (requiretls, Extension::RequireTls),
        (limits, Extension::Limits),
        // To those who may use it.
        (etrn, Extension::Etrn),
        (atrn && asks_who && config.etrn.iter().any(|rule| !rule.certificates.is_empty()), Extension::Atrn),
        (!listener.xclient_networks.is_empty(), Extension::Xclient),
        (!listener.xforward_networks.is_empty(), Extension::Xforward),
        (enhanced_status_codes, Extension::EnhancedStatusCodes),
    ];
    let wanted = all.into_iter().filter(|(wanted, _)| *wanted);
    wanted.fold(Extensions::NONE, |offered, (_, extension)| offered.with(extension))
}

/// Mail by HTTP comes in as at a listener for users' programs; whether TLS was between is not ours to see.
fn http_listener(config: &Config) -> config::Listener {
    config::Listener {
        name: "http".into(),
        kind: ListenerKind::Submission,
        tls: ListenerTls::None,
        limits: config.limits.clone(),
        ..config::Listener::default()
    }
}

/// What a shard does differently once it has taken the snapshot, in words that differ when it does: for a test that
/// every key which a reload is said to change does change something.
pub fn effects(snapshot: &Snapshot) -> String {
    format!("{:?}", Settings::new(snapshot))
}

impl fmt::Debug for TlsStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "Never",
            Self::OnRequest(_) => "OnRequest",
            Self::AtOnce(_) => "AtOnce",
        })
    }
}

fn schedule(queue: &config::Queue) -> queue::Schedule {
    queue::Schedule {
        intervals: queue.retry.clone(),
        retry_max: queue.retry_max,
        jitter_percent: queue.jitter,
        give_up: queue.give_up,
        notification_give_up: queue.bounce_give_up,
        warn_after: queue.delay_warning,
        grace: queue.grace,
        destination_retry_min: queue.destination_retry_min,
        destination_retry_max: queue.destination_retry_max,
    }
}

/// The lists of the DNS that know strangers.
fn lists(config: &Config) -> Vec<List> {
    let list = |list: &config::DnsList| {
        let of = Rc::new(dns_list(list)?);
        Some(List { of, probe_interval: list.probe_interval, rest: list.rest })
    };
    config.dns_lists.iter().filter_map(list).collect()
}

/// A list of the DNS, as it is judged by; none where it has no zone.
pub fn dns_list(list: &config::DnsList) -> Option<DnsList> {
    let subject = |subject: &config::ListSubject| match subject {
        config::ListSubject::Ipv4 => ListSubject::Ipv4,
        config::ListSubject::Ipv6 => ListSubject::Ipv6,
        config::ListSubject::EhloName => ListSubject::EhloName,
        config::ListSubject::SenderDomain => ListSubject::SenderDomain,
        config::ListSubject::ClientName => ListSubject::ClientName,
    };
    let codes = |rule: &config::CodeRule| {
        (CodePattern { low: rule.low, high: rule.high, bits: rule.bits }, rule.weight)
    };
    Some(DnsList {
        name: list.name.as_str().into(),
        zone: Name::parse(list.zone.as_ref()?.as_str()).ok()?,
        subjects: list.subjects.iter().map(subject).collect(),
        weight: list.weight,
        codes: list.codes.iter().map(codes).collect(),
        explains: list.explain,
    })
}

/// Bounds of one shard's part of the queue.
fn queue_limits(config: &Config) -> queue::Limits {
    let queue = &config.queue;
    let of_sites = config.sites.iter().filter_map(|site| site.connections_max);
    let of_routes = config.routes.iter().map(|route| route.concurrency_max);
    let concurrency = of_routes.chain(of_sites).max().unwrap_or(20);
    queue::Limits {
        attempts_max: queue.attempts_max,
        // One on its way and one waiting to follow for each connection.
        site_attempts_max: concurrency.saturating_mul(2),
        recipients_per_attempt_max: queue.recipients_per_transaction as usize,
        recipients_max: queue.recipients_max,
    }
}

fn throttle(throttle: &config::Throttle) -> Option<ThrottleLimits> {
    let limits = ThrottleLimits {
        connections_min: throttle.connections_min,
        rate_min: throttles::per_minute(throttle.rate_min),
        round: throttle.round,
        steps: throttle.steps,
        storm_min: throttle.storm_min,
        storm_percent: throttle.storm_percent,
        settle: throttle.settle,
        unconnected_max: throttle.unconnected_max,
        suspend_min: throttle.suspend_min,
        suspend_max: throttle.suspend_max,
        ..ThrottleLimits::default()
    };
    throttle.enabled.then_some(limits)
}

fn site_rule(site: &config::Site) -> SiteRule {
    let patterns = |patterns: &[DomainPattern]| patterns.iter().map(pattern).collect();
    SiteRule {
        name: site.name.as_str().into(),
        hosts: patterns(&site.hosts),
        domains: patterns(&site.domains),
        owners: owners(&site.tenants, &site.campaigns),
        tls: site.tls.map(|tls| match tls {
            config::SiteTls::Required => TlsLevel::Required,
            config::SiteTls::Verified => TlsLevel::Verified,
        }),
    }
}

fn srs(srs: &config::Srs) -> Option<Srs> {
    let secrets = srs.secrets.iter().map(config::Secret::expose);
    Some(Srs::new(srs.domain.as_ref()?, secrets, srs.lifetime))
}

/// Whose mail a rule is for.
pub(crate) fn owners(tenants: &[String], campaigns: &[String]) -> Owners {
    let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    Owners { tenants: names(tenants), campaigns: names(campaigns) }
}

fn returns(bounces: &config::Bounces) -> Option<Returns> {
    let options = ReturnPathOptions {
        domain: bounces.domain.as_ref()?,
        local_part: &bounces.local_part,
        complaints: &bounces.complaints,
        lifetime: bounces.lifetime,
        secret: bounces.secret.as_ref().map(config::Secret::expose),
    };
    Some(Returns { paths: ReturnPaths::new(&options), unsigned: bounces.unsigned })
}

/// The routes, and one more for the domains that we keep mail for, unless a route names them, and one for reports on our
/// own mail.
fn routes(config: &Config) -> Vec<Route> {
    let mut routes: Vec<Route> = config.routes.iter().map(|one| route(config, one)).collect();
    let named = |name: &mail::Domain| {
        let exact = DomainPattern::Exact(name.clone());
        config.routes.iter().any(|route| route.domains.contains(&exact))
    };
    let kept = config.domains.iter().filter(|domain| domain.kind == DomainKind::Backup);
    let patterns: Vec<_> = kept
        .filter(|domain| !named(&domain.name))
        .map(|domain| Pattern::Exact(domain.name.clone()))
        .collect();
    if !patterns.is_empty() {
        let usual = route(config, &config::Route::default());
        routes.push(Route { patterns, ..usual });
    }
    if let Some(domain) = &config.bounces.domain {
        let patterns = vec![Pattern::Exact(domain.clone())];
        routes.push(Route { patterns, via: Via::Reports, options: RouteOptions::default() });
    }
    // What was accepted as a report goes this way, though the configuration knows of none by now.
    let patterns = vec![Pattern::Exact(reports_in::domain())];
    let via = Via::Pool(Arc::new(Means::Reports));
    routes.push(Route { patterns, via, options: RouteOptions::default() });
    routes
}

fn route(config: &Config, route: &config::Route) -> Route {
    let via = match route.via {
        config::Via::Mx => Via::Mx(route.port),
        config::Via::Hop | config::Via::Lmtp => {
            Via::NextHop(route.hosts.iter().filter_map(hop_host).collect())
        }
        // One that is not there is no configuration; whatever happens, its mail waits.
        config::Via::Pipe | config::Via::Http => means::of(config, route).map_or(Via::Hold, Via::Pool),
        config::Via::Discard => Via::Discard,
        config::Via::Hold => Via::Hold,
    };
    let (tls, dane) = match route.tls {
        config::RouteTls::None => (TlsLevel::None, DaneUse::Off),
        config::RouteTls::Opportunistic => (TlsLevel::Opportunistic, DaneUse::Off),
        config::RouteTls::Required => (TlsLevel::Required, DaneUse::Off),
        config::RouteTls::Dane => (TlsLevel::Opportunistic, DaneUse::WherePublished),
        config::RouteTls::DaneRequired => (TlsLevel::Required, DaneUse::Required),
        config::RouteTls::Verified => (TlsLevel::Verified, DaneUse::Off),
    };
    let policed = !matches!(route.tls, config::RouteTls::None | config::RouteTls::DaneRequired);
    let sts = match route.via {
        config::Via::Mx if route.mta_sts && policed => StsUse::WherePublished,
        config::Via::Mx
        | config::Via::Hop
        | config::Via::Lmtp
        | config::Via::Pipe
        | config::Via::Http
        | config::Via::Discard
        | config::Via::Hold => StsUse::Off,
    };
    let mut sources = Sources::default();
    for address in &route.source_address {
        match address {
            IpAddr::V4(address) => _ = sources.v4.get_or_insert(*address),
            IpAddr::V6(address) => _ = sources.v6.get_or_insert(*address),
        }
    }
    let options = RouteOptions {
        protocol: if route.via == config::Via::Lmtp { Protocol::Lmtp } else { Protocol::Smtp },
        tls,
        dane,
        sts,
        identity: route.client_certificate.as_ref().map(|file| file.to_string_lossy().into()),
        login: route.credential.as_ref().map(|name| name.to_ascii_lowercase().into()),
        chunking: if route.chunking { Chunking::WhenOffered } else { Chunking::WhenNeeded },
        reverse_paths: match (route.verp, route.srs) {
            (true, _) => ReversePaths::Ours,
            (false, true) => ReversePaths::Rewritten,
            (false, false) => ReversePaths::Kept,
        },
        eight_bit: match route.eight_bit {
            config::EightBit::Convert => EightBitContent::Converted,
            config::EightBit::Refuse => EightBitContent::Refused,
            config::EightBit::AsIs => EightBitContent::AsIs,
        },
        forwarding: if route.xforward { Forwarding::On } else { Forwarding::Off },
        chaining: if route.chaining { Chaining::On } else { Chaining::Off },
        concurrency_max: route.concurrency_max,
        transactions_max: route.transactions_max,
        idle_max: route.idle,
        sources,
        pool: route.pool.as_deref().map(Into::into),
        ..RouteOptions::default()
    };
    Route { patterns: route.domains.iter().map(pattern).collect(), via, options }
}

/// A pattern of the configuration, as routes and rules have it.
pub(crate) fn pattern(pattern: &DomainPattern) -> Pattern {
    match pattern {
        DomainPattern::Any => Pattern::Any,
        DomainPattern::Below(domain) => Pattern::Below(domain.clone()),
        DomainPattern::Exact(domain) => Pattern::Exact(domain.clone()),
    }
}

fn hop_host(hop: &config::Hop) -> Option<HopHost> {
    Some(HopHost { place: place(&hop.host)?, port: hop.port })
}

/// A host of the configuration, as routes have it.
pub(crate) fn place(host: &Host) -> Option<Place> {
    Some(match host {
        Host::Address(address) => Place::Address(*address),
        Host::Name(domain) => Place::Name(Name::parse(domain.as_str()).ok()?),
        Host::Unix(path) => Place::Unix(path.as_path().into()),
    })
}

/// Who we are, so that mail is not sent to ourselves.
/// Where a listener takes what comes to any address, all that the host has are ours.
fn own(config: &Config, of_host: &[IpAddr]) -> Own {
    let listening = config.listeners.iter().flat_map(|listener| &listener.address);
    let tcp: Vec<SocketAddr> = listening
        .filter_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) | ListenAddress::Systemd(_) => None,
        })
        .collect();
    let (any, mut addresses): (Vec<_>, Vec<_>) =
        tcp.iter().map(SocketAddr::ip).partition(IpAddr::is_unspecified);
    if !any.is_empty() {
        addresses.extend(of_host);
    }
    Own {
        names: vec![config.hostname.as_str().into()],
        addresses,
        ports: tcp.iter().map(SocketAddr::port).collect(),
    }
}

/// What the client timeouts of next hops are called in the machine.
pub(crate) fn client_timeouts(timeouts: &config::OutboundTimeouts) -> smtp::client::Timeouts {
    smtp::client::Timeouts {
        connect: timeouts.connect,
        greeting: timeouts.greeting,
        command: timeouts.ehlo,
        handshake: timeouts.handshake,
        mail: timeouts.mail,
        rcpt: timeouts.rcpt,
        data: timeouts.data,
        content: timeouts.block,
        end: timeouts.final_dot,
        // Nothing is lost when this one ends; a next hop that is slow to say goodbye is left.
        quit: Duration::from_secs(5),
    }
}

const fn tolerance(tolerance: config::Tolerance) -> Tolerance {
    match tolerance {
        config::Tolerance::Refuse => Tolerance::Refuse,
        config::Tolerance::Accept => Tolerance::Accept,
    }
}

/// A size from the configuration as a length in memory; what does not fit is more than there is.
pub(crate) fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn which_addresses_are_ours() {
        let of_host = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let ours = |addresses: &[&str]| {
            let address =
                addresses.iter().map(|address| ListenAddress::Tcp(address.parse().unwrap())).collect();
            let listeners = vec![config::Listener { address, ..config::Listener::default() }];
            own(&Config { listeners, ..Config::default() }, &of_host).addresses
        };
        assert_eq!(ours(&["192.0.2.1:25"]), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        // Who takes what comes to any address takes what comes to these.
        assert_eq!(ours(&["[::]:25"]), of_host);
        assert_eq!(ours(&["0.0.0.0:25", "192.0.2.1:2525"])[1..], of_host);
    }
}
