//! DKIM: what is said of each signature (RFC 6376 §6).
//!
//! mail-auth reads signatures and keys and verifies; here is what it leaves open or takes more loosely than we do.
//! What a signature must be before its key is looked at (RFC 6376 §6.1.1) is checked when the header section ends.

use std::sync::Arc;

use dns::Name;
use mail::Timestamp;
use mail_auth::{
    AuthenticatedMessage, DnsError, Error, Parameters, Txt,
    common::{
        crypto::{CryptoError, HashAlgorithm},
        headers::Header,
        parse::TxtRecordParser,
        verify::{DomainKey, VerifySignature},
    },
    dkim::{DkimError, Signature},
};

use crate::{
    BodyLength, Canonicalization, Digest, Judge, Limits, Sha1Signatures,
    facts::{Facts, Lack, TextCache, error},
    fields::Field,
    known_keys::{KnownKeys, ready},
    tags::{items, number, tags, value_of},
};

/// What is said of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dkim {
    /// The verdict.
    pub result: DkimResult,
    /// Why it is not a pass.
    pub reason: Option<Reason>,
    /// Who takes responsibility: `d=`, in lower case. Empty when it cannot be told.
    pub domain: String,
    /// Where the key is: `s=`.
    pub selector: String,
    /// For whom: `i=`, if it is there.
    pub identity: String,
    /// What it was made with, if that is known here.
    pub algorithm: Option<Algorithm>,
    /// The first eight characters of `b=`, to tell signatures apart (RFC 6008 §4).
    pub start_of_b: String,
    /// Whether the key is there for trying out (RFC 6376 §3.6.1, `t=y`).
    pub key_use: KeyUse,
}

/// The results of RFC 8601 §2.7.1. Where there is no signature, there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DkimResult {
    /// It verifies.
    Pass,
    /// It does not.
    Fail,
    /// It cannot be processed.
    Neutral,
    /// It might verify, but is not of the kind we accept.
    Policy,
    /// The key is not known now.
    TempError,
    /// There will never be a key for it.
    PermError,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// More octets than [`Limits::header_size_max`].
    #[error("header section too long")]
    HeaderTooLong,
    /// A CR or LF alone: what others would hash is not known.
    #[error("bare CR or LF")]
    BareLineEnd,
    /// No list of tags, a tag twice, one missing, or a value that none has.
    #[error("malformed signature")]
    Syntax,
    /// `v=` is not 1 (RFC 6376 §6.1.1).
    #[error("unknown version")]
    Version,
    /// `a=` is not known.
    #[error("unknown algorithm")]
    Algorithm,
    /// `c=` is not known.
    #[error("unknown canonicalization")]
    Canonicalization,
    /// `q=` has no method we know.
    #[error("unknown query method")]
    QueryMethod,
    /// `h=` leaves the `From` out (RFC 6376 §5.4).
    #[error("From is not signed")]
    FromNotSigned,
    /// `i=` is neither `d=` nor below it (RFC 6376 §3.5), or below it where the key forbids that (`t=s`).
    #[error("identity is not within the domain")]
    Identity,
    /// More signatures than [`Limits::signatures_max`], or more names in `h=` than [`Limits::signed_fields_max`].
    #[error("too many signatures or fields")]
    TooMany,
    /// It covers a part of the body only: whoever adds to it keeps the signature (RFC 6376 §8.2).
    #[error("body length is limited")]
    BodyLength,
    /// Made with SHA-1, which is no proof any more (RFC 8301 §3.1).
    #[error("SHA-1 is not accepted")]
    Sha1,
    /// The RSA key is shorter than [`Limits::rsa_bits_min`] (RFC 8301 §3.2).
    #[error("key too short")]
    KeyTooShort,
    /// `x=` is over (RFC 6376 §3.5).
    #[error("signature expired")]
    Expired,
    /// The body is another one.
    #[error("body hash did not verify")]
    BodyHash,
    /// The header is another one, or the key.
    #[error("signature did not verify")]
    Signature,
    /// There is no key (RFC 6376 §6.1.2).
    #[error("no key for signature")]
    NoKey,
    /// `p=` is empty (RFC 6376 §3.6.1).
    #[error("key revoked")]
    KeyRevoked,
    /// The record is no key.
    #[error("malformed key")]
    KeySyntax,
    /// The key is for another algorithm, hash or service (RFC 6376 §6.1.2).
    #[error("key is not for this signature")]
    KeyNotForThis,
    /// The key could not be looked up in time.
    #[error("key unavailable")]
    KeyUnavailable,
}

