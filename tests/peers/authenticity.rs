//! Mail that is signed, and mail that is verified: with dkimpy and OpenDKIM as the other side, and unbound for the DNS.

use std::{fmt::Write as _, path::Path};

use end_to_end::{Client, Finished, Server, Sink, built, run, tool, until};
use serde_json::Value;

use crate::names::Unbound;

/// Debian's, which has its modules.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A text record for unbound, in strings that are short enough.
pub(crate) fn text_record(name: &str, text: &str) -> String {
    let mut line = format!("local-data: '{name} TXT");
    for string in text.as_bytes().chunks(200) {
        let _ = write!(line, " \"{}\"", String::from_utf8_lossy(string));
    }
    line + "'\n"
}

/// A key made by `ringpost dkim`: the entry for the configuration, and the record to publish.
pub(crate) fn new_key(server: &Server, domain: &str, selector: &str, kind: &str) -> (String, String) {
    let file = server.place().join(&format!("dkim/{selector}.pem"));
    let arguments = ["dkim", domain, selector, "--kind", kind, "--key", file.to_str().unwrap()];
    let Finished { stdout, stderr, .. } = run(&built("ringpost"), &arguments, "").good();
    let strings = stderr.split('"').skip(1).step_by(2);
    (stdout, strings.collect())
}

/// What dkimpy says of each signature of a message, the first one first; it knows these records.
pub(crate) fn verified(content: &str, records: &[(&str, &str)]) -> String {
    let records: Vec<_> = records.iter().map(|(name, text)| format!("b'{name}.': b'{text}'")).collect();
    let script = format!(
        "import sys, dkim, re\n\
         records = {{{}}}\n\
         message = dkim.DKIM(sys.stdin.buffer.read(), minkey=1024)\n\
         signatures = [value for name, value in message.headers if name.lower() == b'dkim-signature']\n\
         for index, signature in enumerate(signatures):\n    \
             try:\n        good = message.verify(index, lambda name, timeout=5: records.get(name))\n    \
             except Exception as error:\n        good = error\n    \
             tag = lambda name: re.search(name + rb'=([^;\\s]+)', signature)[1].decode()\n    \
             print(tag(b' d'), tag(b' s'), good)\n",
        records.join(", ")
    );
    run(Path::new(PYTHON), &["-c", &script], content).good().stdout
}

/// The message signed by dkimpy with this key, which is a file.
pub(crate) fn signed(content: &str, domain: &str, selector: &str, key: &Path) -> String {
    let key = key.to_str().unwrap();
    let script = format!(
        "import sys, dkim, re, base64\n\
         pem = open({key:?}, 'rb').read()\n\
         message = sys.stdin.buffer.read()\n\
         sys.stdout.buffer.write(dkim.sign(message, b'{selector}', b'{domain}', pem) + message)\n"
    );
    run(Path::new(PYTHON), &["-c", &script], content).good().stdout
}

pub(crate) const MESSAGE: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: \t folded\r\n  and  on\r\n\
                       Date: Sun, 29 Nov 2026 06:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n\
                       One  line \r\n\r\n.and\tanother\r\n \r\n\r\n";

