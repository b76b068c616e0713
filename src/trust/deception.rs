//! What in a header section is read in more than one way, or shows its reader another author than it has.
//!
//! SPF, DKIM and DMARC prove a domain. Who wants to deceive has them prove his own, and readers see another: by a field that
//! programs read differently, by a name that looks like an address, or by letters that look like others. None of it proves
//! ill will, so that each is only noted here; docs/spoofing.md has the table.

use crate::{
    Author, Digest, Dkim, DkimResult, Reason,
    encoded::{has_no_width, hides_something, readable},
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
    /// There is no `From` (RFC 5322 §3.6).
    NoFrom,
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
    /// A field that readers or programs go by, and that may stand once, says two things (RFC 5322 §3.6, RFC 2045 §3).
    Repeated,
    /// A line is no field, or white space alone: some programs end the header section there.
    NoField,
    /// White space between the name of a field and its colon (RFC 5322 §4.5).
    SpaceBeforeColon,
    /// NULs, other control characters, or a CR or LF alone.
    ControlCharacter,
    /// `Subject` has characters that are not seen, and change what is.
    HiddenInSubject,
    /// A field that readers show stands once more than when the author's domain has signed it (RFC 6376 §8.15).
    Added,
    /// The name beside the author's address has a comma, and no quotes (RFC 5322 §3.2.5).
    UnquotedName,
    /// A field that may stand once stands twice and says the same, or is one by which nobody goes.
    RepeatedAlike,
    /// `Date` or `Message-ID` is missing.
    Missing,
    /// `Subject` has characters of no width.
    NoWidthInSubject,
    /// The author's domain has signed, and left out a field that readers show: it may have been added (RFC 6376 §8.15).
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
    /// What is not as it should be, and as honest senders write it, too: it shows nobody another author.
    Irregular,
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
const SUBJECT: usize = 8;
/// Those of them that have to be there, and `Message-ID` that should (RFC 5322 §3.6). Small devices have neither.
const NEEDED: [usize; 2] = [1, 7];
/// Those of them that readers show, and that signatures are to cover (RFC 6376 §5.4.1).
const SHOWN: [usize; 5] = [1, 3, 4, 5, SUBJECT];
/// Those of them by which readers and programs go: when, who else, what about, and how a body is read. Scripts that send mail
/// repeat the others.
const DECIDING: [usize; 6] = [1, 2, 3, SUBJECT, 10, 11];
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

impl TrickKind {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Author, Self::Name, Self::Domain, Self::Fields, Self::Irregular];
}

impl Trick {
    /// Each of them.
    pub const ALL: [Self; 24] = [
        Self::NoFrom,
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
        Self::NoField,
        Self::SpaceBeforeColon,
        Self::ControlCharacter,
        Self::HiddenInSubject,
        Self::Added,
        Self::UnquotedName,
        Self::RepeatedAlike,
        Self::Missing,
        Self::NoWidthInSubject,
        Self::Unsigned,
    ];

    /// What it is about.
    pub const fn kind(self) -> TrickKind {
        match self {
            Self::NoFrom
            | Self::SeveralFrom
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
            | Self::NoField
            | Self::SpaceBeforeColon
            | Self::ControlCharacter
            | Self::HiddenInSubject
            | Self::Added => TrickKind::Fields,
            Self::UnquotedName
            | Self::RepeatedAlike
            | Self::Missing
            | Self::NoWidthInSubject
            | Self::Unsigned => TrickKind::Irregular,
        }
    }

