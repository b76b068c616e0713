//! Where a message first came from, told to a next hop that takes it (Postfix's `XFORWARD_README`).

use std::collections::VecDeque;

use mail::{Source, Upstream};

use super::command::{put, xtext};

/// The attributes of XFORWARD that a next hop takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u8);

const NAMES: [&str; 7] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

/// With what the second command begins, as Postfix's does: a client's address that the next hop does not take, such as one
/// of IPv6 where it has none itself, then costs no more than the first.
const SECOND: &str = "PROTO";

/// "must not send XFORWARD commands that exceed the 512 character limit for SMTP commands".
const COMMAND_MAX: usize = 512;
/// "an attribute-value element must not be longer than 255 characters".
const VALUE_MAX: usize = 255;

impl Attributes {
    /// None: it is not offered.
    pub const NONE: Self = Self(0);

    /// Those that stand behind the keyword; one that is not known is passed over.
    pub(super) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let place = |word: &str| NAMES.iter().position(|name| name.eq_ignore_ascii_case(word));
        Self(words.filter_map(place).fold(0, |taken, place| taken | 1 << place))
    }
}

/// The commands that say it. All that the next hop takes is said: what is left out would be as the last message had it.
pub(super) fn commands(upstream: &Upstream, taken: Attributes) -> VecDeque<Box<[u8]>> {
    let Upstream { name, address, port, protocol, helo, ident, source } = upstream;
    let address = address.map(|address| match address.to_canonical() {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("IPV6:{v6}"),
    });
    let port = port.map(|port| port.to_string());
    let source = source.map(|source| match source {
        Source::Local => "LOCAL",
        Source::Remote => "REMOTE",
    });
    let values = [
        name.as_deref(),
        address.as_deref(),
        port.as_deref(),
        protocol.as_deref(),
        helo.as_deref(),
        ident.as_deref(),
        source,
    ];
    let mut commands = VecDeque::new();
    let mut command = Vec::new();
    for (place, (name, value)) in NAMES.iter().zip(values).enumerate() {
        if taken.0 & 1 << place == 0 {
            continue;
        }
        let mut said = Vec::new();
        xtext(value.unwrap_or_default(), &mut said);
        if said.is_empty() || said.len() > VALUE_MAX {
            said = b"[UNAVAILABLE]".to_vec();
        }
        let is_full = command.len() + name.len() + said.len() + " =\r\n".len() > COMMAND_MAX;
        if !command.is_empty() && (is_full || *name == SECOND) {
            commands.push_back(ended(&mut command));
        }
        if command.is_empty() {
            command.extend_from_slice(b"XFORWARD");
        }
        put(&mut command, &[" ", name, "="]);
        command.extend_from_slice(&said);
    }
    if !command.is_empty() {
        commands.push_back(ended(&mut command));
    }
    commands
}

fn ended(command: &mut Vec<u8>) -> Box<[u8]> {
    command.extend_from_slice(b"\r\n");
    std::mem::take(command).into()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn commands_say_what_is_taken() {
        let mut upstream = Upstream {
            name: Some("c.example".into()),
            address: Some("2001:db8::7".parse().unwrap()),
            port: Some(25),
            protocol: Some("ESMTP".into()),
            helo: Some("a+b".into()),
            ident: Some("4C1".into()),
            source: Some(Source::Remote),
        };
        let all = || Attributes::parse(NAMES.into_iter());
        let said = |upstream: &Upstream, taken| -> Vec<String> {
            commands(upstream, taken)
                .into_iter()
                .map(|line| String::from_utf8(line.into()).unwrap())
                .collect()
        };
        assert_eq!(
            said(&upstream, all()),
            [
                "XFORWARD NAME=c.example ADDR=IPV6:2001:db8::7 PORT=25\r\n",
                "XFORWARD PROTO=ESMTP HELO=a+2Bb IDENT=4C1 SOURCE=REMOTE\r\n"
            ]
        );
        assert_eq!(
            said(&upstream, Attributes::parse(["addr", "X", "name"].into_iter())),
            ["XFORWARD NAME=c.example ADDR=IPV6:2001:db8::7\r\n"]
        );
        assert_eq!(said(&upstream, Attributes::NONE), Vec::<String>::new());
        assert_eq!(
            said(&Upstream::default(), Attributes::parse(["IDENT", "ADDR"].into_iter())),
            ["XFORWARD ADDR=[UNAVAILABLE] IDENT=[UNAVAILABLE]\r\n"]
        );
        upstream.name = Some("n".repeat(255).into());
        upstream.helo = Some("h".repeat(255).into());
        upstream.ident = Some("i".repeat(256).into());
        let lines = said(&upstream, all());
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.len() <= COMMAND_MAX), "{lines:?}");
        assert!(lines[1].ends_with(" IDENT=[UNAVAILABLE] SOURCE=REMOTE\r\n"), "{lines:?}");
        // What we say is what we read.
        let mut read = Upstream::default();
        for line in &lines {
            let argument = line.trim_end().strip_prefix("XFORWARD ").unwrap();
            crate::Forwarding::parse(argument).unwrap().apply(&mut read);
        }
        upstream.ident = None;
        assert_eq!(read, upstream);
    }
}
