//! What the octets of a message are like, found out as they arrive and whichever way they come.

use memchr::memrchr;

use crate::Refusal;

/// What is known of the content so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Octets, without dot-stuffing and the final dot.
    pub size: u64,
    /// A CR that no LF follows.
    pub bare_cr: bool,
    /// An LF that no CR precedes.
    pub bare_lf: bool,
    /// A NUL.
    pub nul: bool,
    /// An octet above 127.
    pub eight_bit: bool,
    /// A line over 998 octets, its CRLF not counted (RFC 5321 §4.5.3.1.6).
    pub long_line: bool,
    /// The last line does not end in CRLF, which only a message sent in chunks can have. Who sends it on with
    /// DATA, or keeps it as lines, adds one.
    pub open_end: bool,
}

/// What content may have. [`Tolerance::Refuse`] is the default for what RFC 5321 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRules {
    /// Octets at most.
    pub size_max: u64,
    /// Bare CR or LF (RFC 5321 §2.3.8). Whoever accepts them helps to smuggle messages through others.
    pub bare_line_end: Tolerance,
    /// NUL (RFC 5321 §4.5.2 leaves it to the recipient).
    pub nul: Tolerance,
    /// Lines over 998 octets (RFC 5321 §4.5.3.1.6: 1000 is what everybody must take).
    pub long_line: Tolerance,
}

/// Whether something is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Let it through.
    Accept,
    /// Refuse the message.
    Refuse,
}

impl ContentRules {
    /// Everything RFC 5321 forbids is refused, but long lines are let through: too many programs make them.
    pub const fn usual(size_max: u64) -> Self {
        Self {
            size_max,
            bare_line_end: Tolerance::Refuse,
            nul: Tolerance::Refuse,
            long_line: Tolerance::Accept,
        }
    }
}

impl Findings {
    /// Judges lines of text, which is what all content but BINARYMIME is.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge(&self, rules: &ContentRules) -> Result<(), Refusal> {
        self.judge_binary(rules)?;
        let broken = |found: bool, rule: Tolerance| found && rule == Tolerance::Refuse;
        if broken(self.bare_cr || self.bare_lf, rules.bare_line_end) {
            Err(Refusal::BareLineEnd)
        } else if broken(self.nul, rules.nul) {
            Err(Refusal::NulByte)
        } else if broken(self.long_line, rules.long_line) {
            Err(Refusal::DataLineTooLong)
        } else {
            Ok(())
        }
    }

    /// Judges octets of any kind, which BINARYMIME allows (RFC 3030 §3).
    ///
    /// # Errors
    /// [`Refusal::MessageTooBig`].
    pub fn judge_binary(&self, rules: &ContentRules) -> Result<(), Refusal> {
        if self.size > rules.size_max { Err(Refusal::MessageTooBig) } else { Ok(()) }
    }
}

/// Looks at every octet once, many at a time.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    findings: Findings,
    /// The octet before the next one. A message begins as if after an LF that had its CR.
    last: u8,
    /// Octets of the open line.
    line_len: usize,
}

// 998 and CRLF (RFC 5321 §4.5.3.1.6).
const LINE_MAX: usize = 1000;

impl Survey {
    pub(crate) const fn new() -> Self {
        let findings = Findings {
            size: 0,
            bare_cr: false,
            bare_lf: false,
            nul: false,
            eight_bit: false,
            long_line: false,
            open_end: false,
        };
        Self { findings, last: b'\n', line_len: 0 }
    }

