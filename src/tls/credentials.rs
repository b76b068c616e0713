//! Certificates of clients, and whose are a credential.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{Authorities, settings::provider};

/// The SHA-256 of a certificate as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// The certificates that are a credential: those that are listed, and those that somebody believed has issued.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    listed: HashSet<Fingerprint>,
    issued: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// No certificate.
    Nothing,
    /// A certificate that is no credential.
    Certificate(Fingerprint),
    /// A credential.
    Credential(Fingerprint),
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Debug, Default)]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    NotAskedFor,
    /// They are, and may show any or none.
    AskedFor,
    /// Without one of these there is no connection.
    Required(Arc<Credentials>),
}

impl Credentials {
    /// The listed ones count whoever issued them and however old they are; the others must be good for clients now.
    ///
    /// # Panics
    /// Never: there is nothing wrong with authorities that have been read.
    pub fn new(listed: impl IntoIterator<Item = Fingerprint>, authorities: &Authorities) -> Self {
        let roots = &authorities.roots;
        let issued = (!roots.is_empty()).then(|| {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider());
            builder.build().expect("it fails without roots and for revocation lists alone")
        });
        Self { listed: listed.into_iter().collect(), issued }
    }

    /// What it means that a client has shown this chain, its own certificate first, so long after 1970 began.
    pub(crate) fn judge(&self, chain: &[CertificateDer<'_>], now: Duration) -> Shown {
        let [own, others @ ..] = chain else { return Shown::Nothing };
        let fingerprint = Fingerprint::of(own);
        let now = UnixTime::since_unix_epoch(now);
        let is_issued =
            || self.issued.as_ref().is_some_and(|issued| issued.verify_client_cert(own, others, now).is_ok());
        if self.listed.contains(&fingerprint) || is_issued() {
            Shown::Credential(fingerprint)
        } else {
            Shown::Certificate(fingerprint)
        }
    }
}

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let hash = digest::digest(&digest::SHA256, certificate);
        Self(hash.as_ref().try_into().expect("a SHA-256 has 32 octets"))
    }
}

impl fmt::Display for Fingerprint {
    /// `sha256:` and hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Asks clients for a certificate. That a client has the key is always checked; whose the certificate is, only where one
/// must be shown: elsewhere it is judged by whoever wants to know.
#[derive(Debug)]
pub(crate) struct Asking {
    required: Option<Arc<Credentials>>,
    provider: Arc<CryptoProvider>,
}

impl Asking {
    /// None where clients are not asked.
    pub(crate) fn new(clients: &ClientCertificates, provider: Arc<CryptoProvider>) -> Option<Self> {
        match clients {
            ClientCertificates::NotAskedFor => None,
            ClientCertificates::AskedFor => Some(Self { required: None, provider }),
            ClientCertificates::Required(credentials) => {
                Some(Self { required: Some(credentials.clone()), provider })
            }
        }
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        self.required.is_some()
    }

    // Empty: any will do (RFC 8446 §4.2.4), since those that are listed are issued by anybody.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(required) = &self.required else { return Ok(ClientCertVerified::assertion()) };
        let chain: Vec<_> = std::iter::once(own).chain(others).cloned().collect();
        match required.judge(&chain, Duration::from_secs(now.as_secs())) {
            Shown::Credential(_) => Ok(ClientCertVerified::assertion()),
            Shown::Nothing | Shown::Certificate(_) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "credentials_test.rs"]
mod test;
