//! The fields that a server adds: trace (RFC 5321 §4.4), and on submission what is missing (RFC 6409 §8).

use std::{io::Write as _, net::IpAddr};

use mail::{Address, QueueId, ReversePath, Timestamp, TransferPriority};

use crate::date::{DateText, date_text};

/// What a `Received` field says.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The argument of EHLO or HELO. What cannot stand in a domain or literal is made harmless.
    pub client_name: &'a str,
    /// The client's name by reverse look-up, when it is known and confirmed.
    pub client_host: Option<&'a str>,
    /// The client's address; none for a Unix socket.
    pub client_address: Option<IpAddr>,
    /// Our name.
    pub host: &'a str,
    /// How it came.
    pub protocol: Protocol,
    /// How the connection was encrypted, if it was.
    pub tls: Option<Tls<'a>>,
    /// Whether the client had logged in.
    pub login: Login,
    /// The message's queue id.
    pub id: QueueId,
    /// Whom it is for, if that is one: several would tell on blind copies (RFC 5321 §7.6).
    pub recipient: Option<&'a Address>,
    /// How urgent the client said it is.
    pub priority: TransferPriority,
    /// The date, as [`crate::date`] writes it.
    pub date: &'a DateText,
}

/// How a connection was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls<'a> {
    /// `TLSv1.3`.
    pub version: &'a str,
    /// The registered name of the cipher suite.
    pub cipher_suite: &'a str,
}

/// The root of the value of `with` (RFC 5321 §4.4); `S` and `A` come from the other fields (RFC 3848).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The client said HELO.
    Smtp,
    /// The client said EHLO.
    Esmtp,
    /// The client said LHLO.
    Lmtp,
    /// EHLO, and the parameter `SMTPUTF8` (RFC 6531 §4.3).
    Utf8Smtp,
    /// LHLO, and the parameter `SMTPUTF8`.
    Utf8Lmtp,
    /// A request of HTTP. The word is not registered; it is what others write too.
    Http,
}

/// Whether the client had logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// Not.
    #[default]
    None,
    /// With AUTH: the `A` of `ESMTPSA`.
    Done,
}

const CLIENT_NAME_MAX: usize = 255;

/// Appends a `Received` field (RFC 5321 §4.4).
pub fn received_field(out: &mut Vec<u8>, received: &Received<'_>) {
    out.extend_from_slice(b"Received: from ");
    harmless_name(out, received.client_name);
    if let Some(address) = received.client_address {
        out.extend_from_slice(b" (");
        harmless_name(out, received.client_host.unwrap_or("unknown"));
        out.push(b' ');
        address_literal(out, address);
        out.push(b')');
    }
    out.extend_from_slice(b"\r\n\tby ");
    out.extend_from_slice(received.host.as_bytes());
    out.extend_from_slice(b" with ");
    out.extend_from_slice(with(received.protocol, received.tls.is_some(), received.login).as_bytes());
    out.extend_from_slice(b" id ");
    write(out, format_args!("{}", received.id));
    if let Some(tls) = received.tls {
        out.extend_from_slice(b" (");
        out.extend_from_slice(tls.version.as_bytes());
        out.push(b')');
    }
    if let Some(recipient) = received.recipient {
        out.extend_from_slice(b"\r\n\tfor <");
        out.extend_from_slice(recipient.as_str().as_bytes());
        out.push(b'>');
    }
    if let Some(tls) = received.tls.filter(|tls| !tls.cipher_suite.is_empty()) {
        // The clause of RFC 8314 §4.3, which stands behind `for` (RFC 5321 §4.4).
        out.extend_from_slice(b"\r\n\ttls ");
        out.extend_from_slice(tls.cipher_suite.as_bytes());
    }
    if received.priority != TransferPriority::default() {
        // RFC 6710 §4.1, §7: "PRIORITY", one of the additional clauses of RFC 5321 §4.4.
        write(out, format_args!("\r\n\tpriority {}", received.priority.get()));
    }
    out.extend_from_slice(b";\r\n\t");
    out.extend_from_slice(received.date);
    out.extend_from_slice(b"\r\n");
}

/// Appends a `Return-Path` field: at final delivery only (RFC 5321 §4.4).
pub fn return_path_field(out: &mut Vec<u8>, reverse_path: &ReversePath) {
    write(out, format_args!("Return-Path: {reverse_path}\r\n"));
}

/// Appends a `Date` field: on submission, when there is none (RFC 6409 §8.2).
pub fn date_field(out: &mut Vec<u8>, at: Timestamp) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&date_text(at));
    out.extend_from_slice(b"\r\n");
}

/// Appends a `Message-ID` field: on submission, when there is none (RFC 6409 §8.3).
pub fn message_id_field(out: &mut Vec<u8>, id: QueueId, at: Timestamp, host: &str) {
    out.extend_from_slice(b"Message-ID: ");
    message_id(out, id, at, host);
    out.extend_from_slice(b"\r\n");
}

/// Appends `<id.time@host>`. The queue id is given out once in a data directory; the time tells data
/// directories apart.
pub(crate) fn message_id(out: &mut Vec<u8>, id: QueueId, at: Timestamp, host: &str) {
    write(out, format_args!("<{id}.{:x}@{host}>", at.0));
}

/// Appends an address literal with its brackets (RFC 5321 §4.1.3).
pub fn address_literal(out: &mut Vec<u8>, address: IpAddr) {
    // A socket for both families shows IPv4 clients as ::ffff:192.0.2.1.
    match address.to_canonical() {
        IpAddr::V4(address) => write(out, format_args!("[{address}]")),
        IpAddr::V6(address) => write(out, format_args!("[IPv6:{address}]")),
    }
}