#[test]
fn others_verify_what_we_sign() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let (rsa, rsa_record) = new_key(&server, "example.org", "r1", "rsa2048");
    let (ed, ed_record) = new_key(&server, "example.org", "e1", "ed25519");
    let (news, news_record) = new_key(&server, "news.example.org", "n1", "rsa2048");
    let news = format!(
        "{news}authors = [\"*.example.org\"]\nheader = \"simple\"\nbody = \"simple\"\nlifetime = \"7d\"\n"
    );
    let spill = "[journal]\nspill = \"64KiB\"\n[limits]\nmessage-size-max = \"16MiB\"\n";
    server.configure(&format!("{rsa}{ed}{news}{spill}{}", sink.route()));
    server.resume();
    let records = [
        ("r1._domainkey.example.org", rsa_record.as_str()),
        ("e1._domainkey.example.org", &ed_record),
        ("n1._domainkey.news.example.org", &news_record),
    ];
    // A message that is written out before its end, too.
    let large = format!("{MESSAGE}{}", "And it goes on, and on. \r\n".repeat(100_000));
    for content in [MESSAGE, &large] {
        server.client().send("ann@example.org", &["bob@example.net"], content);
        let received = sink.mail().content;
        assert!(received.starts_with("DKIM-Signature: "), "{}", &received[..400]);
        let said = verified(&received, &records);
        assert_eq!(
            said,
            "example.org e1 True\nexample.org r1 True\n",
            "{}",
            &received[..2000.min(received.len())]
        );
        let accepted = server.event("accepted", |_| true);
        assert_eq!(accepted["signatures"], 2, "{accepted}");
        let outcome = server.event("outcome", |_| true);
        assert_eq!(accepted["size"].as_u64(), Some(received.len() as u64), "{outcome}");
        // One octet more, and it is another message.
        let forged = verified(&received.replace("another", "an other"), &records);
        assert!(!forged.contains("True"), "{forged}");
        let forged = verified(&received.replacen("Subject:", "Subject: x\r\nSubject:", 1), &records);
        assert!(!forged.contains("True"), "{forged}");
    }
    // What a user's program leaves out is signed, too.
    let incomplete = "From: ann@mail.example.org\r\n\r\nx\r\n";
    let mut client = Client::greeted(server.submission());
    client.send("ann@example.org", &["bob@example.net"], incomplete);
    let received = sink.mail().content;
    assert_eq!(verified(&received, &records), "news.example.org n1 True\n", "{received}");
    assert!(received.contains("\r\nMessage-ID: ") && received.contains("; x="), "{received}");
    let forged = received.replacen("\r\nMessage-ID: <", "\r\nMessage-ID: <x", 1);
    assert_eq!(verified(&forged, &records), "news.example.org n1 False\n");
    // Whoever has no key is not signed for.
    server.client().send(
        "eve@example.com",
        &["bob@example.net"],
        &MESSAGE.replace("example.org", "example.com"),
    );
    assert!(!sink.mail().content.contains("DKIM-Signature"));
    assert_eq!(server.metric("ringpost_dkim_signatures_total", &["result=\"done\""]), 5.0);
    // Another key in its place is taken without a reload.
    let file = server.place().join("dkim/r1.pem");
    std::fs::remove_file(&file).unwrap();
    let (_, renewed) = new_key(&server, "example.org", "r1", "rsa2048");
    server.event("certificates_renewed", |_| true);
    server.client().send("ann@example.org", &["bob@example.net"], MESSAGE);
    let records = [("r1._domainkey.example.org", renewed.as_str()), records[1]];
    assert_eq!(verified(&sink.mail().content, &records), "example.org e1 True\nexample.org r1 True\n");
}

