//! DKIM: signing (RFC 6376 §5).
//!
//! A key is parsed once, when it is configured. A message is signed from its [`Digest`], when it has been read once:
//! what is left to do is to hash a few fields and to make the signature.

use std::{fmt, sync::Arc, time::Duration};

use mail::{Domain, Timestamp};
use mail_auth::{
    common::{
        crypto::{DkimKey, Ed25519Key, HashAlgorithm, RsaKey, SigningKey},
        headers::{HeaderWriter, Writable, Writer},
    },
    dkim::Signature,
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::{
    Algorithm, Canonicalization, Digest, Reason,
    fields::fields,
    keys::{Public, public},
    unsubscribe::FIELDS,
};

/// A private key, parsed.
#[derive(Clone)]
pub struct Key {
    key: Arc<DkimKey>,
    /// The record to publish.
    record: Arc<str>,
    /// Of the RSA modulus; none for Ed25519, whose keys are of one length.
    bits: Option<usize>,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no private key in the text.
    #[error("no private key in PEM")]
    NoPem,
    /// Neither RSA nor Ed25519, or RSA with less than 2048 bits, "SHOULD use [...] at least 2048" (RFC 8301 §3.2).
    #[error("not a private key of RSA with 2048 bits or more, or of Ed25519")]
    Unusable,
}

/// Signs for one domain with one key.
#[derive(Clone, Debug)]
pub struct Signer {
    key: Key,
    /// The signature, as far as it is the same for all messages.
    template: Signature,
    options: SignerOptions,
}

/// What a signature covers, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerOptions {
    /// How the header section is written before it is hashed.
    pub header: Canonicalization,
    /// How the body is.
    pub body: Canonicalization,
    /// The fields that are signed, all of each name. `From` is, whether it stands here or not.
    pub fields: Vec<Box<str>>,
    /// Fields that nobody may add: they are signed once more than they are there (RFC 6376 §8.15). `From` is.
    pub sealed: Vec<Box<str>>,
    /// For how long the signature holds (`x=`).
    pub lifetime: Option<Duration>,
    /// For whom it is made (`i=`): within the signer's domain.
    pub identity: Option<Box<str>>,
}

/// Why a signer cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The selector is no part of a domain name.
    #[error("the selector is malformed")]
    Selector,
    /// What signs is a name, and no address literal.
    #[error("the domain is malformed")]
    Domain,
    /// `i=` must be the domain or below it (RFC 6376 §3.5).
    #[error("the identity is not within the domain")]
    Identity,
    /// A name that no field has.
    #[error("the name of a field is malformed")]
    Field,
}

/// Why a message is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no `From`, which must be signed (RFC 6376 §5.4).
    #[error("there is no From to sign")]
    NoFrom,
    /// What would be signed is not what others will see.
    #[error("the message cannot be signed: {0}")]
    Flaw(Reason),
    /// The digest was made without [`Digester::signing`](crate::Digester::signing) for this signer.
    #[error("the body was not hashed")]
    NotHashed,
    /// The key did not sign.
    #[error("the key failed")]
    Key,
}

impl Default for SignerOptions {
    /// What RFC 6376 §5.4.1 names, in the relaxed form, and the fields sealed that readers show.
    fn default() -> Self {
        const SIGNED: [&str; 19] = [
            "Reply-To",
            "Subject",
            "Date",
            "To",
            "Cc",
            "Sender",
            "Message-ID",
            "In-Reply-To",
            "References",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
            "Resent-Date",
            "Resent-From",
            "Resent-To",
            "Resent-Cc",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "List-Id",
        ];
        const SEALED: [&str; 7] = ["Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "Content-Type"];
        Self {
            header: Canonicalization::Relaxed,
            body: Canonicalization::Relaxed,
            fields: SIGNED.map(Box::from).to_vec(),
            sealed: SEALED.map(Box::from).to_vec(),
            lifetime: None,
            identity: None,
        }
    }
}

impl Key {
    /// Reads a private key: RSA in PKCS#1 or PKCS#8, or Ed25519 in PKCS#8, in PEM.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoPem)?;
        let ed25519 = Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_der());
        let key = ed25519.map(DkimKey::Ed25519).or_else(|_| RsaKey::from_key_der(der).map(DkimKey::Rsa));
        let key = key.map_err(|_| KeyError::Unusable)?;
        let Public { record, bits } = public(pem)?;
        Ok(Self { key: Arc::new(key), record: record.into(), bits })
    }

    /// What signatures with it are made with.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::of(self.key.algorithm())
    }
}

