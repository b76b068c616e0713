//! A new configuration on a running server: what it changes at once, and what waits for a restart.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    future, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use admin::{Operations, Reloaded};
use anyhow::{anyhow, bail};
use arc_swap::ArcSwap;
use bridge::{Door, IndicatorLimits, IndicatorShelf, Strangers, Systems, Tenancy};
use config::{Change, Config, ListenerTls, Loaded, Secret};
use mail::Address;
use nix::unistd::{AccessFlags, access};
use pool::{
    Checking, DmarcReporting, FailureRates, FailureReporting, IndicatorFetching, KeyRotation, PolicyFetching,
    Rate, Redactor, ReportsInOptions, RotationSettings, Shown, TlsReporting, Unsubscribing, WebServers,
};
use shard::{ClientTls, Crowd, DiskBudget, ServerTls, Snapshot, Speaking};
use tenancy::Links;
use tls::{
    Authorities, CertificateError, CertificateFiles, Certificates, ClientCertificates, Credentials, Identity,
    Judge, MarkJudge, Public, ServerOptions, SettingsError, Tickets,
};
use watch::log;

use crate::{
    deliverability, open,
    programs::Programs,
    signers::{self, Signers, UnusableKey},
    strangers::{StrangersLimits, read_systems},
    tenants::TenancyLimits,
    watch_files::Stamps,
};

/// What the program itself takes from a configuration, at its start and at each reload. The shards take the rest from
/// the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ours {
    certificates: Vec<CertificateFiles>,
    /// They are read anew by whoever runs them, when they are others.
    programs: Vec<config::Program>,
    public_authorities: Public,
    authorities: Vec<PathBuf>,
    /// What is shown to next hops: chain and key.
    identities: BTreeSet<(PathBuf, PathBuf)>,
    policy_timeout: Duration,
    policy_port: u16,
    bimi: config::Bimi,
    tls_reports: config::TlsReports,
    dmarc_reports: config::DmarcReports,
    dmarc_failures: config::DmarcFailures,
    pub(crate) reports_in: ReportsInOptions,
    deliverability: config::Deliverability,
    hostname: mail::Domain,
    /// Whether a listener asks for TLS.
    tls: bool,
    version_min: tls::Version,
    suites: Vec<String>,
    groups: Vec<String>,
    listed_clients: Vec<tls::Fingerprint>,
    client_authorities: Vec<PathBuf>,
    /// Keys that sign, and how they are renewed.
    pub(crate) rotation: RotationSettings,
    watch_interval: Option<Duration>,
    pub(crate) log_levels: log::Levels,
    pub(crate) token: Option<Secret>,
    pub(crate) injections: inject::Settings,
    pub(crate) unsubscribing: Unsubscribing,
    tenancy_limits: TenancyLimits,
    pub(crate) strangers_limits: StrangersLimits,
    /// Where it is said which autonomous system an address is in.
    asn_database: Option<PathBuf>,
    pub(crate) grace: Duration,
    pub(crate) upgrade_start_max: Duration,
    pub(crate) upgrade_patience: Duration,
    pub(crate) disk_max: u64,
    pub(crate) clients_tracked_max: u32,
}

/// Why there are no papers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PapersError {
    #[error(transparent)]
    File(#[from] CertificateError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Signer(#[from] UnusableKey),
}

/// What is shown and believed in TLS: read from the files that the configuration names.
pub(crate) struct Papers {
    /// None when no listener needs them.
    certificates: Option<Arc<Certificates>>,
    /// Whose word counts for the certificates of next hops.
    authorities: Authorities,
    /// What is shown to them, by the file it is in.
    identities: BTreeMap<PathBuf, Identity>,
    /// Whose word counts for pictures of domains.
    marks: MarkJudge,
    /// Which certificates of clients are good for something.
    credentials: Arc<Credentials>,
    /// What signs mail of ours.
    signers: Signers,
    /// Older than any of the others: sessions begun before a reload are resumed after it.
    tickets: Tickets,
}

