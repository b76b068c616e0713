//! What several commands open: the configuration and the places in the data directory.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use config::{Config, ConfigError, Loaded};
use mail::JournalShard;
use tls::CertificateError;

use crate::signers::UnusableKey;

/// Reads the configuration.
///
/// # Errors
/// All mistakes in it, a line each.
pub(crate) fn config(path: &Path) -> anyhow::Result<Config> {
    loaded(path).map(|loaded| loaded.config)
}

/// Reads the configuration, and where its keys stand.
///
/// # Errors
/// All mistakes in it, a line each.
pub(crate) fn loaded(path: &Path) -> anyhow::Result<Loaded> {
    Loaded::read(path).map_err(|errors| anyhow!("the configuration cannot be used:\n{}", lines(&errors)))
}

/// Where the server that runs with this configuration keeps its data: that can be known though there is a mistake in it
/// which the server has not taken.
///
/// # Errors
/// When there is no such file.
pub(crate) fn data_directory(path: &Path) -> anyhow::Result<PathBuf> {
    Config::data_directory(path).map_err(|errors| anyhow!("{}", lines(&errors)))
}

/// Mistakes, a line each.
pub(crate) fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A certificate that cannot be used, with the key that names its file, and where that stands.
pub(crate) fn misplaced(loaded: &Loaded, error: &CertificateError) -> anyhow::Error {
    anyhow!("{}: {error}", loaded.places.name(&certificate_key(&loaded.config, error)))
}

/// What is wrong with a key that mail is signed with, and the place that is to be mended.
pub(crate) fn misplaced_key(loaded: &Loaded, error: &UnusableKey) -> anyhow::Error {
    anyhow!("{}: {error}", loaded.places.name(&error.key()))
}

/// The key that names the file which the error is about.
pub(crate) fn certificate_key(config: &Config, error: &CertificateError) -> String {
    let Some(file) = error.file() else { return "certificate".to_owned() };
    if config.outbound_tls.authorities.iter().any(|authority| authority == file) {
        return "outbound-tls.authorities".to_owned();
    }
    if config.relay.authorities.iter().any(|authority| authority == file) {
        return "relay.authorities".to_owned();
    }
    let routes = config.routes.iter().map(|it| ("route", &it.name, &it.client_certificate, &it.client_key));
    let sources =
        config.sources.iter().map(|it| ("source", &it.name, &it.client_certificate, &it.client_key));
    let shown = routes.chain(sources).find_map(|(kind, name, certificate, key)| {
        let key = if key.as_deref() == Some(file) {
            "client-key"
        } else if certificate.as_deref() == Some(file) {
            "client-certificate"
        } else {
            return None;
        };
        Some(format!("{kind}.{}.{key}", name.to_ascii_lowercase()))
    });
    if let Some(key) = shown {
        return key;
    }
    let named = config.certificates.iter().find_map(|certificate| {
        let key = if certificate.key == file {
            "key"
        } else if certificate.certificate == file {
            "certificate"
        } else {
            return None;
        };
        Some(format!("certificate.{}.{key}", certificate.name.to_ascii_lowercase()))
    });
    named.unwrap_or_else(|| "certificate".to_owned())
}

/// The segments of one journal shard.
pub(crate) fn segments(data_directory: &Path, shard: JournalShard) -> PathBuf {
    data_directory.join("segments").join(format!("{:04}", shard.0))
}

/// The index of one journal shard.
pub(crate) fn index(data_directory: &Path, shard: JournalShard) -> PathBuf {
    data_directory.join("index").join(format!("{:04}", shard.0))
}
