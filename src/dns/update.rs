//! Changes of a zone (RFC 2136), signed with a secret that both sides have (TSIG, RFC 8945).
//!
//! Messages are written and read here, octet by octet: the signature is over them as they stand, and hickory-proto knows TSIG only
//! together with its DNSSEC, which would have every answer of a stranger read by more code.
//!
//! One text at one name is all that is changed. What is done twice has the effect of being done once.

use std::fmt;

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

use crate::Name;

/// What is to become of the texts (TXT) at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// This text, where there is none.
    Add {
        /// What.
        text: &'a str,
        /// How long others may remember it, in seconds.
        ttl: u32,
    },
    /// The second text in the place of the first, where there is the first and no other.
    Replace {
        /// What is there.
        old: &'a str,
        /// What is to be there.
        new: &'a str,
        /// How long others may remember it, in seconds.
        ttl: u32,
    },
    /// None of these texts. Others stay.
    Remove(&'a [&'a str]),
}

/// The hash of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
}

/// A secret that a server knows too.
#[derive(Clone)]
pub struct TsigKey {
    name: Name,
    algorithm: TsigAlgorithm,
    key: hmac::Key,
}

/// An update on its way.
#[derive(Clone, Debug)]
pub struct Update {
    /// The message; over TCP its length goes before it.
    pub bytes: Vec<u8>,
    id: u16,
    /// What the answer is signed over as well.
    mac: Option<Vec<u8>>,
}

/// What the server has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// What was asked for, or it was so before.
    Done,
    /// Nothing: there is something else than was to be there.
    OtherThere,
}

/// Why nothing is known to have been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The server said no.
    #[error("the server says {0}")]
    Refused(Box<str>),
    /// Not an answer to this update.
    #[error("the server answered with something else")]
    Foreign,
    /// It is not signed, or not by who knows the secret.
    #[error("the answer is not signed by the server")]
    Unsigned,
    /// A text of more than 65,535 octets.
    #[error("the record is too long")]
    TooLong,
}

const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
const TYPE_TSIG: u16 = 250;
const CLASS_IN: u16 = 1;
const CLASS_NONE: u16 = 254;
const CLASS_ANY: u16 = 255;
/// An update (RFC 2136 §1.3), as it stands in the flags.
const OPCODE_UPDATE: u16 = 5 << 11;
const RESPONSE: u16 = 1 << 15;
const HEADER: usize = 12;
/// By how many seconds the clocks of both sides may differ, "a value of 300 is recommended" (RFC 8945 §10).
const FUDGE: u16 = 300;
/// Labels and pointers of one name: more are a circle.
const LABELS_MAX: usize = 128;

impl TsigAlgorithm {
    /// Its name as it stands in a message.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }

    const fn hash(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

impl TsigKey {
    /// A secret by the name that the server has for it.
    pub fn new(name: Name, algorithm: TsigAlgorithm, secret: &[u8]) -> Self {
        Self { name, algorithm, key: hmac::Key::new(algorithm.hash(), secret) }
    }

    /// What is signed beside the message (RFC 8945 §4.3.3).
    fn sign(&self, before: Option<&[u8]>, message: &[u8], stamp: &Stamp<'_>) -> hmac::Context {
        let mut signing = hmac::Context::with_key(&self.key);
        if let Some(mac) = before {
            signing.update(&u16::try_from(mac.len()).unwrap_or(u16::MAX).to_be_bytes());
            signing.update(mac);
        }
        signing.update(message);
        let mut variables = Vec::with_capacity(128);
        put_name(&mut variables, self.name.as_str());
        put(&mut variables, CLASS_ANY);
        variables.extend_from_slice(&[0; 4]);
        put_name(&mut variables, self.algorithm.as_str());
        stamp.put(&mut variables);
        put(&mut variables, stamp.error);
        put_data(&mut variables, stamp.other);
        signing.update(&variables);
        signing
    }
}

/// When something was signed, and what is said with it.
struct Stamp<'a> {
    secs: u64,
    fudge: u16,
    error: u16,
    other: &'a [u8],
}

impl Stamp<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.secs.to_be_bytes()[2..]);
        put(out, self.fudge);
    }
}

