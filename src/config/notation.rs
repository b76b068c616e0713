//! How values are written: each notation reads a TOML value, writes it again, and names what it expects.

use std::{
    fmt::Write as _,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use mail::{Address, Domain, Span};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    CoreCount, DomainPattern, FileMode, Fingerprint, Hop, Host, KeyHash, ListenAddress, Output, Problem,
    Secret, SenderPattern,
    parse::{size_from_text, size_meant, size_text, span_from_text, span_meant},
    reader::{Reader, distance},
    schema::{Entry, Key, Section, Shape, Takes, below},
};

/// Reads and writes a `T`.
pub(crate) trait Notation<T: Clone + PartialEq> {
    /// The value, or `None` with the mistake told to the reader.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<T>;

    /// As TOML.
    fn write(value: &T) -> String;

    /// What is expected, for the reference: `size, 4KiB to 1GiB`.
    fn kind() -> String;

    /// Takes in what the file says; a mistake leaves the target as it was.
    fn apply(target: &mut T, value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) {
        if let Some(value) = Self::read(value, reader) {
            *target = value;
        }
    }

    /// Shows every path in it.
    fn each_path(_: &mut T, _: &mut dyn FnMut(&mut PathBuf)) {}

    /// Keeps what was there `before` where a change takes a restart; a difference is told.
    fn keep(value: &mut T, before: &T, takes: Takes, path: &str, pending: &mut Vec<String>) {
        if takes == Takes::Restart && value != before {
            value.clone_from(before);
            pending.push(path.to_owned());
        }
    }

    /// The words that may stand here, when there are only some.
    fn choices() -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// For the example file and the reference.
    fn shape(current: &T, default: &T) -> Shape {
        Shape::Value {
            kind: Self::kind(),
            choices: Self::choices(),
            default: Self::write(default),
            current: Self::write(current),
        }
    }
}

/// An enum written as one of some words.
pub(crate) trait Words: Copy + PartialEq + 'static {
    /// The words, and what they mean.
    const WORDS: &'static [(&'static str, &'static str)];
    /// The values, in the same order.
    const VALUES: &'static [Self];
}

/// A whole number between two bounds, both allowed.
pub(crate) struct Whole<const MIN: u64, const MAX: u64>;

/// A number of bytes between two bounds: `"25MiB"`.
pub(crate) struct Size<const MIN: u64, const MAX: u64>;

/// A length of time between two bounds in milliseconds: `"30s"`.
pub(crate) struct Time<const MIN: u64, const MAX: u64>;

/// `true` or `false`.
pub(crate) struct YesNo;

/// One of some words.
pub(crate) struct Word;

/// A number of cores, or `"all"`.
pub(crate) struct CoresOrAll;

/// Any text of one line.
pub(crate) struct Text;

/// A text; empty when there is none.
pub(crate) struct Maybe<N>(PhantomData<N>);

/// Something with a text of its own: domains, addresses, networks.
pub(crate) struct Literal;

/// A path; when relative, from the folder of the configuration file.
pub(crate) struct FilePath;

/// A list.
pub(crate) struct List<N>(PhantomData<N>);

/// A table of names and their values.
pub(crate) struct Names<N>(PhantomData<N>);

/// A section of its own.
pub(crate) struct Table;

