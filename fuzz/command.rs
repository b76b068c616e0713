//! Any line of octets is a command or a syntax error, and a command holds nothing that could harm.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{ForwardPath, ReversePath, Utf8};
use smtp::{Command, Extension, Extensions};

fuzz_target!(|line: &[u8]| {
    let offered = Extension::ALL.iter().fold(Extensions::NONE, |all, extension| all.with(*extension));
    match Command::parse(line) {
        Ok(Command::Mail { reverse_path, parameters }) => {
            if let ReversePath::Address(address) = &reverse_path {
                harmless(address.as_str());
                assert_eq!(address.as_str().parse().as_ref(), Ok(address));
            }
            if let Ok(read) = parameters.of_mail(offered) {
                read.envelope_id.as_deref().into_iter().for_each(harmless);
            }
        }
        Ok(Command::Rcpt { forward_path, parameters }) => {
            if let ForwardPath::Address(address) = &forward_path {
                harmless(address.as_str());
                assert_eq!(address.as_str().parse().as_ref(), Ok(address));
            }
            for utf8 in [Utf8::NotNeeded, Utf8::Needed] {
                if let Ok(read) = parameters.of_rcpt(offered, utf8)
                    && let Some(original) = read.original
                {
                    harmless(&original.address_type);
                    harmless(&original.address);
                }
            }
        }
        Ok(Command::Ehlo { name } | Command::Helo { name } | Command::Lhlo { name }) => {
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
        }
        Ok(Command::Etrn { node }) => {
            harmless(node.domain.as_str());
            assert_eq!(mail::Node::parse(&node.to_string()), Some(node));
        }
        Ok(Command::Xclient { claims }) => {
            for name in [claims.name, claims.helo] {
                if let smtp::Claim::Known(name) = name {
                    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
                }
            }
        }
        Ok(Command::Atrn { domains }) => domains.iter().for_each(|domain| harmless(domain.as_str())),
        Ok(Command::Xforward { forwarding }) => {
            let mut upstream = mail::Upstream::default();
            forwarding.apply(&mut upstream);
            let mail::Upstream { name, protocol, helo, ident, .. } = upstream;
            for text in [name, protocol, helo, ident].into_iter().flatten() {
                assert!((1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
        Ok(
            Command::Data
            | Command::Bdat { .. }
            | Command::Rset
            | Command::Vrfy
            | Command::Help
            | Command::Noop
            | Command::Quit
            | Command::StartTls,
        )
        | Err(_) => {}
    }
});

/// It may stand in a header field or a log line.
fn harmless(text: &str) {
    assert!(!text.bytes().any(|b| b.is_ascii_control()), "{text:?}");
}
