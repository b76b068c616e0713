//! ARC: what those before us have found of a message, and the proof that nobody has changed it since (RFC 8617).
//!
//! Whoever passes a message on adds a set of three fields: his results, a signature of the message as he passes it on, and a seal
//! of all sets so far. A chain that verifies says who has handled the message; whether these are believed is for the operator to say.
//!
//! ```text
//!  i=1  ARC-Authentication-Results ─┐
//!       ARC-Message-Signature ──────┤ the fields and the body      (that of the newest set is verified)
//!       ARC-Seal ───────────────────┘ all sets up to this one      (each is verified)
//! ```

use std::iter;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mail::Timestamp;
use mail_auth::{
    Txt,
    common::{
        crypto::{Algorithm as Theirs, HashAlgorithm, SigningKey as _},
        headers::{Writable, Writer},
    },
};

use crate::{
    Canonicalization, Client, Digest, Judge, Limits, Reason, SignError, Signer, Verdict,
    dkim::{domain_key, long_enough, read_key, why},
    facts::{Facts, TextCache},
    fields::Field,
    results,
    tags::{Tag, items, number, tags, value_of},
};

/// What is said of the chain of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcChain {
    /// The verdict.
    pub result: ArcResult,
    /// Why it is not a pass.
    pub reason: Option<ArcReason>,
    /// Its sets, the oldest first; none when they cannot be told.
    pub sets: Vec<ArcSet>,
}

/// One who has passed the message on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcSet {
    /// Who seals: `d=`, in lower case.
    pub domain: String,
    /// Where the key is: `s=`.
    pub selector: String,
    /// Whether DMARC had passed by the results in it.
    pub dmarc: ArcDmarc,
    /// Whether its signature is over the author. If not, what is said of a message may be said of another's (RFC 8617 §4.1.2 asks
    /// for nothing; RFC 6376 §5.4 does).
    pub author: AuthorSigned,
}

/// Whether `From` is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorSigned {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// What the results in a set say of DMARC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArcDmarc {
    /// It passed.
    Pass,
    /// Nothing, or anything else.
    Other,
}

/// The status of a chain (RFC 8617 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArcResult {
    /// There is no chain.
    None,
    /// It verifies.
    Pass,
    /// It does not.
    Fail,
    /// A key is not known now.
    TempError,
}

/// Why a chain does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArcReason {
    /// More than fifty sets (RFC 8617 §4.2.1).
    #[error("chain too long")]
    TooLong,
    /// A field that makes no sense, is there twice, or is missing.
    #[error("malformed chain")]
    Malformed,
    /// Somebody before us has found that it does not verify.
    #[error("chain failed before")]
    FailedBefore,
    /// A signature or a seal does not count.
    #[error("i={0}: {1}")]
    Broken(u32, Reason),
}

/// The sets of a message, as they stand in its header section.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    /// In the order of their instances.
    sets: Vec<Set>,
    /// The highest instance that any of the fields has.
    highest: u32,
    /// Why they are no chain.
    flaw: Option<ArcReason>,
}

#[derive(Debug)]
struct Set {
    results: Field,
    signature: (Field, Signature),
    seal: (Field, Seal),
    dmarc: ArcDmarc,
}

/// What both signatures of a set have (RFC 8617 §4.1.2, §4.1.3).
#[derive(Clone, Debug)]
struct Mark {
    algorithm: Theirs,
    domain: String,
    selector: String,
    b: Vec<u8>,
}

/// `ARC-Message-Signature`.
#[derive(Clone, Debug)]
struct Signature {
    mark: Mark,
    header: Canonicalization,
    body: Canonicalization,
    hash: Vec<u8>,
    fields: Vec<Vec<u8>>,
    expires: Option<u64>,
    /// Why it does not count, whatever it signs.
    flaw: Option<Reason>,
}

/// `ARC-Seal`.
#[derive(Clone, Debug)]
struct Seal {
    mark: Mark,
    status: ArcResult,
}

