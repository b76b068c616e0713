//! A server is proven by what the DNS says of it, not by an authority (RFC 7671, RFC 7672).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::EndEntityCert;

use crate::settings::provider;

/// What a server has to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dane {
    /// TLSA records, one of which has to match.
    pub records: Vec<Association>,
    /// Names that its certificate may be for where an authority of the records has issued it.
    pub names: Vec<String>,
}

/// What one TLSA record says (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Association {
    /// Of whom.
    pub holder: Holder,
    /// Of what.
    pub part: Part,
    /// How.
    pub form: Form,
    /// The data.
    pub data: Box<[u8]>,
}

/// Whose certificate a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// An authority's that has issued the server's: DANE-TA(2).
    Authority,
    /// The server's own: DANE-EE(3).
    Server,
}

/// What of the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Certificate,
    /// The public key.
    PublicKey,
}

/// How that stands in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As it is.
    Full,
    /// By its SHA2-256.
    Sha256,
    /// By its SHA2-512.
    Sha512,
}

impl Dane {
    /// Whether a chain of certificates in DER is what the records want, the server's own first, in 1970: for those who look
    /// for chains that should not be.
    pub fn proves(&self, chain: &[Vec<u8>]) -> bool {
        self.proves_at(chain, 0)
    }

    /// Likewise, so many seconds after 1970 began.
    pub fn proves_at(&self, chain: &[Vec<u8>], secs: u64) -> bool {
        let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let [own, others @ ..] = &chain[..] else { return false };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        self.verify(own, others, now, &provider()).is_ok()
    }

    /// Whether this chain is what the records want, the server's own certificate first.
    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        let of = |holder| self.records.iter().filter(move |record| record.holder == holder);
        // The record binds name and key, and says by its TTL how long: neither the names in the certificate nor its dates
        // count (RFC 7671 §5.1, RFC 7672 §3.1.1).
        if of(Holder::Server).any(|record| record.matches(own)) {
            return Ok(());
        }
        let mut worst = None;
        for record in of(Holder::Authority) {
            for anchor in record.anchors(own, others) {
                let roots = RootCertStore { roots: vec![anchor] };
                match self.verify_issued(own, others, &roots, now, provider) {
                    Ok(()) => return Ok(()),
                    Err(error) => worst = Some(error),
                }
            }
        }
        // What an authority that is named has said of it tells more than that nothing matches.
        Err(worst.unwrap_or_else(|| CertificateError::Other(OtherError(Arc::new(NoMatch))).into()))
    }

    /// Whether an authority has issued the certificate for one of the names, and it is valid (RFC 7672 §3.1.2, §3.2).
    fn verify_issued(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(own)?;
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)?;
        let mut failure = CertificateError::NotValidForName.into();
        for name in &self.names {
            let Ok(name) = ServerName::try_from(name.as_str()) else { continue };
            match verify_server_name(&parsed, &name) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Nothing that was shown is what a record says.
#[derive(Debug, thiserror::Error)]
#[error("no TLSA record matches")]
pub(crate) struct NoMatch;

impl Association {
    /// Whether the data is that of this certificate.
    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let whole;
        let part = match self.part {
            Part::Certificate => certificate.as_ref(),
            Part::PublicKey => {
                let Some(key) = public_key(certificate) else { return false };
                whole = key;
                &whole
            }
        };
        match self.form {
            Form::Full => *self.data == *part,
            Form::Sha256 => *self.data == *digest(&SHA256, part).as_ref(),
            Form::Sha512 => *self.data == *digest(&SHA512, part).as_ref(),
        }
    }

    /// The authorities that the record means: found in the chain, or in the record itself when all of it stands there
    /// (RFC 7671 §5.2.2).
    fn anchors(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
        let mut anchors: Vec<_> =
            others.iter().filter(|other| self.matches(other)).filter_map(anchor).collect();
        match (self.part, self.form) {
            (Part::Certificate, Form::Full) => {
                anchors.extend(anchor(&CertificateDer::from(&*self.data)));
            }
            // A key has no name: it is whoever is said to have issued one of these.
            (Part::PublicKey, Form::Full) => {
                let Some(key) = sequence(&self.data) else { return anchors };
                let chain = std::iter::once(own).chain(others);
                anchors.extend(chain.filter_map(|certificate| {
                    let issued = EndEntityCert::try_from(certificate).ok()?;
                    Some(TrustAnchor {
                        subject: issued.issuer().to_vec().into(),
                        subject_public_key_info: key.to_vec().into(),
                        name_constraints: None,
                    })
                }));
            }
            (Part::Certificate | Part::PublicKey, Form::Sha256 | Form::Sha512) => {}
        }
        anchors
    }
}

/// The SHA2-256 of a certificate's public key, as a TLSA record 3 1 1 has it; the certificate is in DER.
pub fn key_digest(certificate: &[u8]) -> Option<[u8; 32]> {
    let key = public_key(&CertificateDer::from(certificate))?;
    digest(&SHA256, &key).as_ref().try_into().ok()
}

fn anchor(certificate: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(certificate).ok().map(|anchor| anchor.to_owned())
}

/// The SubjectPublicKeyInfo of a certificate, in DER.
fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let inner = match EndEntityCert::try_from(certificate) {
        Ok(certificate) => return Some(certificate.subject_public_key_info().to_vec()),
        // Of the first version there are authorities still.
        Err(_) => anchor(certificate)?.subject_public_key_info.to_vec(),
    };
    Some(in_sequence(&inner))
}

/// What is in a SEQUENCE that is all there is (X.690 §8.1).
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let [0x30, first, rest @ ..] = der else { return None };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        0x80 | 0x84.. => return None,
    };
    (rest.len() == length).then_some(rest)
}

fn in_sequence(inner: &[u8]) -> Vec<u8> {
    let mut der = vec![0x30];
    match inner.len() {
        length @ 0..=0x7f => der.push(length as u8),
        length @ 0x80..=0xff => der.extend([0x81, length as u8]),
        length @ 0x100..=0xffff => der.extend([0x82, (length >> 8) as u8, length as u8]),
        length => der.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    der.extend_from_slice(inner);
    der
}

/// Asks the records.
#[derive(Debug)]
pub(crate) struct ByRecords {
    dane: Dane,
    provider: Arc<CryptoProvider>,
}

impl ByRecords {
    pub(crate) fn new(dane: Dane) -> Self {
        Self { dane, provider: provider() }
    }
}

impl ServerCertVerifier for ByRecords {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.dane.verify(own, others, now, &self.provider).map(|()| ServerCertVerified::assertion())
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
#[path = "dane_test.rs"]
mod test;