/// The configuration in force, and all that is told of another one.
pub(crate) struct Reloader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) shards: usize,
    /// What the server was started with: what takes a restart is still as it is there.
    pub(crate) started: Arc<Config>,
    pub(crate) ours: Ours,
    pub(crate) papers: Papers,
    /// The files that they were read from, as they looked before that.
    pub(crate) stamps: Stamps,
    /// How the database of autonomous systems looked.
    pub(crate) database_stamps: Stamps,
    /// Whether what was read then was no such database.
    pub(crate) database_refused: bool,
    /// When they are looked at again.
    pub(crate) next_look: Cell<tokio::time::Instant>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// What runs programs, where there were any at the start.
    pub(crate) programs: Option<Arc<Programs>>,
    /// How the policies of domains are fetched.
    pub(crate) policies: Arc<ArcSwap<PolicyFetching>>,
    /// How their pictures are fetched,
    pub(crate) indicators: Arc<ArcSwap<IndicatorFetching>>,
    /// and where they are kept.
    pub(crate) shelf: IndicatorShelf,
    /// How domains are told about TLS.
    pub(crate) tls_reporting: Arc<ArcSwap<TlsReporting>>,
    /// How domains are told of mail that bore their names.
    pub(crate) dmarc_reporting: Arc<ArcSwap<DmarcReporting>>,
    /// How they are told of messages that failed.
    pub(crate) failure_reporting: Arc<ArcSwap<FailureReporting>>,
    /// What renews keys.
    pub(crate) rotation: KeyRotation,
    /// How reports that come to us are kept.
    pub(crate) reports_in: Arc<ArcSwap<ReportsInOptions>>,
    /// How domains are looked at.
    pub(crate) checking: Arc<ArcSwap<Checking>>,
    pub(crate) tenancy: Tenancy,
    pub(crate) strangers: Strangers,
    /// What opens links to unsubscribe.
    pub(crate) unsubscribing: Arc<ArcSwap<Unsubscribing>>,
    pub(crate) budget: DiskBudget,
    pub(crate) crowd: Crowd,
    pub(crate) door: &'a Door,
    pub(crate) operations: &'a Operations,
    pub(crate) injections: &'a inject::Injections,
    pub(crate) log: &'a log::Log,
}

impl Ours {
    pub(crate) fn new(config: &Config) -> Self {
        let files = |certificate: &config::Certificate| CertificateFiles {
            chain: certificate.certificate.clone(),
            key: certificate.key.clone(),
            names: certificate.domains.iter().map(ToString::to_string).collect(),
        };
        let listed = config.relay.certificates.iter();
        Self {
            programs: config.programs.clone(),
            certificates: config.certificates.iter().map(files).collect(),
            public_authorities: match config.outbound_tls.public_authorities {
                true => Public::Believed,
                false => Public::Ignored,
            },
            authorities: config.outbound_tls.authorities.clone(),
            identities: config
                .routes
                .iter()
                .map(|route| (&route.client_certificate, &route.client_key))
                .chain(config.sources.iter().map(|source| (&source.client_certificate, &source.client_key)))
                .filter_map(|(certificate, key)| Some((certificate.clone()?, key.clone()?)))
                .collect(),
            policy_timeout: config.mta_sts.timeout,
            policy_port: config.mta_sts.port,
            bimi: config.bimi.clone(),
            tls_reports: config.tls_reports.clone(),
            dmarc_reports: config.dmarc_reports.clone(),
            dmarc_failures: config.dmarc_failures.clone(),
            reports_in: reports_in(config),
            deliverability: config.deliverability.clone(),
            hostname: config.hostname.clone(),
            tls: config.listeners.iter().any(|listener| listener.tls != ListenerTls::None),
            version_min: match config.tls.min_version {
                config::TlsVersion::Tls12 => tls::Version::Tls12,
                config::TlsVersion::Tls13 => tls::Version::Tls13,
            },
            suites: config.tls.suites.iter().map(ToString::to_string).collect(),
            groups: config.tls.groups.iter().map(ToString::to_string).collect(),
            listed_clients: listed.map(|fingerprint| tls::Fingerprint(*fingerprint.as_bytes())).collect(),
            client_authorities: config.relay.authorities.clone(),
            rotation: RotationSettings::new(config),
            watch_interval: config.tls.watch_interval,
            log_levels: log::Levels {
                level: log_level(config.log.level),
                libraries: log_level(config.log.libraries),
                rooms: Vec::new(),
            },
            token: config.http.token.clone(),
            injections: inject::Settings::new(config),
            unsubscribing: Unsubscribing {
                links: Links::new(
                    config.unsubscribe.url.as_deref().unwrap_or_default(),
                    config.unsubscribe.secrets.iter().map(Secret::expose),
                ),
                lifetime: config.suppression.unsubscribe_lifetime,
                requests_max: config.unsubscribe.requests_max,
            },
            tenancy_limits: TenancyLimits::new(config),
            strangers_limits: StrangersLimits::new(config),
            asn_database: config.reputation.asn_database.clone(),
            grace: config.shutdown.grace,
            upgrade_start_max: config.upgrade.start_max,
            upgrade_patience: config.upgrade.patience,
            disk_max: config.journal.disk_max,
            clients_tracked_max: config.clients.tracked_max,
        }
    }