/// What a signature is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 6376 §3.3.2.
    RsaSha256,
    /// RFC 6376 §3.3.1, given up by RFC 8301.
    RsaSha1,
    /// RFC 8463.
    Ed25519Sha256,
}

/// What the owner of a key says it is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Signing.
    Signing,
    /// Trying out: such mail is not to be treated worse than mail without a signature.
    Testing,
}

/// A `DKIM-Signature` field.
#[derive(Debug)]
pub(crate) struct SignatureField {
    field: Field,
    /// What it says of itself, as far as it can be read; the result is still open.
    dkim: Dkim,
    /// What mail-auth made of it, or why it does not count.
    signature: Result<Signature, Reason>,
    /// When it ends.
    expires: Option<u64>,
}

// Private in mail-auth (`dkim/mod.rs`: R_FLAG_TESTING).
const KEY_IS_FOR_TESTING: u64 = 0x10;

impl Dkim {
    /// A verdict on signatures that were not read.
    pub(crate) fn unread(reason: Reason) -> Self {
        Self {
            result: reason.result(),
            reason: Some(reason),
            domain: String::new(),
            selector: String::new(),
            identity: String::new(),
            algorithm: None,
            start_of_b: String::new(),
            key_use: KeyUse::Signing,
        }
    }
}

impl Reason {
    /// The result that goes with it (RFC 8601 §2.7.1).
    pub const fn result(self) -> DkimResult {
        match self {
            // "contained syntax errors or were not otherwise able to be processed"
            Self::HeaderTooLong
            | Self::BareLineEnd
            | Self::Syntax
            | Self::Version
            | Self::Algorithm
            | Self::Canonicalization
            | Self::QueryMethod => DkimResult::Neutral,
            // "some aspect of the signature or signatures was not acceptable to the ADMD"
            Self::TooMany | Self::BodyLength | Self::Sha1 | Self::KeyTooShort => DkimResult::Policy,
            Self::Expired | Self::BodyHash | Self::Signature => DkimResult::Fail,
            // PERMFAIL in RFC 6376 §6.1.1 and §6.1.2
            Self::FromNotSigned
            | Self::Identity
            | Self::NoKey
            | Self::KeyRevoked
            | Self::KeySyntax
            | Self::KeyNotForThis => DkimResult::PermError,
            Self::KeyUnavailable => DkimResult::TempError,
        }
    }
}

impl DkimResult {
    /// As in `Authentication-Results`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl Algorithm {
    /// As in `a=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaSha1 => "rsa-sha1",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    pub(crate) const fn of(algorithm: mail_auth::common::crypto::Algorithm) -> Self {
        match algorithm {
            mail_auth::common::crypto::Algorithm::RsaSha256 => Self::RsaSha256,
            mail_auth::common::crypto::Algorithm::RsaSha1 => Self::RsaSha1,
            mail_auth::common::crypto::Algorithm::Ed25519Sha256 => Self::Ed25519Sha256,
        }
    }
}

impl SignatureField {
    /// The body hash that is needed to verify it.
    pub(crate) fn body(&self) -> Option<(Canonicalization, HashAlgorithm)> {
        let signature = self.signature.as_ref().ok()?;
        Some((Canonicalization::of(signature.cb), signature.a.into()))
    }

    /// The names of the fields that it covers (`h=`), one for each field; none when it cannot be read.
    pub(crate) fn signed(&self) -> Option<&[String]> {
        Some(&self.signature.as_ref().ok()?.h)
    }
}