    /// In messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoFrom => "From is missing",
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
            Self::Repeated => "a field stands twice and says two things",
            Self::NoField => "a line is no field",
            Self::SpaceBeforeColon => "a space before a colon",
            Self::ControlCharacter => "control characters",
            Self::HiddenInSubject => "Subject has hidden characters",
            Self::Added => "a field was added to what is signed",
            Self::UnquotedName => "the name in From has a comma without quotes",
            Self::RepeatedAlike => "a field stands twice",
            Self::Missing => "Date or Message-ID is missing",
            Self::NoWidthInSubject => "Subject has characters of no width",
            Self::Unsigned => "a field that is shown is not signed",
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
    let (mut tricks, mut octets) = (Tricks::NONE, 0);
    let (mut counts, mut firsts) = ([0_usize; ONCE.len()], [None; ONCE.len()]);
    for field in fields {
        octets += field.range().len();
        if field.has_space_before_colon() {
            tricks.insert(Trick::SpaceBeforeColon);
        }
        let Some(place) = ONCE.iter().position(|name| field.is(header, name)) else { continue };
        counts[place] += 1;
        let value = field.value(header);
        match firsts[place] {
            None => firsts[place] = Some(value),
            Some(_) if place == FROM => tricks.insert(Trick::SeveralFrom),
            Some(first) if DECIDING.contains(&place) && !says_the_same(first, value) => {
                tricks.insert(Trick::Repeated);
            }
            Some(_) => tricks.insert(Trick::RepeatedAlike),
        }
        if place == SUBJECT {
            tricks = tricks.and(of_subject(value));
        }
        if place == FROM {
            tricks = tricks.and(of_author(field, header, digest.author()));
        }
    }
    let notes = [
        (Trick::NoFrom, counts[FROM] == 0),
        (Trick::Missing, NEEDED.iter().any(|place| counts[*place] == 0)),
        (Trick::NoField, octets < header.len() || has_blank_line(header)),
        (Trick::ControlCharacter, digest.flaw() == Some(Reason::BareLineEnd) || has_control(header)),
    ];
    tricks = tricks.and(of_signed(digest, dkim, &counts));
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
    if read.names.iter().any(|name| hides_something(name) || has_no_width(name)) {
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

/// Whether there is a control character that no line needs. All octets are looked at, many by one instruction.
fn has_control(header: &[u8]) -> bool {
    header.iter().fold(false, |found, octet| {
        found | (octet.is_ascii_control() & !matches!(*octet, b'\t' | b'\r' | b'\n'))
    })
}

/// Whether two values are the same, however they are folded.
fn says_the_same(one: &[u8], other: &[u8]) -> bool {
    let text = |value: &[u8]| -> Vec<u8> {
        value.iter().copied().filter(|octet| !matches!(octet, b' ' | b'\t' | b'\r' | b'\n')).collect()
    };
    text(one) == text(other)
}

/// What decoding shows that is not seen.
fn of_subject(value: &[u8]) -> Tricks {
    let mut tricks = Tricks::NONE;
    if value.is_ascii() && memchr::memmem::find(value, b"=?").is_none() {
        // Raw control characters are looked for in all of the header section.
        return tricks;
    }
    let value = &value[..value.len().min(DECODED_MAX)];
    // A fold is no part of the text.
    let unfolded: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let text = readable(&unfolded);
    if hides_something(&text) {
        tricks.insert(Trick::HiddenInSubject);
    }
    if has_no_width(&text) {
        tricks.insert(Trick::NoWidthInSubject);
    }
    tricks
}

/// Whether each signature that stands by the author leaves out a field that readers show: one more of it than there were, which has been
/// added since; or one that it does not name, and of which nobody knows. Many sign no To, Cc and Reply-To at all.
fn of_signed(digest: &Digest, dkim: &[Dkim], counts: &[usize; ONCE.len()]) -> Tricks {
    let mut tricks = Tricks::NONE;
    let Author::Domain(author) = digest.author() else { return tricks };
    let stands_by = dkim
        .iter()
        .zip(digest.signatures())
        .filter(|(dkim, _)| dkim.result == DkimResult::Pass && is_related(&dkim.domain, author.as_str()));
    let (mut is_signed, mut all_added, mut all_left_out) = (false, true, true);
    for signed in stands_by.filter_map(|(_, field)| field.signed()) {
        let times = |place: &usize| {
            let named = signed.iter().filter(|signed| signed.eq_ignore_ascii_case(ONCE[*place])).count();
            (named, counts[*place])
        };
        is_signed = true;
        all_added &= SHOWN.iter().map(times).any(|(named, there)| named > 0 && there > named);
        all_left_out &= SHOWN.iter().map(times).any(|(named, there)| there > named);
    }
    match (is_signed, all_added, all_left_out) {
        (true, true, _) => tricks.insert(Trick::Added),
        (true, false, true) => tricks.insert(Trick::Unsigned),
        _ => {}
    }
    tricks
}

#[cfg(test)]
#[path = "deception_test.rs"]
mod test;
