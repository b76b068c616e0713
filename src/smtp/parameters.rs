//! The parameters of MAIL and RCPT, each of which belongs to an extension (RFC 5321 §4.1.2).

use mail::{
    BodyType, DeliverByMode, DeliverByTrace, Handling, HoldFor, Notify, OriginalRecipient, Ret, Timestamp,
    TlsDemand, TransferPriority, Utf8,
};

use crate::{
    Extension, Extensions, SyntaxError,
    command::{parse_number, trim_start},
};

/// `*(SP esmtp-param)`, not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a>(&'a [u8]);

/// What the client said with MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Octets of the message, as the client estimates them (`SIZE=`, RFC 1870 §6).
    pub size: Option<u64>,
    /// What kind of octets (`BODY=`, RFC 6152, RFC 3030).
    pub body: BodyType,
    /// Whether it needs SMTPUTF8 (RFC 6531 §3.4).
    pub utf8: Utf8,
    /// How much a failure DSN returns (`RET=`, RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// The sender's id for the transaction (`ENVID=`, RFC 3461 §4.4).
    pub envelope_id: Option<Box<str>>,
    /// By when it is to be delivered (`BY=`, RFC 2852 §4).
    pub by: Option<By>,
    /// Before when it is not to be tried (`HOLDFOR=`, `HOLDUNTIL=`, RFC 4865 §3).
    pub hold: Option<Hold>,
    /// How urgent it is (`MT-PRIORITY=`, RFC 6710 §3).
    pub priority: TransferPriority,
    /// Whether every hop must have TLS (`REQUIRETLS`, RFC 8689 §4.1).
    pub tls: TlsDemand,
}

/// By when a message is to be delivered, counted from its MAIL (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Seconds from now; the time may be up already.
    pub seconds: i64,
    /// What happens when the time is up.
    pub mode: DeliverByMode,
    /// Whether the sender wants to hear of each hop.
    pub trace: DeliverByTrace,
}

/// Before when a message is not to be tried (RFC 4865 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// So long from now.
    For(HoldFor),
    /// Until then.
    Until(Timestamp),
}

/// What the client said with RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// When to tell the sender (`NOTIFY=`, RFC 3461 §4.1).
    pub notify: Notify,
    /// Who was meant at first (`ORCPT=`, RFC 3461 §4.2).
    pub original: Option<OriginalRecipient>,
}

// RFC 3461 §4.4, §4.2.
const ENVID_MAX: usize = 100;
const ORCPT_MAX: usize = 500;

impl By {
    /// Whether the sender is still to hear when the time is up (RFC 2852 §4.1.3, mode `N`).
    pub fn is_to_be_watched(self) -> bool {
        self.mode == DeliverByMode::Notify && self.seconds > 0
    }

    /// What is left of the time that a message has.
    pub fn left(handling: &Handling, now: Timestamp) -> Option<Self> {
        let by = handling.deliver_by?;
        Some(Self { seconds: by.seconds_left(now), mode: by.mode, trace: by.trace })
    }
}