/// Reads the signatures of a message, first to last.
pub(crate) fn read_signatures(header: &[u8], fields: &[Field], limits: &Limits) -> Vec<SignatureField> {
    let signatures = fields.iter().filter(|field| field.is(header, "DKIM-Signature"));
    // One more than are looked at stands for all the others.
    signatures
        .take(limits.signatures_max + 1)
        .enumerate()
        .map(|(i, field)| {
            let mut dkim = Dkim::unread(Reason::Syntax);
            let mut expires = None;
            let signature = if i < limits.signatures_max {
                read_signature(field.value(header), limits, &mut dkim, &mut expires)
            } else {
                Err(Reason::TooMany)
            };
            SignatureField { field: *field, dkim, signature, expires }
        })
        .collect()
}

/// The checks of RFC 6376 §6.1.1; what can be told of the signature is told in any case.
fn read_signature(
    value: &[u8],
    limits: &Limits,
    dkim: &mut Dkim,
    expires: &mut Option<u64>,
) -> Result<Signature, Reason> {
    let tags = tags(value).map_err(|_| Reason::Syntax)?;
    let tag = |name: &str| value_of(&tags, name.as_bytes());
    let b = tag("b").unwrap_or_default().iter().filter(|octet| !octet.is_ascii_whitespace());
    dkim.start_of_b = b.take(8).map(|octet| char::from(*octet)).collect();
    if tag("v").ok_or(Reason::Syntax)? != b"1" {
        return Err(Reason::Version);
    }
    if ["a", "b", "bh", "d", "h", "s"].iter().any(|name| tag(name).is_none_or(<[u8]>::is_empty)) {
        return Err(Reason::Syntax);
    }
    let number_of = |name: &str| tag(name).map(|value| number(value).ok_or(Reason::Syntax)).transpose();
    let (signed_at, expires_at, body_length) = (number_of("t")?, number_of("x")?, number_of("l")?);
    *expires = expires_at;
    let mut signature = Signature::parse(value).map_err(|error| syntax(&error))?;
    dkim.domain = domain(&signature.d)?;
    dkim.selector.clone_from(&signature.s);
    dkim.identity.clone_from(&signature.i);
    let algorithm = Algorithm::of(signature.a);
    dkim.algorithm = Some(algorithm);
    if tag("q").is_some_and(|methods| !items(methods).any(|method| method == b"dns/txt" || method == b"dns"))
    {
        return Err(Reason::QueryMethod);
    }
    if signature.h.len() > limits.signed_fields_max {
        return Err(Reason::TooMany);
    }
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        return Err(Reason::FromNotSigned);
    }
    if expires_at.is_some_and(|x| signed_at.is_some_and(|t| x < t)) {
        return Err(Reason::Syntax);
    }
    match limits.body_length {
        BodyLength::Refused if body_length.is_some() => return Err(Reason::BodyLength),
        BodyLength::Refused | BodyLength::Ignored => {}
    }
    match (algorithm, limits.sha1) {
        (Algorithm::RsaSha1, Sha1Signatures::Refused) => return Err(Reason::Sha1),
        (Algorithm::RsaSha1, Sha1Signatures::Accepted)
        | (Algorithm::RsaSha256 | Algorithm::Ed25519Sha256, _) => {}
    }
    // The whole body is hashed; time is checked here, by a clock that is handed in; and no other records than
    // keys are looked up (RFC 6651, RFC 6541).
    (signature.l, signature.x) = (0, 0);
    (signature.r, signature.atps) = (false, None);
    Ok(signature)
}

/// The domain in the form in which it is compared and asked for (RFC 8616 §5).
fn domain(text: &str) -> Result<String, Reason> {
    let name = Name::parse(text).map_err(|_| Reason::Syntax)?;
    Ok(name.as_str().to_owned())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of reading a signature are three, and one for the rest"
)]
fn syntax(error: &Error) -> Reason {
    match error {
        Error::Dkim(DkimError::UnsupportedVersion) => Reason::Version,
        Error::Dkim(DkimError::UnsupportedAlgorithm) => Reason::Algorithm,
        Error::Dkim(DkimError::UnsupportedCanonicalization) => Reason::Canonicalization,
        _ => Reason::Syntax,
    }
}

