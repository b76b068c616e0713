//! One pass over a message: its header section is kept, its body is hashed.
//!
//! The slices are pushed as they come in, so that a message is not read a second time for its signatures: neither
//! for those it has nor for those we add. Which hashes the former need is known when the header section ends.
//!
//! Bodies are hashed by a [`BodyHasher`] for each form and algorithm.

use std::{fmt, mem, ops::Range};

use mail_auth::common::crypto::HashAlgorithm;
use memchr::memmem;

use crate::{
    Author, Limits, Signer,
    arc::Sets,
    body::{BodyHash, BodyHasher, LineEnds},
    dkim::{Reason, SignatureField, read_signatures},
    dmarc::author,
    fields::{Field, fields},
    results,
};

/// How a header section or a body is written before it is hashed (RFC 6376 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonicalization {
    /// As it is; of the empty lines at the end of a body one is kept (RFC 6376 §3.4.1, §3.4.3).
    Simple,
    /// White space and the case of field names do not matter (RFC 6376 §3.4.2, §3.4.4).
    Relaxed,
}

/// Reads one message, slice by slice.
pub struct Digester {
    limits: Limits,
    verify: Verify,
    /// Body hashes that our own signatures need.
    for_signing: Vec<Canonicalization>,
    state: State,
}

/// What is left of a message for judging and signing it.
#[derive(Debug)]
pub struct Digest {
    limits: Limits,
    header: Vec<u8>,
    fields: Vec<Field>,
    body_start: Option<usize>,
    signatures: Vec<SignatureField>,
    arc: Sets,
    author: Author,
    bodies: Vec<BodyHash>,
    flaw: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    No,
    Yes,
}

enum State {
    /// The header section, as far as it is there.
    Header(Vec<u8>),
    /// The header section has ended.
    Body { digest: Box<Digest>, hashers: Vec<BodyHasher>, line_ends: LineEnds },
}

impl Digester {
    /// A pass that keeps the header section and hashes nothing.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, verify: Verify::No, for_signing: Vec::new(), state: State::Header(Vec::new()) }
    }

    /// Hashes what the message's own signatures ask for.
    pub const fn verifying(mut self) -> Self {
        self.verify = Verify::Yes;
        self
    }

    /// Hashes what these signers will need.
    pub fn signing<'a>(mut self, signers: impl IntoIterator<Item = &'a Signer>) -> Self {
        for signer in signers {
            let form = signer.body_canonicalization();
            if !self.for_signing.contains(&form) {
                self.for_signing.push(form);
            }
        }
        self
    }

    /// Where the body begins, behind the empty line, once that is known. All of a message whose header section is too long is body.
    pub fn body_start(&self) -> Option<usize> {
        match &self.state {
            State::Body { digest, .. } => digest.body_start,
            State::Header(_) => None,
        }
    }

    /// Reads the next octets of the message.
    pub fn push(&mut self, slice: &[u8]) {
        match &mut self.state {
            State::Body { hashers, line_ends, .. } => push_body(slice, hashers, line_ends),
            State::Header(header) => {
                // The last octets before the slice may begin the end.
                let from = header.len().saturating_sub(3);
                let before = header.len();
                header.extend_from_slice(slice);
                let end = if header.starts_with(b"\r\n") {
                    Some((0, 2))
                } else {
                    memmem::find(&header[from..], b"\r\n\r\n").map(|at| (from + at + 2, from + at + 4))
                };
                // The last octet may be the first of the empty line.
                let header_len = end.map_or(header.len().saturating_sub(1), |(header_end, _)| header_end);
                if header_len > self.limits.header_size_max {
                    self.end_header(Err(Reason::HeaderTooLong), Some(0));
                } else if let Some((header_end, body_start)) = end {
                    let mut header = mem::take(header);
                    header.truncate(header_end);
                    self.end_header(Ok(header), Some(body_start));
                    self.push(&slice[body_start - before..]);
                }
            }
        }
    }

    /// The message has ended.
    pub fn finish(mut self) -> Digest {
        if let State::Header(header) = &mut self.state {
            // There is no body.
            let header = mem::take(header);
            let fits = header.len() <= self.limits.header_size_max;
            self.end_header(if fits { Ok(header) } else { Err(Reason::HeaderTooLong) }, None);
        }
        let State::Body { mut digest, hashers, line_ends } = self.state else {
            unreachable!("the header section has just ended")
        };
        digest.flaw = digest.flaw.or(line_ends.flawed().then_some(Reason::BareLineEnd));
        digest.bodies = hashers.into_iter().map(BodyHasher::finish).collect();
        *digest
    }

    fn end_header(&mut self, header: Result<Vec<u8>, Reason>, body_start: Option<usize>) {
        let (header, flaw) = match header {
            Ok(header) => {
                let mut line_ends = LineEnds::default();
                line_ends.push(&header);
                (header, line_ends.flawed().then_some(Reason::BareLineEnd))
            }
            Err(flaw) => (Vec::new(), Some(flaw)),
        };
        let fields: Vec<_> = fields(&header).take(self.limits.fields_max + 1).collect();
        let flaw = if fields.len() > self.limits.fields_max { Some(Reason::HeaderTooLong) } else { flaw };
        let (signatures, arc) = match self.verify {
            Verify::Yes => {
                let signatures = read_signatures(&header, &fields, &self.limits);
                (signatures, Sets::read(&header, &fields, &self.limits))
            }
            Verify::No => (Vec::new(), Sets::default()),
        };
        let author = author(&header, &fields);
        let mut hashers: Vec<BodyHasher> = Vec::new();
        let ours = self.for_signing.iter().map(|form| (*form, HashAlgorithm::Sha256));
        for (form, algorithm) in
            signatures.iter().filter_map(SignatureField::body).chain(arc.body()).chain(ours)
        {
            if !hashers.iter().any(|hasher| hasher.is(form, algorithm)) {
                hashers.push(BodyHasher::new(form, algorithm));
            }
        }
        let digest = Digest {
            limits: self.limits,
            header,
            fields,
            body_start,
            signatures,
            arc,
            author,
            bodies: Vec::new(),
            flaw,
        };
        self.state = State::Body { digest: Box::new(digest), hashers, line_ends: LineEnds::default() };
    }
}