/// An array of tables, each with a name.
pub(crate) struct Entries;

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    fn number(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<u64> {
        let inside = digits(value, u64::from_str_radix).filter(|number| (MIN..=MAX).contains(number));
        if inside.is_none() {
            let remedy = match value.get_ref() {
                DeValue::String(_) => "write the number without quotes".into(),
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => String::new(),
            };
            reader.wrong(value, Self::expected(), remedy);
        }
        inside
    }

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

/// A whole number, as `read` reads its digits; none when the value is something else, or too large.
pub(crate) fn digits<T, E>(
    value: &Spanned<DeValue<'_>>,
    read: impl Fn(&str, u32) -> Result<T, E>,
) -> Option<T> {
    match value.get_ref() {
        DeValue::Integer(number) => read(number.as_str(), number.radix()).ok(),
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

macro_rules! whole {
    ($($type:ty),+) => { $(
        impl<const MIN: u64, const MAX: u64> Notation<$type> for Whole<MIN, MAX> {
            fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<$type> {
                const { assert!(MAX <= <$type>::MAX as u64, "the bound does not fit the type") };
                Self::number(value, reader).and_then(|number| <$type>::try_from(number).ok())
            }

            fn write(value: &$type) -> String {
                value.to_string()
            }

            fn kind() -> String {
                format!("whole number, {MIN} to {MAX}")
            }
        }
    )+ };
}

whole!(u8, u16, u32, u64, usize);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    fn bytes(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<u64> {
        let expected = || {
            format!(
                "a size from {} to {}, such as \"{}\"",
                size_text(MIN),
                size_text(MAX),
                size_text(sample(MIN, MAX))
            )
        };
        let Some(text) = as_text(value) else {
            let remedy =
                bare_number(value).map_or(String::new(), |n| format!("write \"{n}B\" or \"{n}KiB\""));
            reader.wrong(value, expected(), remedy);
            return None;
        };
        match size_from_text(text) {
            Ok(bytes) if (MIN..=MAX).contains(&bytes) => Some(bytes),
            Ok(_) => {
                reader.wrong(value, expected(), String::new());
                None
            }
            Err(error) => {
                reader.wrong(value, expected(), remedy(size_meant(text), &error));
                None
            }
        }
    }
}

/// What was probably meant, and the rule.
fn remedy(meant: Option<String>, error: &impl std::fmt::Display) -> String {
    meant.map_or_else(|| error.to_string(), |meant| format!("write \"{meant}\"; {error}"))
}

/// A size between the bounds that reads well in a message.
const fn sample(min: u64, max: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    if min <= MIB && MIB <= max { MIB } else { min }
}

macro_rules! size {
    ($($type:ty),+) => { $(
        impl<const MIN: u64, const MAX: u64> Notation<$type> for Size<MIN, MAX> {
            fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<$type> {
                Self::bytes(value, reader).and_then(|bytes| <$type>::try_from(bytes).ok())
            }

            fn write(value: &$type) -> String {
                format!("\"{}\"", size_text(*value as u64))
            }

            fn kind() -> String {
                format!("size, {} to {}", size_text(MIN), size_text(MAX))
            }
        }
    )+ };
}

size!(u64, usize);

impl<const MIN: u64, const MAX: u64> Notation<Duration> for Time<MIN, MAX> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Duration> {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let expected = || format!("a length of time from {} to {}, such as \"30s\"", Span(min), Span(max));
        let Some(text) = as_text(value) else {
            let remedy = bare_number(value).map_or(String::new(), |n| format!("write \"{n}s\" for seconds"));
            reader.wrong(value, expected(), remedy);
            return None;
        };
        match span_from_text(text) {
            Ok(span) if (min..=max).contains(&span) => Some(span),
            Ok(_) => {
                reader.wrong(value, expected(), String::new());
                None
            }
            Err(error) => {
                reader.wrong(value, expected(), remedy(span_meant(text), &error));
                None
            }
        }
    }

    fn write(value: &Duration) -> String {
        format!("\"{}\"", Span(*value))
    }

    fn kind() -> String {
        format!("time, {} to {}", Span(Duration::from_millis(MIN)), Span(Duration::from_millis(MAX)))
    }
}

impl Notation<bool> for YesNo {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = value.get_ref() {
            return Some(*value);
        }
        reader.wrong(value, "true or false".into(), "write it without quotes".into());
        None
    }

    fn write(value: &bool) -> String {
        value.to_string()
    }

    fn kind() -> String {
        "true or false".into()
    }
}

impl<T: Words> Notation<T> for Word {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<T> {
        let at = as_text(value).and_then(|text| T::WORDS.iter().position(|(word, _)| *word == text));
        if at.is_none() {
            let written = as_text(value).unwrap_or_default().to_ascii_lowercase();
            let near = T::WORDS.iter().map(|(word, _)| (distance(&written, word), word)).min();
            let remedy = match near {
                Some((distance, word)) if distance <= 1 + word.len() / 5 => format!("write \"{word}\""),
                Some(_) | None => String::new(),
            };
            reader.wrong(value, one_of(T::WORDS), remedy);
        }
        at.map(|at| T::VALUES[at])
    }

    fn write(value: &T) -> String {
        let at = T::VALUES.iter().position(|other| other == value);
        quoted(at.map_or("", |at| T::WORDS[at].0))
    }

    fn kind() -> String {
        "one of the words below".into()
    }

    fn choices() -> &'static [(&'static str, &'static str)] {
        T::WORDS
    }
}

fn one_of(words: &[(&str, &str)]) -> String {
    let words: Vec<_> = words.iter().map(|(word, _)| quoted(word)).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => String::new(),
    }
}