impl Signer {
    /// A signer whose public key is at `selector._domainkey.domain`.
    ///
    /// # Errors
    /// [`SignerError`] says what is wrong.
    pub fn new(
        key: Key,
        domain: &Domain,
        selector: &str,
        options: SignerOptions,
    ) -> Result<Self, SignerError> {
        // As names are asked for, also if they are not US-ASCII (RFC 8616 §5).
        let domain = dns::Name::parse(domain.as_str()).map_err(|_| SignerError::Domain)?;
        if domain.as_str().starts_with('[') {
            return Err(SignerError::Domain);
        }
        let selector = dns::Name::parse(selector).map_err(|_| SignerError::Selector)?;
        let label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !selector.as_str().bytes().all(label) {
            return Err(SignerError::Selector);
        }
        let within = |identity: &str| {
            let (_, behind) = identity.rsplit_once('@')?;
            let behind = dns::Name::parse(behind).ok()?;
            (behind.is_within(domain.as_str()) && identity.bytes().all(|b| b.is_ascii_graphic()))
                .then_some(())
        };
        if options.identity.as_deref().is_some_and(|identity| within(identity).is_none()) {
            return Err(SignerError::Identity);
        }
        let name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b':' | b';'))
        };
        if !options.fields.iter().chain(&options.sealed).all(|field| name(field)) {
            return Err(SignerError::Field);
        }
        let template = Signature {
            v: 1,
            a: key.key.algorithm(),
            d: domain.as_str().to_owned(),
            s: selector.as_str().to_owned(),
            i: options.identity.as_deref().unwrap_or_default().to_owned(),
            ch: options.header.theirs(),
            cb: options.body.theirs(),
            ..Signature::default()
        };
        Ok(Self { key, template, options })
    }

    /// Appends the `DKIM-Signature` field for a message: it goes before the header section.
    ///
    /// `added` are fields that will stand before the header section that was read, such as a `Date` that was
    /// missing: they are signed with the others.
    ///
    /// # Errors
    /// [`SignError`]: nothing was written.
    pub fn sign(
        &self,
        out: &mut Vec<u8>,
        digest: &Digest,
        added: &[u8],
        at: Timestamp,
    ) -> Result<(), SignError> {
        if let Some(flaw) = digest.flaw() {
            return Err(SignError::Flaw(flaw));
        }
        let body = digest.body(self.options.body, HashAlgorithm::Sha256).ok_or(SignError::NotHashed)?;
        let added_fields: Vec<_> = fields(added).collect();
        // Last to first: of several with one name the last is signed first (RFC 6376 §5.4.2).
        let own = digest.fields().iter().rev().map(|field| (digest.header(), field));
        let present: Vec<_> = own.chain(added_fields.iter().rev().map(|field| (added, field))).collect();
        let mut covered: Vec<(&[u8], &[u8])> = Vec::with_capacity(32);
        let mut signature = self.template.clone();
        for (name, seal) in self.names() {
            let here = present.iter().filter(|(header, field)| field.is(header, name));
            let before = covered.len();
            covered.extend(here.map(|(header, field)| (field.name(header), field.value(header))));
            let found = covered.len() - before;
            if found == 0 && name.eq_ignore_ascii_case("From") {
                return Err(SignError::NoFrom);
            }
            let times = found + usize::from(seal == Seal::Yes);
            signature.h.extend(std::iter::repeat_n(name, times).map(str::to_owned));
        }
        signature.bh = body.to_vec();
        signature.t = at.secs();
        signature.x = self.options.lifetime.map_or(0, |lifetime| at.saturating_add(lifetime).secs());
        let signable = Signable { covered: &covered, signature: &signature };
        signature.b = self.key.key.sign(signable).map_err(|_| SignError::Key)?;
        signature.write_header(out);
        // "including all surrounding whitespace" is for the verifier to delete (RFC 6376 §3.7), but not all do that
        // with a line end behind `b=`, which mail-auth leaves when the last line is just full.
        const LOOSE_END: &[u8] = b"\r\n\t;\r\n";
        if out.ends_with(LOOSE_END) {
            out.truncate(out.len() - LOOSE_END.len());
            out.extend_from_slice(b";\r\n");
        }
        Ok(())
    }

    /// The domain that signs.
    pub fn domain(&self) -> &str {
        &self.template.d
    }

    /// Where its public key is.
    pub fn selector(&self) -> &str {
        &self.template.s
    }

    /// What signatures are made with.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The text that belongs at `selector._domainkey.domain`.
    pub fn record(&self) -> &str {
        &self.key.record
    }

    /// How long its key is, in bits; none for Ed25519, whose keys are of one length.
    pub const fn key_bits(&self) -> Option<usize> {
        self.key.bits
    }

    /// The hash that a [`Digest`] must have to be signed.
    pub const fn body_canonicalization(&self) -> Canonicalization {
        self.options.body
    }

    pub(crate) fn signing_key(&self) -> &DkimKey {
        &self.key.key
    }

    /// The names of fields to sign, each once.
    pub(crate) fn signed_names(&self) -> impl Iterator<Item = &str> {
        self.names().map(|(name, _)| name)
    }

    /// The names of fields to sign, each once, and whether none may be added.
    fn names(&self) -> impl Iterator<Item = (&str, Seal)> {
        let is_from = |name: &&str| name.eq_ignore_ascii_case("From");
        let sealed = self.options.sealed.iter().map(|name| &**name);
        let sealed = std::iter::once("From").chain(sealed.filter(move |name| !is_from(name)));
        let only_signed = self.options.fields.iter().map(|name| &**name).filter(move |name| {
            !is_from(name) && !self.options.sealed.iter().any(|sealed| sealed.eq_ignore_ascii_case(name))
        });
        let named = |name: &&str| {
            let mut chosen = self.options.fields.iter().chain(&self.options.sealed);
            chosen.any(|chosen| chosen.eq_ignore_ascii_case(name))
        };
        // Signed wherever they are, whatever else is: else nobody leaves a list by them (RFC 8058 §4).
        let only_signed = only_signed.chain(FIELDS.into_iter().filter(move |name| !named(name)));
        sealed.map(|name| (name, Seal::Yes)).chain(only_signed.map(|name| (name, Seal::No)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    No,
    Yes,
}

/// What is signed: the fields, and the signature itself with an empty `b=` (RFC 6376 §3.7).
struct Signable<'a> {
    covered: &'a [(&'a [u8], &'a [u8])],
    signature: &'a Signature,
}

impl Writable for Signable<'_> {
    fn write(self, writer: &mut impl Writer) {
        self.signature.ch.canonicalize_headers(self.covered.iter().copied(), writer);
        self.signature.write(writer, false);
    }
}

impl fmt::Debug for Key {
    /// Tells nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.algorithm()).finish()
    }
}

#[cfg(test)]
#[path = "sign_test.rs"]
pub(crate) mod test;