impl Digest {
    /// The header section, without the empty line.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The bounds that it was read with.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// What stands before the body: the header section and the empty line. Nothing of a header section that was too long.
    pub fn head(&self) -> impl Iterator<Item = &[u8]> {
        let empty_line: &[u8] = if self.body_start > Some(self.header.len()) { b"\r\n" } else { b"" };
        [&self.header[..], empty_line].into_iter()
    }

    /// What makes it impossible to say what was signed, if anything does.
    pub const fn flaw(&self) -> Option<Reason> {
        self.flaw
    }

    /// The places of the fields that only we may write, and that somebody else wrote: `Authentication-Results` with
    /// our name (RFC 8601 §5), `Received-SPF` that say we were the receiver, our warnings, and all that show a picture of the author's
    /// domain (BIMI).
    ///
    /// They are to be left out when the message is handed on, and stand where signatures may cover them: so first
    /// judge, then cut.
    pub fn forged_results(&self, authserv_id: &str) -> Vec<Range<usize>> {
        let forged = |field: &Field| results::is_ours(&self.header, field, authserv_id);
        fields(&self.header).filter(forged).map(|field| field.range()).collect()
    }

    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(crate) fn signatures(&self) -> &[SignatureField] {
        &self.signatures
    }

    /// Whether the header section has a field of this name that says this, whatever its case and the white space around it.
    pub fn has_field(&self, name: &str, value: &str) -> bool {
        let mut named = self.fields.iter().filter(|field| field.is(&self.header, name));
        named.any(|field| field.value(&self.header).trim_ascii().eq_ignore_ascii_case(value.as_bytes()))
    }

    pub(crate) const fn arc(&self) -> &Sets {
        &self.arc
    }

    /// Whom the message says it is from.
    pub const fn author(&self) -> &Author {
        &self.author
    }

    pub(crate) fn bodies(&self) -> &[BodyHash] {
        &self.bodies
    }

    /// The hash of the body, if the pass was told to make it.
    pub(crate) fn body(&self, form: Canonicalization, algorithm: HashAlgorithm) -> Option<&[u8]> {
        let body = self.bodies.iter().find(|body| body.form == form && body.algorithm == algorithm);
        body.map(|body| body.hash.as_slice())
    }
}

impl Canonicalization {
    /// As in `c=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Relaxed => "relaxed",
        }
    }

    pub(crate) const fn of(form: mail_auth::dkim::Canonicalization) -> Self {
        match form {
            mail_auth::dkim::Canonicalization::Simple => Self::Simple,
            mail_auth::dkim::Canonicalization::Relaxed => Self::Relaxed,
        }
    }

    pub(crate) const fn theirs(self) -> mail_auth::dkim::Canonicalization {
        match self {
            Self::Simple => mail_auth::dkim::Canonicalization::Simple,
            Self::Relaxed => mail_auth::dkim::Canonicalization::Relaxed,
        }
    }
}

fn push_body(slice: &[u8], hashers: &mut [BodyHasher], line_ends: &mut LineEnds) {
    if hashers.is_empty() {
        return;
    }
    line_ends.push(slice);
    for hasher in hashers {
        hasher.push(slice);
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").field("verify", &self.verify).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "digest_test.rs"]
mod test;
