//! The certificates our servers show, chosen by the name the client asks for (RFC 6066 §3).
//!
//! Each chain and key is read, checked and made ready once; sessions on every core share it. A reload
//! puts the whole set in place at once: a handshake sees the old set or the new one.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    Error, InconsistentKeys,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// Where one certificate lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, the server's own certificate first.
    pub chain: PathBuf,
    /// The private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
    /// Names it is shown for beside those that the certificate itself holds, `*.example.org` included.
    pub names: Vec<String>,
}

/// All certificates in force, exchanged as a whole by [`Certificates::reload`].
#[derive(Debug)]
pub struct Certificates {
    set: ArcSwap<Set>,
}

/// Why the certificates cannot be used, with the file and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The list of files is empty.
    #[error("no certificate is configured; name at least one chain and key")]
    Unconfigured,
    /// The file is missing, or not for us.
    #[error("cannot read {}: {source}; check that it exists and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No chain of certificates is that large.
    #[error("{} is larger than 1 MiB; it is not a file of certificates or a key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The lines between BEGIN and END cannot be decoded.
    #[error("{} is not valid PEM ({reason}); copy it again from where it was issued", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing of the kind in the file.
    #[error("{} holds no certificate; it should have -----BEGIN CERTIFICATE----- in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate is not one.
    #[error("the first certificate in {} is malformed; copy it again from where it was issued", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing of the kind in the file.
    #[error("{} holds no private key; it should have -----BEGIN PRIVATE KEY----- in it", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key needs a passphrase, which nobody could type when the server starts by itself.
    #[error("the key in {0} is encrypted; decrypt it with: openssl pkey -in {0} -out NEW", path.display())]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// A kind or size of key we do not use.
    #[error("the key in {} is of an unsupported kind; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more", path.display())]
    KeyUnsupported {
        /// The file.
        path: PathBuf,
    },
    /// Chain and key do not belong together.
    #[error(
        "the key in {} is not the key of the first certificate in {}; \
         put the server's own certificate first, and use the key it was issued for",
        key.display(), chain.display()
    )]
    Mismatch {
        /// The file of the chain.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a certificate for these names: {0}")]
    Generate(String),
}

impl CertificateError {
    /// The file that is to be mended or exchanged, when it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unconfigured | Self::Generate(_) => None,
            Self::Unreadable { path, .. }
            | Self::TooLarge { path }
            | Self::Pem { path, .. }
            | Self::NoCertificate { path }
            | Self::Malformed { path }
            | Self::NoKey { path }
            | Self::KeyEncrypted { path }
            | Self::KeyUnsupported { path }
            | Self::Mismatch { key: path, .. } => Some(path),
        }
    }
}

/// What we show to servers that ask who we are.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads and checks a chain and its key.
    ///
    /// # Errors
    /// [`CertificateError`] for the file that cannot be used.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let (certified, _) = certify((chain, &read(chain)?), (key, &read(key)?))?;
        Ok(Self(certified))
    }

    pub(crate) fn resolver(&self) -> SingleCertAndKey {
        SingleCertAndKey::from(CertifiedKey::clone(&self.0))
    }
}

const FILE_SIZE_MAX: u64 = 1 << 20;

#[derive(Debug)]
struct Set {
    default: Arc<CertifiedKey>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads and checks all files. The first is shown to clients that name no host, or none we know.
    ///
    /// # Errors
    /// [`CertificateError`] for the first file that cannot be used.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        Ok(Self { set: ArcSwap::from_pointee(Set::load(files)?) })
    }

    /// One certificate from memory, shown to everybody.
    ///
    /// # Errors
    /// [`CertificateError`], with `chain` and `key` in the place of the files.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let (certified, names) = certify((Path::new("chain"), chain), (Path::new("key"), key))?;
        let mut set = Set { default: Arc::clone(&certified), by_name: HashMap::new() };
        set.add(&certified, names);
        Ok(Self { set: ArcSwap::from_pointee(set) })
    }

    /// Reads the files anew and puts them in force for the handshakes to come.
    ///
    /// # Errors
    /// [`CertificateError`]; what was in force stays in force.
    pub fn reload(&self, files: &[CertificateFiles]) -> Result<(), CertificateError> {
        self.set.store(Arc::new(Set::load(files)?));
        Ok(())
    }

    /// Every name a certificate is shown for, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.set.load().by_name.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        ASKED_FOR.set(name.map(Into::into));
        let set = self.set.load();
        Some(Arc::clone(name.and_then(|name| set.find(name)).unwrap_or(&set.default)))
    }
}

