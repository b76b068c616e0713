//! Certificates: ours by the name that is asked for, those of clients, and sessions that are taken up again.

use std::path::PathBuf;

use end_to_end::{Finished, Server, Sink, run, tool};

use crate::swaks;

/// Files of the server's place, made by openssl.
pub(crate) struct Papers<'a>(pub(crate) &'a Server);

impl Papers<'_> {
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.place().join(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, arguments: &[&str]) -> Finished {
        run(&tool("openssl"), arguments, "").good()
    }

    /// NAME.pem and NAME.key, signed by itself.
    pub(crate) fn own(&self, name: &str, subject: &str, more: &[&str]) {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let common =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
        let files = ["-subj", subject, "-out", &certificate, "-keyout", &key];
        self.openssl(&[&common[..], &files, more].concat());
    }

    /// NAME.pem and NAME.key, signed by ca.pem.
    fn issued(&self, name: &str) {
        let [certificate, key, request, ca, ca_key, purpose] =
            [&format!("{name}.pem"), &format!("{name}.key"), "request", "ca.pem", "ca.key", "purpose"]
                .map(|name| self.path(name));
        self.0.place().write("purpose", "extendedKeyUsage = clientAuth\n");
        let common = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"];
        self.openssl(&[&common[..], &["/CN=client.test", "-out", &request, "-keyout", &key]].concat());
        let common = ["x509", "-req", "-days", "30", "-CAcreateserial", "-extfile", &purpose];
        let files = ["-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-out", &certificate];
        self.openssl(&[&common[..], &files].concat());
    }

    /// As openssl prints it, and as we do.
    pub(crate) fn fingerprint(&self, name: &str) -> (String, String) {
        let path = self.path(name);
        let printed = self.openssl(&["x509", "-noout", "-fingerprint", "-sha256", "-in", &path]).stdout;
        let digits = printed.trim().split_once('=').unwrap().1.to_owned();
        let ours = format!("sha256:{}", digits.replace(':', "").to_ascii_lowercase());
        (digits, ours)
    }
}

const TO: [&str; 2] = ["--to", "bob@example.com"];

#[test]
fn a_certificate_is_a_credential() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let papers = Papers(&server);
    papers.own("listed", "/CN=listed.test", &[]);
    papers.own("other", "/CN=other.test", &[]);
    papers.own("ca", "/CN=authority.test", &["-addext", "basicConstraints=critical,CA:TRUE"]);
    papers.issued("issued");
    let (printed, fingerprint) = papers.fingerprint("listed.pem");
    let configuration = |listed: &str| {
        format!(
            "[relay]\nnetworks = []\ncertificates = [{listed}]\nauthorities = [\"ca.pem\"]\n\
             [[listener]]\nname = \"smtp\"\nclient-certificate = \"request\"\n\
             [[listener]]\nname = \"smtps\"\nclient-certificate = \"require\"\n\
             [[listener]]\nname = \"submission\"\nclient-certificate = \"request\"\n{}",
            sink.route()
        )
    };
    let paths = ["listed", "issued", "other"]
        .map(|name| [format!("{name}.pem"), format!("{name}.key")].map(|name| Papers(&server).path(&name)));
    server.configure(&configuration(&format!("\"{printed}\"")));
    server.resume();
    let with = |[certificate, key]: &[String; 2]| {
        ["--tls-cert".to_owned(), certificate.clone(), "--tls-key".to_owned(), key.clone()]
    };
    let send = |to, tls: &str, holder: Option<usize>| {
        let certificate = holder.map_or(Vec::new(), |holder| with(&paths[holder]).to_vec());
        let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
        swaks(to, &[&TO[..], &[tls], &certificate].concat())
    };
    for holder in [0, 1] {
        for (to, tls) in
            [(server.smtp(), "--tls"), (server.smtps(), "--tls-on-connect"), (server.submission(), "--tls")]
        {
            send(to, tls, Some(holder)).good();
            sink.mail();
            let accepted = server.event("accepted", |_| true);
            assert_eq!(accepted["cert"] == fingerprint, holder == 0, "{accepted}");
            assert!(accepted["cert"].as_str().unwrap().starts_with("sha256:"), "{accepted}");
        }
    }
    // Who has another, or none, may not relay, nor submit, nor come in at all where one is required.
    for holder in [Some(2), None] {
        let session = send(server.smtp(), "--tls", holder);
        assert!(session.stdout.contains("550 5.7.1 relaying denied"), "{session}");
        let session = send(server.submission(), "--tls", holder);
        assert!(session.stdout.contains("530 5.7.0 authentication required"), "{session}");
        let session = send(server.smtps(), "--tls-on-connect", holder);
        assert!(!session.status.success() && !session.stdout.contains("220 mx"), "{session}");
        server.event("tls_failed", |event| event["side"] == "in");
    }
    let shown = server.events("certificate_shown");
    let trusted = |trusted: &str| shown.iter().filter(|event| event["trusted"] == trusted).count();
    assert_eq!((trusted("yes"), trusted("no")), (6, 2));
    // Struck off the list, without a restart.
    server.configure(&configuration(""));
    assert_eq!(server.reload()["event"], "reloaded");
    let session = send(server.smtp(), "--tls", Some(0));
    assert!(session.stdout.contains("550 5.7.1 relaying denied"), "{session}");
    send(server.smtp(), "--tls", Some(1)).good();
    sink.mail();
    assert_eq!(sink.waiting(), 0);
}

