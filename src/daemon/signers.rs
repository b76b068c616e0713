//! Keys that mail of ours is signed with: read from the files that the configuration names, and those that are renewed.

use std::{error::Error as _, fs, io, path::Path, sync::Arc};

use config::{Canonical, Dkim};
use pool::{KeyFlaw, RotationSettings};
use trust::{Canonicalization, Key, KeyError, Signer, SignerError, SignerOptions};

/// What signs, for each entry of the configuration.
pub(crate) type Signers = Arc<[Box<[Signer]>]>;

/// Why a key cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", .file.display())]
pub(crate) struct UnusableKey {
    /// The name of its entry.
    name: String,
    file: Box<Path>,
    /// The key of the entry that is to be mended.
    at: &'static str,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(
        "{flaw}; restore it from a backup, or take its line out of {}: then a new key is made, and mail goes without the signature \
         until the DNS has shown it", state.display()
    )]
    Renewed {
        #[source]
        flaw: KeyFlaw,
        state: Box<Path>,
    },
    #[error("`domain` is missing")]
    NoDomain,
}

impl UnusableKey {
    /// The key of the configuration that is to be mended.
    pub(crate) fn key(&self) -> String {
        format!("dkim.{}.{}", self.name.to_ascii_lowercase(), self.at)
    }

    /// Whether this process may not read the file.
    pub(crate) fn is_denied(&self) -> bool {
        let mut cause = self.cause.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind() == io::ErrorKind::PermissionDenied;
            }
            cause = error.source();
        }
        false
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

/// What signs now: of keys that are renewed, those that the state on the disk says do. There may be none yet.
pub(crate) fn load(settings: &RotationSettings) -> Result<Signers, UnusableKey> {
    let renewed = settings.dkim.iter().find(|dkim| dkim.rotate.is_some());
    let state = match renewed {
        Some(dkim) => settings.read().map_err(|error| UnusableKey {
            file: settings.file().into(),
            ..unusable(dkim, "rotate", Cause::Unreadable(error))
        })?,
        None => trust::Rotations::default(),
    };
    let of_entry = |dkim: &Dkim| {
        if dkim.rotate.is_none() {
            return one(dkim).map(|signer| [signer].into());
        }
        let signing = settings.signing(dkim, &state);
        signing
            .map(|(id, key)| {
                let file = settings.key_file(&id.domain, &key.selector);
                let read = pool::read_key(&file, &key.record).map_err(|flaw| UnusableKey {
                    file: file.as_path().into(),
                    ..unusable(dkim, "rotate", Cause::Renewed { flaw, state: settings.file().into() })
                })?;
                of(dkim, read, &key.selector)
            })
            .collect()
    };
    settings.dkim.iter().map(of_entry).collect()
}

/// What signs with this key, which is in a file.
pub(crate) fn one(dkim: &Dkim) -> Result<Signer, UnusableKey> {
    of(dkim, read(dkim, &dkim.key, "key")?, &dkim.selector)
}

fn read(dkim: &Dkim, file: &Path, at: &'static str) -> Result<Key, UnusableKey> {
    let unusable = |cause| UnusableKey { file: file.into(), ..unusable(dkim, at, cause) };
    let pem = fs::read_to_string(file).map_err(|error| unusable(Cause::Unreadable(error)))?;
    Key::parse(&pem).map_err(|error| unusable(error.into()))
}

/// What signs with this key, which is published there.
pub(crate) fn of(dkim: &Dkim, key: Key, selector: &str) -> Result<Signer, UnusableKey> {
    let unusable = |at, cause| self::unusable(dkim, at, cause);
    let domain = dkim.domain.as_ref().ok_or_else(|| unusable("domain", Cause::NoDomain))?;
    Signer::new(key, domain, selector, options(dkim)).map_err(|error| {
        let at = match error {
            SignerError::Selector => "selector",
            SignerError::Domain => "domain",
            SignerError::Identity => "identity",
            SignerError::Field => "fields",
        };
        unusable(at, error.into())
    })
}

fn unusable(dkim: &Dkim, at: &'static str, cause: Cause) -> UnusableKey {
    UnusableKey { name: dkim.name.clone(), file: dkim.key.as_path().into(), at, cause }
}

fn options(dkim: &Dkim) -> SignerOptions {
    let form = |canonical| match canonical {
        Canonical::Simple => Canonicalization::Simple,
        Canonical::Relaxed => Canonicalization::Relaxed,
    };
    let or = |names: &[String], otherwise: Vec<Box<str>>| match names {
        [] => otherwise,
        names => names.iter().map(|name| name.as_str().into()).collect(),
    };
    let default = SignerOptions::default();
    SignerOptions {
        header: form(dkim.header),
        body: form(dkim.body),
        fields: or(&dkim.fields, default.fields),
        sealed: or(&dkim.sealed, default.sealed),
        lifetime: dkim.lifetime,
        identity: dkim.identity.as_deref().map(Into::into),
    }
}