/// What is said of all signatures, in the order in which they stand.
pub fn verify(facts: &Facts, judge: &Judge, digest: &Digest, limits: &Limits, at: Timestamp) -> Vec<Dkim> {
    if let Some(flaw @ Reason::HeaderTooLong) = digest.flaw() {
        return vec![Dkim::unread(flaw)];
    }
    let keys = TextCache::new(facts, |_, texts| read_key(judge.keys(), texts));
    let header = digest.header();
    let mut verdicts = Vec::with_capacity(digest.signatures().len());
    // mail-auth is given those that are left to verify, and says of them in this order.
    let mut message = AuthenticatedMessage::default();
    let mut to_verify = Vec::new();
    for (i, field) in digest.signatures().iter().enumerate() {
        let mut dkim = field.dkim.clone();
        match before_verifying(field, digest, &keys, limits, at, &mut dkim) {
            Ok(signature) => {
                to_verify.push(i);
                let (name, value) = (field.field.name(header), field.field.value(header));
                message.dkim_headers.push(Header::new(name, value, signature.clone()));
            }
            Err(reason) => (dkim.result, dkim.reason) = (reason.result(), Some(reason)),
        }
        verdicts.push(dkim);
    }
    if to_verify.is_empty() {
        return verdicts;
    }
    message.headers = digest.fields().iter().map(|field| (field.name(header), field.value(header))).collect();
    message.body_hashes = digest
        .bodies()
        .iter()
        .map(|body| (body.form.theirs(), body.algorithm, 0, body.hash.clone()))
        .collect();
    let outputs = judge.verify_dkim(Parameters::new(&message).with_txt_cache(&keys));
    for (i, output) in to_verify.into_iter().zip(outputs) {
        let dkim = &mut verdicts[i];
        (dkim.result, dkim.reason) = match verified(output.result()) {
            Ok(()) => (DkimResult::Pass, None),
            Err(reason) => (reason.result(), Some(reason)),
        };
    }
    verdicts
}

/// What needs no verifying: time, the body, and the key as far as it must be looked at (RFC 6376 §6.1.2).
fn before_verifying<'a, F: Fn(&Name, &[Box<[u8]>]) -> Txt>(
    field: &'a SignatureField,
    digest: &Digest,
    keys: &TextCache<'_, F>,
    limits: &Limits,
    at: Timestamp,
    dkim: &mut Dkim,
) -> Result<&'a Signature, Reason> {
    let signature = field.signature.as_ref().map_err(|reason| *reason)?;
    if let Some(flaw) = digest.flaw() {
        return Err(flaw);
    }
    if field.expires.is_some_and(|expires| expires <= at.secs()) {
        return Err(Reason::Expired);
    }
    // Before the key, so that mail that was changed costs no look-up.
    let hash = digest.body(Canonicalization::of(signature.cb), signature.a.into());
    if hash != Some(&signature.bh) {
        return Err(Reason::BodyHash);
    }
    let key = domain_key(keys, &signature.domain_key())?;
    if key.has_flag(KEY_IS_FOR_TESTING) {
        dkim.key_use = KeyUse::Testing;
    }
    if (key.has_flag(HashAlgorithm::Sha1) || key.has_flag(HashAlgorithm::Sha256))
        && !key.has_flag(HashAlgorithm::from(signature.a))
    {
        return Err(Reason::KeyNotForThis);
    }
    long_enough(&key, limits)?;
    Ok(signature)
}

/// The key at a name.
pub(crate) fn domain_key<F: Fn(&Name, &[Box<[u8]>]) -> Txt>(
    keys: &TextCache<'_, F>,
    name: &str,
) -> Result<Arc<DomainKey>, Reason> {
    match keys.text(name) {
        Txt::DomainKey(key) => Ok(key),
        Txt::Error(error) => Err(why(&error)),
        // Not made by `read_key`.
        Txt::Spf(_)
        | Txt::SpfMacro(_)
        | Txt::DomainKeyReport(_)
        | Txt::Dmarc(_)
        | Txt::Atps(_)
        | Txt::MtaSts(_)
        | Txt::TlsRpt(_) => Err(Reason::KeySyntax),
    }
}

