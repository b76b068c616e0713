//! Keys for DKIM are renewed here: what [`trust::Rotation`] says is done, in its order, and nothing before it is durable.
//!
//! ```text
//!  data/dkim-keys        all rotations, as trust/rotations.rs writes them: whole beside the old one, flushed, put in its place
//!       dkim-keys.lock   locked by the process that renews
//!       dkim/            private keys, SELECTOR.DOMAIN.pem, for the server's user alone; or `dkim-rotation.directory`
//! ```
//!
//! One process renews. Another beside it, in an upgrade, reads the file and signs with what that says, until it gets the lock.

mod keeper;
mod provider;
mod trouble;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use admin::Rotations as Shown;
use arc_swap::ArcSwap;
use bridge::Door;
use config::{Dkim, DkimAlgorithm, DkimRotation, DnsProvider};
use mail::{Domain, Timestamp};
use tokio::sync::{mpsc, oneshot};
use trust::{Key, KeyKind, RotatedKey, RotationId, Rotations};

use crate::PolicyFetching;

pub use provider::check_provider;

/// What the configuration says of the renewal of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RotationSettings {
    /// Where the state is kept.
    pub data_directory: PathBuf,
    /// Keys that sign, also those that are not renewed.
    pub dkim: Vec<Dkim>,
    /// How they are renewed.
    pub rotation: DkimRotation,
    /// Who publishes them.
    pub providers: Vec<DnsProvider>,
}

/// Somebody waits until all cores sign with the keys that the state on the disk says sign.
pub type SigningRequest = oneshot::Sender<Result<(), String>>;

/// What renews keys.
#[derive(Clone, Debug)]
pub struct KeyRotation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ArcSwap<RotationSettings>,
    shown: Shown,
    /// Another process does from now on.
    leaving: AtomicBool,
    changed: AtomicBool,
    clock: fn() -> Timestamp,
}

/// How often it is looked whether there is something to do.
const TURN: Duration = Duration::from_secs(1);

impl RotationSettings {
    /// Of this configuration.
    pub fn new(config: &config::Config) -> Self {
        Self {
            data_directory: config.data_directory.clone(),
            dkim: config.dkim.clone(),
            rotation: config.dkim_rotation.clone(),
            providers: config.dns_providers.clone(),
        }
    }

    /// Where the state is.
    pub fn file(&self) -> PathBuf {
        self.data_directory.join("dkim-keys")
    }

    /// Where private keys lie.
    pub fn directory(&self) -> PathBuf {
        self.rotation.directory.clone().unwrap_or_else(|| self.data_directory.join("dkim"))
    }

    /// Where a private key lies.
    pub fn key_file(&self, domain: &str, selector: &str) -> PathBuf {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String =
            format!("{selector}.{domain}.pem").chars().map(|c| if plain(c) { c } else { '_' }).collect();
        self.directory().join(name)
    }

    /// Whether anything is renewed.
    pub fn rotates(&self) -> bool {
        self.dkim.iter().any(|dkim| dkim.rotate.is_some())
    }

    fn entries(&self) -> impl Iterator<Item = &str> {
        self.dkim.iter().filter(|dkim| dkim.rotate.is_some()).map(|dkim| dkim.name.as_str())
    }

    /// The rotations of an entry.
    pub fn ids(dkim: &Dkim) -> impl Iterator<Item = (RotationId, DkimAlgorithm)> + '_ {
        let domain = dkim.domain.as_ref().filter(|_| dkim.rotate.is_some()).and_then(asked);
        domain.into_iter().flat_map(move |domain| {
            dkim.algorithms.iter().map(move |algorithm| {
                let entry = dkim.name.to_ascii_lowercase().into();
                (RotationId { entry, domain: domain.clone(), kind: kind(*algorithm) }, *algorithm)
            })
        })
    }

    /// The keys of an entry that sign. There may be one of an algorithm that it has no more, until another signs.
    pub fn signing<'a>(
        &self,
        dkim: &Dkim,
        state: &'a Rotations,
    ) -> impl Iterator<Item = (&'a RotationId, &'a RotatedKey)> + use<'a> {
        let entry = dkim.name.to_ascii_lowercase();
        let domain = dkim.domain.as_ref().and_then(asked);
        let of_entry =
            state.0.iter().filter(move |(id, _)| *id.entry == *entry && Some(&id.domain) == domain.as_ref());
        of_entry.filter_map(|(id, rotation)| Some((id, rotation.signing()?)))
    }

    /// What was written down; nothing where nothing was.
    ///
    /// # Errors
    /// When the file cannot be read or makes no sense.
    pub fn read(&self) -> io::Result<Rotations> {
        read(&self.file()).map(|(rotations, _)| rotations)
    }
}