impl<'a> Parameters<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads the parameters of MAIL that the offered extensions have.
    ///
    /// # Errors
    /// [`SyntaxError::ParameterUnknown`] for one that no offered extension has, [`SyntaxError::Parameter`] for
    /// one that is malformed or given twice.
    pub fn of_mail(self, offered: Extensions) -> Result<MailParameters, SyntaxError> {
        let mut read = MailParameters::default();
        let (mut size, mut body, mut utf8, mut ret, mut envid) = (None, None, None, None, None);
        let (mut by, mut hold, mut priority, mut tls) = (None, None, None, None);
        for parameter in self.iter() {
            let (keyword, value) = parameter?;
            let is = |name, extension| offered.contains(extension) && keyword.eq_ignore_ascii_case(name);
            if is("SIZE", Extension::Size) {
                once(&mut size, value.and_then(size_value))?;
            } else if is("BODY", Extension::EightBitMime) || is("BODY", Extension::BinaryMime) {
                once(&mut body, value.and_then(|value| body_value(value, offered)))?;
            } else if is("SMTPUTF8", Extension::SmtpUtf8) {
                once(&mut utf8, value.is_none().then_some(Utf8::Needed))?;
            } else if is("RET", Extension::Dsn) {
                once(&mut ret, value.and_then(ret_value))?;
            } else if is("ENVID", Extension::Dsn) {
                let value = value.filter(|value| value.len() <= ENVID_MAX);
                once(&mut envid, value.and_then(|value| xtext(value, Utf8::NotNeeded)))?;
            } else if is("BY", Extension::DeliverBy) {
                once(&mut by, value.and_then(by_value))?;
            } else if is("HOLDFOR", Extension::FutureRelease) {
                once(&mut hold, value.and_then(hold_for_value))?;
            } else if is("HOLDUNTIL", Extension::FutureRelease) {
                once(&mut hold, value.and_then(hold_until_value))?;
            } else if is("MT-PRIORITY", Extension::MtPriority) {
                once(&mut priority, value.and_then(priority_value))?;
            } else if is("REQUIRETLS", Extension::RequireTls) {
                once(&mut tls, value.is_none().then_some(TlsDemand::Required))?;
            } else {
                return Err(SyntaxError::ParameterUnknown);
            }
        }
        (read.size, read.ret, read.envelope_id) = (size, ret, envid);
        (read.by, read.hold) = (by, hold);
        read.priority = priority.unwrap_or_default();
        read.tls = tls.unwrap_or_default();
        read.body = body.unwrap_or_default();
        read.utf8 = utf8.unwrap_or_default();
        Ok(read)
    }

    /// Reads the parameters of RCPT that the offered extensions have.
    ///
    /// # Errors
    /// As [`Parameters::of_mail`].
    pub fn of_rcpt(self, offered: Extensions, utf8: Utf8) -> Result<RcptParameters, SyntaxError> {
        let (mut notify, mut original) = (None, None);
        for parameter in self.iter() {
            let (keyword, value) = parameter?;
            let is = |name| offered.contains(Extension::Dsn) && keyword.eq_ignore_ascii_case(name);
            if is("NOTIFY") {
                once(&mut notify, value.and_then(notify_value))?;
            } else if is("ORCPT") {
                once(&mut original, value.and_then(|value| orcpt_value(value, utf8)))?;
            } else {
                return Err(SyntaxError::ParameterUnknown);
            }
        }
        Ok(RcptParameters { notify: notify.unwrap_or_default(), original })
    }

    /// Keyword and value of each.
    fn iter(self) -> impl Iterator<Item = Result<(&'a str, Option<&'a str>), SyntaxError>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
            let (parameter, behind) = rest.split_at(end);
            rest = trim_start(behind);
            Some(part(parameter).ok_or(SyntaxError::Parameter))
        })
    }
}

/// `esmtp-keyword ["=" esmtp-value]` (RFC 5321 §4.1.2; RFC 6531 §3.3 lets UTF-8 into the value).
fn part(parameter: &[u8]) -> Option<(&str, Option<&str>)> {
    let parameter = simdutf8::basic::from_utf8(parameter).ok()?;
    let (keyword, value) = match parameter.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (parameter, None),
    };
    let keyword_valid = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let value_valid =
        value.is_none_or(|v| !v.is_empty() && v.bytes().all(|b| b != b'=' && matches!(b, 33..=126 | 128..)));
    (keyword_valid && value_valid).then_some((keyword, value))
}

/// Keeps a value that is well-formed and the first of its kind.
fn once<T>(place: &mut Option<T>, value: Option<T>) -> Result<(), SyntaxError> {
    match (&place, value) {
        (None, Some(value)) => {
            *place = Some(value);
            Ok(())
        }
        (Some(_), _) | (_, None) => Err(SyntaxError::Parameter),
    }
}

/// `1*20DIGIT` (RFC 1870 §6): what does not fit 64 bits is as good as the largest number that does.
fn size_value(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| parse_number(value.as_bytes()).unwrap_or(u64::MAX))
}

fn body_value(value: &str, offered: Extensions) -> Option<BodyType> {
    if value.eq_ignore_ascii_case("7BIT") {
        Some(BodyType::SevenBit)
    } else if value.eq_ignore_ascii_case("8BITMIME") && offered.contains(Extension::EightBitMime) {
        Some(BodyType::EightBitMime)
    } else if value.eq_ignore_ascii_case("BINARYMIME") && offered.contains(Extension::BinaryMime) {
        Some(BodyType::BinaryMime)
    } else {
        None
    }
}

/// `by-time ";" by-mode [by-trace]` (RFC 2852 §4). Mode `R` needs a time that is not up.
fn by_value(value: &str) -> Option<By> {
    const DIGITS_MAX: usize = 9;
    let (time, mode) = value.split_once(';')?;
    let digits = time.strip_prefix(['+', '-']).unwrap_or(time);
    let number = parse_number(digits.as_bytes()).filter(|_| digits.len() <= DIGITS_MAX)?;
    let number = i64::try_from(number).ok()?;
    let seconds = if time.starts_with('-') { -number } else { number };
    let mut letters = mode.bytes().map(|letter| letter.to_ascii_uppercase());
    let mode = match letters.next()? {
        b'R' if seconds > 0 => DeliverByMode::Return,
        b'N' => DeliverByMode::Notify,
        _ => return None,
    };
    let trace = match letters.next() {
        None => DeliverByTrace::No,
        Some(b'T') => DeliverByTrace::Yes,
        Some(_) => return None,
    };
    letters.next().is_none().then_some(By { seconds, mode, trace })
}