impl Notation<CoreCount> for CoresOrAll {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<CoreCount> {
        let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
        let count = match (as_text(value), number) {
            (Some("all"), _) => Some(CoreCount::All),
            (_, Some(number @ 1..=4096)) => Some(CoreCount::Count(number)),
            (_, _) => None,
        };
        if count.is_none() {
            reader.wrong(value, "a whole number from 1 to 4096, or \"all\"".into(), String::new());
        }
        count
    }

    fn write(value: &CoreCount) -> String {
        match value {
            CoreCount::All => quoted("all"),
            CoreCount::Count(number) => number.to_string(),
        }
    }

    fn kind() -> String {
        "whole number, 1 to 4096, or \"all\"".into()
    }
}

impl Notation<String> for Text {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<String> {
        let text = as_text(value).filter(|text| !text.contains(char::is_control));
        if text.is_none() {
            reader.wrong(value, "a text of one line".into(), String::new());
        }
        text.map(str::to_owned)
    }

    fn write(value: &String) -> String {
        quoted(value)
    }

    fn kind() -> String {
        "text".into()
    }
}

impl<N: Notation<T>, T: Clone + PartialEq> Notation<Option<T>> for Maybe<N> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Option<T>> {
        if as_text(value) == Some("") { Some(None) } else { N::read(value, reader).map(Some) }
    }

    fn write(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| quoted(""), N::write)
    }

    fn kind() -> String {
        format!("{}; empty for none", N::kind())
    }

    fn each_path(value: &mut Option<T>, visit: &mut dyn FnMut(&mut PathBuf)) {
        if let Some(value) = value {
            N::each_path(value, visit);
        }
    }
}

/// A type with a text of its own.
pub(crate) trait Spelled: Sized {
    /// `domain`, `address and port`: for the reference.
    const KIND: &'static str;
    /// For messages, with an example.
    const EXPECTED: &'static str;

    /// The value, or what to do about it.
    fn parse(text: &str) -> Result<Self, String>;

    /// What [`Spelled::parse`] reads.
    fn spell(&self) -> String;
}

impl<T: Spelled + Clone + PartialEq> Notation<T> for Literal {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<T> {
        let parsed = as_text(value).ok_or_else(String::new).and_then(T::parse);
        parsed.map_err(|remedy| reader.wrong(value, T::EXPECTED.into(), remedy)).ok()
    }

    fn write(value: &T) -> String {
        quoted(&value.spell())
    }

    fn kind() -> String {
        T::KIND.into()
    }
}

impl Spelled for Domain {
    const KIND: &'static str = "domain";
    const EXPECTED: &'static str = "a domain such as \"mx.example.org\"";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }

    fn spell(&self) -> String {
        self.as_str().into()
    }
}

impl Spelled for IpAddr {
    const KIND: &'static str = "IP address";
    const EXPECTED: &'static str = "an IP address such as \"192.0.2.1\" or \"2001:db8::1\"";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for SocketAddr {
    const KIND: &'static str = "IP address and port";
    const EXPECTED: &'static str = "an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().map_err(|_| match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) if number && host.parse::<IpAddr>().is_ok() => {
                format!("with a port, an IPv6 address is in brackets: \"[{host}]:{port}\"")
            }
            Ok(IpAddr::V6(_)) => format!("the port is missing: \"[{text}]:PORT\""),
            Ok(IpAddr::V4(_)) => "the port is missing".into(),
            Err(_) if number && host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
                "a port is a number up to 65535".into()
            }
            Err(_) if number => "names are not looked up here".into(),
            Err(_) => String::new(),
        })
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for IpNet {
    const KIND: &'static str = "network";
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let net = text.parse::<Self>().map_err(|_| String::new())?;
        // Somebody who sets bits behind the prefix means another network than the one we would take.
        if net.addr() == net.network() { Ok(net) } else { Err(format!("write \"{}\"", net.trunc())) }
    }

    fn spell(&self) -> String {
        if self.prefix_len() == self.max_prefix_len() { self.addr().to_string() } else { self.to_string() }
    }
}