impl KeyRotation {
    /// Renews keys as these say, shows how far they are, and hears wishes.
    pub fn new(settings: RotationSettings, shown: Shown, clock: fn() -> Timestamp) -> Self {
        shown.know(settings.entries());
        Self(Arc::new(Inner {
            settings: ArcSwap::from_pointee(settings),
            shown,
            leaving: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            clock,
        }))
    }

    /// Other settings are in force.
    pub fn configure(&self, settings: RotationSettings) {
        self.0.shown.know(settings.entries());
        self.0.settings.store(Arc::new(settings));
        self.0.changed.store(true, Ordering::Relaxed);
        self.0.shown.wake();
    }

    /// Another process renews keys from now on. This one signs with what that one has.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
        self.0.shown.wake();
    }
}

/// Renews keys for as long as the pool lives.
pub(crate) async fn run(
    rotation: KeyRotation,
    door: Door,
    fetching: Arc<ArcSwap<PolicyFetching>>,
    signing: mpsc::Sender<SigningRequest>,
) {
    let mut keeper = keeper::Keeper::new(rotation.0.clone(), door, fetching, signing);
    loop {
        let woken = tokio::time::timeout(TURN, rotation.0.shown.woken()).await.is_ok();
        keeper.turn(woken).await;
    }
}

/// A domain as it is asked for.
fn asked(domain: &Domain) -> Option<Box<str>> {
    dns::Name::parse(domain.as_str()).ok().map(|name| name.as_str().into())
}

const fn kind(algorithm: DkimAlgorithm) -> KeyKind {
    match algorithm {
        DkimAlgorithm::Rsa2048 => KeyKind::Rsa2048,
        DkimAlgorithm::Rsa4096 => KeyKind::Rsa4096,
        DkimAlgorithm::Ed25519 => KeyKind::Ed25519,
    }
}

/// The state, and its text.
fn read(file: &Path) -> io::Result<(Rotations, String)> {
    match std::fs::read_to_string(file) {
        Ok(text) => match Rotations::from_text(&text) {
            Ok(rotations) => Ok((rotations, text)),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{error}; restore it from a backup, or remove it: then all keys begin anew, and mail goes unsigned until then"
                ),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Rotations::default(), String::new())),
        Err(error) => Err(error),
    }
}

/// Why a private key cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum KeyFlaw {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is none.
    #[error(transparent)]
    NoKey(#[from] trust::KeyError),
    /// It is another than the one whose record is published.
    #[error("it is not the key that is published")]
    Other,
}

impl KeyFlaw {
    /// Whether another look would say the same.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Unreadable(error) => error.kind() == io::ErrorKind::NotFound,
            Self::NoKey(_) | Self::Other => true,
        }
    }
}

/// The private key in a file, where it is the one that the record is of.
///
/// # Errors
/// [`KeyFlaw`].
pub fn read_key(file: &Path, record: &str) -> Result<Key, KeyFlaw> {
    let pem = std::fs::read_to_string(file).map_err(KeyFlaw::Unreadable)?;
    let key = Key::parse(&pem)?;
    if trust::record(&pem)? == record { Ok(key) } else { Err(KeyFlaw::Other) }
}

/// Which key signs, of each rotation.
type Signing = BTreeMap<RotationId, Box<str>>;

fn signing(rotations: &Rotations) -> Signing {
    rotations.all_signing().into_iter().map(|(id, selector)| (id.clone(), selector.into())).collect()
}

#[cfg(test)]
#[path = "rotation_test.rs"]
mod test;
