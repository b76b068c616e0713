//! What in a header section is read in more than one way, or shows its reader another author than it has.
//!
//! SPF, DKIM and DMARC prove a domain. Who wants to deceive has them prove his own, and readers see another: by a field that
//! programs read differently, by a name that looks like an address, or by letters that look like others. None of it proves
//! ill will, so that each is only noted here; docs/spoofing.md has the table.

use crate::{
    Author, Digest, Dkim, DkimResult, Reason,
    encoded::{hides_something, readable},
    fields::Field,
    lookalike,
    mailboxes::{Mailboxes, is_related},
};

/// What was noted of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tricks(u32);

/// A way to be read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trick {
    /// More than one `From` (RFC 5322 §3.6).
    SeveralFrom,
    /// More than one address in it.
    SeveralAddresses,
    /// A group in it (RFC 6854).
    Group,
    /// A route before the address (RFC 5322 §4.4).
    Route,
    /// It is not written as RFC 5322 §3.6.2 has it, or we read it in two ways.
    Syntax,
    /// The local-part has what looks like an address, or like the end of one.
    AddressInAddress,
    /// The name beside the address has an address of another domain in it.
    OtherAddress,
    /// It has characters that are not seen.
    HiddenInName,
    /// A label of the author's domain has letters of several scripts.
    MixedScripts,
    /// A label has letters of another script that look like Latin ones, all of them.
    Homograph,
    /// It is not the name that it is mapped to (RFC 5891), or has an A-label that stands for nothing.
    OddDomain,
    /// It looks like one that is known here, and is another.
    LooksLikeKnown,
    /// A field that may stand once stands twice (RFC 5322 §3.6, RFC 2045 §3).
    Repeated,
    /// `From`, `Date` or `Message-ID` is missing.
    Missing,
    /// A line is no field, or white space alone: some programs end the header section there.
    NoField,
    /// White space between the name of a field and its colon (RFC 5322 §4.5).
    SpaceBeforeColon,
    /// NULs, other control characters, or a CR or LF alone.
    ControlCharacter,
    /// `Subject` has characters that are not seen.
    HiddenInSubject,
    /// A field that readers show was added to what the author's domain has signed (RFC 6376 §8.15).
    Unsigned,
}

/// What a trick is about: each kind is treated as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrickKind {
    /// How `From` is written.
    Author,
    /// The name beside the author's address.
    Name,
    /// The author's domain.
    Domain,
    /// Other fields.
    Fields,
}