const RESULTS: &str = "ARC-Authentication-Results";
const SIGNATURE: &str = "ARC-Message-Signature";
const SEAL: &str = "ARC-Seal";
/// "ARC-processing systems MUST NOT" go beyond (RFC 8617 §4.2.1).
const SETS_MAX: u32 = 50;

impl ArcChain {
    pub(crate) const NONE: Self = Self { result: ArcResult::None, reason: None, sets: Vec::new() };

    /// The number of the newest set.
    pub fn instance(&self) -> usize {
        self.sets.len()
    }

    /// Whether the chain verifies up to the author, and one of those says that DMARC had passed, as all behind him are.
    pub fn vouches(&self, is_trusted: impl Fn(&str) -> bool) -> bool {
        if self.sets.last().is_none_or(|newest| newest.author == AuthorSigned::No) {
            return false;
        }
        let mut trusted = self.sets.iter().rev().take_while(|set| is_trusted(&set.domain));
        self.result == ArcResult::Pass && trusted.any(|set| set.dmarc == ArcDmarc::Pass)
    }
}

impl ArcResult {
    /// As in `Authentication-Results` (RFC 8617 §10.1), where what is not known for now is no pass.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
        }
    }
}

impl Sets {
    /// Reads those of a header section.
    pub(crate) fn read(header: &[u8], fields: &[Field], limits: &Limits) -> Self {
        let mut parts: Vec<[Option<Field>; 3]> = Vec::new();
        let mut found = Self::default();
        for field in fields {
            let Some(kind) = [RESULTS, SIGNATURE, SEAL].iter().position(|name| field.is(header, name)) else {
                continue;
            };
            let instance = instance_of(field.value(header)).filter(|instance| *instance > 0);
            let Some(instance) = instance else {
                found.flaw.get_or_insert(ArcReason::Malformed);
                continue;
            };
            if instance > SETS_MAX {
                found.flaw = Some(ArcReason::TooLong);
                continue;
            }
            found.highest = found.highest.max(instance);
            let place = instance as usize - 1;
            if parts.len() <= place {
                parts.resize(place + 1, [None; 3]);
            }
            if parts[place][kind].replace(*field).is_some() {
                found.flaw.get_or_insert(ArcReason::Malformed);
            }
        }
        if found.flaw.is_some() {
            return found;
        }
        for (place, part) in parts.into_iter().enumerate() {
            let [Some(results), Some(signature), Some(seal)] = part else {
                found.flaw = Some(ArcReason::Malformed);
                break;
            };
            let read = read_signature(signature.value(header), limits).zip(read_seal(seal.value(header)));
            let Some((signed, sealed)) = read else {
                found.flaw = Some(ArcReason::Malformed);
                break;
            };
            // "The cv= value MUST be none for i=1, and pass beyond" (RFC 8617 §5.2).
            match (place, sealed.status) {
                (0, ArcResult::None) | (1.., ArcResult::Pass) => {}
                (_, ArcResult::Fail) => found.flaw = Some(ArcReason::FailedBefore),
                (_, _) => found.flaw = Some(ArcReason::Malformed),
            }
            let dmarc = dmarc_of(results.value(header));
            found.sets.push(Set { results, signature: (signature, signed), seal: (seal, sealed), dmarc });
        }
        found
    }

    /// The body hash that the newest signature needs.
    pub(crate) fn body(&self) -> Option<(Canonicalization, HashAlgorithm)> {
        let newest = self.sets.last().filter(|_| self.flaw.is_none())?;
        Some((newest.signature.1.body, HashAlgorithm::Sha256))
    }

    fn chain(&self, result: ArcResult, reason: Option<ArcReason>) -> ArcChain {
        let sets = self.sets.iter().map(|set| {
            let Mark { domain, selector, .. } = &set.seal.1.mark;
            let is_signed = set.signature.1.fields.iter().any(|field| field == b"from");
            let author = if is_signed { AuthorSigned::Yes } else { AuthorSigned::No };
            ArcSet { domain: domain.clone(), selector: selector.clone(), dmarc: set.dmarc, author }
        });
        ArcChain { result, reason, sets: sets.collect() }
    }
}

