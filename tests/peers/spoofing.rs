//! Mail that shows its reader another author than it has, in each way that was published: what becomes of it.
//!
//! [`attacks`] is the table of docs/spoofing.md, which is held against it (`UPDATE_GOLDEN=1` writes it anew).
//! `mallory@evil.example` brings all of it, whose own domain is in order: SPF and DMARC pass for it.

use std::{env, fmt::Write as _, fs, path::Path};

use end_to_end::{Client, run};

use crate::authenticity::{House, PYTHON};

#[path = "spoofing/author.rs"]
mod author;
#[path = "spoofing/fields.rs"]
mod fields;
#[path = "spoofing/proof.rs"]
mod proof;

/// One way to deceive.
struct Attack {
    name: &'static str,
    /// Who has described it.
    source: &'static str,
    message: fn(&House) -> Message,
    /// What becomes of it in a configuration that says nothing of it.
    by_default: Becomes,
    /// What refuses it.
    key: &'static str,
    /// How the reply begins then.
    refused: &'static str,
}

enum Becomes {
    /// It is refused; so the reply begins.
    Refused(&'static str),
    /// It is taken with a warning that says this.
    Flagged(&'static str),
    /// It is taken, and this is told of it in `Authentication-Results`.
    Told(&'static str),
    /// It is taken as any other, and this is counted: honest senders write so, too.
    Counted(&'static str),
    /// It is taken without this.
    Without(&'static str),
    /// It is taken: a message may be so.
    Taken,
}

use Becomes::{Counted, Flagged, Refused, Taken, Told, Without};

struct Message {
    helo: &'static str,
    reverse_path: &'static str,
    content: String,
}

/// CK: Chen, Paxson, Jiang: Composition Kills. WL: Shen and others: Weak Links in Authentication Chains.
fn attacks() -> impl Iterator<Item = &'static Attack> {
    [proof::ATTACKS, author::ATTACKS, fields::ATTACKS].into_iter().flatten()
}

/// What is as it should be, beside what these add.
fn plain(fields: &str) -> String {
    format!(
        "{fields}\r\nTo: bob@example.net\r\nSubject: hello\r\nDate: Sun, 29 Nov 2026 06:00:00 +0000\r\n\
         Message-ID: <1@evil.example>\r\n\r\nhello\r\n"
    )
}

fn of(content: &str) -> Message {
    Message { helo: "evil.example", reverse_path: "mallory@evil.example", content: content.to_owned() }
}

fn from(fields: &str) -> Message {
    of(&plain(fields))
}

/// With a signature by dkimpy that covers From, To, Subject and Date as they are.
fn signed(house: &House, domain: &str, selector: &str, before: &str, fields: &str) -> Message {
    let key = house.key("dkim/r1.pem");
    let script = format!(
        "import sys, dkim\n\
         length = False\n\
         {before}\n\
         message, pem = sys.stdin.buffer.read(), open({key:?}, 'rb').read()\n\
         fields = [b'from', b'to', b'subject', b'date']\n\
         signature = dkim.sign(message, b'{selector}', b'{domain}', pem, include_headers=fields, length=length)\n\
         sys.stdout.buffer.write(signature + message)\n"
    );
    of(&run(Path::new(PYTHON), &["-c", &script], &plain(fields)).good().stdout)
}

const ZONE: &str = "\
    local-data: 'evil.example TXT \"v=spf1 ip4:192.0.2.66 -all\"'\n\
    local-data: '_dmarc.evil.example TXT \"v=DMARC1; p=reject\"'\n\
    local-data: '_dmarc.example.org TXT \"v=DMARC1; p=reject; sp=quarantine\"'\n";

const STRICT: &str = "dmarc-reject = \"refuse\"\ndmarc-quarantine = \"refuse\"\nno-author = \"refuse\"\n\
    deceptive-author = \"refuse\"\ndeceptive-name = \"refuse\"\ndeceptive-domain = \"refuse\"\n\
    deceptive-fields = \"refuse\"\nirregular-fields = \"refuse\"\n";

/// Sends it, and answers the first reply that is not as it should be, or the last.
fn send(house: &House, message: &Message) -> String {
    let mut client = Client::connect(house.server.smtp());
    client.put(b"PROXY TCP4 192.0.2.66 198.51.100.1 56324 25\r\n");
    client.expect(220);
    client.say(&format!("EHLO {}", message.helo));
    client.expect(250);
    for line in [&format!("MAIL FROM:<{}>", message.reverse_path), "RCPT TO:<bob@example.net>"] {
        let reply = client.ask(line);
        if reply.code != 250 {
            return format!("{} {}", reply.code, reply.text());
        }
    }
    client.say("DATA");
    client.expect(354);
    client.put(message.content.as_bytes());
    let reply = client.ask(".");
    format!("{} {}", reply.code, reply.text())
}

fn unfolded(content: &str) -> String {
    content.replace("\r\n\t", " ")
}

/// The values of the fields of this name, ours first.
fn values<'a>(content: &'a str, name: &str) -> Vec<&'a str> {
    let head = content.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

#[test]
fn every_published_trick_is_refused_or_flagged() {
    let house = House::with("", |_, sink| (ZONE.to_owned(), sink.route()));
    // His own mail is in order.
    assert!(send(&house, &from("From: mallory@evil.example")).starts_with("250 "));
    let content = house.sink.mail().content;
    assert!(unfolded(&content).contains("dmarc=pass"), "{content}");
    assert_eq!(values(&content, "X-Authentication-Warning"), [""; 0], "{content}");
    let mut wrong = Vec::new();
    for attack in attacks() {
        let reply = send(&house, &(attack.message)(&house));
        let taken = reply.starts_with("250 ");
        let content = if taken { unfolded(&house.sink.mail().content) } else { String::new() };
        let warnings = values(&content, "X-Authentication-Warning").join("|");
        let results = values(&content, "Authentication-Results").first().copied().unwrap_or_default();
        let good = match attack.by_default {
            Refused(begins) => reply.starts_with(begins),
            Flagged(says) => taken && warnings.contains(says) && warnings.starts_with("mx.ringpost.test: "),
            Told(says) => taken && results.contains(says) && results.starts_with("mx.ringpost.test; "),
            Without(text) => taken && !content.contains(text),
            Taken | Counted(_) => taken && warnings.is_empty(),
        };
        // Nothing shows him as somebody of the other domain.
        let proven = results.contains("; dmarc=pass") && results.contains("header.from=example.org");
        if !good || (proven && !attack.name.starts_with("A signed message")) {
            wrong.push(format!("{}: {reply}\n    {warnings}\n    {results}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "by default:\n{}", wrong.join("\n"));
    house.change("irregular-fields = \"tag\"\n");
    for attack in attacks() {
        let Counted(says) = attack.by_default else { continue };
        let reply = send(&house, &(attack.message)(&house));
        let content = unfolded(&house.sink.mail().content);
        let expected = format!("mx.ringpost.test: irregular-fields ({says}");
        if !values(&content, "X-Authentication-Warning").iter().any(|value| value.starts_with(&expected)) {
            wrong.push(format!("{}: {reply}\n    {content}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "asked for:\n{}", wrong.join("\n"));
    house.change(STRICT);
    for attack in attacks() {
        let reply = send(&house, &(attack.message)(&house));
        let begins = if attack.refused.is_empty() { "250 " } else { attack.refused };
        if !reply.starts_with(begins) {
            wrong.push(format!("{}: {reply}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "strict:\n{}", wrong.join("\n"));
    // What the operator sees of it.
    let doubted = house.server.event("doubted", |event| event["against"] == "deceptive-author");
    assert!(doubted["tricks"].is_string(), "{doubted}");
    for kind in ["author", "name", "domain", "fields", "irregular"] {
        let label = format!("kind=\"{kind}\"");
        assert!(house.server.metric("ringpost_deceptive_messages_total", &[&label]) > 1.0, "{kind}");
    }
    // A site may want none of it, and it may be tried out.
    house.change(&STRICT.replace("refuse", "accept"));
    assert!(send(&house, &from("From: a@evil.example, b@evil.example")).starts_with("250 "));
    house.change(&format!("{STRICT}dry-run = true\n"));
    assert!(send(&house, &from("From: a@evil.example, b@evil.example")).starts_with("250 "));
}

/// As honest people, devices and programs write it: nothing is said of it.
#[test]
fn honest_mail_is_not_flagged() {
    let house = House::with("", |_, sink| (ZONE.to_owned(), sink.route()));
    let messages = [
        ("a device", of("From: scanner@evil.example\r\nTo: bob@example.net\r\nSubject: scan\r\n\r\nx\r\n")),
        (
            "a script",
            from(
                "From: Example, Inc. <news@evil.example>\r\nTo: bob@example.net\r\nMIME-Version: 1.0\r\nMIME-Version: 1.0",
            ),
        ),
        (
            "a list",
            from(
                "From: \"'Ann Example' via List\" <list@evil.example>\r\nReply-To: Ann <ann@example.org>\r\nList-Id: <list.evil.example>",
            ),
        ),
        ("an address as a name", from("From: \"mallory@evil.example\" <mallory@evil.example>")),
        ("a name with a comma", from("From: =?utf-8?q?M=C3=BCller=2C_J=C3=BCrgen?= <j@evil.example>")),
        ("Japanese", from("From: =?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?= <y@evil.example>")),
        ("Russian", from("From: =?koi8-r?B?6dfBziDz1c/X?= <i@evil.example>")),
        ("Hebrew", from("From: =?utf-8?B?4oCr15PXldeT4oCs?= <d@evil.example>")),
        // A large provider signs neither To nor Reply-To.
        (
            "few fields signed",
            signed(
                &house,
                "example.org",
                "r1",
                "sign = dkim.sign\ndkim.sign = lambda *words, include_headers, **more: sign(*words, include_headers=[b'from', b'date', b'subject'], **more)",
                "From: ann@example.org\r\nReply-To: desk@example.org",
            ),
        ),
    ];
    for (what, message) in messages {
        let reply = send(&house, &message);
        assert!(reply.starts_with("250 "), "{what}: {reply}");
        let content = house.sink.mail().content;
        assert_eq!(values(&content, "X-Authentication-Warning"), [""; 0], "{what}: {content}");
    }
}

/// The table of docs/spoofing.md.
fn table() -> String {
    let mut table = "| attack | source | what becomes of it | refused by |\n|---|---|---|---|\n".to_owned();
    for attack in attacks() {
        let becomes = match attack.by_default {
            Refused(begins) => format!("refused: {}", begins.trim_end()),
            Flagged(says) => format!("flagged: {says}"),
            Told(says) => format!("told: `{says}`"),
            Counted(says) => format!("counted: {says}"),
            Without(_) => "taken out".to_owned(),
            Taken => "nothing: it may be so".to_owned(),
        };
        let key = match attack.key {
            "" if matches!(attack.by_default, Refused(_)) => "always".to_owned(),
            "" => "—".to_owned(),
            key => key.split(", or ").map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", or "),
        };
        let source = if attack.source.is_empty() { "—" } else { attack.source };
        writeln!(table, "| {} | {source} | {becomes} | {key} |", attack.name).unwrap();
    }
    table
}

#[test]
fn the_table_of_the_documentation_is_that_of_the_test() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spoofing.md");
    let page = fs::read_to_string(&file).unwrap();
    let start = page.find("| attack |").expect("the page has the table");
    let len = page[start..].find("\n\n").map_or(page.len() - start, |end| end + 1);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let page = [&page[..start], &table(), &page[start + len..]].concat();
        fs::write(&file, page).unwrap();
        return;
    }
    assert!(page[start..start + len] == table(), "docs/spoofing.md is old: run with UPDATE_GOLDEN=1");
}