/// Fields that may stand once, and that readers or programs go by.
const ONCE: [&str; 12] = [
    "From",
    "Date",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Message-ID",
    "Subject",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
const FROM: usize = 0;
/// Those of them that have to be there, and `Message-ID` that should (RFC 5322 §3.6).
const NEEDED: [usize; 3] = [FROM, 1, 7];
/// Those of them that readers show, and that signatures are to cover (RFC 6376 §5.4.1).
const SHOWN: [usize; 5] = [1, 3, 4, 5, 8];
/// A longer value is not decoded: it would take its time.
const DECODED_MAX: usize = 16 << 10;

impl Tricks {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub const fn insert(&mut self, trick: Trick) {
        self.0 |= 1 << trick as u32;
    }

    /// Whether it is there.
    pub const fn contains(self, trick: Trick) -> bool {
        self.0 & (1 << trick as u32) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All that are there.
    pub fn iter(self) -> impl Iterator<Item = Trick> {
        Trick::ALL.into_iter().filter(move |trick| self.contains(*trick))
    }

    /// Whether one of this kind is there.
    pub fn has(self, kind: TrickKind) -> bool {
        self.iter().any(|trick| trick.kind() == kind)
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Trick {
    /// Each of them.
    pub const ALL: [Self; 19] = [
        Self::SeveralFrom,
        Self::SeveralAddresses,
        Self::Group,
        Self::Route,
        Self::Syntax,
        Self::AddressInAddress,
        Self::OtherAddress,
        Self::HiddenInName,
        Self::MixedScripts,
        Self::Homograph,
        Self::OddDomain,
        Self::LooksLikeKnown,
        Self::Repeated,
        Self::Missing,
        Self::NoField,
        Self::SpaceBeforeColon,
        Self::ControlCharacter,
        Self::HiddenInSubject,
        Self::Unsigned,
    ];

    /// What it is about.
    pub const fn kind(self) -> TrickKind {
        match self {
            Self::SeveralFrom
            | Self::SeveralAddresses
            | Self::Group
            | Self::Route
            | Self::Syntax
            | Self::AddressInAddress => TrickKind::Author,
            Self::OtherAddress | Self::HiddenInName => TrickKind::Name,
            Self::MixedScripts | Self::Homograph | Self::OddDomain | Self::LooksLikeKnown => {
                TrickKind::Domain
            }
            Self::Repeated
            | Self::Missing
            | Self::NoField
            | Self::SpaceBeforeColon
            | Self::ControlCharacter
            | Self::HiddenInSubject
            | Self::Unsigned => TrickKind::Fields,
        }
    }

    /// In messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SeveralFrom => "several From fields",
            Self::SeveralAddresses => "several addresses in From",
            Self::Group => "a group in From",
            Self::Route => "a route in From",
            Self::Syntax => "From is malformed",
            Self::AddressInAddress => "the local-part of From has an address in it",
            Self::OtherAddress => "the name in From has another address in it",
            Self::HiddenInName => "the name in From has hidden characters",
            Self::MixedScripts => "the domain in From has letters of several scripts",
            Self::Homograph => "the domain in From has letters that look like Latin ones",
            Self::OddDomain => "the domain in From is not written as it is looked up",
            Self::LooksLikeKnown => "the domain in From looks like one that is known here",
            Self::Repeated => "a field stands twice",
            Self::Missing => "From, Date or Message-ID is missing",
            Self::NoField => "a line is no field",
            Self::SpaceBeforeColon => "a space before a colon",
            Self::ControlCharacter => "control characters",
            Self::HiddenInSubject => "Subject has hidden characters",
            Self::Unsigned => "a field was added to what is signed",
        }
    }
}

/// What there is to note of a message, whose signatures say this.
pub(crate) fn tricks(digest: &Digest, dkim: &[Dkim]) -> Tricks {
    // Nothing is known of a header section that is too long.
    if digest.flaw() == Some(Reason::HeaderTooLong) {
        return Tricks::NONE;
    }
    let (header, fields) = (digest.header(), digest.fields());
    let (mut tricks, mut counts, mut octets) = (Tricks::NONE, [0_usize; ONCE.len()], 0);
    for field in fields {
        octets += field.range().len();
        let place = ONCE.iter().position(|name| field.is(header, name));
        if let Some(place) = place {
            counts[place] += 1;
        }
        if field.has_space_before_colon() {
            tricks.insert(Trick::SpaceBeforeColon);
        }
        if field.is(header, "Subject") && hides(field.value(header)) {
            tricks.insert(Trick::HiddenInSubject);
        }
        if place == Some(FROM) {
            tricks = tricks.and(of_author(field, header, digest.author()));
        }
    }
    let notes = [
        (Trick::SeveralFrom, counts[FROM] > 1),
        (Trick::Repeated, counts[FROM + 1..].iter().any(|count| *count > 1)),
        (Trick::Missing, NEEDED.iter().any(|place| counts[*place] == 0)),
        (Trick::NoField, octets < header.len() || has_blank_line(header)),
        (
            Trick::ControlCharacter,
            digest.flaw() == Some(Reason::BareLineEnd) || header.iter().any(is_control),
        ),
        (Trick::Unsigned, is_added_to(digest, dkim, &counts)),
    ];
    // We have read several authors where there is one.
    let is_one = counts[FROM] == 1 && !tricks.contains(Trick::SeveralAddresses);
    if *digest.author() == Author::Several && is_one {
        tricks.insert(Trick::Syntax);
    }
    notes.iter().filter(|(_, is)| *is).for_each(|(trick, _)| tricks.insert(*trick));
    tricks
}

fn of_author(field: &Field, header: &[u8], author: &Author) -> Tricks {
    let value = field.value(header);
    let mut tricks = Tricks::NONE;
    if value.len() > DECODED_MAX {
        tricks.insert(Trick::Syntax);
        return tricks;
    }
    let read = Mailboxes::read(value);
    tricks = read.tricks;
    if read.names.iter().any(|name| hides_something(name)) {
        tricks.insert(Trick::HiddenInName);
    }
    match (author, &read.domains[..]) {
        (Author::Domain(author), [domain]) => {
            if read.names_another_than(author.as_str()) {
                tricks.insert(Trick::OtherAddress);
            }
            // We judge by another reading, which has to be the same.
            if dns::Name::parse(domain).is_ok_and(|name| name != *author) {
                tricks.insert(Trick::Syntax);
            }
            tricks = tricks.and(lookalike::tricks(domain, author));
        }
        // What several are is said by their number.
        (Author::Several, _) | (Author::Domain(_), [_, _, ..]) => {}
        (Author::Missing, _) | (Author::Domain(_), []) => tricks.insert(Trick::Syntax),
    }
    tricks
}

/// Whether a line is white space alone: a continuation here (RFC 5322 §4.2), and the end of the header section elsewhere.
fn has_blank_line(header: &[u8]) -> bool {
    let mut continued = memchr::memmem::find_iter(header, b"\r\n").map(|end| &header[end + 2..]);
    continued.any(|line| {
        matches!(line, [b' ' | b'\t', ..]) && {
            let rest = line.iter().position(|octet| !matches!(octet, b' ' | b'\t'));
            rest.is_none_or(|at| line[at..].starts_with(b"\r\n"))
        }
    })
}

const fn is_control(octet: &u8) -> bool {
    octet.is_ascii_control() && !matches!(*octet, b'\t' | b'\r' | b'\n')
}

/// Whether decoding shows characters that are not seen.
fn hides(value: &[u8]) -> bool {
    if value.is_ascii() && memchr::memmem::find(value, b"=?").is_none() {
        // Raw control characters are looked for in all of the header section.
        return false;
    }
    let value = &value[..value.len().min(DECODED_MAX)];
    // A fold is no part of the text.
    let unfolded: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    hides_something(&readable(&unfolded))
}

/// Whether all signatures that stand by the author leave out a field that is there: one that was not among those signed, or
/// one more of it than there were.
fn is_added_to(digest: &Digest, dkim: &[Dkim], counts: &[usize; ONCE.len()]) -> bool {
    let Author::Domain(author) = digest.author() else { return false };
    let mut stands_by = dkim
        .iter()
        .zip(digest.signatures())
        .filter(|(dkim, _)| dkim.result == DkimResult::Pass && is_related(&dkim.domain, author.as_str()))
        .peekable();
    let covers_all = |signed: &[String]| {
        SHOWN.iter().all(|place| {
            let name = ONCE[*place];
            counts[*place] == 0
                || signed.iter().filter(|signed| signed.eq_ignore_ascii_case(name)).count() >= counts[*place]
        })
    };
    stands_by.peek().is_some() && !stands_by.any(|(_, field)| field.signed().is_some_and(covers_all))
}

#[cfg(test)]
#[path = "deception_test.rs"]
mod test;