/// `future-release-integer`: at most nine digits, the first of them no zero (RFC 4865 §3).
fn hold_for_value(value: &str) -> Option<Hold> {
    const DIGITS_MAX: usize = 9;
    let sound = value.len() <= DIGITS_MAX && !value.starts_with('0');
    let seconds = parse_number(value.as_bytes()).filter(|_| sound)?;
    u32::try_from(seconds).ok().map(|seconds| Hold::For(HoldFor(seconds)))
}

/// `future-release-date-time`: "normalized to UTC" (RFC 4865 §3).
fn hold_until_value(value: &str) -> Option<Hold> {
    let normal = value.ends_with(['Z', 'z']);
    Timestamp::from_rfc3339(value).filter(|_| normal).map(Hold::Until)
}

/// `priority-value`: -9 to 9, without a zero in front (RFC 6710 §7).
fn priority_value(value: &str) -> Option<TransferPriority> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let sound = digits.len() == 1 && digits.as_bytes()[0].is_ascii_digit() && value != "-0";
    let number = value.parse().ok().filter(|_| sound)?;
    TransferPriority::new(number)
}

fn ret_value(value: &str) -> Option<Ret> {
    if value.eq_ignore_ascii_case("FULL") {
        Some(Ret::Full)
    } else if value.eq_ignore_ascii_case("HDRS") {
        Some(Ret::Headers)
    } else {
        None
    }
}

/// `NEVER`, or a list of the others (RFC 3461 §4.1).
fn notify_value(value: &str) -> Option<Notify> {
    let mut notify = Notify::NEVER;
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(notify);
    }
    for item in value.split(',') {
        if item.eq_ignore_ascii_case("SUCCESS") {
            notify.success = true;
        } else if item.eq_ignore_ascii_case("FAILURE") {
            notify.failure = true;
        } else if item.eq_ignore_ascii_case("DELAY") {
            notify.delay = true;
        } else {
            return None;
        }
    }
    Some(notify)
}

/// `address-type ";" xtext` (RFC 3461 §4.2; RFC 6533 §3 for `utf-8`).
fn orcpt_value(value: &str, utf8: Utf8) -> Option<OriginalRecipient> {
    let (address_type, address) = value.split_once(';').filter(|_| value.len() <= ORCPT_MAX)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/?^_`{|}~".contains(&b);
    if address_type.is_empty() || address.is_empty() || !address_type.bytes().all(atom) {
        return None;
    }
    let decode = if address_type.eq_ignore_ascii_case("utf-8") { utf8_address } else { xtext };
    Some(OriginalRecipient { address_type: address_type.into(), address: decode(address, utf8)? })
}

/// Decodes xtext (RFC 3461 §4). A control character is refused: the text will stand in a DSN's field.
pub(crate) fn xtext(text: &str, utf8: Utf8) -> Option<Box<str>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => match hex(bytes.next()?)? << 4 | hex(bytes.next()?)? {
                plain @ 32..=126 => plain,
                _ => return None,
            },
            33..=126 => byte,
            128.. if utf8 == Utf8::Needed => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok().map(Into::into)
}

/// Decodes utf-8-addr-xtext and, where UTF-8 may stand, utf-8-addr-unitext (RFC 6533 §3): `\x{HEXPOINT}`.
fn utf8_address(text: &str, utf8: Utf8) -> Option<Box<str>> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        decoded.push(match c {
            '\\' => {
                let (digits, behind) = rest.strip_prefix("x{")?.split_once('}')?;
                let capital = |digit: u8| hex(digit).is_some();
                let sound = (2..=6).contains(&digits.len()) && digits.bytes().all(capital);
                rest = behind;
                let point = u32::from_str_radix(digits, 16).ok().filter(|_| sound)?;
                char::from_u32(point).filter(|c| !c.is_control())?
            }
            // Some clients write the plain xtext of RFC 3461 here.
            '+' => return xtext(text, utf8),
            '!'..='~' => c,
            c if utf8 == Utf8::Needed && !c.is_ascii() => c,
            _ => return None,
        });
    }
    Some(decoded.into())
}

/// `hexchar` has capital letters only (RFC 3461 §4).
const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
