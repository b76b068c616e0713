//! Postfix before us, behind us, and both.

use std::{net::SocketAddr, process::Command};

use end_to_end::{Program, Server, Signal, Sink, built, free_address, run};

use crate::{
    drained, hop,
    postfix::{Postfix, SmtpSink, smtp_source},
};

/// Certificate and key of a server, for the Postfix beside it.
fn certificate(server: &Server) -> String {
    let (key, certificate) = (server.place().join("key.pem"), server.place().join("certificate.pem"));
    format!("smtpd_tls_chain_files = {}, {}\n", key.display(), certificate.display())
}

#[test]
fn smtp_source_through_us_into_smtp_sink() {
    let sink = SmtpSink::start();
    let server = Server::start(&hop(sink.address(), "none"));
    // Two recipients each; one message for a connection, then all of a session over one.
    smtp_source(server.smtp(), 150, &["-r", "2", "-l", "3000"]).good();
    smtp_source(server.smtp(), 150, &["-d", "-r", "2", "-l", "30000"]).good();
    let messages = sink.messages(300);
    drained(&server);
    assert_eq!(sink.count(), 300);
    let recipients = |message: &String| message.matches("X-Rcpt-Args: ").count();
    assert_eq!(messages.iter().map(recipients).sum::<usize>(), 600);
    assert!(
        messages.iter().all(|message| message.contains("by mx.ringpost.test with SMTP id ")),
        "{}",
        messages[0]
    );
    assert_eq!(server.metric("ringpost_messages_total", &["side=\"in\""]), 300.0);
    assert_eq!(server.metric("ringpost_recipients_total", &["side=\"out\""]), 600.0);
}

#[test]
fn we_relay_to_postfix_with_starttls() {
    let sink = SmtpSink::start();
    let mut server = Server::prepare("");
    let settings = "smtpd_tls_security_level = may\nsmtpd_tls_received_header = yes\n";
    let postfix = Postfix::start(sink.address(), &format!("{settings}{}", certificate(&server)));
    server.configure(&hop(postfix.address(), "opportunistic"));
    server.resume();
    smtp_source(server.smtp(), 50, &["-d", "-l", "5000"]).good();
    // What Postfix must not change, and what dots and lines must survive.
    let body = "\r\n.\u{e9}t\u{e9}\r\n..\r\nx\r\n\r\n";
    let header = "Subject: body\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                  Content-Transfer-Encoding: 8bit\r\n";
    let mut client = server.client();
    client.say("MAIL FROM:<ann@example.org> BODY=8BITMIME");
    client.expect(250);
    client.say("RCPT TO:<bob@example.net>");
    client.expect(250);
    client.say("DATA");
    client.expect(354);
    client.put(format!("{header}\r\n{}.\r\n", body.replace("\r\n.", "\r\n..")).as_bytes());
    client.expect(250);
    let messages = sink.messages(51);
    drained(&server);
    assert_eq!(sink.count(), 51);
    for message in &messages {
        assert!(message.contains("(using TLSv1.3 with cipher "), "{message}");
    }
    let one = messages.iter().find(|message| message.contains("Subject: body")).unwrap();
    // smtp-sink writes lines with a bare LF.
    assert!(one.contains(&body.replace("\r\n", "\n")), "{one}");
    for outcome in server.events("outcome") {
        assert_eq!(outcome["result"], "delivered", "{outcome}");
        assert!(outcome["tls"].as_str().unwrap().contains("1.3"), "{outcome}");
    }
    // Connections are used again: ten at most for fifty-one messages, and one more for each shard.
    let made = server.metric("ringpost_connections_total", &["side=\"out\""]);
    assert!(made <= 45.0, "{made} connections");
}

/// Content came in as whole buffers of ciphertext, and with the record begun before, one decrypted to more than a
/// buffer holds. Every eighth message of this size ended its connection.
#[test]
fn large_messages_under_tls() {
    let sink = LoadSink::start();
    let server = Server::start(&hop(sink.address(), "required"));
    for (more, messages) in
        [(["--pipelining", "off"], 60), (["--pipelining", "deep"], 60), (["--tls", "implicit"], 60)]
    {
        let implicit = more[1] == "implicit";
        let address = if implicit { server.smtps() } else { server.smtp() }.to_string();
        let messages = messages.to_string();
        let mut arguments =
            vec!["source", &address, "--json", "--quiet", "-n", &messages, "-s", "4", "-l", "100k-900k"];
        arguments.extend(more);
        if !implicit {
            arguments.extend(["--tls", "starttls"]);
        }
        let finished = run(&built("loadtest"), &arguments, "").good();
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(
            (&report["messages"], &report["errors"]),
            (&60.into(), &serde_json::json!({})),
            "{report}"
        );
    }
    drained(&server);
    let report = sink.finish();
    assert_eq!((&report["messages"], &report["damaged"]), (&180.into(), &0.into()), "{report}");
}