/// "The message needs at least one valid authentication identifier … it MUST cover at least the List-Unsubscribe and
/// List-Unsubscribe-Post headers" (RFC 8058 §4): also when they are ours.
#[test]
fn the_links_to_leave_a_list_are_signed() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let (rsa, rsa_record) = new_key(&server, "example.org", "r1", "rsa2048");
    // Whoever chooses what is signed chooses other things.
    let rsa = format!("{rsa}fields = [\"Subject\"]\nsealed = [\"To\"]\n");
    let (ed, ed_record) = new_key(&server, "example.org", "e1", "ed25519");
    let tenant = "[[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\nsuppression = \"refuse\"\nunsubscribe = \"all\"\n\
                  [unsubscribe]\nurl = \"https://news.example.org/u\"\nsecrets = [\"0123456789abcdef\"]\n\
                  [journal]\nspill = \"64KiB\"\n[limits]\nmessage-size-max = \"16MiB\"\n";
    server.configure(&format!("{rsa}{ed}{tenant}{}", sink.route()));
    server.resume();
    let records =
        [("r1._domainkey.example.org", rsa_record.as_str()), ("e1._domainkey.example.org", &ed_record)];
    let both = "example.org e1 True\nexample.org r1 True\n";
    // Also when the body is written out before the header section is.
    let large = format!("{MESSAGE}{}", "And it goes on, and on. \r\n".repeat(100_000));
    for content in [MESSAGE, &large] {
        server.client().send("ann@example.org", &["bob@example.net"], content);
        let received = sink.mail().content;
        assert_eq!(verified(&received, &records), both, "{}", &received[..2000.min(received.len())]);
        for signature in signed_fields(&received) {
            for name in ["list-unsubscribe", "list-unsubscribe-post"] {
                assert!(signature.iter().any(|signed| signed == name), "{name}: {signature:?}");
            }
        }
        // Another link, another way, or none, and it is another message.
        for (ours, theirs) in [
            ("List-Unsubscribe: <https://news.example.org", "List-Unsubscribe: <https://evil.example.org"),
            ("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", ""),
            ("List-Unsubscribe=One-Click", "List-Unsubscribe=Two-Clicks"),
        ] {
            assert!(received.contains(ours), "{ours}");
            let forged = verified(&received.replacen(ours, theirs, 1), &records);
            assert!(!forged.contains("True"), "{ours}: {forged}");
        }
    }
    // Links of the sender's own are as much covered.
    let own = MESSAGE.replacen(
        "Subject:",
        "List-Unsubscribe: <https://example.org/leave>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nSubject:",
        1,
    );
    server.client().send("ann@example.org", &["bob@example.net"], &own);
    let received = sink.mail().content;
    assert!(!received.contains("news.example.org"), "{received}");
    assert_eq!(verified(&received, &records), both, "{received}");
    let forged = verified(&received.replacen("/leave", "/stay", 1), &records);
    assert!(!forged.contains("True"), "{forged}");
}

/// The names in `h=` of each signature, in lower case.
fn signed_fields(content: &str) -> Vec<Vec<String>> {
    let script = "import sys, dkim, re\n\
                  message = dkim.DKIM(sys.stdin.buffer.read())\n\
                  for name, value in message.headers:\n    \
                      if name.lower() == b'dkim-signature':\n        \
                          tags = dkim.util.parse_tag_value(value)\n        \
                          print(re.sub(rb'\\s', b'', tags[b'h']).decode().lower())\n";
    let said = run(Path::new(PYTHON), &["-c", script], content).good().stdout;
    let lines: Vec<Vec<String>> =
        said.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect();
    assert_eq!(lines.len(), 2, "{said}");
    lines
}

/// A report of ours is signed as the mail of anybody else of our domain.
#[test]
fn our_reports_are_signed() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let (key, record) = new_key(&server, "mx.ringpost.test", "s1", "rsa2048");
    server.configure(&format!("{key}{}", sink.route()));
    server.resume();
    sink.answer(|command| command.starts_with("RCPT TO:<bob").then(|| "550 5.1.1 nobody".into()));
    server.client().send("ann@example.org", &["bob@example.net"], MESSAGE);
    let report = sink.mail().content;
    let records = [("s1._domainkey.mx.ringpost.test", record.as_str())];
    assert_eq!(verified(&report, &records), "mx.ringpost.test s1 True\n", "{report}");
}

/// A server that takes mail for example.net of everybody, who comes by a proxy; with keys of example.org in the DNS.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) sink: Sink,
    dns: Unbound,
    more: String,
}