/// Says these over STARTTLS by Python's smtplib, with a certificate or without, and answers the codes.
fn ask(server: &Server, certificate: Option<&str>, commands: &[&str]) -> Vec<String> {
    let (host, port) = (server.smtp().ip(), server.smtp().port());
    let chain = certificate.map_or(String::new(), |name| {
        let [certificate, key] = ["pem", "key"].map(|end| Papers(server).path(&format!("{name}.{end}")));
        format!("context.load_cert_chain({certificate:?}, {key:?})")
    });
    let script = format!(
        r#"
import smtplib, ssl
context = ssl._create_unverified_context()
{chain}
with smtplib.SMTP("{host}", {port}) as client:
    client.ehlo()
    print("offered" if client.has_extn("etrn") else "absent")
    client.starttls(context=context)
    client.ehlo()
    print("offered" if client.has_extn("etrn") else "absent")
    for command in {commands:?}:
        print(client.docmd(command)[0])
"#
    );
    run(&tool("python3"), &["-c", &script], "").good().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_certificate_is_enough_to_ask_for_mail() {
    let mut server = Server::prepare("");
    let papers = Papers(&server);
    papers.own("branch", "/CN=branch.test", &[]);
    papers.own("other", "/CN=other.test", &[]);
    let (_, branch) = papers.fingerprint("branch.pem");
    let configuration = |certificates: &str| {
        format!(
            "[relay]\nnetworks = []\n[[etrn]]\nname = \"branch\"\ncertificates = [{certificates}]\ndomains = [\"branch.example\"]\n\
             [[etrn]]\nname = \"hq\"\nnetworks = [\"192.0.2.0/24\"]\ndomains = [\"hq.example\"]\n\
             [[listener]]\nname = \"smtp\"\nclient-certificate = \"request\"\n"
        )
    };
    server.configure(&configuration(&format!("\"{branch}\"")));
    server.resume();
    let nodes = ["ETRN branch.example", "ETRN hq.example"];
    assert_eq!(ask(&server, Some("branch"), &nodes), ["absent", "offered", "251", "459"]);
    let asked = server.event("asked", |event| event["code"] == 251);
    assert_eq!(asked["cert"], *branch, "{asked}");
    assert_eq!(ask(&server, Some("other"), &nodes), ["absent", "absent", "502", "502"]);
    assert_eq!(ask(&server, None, &nodes), ["absent", "absent", "502", "502"]);
    // It says who asks, and not that he may relay.
    let relayed = ask(&server, Some("branch"), &["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.com>"]);
    assert_eq!(relayed[2..], ["250", "550"]);

    server.configure(&configuration(""));
    let said = server.command().arg("check").output().unwrap();
    assert!(!said.status.success(), "a rule for nobody");
}

#[test]
fn certificates_by_name() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    Papers(&server).own(
        "second",
        "/CN=second.test",
        &["-addext", "subjectAltName=DNS:second.test,DNS:*.second.test"],
    );
    server.configure(&format!(
        "[[certificate]]\nname = \"second\"\ncertificate = \"second.pem\"\nkey = \"second.key\"\n\
         domains = [\"third.test\"]\n{}",
        sink.route()
    ));
    server.resume();
    for (name, subject) in [
        ("second.test", "second.test"),
        ("SECOND.test", "second.test"),
        ("a.second.test", "second.test"),
        ("third.test", "second.test"),
        ("mx.ringpost.test", "mx.ringpost.test"),
        ("unknown.test", "mx.ringpost.test"),
    ] {
        for (to, tls) in [(server.smtp(), "--tls"), (server.smtps(), "--tls-on-connect")] {
            let session = swaks(to, &[&TO[..], &[tls, "--tls-sni", name]].concat()).good();
            let peer = session
                .stdout
                .lines()
                .find(|line| line.contains("peer DN=") || line.contains("peer subject"));
            let peer = peer.unwrap_or_else(|| panic!("{session}"));
            assert!(peer.contains(&format!("CN={subject}")), "{name}: {peer}");
            sink.mail();
        }
    }
}