#[test]
fn tls_levels_towards_postfix() {
    let sink = SmtpSink::start();
    let mut server = Server::prepare("");
    let mut settings = format!("smtpd_tls_security_level = encrypt\n{}", certificate(&server));
    settings.push_str("smtpd_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1, !TLSv1.3\n");
    let postfix = Postfix::start(sink.address(), &settings);
    for (address, level, result, told) in [
        // Its certificate is its own: no authority has signed it.
        (postfix.address(), "required", "delivered", "1.2"),
        (postfix.address(), "verified", "deferred", "certificate"),
        (postfix.address(), "none", "failed", "STARTTLS"),
        // smtp-sink offers no STARTTLS.
        (sink.address(), "opportunistic", "delivered", ""),
        (sink.address(), "required", "deferred", "TLS"),
    ] {
        server.configure(&hop(address, level));
        server.resume();
        server.client().send("", &["bob@example.net"], "Subject: tls\r\n\r\n");
        let outcome = server.event("outcome", |_| true);
        assert_eq!(outcome["result"], result, "{level}: {outcome}");
        assert!(outcome.to_string().contains(told), "{level}: {outcome}");
        server.queue(&["remove", "--all", "--yes"]).good();
        server.stop();
    }
}

#[test]
fn postfix_relays_to_us() {
    let sink = SmtpSink::start();
    let server = Server::start(&hop(sink.address(), "none"));
    for (level, protocol) in [("none", "ESMTP"), ("encrypt", "ESMTPS")] {
        let before = sink.count();
        let settings = format!("smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n");
        let postfix = Postfix::start(server.smtp(), &settings);
        smtp_source(postfix.address(), 60, &["-d", "-r", "3", "-l", "4000"]).good();
        sink.messages(before + 60);
        drained(&server);
        postfix.logs("status=sent (250 2.0.0 queued as ");
        assert_eq!(sink.count(), before + 60);
        let with = |message: &&String| message.contains(&format!("by mx.ringpost.test with {protocol} id "));
        assert_eq!(sink.messages(0).iter().filter(with).count(), 60, "{level}");
    }
    // Implicit TLS, which Postfix calls wrapper mode.
    let settings = "smtp_tls_security_level = encrypt\nsmtp_tls_wrappermode = yes\n";
    let postfix = Postfix::start(server.smtps(), settings);
    smtp_source(postfix.address(), 10, &["-l", "4000"]).good();
    sink.messages(130);
    assert_eq!(server.metric("ringpost_tls_handshakes_total", &["side=\"in\"", "result=\"failed\""]), 0.0);
}

#[test]
fn postfix_returns_what_we_refuse() {
    // Our 5yz ends it for Postfix, which tells the sender: by us.
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[limits]\nmessage-size-max = \"64KiB\"\nheader-size-max = \"16KiB\"\n{}",
        sink.route()
    ));
    let postfix = Postfix::start(server.smtp(), "message_size_limit = 0\n");
    smtp_source(postfix.address(), 1, &["-l", "100000"]).good();
    postfix.logs("status=bounced");
    let report = sink.mail();
    assert!(report.mail.starts_with("<>"), "{report:?}");
    assert_eq!(report.rcpt.len(), 1);
    assert!(report.rcpt[0].starts_with("<ann@example.org>"), "{report:?}");
    assert!(report.content.contains("message size"), "{report:?}");
}

/// The bundled sink, with TLS: it knows whether a message is whole.
struct LoadSink {
    program: Program,
    address: SocketAddr,
}

impl LoadSink {
    fn start() -> Self {
        let address = free_address();
        let mut command = Command::new(built("loadtest"));
        command.args(["sink", "--json", "--starttls", "--listen", &address.to_string()]);
        let program = Program::start("sink", &mut command);
        program.wait_for("it listens", |line| line.starts_with("listening on").then_some(()));
        Self { program, address }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and reads its report.
    fn finish(mut self) -> serde_json::Value {
        self.program.signal(Signal::INT);
        assert!(self.program.wait().success());
        serde_json::from_str(&self.program.stdout()).unwrap()
    }
}