    /// Where the certificates lie.
    pub(crate) fn certificate_files(&self) -> &[CertificateFiles] {
        &self.certificates
    }

    /// The certificates, when there are any or a listener needs them. Those that are in force `before` are exchanged, so
    /// that sessions which are open see them too.
    fn certificates(
        &self,
        before: Option<&Arc<Certificates>>,
    ) -> Result<Option<Arc<Certificates>>, CertificateError> {
        if self.certificates.is_empty() && !self.tls {
            return Ok(None);
        }
        match before {
            Some(certificates) => {
                certificates.reload(&self.certificates)?;
                Ok(Some(certificates.clone()))
            }
            None => Ok(Some(Arc::new(Certificates::load(&self.certificates)?))),
        }
    }

    /// Where the certificates of authorities lie.
    pub(crate) fn authority_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.authorities.iter().chain(&self.client_authorities).chain(&self.bimi.authorities)
    }

    /// Where the certificates that next hops are shown lie, each with its key.
    pub(crate) fn identity_files(&self) -> impl Iterator<Item = &(PathBuf, PathBuf)> {
        self.identities.iter()
    }

    /// All files that papers are read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        let shown = self.identity_files().flat_map(|(chain, key)| [chain, key]);
        let in_files = self.rotation.dkim.iter().filter(|dkim| dkim.rotate.is_none());
        let signing = in_files.map(|dkim| &dkim.key);
        own.chain(shown).chain(self.authority_files()).chain(signing)
    }

    /// What is known of autonomous systems, where a file says it.
    ///
    /// # Errors
    /// When the file cannot be read, or is no such database.
    pub(crate) fn systems(&self) -> anyhow::Result<Option<Systems>> {
        self.asn_database.as_deref().map(read_systems).transpose()
    }

    /// How that file looks now.
    pub(crate) fn database_stamps(&self) -> Stamps {
        Stamps::of(self.asn_database.iter())
    }

    /// Reads all that lies in files. What was in force before is exchanged when all of it is good, and not before.
    pub(crate) fn papers(&self, before: Option<&Papers>) -> Result<Papers, PapersError> {
        let authorities = self.authorities()?;
        let of_clients = Authorities::load(Public::Ignored, &self.client_authorities)?;
        let marks = self.marks()?;
        let mut identities = BTreeMap::new();
        for (chain, key) in &self.identities {
            identities.insert(chain.clone(), Identity::load(chain, key)?);
        }
        let credentials = Credentials::new(self.listed_clients.iter().copied(), &of_clients);
        let tickets = before.map_or_else(Tickets::new, |before| Ok(before.tickets.clone()))?;
        let certificates = self.certificates(before.and_then(|before| before.certificates.as_ref()))?;
        let (signers, credentials) = (signers::load(&self.rotation)?, Arc::new(credentials));
        Ok(Papers { certificates, authorities, identities, marks, credentials, signers, tickets })
    }

    /// Whose word counts for the certificates of next hops.
    pub(crate) fn authorities(&self) -> Result<Authorities, CertificateError> {
        Authorities::load(self.public_authorities, &self.authorities)
    }

    /// Whose word counts for pictures of domains.
    pub(crate) fn marks(&self) -> Result<MarkJudge, CertificateError> {
        Ok(MarkJudge::new(Authorities::load(Public::Ignored, &self.bimi.authorities)?))
    }

    /// How domains are looked at, as mail testers do.
    pub(crate) fn checking(
        &self,
        config: Arc<Config>,
        (authorities, marks): (&Authorities, &MarkJudge),
        signers: Signers,
    ) -> Result<Checking, PapersError> {
        // Few hosts are met twice, and none of them by then.
        const SESSIONS_MAX: usize = 8;
        let client = |authentication| tls::client_config(authentication, tls::Version::Tls12, SESSIONS_MAX);
        let verified = client(tls::Authentication::Authorities(authorities))?;
        Ok(Checking {
            indicators: self.indicator_fetching(verified.clone(), marks),
            verified,
            domains: deliverability::domains(&config),
            interval: self.deliverability.interval,
            patience: self.deliverability.timeout,
            policy_port: self.policy_port,
            ehlo: self.hostname.to_string(),
            lenient: client(tls::Authentication::Opportunistic)?,
            judge: Judge::new(authorities),
            plans: deliverability::plans(config, signers),
        })
    }

    /// Likewise, by papers that were read.
    pub(crate) fn checking_by(&self, config: Arc<Config>, papers: &Papers) -> Result<Checking, PapersError> {
        self.checking(config, (&papers.authorities, &papers.marks), papers.signers.clone())
    }

    /// What the shards are given.
    pub(crate) fn snapshot(&self, config: Arc<Config>, papers: &Papers) -> anyhow::Result<Snapshot> {
        const SESSIONS_MAX: usize = 4096;
        let server_tls =
            papers.certificates.as_ref().map(|certificates| self.server_tls(certificates, papers));
        let speaking = |identity: Option<&Identity>| {
            let client = |authentication| {
                tls::client_config_as(identity, authentication, tls::Version::Tls12, SESSIONS_MAX)
            };
            Ok::<_, SettingsError>(Speaking {
                identity: identity.cloned(),
                lenient: client(tls::Authentication::Opportunistic)?,
                verified: client(tls::Authentication::Authorities(&papers.authorities))?,
            })
        };
        let mut by_certificate = BTreeMap::new();
        for (file, identity) in &papers.identities {
            by_certificate.insert(file.to_string_lossy().into(), speaking(Some(identity))?);
        }
        let client_tls =
            ClientTls { nameless: speaking(None)?, by_certificate, judge: Judge::new(&papers.authorities) };
        Ok(Snapshot {
            reply_rules: shard::reply_rules(&config)?,
            config,
            addresses: crate::host::addresses(),
            server_tls: server_tls.transpose()?,
            client_tls: Some(client_tls),
            signers: papers.signers.clone(),
        })
    }

    /// How the policies of domains are fetched.
    pub(crate) fn policy_fetching(&self, papers: &Papers) -> Result<PolicyFetching, SettingsError> {
        const SESSIONS_MAX: usize = 64;
        let authentication = tls::Authentication::Authorities(&papers.authorities);
        Ok(PolicyFetching {
            tls: tls::client_config(authentication, tls::Version::Tls12, SESSIONS_MAX)?,
            patience: self.policy_timeout,
            port: self.policy_port,
        })
    }

    /// How pictures of domains are fetched.
    pub(crate) fn indicators(&self, fetching: &PolicyFetching, papers: &Papers) -> IndicatorFetching {
        self.indicator_fetching(fetching.tls.clone(), &papers.marks)
    }

    fn indicator_fetching(&self, tls: Arc<tls::ClientConfig>, marks: &MarkJudge) -> IndicatorFetching {
        let bimi = &self.bimi;
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        IndicatorFetching {
            tls,
            marks: marks.clone(),
            patience: bimi.timeout,
            size_max: size(bimi.size_max),
            limits: IndicatorLimits {
                kept_max: bimi.kept_max as usize,
                octets_max: size(bimi.memory_max),
                keep: bimi.keep,
                retry: bimi.retry,
            },
            servers: if bimi.private_servers { WebServers::Any } else { WebServers::Open },
        }
    }

    /// How domains are told about TLS.
    ///
    /// # Errors
    /// When `hostname` is no place for a postmaster.
    pub(crate) fn tls_reporting(&self, fetching: &PolicyFetching) -> anyhow::Result<TlsReporting> {
        let reports = &self.tls_reports;
        let contact = self.contact(reports.contact.as_ref())?;
        let hostname = self.hostname.to_string();
        Ok(TlsReporting {
            enabled: reports.enabled,
            contact,
            organization: reports.organization.clone().unwrap_or_else(|| hostname.clone()),
            hostname,
            jitter: reports.jitter,
            days_max: reports.days_max as usize,
            tls: fetching.tls.clone(),
        })
    }

    /// How domains are told of mail that bore their names.
    ///
    /// # Errors
    /// When `hostname` is no place for a postmaster.
    pub(crate) fn dmarc_reporting(&self) -> anyhow::Result<DmarcReporting> {
        let reports = &self.dmarc_reports;
        let hostname = self.hostname.to_string();
        Ok(DmarcReporting {
            enabled: reports.enabled,
            contact: self.contact(reports.contact.as_ref())?,
            organization: reports.organization.clone().unwrap_or_else(|| hostname.clone()),
            hostname,
            generator: format!("ringpost {}", env!("CARGO_PKG_VERSION")),
            jitter: reports.jitter,
            days_max: reports.days_max as usize,
        })
    }

    /// How domains are told of messages that failed.
    ///
    /// # Errors
    /// When `hostname` is no place for a postmaster.
    pub(crate) fn failure_reporting(&self) -> anyhow::Result<FailureReporting> {
        let failures = &self.dmarc_failures;
        Ok(FailureReporting {
            enabled: failures.enabled,
            contact: self.contact(failures.contact.as_ref())?,
            hostname: self.hostname.to_string(),
            generator: format!("ringpost/{}", env!("CARGO_PKG_VERSION")),
            redactor: Redactor::new(failures.redaction_key.as_ref().map(Secret::expose)),
            shown: Shown {
                subject: failures.subject,
                size_max: usize::try_from(failures.header_max).unwrap_or(usize::MAX),
            },
            rates: FailureRates {
                all: Rate { hourly: failures.hourly_max, daily: failures.daily_max },
                domain: Rate { hourly: failures.domain_hourly_max, daily: failures.domain_daily_max },
                destination: Rate {
                    hourly: failures.destination_hourly_max,
                    daily: failures.destination_daily_max,
                },
                repeat: failures.repeat,
                tracked_max: failures.tracked_max as usize,
            },
        })
    }

    /// Whom to ask about reports.
    fn contact(&self, configured: Option<&Address>) -> anyhow::Result<Address> {
        Ok(match configured {
            Some(contact) => contact.clone(),
            None => Address::new("postmaster", &self.hostname)?,
        })
    }
}

