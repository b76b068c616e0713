//! 8-bit and binary content for next hops that do not offer to take it.

use std::fmt::Write as _;

use end_to_end::{Server, Sink};

use crate::postfix::Postfix;

/// A sink that offers no more than this.
fn sink_with(offers: &'static str) -> Sink {
    let sink = Sink::start();
    sink.answer(move |command| command.starts_with("EHLO").then(|| format!("250-sink.test\r\n250 {offers}")));
    sink
}

fn send(server: &Server, parameter: &str, recipient: &str, content: &str) -> serde_json::Value {
    let mut client = server.client();
    client.say(&format!("MAIL FROM:<ann@example.org>{parameter}"));
    client.expect(250);
    client.ask(&format!("RCPT TO:<{recipient}>"));
    client.put(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
    client.expect(250);
    server.event("outcome", |event| event["to"] == *recipient)
}

const EIGHT_BIT: &str = " BODY=8BITMIME";
const MIXED: &str = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=b\"\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\n--=b\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\n.Schöne Grüße an alle von uns allen\r\n--=b\r\n\
    Content-Type: application/x-own\r\nContent-Transfer-Encoding: 8bit\r\n\r\näöü\r\n--=b--\r\n";
const ENCODED: &str = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=b\"\r\n\
    Content-Transfer-Encoding: 7bit\r\n\r\n--=b\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\n.Sch=C3=B6ne Gr=C3=BC=C3=9Fe an alle von uns allen\r\n--=b\r\n\
    Content-Type: application/x-own\r\nContent-Transfer-Encoding: base64\r\n\r\nw6TDtsO8\r\n--=b--\r\n";
const SIGNED: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--s\r\n\
    Content-Type: application/pgp-signature\r\n\r\nxyz\r\n--s--\r\n";

#[test]
fn content_is_encoded_for_a_hop_without_8bitmime() {
    for offers in ["PIPELINING", "CHUNKING", "SIZE 1000000"] {
        let sink = sink_with(offers);
        let server = Server::start(&sink.route());
        let outcome = send(&server, EIGHT_BIT, "bob@example.net", MIXED);
        assert_eq!(outcome["result"], "delivered", "{offers}: {outcome}");
        let mail = sink.mail();
        // Of its SIZE it is told as it is sent.
        assert!(!mail.mail.contains("BODY="), "{mail:?}");
        assert!(mail.content.ends_with(ENCODED), "{offers}: {}", mail.content);
        if let Some((_, size)) = mail.mail.split_once("SIZE=") {
            assert_eq!(size.parse::<usize>().unwrap(), mail.content.len());
        }
        // Whoever did not say that it is, is treated alike; and what is US-ASCII stays as it is.
        send(&server, "", "carl@example.net", MIXED);
        assert!(sink.mail().content.ends_with(ENCODED), "{offers}");
        send(&server, EIGHT_BIT, "dan@example.net", &MIXED.replace(|c: char| !c.is_ascii(), "?"));
        assert!(sink.mail().content.contains(".Sch?ne"), "{offers}");
        assert_eq!(server.metric("ringpost_conversions_total", &["result=\"done\""]), 2.0);
        // What is signed comes back.
        let outcome = send(&server, EIGHT_BIT, "eve@example.net", SIGNED);
        assert_eq!(
            (&outcome["result"], &outcome["status"]),
            (&"failed".into(), &"5.6.3".into()),
            "{outcome}"
        );
        assert!(outcome["reply"].as_str().unwrap().contains("it is signed as it is"), "{outcome}");
        assert_eq!(server.metric("ringpost_conversions_total", &["result=\"failed\""]), 1.0);
        // The report that its sender gets is encoded, with the message in it.
        let report = sink.mail();
        assert!(report.mail.contains("<>") && report.content.contains("R3LDvMOfZQ=="), "{report:?}");
    }
}

#[test]
fn a_hop_with_8bitmime_gets_it_as_it_is_and_so_does_one_that_an_operator_knows() {
    let sink = sink_with("8BITMIME");
    let server = Server::start(&sink.route());
    send(&server, EIGHT_BIT, "bob@example.net", SIGNED);
    let mail = sink.mail();
    assert!(mail.mail.contains("BODY=8BITMIME") && mail.content.ends_with(SIGNED), "{mail:?}");

    let sink = sink_with("PIPELINING");
    let server = Server::start(&format!("{}8bit = \"as-is\"\n", sink.route()));
    send(&server, EIGHT_BIT, "bob@example.net", SIGNED);
    let mail = sink.mail();
    assert!(!mail.mail.contains("BODY=") && mail.content.ends_with(SIGNED), "{mail:?}");

    server.configure(&format!("{}8bit = \"refuse\"\n", sink.route()));
    server.reload();
    for (parameter, recipient) in [(EIGHT_BIT, "carl@example.net"), ("", "dan@example.net")] {
        let outcome = send(&server, parameter, recipient, MIXED);
        assert_eq!(
            (&outcome["result"], &outcome["status"]),
            (&"failed".into(), &"5.6.3".into()),
            "{outcome}"
        );
    }
}

#[test]
fn binary_content_becomes_lines_where_it_has_to() {
    let mut large = String::from("binary: ");
    (0..20_000).for_each(|i| writeln!(large, "{i}ü").unwrap());
    let content = format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/x-own\r\nContent-Transfer-Encoding: binary\r\n\r\n{large}"
    );
    let binary = "[[listener]]\nname = \"smtp\"\n[listener.extensions]\nbinarymime = true\n";
    for (offers, body) in [("8BITMIME", " BODY=8BITMIME"), ("PIPELINING", "")] {
        let sink = sink_with(offers);
        let server = Server::start(&format!("{}{binary}", sink.route()));
        let outcome = send(&server, " BODY=BINARYMIME", "bob@example.net", &content);
        assert_eq!(outcome["result"], "delivered", "{outcome}");
        let mail = sink.mail();
        assert!(mail.mail.ends_with(&format!(">{body}")), "{}", mail.mail);
        let (head, encoded) = mail.content.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("Content-Transfer-Encoding: base64"), "{head}");
        assert_eq!(decoded(encoded), large.as_bytes());
    }
    let sink = sink_with("8BITMIME");
    let server = Server::start(&format!("{}8bit = \"as-is\"\n{binary}", sink.route()));
    let outcome = send(&server, " BODY=BINARYMIME", "bob@example.net", &content);
    assert_eq!((&outcome["result"], &outcome["status"]), (&"failed".into(), &"5.6.3".into()), "{outcome}");
}

/// What base64 stands for, by another program than ours.
fn decoded(text: &str) -> Vec<u8> {
    let place = end_to_end::Place::new();
    let file = place.write("encoded", text.replace('\r', ""));
    let output = std::process::Command::new(end_to_end::tool("base64")).arg("-d").arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_postfix_without_8bitmime_takes_it() {
    let sink = Sink::start();
    let postfix = Postfix::start(sink.address(), "smtpd_discard_ehlo_keywords = 8bitmime\n");
    let (ip, port) = (postfix.address().ip(), postfix.address().port());
    let server = Server::start(&format!(
        "[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{ip}:{port}\"]\n"
    ));
    let outcome = send(&server, EIGHT_BIT, "bob@example.net", MIXED);
    assert_eq!(outcome["result"], "delivered", "{outcome}");
    let content = sink.mail().content;
    // It has added a field, and left the rest as it was.
    let (_, parts) = ENCODED.split_once("\r\n\r\n").unwrap();
    let (header, body) = content.split_once("\r\n\r\n").unwrap();
    assert!(header.contains("Content-Transfer-Encoding: 7bit") && body == parts, "{content}");
}
