//! Mail data after DATA, in the pieces in which it arrives (RFC 5321 §4.5.2).
//!
//! Nothing is copied: the scanner says which ranges of the input are content. Only CRLF "." CRLF ends it
//! (RFC 5321 §4.1.1.4); a dot after a bare LF is a dot like any other.

use std::{ops::Range, sync::LazyLock};

use memchr::memmem::Finder;

use crate::content::{Findings, Survey};

/// Finds content and its end.
#[derive(Clone, Debug)]
pub struct MailDataScanner {
    place: Place,
    survey: Survey,
}

/// Content found by [`MailDataScanner::scan`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A range of the input; never empty.
    Input(Range<usize>),
    /// A CR that the input before this one ended with, and that might have been part of the end.
    CarriedCr,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All input is used up, and the mail data goes on.
    More,
    /// The mail data ended; what lies behind these octets is the next command.
    Ended {
        /// Octets of the input that belong to the mail data, the final dot's line included.
        consumed: usize,
    },
}

/// What stands before the next octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// CRLF, or nothing yet.
    LineStart,
    /// A CR, already given out.
    Cr,
    /// Anything else.
    Text,
    /// A dot at the start of a line. It is not content, whatever follows.
    Dot,
    /// Such a dot and a CR, not given out.
    DotCr,
    /// The end.
    Ended,
}

static DOT_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

impl MailDataScanner {
    /// Before the first octet of mail data.
    pub const fn new() -> Self {
        Self { place: Place::LineStart, survey: Survey::new() }
    }

    /// Looks at the next octets and gives out the content among them.
    ///
    /// # Panics
    /// When the mail data has ended before.
    pub fn scan(&mut self, input: &[u8], mut give: impl FnMut(Piece)) -> Progress {
        let progress = self.find_content(input, &mut give);
        let consumed = match progress {
            Progress::More => input.len(),
            Progress::Ended { consumed } => consumed,
        };
        self.survey.octets(&input[..consumed]);
        progress
    }

    fn find_content(&mut self, input: &[u8], give: &mut impl FnMut(Piece)) -> Progress {
        // Content not yet given out begins at `start`; `at` is the next octet to look at.
        let (mut start, mut at) = (0, 0);
        while let Some(octet) = input.get(at) {
            (self.place, at) = match (self.place, octet) {
                (Place::LineStart, b'.') => {
                    self.give(input, start..at, give);
                    start = at + 1;
                    (Place::Dot, at + 1)
                }
                (Place::Dot, b'\r') => {
                    start = at + 1;
                    (Place::DotCr, at + 1)
                }
                (Place::DotCr, b'\n') => {
                    self.place = Place::Ended;
                    return Progress::Ended { consumed: at + 1 };
                }
                // The CR behind the dot was content.
                (Place::DotCr, _) => {
                    match at.checked_sub(1) {
                        Some(cr) => start = cr,
                        None => {
                            self.survey.content(b"\r");
                            give(Piece::CarriedCr);
                        }
                    }
                    (Place::Cr, at)
                }
                (Place::Cr, b'\n') => (Place::LineStart, at + 1),
                (Place::LineStart | Place::Cr | Place::Dot | Place::Text, _) => {
                    match DOT_LINE.find(&input[at..]) {
                        Some(found) => (Place::LineStart, at + found + 2),
                        None => (place_behind(&input[at..]), input.len()),
                    }
                }
                (Place::Ended, _) => panic!("the mail data has ended"),
            };
        }
        self.give(input, start..at, give);
        Progress::More
    }

    fn give(&mut self, input: &[u8], range: Range<usize>, give: &mut impl FnMut(Piece)) {
        if !range.is_empty() {
            self.survey.content(&input[range.clone()]);
            give(Piece::Input(range));
        }
    }

    /// What the content is like, as far as it has come.
    pub fn findings(&self) -> Findings {
        self.survey.findings()
    }
}

impl Default for MailDataScanner {
    fn default() -> Self {
        Self::new()
    }
}

fn place_behind(octets: &[u8]) -> Place {
    match octets {
        [.., b'\r', b'\n'] => Place::LineStart,
        [.., b'\r'] => Place::Cr,
        _ => Place::Text,
    }
}

#[cfg(test)]
#[path = "mail_data_test.rs"]
mod test;

#[cfg(test)]
#[path = "mail_data_model.rs"]
mod model;