#[test]
fn sessions_are_taken_up_again_by_every_core() {
    let sink = Sink::start();
    let mut server = Server::prepare(&sink.route());
    Papers(&server).own("listed", "/CN=listed.test", &[]);
    let (printed, _) = Papers(&server).fingerprint("listed.pem");
    let configuration = format!(
        "[relay]\nnetworks = []\ncertificates = [\"{printed}\"]\n\
         [[listener]]\nname = \"smtps\"\nclient-certificate = \"request\"\n{}",
        sink.route()
    );
    server.configure(&configuration);
    server.resume();
    let papers = Papers(&server);
    let [session, certificate, key] = ["session", "listed.pem", "listed.key"].map(|name| papers.path(name));
    let address = server.smtps().to_string();
    let talk = |arguments: &[&str], words: &str| {
        let common = ["s_client", "-quiet", "-crlf", "-connect", &address, "-servername", "mx.ringpost.test"];
        run(&tool("openssl"), &[&common[..], arguments].concat(), words).good()
    };
    let mail = "EHLO client.test\nMAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>\nDATA\n\n.\nQUIT\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let credential: [&str; 4] = ["-cert", &certificate, "-key", &key];
        talk(&[&[version, "-sess_out", &session][..], &credential].concat(), mail);
        sink.mail();
        let before = server.metric("ringpost_tls_resumed_total", &[]);
        // Connections come to either core; the certificate need not be shown again.
        for _ in 0..6 {
            let said = talk(&[version, "-sess_in", &session], mail).stdout;
            assert!(said.contains("250 2.0.0 queued"), "{said}");
            sink.mail();
        }
        // A reload changes nothing of it.
        assert_eq!(server.reload()["event"], "reloaded");
        let said = talk(&[version, "-sess_in", &session], mail).stdout;
        assert!(said.contains("250 2.0.0 queued"), "{said}");
        sink.mail();
        assert_eq!(server.metric("ringpost_tls_resumed_total", &[]) - before, 7.0, "{version}");
    }
}

#[test]
fn versions_suites_and_groups() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[tls]\nsuites = [\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]\n\
         groups = [\"secp384r1\"]\n{}",
        sink.route()
    ));
    let address = server.smtps().to_string();
    let talk = |arguments: &[&str]| {
        let common = ["s_client", "-connect", &address, "-crlf"];
        run(&tool("openssl"), &[&common[..], arguments].concat(), "QUIT\n")
    };
    let agreed = |arguments: &[&str], suite: &str| {
        let session = talk(arguments).good();
        assert!(session.stdout.contains(suite) && session.stdout.contains("secp384r1"), "{session}");
    };
    agreed(&["-tls1_3"], "TLS_CHACHA20_POLY1305_SHA256");
    agreed(&["-tls1_2"], "ECDHE-ECDSA-AES128-GCM-SHA256");
    for refused in [
        &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"][..],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        &["-groups", "X25519"],
    ] {
        assert!(!talk(refused).status.success(), "{refused:?}");
    }
    // TLS 1.3 alone, without a restart.
    server.configure(&format!("[tls]\nmin-version = \"1.3\"\n{}", sink.route()));
    assert_eq!(server.reload()["event"], "reloaded");
    assert!(talk(&["-tls1_3"]).status.success());
    assert!(!talk(&["-tls1_2"]).status.success());
}

/// A listener that lets nobody in is a mistake, and so is one where a certificate cannot be shown.
#[test]
fn what_contradicts_itself() {
    for (configuration, mistake) in [
        ("[[listener]]\nname = \"smtps\"\nclient-certificate = \"require\"\n", "nobody could come in"),
        (
            "[relay]\nauthorities = [\"missing.pem\"]\n[[listener]]\nname = \"smtps\"\nclient-certificate = \"request\"\n",
            "relay.authorities: cannot read",
        ),
    ] {
        let server = Server::prepare(configuration);
        let config: PathBuf = server.place().join("ringpost.toml");
        for command in ["check", "serve"] {
            let arguments = [command, "--config", config.to_str().unwrap()];
            let said = run(&end_to_end::built("ringpost"), &arguments, "");
            assert!(!said.status.success() && said.stderr.contains(mistake), "{command}: {said}");
        }
    }
}
