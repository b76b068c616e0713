//! The configuration as types; what does not parse does not start.
//!
//! One TOML file, and what later files in `conf.d` beside it change or add. Each key is written down once, in
//! the section it is in; the commented example file and the reference page are printed from that. Rooms get the
//! values as plain types and never see the file.

mod authentication;
mod campaigns;
mod change;
mod check;
mod check_tls;
mod clients;
mod consent;
mod credentials;
mod deliverability;
mod egress;
mod error;
mod example;
mod failures;
mod greylist;
mod indicators;
mod load;
mod machine;
mod means;
mod notation;
mod operating;
mod parse;
mod reader;
mod replies;
mod reports_in;
mod reputation;
mod retrying;
mod rotation;
mod schema;
mod secret;
mod sending;
mod serving;
mod shaping;
mod signed;
mod strangers;
mod syntax;

use std::path::PathBuf;

use mail::Domain;

pub use authentication::{
    AuthAction, Authentication, AuthorRule, Canonical, Dkim, DmarcReports, UnknownAction,
};
pub use campaigns::{Campaign, CampaignValue};
pub use change::Change;
pub use check::Warning;
pub use clients::{Checks, Clients, ReverseRule, SenderPattern, Senders, Verify, VerifyFailure};
pub use consent::{
    BulkMark, Duplicates, LocalPartCase, QuotaExcess, Suppression, SuppressionUse, Unsubscribe,
    UnsubscribeCheck, UnsubscribeUse,
};
pub use credentials::{Credential, LoginMechanism, Refused, Secrecy};
pub use deliverability::Deliverability;
pub use egress::{
    Day, Dnsbl, Egress, Listed, POOL_MAX, Password, Pool, ProxyProtocol, Share, Source as EgressSource,
    WarmUp,
};
pub use error::{ConfigError, Place, Places, Problem};
pub use example::ExampleOptions;
pub use failures::DmarcFailures;
pub use greylist::{GreySpf, Greylist};
pub use indicators::{Bimi, BimiUse};
pub use load::{Loaded, Source};
pub use machine::{Buffers, CoreCount, Cores, Descriptors, Index, Journal, Ring};
pub use means::{Endpoint, EndpointBody, EndpointUrl, Program, ProgramLines};
pub use operating::{
    ApiKey, Hardening, Http, KeyHash, Log, LogFormat, LogLevel, Output, Secret, Shutdown, Upgrade,
};
pub use parse::{SizeError, SpanError, size_from_text, size_text, span_from_text};
pub use replies::{ReplyAction, ReplyRule, ReplyStage, TextPattern};
pub use reports_in::{ForwardedReports, ReportsIn};
pub use reputation::{Reputation, ReputationUse};
pub use retrying::{MailClass, Retry, RetrySenders};
pub use rotation::{DkimAlgorithm, DkimRotation, DnsProvider, DnsProviderKind, TsigHash, ZoneName};
pub use schema::Takes;
pub use secret::secret_line;
pub use sending::{
    Bounces, Dns, DomainPattern, EightBit, Hop, Host, MtaSts, OutboundTimeouts, OutboundTls, Queue, Route,
    RouteTls, Srs, TlsReports, UnsignedReports, Via,
};
pub use serving::{
    Certificate, ClientCertificate, DomainKind, Etrn, Extensions, FileMode, Fingerprint, InboundTimeouts,
    Limits, ListenAddress, Listener, ListenerKind, ListenerTls, MailDomain, Relay, Tls, TlsGroup, TlsSuite,
    TlsVersion, Tolerance,
};

pub use shaping::{Rate, Site, SiteTls, Tenant, Throttle};
pub use strangers::{CodeRule, DnsList, ListSubject, Strangers};

use notation::{Entries, FilePath, Literal, Maybe, Table, Text, YesNo};
use schema::section;