const ZONE: &str = "\
    local-data: 'client.example.org A 192.0.2.1'\n\
    local-data: '1.2.0.192.in-addr.arpa PTR client.example.org'\n\
    local-data: 'example.org TXT \"v=spf1 ip4:192.0.2.1 -all\"'\n\
    local-data: 'soft.example TXT \"v=spf1 ~all\"'\n\
    local-data: 'broken.example TXT \"v=spf1 ip4:nonsense -all\"'\n\
    local-data: 'bare.example A 192.0.2.9'\n";

const POLICY: &str = "local-data: '_dmarc.example.org TXT \"v=DMARC1; p=reject; sp=quarantine\"'\n";

const PROXIED: &str =
    "[[listener]]\nname = \"smtp\"\nproxy-networks = [\"127.0.0.0/8\"]\n[[domain]]\nname = \"example.net\"\n";

/// Whatever is looked at, and these rules for what is found.
fn rules(rules: &str) -> String {
    format!("[authentication]\nverify = true\n{rules}")
}

impl House {
    fn new(rules: &str) -> Self {
        Self::with(rules, |_, sink| (POLICY.to_owned(), sink.route()))
    }

    /// With what else is to be in the DNS, and in the configuration.
    pub(crate) fn with(rules: &str, more: impl FnOnce(&Server, &Sink) -> (String, String)) -> Self {
        let (sink, server) = (Sink::start(), Server::prepare(""));
        let (_, rsa) = new_key(&server, "example.org", "r1", "rsa2048");
        let (_, ed) = new_key(&server, "example.org", "e1", "ed25519");
        let records =
            text_record("r1._domainkey.example.org", &rsa) + &text_record("e1._domainkey.example.org", &ed);
        let (zone, more) = more(&server, &sink);
        let dns = Unbound::start(&format!("{ZONE}{records}{zone}"));
        let mut house = Self { server, sink, dns, more };
        house.server.configure(&house.configuration(rules));
        house.server.resume();
        house
    }

    fn configuration(&self, rules: &str) -> String {
        let spill = "[journal]\nspill = \"64KiB\"\n[limits]\nmessage-size-max = \"16MiB\"\n";
        let dns = format!("[dns]\nservers = [\"{}\"]\n", self.dns.address);
        format!("{PROXIED}{spill}{dns}{}{}", self::rules(rules), self.more)
    }

    pub(crate) fn change(&self, rules: &str) {
        self.server.configure(&self.configuration(rules));
        assert_eq!(self.server.reload()["event"], "reloaded");
    }

    /// A session of a client at this address.
    fn client(&self, address: &str) -> Client {
        let mut client = Client::connect(self.server.smtp());
        client.put(format!("PROXY TCP4 {address} 198.51.100.1 56324 25\r\n").as_bytes());
        client.expect(220);
        client.say("EHLO client.example.org");
        client.expect(250);
        client
    }

    /// Sends it, and answers the last reply.
    pub(crate) fn send(&self, address: &str, from: &str, content: &str) -> String {
        self.send_to(address, from, "bob@example.net", content)
    }

    /// Sends it to somebody.
    pub(crate) fn send_to(&self, address: &str, from: &str, to: &str, content: &str) -> String {
        let mut client = self.client(address);
        for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>")] {
            client.say(&line);
            client.expect(250);
        }
        client.say("DATA");
        client.expect(354);
        client.put(content.replace("\r\n.", "\r\n..").as_bytes());
        let reply = client.ask(".");
        format!("{} {}", reply.code, reply.text())
    }

    /// What its fields say of a message that was taken.
    pub(crate) fn taken(&self, address: &str, from: &str, content: &str) -> String {
        let reply = self.send(address, from, content);
        assert!(reply.starts_with("250 "), "{reply}");
        self.sink.mail().content
    }

    pub(crate) fn key(&self, name: &str) -> std::path::PathBuf {
        self.server.place().join(name)
    }
}

/// The value of the first field with this name, in one line.
pub(crate) fn field(content: &str, name: &str) -> String {
    let unfolded = content.replace("\r\n\t", " ").replace("\r\n ", " ");
    let value = unfolded.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    value.unwrap_or_else(|| panic!("no {name}: {}", &content[..2000.min(content.len())])).to_owned()
}