/// Whether a key may be believed for its length (RFC 8301 §3.2).
pub(crate) fn long_enough(key: &DomainKey, limits: &Limits) -> Result<(), Reason> {
    // Ed25519 keys, which are of one length, have as many as there are.
    match key.p.public_key_bits() {
        0 => Err(Reason::KeySyntax),
        bits if bits < limits.rsa_bits_min => Err(Reason::KeyTooShort),
        _ => Ok(()),
    }
}

fn verified(result: &mail_auth::DkimResult) -> Result<(), Reason> {
    match result {
        mail_auth::DkimResult::Pass => Ok(()),
        mail_auth::DkimResult::Neutral(error)
        | mail_auth::DkimResult::Fail(error)
        | mail_auth::DkimResult::PermError(error)
        | mail_auth::DkimResult::TempError(error) => Err(why(error)),
        mail_auth::DkimResult::None => Err(Reason::Signature),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the errors of verifying, and one reason for the rest")]
pub(crate) fn why(error: &Error) -> Reason {
    match error {
        Error::Dns(DnsError::Resolver(_)) => Reason::KeyUnavailable,
        Error::Dns(DnsError::RecordNotFound(_)) => Reason::NoKey,
        Error::Dns(DnsError::InvalidRecordType) | Error::ParseError | Error::Base64 => Reason::KeySyntax,
        Error::Dkim(DkimError::RevokedPublicKey) => Reason::KeyRevoked,
        Error::Dkim(DkimError::UnsupportedKeyType) | Error::NotAligned => Reason::KeyNotForThis,
        Error::Crypto(CryptoError::IncompatibleAlgorithms) => Reason::KeyNotForThis,
        Error::Dkim(DkimError::FailedAuidMatch) => Reason::Identity,
        Error::Dkim(DkimError::FailedBodyHashMatch) => Reason::BodyHash,
        _ => Reason::Signature,
    }
}

/// The key among the text records of a name: the first that is one (RFC 6376 §6.1.2 leaves the choice to us).
pub(crate) fn read_key(keys: &KnownKeys, texts: &[Box<[u8]>]) -> Txt {
    let mut wrong = error(Lack::NoData);
    for text in texts {
        match keys.get(text, key) {
            Ok(key) => return Txt::DomainKey(key),
            Err(error) => wrong = error,
        }
    }
    Txt::Error(wrong)
}

/// A key record (RFC 6376 §3.6.1).
fn key(text: &[u8]) -> Result<DomainKey, Error> {
    let tags = tags(text).map_err(|_| Error::ParseError)?;
    let tag = |name: &str| value_of(&tags, name.as_bytes());
    // "This tag MUST be the first tag in the record": with another version it is not ours to read.
    let at = tags.iter().position(|(name, _)| *name == b"v");
    if at.is_some_and(|at| at > 0) || tag("v").is_some_and(|version| version != b"DKIM1") {
        return Err(Error::ParseError);
    }
    let service = |s: &[u8]| s == b"*" || s.eq_ignore_ascii_case(b"email");
    let hash = |h: &[u8]| h.eq_ignore_ascii_case(b"sha256") || h.eq_ignore_ascii_case(b"sha1");
    if tag("s").is_some_and(|services| !items(services).any(service))
        || tag("h").is_some_and(|hashes| !items(hashes).any(hash))
    {
        return Err(Error::NotAligned);
    }
    // The key is the 32 octets themselves (RFC 8463 §4): 43 characters, and padding.
    let ed25519 = tag("k").is_some_and(|kind| kind.eq_ignore_ascii_case(b"ed25519"));
    let characters = |p: &[u8]| p.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'=').count();
    if ed25519 && tag("p").is_some_and(|p| !p.is_empty() && characters(p) != 43) {
        return Err(Error::ParseError);
    }
    DomainKey::parse(text).map(|key| ready(key, tag("p").unwrap_or_default()))
}

#[cfg(test)]
#[path = "dkim_test.rs"]
pub(crate) mod test;