/// A certificate for the names, signed by its own key: encryption from the first start, though nobody can
/// verify it. The chain and the key, in PEM.
///
/// # Errors
/// [`CertificateError::Generate`] when a name cannot stand in a certificate.
pub fn self_signed(names: &[String]) -> Result<(String, String), CertificateError> {
    let failed = |e: rcgen::Error| CertificateError::Generate(e.to_string());
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, names.first().map_or("localhost", String::as_str));
    params.distinguished_name = subject;
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

thread_local! {
    // rustls tells the name to the resolver and keeps it from an unbuffered connection. Both run on one
    // thread within one call, so the channel picks it up here right behind that call.
    static ASKED_FOR: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The name the client asked for in the handshake step that has just run on this thread.
pub(crate) fn take_asked_for() -> Option<Box<str>> {
    ASKED_FOR.take()
}

impl Set {
    fn load(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let mut all = Vec::new();
        for CertificateFiles { chain, key, .. } in files {
            all.push(certify((chain, &read(chain)?), (key, &read(key)?))?);
        }
        let (first, _) = all.first().ok_or(CertificateError::Unconfigured)?;
        let mut set = Self { default: Arc::clone(first), by_name: HashMap::new() };
        // Who names a certificate for a name wants that one, whatever stands in others.
        for ((certified, _), files) in all.iter().zip(files) {
            set.add(certified, files.names.clone());
        }
        for (certified, own_names) in all {
            set.add(&certified, own_names);
        }
        Ok(set)
    }

    /// The first certificate with a name keeps it.
    fn add(&mut self, certified: &Arc<CertifiedKey>, names: Vec<String>) {
        for mut name in names {
            name.make_ascii_lowercase();
            self.by_name.entry(name.into()).or_insert_with(|| Arc::clone(certified));
        }
    }

    /// By the full name, then by the wildcard one label up (RFC 6125 §6.4.3).
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(name.as_str()).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(format!("*.{parent}").as_str())
        })
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { path: path.into(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_SIZE_MAX {
        return Err(CertificateError::TooLarge { path: path.into() });
    }
    fs::read(path).map_err(unreadable)
}

/// Checks a chain and its key, each with the file it came from; also the names in the certificate.
fn certify(
    (chain_path, chain): (&Path, &[u8]),
    (key_path, key): (&Path, &[u8]),
) -> Result<(Arc<CertifiedKey>, Vec<String>), CertificateError> {
    let malformed = || CertificateError::Malformed { path: chain_path.into() };
    let bad_pem =
        |path: &Path, e: &pem::Error| CertificateError::Pem { path: path.into(), reason: e.to_string() };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|e| bad_pem(chain_path, &e))?;
    let first = chain.first().ok_or_else(|| CertificateError::NoCertificate { path: chain_path.into() })?;
    let names = webpki::EndEntityCert::try_from(first)
        .map_err(|_| malformed())?
        .valid_dns_names()
        .map(str::to_owned)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| {
        if !matches!(e, pem::Error::NoItemsFound) {
            bad_pem(key_path, &e)
        } else if is_encrypted(key) {
            CertificateError::KeyEncrypted { path: key_path.into() }
        } else {
            CertificateError::NoKey { path: key_path.into() }
        }
    })?;
    let key = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| CertificateError::KeyUnsupported { path: key_path.into() })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that cannot tell its public half is not ours to doubt.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok((Arc::new(certified), names)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CertificateError::Mismatch { chain: chain_path.into(), key: key_path.into() })
        }
        Err(_) => Err(malformed()),
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
#[path = "certificates_test.rs"]
mod test;