#[test]
fn we_verify_what_others_sign() {
    let house = House::new("");
    let sent = signed(MESSAGE, "example.org", "r1", &house.key("dkim/r1.pem"));
    let received = house.taken("192.0.2.1", "ann@example.org", &sent);
    let results = field(&received, "Authentication-Results");
    for part in [
        "mx.ringpost.test; iprev=pass",
        "spf=pass smtp.mailfrom=ann@example.org",
        "dkim=pass header.d=example.org header.s=r1",
        "dmarc=pass",
        "header.from=example.org",
    ] {
        assert!(results.contains(part), "{part}: {results}");
    }
    assert!(field(&received, "Received-SPF").starts_with("pass "), "{received}");
    assert!(received.starts_with("Authentication-Results: "), "{received}");
    assert!(received.ends_with(&sent), "nothing else is touched");
    let accepted = house.server.event("accepted", |_| true);
    assert_eq!(
        [&accepted["spf"], &accepted["dkim"], &accepted["dmarc"]],
        [&Value::from("pass"); 3],
        "{accepted}"
    );
    // By another program, and by somebody who is not among those whom SPF names: the signature stands for the author.
    let key = house.key("dkim/r1.pem");
    let arguments = ["-C", "-d", "example.org", "-s", "r1", "-k", key.to_str().unwrap()];
    let sent = run(&tool("opendkim-testmsg"), &arguments, MESSAGE).good().stdout;
    // It still signs with SHA-1, which proves nothing any more (RFC 8301 §3.1).
    let results = field(&house.taken("192.0.2.66", "list@bare.example", &sent), "Authentication-Results");
    assert!(results.contains("dkim=policy reason=\"SHA-1 is not accepted\""), "{results}");
    house.change("sha1 = true\n");
    let results = field(&house.taken("192.0.2.66", "list@bare.example", &sent), "Authentication-Results");
    assert!(
        results.contains("dkim=pass header.d=example.org") && results.contains("dmarc=pass"),
        "{results}"
    );
    assert!(results.contains("iprev=permerror") && results.contains("spf=none"), "{results}");
    // Larger than what stays in memory: what is found stands before the first octet all the same.
    let large = format!("{MESSAGE}{}", "And it goes on, and on. \r\n".repeat(100_000));
    let sent = signed(&large, "example.org", "r1", &house.key("dkim/r1.pem"));
    let received = house.taken("192.0.2.1", "ann@example.org", &sent);
    assert!(field(&received, "Authentication-Results").contains("dkim=pass"), "{}", &received[..1000]);
    assert!(received.starts_with("Authentication-Results: ") && received.ends_with(&sent));
    // A changed body, header, key.
    for (change, result) in [
        (sent.replacen("And it goes", "And it went", 1), "reason=\"body hash did not verify\""),
        (sent.replacen("Subject: \t folded", "Subject: \t forged", 1), "reason=\"signature did not verify\""),
        (sent.replacen("s=r1", "s=r2", 1), "reason=\"no key for signature\""),
    ] {
        let results = field(&house.taken("192.0.2.66", "x@bare.example", &change), "Authentication-Results");
        assert!(results.contains(result) && results.contains("dmarc=fail"), "{result}: {results}");
    }
    let count = |method: &str, result: &str| {
        let labels = [format!("method=\"{method}\""), format!("result=\"{result}\"")];
        house.server.metric("ringpost_authentication_results_total", &labels.each_ref().map(String::as_str))
    };
    assert_eq!((count("dkim", "pass"), count("dmarc", "pass"), count("dmarc", "fail")), (3.0, 3.0, 4.0));
}

