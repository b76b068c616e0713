//! What a client that may says of the one it speaks for: the arguments of XCLIENT, as Postfix's `XCLIENT_README` has them.

use std::net::{IpAddr, Ipv6Addr};

use mail::Utf8;

use crate::{Hello, command::is_name, parameters::xtext};

/// All that one XCLIENT says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `NAME`: the name of the client's address.
    pub name: Claim<Box<str>>,
    /// `ADDR`: the client's address.
    pub address: Claim<IpAddr>,
    /// `PORT`: the client's port.
    pub port: Claim<u16>,
    /// `HELO`: how the client called itself.
    pub helo: Claim<Box<str>>,
    /// `PROTO`: the verb it did that with.
    pub hello: Claim<Hello>,
}

/// What is said of one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim<T> {
    /// Nothing: it stays as it is.
    #[default]
    Kept,
    /// That there is no such thing: `[UNAVAILABLE]`.
    Unavailable,
    /// That it cannot be known now: `[TEMPUNAVAIL]`.
    Unknown,
    /// This.
    Known(T),
}

/// Octets of a value, before it is decoded.
const VALUE_MAX: usize = 255;

impl Claims {
    /// What follows the keyword in the reply to EHLO. Not `LOGIN`, for there are no accounts, and not our own side of
    /// the connection (`DESTADDR`, `DESTPORT`), for nothing depends on it.
    pub const NAMES: &str = "NAME ADDR PORT PROTO HELO";

    /// Reads what follows the verb.
    pub(crate) fn parse(argument: &str) -> Option<Self> {
        let mut claims = Self::default();
        attributes(argument, |name, value| match name {
            "NAME" => claims.name.set(value, named),
            "ADDR" => claims.address.set(value, address),
            "PORT" => claims.port.set(value, |value| value.parse().ok()),
            "HELO" => claims.helo.set(value, named),
            "PROTO" => claims.hello.set(value, hello),
            _ => None,
        })?;
        Some(claims)
    }
}

/// Reads `1*( SP attribute-name"="attribute-value )`, where a value is xtext. Each is taken with its name in capitals.
pub(crate) fn attributes(argument: &str, mut take: impl FnMut(&str, &str) -> Option<()>) -> Option<()> {
    let mut attributes = argument.split(' ').filter(|word| !word.is_empty()).peekable();
    attributes.peek()?;
    attributes.try_for_each(|attribute| {
        let (name, value) = attribute.split_once('=').filter(|(_, value)| value.len() <= VALUE_MAX)?;
        take(&name.to_ascii_uppercase(), &xtext(value, Utf8::NotNeeded)?)
    })
}

impl<T> Claim<T> {
    /// Once each.
    pub(crate) fn set(&mut self, value: &str, read: impl Fn(&str) -> Option<T>) -> Option<()> {
        if !matches!(self, Self::Kept) {
            return None;
        }
        *self = if value.eq_ignore_ascii_case("[UNAVAILABLE]") {
            Self::Unavailable
        } else if value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
            Self::Unknown
        } else {
            Self::Known(read(value)?)
        };
        Some(())
    }

    /// Puts in its place what is said, if anything is.
    pub(crate) fn overwrite(self, place: &mut Option<T>) {
        match self {
            Self::Kept => {}
            Self::Unavailable | Self::Unknown => *place = None,
            Self::Known(value) => *place = Some(value),
        }
    }
}

/// Both names stand in a Received field.
fn named(value: &str) -> Option<Box<str>> {
    is_name(value.as_bytes()).then(|| value.into())
}

/// "a numerical IPv4 network address, an IPv6 address prefixed with IPV6:".
pub(crate) fn address(value: &str) -> Option<IpAddr> {
    const IPV6: &str = "IPV6:";
    match value.split_at_checked(IPV6.len()) {
        Some((prefix, v6)) if prefix.eq_ignore_ascii_case(IPV6) => {
            v6.parse::<Ipv6Addr>().ok().map(|v6| v6.to_canonical())
        }
        Some(_) | None => value.parse().ok().map(IpAddr::V4),
    }
}

fn hello(value: &str) -> Option<Hello> {
    if value.eq_ignore_ascii_case("SMTP") {
        Some(Hello::Helo)
    } else if value.eq_ignore_ascii_case("ESMTP") {
        Some(Hello::Ehlo)
    } else {
        None
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let known = |text: &str| Claim::Known(text.into());
        let check = |text: &str, expected: Claims| assert_eq!(Claims::parse(text), Some(expected), "{text}");
        check(
            "NAME=spike.example ADDR=192.0.2.7",
            Claims {
                name: known("spike.example"),
                address: Claim::Known([192, 0, 2, 7].into()),
                ..Claims::default()
            },
        );
        check(
            "addr=IPv6:2001:db8::1 port=25 proto=smtp helo=a+2Eb",
            Claims {
                address: Claim::Known("2001:db8::1".parse().unwrap()),
                port: Claim::Known(25),
                hello: Claim::Known(Hello::Helo),
                helo: known("a.b"),
                ..Claims::default()
            },
        );
        check(
            "NAME=[TempUnavail] ADDR=[unavailable]",
            Claims { name: Claim::Unknown, address: Claim::Unavailable, ..Claims::default() },
        );
        for wrong in [
            "",
            "NAME",
            "NAME=",
            "NAME=a NAME=b",
            "LOGIN=ann",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.1",
            "ADDR=[192.0.2.1]",
            "PORT=65536",
            "PORT=-1",
            "PROTO=LMTP",
            "HELO=a+20b",
            "HELO=a(b",
            "HELO=a+0Ab",
            "NAME=a+b",
        ] {
            assert_eq!(Claims::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Claims::parse(&format!("NAME={}", "a".repeat(256))), None);
    }
}
