//! Whose picture something is: mark certificates (VMC and CMC, draft-fetch-validation-vmc-wchuang).
//!
//! The chain is built and verified by webpki, as for servers, but for another use and by authorities of its own: nobody who may
//! speak for the names of hosts may say by that whose picture something is. What webpki does not read, it has verified: so the
//! extensions are taken out of the certificate after that.
//!
//! Revocation lists are not fetched, and the signatures of logs (RFC 6962) not verified, only that there is some.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    Authorities,
    der::{CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, any_element, element},
    settings::provider,
};

/// Knows who is believed about pictures.
#[derive(Clone, Debug)]
pub struct MarkJudge(Authorities);

/// What a certificate says that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// For whom: domains, and places of records within domains.
    pub names: Vec<String>,
    /// The picture, as a `data:` URL.
    pub logotype: String,
    /// It is good for so long from now, of as long as was asked for.
    pub good_for: Duration,
}

/// Why a certificate does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// There is none.
    #[error("it has no certificate in PEM")]
    Pem,
    /// There are more than any chain has.
    #[error("it has more than {CHAIN_MAX} certificates")]
    Long,
    /// No authority that is believed has issued it, it is not valid now, or not for this.
    #[error("{0}")]
    Chain(Box<str>),
    /// It was not logged.
    #[error("it has no signed certificate timestamp")]
    Unlogged,
    /// It has no picture where one has to be.
    #[error("it has no logotype")]
    Logotype,
    /// It is for nobody.
    #[error("it has no name of a domain")]
    Nameless,
}

/// Certificates of a chain.
const CHAIN_MAX: usize = 8;
/// Names of a certificate that are looked at.
const NAMES_MAX: usize = 1000;
/// id-kp-BrandIndicatorforMessageIdentification, 1.3.6.1.5.5.7.3.31.
const PURPOSE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x1f];
/// id-pe-logotype, 1.3.6.1.5.5.7.1.12.
const LOGOTYPE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x0c];
/// The list of signed certificate timestamps, 1.3.6.1.4.1.11129.2.4.2 (RFC 6962 §3.3).
const TIMESTAMPS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const IA5_STRING: u8 = 0x16;
const CONTEXT_2: u8 = 0xa2;
const CONTEXT_3: u8 = 0xa3;

impl PartialEq for MarkJudge {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots.roots == other.0.roots.roots
    }
}

impl MarkJudge {
    /// By these authorities.
    pub const fn new(authorities: Authorities) -> Self {
        Self(authorities)
    }

    /// Whether anybody is believed.
    pub fn believes_somebody(&self) -> bool {
        !self.0.roots.is_empty()
    }

    /// Reads a chain in PEM, the certificate of the picture first, so long after 1970 began.
    ///
    /// # Errors
    /// [`MarkError`].
    pub fn verify(&self, pem: &[u8], now: Duration, wanted_for: Duration) -> Result<Mark, MarkError> {
        let mut chain = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            if chain.len() == CHAIN_MAX {
                return Err(MarkError::Long);
            }
            chain.push(certificate.map_err(|_| MarkError::Pem)?);
        }
        let [own, others @ ..] = &chain[..] else { return Err(MarkError::Pem) };
        let failed = |error: webpki::Error| MarkError::Chain(error.to_string().into());
        let certificate = EndEntityCert::try_from(own).map_err(failed)?;
        let provider = provider();
        let verified_at = |at| {
            let algorithms = provider.signature_verification_algorithms.all;
            let (roots, at) = (&self.0.roots.roots, UnixTime::since_unix_epoch(at));
            // "the CA certificate representing the immediate issuer […] MUST also contain an Extended Key Usage".
            let purpose = KeyUsage::required(PURPOSE);
            certificate.verify_for_usage(algorithms, roots, others, at, purpose, None, None).map(|_| ())
        };
        verified_at(now).map_err(failed)?;
        if extensions(own).and_then(|extensions| extension(extensions, TIMESTAMPS)).is_none() {
            return Err(MarkError::Unlogged);
        }
        let logotype = logotype_of(own).ok_or(MarkError::Logotype)?;
        let names: Vec<_> =
            certificate.valid_dns_names().take(NAMES_MAX).map(str::to_ascii_lowercase).collect();
        if names.is_empty() {
            return Err(MarkError::Nameless);
        }
        // The last moment at which it is valid is between these two.
        let (mut good_for, mut bad_for) = (Duration::ZERO, wanted_for);
        if verified_at(now + wanted_for).is_ok() {
            good_for = wanted_for;
        }
        while bad_for.saturating_sub(good_for) > Duration::from_secs(60) {
            let middle = good_for + (bad_for - good_for) / 2;
            if verified_at(now + middle).is_ok() { good_for = middle } else { bad_for = middle }
        }
        Ok(Mark { names, logotype, good_for })
    }
}