impl Update {
    /// A change of the texts at a name of a zone. `id` is a random number, `now` seconds since 1970.
    ///
    /// # Errors
    /// [`UpdateError::TooLong`].
    pub fn new(
        zone: &Name,
        name: &Name,
        change: Change<'_>,
        key: Option<&TsigKey>,
        (id, now): (u16, u64),
    ) -> Result<Self, UpdateError> {
        let (mut prerequisites, mut updates) = (Section::default(), Section::default());
        match change {
            Change::Add { text, ttl } => {
                // "RRset Does Not Exist" (RFC 2136 §2.4.3).
                prerequisites.record(name, CLASS_NONE, 0, &[]);
                updates.record(name, CLASS_IN, ttl, &rdata(text)?);
            }
            Change::Replace { old, new, ttl } => {
                // "RRset Exists (Value Dependent)" (RFC 2136 §2.4.2), and "Delete An RR From An RRset" (§2.5.4).
                prerequisites.record(name, CLASS_IN, 0, &rdata(old)?);
                updates.record(name, CLASS_NONE, 0, &rdata(old)?);
                updates.record(name, CLASS_IN, ttl, &rdata(new)?);
            }
            Change::Remove(texts) => {
                for text in texts {
                    updates.record(name, CLASS_NONE, 0, &rdata(text)?);
                }
            }
        }
        let mut bytes = Vec::with_capacity(2_048);
        for number in [id, OPCODE_UPDATE, 1, prerequisites.count, updates.count, 0] {
            put(&mut bytes, number);
        }
        put_name(&mut bytes, zone.as_str());
        put(&mut bytes, TYPE_SOA);
        put(&mut bytes, CLASS_IN);
        bytes.append(&mut prerequisites.bytes);
        bytes.append(&mut updates.bytes);
        let Some(key) = key else { return Ok(Self { bytes, id, mac: None }) };
        let stamp = Stamp { secs: now, fudge: FUDGE, error: 0, other: &[] };
        let mac = key.sign(None, &bytes, &stamp).sign().as_ref().to_vec();
        append_tsig(&mut bytes, key, &stamp, &mac, id);
        Ok(Self { bytes, id, mac: Some(mac) })
    }

    /// What the server has answered. With a key, only what is signed with it is believed; an error may come without.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn on_answer(&self, answer: &[u8], key: Option<&TsigKey>, now: u64) -> Result<Updated, UpdateError> {
        let message = Message::read(answer).ok_or(UpdateError::Foreign)?;
        const OPCODE: u16 = 0xf << 11;
        if message.id != self.id || message.flags & (RESPONSE | OPCODE) != RESPONSE | OPCODE_UPDATE {
            return Err(UpdateError::Foreign);
        }
        let code = message.flags & 0xf;
        let tsig = message.tsig.as_ref();
        if let (Some(key), Some(mac)) = (key, &self.mac) {
            let signed = tsig.is_some_and(|tsig| tsig.is_good(key, mac, &message, now));
            if !signed {
                let why = tsig.filter(|tsig| tsig.stamp.error != 0).map(|tsig| code_text(tsig.stamp.error));
                return Err(match (code, why) {
                    // A server that does not know the secret cannot sign. Whoever can write this can as well not let anything through.
                    (1.., Some(why)) => UpdateError::Refused(format!("{}: {why}", code_text(code)).into()),
                    (1.., None) => UpdateError::Refused(code_text(code)),
                    (0, _) => UpdateError::Unsigned,
                });
            }
        }
        match code {
            0 => Ok(Updated::Done),
            // YXDOMAIN, YXRRSET, NXRRSET: a prerequisite did not hold.
            6..=8 => Ok(Updated::OtherThere),
            _ => Err(UpdateError::Refused(code_text(code))),
        }
    }
}

impl fmt::Debug for TsigKey {
    /// Tells nothing of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TsigKey").field(&self.name).field(&self.algorithm).finish()
    }
}

/// Records of one section.
#[derive(Default)]
struct Section {
    bytes: Vec<u8>,
    count: u16,
}

impl Section {
    fn record(&mut self, name: &Name, class: u16, ttl: u32, data: &[u8]) {
        put_name(&mut self.bytes, name.as_str());
        put(&mut self.bytes, TYPE_TXT);
        put(&mut self.bytes, class);
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        put_data(&mut self.bytes, data);
        self.count += 1;
    }
}

/// A text in strings of 255 octets at most.
fn rdata(text: &str) -> Result<Vec<u8>, UpdateError> {
    const STRING_MAX: usize = 255;
    let mut data = Vec::with_capacity(text.len() + text.len() / STRING_MAX + 1);
    for string in text.as_bytes().chunks(STRING_MAX) {
        data.push(u8::try_from(string.len()).expect("a chunk is no longer"));
        data.extend_from_slice(string);
    }
    if u16::try_from(data.len()).is_err() { Err(UpdateError::TooLong) } else { Ok(data) }
}