/// How reports that come to us are taken.
fn reports_in(config: &Config) -> ReportsInOptions {
    let reports = &config.reports_in;
    let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    ReportsInOptions {
        hostname: config.authentication.authserv_id.as_ref().unwrap_or(&config.hostname).to_string(),
        domains: reports.domains.clone(),
        forward: reports.forward.clone(),
        forward_all: reports.forwarded == config::ForwardedReports::All,
        keep: reports.keep,
        disk_max: reports.disk_max,
        reports_max: reports.reports_max,
        limits: pool::ReportLimits {
            mail_max: size(reports.mail_max),
            expanded_max: size(reports.expanded_max),
            rows_max: reports.rows_max as usize,
        },
        https: reports.https,
        posts_max: reports.posts_max,
    }
}

impl Ours {
    fn server_tls(
        &self,
        certificates: &Arc<Certificates>,
        papers: &Papers,
    ) -> Result<ServerTls, SettingsError> {
        let with = |clients| {
            let options = ServerOptions {
                version_min: self.version_min,
                suites: self.suites.clone(),
                groups: self.groups.clone(),
                clients,
            };
            tls::server_config(certificates.clone(), &options, &papers.tickets)
        };
        Ok(ServerTls {
            not_asking: with(ClientCertificates::NotAskedFor)?,
            asking: with(ClientCertificates::AskedFor)?,
            requiring: with(ClientCertificates::Required(papers.credentials.clone()))?,
            credentials: papers.credentials.clone(),
        })
    }
}

