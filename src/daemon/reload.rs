//! A new configuration on a running server: what it changes at once, and what waits for a restart.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use admin::{Operations, Reloaded};
use anyhow::anyhow;
use arc_swap::ArcSwap;
use bridge::Door;
use config::{Change, Config, ListenerTls, Loaded, Secret};
use shard::{Crowd, DiskBudget, Snapshot};
use tls::{Authorities, CertificateError, CertificateFiles, Certificates, Public};
use watch::log;

use crate::open;

/// What the program itself takes from a configuration, at its start and at each reload. The shards take the rest from
/// the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ours {
    certificates: Vec<CertificateFiles>,
    public_authorities: Public,
    authorities: Vec<PathBuf>,
    /// Whether a listener asks for TLS.
    tls: bool,
    version_min: tls::Version,
    pub(crate) log_levels: log::Levels,
    pub(crate) token: Option<Secret>,
    pub(crate) injections: inject::Settings,
    pub(crate) grace: Duration,
    pub(crate) disk_max: u64,
    pub(crate) clients_tracked_max: u32,
}

/// The configuration in force, and all that is told of another one.
pub(crate) struct Reloader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) shards: usize,
    /// What the server was started with: what takes a restart is still as it is there.
    pub(crate) started: Arc<Config>,
    pub(crate) ours: Ours,
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
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
        Self {
            certificates: config.certificates.iter().map(files).collect(),
            public_authorities: match config.outbound_tls.public_authorities {
                true => Public::Believed,
                false => Public::Ignored,
            },
            authorities: config.outbound_tls.authorities.clone(),
            tls: config.listeners.iter().any(|listener| listener.tls != ListenerTls::None),
            version_min: match config.tls.min_version {
                config::TlsVersion::Tls12 => tls::Version::Tls12,
                config::TlsVersion::Tls13 => tls::Version::Tls13,
            },
            log_levels: log::Levels {
                level: log_level(config.log.level),
                libraries: log_level(config.log.libraries),
                rooms: Vec::new(),
            },
            token: config.http.token.clone(),
            injections: inject::Settings::new(config),
            grace: config.shutdown.grace,
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
    pub(crate) fn certificates(
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

    /// Whose word counts for the certificates of next hops.
    pub(crate) fn authorities(&self) -> Result<Authorities, CertificateError> {
        Authorities::load(self.public_authorities, &self.authorities)
    }

    /// Where they lie.
    pub(crate) fn authority_files(&self) -> &[PathBuf] {
        &self.authorities
    }

    /// What the shards are given.
    pub(crate) fn snapshot(
        &self,
        config: Arc<Config>,
        certificates: Option<&Arc<Certificates>>,
        authorities: &Authorities,
    ) -> anyhow::Result<Snapshot> {
        const SESSIONS_MAX: usize = 4096;
        let server_tls =
            certificates.map(|certificates| tls::server_config(certificates.clone(), self.version_min));
        let client = |authentication| tls::client_config(authentication, tls::Version::Tls12, SESSIONS_MAX);
        Ok(Snapshot {
            config,
            server_tls: server_tls.transpose()?,
            client_tls: Some(client(tls::Authentication::Opportunistic)?),
            client_tls_verified: Some(client(tls::Authentication::Authorities(authorities))?),
        })
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
        let ours = Ours::new(&config);
        let certificates = ours.certificates(self.certificates.as_ref());
        let certificates = certificates.map_err(|error| self.explained(&loaded, &error))?;
        let authorities = ours.authorities().map_err(|error| self.explained(&loaded, &error))?;
        let snapshot = ours.snapshot(Arc::new(config), certificates.as_ref(), &authorities)?;
        self.snapshot.store(Arc::new(snapshot));
        self.log.set_levels(&ours.log_levels);
        self.operations.set_token(ours.token.clone());
        self.injections.configure(ours.injections.clone());
        self.budget.set_max(ours.disk_max);
        self.crowd.set_tracked_max(ours.clients_tracked_max);
        (self.certificates, self.ours) = (certificates, ours);
        let stranded = self.door.reload(0).await?;
        Ok(Reloaded { pending, stranded })
    }

    /// What is wrong with a file, and whether it is us who cannot reach it.
    fn explained(&self, loaded: &Loaded, error: &CertificateError) -> anyhow::Error {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        let error = open::misplaced(loaded, error);
        if refused && self.started.hardening.files {
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