fn append_tsig(bytes: &mut Vec<u8>, key: &TsigKey, stamp: &Stamp<'_>, mac: &[u8], id: u16) {
    put_name(bytes, key.name.as_str());
    put(bytes, TYPE_TSIG);
    put(bytes, CLASS_ANY);
    bytes.extend_from_slice(&[0; 4]);
    let mut data = Vec::with_capacity(128);
    put_name(&mut data, key.algorithm.as_str());
    stamp.put(&mut data);
    put_data(&mut data, mac);
    put(&mut data, id);
    put(&mut data, stamp.error);
    put_data(&mut data, stamp.other);
    put_data(bytes, &data);
    // One more of the additional records.
    let count = u16::from_be_bytes([bytes[10], bytes[11]]) + 1;
    bytes[10..HEADER].copy_from_slice(&count.to_be_bytes());
}

fn put(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// With its length before it.
fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    put(out, u16::try_from(data.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(data);
}

/// A name whose labels were checked, without compression.
fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

/// An answer, as far as it matters.
struct Message<'a> {
    id: u16,
    flags: u16,
    tsig: Option<Tsig<'a>>,
    /// What a signature is over: the message without it, and without the id that a forwarder may have changed.
    unsigned: Vec<u8>,
}

struct Tsig<'a> {
    name: String,
    algorithm: String,
    stamp: Stamp<'a>,
    mac: &'a [u8],
    id: u16,
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.number()?, reader.number()?);
        let counts = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
        for _ in 0..counts[0] {
            reader.name()?;
            reader.take(4)?;
        }
        let records = counts[1..].iter().map(|count| u32::from(*count)).sum::<u32>();
        let (mut tsig, mut end) = (None, bytes.len());
        for place in 0..records {
            let start = reader.at;
            let name = reader.name()?;
            let kind = reader.number()?;
            let class_and_ttl = reader.take(6)?;
            let length = reader.number()?;
            let data_at = reader.at;
            reader.take(length.into())?;
            // "The TSIG RR [...] MUST be the last" (RFC 8945 §5.1).
            if kind == TYPE_TSIG && place + 1 == records && counts[3] > 0 {
                // "CLASS: This MUST be ANY. TTL: This MUST be 0" (RFC 8945 §4.2): the signature is over that.
                if class_and_ttl != [0, 255, 0, 0, 0, 0] {
                    return None;
                }
                // Names in it may lead back into the message.
                let data = Reader { bytes: &bytes[..reader.at], at: data_at };
                (tsig, end) = (Some(Tsig::read(name, data)?), start);
            }
        }
        let mut unsigned = bytes[..end].to_vec();
        if let Some(tsig) = &tsig {
            unsigned[..2].copy_from_slice(&tsig.id.to_be_bytes());
            unsigned[10..HEADER].copy_from_slice(&(counts[3] - 1).to_be_bytes());
        }
        Some(Self { id, flags, tsig, unsigned })
    }
}

impl<'a> Tsig<'a> {
    fn read(name: String, mut reader: Reader<'a>) -> Option<Self> {
        let algorithm = reader.name()?;
        let time = reader.take(6)?;
        let secs = time.iter().fold(0, |secs, octet| secs << 8 | u64::from(*octet));
        let fudge = reader.number()?;
        let mac = reader.data()?;
        let (id, error, other) = (reader.number()?, reader.number()?, reader.data()?);
        Some(Self { name, algorithm, stamp: Stamp { secs, fudge, error, other }, mac, id })
    }

    fn is_good(&self, key: &TsigKey, before: &[u8], message: &Message<'_>, now: u64) -> bool {
        let expected = key.sign(Some(before), &message.unsigned, &self.stamp).sign();
        self.name == key.name.as_str()
            && self.algorithm == key.algorithm.as_str()
            // Not cut short (RFC 8945 §5.2.2.1 lets it be).
            && verify_slices_are_equal(expected.as_ref(), self.mac).is_ok()
            && self.stamp.secs.abs_diff(now) <= u64::from(self.stamp.fudge)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn data(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }

    /// In lower case, without the final dot.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut at, mut end) = (String::new(), self.at, None);
        for _ in 0..LABELS_MAX {
            let length = *self.bytes.get(at)?;
            match length {
                0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Some(name);
                }
                1..=63 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|octet| char::from(octet.to_ascii_lowercase())));
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.bytes.get(at + 1)?;
                    end = end.or(Some(at + 2));
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                64..=0xbf => return None,
            }
        }
        None
    }
}

/// What a code means (RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 8945 §3).
fn code_text(code: u16) -> Box<str> {
    match code {
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        6 => "YXDOMAIN".into(),
        7 => "YXRRSET".into(),
        8 => "NXRRSET".into(),
        9 => "NOTAUTH".into(),
        10 => "NOTZONE".into(),
        16 => "BADSIG".into(),
        17 => "BADKEY".into(),
        18 => "BADTIME: the clocks differ".into(),
        22 => "BADTRUNC".into(),
        code => format!("code {code}").into(),
    }
}

#[cfg(test)]
#[path = "update_test.rs"]
mod test;