/// The picture that a certificate in DER says it has, whoever has issued it.
pub fn logotype_of(certificate: &[u8]) -> Option<String> {
    extension(extensions(certificate)?, LOGOTYPE).and_then(subject_logotype)
}

/// The extensions of a certificate (RFC 5280 §4.1).
fn extensions(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(outer, SEQUENCE)?;
    // Of all that stands there, only they have this tag.
    while let Some((kind, contents, rest)) = any_element(fields) {
        if kind == CONTEXT_3 {
            return Some(element(contents, SEQUENCE)?.0);
        }
        fields = rest;
    }
    None
}

/// What one of them says. None where it is there twice: "A certificate MUST NOT include more than one instance".
fn extension<'a>(mut extensions: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    while let Some((extension, rest)) = element(extensions, SEQUENCE) {
        let (id, mut behind) = element(extension, OBJECT_IDENTIFIER)?;
        if let Some((_, value)) = element(behind, BOOLEAN) {
            behind = value;
        }
        if id == name && found.replace(element(behind, OCTET_STRING)?.0).is_some() {
            return None;
        }
        extensions = rest;
    }
    found
}

/// The one picture of the subject, which is within the certificate (RFC 9399 §4.1):
///
/// ```text
/// LogotypeExtn ::= SEQUENCE { …, subjectLogo [2] EXPLICIT LogotypeInfo OPTIONAL, … }
/// LogotypeInfo ::= CHOICE { direct [0] LogotypeData, … }
/// LogotypeData ::= SEQUENCE { image SEQUENCE OF LogotypeImage OPTIONAL, … }
/// LogotypeImage ::= SEQUENCE { imageDetails LogotypeDetails, … }
/// LogotypeDetails ::= SEQUENCE { mediaType IA5String, logotypeHash SEQUENCE OF …, logotypeURI SEQUENCE OF IA5String }
/// ```
///
/// Its hash is not looked at: what it is of is signed with it.
fn subject_logotype(value: &[u8]) -> Option<String> {
    let (mut logotypes, _) = element(value, SEQUENCE)?;
    let subject = loop {
        let (kind, contents, rest) = any_element(logotypes)?;
        if kind == CONTEXT_2 {
            break contents;
        }
        logotypes = rest;
    };
    let (data, _) = element(subject, CONTEXT_0)?;
    let (images, _) = element(data, SEQUENCE)?;
    let (image, others) = element(images, SEQUENCE)?;
    let (details, _) = element(image, SEQUENCE)?;
    let (_, behind) = element(details, IA5_STRING)?;
    let (_, behind) = element(behind, SEQUENCE)?;
    let (places, _) = element(behind, SEQUENCE)?;
    let (place, other_places) = element(places, IA5_STRING)?;
    // Of several, who knows which is meant.
    let is_one = others.is_empty() && other_places.is_empty() && place.is_ascii();
    is_one.then(|| String::from_utf8_lossy(place).into_owned())
}

#[cfg(test)]
#[path = "mark_test.rs"]
mod test;