impl Spelled for ListenAddress {
    const KIND: &'static str = "address to listen on";
    const EXPECTED: &'static str = "an address to listen on such as \"0.0.0.0:25\", \"[::]:25\", \"unix:/run/ringpost/smtp\" or \"systemd:smtp\"";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The name of a socket has 108 bytes, the last of them zero (unix(7)).
            return match path.len() {
                0 => Err("the path is missing".into()),
                1..=107 if path.starts_with('/') => Ok(Self::Unix(path.into())),
                1..=107 => Err("write the whole path, from /".into()),
                108.. => Err("the path is longer than 107 bytes".into()),
            };
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            // sd_listen_fds_with_names(3): up to 255 characters, no control characters, no colons.
            let good = |byte: u8| byte.is_ascii_graphic() && byte != b':';
            return if (1..=255).contains(&name.len()) && name.bytes().all(good) {
                Ok(Self::Systemd(name.into()))
            } else {
                Err("write the name of the socket as in `FileDescriptorName=`".into())
            };
        }
        <SocketAddr as Spelled>::parse(text).map(Self::Tcp)
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for Hop {
    const KIND: &'static str = "host, or host and port";
    const EXPECTED: &'static str = "a host such as \"relay.example.org\", \"relay.example.org:2525\", \"192.0.2.1:25\", \"[2001:db8::1]:25\" or \
         \"unix:/run/dovecot/lmtp\"";

    fn parse(text: &str) -> Result<Self, String> {
        let host = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Ok(Host::Address(address)),
            Err(_) if text.starts_with('[') => Err(String::new()),
            Err(_) => Domain::parse(text).map(Host::Name).map_err(|error| error.to_string()),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-@".contains(&byte);
            // So long may the path of a socket be (unix(7)).
            return if path.starts_with('/') && path.len() < 108 && path.bytes().all(is_plain) {
                Ok(Self { host: Host::Unix(path.into()), port: 25 })
            } else {
                Err("write the whole path of the socket, of letters, digits, / . _ - and @".into())
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err("port 0 cannot be connected to".into()),
                port => Ok(Self { host: Host::Address(address.ip()), port }),
            };
        }
        match text.rsplit_once(':') {
            // More than one colon: an IPv6 address without its brackets.
            Some((name, _)) if name.contains(':') => Ok(Self { host: host(text)?, port: 25 }),
            Some((name, port)) => match port.parse() {
                Ok(0) => Err("port 0 cannot be connected to".into()),
                Ok(port) => Ok(Self { host: host(name)?, port }),
                Err(_) => Err("the port is a number from 1 to 65535".into()),
            },
            None => Ok(Self { host: host(text)?, port: 25 }),
        }
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for DomainPattern {
    const KIND: &'static str = "domain pattern";
    const EXPECTED: &'static str =
        "\"example.org\", \"*.example.org\" for what is below it, or \"*\" for all";

    fn parse(text: &str) -> Result<Self, String> {
        let domain = |text: &str| Domain::parse(text).map_err(|error| error.to_string());
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Any),
            Some(suffix) => domain(suffix).map(Self::Below),
            None => domain(text).map(Self::Exact),
        }
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for SenderPattern {
    const KIND: &'static str = "address or domain pattern";
    const EXPECTED: &'static str =
        "\"ann@example.org\", \"example.org\", \"*.example.org\" for what is below it, or \"*\" for all";

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            <Address as Spelled>::parse(text).map(Self::Address)
        } else {
            <DomainPattern as Spelled>::parse(text).map(Self::Domains)
        }
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for Address {
    const KIND: &'static str = "address";
    const EXPECTED: &'static str = "an address such as \"ann@example.org\"";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn spell(&self) -> String {
        self.as_str().into()
    }
}

impl Spelled for KeyHash {
    const KIND: &'static str = "hash of a key";
    const EXPECTED: &'static str = "\"sha256:\" and 64 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, String> {
        Self::from_text(text).ok_or_else(|| "`ringpost key` makes a key and prints its hash".into())
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for FileMode {
    const KIND: &'static str = "permissions, in octal digits";
    const EXPECTED: &'static str = "permissions such as \"0660\"";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.len() == 3 || text.len() == 4 && text.starts_with('0');
        let octal = digits && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if octal => Ok(Self(mode)),
            Ok(_) | Err(_) => Err("three digits from 0 to 7: for the owner, the group and others".into()),
        }
    }

    fn spell(&self) -> String {
        format!("{:04o}", self.0)
    }
}

