//! Clients of others: swaks, openssl, curl, Python.

use std::net::SocketAddr;

use end_to_end::{Finished, Server, Sink, run, tool};

fn swaks(server: SocketAddr, arguments: &[&str]) -> Finished {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let common = ["--server", &ip, "--port", &port, "--helo", "client.test", "--from", "ann@example.org"];
    run(&tool("swaks"), &[&common, arguments].concat(), "")
}

/// Whether a session with swaks, read as a whole, got this reply to this command.
fn got(session: &Finished, command: &str, reply: &str) -> bool {
    // `->` is what it sends, `~>` under TLS; `<-`, `<~` what it reads, with `*` for an error.
    let lines: Vec<_> = session.stdout.lines().filter_map(|line| line.get(4..)).map(str::trim).collect();
    let sent = lines.iter().position(|line| line.starts_with(command));
    sent.is_some_and(|at| lines[at + 1..].iter().take(20).any(|line| line.starts_with(reply)))
}

/// With folded lines of the header section in one.
fn unfolded(content: &str) -> String {
    content.replace("\r\n\t", " ")
}

#[test]
fn swaks_plain_starttls_and_implicit() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let bob = ["--to", "bob@example.net"];
    for (address, tls, protocol) in [
        (server.smtp(), &[][..], "ESMTP"),
        (server.smtp(), &["--tls"], "ESMTPS"),
        (server.smtp(), &["--tls", "--tls-protocol", "tlsv1_2"], "ESMTPS"),
        (server.smtps(), &["--tls-on-connect"], "ESMTPS"),
        (server.smtp(), &["--protocol", "SMTP"], "SMTP"),
        (server.submission(), &["--tls"], "ESMTPS"),
    ] {
        let session = swaks(address, &[&bob, tls, &["--body", ".dot\\n..dots\\nend"]].concat()).good();
        assert!(session.stdout.contains("queued as "), "{session}");
        let mail = sink.mail();
        assert!(mail.mail.starts_with("<ann@example.org>") && mail.rcpt[0].starts_with("<bob@example.net>"));
        let trace = unfolded(&mail.content);
        assert!(trace.contains(&format!(" by mx.ringpost.test with {protocol} id ")), "{trace}");
        assert!(trace.starts_with("Received: from client.test ("), "{trace}");
        assert!(mail.content.contains("\r\n\r\n.dot\r\n..dots\r\nend\r\n"), "{mail:?}");
    }
    // Recipients: two in one transaction.
    swaks(server.smtp(), &["--to", "bob@example.net,cid@example.net"]).good();
    assert_eq!(sink.mail().rcpt.len(), 2);
}