/// What others wrote in our name is taken out, wherever it stands (RFC 8601 §5); what they wrote in theirs stays.
#[test]
fn results_in_our_name_are_ours() {
    let house = House::new("");
    let forged =
        "Authentication-Results: mx.ringpost.test; dkim=pass header.d=example.org;\r\n\tdmarc=pass\r\n";
    let other = "Authentication-Results: elsewhere.test; dkim=fail\r\n";
    let hidden = "aUTHENTICATION-rESULTS: (a comment) MX.ringpost.TEST (v) 1; spf=pass\r\n";
    let spf = "Received-SPF: pass (x) receiver=mx.ringpost.test; client-ip=192.0.2.1\r\n";
    let plain = MESSAGE.replace("example.org", "bare.example");
    let many = "More, and more. \r\n".repeat(10_000);
    for body in ["", &many] {
        let sent = format!("{forged}{other}{hidden}{spf}{plain}{body}");
        let received = house.taken("192.0.2.66", "x@bare.example", &sent);
        assert!(
            received.ends_with(&format!("{other}{plain}{body}")),
            "{}",
            &received[..1500.min(received.len())]
        );
        let accepted = house.server.event("accepted", |_| true);
        assert_eq!(accepted["size"].as_u64(), Some(received.len() as u64));
        let results = field(&received, "Authentication-Results");
        assert!(results.starts_with("mx.ringpost.test; iprev="), "{results}");
    }
    // Our own clients are believed.
    let own = format!("[relay]\nnetworks = [\"192.0.2.66\"]\n{}", house.configuration(""));
    house.server.configure(&own);
    house.server.reload();
    let received = house.taken("192.0.2.66", "x@bare.example", &format!("{forged}{plain}"));
    assert!(received.contains(forged), "{received}");
}

#[test]
fn what_becomes_of_mail_that_is_not_from_whom_it_says() {
    let strict = "spf-fail = \"refuse\"\nspf-softfail = \"tag\"\nspf-permerror = \"defer\"\ndkim-fail = \"tag\"\n\
                  dmarc-reject = \"refuse\"\ndmarc-quarantine = \"quarantine\"\nno-author = \"refuse\"\n";
    let house = House::new(strict);
    let of = |domain: &str| MESSAGE.replace("example.org", domain);
    let refused = |address: &str, from: &str, content: &str, reply: &str| {
        assert_eq!(house.send(address, from, content), reply);
    };
    let dmarc = "550 5.7.26 DMARC: refused as the author's domain asks";
    refused("192.0.2.66", "x@bare.example", MESSAGE, dmarc);
    let doubted = house.server.event("doubted", |_| true);
    assert_eq!(
        [&doubted["against"], &doubted["action"], &doubted["author"], &doubted["dry_run"]],
        ["dmarc-reject", "refuse", "example.org", "no"],
        "{doubted}"
    );
    refused(
        "192.0.2.66",
        "x@example.org",
        &of("bare.example"),
        "550 5.7.23 SPF: your address may not send for the sender's domain",
    );
    let later = "451 4.7.1 cannot tell that this is from its sender, try again later";
    refused("192.0.2.66", "x@broken.example", &of("bare.example"), later);
    let nobody = "550 5.7.1 From has no author, or authors of several domains";
    refused("192.0.2.66", "x@bare.example", &MESSAGE.replacen("From:", "X-From:", 1), nobody);
    let two = format!("From: eve@bare.example\r\n{MESSAGE}");
    refused("192.0.2.66", "x@bare.example", &two, nobody);
    // The sender itself, with the same rules.
    assert!(house.taken("192.0.2.1", "ann@example.org", MESSAGE).contains("dmarc=pass"));
    let tagged = house.taken("192.0.2.66", "x@soft.example", &of("bare.example"));
    assert_eq!(field(&tagged, "X-Authentication-Warning"), "mx.ringpost.test: spf-softfail");
    // Below the domain it asks for less.
    let reply = house.send("192.0.2.66", "x@bare.example", &of("sub.example.org"));
    assert!(reply.starts_with("250 "), "{reply}");
    let [held] = &house.server.queue_json(&["list"])[..] else { panic!("one is held") };
    assert_eq!(held["recipients"][0]["state"], "held", "{held}");
    house.server.queue(&["release", "--all"]).good();
    let released = house.sink.mail().content;
    assert_eq!(field(&released, "X-Authentication-Warning"), "mx.ringpost.test: dmarc-quarantine");
    // All of it only told.
    house.change(&format!("{strict}dry-run = true\n"));
    let received = house.taken("192.0.2.66", "x@example.org", MESSAGE);
    assert!(received.contains("spf=fail") && !received.contains("X-Authentication-Warning"), "{received}");
    let doubted = house.server.event("doubted", |event| event["dry_run"] == "yes");
    assert_eq!((&doubted["against"], &doubted["action"]), (&"dmarc-reject".into(), &"refuse".into()));
    assert!(house.server.metric("ringpost_authentication_actions_total", &["action=\"refuse\""]) >= 5.0);
}