impl Spelled for Fingerprint {
    const KIND: &'static str = "SHA-256 of a certificate";
    const EXPECTED: &'static str = "\"sha256:\" and 64 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, String> {
        Self::from_text(text)
            .ok_or_else(|| "`openssl x509 -noout -fingerprint -sha256 -in cert.pem` prints it".into())
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Spelled for Secret {
    const KIND: &'static str = "secret text";
    const EXPECTED: &'static str = "a text of 16 to 256 visible ASCII characters";

    fn parse(text: &str) -> Result<Self, String> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (16..=256).contains(&text.len()) {
            Ok(Self::new(text))
        } else {
            Err("`openssl rand -hex 16` makes a good one".into())
        }
    }

    fn spell(&self) -> String {
        self.expose().into()
    }
}

impl Notation<PathBuf> for FilePath {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<PathBuf> {
        let path = as_text(value).filter(|text| !text.is_empty() && !text.contains('\0'));
        if path.is_none() {
            reader.wrong(value, "a path".into(), String::new());
        }
        path.map(PathBuf::from)
    }

    fn write(value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }

    fn kind() -> String {
        "path".into()
    }

    fn each_path(value: &mut PathBuf, visit: &mut dyn FnMut(&mut PathBuf)) {
        visit(value);
    }
}

impl Notation<Output> for FilePath {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Output> {
        match as_text(value) {
            Some("stdout") => Some(Output::Stdout),
            Some("stderr") => Some(Output::Stderr),
            Some(path) if !path.is_empty() && !path.contains('\0') => Some(Output::File(path.into())),
            Some(_) | None => {
                reader.wrong(value, "\"stdout\", \"stderr\" or the path of a file".into(), String::new());
                None
            }
        }
    }

    fn write(value: &Output) -> String {
        match value {
            Output::Stdout => quoted("stdout"),
            Output::Stderr => quoted("stderr"),
            Output::File(path) => quoted(&path.to_string_lossy()),
        }
    }

    fn kind() -> String {
        "stdout, stderr or a path".into()
    }

    fn each_path(value: &mut Output, visit: &mut dyn FnMut(&mut PathBuf)) {
        match value {
            Output::Stdout | Output::Stderr => {}
            Output::File(path) => visit(path),
        }
    }
}

impl<N: Notation<T>, T: Clone + PartialEq> Notation<Vec<T>> for List<N> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Vec<T>> {
        let DeValue::Array(values) = value.get_ref() else {
            reader.wrong(value, "a list".into(), "put it in brackets: [ ]".into());
            return None;
        };
        // Each element is read, so that each mistake is told.
        let read: Vec<Option<T>> = values.iter().map(|value| N::read(value, reader)).collect();
        read.into_iter().collect()
    }

    fn write(value: &Vec<T>) -> String {
        let values: Vec<_> = value.iter().map(N::write).collect();
        format!("[{}]", values.join(", "))
    }

    fn kind() -> String {
        format!("list of: {}", N::kind())
    }

    fn each_path(value: &mut Vec<T>, visit: &mut dyn FnMut(&mut PathBuf)) {
        value.iter_mut().for_each(|item| N::each_path(item, visit));
    }

    fn choices() -> &'static [(&'static str, &'static str)] {
        N::choices()
    }
}

impl<N: Notation<T>, T: Clone + PartialEq> Notation<Vec<(Domain, T)>> for Names<N> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Vec<(Domain, T)>> {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong(value, "a table of names".into(), "write { \"name\" = … }".into());
            return None;
        };
        let mut all = Some(Vec::new());
        for (key, value) in table {
            reader.enter(key);
            let name = Domain::parse(key.get_ref());
            let read = N::read(value, reader);
            match (name, read) {
                (Ok(name), Some(read)) => {
                    if let Some(all) = &mut all {
                        all.push((name, read));
                    }
                }
                (Ok(_), None) => all = None,
                (Err(error), _) => {
                    let problem =
                        Problem::Value { expected: "a domain".into(), found: quoted(key.get_ref()) };
                    reader.report(key.span(), problem, error.to_string());
                    all = None;
                }
            }
            reader.leave();
        }
        all
    }

    fn write(value: &Vec<(Domain, T)>) -> String {
        if value.is_empty() {
            return "{}".into();
        }
        let names: Vec<_> = value
            .iter()
            .map(|(name, value)| format!("{} = {}", quoted(name.as_str()), N::write(value)))
            .collect();
        format!("{{ {} }}", names.join(", "))
    }

    fn kind() -> String {
        format!("table of names, each with a {}", N::kind())
    }
}

impl<T: Section> Notation<T> for Table {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<T> {
        let mut section = T::default();
        Self::apply(&mut section, value, reader);
        Some(section)
    }