#[test]
fn swaks_is_refused_where_it_should_be() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[relay]\nnetworks = []\n[[domain]]\nname = \"example.net\"\n[limits]\nmessage-size-max = \"64KiB\"\nheader-size-max = \"16KiB\"\n{}",
        sink.route()
    ));
    // A stranger reaches our domains, and no others.
    swaks(server.smtp(), &["--to", "bob@example.net"]).good();
    sink.mail();
    for stranger in ["bob@example.com", "bob@sub.example.net", "bob%example.com@other.test"] {
        let session = swaks(server.smtp(), &["--to", stranger]);
        assert_eq!(session.status.code(), Some(24), "no valid recipient: {session}");
        assert!(got(&session, "RCPT TO", "550 5.7.1"), "{session}");
    }
    // Of two, the good one is served.
    let session = swaks(server.smtp(), &["--to", "bob@example.com,cid@example.net"]).good();
    assert!(got(&session, "RCPT TO:<bob@example.com>", "550 5.7.1"), "{session}");
    assert!(sink.mail().rcpt[0].starts_with("<cid@example.net>"));
    // An address that is not ASCII needs SMTPUTF8, which swaks does not know (RFC 6531 §3.4).
    let session = swaks(server.smtp(), &["--to", "j\u{f6}rg@example.net"]);
    assert_eq!(session.status.code(), Some(24), "{session}");
    assert!(session.stdout.contains("5.6.7"), "{session}");
    // Too large.
    let large = "x".repeat(70).repeat(1000);
    let session = swaks(server.smtp(), &["--to", "bob@example.net", "--body", &large]);
    assert_ne!(session.status.code(), Some(0), "{session}");
    assert!(session.stdout.contains("552 5.3.4"), "{session}");
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn openssl_s_client() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let certificate = server.place().join("certificate.pem");
    let trust = ["-CAfile", certificate.to_str().unwrap(), "-verify_return_error"];
    let name = ["-verify_hostname", "mx.ringpost.test", "-servername", "mx.ringpost.test"];
    // Without -quiet it takes a line that begins with R for an order to renegotiate.
    let common = ["s_client", "-quiet", "-crlf"];
    let mail = "EHLO client.test\nMAIL FROM:<ann@example.org>\nRCPT TO:<bob@example.net>\nDATA\n";
    let content = "Subject: by openssl\n\nhello\n.\nQUIT\n";
    let (smtp, smtps) = (server.smtp().to_string(), server.smtps().to_string());
    for (connect, tls) in [
        (["-connect", &smtp], &["-starttls", "smtp", "-name", "client.test"][..]),
        (["-connect", &smtp], &["-starttls", "smtp", "-tls1_2"]),
        (["-connect", &smtps], &[]),
        (["-connect", &smtps], &["-tls1_2"]),
        (["-connect", &smtps], &["-tls1_3"]),
    ] {
        let arguments = [&common[..], &connect, tls, &trust, &name].concat();
        // Everything at once: the content goes out before the 354 is there.
        let session = run(&tool("openssl"), &arguments, &format!("{mail}{content}")).good();
        assert!(session.stdout.contains("250 2.0.0 queued as "), "{tls:?}: {session}");
        assert!(session.stdout.contains("221 2.0.0"), "{tls:?}: {session}");
        let mail = sink.mail();
        assert!(mail.content.ends_with("Subject: by openssl\r\n\r\nhello\r\n"), "{mail:?}");
        assert!(unfolded(&mail.content).contains(" with ESMTPS id "), "{mail:?}");
    }
    // Under TLS, STARTTLS is neither offered nor taken (RFC 3207 §4.2).
    let arguments = [&common[..], &["-connect", &smtps], &trust].concat();
    let session = run(&tool("openssl"), &arguments, "EHLO client.test\nSTARTTLS\nQUIT\n").good();
    assert!(
        !session.stdout.contains("250-STARTTLS") && !session.stdout.contains("250 STARTTLS"),
        "{session}"
    );
    assert!(session.stdout.contains("503 5.5.1 TLS is already active"), "{session}");
    // What is older than TLS 1.2 is not spoken (RFC 8996).
    let arguments = [&common[..], &["-connect", &smtps, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]].concat();
    let session = run(&tool("openssl"), &arguments, "QUIT\n");
    assert!(!session.status.success() && !session.stdout.contains("220"), "{session}");
}

#[test]
fn curl_uploads() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let file =
        server.place().write("mail.eml", "From: ann@example.org\r\nSubject: by curl\r\n\r\n.hello\r\n");
    let certificate = server.place().join("certificate.pem");
    let common = ["LC_ALL=C.UTF-8", "curl", "-sS", "--cacert", certificate.to_str().unwrap(), "-T"];
    let curl = |url: &str, address: SocketAddr, arguments: &[&str]| {
        let to = format!("mx.ringpost.test:{}:{address}", address.port());
        let url = format!("{url}://mx.ringpost.test:{}/client.test", address.port());
        let where_to = [file.to_str().unwrap(), "--connect-to", &to, &url];
        run(&tool("env"), &[&common[..], &where_to, arguments].concat(), "")
    };
    let plain = ["--mail-from", "ann@example.org", "--mail-rcpt", "bob@example.net"];
    for (url, address, arguments, protocol) in [
        ("smtp", server.smtp(), &[][..], "ESMTP"),
        ("smtp", server.smtp(), &["--ssl-reqd"], "ESMTPS"),
        ("smtps", server.smtps(), &[], "ESMTPS"),
        ("smtp", server.submission(), &["--ssl-reqd"], "ESMTPS"),
    ] {
        curl(url, address, &[&plain, arguments].concat()).good();
        let mail = sink.mail();
        assert!(unfolded(&mail.content).contains(&format!(" with {protocol} id ")), "{mail:?}");
        assert!(mail.content.contains("Subject: by curl\r\n"), "{mail:?}");
        assert!(mail.content.ends_with("\r\n\r\n.hello\r\n"), "{mail:?}");
        // Of a user's mail we complete the header section (RFC 6409 §8), of others' we do not.
        let completed = mail.content.contains("\r\nDate: ") && mail.content.contains("\r\nMessage-ID: ");
        assert_eq!(completed, address == server.submission(), "{mail:?}");
    }
    // curl says SMTPUTF8 when it is offered and needed (RFC 6531).
    let utf8 = ["--mail-from", "\u{e5}nn@example.org", "--mail-rcpt", "j\u{f6}rg@example.net"];
    curl("smtp", server.smtp(), &[&utf8[..], &["--ssl-reqd"]].concat()).good();
    let mail = sink.mail();
    assert!(mail.mail.starts_with("<\u{e5}nn@example.org>") && mail.mail.contains(" SMTPUTF8"), "{mail:?}");
    assert!(mail.rcpt[0].starts_with("<j\u{f6}rg@example.net>"), "{mail:?}");
    assert!(unfolded(&mail.content).contains(" with UTF8SMTPS id "), "{mail:?}");
    // A user's program is told when its header section has no From (RFC 6409 §3.2).
    server.place().write("mail.eml", "Subject: anonymous\r\n\r\n");
    let refused = curl("smtp", server.submission(), &[&plain[..], &["--ssl-reqd", "-v"]].concat());
    assert_eq!(refused.status.code(), Some(8), "{refused}");
    assert!(refused.stderr.contains("550 5.6.0"), "{refused}");
    assert_eq!(server.event("refused", |_| true)["stage"], "data");
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn smtputf8_does_not_go_where_it_is_not_known() {
    let sink = Sink::start();
    sink.answer(|command| {
        command
            .starts_with("EHLO")
            .then(|| "250-sink.test\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES".to_owned())
    });
    let server = Server::start(&sink.route());
    let mut client = server.client();
    client.say("MAIL FROM:<ann@example.org> SMTPUTF8");
    client.expect(250);
    client.say("RCPT TO:<j\u{f6}rg@example.net>");
    client.expect(250);
    client.say("DATA");
    client.expect(354);
    client.put("Subject: h\u{e9}llo\r\n\r\n.\r\n".as_bytes());
    client.expect(250);
    let outcome = server.event("outcome", |_| true);
    assert_eq!((&outcome["result"], &outcome["status"]), (&"failed".into(), &"5.6.7".into()), "{outcome}");
    // The report tells of the address and yet can go there: what is not ASCII stands in parts made for it
    // (RFC 6533 §3), not in its own header section, and the envelope is ASCII.
    let report = sink.mail();
    assert!(report.mail.starts_with("<>") && !report.mail.contains("SMTPUTF8"), "{report:?}");
    let (header, body) = report.content.split_once("\r\n\r\n").unwrap();
    assert!(header.is_ascii(), "{report:?}");
    assert!(body.contains("Content-Type: message/global-delivery-status\r\n"), "{report:?}");
}

