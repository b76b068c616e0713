//! What an upstream host says of the client that a message first came from: the arguments of XFORWARD, as Postfix's
//! `XFORWARD_README` has them.

use std::net::IpAddr;

use mail::{Source, Upstream};

use crate::{
    Claim,
    claims::{address, attributes},
    command::is_plain,
};

/// All that one XFORWARD says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    name: Claim<Box<str>>,
    address: Claim<IpAddr>,
    port: Claim<u16>,
    protocol: Claim<Box<str>>,
    helo: Claim<Box<str>>,
    ident: Claim<Box<str>>,
    source: Claim<Source>,
}

/// Octets of the name of a protocol.
const PROTOCOL_MAX: usize = 64;

impl Forwarding {
    /// What follows the keyword in the reply to EHLO.
    pub const NAMES: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";

    /// Reads what follows the verb.
    pub(crate) fn parse(argument: &str) -> Option<Self> {
        let mut forwarding = Self::default();
        let protocol = |value: &str| text(value).filter(|text| text.len() <= PROTOCOL_MAX);
        attributes(argument, |name, value| match name {
            "NAME" => forwarding.name.set(value, text),
            "ADDR" => forwarding.address.set(value, address),
            "PORT" => forwarding.port.set(value, |value| value.parse().ok()),
            "PROTO" => forwarding.protocol.set(value, protocol),
            "HELO" => forwarding.helo.set(value, text),
            "IDENT" => forwarding.ident.set(value, text),
            "SOURCE" => forwarding.source.set(value, source),
            _ => None,
        })?;
        Some(forwarding)
    }

    /// "With each XFORWARD command, the server overwrites attributes with the specified attribute values, and erases
    /// attributes whose value is specified as `[UNAVAILABLE]`."
    pub fn apply(self, upstream: &mut Upstream) {
        let Self { name, address, port, protocol, helo, ident, source } = self;
        name.overwrite(&mut upstream.name);
        address.overwrite(&mut upstream.address);
        port.overwrite(&mut upstream.port);
        protocol.overwrite(&mut upstream.protocol);
        helo.overwrite(&mut upstream.helo);
        ident.overwrite(&mut upstream.ident);
        source.overwrite(&mut upstream.source);
    }
}

/// What stands in a log without being taken for something else. What a client called itself need not be such a name,
/// and is no reason to lose the rest: as Postfix does, the character is replaced.
fn text(value: &str) -> Option<Box<str>> {
    let shown = |c: char| if u8::try_from(c).is_ok_and(is_plain) { c } else { '?' };
    (!value.is_empty()).then(|| value.chars().map(shown).collect())
}

fn source(value: &str) -> Option<Source> {
    if value.eq_ignore_ascii_case("LOCAL") {
        Some(Source::Local)
    } else if value.eq_ignore_ascii_case("REMOTE") {
        Some(Source::Remote)
    } else {
        None
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn told(commands: &[&str]) -> Upstream {
        let mut upstream = Upstream::default();
        for command in commands {
            Forwarding::parse(command).unwrap_or_else(|| panic!("{command}")).apply(&mut upstream);
        }
        upstream
    }

    #[test]
    fn attributes_are_read() {
        let text = |text: &str| Some(text.into());
        assert_eq!(
            told(&[
                "NAME=c.example ADDR=192.0.2.7 PORT=4711",
                "proto=ESMTP helo=a+2Bb source=Remote ident=4C1"
            ]),
            Upstream {
                name: text("c.example"),
                address: Some([192, 0, 2, 7].into()),
                port: Some(4711),
                protocol: text("ESMTP"),
                helo: text("a+b"),
                ident: text("4C1"),
                source: Some(Source::Remote),
            }
        );
        assert_eq!(
            told(&["NAME=a ADDR=ipv6:2001:db8::7 SOURCE=local", "NAME=[Unavailable]"]),
            Upstream {
                address: Some("2001:db8::7".parse().unwrap()),
                source: Some(Source::Local),
                ..Upstream::default()
            }
        );
        assert_eq!(told(&["HELO=<a+20b>"]).helo, text("?a?b?"));
        assert_eq!(told(&["PORT=25 NAME=b", "PORT=[TEMPUNAVAIL]"]).port, None);
        for wrong in [
            "",
            "NAME",
            "NAME=",
            "NAME=a NAME=b",
            "LOGIN=ann",
            "ADDR=2001:db8::1",
            "ADDR=[192.0.2.1]",
            "PORT=65536",
            "SOURCE=near",
            "HELO=a+0Ab",
            "HELO=a+b",
        ] {
            assert_eq!(Forwarding::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Forwarding::parse(&format!("PROTO={}", "A".repeat(65))), None);
        assert_eq!(Forwarding::parse(&format!("HELO={}", "a".repeat(256))), None);
    }
}