    fn write(_: &T) -> String {
        String::new()
    }

    fn kind() -> String {
        "section".into()
    }

    fn apply(target: &mut T, value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) {
        match value.get_ref() {
            DeValue::Table(table) => target.apply(table, reader),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                reader.wrong(value, "a section".into(), "write it as [name] on a line of its own".into())
            }
        }
    }

    fn each_path(value: &mut T, visit: &mut dyn FnMut(&mut PathBuf)) {
        value.each_path(visit);
    }

    fn keep(value: &mut T, before: &T, _: Takes, path: &str, pending: &mut Vec<String>) {
        value.keep(before, path, pending);
    }

    fn shape(current: &T, _: &T) -> Shape {
        Shape::Section { about: T::ABOUT, keys: current.describe() }
    }
}

impl<T: Entry> Notation<Vec<T>> for Entries {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Vec<T>> {
        let mut entries = Vec::new();
        Self::apply(&mut entries, value, reader);
        Some(entries)
    }

    fn write(_: &Vec<T>) -> String {
        String::new()
    }

    fn kind() -> String {
        "sections, one for each".into()
    }

    fn apply(target: &mut Vec<T>, value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) {
        let DeValue::Array(values) = value.get_ref() else {
            let remedy = "write it as [[name]] on a line of its own, once for each";
            reader.wrong(value, "a list of sections".into(), remedy.into());
            return;
        };
        let earlier = target.len();
        for value in values {
            let DeValue::Table(table) = value.get_ref() else {
                reader.wrong(value, "a section".into(), String::new());
                continue;
            };
            let Some(name) = entry_name(table, value.span(), reader) else { continue };
            reader.enter_named(&name, value.span());
            match target.iter().position(|entry| entry.name().eq_ignore_ascii_case(&name)) {
                Some(at) if at < earlier => target[at].apply(table, reader),
                Some(_) => {
                    let problem = Problem::Conflict("there are two of this name in one file".into());
                    reader.report(value.span(), problem, "give one of them another name".into());
                }
                None => {
                    let mut entry = T::default();
                    entry.apply(table, reader);
                    target.push(entry);
                }
            }
            reader.leave();
        }
    }

    fn each_path(value: &mut Vec<T>, visit: &mut dyn FnMut(&mut PathBuf)) {
        value.iter_mut().for_each(|entry| entry.each_path(visit));
    }

    /// An entry that cannot come or go without a restart does neither before it.
    fn keep(value: &mut Vec<T>, before: &Vec<T>, _: Takes, path: &str, pending: &mut Vec<String>) {
        fn takes_restart(keys: &[Key]) -> bool {
            keys.iter().any(|key| match &key.shape {
                Shape::Value { .. } => key.takes == Takes::Restart,
                Shape::Section { keys, .. } => takes_restart(keys),
                Shape::Entries { sample, .. } => takes_restart(sample),
            })
        }
        let fixed = takes_restart(&T::default().describe());
        let same = |a: &T, b: &T| a.name().eq_ignore_ascii_case(&b.name());
        let path_of = |entry: &T| below(path, &entry.name().to_ascii_lowercase());
        value.retain_mut(|entry| {
            let old = before.iter().find(|old| same(old, entry));
            match old {
                Some(old) => entry.keep(old, &path_of(entry), pending),
                None if fixed => pending.push(path_of(entry)),
                None => {}
            }
            old.is_some() || !fixed
        });
        for (at, old) in before.iter().enumerate().filter(|_| fixed) {
            if !value.iter().any(|entry| same(old, entry)) {
                pending.push(path_of(old));
                value.insert(at.min(value.len()), old.clone());
            }
        }
    }

    fn shape(current: &Vec<T>, _: &Vec<T>) -> Shape {
        Shape::Entries {
            about: T::ABOUT,
            sample: T::sample().describe(),
            entries: current.iter().map(Section::describe).collect(),
        }
    }
}

fn entry_name(table: &DeTable<'_>, span: Range<usize>, reader: &mut Reader<'_>) -> Option<String> {
    let name = table.get("name").and_then(as_text).filter(|name| !name.is_empty());
    if name.is_none() {
        let problem = Problem::Missing { expected: "name = \"…\"".into() };
        reader.report(span, problem, "each has a name, by which later files and messages find it".into());
    }
    name.map(str::to_ascii_lowercase)
}

fn as_text<'v>(value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
    value.get_ref().as_str()
}

fn bare_number(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok())
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