    /// Octets in the order of the wire, dots of transparency included.
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        let Some((first, last)) = octets.first().zip(octets.last()) else { return };
        let (befores, afters) = (&octets[..octets.len() - 1], &octets[1..]);
        let mut seen = Seen::default();
        seen.pair(0, self.last, *first);
        seen.pairs(befores, afters);
        if seen.mismatch.iter().any(|lane| *lane != 0) {
            // Which of the two it is, is worth a second look: hardly any message comes here.
            self.mismatches(self.last, *first);
            befores.iter().zip(afters).for_each(|(before, after)| self.mismatches(*before, *after));
        }
        self.findings.nul |= seen.least.contains(&0);
        self.findings.eight_bit |= !seen.any.is_ascii();
        self.last = *last;
    }

    fn mismatches(&mut self, before: u8, after: u8) {
        self.findings.bare_cr |= before == b'\r' && after != b'\n';
        self.findings.bare_lf |= before != b'\r' && after == b'\n';
    }

    /// The same octets as content: without dots of transparency.
    pub(crate) fn content(&mut self, content: &[u8]) {
        self.findings.size += content.len() as u64;
        // From the end of each line's greatest length back to an LF: most octets are never looked at.
        let mut rest = content;
        while !self.findings.long_line && !rest.is_empty() {
            let room = LINE_MAX - self.line_len;
            let window = &rest[..room.min(rest.len())];
            match memrchr(b'\n', window) {
                Some(at) => {
                    self.line_len = 0;
                    rest = &rest[at + 1..];
                }
                None if window.len() == room => self.findings.long_line = true,
                None => {
                    self.line_len += window.len();
                    rest = &[];
                }
            }
        }
    }

    /// What is known for certain, whatever comes next.
    pub(crate) const fn findings(&self) -> Findings {
        self.findings
    }

    /// What is known when the content ends here.
    pub(crate) fn findings_at_end(&self) -> Findings {
        let mut findings = self.findings;
        findings.bare_cr |= self.last == b'\r';
        findings.open_end = findings.size > 0 && self.last != b'\n';
        findings
    }
}

/// What pairs of neighbours show: lanes of octets, which the compiler turns into vector instructions.
struct Seen {
    /// Not zero: a CR without its LF, or an LF without its CR.
    mismatch: [u8; LANES],
    any: [u8; LANES],
    least: [u8; LANES],
}

// Measured with `bench/smtp.rs`: 16 lanes 5 GiB/s, 32 lanes 7, 64 lanes 11.
const LANES: usize = 64;

impl Default for Seen {
    fn default() -> Self {
        Self { mismatch: [0; LANES], any: [0; LANES], least: [u8::MAX; LANES] }
    }
}

impl Seen {
    fn pairs(&mut self, befores: &[u8], afters: &[u8]) {
        let (before_blocks, before_rest) = befores.as_chunks::<LANES>();
        let (after_blocks, after_rest) = afters.as_chunks::<LANES>();
        for (before, after) in before_blocks.iter().zip(after_blocks) {
            for lane in 0..LANES {
                self.pair(lane, before[lane], after[lane]);
            }
        }
        for (lane, (before, after)) in before_rest.iter().zip(after_rest).enumerate() {
            self.pair(lane, *before, *after);
        }
    }

    #[inline(always)]
    fn pair(&mut self, lane: usize, before: u8, after: u8) {
        self.mismatch[lane] |= u8::from(before == b'\r') ^ u8::from(after == b'\n');
        self.any[lane] |= after;
        self.least[lane] = self.least[lane].min(after);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(lines: &[usize], long_line: bool) {
        let mut survey = Survey::new();
        for (i, len) in lines.iter().enumerate() {
            let mut line = vec![b'x'; *len];
            line.extend(b"\r\n");
            // Cut at another place each time.
            let (head, tail) = line.split_at(i * 37 % line.len());
            survey.content(head);
            survey.content(tail);
        }
        assert_eq!(survey.findings().long_line, long_line, "{lines:?}");
    }

    #[test]
    fn long_lines() {
        check(&[], false);
        check(&[998, 0, 998, 76, 76, 997, 998], false);
        check(&[999], true);
        check(&[76, 76, 999, 76], true);
        check(&[998, 998, 5000], true);
        check(&[0; 3000], false);
        check(&[1; 3000], false);
    }

    #[test]
    fn rules_are_applied() {
        let rules = ContentRules::usual(10);
        let found = Findings::default();
        assert_eq!(found.judge(&rules), Ok(()));
        assert_eq!(Findings { size: 11, ..found }.judge(&rules), Err(Refusal::MessageTooBig));
        assert_eq!(Findings { size: 11, ..found }.judge_binary(&rules), Err(Refusal::MessageTooBig));
        assert_eq!(Findings { bare_cr: true, ..found }.judge(&rules), Err(Refusal::BareLineEnd));
        assert_eq!(Findings { bare_lf: true, ..found }.judge(&rules), Err(Refusal::BareLineEnd));
        assert_eq!(Findings { bare_lf: true, nul: true, ..found }.judge_binary(&rules), Ok(()));
        assert_eq!(Findings { nul: true, ..found }.judge(&rules), Err(Refusal::NulByte));
        assert_eq!(Findings { long_line: true, ..found }.judge(&rules), Ok(()));
        let strict = ContentRules { long_line: Tolerance::Refuse, ..rules };
        assert_eq!(Findings { long_line: true, ..found }.judge(&strict), Err(Refusal::DataLineTooLong));
    }
}