/// `i=` of a field of any kind.
fn instance_of(value: &[u8]) -> Option<u32> {
    // In the results it stands first; in the others anywhere. None of the tags before it has a `;` in it.
    let mut parts = value.split(|octet| *octet == b';').map(<[u8]>::trim_ascii);
    let text = parts.find_map(|part| {
        let (name, value) = part.split_at_checked(part.iter().position(|octet| *octet == b'=')?)?;
        (name.trim_ascii() == b"i").then(|| value[1..].trim_ascii())
    })?;
    u32::try_from(number(text)?).ok()
}

fn read_mark(tags: &[Tag<'_>]) -> Option<Mark> {
    let tag = |name: &str| value_of(tags, name.as_bytes()).filter(|value| !value.is_empty());
    let text = |name: &str| str::from_utf8(tag(name)?).ok();
    let algorithm = match tag("a")? {
        b"rsa-sha256" => Theirs::RsaSha256,
        b"ed25519-sha256" => Theirs::Ed25519Sha256,
        _ => return None,
    };
    let name = |name: &str| dns::Name::parse(text(name)?).ok().map(|name| name.as_str().to_owned());
    Some(Mark { algorithm, domain: name("d")?, selector: name("s")?, b: base64(tag("b")?)? })
}

fn read_signature(value: &[u8], limits: &Limits) -> Option<Signature> {
    let tags = tags(value).ok()?;
    let tag = |name: &str| value_of(&tags, name.as_bytes());
    let form = |form: &[u8]| match form {
        b"simple" => Some(Canonicalization::Simple),
        b"relaxed" => Some(Canonicalization::Relaxed),
        _ => None,
    };
    let (header, body) = match tag("c") {
        // RFC 8617 names no other default than that of DKIM; but those who leave it out, and those who verify, mean this.
        None => (Canonicalization::Relaxed, Canonicalization::Relaxed),
        Some(forms) => {
            let mut parts = forms.splitn(2, |octet| *octet == b'/');
            let header = form(parts.next()?.trim_ascii())?;
            (header, parts.next().map_or(Some(Canonicalization::Simple), |body| form(body.trim_ascii()))?)
        }
    };
    let fields: Vec<Vec<u8>> = items(tag("h")?).map(<[u8]>::to_ascii_lowercase).collect();
    let has = |name: &[u8]| fields.iter().any(|field| field == name);
    // "ARC-Seal MUST NOT be included" (RFC 8617 §4.1.2).
    if has(b"arc-seal") {
        return None;
    }
    let expires = tag("x").map(|x| number(x).ok_or(())).transpose().ok()?;
    let flaw = if fields.len() > limits.signed_fields_max {
        Some(Reason::TooMany)
    } else if tag("l").is_some() {
        Some(Reason::BodyLength)
    } else {
        None
    };
    Some(Signature {
        mark: read_mark(&tags)?,
        header,
        body,
        hash: base64(tag("bh")?)?,
        fields,
        expires,
        flaw,
    })
}

fn read_seal(value: &[u8]) -> Option<Seal> {
    let tags = tags(value).ok()?;
    let tag = |name: &str| value_of(&tags, name.as_bytes());
    // "If the h= tag is found, the chain is failed" (RFC 8617 §4.1.3).
    if tag("h").is_some() {
        return None;
    }
    let status = match tag("cv")?.to_ascii_lowercase().as_slice() {
        b"none" => ArcResult::None,
        b"pass" => ArcResult::Pass,
        b"fail" => ArcResult::Fail,
        _ => return None,
    };
    Some(Seal { mark: read_mark(&tags)?, status })
}

fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = value.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(dense).ok().filter(|octets| !octets.is_empty())
}