const fn with(protocol: Protocol, encrypted: bool, login: Login) -> &'static str {
    match (protocol, encrypted, login) {
        (Protocol::Http, _, _) => "HTTP",
        // There is no registered word for HELO over TLS.
        (Protocol::Smtp, _, _) => "SMTP",
        (Protocol::Esmtp, false, Login::None) => "ESMTP",
        (Protocol::Esmtp, false, Login::Done) => "ESMTPA",
        (Protocol::Esmtp, true, Login::None) => "ESMTPS",
        (Protocol::Esmtp, true, Login::Done) => "ESMTPSA",
        (Protocol::Lmtp, false, Login::None) => "LMTP",
        (Protocol::Lmtp, false, Login::Done) => "LMTPA",
        (Protocol::Lmtp, true, Login::None) => "LMTPS",
        (Protocol::Lmtp, true, Login::Done) => "LMTPSA",
        (Protocol::Utf8Smtp, false, Login::None) => "UTF8SMTP",
        (Protocol::Utf8Smtp, false, Login::Done) => "UTF8SMTPA",
        (Protocol::Utf8Smtp, true, Login::None) => "UTF8SMTPS",
        (Protocol::Utf8Smtp, true, Login::Done) => "UTF8SMTPSA",
        (Protocol::Utf8Lmtp, false, Login::None) => "UTF8LMTP",
        (Protocol::Utf8Lmtp, false, Login::Done) => "UTF8LMTPA",
        (Protocol::Utf8Lmtp, true, Login::None) => "UTF8LMTPS",
        (Protocol::Utf8Lmtp, true, Login::Done) => "UTF8LMTPSA",
    }
}

/// Appends a peer's name with everything replaced that could end a comment, a clause or the line.
fn harmless_name(out: &mut Vec<u8>, name: &str) {
    if name.is_empty() {
        out.extend_from_slice(b"unknown");
    }
    for character in name.chars().take(CLIENT_NAME_MAX) {
        let fits = character.is_alphanumeric() || matches!(character, '-' | '.' | '_' | ':' | '[' | ']');
        let mut octets = [0; 4];
        out.extend_from_slice(if fits { character.encode_utf8(&mut octets) } else { "?" }.as_bytes());
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

#[cfg(test)]
mod test {
    use mail::JournalShard;

    use super::*;

    const DATE: &DateText = b"Thu, 20 Nov 2025 09:05:00 +0000";

    fn check(received: &Received<'_>, expected: &str) {
        let mut out = Vec::new();
        received_field(&mut out, received);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    fn plain() -> Received<'static> {
        Received {
            client_name: "client.example",
            client_host: None,
            client_address: Some([192, 0, 2, 1].into()),
            host: "mx.example",
            protocol: Protocol::Esmtp,
            tls: None,
            login: Login::None,
            id: QueueId::new(JournalShard(1), 66),
            recipient: None,
            priority: TransferPriority::default(),
            date: DATE,
        }
    }

    #[test]
    fn received_fields() {
        check(
            &plain(),
            "Received: from client.example (unknown [192.0.2.1])\r\n\
             \tby mx.example with ESMTP id 0040000000022;\r\n\
             \tThu, 20 Nov 2025 09:05:00 +0000\r\n",
        );
        let address = "bob@example.org".parse().unwrap();
        let tls = Tls { version: "TLSv1.3", cipher_suite: "TLS_AES_256_GCM_SHA384" };
        check(
            &Received {
                client_host: Some("ptr.example"),
                client_address: Some("2001:db8::1".parse().unwrap()),
                tls: Some(tls),
                login: Login::Done,
                recipient: Some(&address),
                priority: TransferPriority::new(-2).unwrap(),
                ..plain()
            },
            "Received: from client.example (ptr.example [IPv6:2001:db8::1])\r\n\
             \tby mx.example with ESMTPSA id 0040000000022 (TLSv1.3)\r\n\
             \tfor <bob@example.org>\r\n\
             \ttls TLS_AES_256_GCM_SHA384\r\n\
             \tpriority -2;\r\n\
             \tThu, 20 Nov 2025 09:05:00 +0000\r\n",
        );
    }

    #[test]
    fn what_a_client_calls_itself_stays_in_its_place() {
        let mut out = Vec::new();
        harmless_name(&mut out, "a b)\r\nX: y(;[IPv6:::1]");
        assert_eq!(out, b"a?b???X:?y??[IPv6:::1]");
        out.clear();
        harmless_name(&mut out, &"x".repeat(1000));
        assert_eq!(out.len(), CLIENT_NAME_MAX);
        out.clear();
        harmless_name(&mut out, "");
        assert_eq!(out, b"unknown");
        check(
            &Received { client_name: "l", client_address: None, protocol: Protocol::Lmtp, ..plain() },
            "Received: from l\r\n\tby mx.example with LMTP id 0040000000022;\r\n\
             \tThu, 20 Nov 2025 09:05:00 +0000\r\n",
        );
    }

    #[test]
    fn an_ipv4_client_of_a_socket_for_both_families() {
        let mut out = Vec::new();
        address_literal(&mut out, "::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(out, b"[192.0.2.7]");
    }

    #[test]
    fn what_is_missing_on_submission() {
        let mut out = Vec::new();
        let at = Timestamp::from_secs(1_763_629_500);
        return_path_field(&mut out, &ReversePath::Null);
        date_field(&mut out, at);
        message_id_field(&mut out, QueueId::new(JournalShard(0), 1), at, "mx.example");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Return-Path: <>\r\nDate: Thu, 20 Nov 2025 09:05:00 +0000\r\n\
             Message-ID: <0000000000001.64402fddce700@mx.example>\r\n"
        );
    }
}
