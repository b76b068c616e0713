//! One pass over a message: its header section is kept, its body is hashed.
//!
//! The slices are pushed as they come in, so that a message is not read a second time for its signatures: neither
//! for those it has nor for those we add. Which hashes the former need is known when the header section ends.
//!
//! mail-auth canonicalises and hashes ([`BodyHasher`]). Of the relaxed form it keeps lines of white space at the
//! end of a body, which are to be ignored (RFC 6376 §3.4.4): so it is given the body without them.

use std::{fmt, mem, ops::Range};

use mail_auth::{
    common::crypto::{HashAlgorithm, HashContext, HashImpl, Sha1, Sha256},
    dkim::canonicalize::BodyHasher,
};
use memchr::{memchr_iter, memmem};

use crate::{
    Author, Limits, Signer,
    arc::Sets,
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

/// The hash of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodyHash {
    pub(crate) form: Canonicalization,
    pub(crate) algorithm: HashAlgorithm,
    pub(crate) hash: Vec<u8>,
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
    Body { digest: Box<Digest>, hashers: Vec<Hasher>, line_ends: LineEnds },
}

type Context = <Sha256 as HashImpl>::Context;

struct Hasher {
    form: Canonicalization,
    algorithm: HashAlgorithm,
    hasher: BodyHasher<Context>,
    held: Blank,
}

/// White space that is held back until something follows it: so many line ends, then perhaps some white space
/// within a line. That is all that counts of it in the relaxed form.
#[derive(Clone, Copy, Debug, Default)]
struct Blank {
    line_ends: usize,
    space: Space,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Space {
    #[default]
    No,
    Yes,
}

/// Whether all CRs and LFs stand together.
#[derive(Clone, Copy, Debug, Default)]
struct LineEnds {
    crs: usize,
    crlfs: usize,
    bare_lfs: usize,
    last: u8,
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
        digest.flaw = digest.flaw.or(line_ends.flaw());
        digest.bodies = hashers.into_iter().map(Hasher::finish).collect();
        *digest
    }

    fn end_header(&mut self, header: Result<Vec<u8>, Reason>, body_start: Option<usize>) {
        let (header, flaw) = match header {
            Ok(header) => {
                let mut line_ends = LineEnds::default();
                line_ends.push(&header);
                (header, line_ends.flaw())
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
        let mut hashers: Vec<Hasher> = Vec::new();
        let ours = self.for_signing.iter().map(|form| (*form, HashAlgorithm::Sha256));
        for (form, algorithm) in
            signatures.iter().filter_map(SignatureField::body).chain(arc.body()).chain(ours)
        {
            if !hashers.iter().any(|hasher| hasher.form == form && hasher.algorithm == algorithm) {
                hashers.push(Hasher::new(form, algorithm));
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
    /// our name (RFC 8601 §5), `Received-SPF` that say we were the receiver, and our warnings.
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

fn push_body(slice: &[u8], hashers: &mut [Hasher], line_ends: &mut LineEnds) {
    if hashers.is_empty() || slice.is_empty() {
        return;
    }
    line_ends.push(slice);
    // The same for every relaxed hash: where the last text of the slice ends.
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let text_end = slice.iter().rposition(|octet| !blank(octet)).map_or(0, |last| last + 1);
    for hasher in hashers {
        hasher.push(slice, text_end);
    }
}

impl Hasher {
    fn new(form: Canonicalization, algorithm: HashAlgorithm) -> Self {
        let context = match algorithm {
            HashAlgorithm::Sha1 => Sha1::hasher(),
            HashAlgorithm::Sha256 => Sha256::hasher(),
        };
        // No limit: part of a body is never hashed (see `BodyLength`).
        let hasher = BodyHasher::new(context, form.theirs(), 0);
        Self { form, algorithm, hasher, held: Blank::default() }
    }

    fn push(&mut self, slice: &[u8], text_end: usize) {
        match self.form {
            Canonicalization::Simple => self.hasher.write(slice),
            Canonicalization::Relaxed => {
                let (text, blank) = slice.split_at(text_end);
                if !text.is_empty() {
                    self.release();
                    self.hasher.write(text);
                }
                self.held.push(blank);
            }
        }
    }

    /// Something follows the white space that was held back.
    fn release(&mut self) {
        const LINE_ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";
        let held = mem::take(&mut self.held);
        let mut octets = held.line_ends * 2;
        while octets > 0 {
            let some = octets.min(LINE_ENDS.len());
            self.hasher.write(&LINE_ENDS[..some]);
            octets -= some;
        }
        if held.space == Space::Yes {
            self.hasher.write(b" ");
        }
    }

    fn finish(self) -> BodyHash {
        let (context, _) = self.hasher.finish();
        BodyHash { form: self.form, algorithm: self.algorithm, hash: context.complete().as_ref().to_vec() }
    }
}

impl Blank {
    fn push(&mut self, blank: &[u8]) {
        for octet in blank {
            match octet {
                b'\n' => {
                    self.line_ends += 1;
                    self.space = Space::No;
                }
                b'\r' => {}
                _ => self.space = Space::Yes,
            }
        }
    }
}

impl LineEnds {
    fn push(&mut self, slice: &[u8]) {
        let mut crlfs = 0;
        for lf in memchr_iter(b'\n', slice) {
            let before = if lf == 0 { self.last } else { slice[lf - 1] };
            if before == b'\r' {
                crlfs += 1;
            } else {
                self.bare_lfs += 1;
            }
        }
        self.crlfs += crlfs;
        self.crs += memchr_iter(b'\r', slice).count();
        self.last = slice.last().copied().unwrap_or(self.last);
    }

    const fn flaw(self) -> Option<Reason> {
        if self.bare_lfs > 0 || self.crs != self.crlfs { Some(Reason::BareLineEnd) } else { None }
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