/// Plaintext behind STARTTLS must not be taken for what came under TLS: a man in the middle could put commands there.
#[test]
fn python_smuggles_nothing_behind_starttls() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let script = r#"
import socket, ssl, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
f = s.makefile("rb")
f.readline()
s.sendall(b"EHLO client.test\r\n")
while f.readline()[3:4] == b"-": pass
s.sendall(b"STARTTLS\r\nMAIL FROM:<mallory@example.org>\r\nRCPT TO:<bob@example.net>\r\n")
assert f.readline().startswith(b"220"), "ready for TLS"
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    t = context.wrap_socket(s)
except (ssl.SSLError, OSError) as error:
    print("no handshake:", error)
    sys.exit()
g = t.makefile("rb")
t.sendall(b"RCPT TO:<eve@example.net>\r\nQUIT\r\n")
for line in g: print(line.decode().strip())
"#;
    let (ip, port) = (server.smtp().ip().to_string(), server.smtp().port().to_string());
    let session = run(&tool("python3"), &["-c", script, &ip, &port], "").good();
    // Either the session forgets all and begins anew, or there is no TLS at all.
    let fresh = session.stdout.starts_with("503") && session.stdout.lines().count() == 2;
    assert!(fresh || session.stdout.starts_with("no handshake:"), "{session}");
    assert!(!session.stdout.contains("250"), "{session}");
}

#[test]
fn python_smtplib_sends() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let script = r#"
import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Subject"] = "ann@example.org", "jörg@example.net", "häagen"
m.set_content("ünder\n.\n..\n")
m.add_attachment(bytes(range(256)) * 300, maintype="application", subtype="octet-stream", filename="ä.bin")
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.ehlo("client.test")
    assert s.has_extn("smtputf8") and s.has_extn("8bitmime") and s.has_extn("pipelining") and s.has_extn("chunking")
    assert int(s.esmtp_features["size"]) > 0
    s.starttls()
    refused = s.send_message(m)
    assert not refused, refused
"#;
    let (ip, port) = (server.smtp().ip().to_string(), server.smtp().port().to_string());
    run(&tool("python3"), &["-c", script, &ip, &port], "").good();
    let mail = sink.mail();
    assert!(mail.mail.contains("SMTPUTF8"), "{}", mail.mail);
    assert!(mail.rcpt[0].contains("j\u{f6}rg@example.net"), "{:?}", mail.rcpt);
    // What came is what Python reads as the same message.
    let script = r#"
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTPUTF8)
assert m["Subject"] == "häagen", m["Subject"]
body, attachment = m.iter_parts()
assert body.get_content().splitlines() == ["ünder", ".", ".."], repr(body.get_content())
assert attachment.get_content() == bytes(range(256)) * 300
assert attachment.get_filename() == "ä.bin"
assert not m.defects
"#;
    run(&tool("python3"), &["-c", script], &mail.content).good();
}
