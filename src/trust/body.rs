//! The hash of a body, slice by slice (RFC 6376 §3.4.3, §3.4.4).
//!
//! Nearly all of what is written is in the relaxed form already: words with one space between them. Where that ends is
//! looked for many octets at a time, so that the hash alone takes the time.

use std::mem;

use mail_auth::common::{
    crypto::{HashAlgorithm, HashContext, HashImpl, Sha1, Sha256},
    headers::Writer as _,
};

use crate::Canonicalization;

/// The hash of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodyHash {
    pub(crate) form: Canonicalization,
    pub(crate) algorithm: HashAlgorithm,
    pub(crate) hash: Vec<u8>,
}

/// Hashes a body in one form. What a CR or LF alone makes of it is not said: such a body has a [flaw](LineEnds::flawed).
pub(crate) struct BodyHasher {
    form: Canonicalization,
    algorithm: HashAlgorithm,
    context: Context,
    held: Blank,
    text: Text,
}

/// Both hashes are of this type.
type Context = <Sha256 as HashImpl>::Context;

/// What is held back until text follows it: so many line ends, then perhaps some white space within a line. That is all
/// that counts of white space in the relaxed form; the simple form has line ends alone here.
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

/// Whether there was any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    None,
    Some,
}

/// Whether all CRs and LFs stand together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineEnds {
    bare: bool,
    last: u8,
}

/// So many octets are looked at together.
const CHUNK: usize = 64;

impl BodyHasher {
    pub(crate) fn new(form: Canonicalization, algorithm: HashAlgorithm) -> Self {
        let context = match algorithm {
            HashAlgorithm::Sha1 => Sha1::hasher(),
            HashAlgorithm::Sha256 => Sha256::hasher(),
        };
        Self { form, algorithm, context, held: Blank::default(), text: Text::None }
    }

    /// Whether it is of this form, by this algorithm.
    pub(crate) fn is(&self, form: Canonicalization, algorithm: HashAlgorithm) -> bool {
        self.form == form && self.algorithm == algorithm
    }

    /// Takes in the next octets.
    pub(crate) fn push(&mut self, slice: &[u8]) {
        let is_blank = match self.form {
            Canonicalization::Simple => |octet: &u8| matches!(octet, b'\r' | b'\n'),
            Canonicalization::Relaxed => is_blank,
        };
        let Some(last) = slice.iter().rposition(|octet| !is_blank(octet)) else {
            self.held.push(slice);
            return;
        };
        let start = slice.iter().position(|octet| !is_blank(octet)).unwrap_or(last);
        self.held.push(&slice[..start]);
        self.release();
        self.text = Text::Some;
        let text = &slice[start..=last];
        match self.form {
            Canonicalization::Simple => self.context.write(text),
            Canonicalization::Relaxed => self.push_relaxed(text),
        }
        self.held.push(&slice[last + 1..]);
    }

    /// Text of which neither end is blank.
    fn push_relaxed(&mut self, mut text: &[u8]) {
        while let Some(at) = find_irregular(text) {
            let (regular, rest) = text.split_at(at);
            self.context.write(regular);
            let end = rest.iter().position(|octet| !is_blank(octet)).unwrap_or(rest.len());
            self.held.push(&rest[..end]);
            self.release();
            text = &rest[end..];
        }
        self.context.write(text);
    }

    /// Text follows what was held back.
    fn release(&mut self) {
        const LINE_ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";
        let held = mem::take(&mut self.held);
        let mut octets = held.line_ends * 2;
        while octets > 0 {
            let some = octets.min(LINE_ENDS.len());
            self.context.write(&LINE_ENDS[..some]);
            octets -= some;
        }
        if held.space == Space::Yes {
            self.context.write(b" ");
        }
    }

    /// The body has ended: all line ends at its end are as one, and where there is none one is added.
    pub(crate) fn finish(mut self) -> BodyHash {
        // "a completely empty or missing body is canonicalized as a single CRLF" in the simple form alone.
        if self.form == Canonicalization::Simple || self.text == Text::Some {
            self.context.write(b"\r\n");
        }
        let hash = self.context.complete().as_ref().to_vec();
        BodyHash { form: self.form, algorithm: self.algorithm, hash }
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

const fn is_blank(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// The first white space that the relaxed form writes otherwise: a tab, or a space with more white space or a line end behind
/// it. The text does not end with one.
fn find_irregular(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = text.get(at..=at + CHUNK) {
        let (these, next) = (&chunk[..CHUNK], &chunk[1..]);
        // No branch within, so that the compiler compares many octets by one instruction.
        let suspect = these.iter().zip(next).fold(false, |suspect, (this, next)| {
            suspect | (*this == b'\t') | ((*this == b' ') & (*next <= b' '))
        });
        if suspect && let Some(found) = first_irregular(chunk) {
            return Some(at + found);
        }
        at += CHUNK;
    }
    first_irregular(&text[at..]).map(|found| at + found)
}

/// The same, octet by octet; the last one is only what stands behind the one before.
fn first_irregular(text: &[u8]) -> Option<usize> {
    text.windows(2).position(|pair| pair[0] == b'\t' || (pair[0] == b' ' && is_blank(&pair[1])))
}

impl LineEnds {
    /// Takes in the next octets.
    pub(crate) fn push(&mut self, slice: &[u8]) {
        let Some((first, last)) = slice.first().zip(slice.last()) else { return };
        let between = (self.last == b'\r') != (*first == b'\n');
        let within = slice.iter().zip(&slice[1..]);
        // As above: all octets are looked at, many by one instruction.
        let within = within.fold(false, |bare, (this, next)| bare | ((*this == b'\r') != (*next == b'\n')));
        self.bare |= between | within;
        self.last = *last;
    }

    /// Whether one stood alone, were this the end.
    pub(crate) const fn flawed(self) -> bool {
        self.bare || self.last == b'\r'
    }
}