/// What results say of DMARC: of several, the first.
fn dmarc_of(value: &[u8]) -> ArcDmarc {
    let text = String::from_utf8_lossy(value);
    let Some(plain) = results::uncommented(&text) else { return ArcDmarc::Other };
    let mut methods = plain.split(';').filter_map(|part| part.split_once('='));
    let dmarc = methods.find(|(method, _)| method.trim().eq_ignore_ascii_case("dmarc"));
    let word = dmarc.and_then(|(_, result)| result.split_whitespace().next());
    if word.is_some_and(|word| word.eq_ignore_ascii_case("pass")) { ArcDmarc::Pass } else { ArcDmarc::Other }
}

/// What is said of the chain of a message (RFC 8617 §5.2).
pub(crate) fn verify(
    facts: &Facts,
    judge: &Judge,
    digest: &Digest,
    limits: &Limits,
    at: Timestamp,
) -> ArcChain {
    let found = digest.arc();
    if found.highest == 0 && found.flaw.is_none() {
        return ArcChain::NONE;
    }
    if let Some(flaw) = found.flaw {
        return found.chain(ArcResult::Fail, Some(flaw));
    }
    let Some(newest) = found.sets.last() else { return ArcChain::NONE };
    let keys = TextCache::new(facts, |_, texts| read_key(judge.keys(), texts));
    let verified = verify_signature(newest, digest, &keys, limits, at)
        .map_err(|reason| (found.sets.len(), reason))
        .and_then(|()| {
            // The newest first: who has changed anything since is seen at once.
            (1..=found.sets.len()).rev().try_for_each(|count| {
                verify_seal(&found.sets[..count], digest, &keys, limits).map_err(|why| (count, why))
            })
        });
    match verified {
        Ok(()) => found.chain(ArcResult::Pass, None),
        Err((instance, reason)) => {
            let result =
                if reason == Reason::KeyUnavailable { ArcResult::TempError } else { ArcResult::Fail };
            found.chain(result, Some(ArcReason::Broken(instance as u32, reason)))
        }
    }
}

fn verify_signature<F: Fn(&dns::Name, &[Box<[u8]>]) -> Txt>(
    set: &Set,
    digest: &Digest,
    keys: &TextCache<'_, F>,
    limits: &Limits,
    at: Timestamp,
) -> Result<(), Reason> {
    let (field, signature) = &set.signature;
    if let Some(flaw) = digest.flaw().or(signature.flaw) {
        return Err(flaw);
    }
    if signature.expires.is_some_and(|expires| expires <= at.secs()) {
        return Err(Reason::Expired);
    }
    // Before the key, so that mail that was changed costs no look-up.
    if digest.body(signature.body, HashAlgorithm::Sha256) != Some(&signature.hash) {
        return Err(Reason::BodyHash);
    }
    let header = digest.header();
    let own = unsigned(field.value(header));
    let mut covered = selected(digest, &signature.fields);
    covered.push((field.name(header), &own));
    check(&signature.mark, covered.into_iter(), signature.header, keys, limits)
}

/// Verifies the seal of the last of these sets, which is over all of them.
fn verify_seal<F: Fn(&dns::Name, &[Box<[u8]>]) -> Txt>(
    sets: &[Set],
    digest: &Digest,
    keys: &TextCache<'_, F>,
    limits: &Limits,
) -> Result<(), Reason> {
    let (Some(last), header) = (sets.last(), digest.header()) else { return Ok(()) };
    let own = unsigned(last.seal.0.value(header));
    let mut covered: Vec<_> = sealed(sets, header).collect();
    covered.pop();
    covered.push((last.seal.0.name(header), &own));
    check(&last.seal.1.mark, covered.into_iter(), Canonicalization::Relaxed, keys, limits)
}