/// A held message is held after a crash, and not lost with it.
#[test]
fn what_is_held_stays_held() {
    let mut house = House::new("dmarc-reject = \"quarantine\"\n");
    let reply = house.send("192.0.2.66", "x@bare.example", MESSAGE);
    assert!(reply.starts_with("250 "), "{reply}");
    house.server.kill();
    house.server.resume();
    let held = until("it is back", || house.server.queue_json(&["list"]).into_iter().next());
    assert_eq!(held["recipients"][0]["state"], "held", "{held}");
    assert_eq!(house.sink.waiting(), 0);
}

/// Without an answer nothing is known, and that is no reason to take what an answer would have refused.
#[test]
fn without_the_dns_nothing_passes() {
    let mut house = House::new("dmarc-reject = \"refuse\"\nunknown = \"defer\"\nlookup-time-max = \"1s\"\n");
    let gone = Unbound::start("local-zone: example.org always_deny\n");
    house.dns = gone;
    house.change("dmarc-reject = \"refuse\"\nunknown = \"defer\"\nlookup-time-max = \"1s\"\n");
    let reply = house.send("192.0.2.66", "x@bare.example", MESSAGE);
    assert_eq!(reply, "451 4.4.3 cannot judge now, try again later");
    house.change("lookup-time-max = \"1s\"\n");
    let received = house.taken("192.0.2.66", "x@bare.example", MESSAGE);
    assert!(field(&received, "Authentication-Results").contains("dmarc=temperror"), "{received}");
}

/// What dkimpy says of a chain; it knows these records.
fn chain(content: &str, records: &[(&str, &str)]) -> String {
    let records: Vec<_> = records.iter().map(|(name, text)| format!("b'{name}.': b'{text}'")).collect();
    let script = format!(
        "import sys, dkim\n\
         records = {{{}}}\n\
         cv, sets, why = dkim.arc_verify(sys.stdin.buffer.read(), dnsfunc=lambda name, timeout=5: records.get(name))\n\
         print(cv.decode(), len(sets), why)\n",
        records.join(", ")
    );
    run(Path::new(PYTHON), &["-c", &script], content).good().stdout.trim().to_owned()
}

/// The message as dkimpy passes it on: with results of its own, which it seals with this key.
fn passed_on(content: &str, results: &str, domain: &str, selector: &str, key: &Path) -> String {
    let key = key.to_str().unwrap();
    let script = format!(
        "import sys, dkim\n\
         pem = open({key:?}, 'rb').read()\n\
         message = b'Authentication-Results: {domain}; {results}\\r\\n' + sys.stdin.buffer.read()\n\
         fields = dkim.arc_sign(message, b'{selector}', b'{domain}', pem, b'{domain}')\n\
         sys.stdout.buffer.write(b''.join(fields) + message)\n"
    );
    run(Path::new(PYTHON), &["-c", &script], content).good().stdout
}