section! {
    /// The configuration of ringpost. Times are written "30s", "5m", "4h", "5d"; sizes "512B", "16KiB", "25MiB".
    /// Paths begin at the folder of this file. A line that begins with # says what holds anyway.
    pub struct Config {
        /// Our name: in the greeting, in reply to EHLO, and in Received fields (RFC 5321 §4.1.1.1).
        hostname: Domain [Literal] = localhost();
        /// Where mail and all other state is kept.
        data_directory: PathBuf [FilePath; Restart] = PathBuf::from("data");
        /// When started as root: the user to become once the ports are open. None: root does not start it, but for
        /// `allow-root`.
        user: Option<String> [Maybe<Text>; Restart] = None;
        /// When started as root: the group to become. None: that of the user.
        group: Option<String> [Maybe<Text>; Restart] = None;
        /// Whether root may serve mail without becoming somebody else: in a container or for a trial, where root owns
        /// nothing else.
        allow_root: bool [YesNo; Restart] = false;
        /// Cores.
        cores: Cores [Table] = Cores::default();
        /// io_uring.
        ring: Ring [Table] = Ring::default();
        /// Buffers.
        buffers: Buffers [Table] = Buffers::default();
        /// Descriptors.
        descriptors: Descriptors [Table] = Descriptors::default();
        /// The journal.
        journal: Journal [Table] = Journal::default();
        /// The index.
        index: Index [Table] = Index::default();
        /// Listeners.
        listeners "listener": Vec<Listener> [Entries] = Vec::new();
        /// TLS.
        tls: Tls [Table] = Tls::default();
        /// Certificates.
        certificates "certificate": Vec<Certificate> [Entries] = Vec::new();
        /// Clients.
        clients: Clients [Table] = Clients::default();
        /// Senders.
        senders: Senders [Table] = Senders::default();
        /// Limits.
        limits: Limits [Table] = Limits::default();
        /// Timeouts.
        timeouts: Timeouts [Table] = Timeouts::default();
        /// Whether mail is from whom it says.
        authentication: Authentication [Table] = Authentication::default();
        /// Pictures of domains.
        bimi: Bimi [Table] = Bimi::default();
        /// What becomes of mail of some authors.
        author_rules "author-rule": Vec<AuthorRule> [Entries] = Vec::new();
        /// What is found out about strangers.
        strangers: Strangers [Table] = Strangers::default();
        /// Who comes for the first time.
        greylist: Greylist [Table] = Greylist::default();
        /// What they have done.
        reputation: Reputation [Table] = Reputation::default();
        /// Lists of the DNS that know them.
        dns_lists "dns-list": Vec<DnsList> [Entries] = Vec::new();
        /// Keys that ours is signed with.
        dkim: Vec<Dkim> [Entries] = Vec::new();
        /// How those are renewed.
        dkim_rotation: DkimRotation [Table] = DkimRotation::default();
        /// Who publishes them.
        dns_providers "dns-provider": Vec<DnsProvider> [Entries] = Vec::new();
        /// Relaying.
        relay: Relay [Table] = Relay::default();
        /// Who may ask for waiting mail.
        etrn: Vec<Etrn> [Entries] = Vec::new();
        /// Domains.
        domains "domain": Vec<MailDomain> [Entries] = Vec::new();
        /// Verification.
        verify: Verify [Table] = Verify::default();
        /// Routes.
        routes "route": Vec<Route> [Entries] = Vec::new();
        /// Programs that take mail.
        programs "program": Vec<Program> [Entries] = Vec::new();
        /// Services that take mail by HTTP.
        endpoints "endpoint": Vec<Endpoint> [Entries] = Vec::new();
        /// Logins at next hops.
        credentials "credential": Vec<Credential> [Entries] = Vec::new();
        /// Sites.
        sites "site": Vec<Site> [Entries] = Vec::new();
        /// Addresses to send from.
        sources "source": Vec<egress::Source> [Entries] = Vec::new();
        /// Which of them share mail.
        pools "pool": Vec<Pool> [Entries] = Vec::new();
        /// How new ones come into use.
        warm_ups "warm-up": Vec<WarmUp> [Entries] = Vec::new();
        /// Lists of the DNS that they may be on.
        dnsbls "dnsbl": Vec<Dnsbl> [Entries] = Vec::new();
        /// How they are watched.
        egress: Egress [Table] = Egress::default();
        /// Domains that are looked at as mail testers do.
        deliverability: Deliverability [Table] = Deliverability::default();
        /// Adaptive limits.
        throttle: Throttle [Table] = Throttle::default();
        /// Tenants.
        tenants "tenant": Vec<Tenant> [Entries] = Vec::new();
        /// Campaigns.
        campaigns "campaign": Vec<Campaign> [Entries] = Vec::new();
        /// Suppression lists.
        suppression: Suppression [Table] = Suppression::default();
        /// Links to unsubscribe.
        unsubscribe: Unsubscribe [Table] = Unsubscribe::default();
        /// What came already.
        duplicates: Duplicates [Table] = Duplicates::default();
        /// Reports on our mail.
        bounces: Bounces [Table] = Bounces::default();
        /// Senders of mail that is passed on.
        srs: Srs [Table] = Srs::default();
        /// What refusals are about.
        reply_rules "reply-rule": Vec<ReplyRule> [Entries] = Vec::new();
        /// When what is refused is tried again.
        retries "retry": Vec<Retry> [Entries] = Vec::new();
        /// Certificates of next hops.
        outbound_tls: OutboundTls [Table] = OutboundTls::default();
        /// Policies of domains about TLS.
        mta_sts "mta-sts": MtaSts [Table] = MtaSts::default();
        /// Reports on TLS.
        tls_reports "tls-reports": TlsReports [Table] = TlsReports::default();
        /// Reports on mail that bore the names of domains.
        dmarc_reports "dmarc-reports": DmarcReports [Table] = DmarcReports::default();
        /// Reports on single messages that failed.
        dmarc_failures "dmarc-failures": DmarcFailures [Table] = DmarcFailures::default();
        /// Reports that come to us.
        reports_in "reports-in": ReportsIn [Table] = ReportsIn::default();
        /// DNS.
        dns: Dns [Table] = Dns::default();
        /// The queue.
        queue: Queue [Table] = Queue::default();
        /// HTTP.
        http: Http [Table] = Http::default();
        /// Programs that bring mail by HTTP.
        api_keys "api-key": Vec<ApiKey> [Entries] = Vec::new();
        /// Logs.
        log: Log [Table] = Log::default();
        /// Shutdown.
        shutdown: Shutdown [Table] = Shutdown::default();
        /// Upgrade.
        upgrade: Upgrade [Table] = Upgrade::default();
        /// Hardening.
        hardening: Hardening [Table] = Hardening::default();
    }
}

impl Config {
    /// Every file and directory that a key names.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        schema::Section::each_path(&mut self.clone(), &mut |path| paths.push(path.clone()));
        paths.retain(|path| !path.as_os_str().is_empty());
        paths
    }
}

section! {
    /// How patient we are.
    pub struct Timeouts {
        /// With those who come to us.
        inbound: InboundTimeouts [Table] = InboundTimeouts::default();
        /// With next hops.
        outbound: OutboundTimeouts [Table] = OutboundTimeouts::default();
    }
}

fn localhost() -> Domain {
    Domain::parse("localhost").expect("our own text")
}

#[cfg(test)]
#[path = "config_test.rs"]
mod test;