/// The fields of these sets in the order in which they are sealed (RFC 8617 §5.1.1).
fn sealed<'a>(sets: &'a [Set], header: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let fields = sets.iter().flat_map(|set| [set.results, set.signature.0, set.seal.0]);
    fields.map(|field| (field.name(header), field.value(header)))
}

fn check<'a, F: Fn(&dns::Name, &[Box<[u8]>]) -> Txt>(
    mark: &Mark,
    mut covered: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    form: Canonicalization,
    keys: &TextCache<'_, F>,
    limits: &Limits,
) -> Result<(), Reason> {
    let name = format!("{}._domainkey.{}", mark.selector, mark.domain);
    let key = domain_key(keys, &name)?;
    if key.has_flag(HashAlgorithm::Sha1) && !key.has_flag(HashAlgorithm::Sha256) {
        return Err(Reason::KeyNotForThis);
    }
    long_enough(&key, limits)?;
    key.p.verify(&mut covered, &mark.b, form.theirs(), mark.algorithm).map_err(|error| why(&error))
}

/// The fields that a signature names: of several with one name the last first (RFC 6376 §5.4.2).
fn selected<'a>(digest: &'a Digest, names: &[Vec<u8>]) -> Vec<(&'a [u8], &'a [u8])> {
    let header = digest.header();
    let mut taken = vec![false; digest.fields().len()];
    let mut covered = Vec::with_capacity(names.len());
    for name in names {
        let next = digest
            .fields()
            .iter()
            .enumerate()
            .rev()
            .find(|(place, field)| !taken[*place] && field.name(header).eq_ignore_ascii_case(name));
        if let Some((place, field)) = next {
            taken[place] = true;
            covered.push((field.name(header), field.value(header)));
        }
    }
    covered
}

/// The value of a signature's field as it is signed: with nothing in `b=`, and without its line end (RFC 6376 §3.7).
fn unsigned(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    for (place, part) in value.split(|octet| *octet == b';').enumerate() {
        if place > 0 {
            out.push(b';');
        }
        let equals = part.iter().position(|octet| *octet == b'=');
        match equals.filter(|equals| part[..*equals].trim_ascii() == b"b") {
            Some(equals) => out.extend_from_slice(&part[..=equals]),
            None => out.extend_from_slice(part),
        }
    }
    out
}