#[test]
fn others_follow_the_chain_that_we_seal() {
    let house = House::new("");
    let (_, public) = new_key(&house.server, "example.org", "r1", "rsa2048");
    let (_, public_ed) = new_key(&house.server, "example.org", "e1", "ed25519");
    let records = [("r1._domainkey.example.org", public.as_str()), ("e1._domainkey.example.org", &public_ed)];
    let seal = |selector: &str| {
        format!(
            "seal = \"k\"\n[[dkim]]\nname = \"k\"\ndomain = \"example.org\"\nselector = \"{selector}\"\n\
             key = \"dkim/{selector}.pem\"\n"
        )
    };
    for (selector, instance) in [("r1", 1), ("e1", 1), ("r1", 2), ("r1", 3)] {
        house.change(&seal(selector));
        let mut sent = signed(MESSAGE, "example.org", "r1", &house.key("dkim/r1.pem"));
        for hop in 1..instance {
            let results = if hop == 1 { "dmarc=pass" } else { "arc=pass; dmarc=pass" };
            sent = passed_on(&sent, results, "example.org", "r1", &house.key("dkim/r1.pem"));
        }
        let received = house.taken("192.0.2.1", "ann@example.org", &sent);
        assert!(received.starts_with("ARC-Seal: "), "{received}");
        assert!(received.ends_with(&sent), "nothing else is touched");
        // dkimpy knows no Ed25519 in chains.
        if selector == "r1" {
            assert_eq!(chain(&received, &records), format!("pass {instance} success"), "{received}");
            let forged = received.replacen("One  line", "Two  lines", 1);
            assert!(chain(&forged, &records).starts_with("fail"), "{forged}");
        }
    }
    assert_eq!(house.server.metric("ringpost_arc_seals_total", &[]), 4.0);
}

#[test]
fn who_passes_mail_on_may_be_believed() {
    let refuse = "dmarc-reject = \"refuse\"\nspf-fail = \"refuse\"\n";
    let house = House::new(refuse);
    // A list has changed the subject: the signature is broken, and the list is not among those whom SPF names.
    let sent = signed(MESSAGE, "example.org", "r1", &house.key("dkim/r1.pem"));
    let changed = sent.replacen("Subject: \t folded", "Subject: [list] folded", 1);
    let list = passed_on(&changed, "dmarc=pass", "example.org", "r1", &house.key("dkim/r1.pem"));
    let refused = house.send("192.0.2.66", "list@bare.example", &list);
    assert!(refused.starts_with("550 5.7.26"), "{refused}");
    house.change(&format!("{refuse}trusted-sealers = [\"example.org\"]\n"));
    let results = field(&house.taken("192.0.2.66", "list@bare.example", &list), "Authentication-Results");
    assert!(results.contains("arc=pass (i=1, sealed by example.org)"), "{results}");
    assert!(results.contains("dmarc=fail"), "{results}");
    // Whoever changes it once more is not believed, nor is one who says that it had failed.
    let forged = list.replacen("One  line", "Two  lines", 1);
    let refused = house.send("192.0.2.66", "list@bare.example", &forged);
    assert!(refused.starts_with("550 5.7.26"), "{refused}");
    let honest = passed_on(&changed, "dmarc=fail", "example.org", "r1", &house.key("dkim/r1.pem"));
    let refused = house.send("192.0.2.66", "list@bare.example", &honest);
    assert!(refused.starts_with("550 5.7.26"), "{refused}");
    // The operator knows better than a domain what it sends.
    let rule = "[[author-rule]]\nname = \"a\"\ndomains = [\"example.org\"]\nnot-passed = \"tag\"\n";
    house.change(&format!("{refuse}{rule}"));
    let taken = house.taken("192.0.2.66", "list@bare.example", &honest);
    assert!(field(&taken, "X-Authentication-Warning").ends_with("author-rule"), "{taken}");
}