impl PapersError {
    /// With the key that names the file which it is about.
    pub(crate) fn placed(self, loaded: &Loaded) -> anyhow::Error {
        match self {
            Self::File(error) => open::misplaced(loaded, &error),
            Self::Settings(error) => error.into(),
            Self::Signer(error) => open::misplaced_key(loaded, &error),
        }
    }
}

impl Reloader<'_> {
    /// Takes the configuration and the certificates anew, or leaves all as it is. Answers what waits for a restart.
    pub(crate) async fn reload(&mut self) -> anyhow::Result<Reloaded> {
        let loaded = open::loaded(self.path)?;
        let Change { config, pending } = loaded.change(&self.started, self.shards).map_err(|errors| {
            anyhow!(
                "with what cannot change before a restart, it contradicts itself:\n{}",
                open::lines(&errors)
            )
        })?;
        if self.programs.is_none()
            && let Some(program) = config.programs.first()
        {
            let place = loaded.places.name(&format!("program.{}", program.name.to_ascii_lowercase()));
            bail!(
                "{place}: the first program takes a restart, since this server has given up the right to start any"
            );
        }
        let ours = Ours::new(&config);
        let stamps = Stamps::of(ours.files());
        let papers = ours.papers(Some(&self.papers)).map_err(|error| match error {
            PapersError::File(error) => {
                let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
                let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
                self.explained(open::misplaced(&loaded, &error), error.file().filter(|_| refused))
            }
            PapersError::Settings(error) => error.into(),
            PapersError::Signer(error) => {
                let refused = Some(error.file()).filter(|_| error.is_denied());
                self.explained(open::misplaced_key(&loaded, &error), refused)
            }
        })?;
        let database_stamps = ours.database_stamps();
        // The same file is not read again for every change of something else.
        let is_another = self.database_refused
            || ours.asn_database != self.ours.asn_database
            || database_stamps != self.database_stamps;
        let systems = if is_another {
            let file = ours.asn_database.clone();
            Some(ours.systems().map_err(|error| {
                let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
                let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
                let told = anyhow!("{}: {error:#}", loaded.places.name("reputation.asn-database"));
                self.explained(told, file.as_deref().filter(|_| refused))
            })?)
        } else {
            None
        };
        let snapshot = ours.snapshot(Arc::new(config), &papers)?;
        let fetching = ours.policy_fetching(&papers)?;
        let reporting = ours.tls_reporting(&fetching)?;
        let dmarc_reporting = ours.dmarc_reporting()?;
        let failure_reporting = ours.failure_reporting()?;
        let checking = ours.checking_by(snapshot.config.clone(), &papers)?;
        if let Some(programs) = self.programs.as_ref().filter(|_| ours.programs != self.ours.programs) {
            programs.reload();
        }
        ours.strangers_limits.apply(&self.strangers);
        if let Some(systems) = systems {
            self.strangers.set_systems(systems);
        }
        (self.database_stamps, self.database_refused) = (database_stamps, false);
        self.snapshot.store(Arc::new(snapshot));
        self.tls_reporting.store(Arc::new(reporting));
        self.dmarc_reporting.store(Arc::new(dmarc_reporting));
        self.failure_reporting.store(Arc::new(failure_reporting));
        self.fetch_indicators(ours.indicators(&fetching, &papers));
        self.policies.store(Arc::new(fetching));
        self.checking.store(Arc::new(checking));
        self.log.set_levels(&ours.log_levels);
        self.operations.set_token(ours.token.clone());
        self.injections.configure(ours.injections.clone());
        self.unsubscribing.store(Arc::new(ours.unsubscribing.clone()));
        self.reports_in.store(Arc::new(ours.reports_in.clone()));
        ours.tenancy_limits.apply(&self.tenancy);
        // Also where it says the same: what has failed is tried at once.
        self.rotation.configure(ours.rotation.clone());
        self.budget.set_max(ours.disk_max);
        self.crowd.set_tracked_max(ours.clients_tracked_max);
        (self.papers, self.stamps, self.ours) = (papers, stamps, ours);
        self.next_look.set(tokio::time::Instant::now());
        let stranded = self.door.reload(0).await?;
        let told =
            |warning: &config::Warning| format!("{}: {}", loaded.places.name(&warning.key), warning.text);
        let warnings: Vec<_> = loaded.replaced().iter().map(told).collect();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(Reloaded { pending, stranded, warnings })
    }

    /// Pictures are fetched so from now on. What was judged by others, or was too large then, is forgotten.
    fn fetch_indicators(&self, fetching: IndicatorFetching) {
        let before = self.indicators.swap(Arc::new(fetching.clone()));
        let judges = |of: &IndicatorFetching| (of.size_max, of.servers);
        if before.marks != fetching.marks || judges(&before) != judges(&fetching) {
            self.shelf.forget();
        }
    }

    /// Waits until a file of certificates, or the database of autonomous systems, is another than the one that was read, or was tried
    /// to be.
    pub(crate) async fn files_change(&self) {
        let Some(interval) = self.ours.watch_interval else { return future::pending().await };
        loop {
            // Whoever waits for this does so anew whenever anything else has happened.
            tokio::time::sleep_until(self.next_look.get()).await;
            self.next_look.set(tokio::time::Instant::now() + interval);
            if Stamps::of(self.ours.files()) != self.stamps
                || self.ours.database_stamps() != self.database_stamps
            {
                return;
            }
        }
    }

    /// Whether it is a file of certificates that has changed.
    pub(crate) fn papers_changed(&self) -> bool {
        Stamps::of(self.ours.files()) != self.stamps
    }

    /// Takes the database of autonomous systems anew, if it has changed; what is no such database leaves the old one. Answers the file
    /// and how many networks it has.
    pub(crate) fn renew_systems(&mut self) -> Option<(PathBuf, anyhow::Result<u64>)> {
        let stamps = self.ours.database_stamps();
        if stamps == self.database_stamps {
            return None;
        }
        // Before it is read: what is written meanwhile is seen the next time.
        self.database_stamps = stamps;
        let file = self.ours.asn_database.clone()?;
        let read = self.ours.systems().map(|systems| {
            let networks = systems.as_ref().map_or(0, Systems::networks);
            self.strangers.set_systems(systems);
            networks
        });
        self.database_refused = read.is_err();
        Some((file, read))
    }

    /// Takes the certificates of the configuration in force anew. They are taken whole or not at all: while only some of the
    /// files are new, those that are in force stay. Answers the names that there is a certificate for.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<Vec<String>> {
        // Before they are read: what is written meanwhile is seen the next time.
        self.stamps = Stamps::of(self.ours.files());
        let papers = self.ours.papers(Some(&self.papers))?;
        let config = self.snapshot.load().config.clone();
        let snapshot = self.ours.snapshot(config, &papers)?;
        let fetching = self.ours.policy_fetching(&papers)?;
        self.checking.store(Arc::new(self.ours.checking_by(snapshot.config.clone(), &papers)?));
        self.tls_reporting.store(Arc::new(self.ours.tls_reporting(&fetching)?));
        self.fetch_indicators(self.ours.indicators(&fetching, &papers));
        self.policies.store(Arc::new(fetching));
        self.snapshot.store(Arc::new(snapshot));
        self.papers = papers;
        self.door.reload(0).await?;
        Ok(self.papers.certificates.as_ref().map_or(Vec::new(), |certificates| certificates.names()))
    }

    /// Takes the keys that mail is signed with anew, on all cores; or all stays as it is.
    pub(crate) async fn sign_anew(&mut self) -> anyhow::Result<()> {
        let signers = signers::load(&self.ours.rotation)?;
        let snapshot = Snapshot { signers: signers.clone(), ..Snapshot::clone(&self.snapshot.load()) };
        let believed = (&self.papers.authorities, &self.papers.marks);
        let checking = self.ours.checking(snapshot.config.clone(), believed, signers.clone())?;
        self.checking.store(Arc::new(checking));
        self.snapshot.store(Arc::new(snapshot));
        self.papers.signers = signers;
        self.door.reload(0).await?;
        Ok(())
    }

    /// What is wrong with a file, and whether it is us who cannot reach it: where reading it was refused.
    fn explained(&self, error: anyhow::Error, refused: Option<&Path>) -> anyhow::Error {
        // Landlock has no say in this: owner, group and mode have.
        let ours = refused.is_some_and(|file| access(file, AccessFlags::R_OK).is_ok());
        if ours && self.started.hardening.files {
            return anyhow!(
                "{error}; or restart: it is in a folder that no key named at the start (hardening.files)"
            );
        }
        error
    }
}

const fn log_level(level: config::LogLevel) -> log::Level {
    match level {
        config::LogLevel::Off => log::Level::Off,
        config::LogLevel::Error => log::Level::Error,
        config::LogLevel::Warn => log::Level::Warn,
        config::LogLevel::Info => log::Level::Info,
        config::LogLevel::Debug => log::Level::Debug,
        config::LogLevel::Trace => log::Level::Trace,
    }
}

#[cfg(test)]
#[path = "reload_test.rs"]
mod test;