impl Signer {
    /// Appends a set of ours, which goes before the header section: what we have found of the message and of the chain that it came
    /// with, for the next one to believe or not (RFC 8617 §5.1). Nothing is written where a chain has failed before, or is as long as
    /// one may be, or where a key of it is not known for now.
    ///
    /// # Errors
    /// [`SignError`]: nothing was written.
    pub fn seal(
        &self,
        out: &mut Vec<u8>,
        digest: &Digest,
        (authserv_id, client, verdict): (&str, &Client, &Verdict),
        at: Timestamp,
    ) -> Result<(), SignError> {
        if let Some(flaw) = digest.flaw() {
            return Err(SignError::Flaw(flaw));
        }
        let (chain, found) = (&verdict.arc, digest.arc());
        let is_over = chain.reason == Some(ArcReason::FailedBefore) || found.highest >= SETS_MAX;
        if is_over || chain.result == ArcResult::TempError || chain.reason == Some(ArcReason::TooLong) {
            return Ok(());
        }
        let body = digest.body(self.body_canonicalization(), HashAlgorithm::Sha256);
        let body = body.ok_or(SignError::NotHashed)?;
        let instance = found.highest + 1;
        let mut set = Vec::with_capacity(2048);
        results::arc_authentication_results(&mut set, instance, authserv_id, client, verdict);
        let results_end = set.len();

        let names: Vec<_> = self.covered_names(digest).collect();
        if !names.iter().any(|name| name == b"from") {
            return Err(SignError::NoFrom);
        }
        let (header_form, body_form) = (Canonicalization::Relaxed, self.body_canonicalization());
        let algorithm = self.algorithm().as_str();
        let (domain, selector) = (self.domain(), self.selector());
        let mut signature = format!(
            "{SIGNATURE}: i={instance}; a={algorithm}; c={}/{};\r\n\td={domain}; s={selector}; t={};\r\n\th=",
            header_form.as_str(),
            body_form.as_str(),
            at.secs()
        )
        .into_bytes();
        fold(&mut signature, &names.join(&b":"[..]), b':');
        signature.extend_from_slice(b";\r\n\tbh=");
        signature.extend_from_slice(BASE64_STANDARD.encode(body).as_bytes());
        signature.extend_from_slice(b";\r\n\tb=");
        let covered = selected(digest, &names);
        self.complete(&mut signature, &covered, SIGNATURE.len())?;
        set.extend_from_slice(&signature);
        let signature_end = set.len();

        let status = match chain.result {
            ArcResult::None => "none",
            ArcResult::Pass => "pass",
            ArcResult::Fail | ArcResult::TempError => "fail",
        };
        let mut seal = format!(
            "{SEAL}: i={instance}; a={algorithm}; t={}; cv={status};\r\n\td={domain}; s={selector};\r\n\tb=",
            at.secs()
        )
        .into_bytes();
        // Of a chain that does not verify, nothing is vouched for (RFC 8617 §5.1.2).
        let before = if chain.result == ArcResult::Pass { &found.sets[..] } else { &[] };
        let (results_field, signature_field) = (&set[..results_end], &set[results_end..signature_end]);
        let own = [(RESULTS, results_field), (SIGNATURE, signature_field)];
        let own = own.map(|(name, field)| (name.as_bytes(), &field[name.len() + 1..]));
        let covered: Vec<_> = sealed(before, digest.header()).chain(own).collect();
        self.complete(&mut seal, &covered, SEAL.len())?;
        out.extend_from_slice(&seal);
        out.extend_from_slice(&set[results_end..]);
        out.extend_from_slice(&set[..results_end]);
        Ok(())
    }

    /// Signs these fields and one that ends with `b=`, whose value begins behind its name and the colon; and completes that.
    fn complete(
        &self,
        field: &mut Vec<u8>,
        covered: &[(&[u8], &[u8])],
        name_len: usize,
    ) -> Result<(), SignError> {
        let own = iter::once((&field[..name_len], &field[name_len + 1..]));
        let covered: Vec<_> = covered.iter().copied().chain(own).collect();
        let signed = self.signing_key().sign(Covered(&covered)).map_err(|_| SignError::Key)?;
        fold(field, BASE64_STANDARD.encode(signed).as_bytes(), 0);
        field.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The names of the fields that a set of ours covers, in lower case, each as often as it is there. What comes with `ARC-` is sealed
    /// otherwise, and what is written on the way is left out.
    fn covered_names<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = Vec<u8>> + 'a {
        let names = self.signed_names().chain(["DKIM-Signature"]);
        names.flat_map(move |name| {
            let here = digest.fields().iter().filter(move |field| field.is(digest.header(), name)).count();
            iter::repeat_n(name.to_ascii_lowercase().into_bytes(), here)
        })
    }
}

/// Fields in the relaxed form, as they are sealed.
struct Covered<'a>(&'a [(&'a [u8], &'a [u8])]);

impl Writable for Covered<'_> {
    fn write(self, writer: &mut impl Writer) {
        mail_auth::dkim::Canonicalization::Relaxed.canonicalize_headers(self.0.iter().copied(), writer);
    }
}

/// Appends a value over several lines: broken behind an octet, or anywhere where that is zero.
fn fold(out: &mut Vec<u8>, value: &[u8], behind: u8) {
    const LINE_LEN: usize = 70;
    let mut column = 4;
    for octet in value {
        out.push(*octet);
        column += 1;
        if column >= LINE_LEN && (behind == 0 || *octet == behind) {
            out.extend_from_slice(b"\r\n\t ");
            column = 4;
        }
    }
}

#[cfg(test)]
#[path = "arc_test.rs"]
mod test;
