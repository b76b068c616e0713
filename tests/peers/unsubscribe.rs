//! How lists are left (RFC 2369, RFC 8058): what dkimpy has signed, as we judge it; and what swaks brings, as we let
//! it go, with dkimpy to judge that.

use std::path::Path;

use end_to_end::{Finished, Server, Sink, run, tool};

use crate::authenticity::{House, PYTHON, new_key, verified};

const REST: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: news\r\n\
                    Date: Sun, 29 Nov 2026 06:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nNews.\r\n";
const LINK: &str = "List-Unsubscribe: <mailto:off@shop.dev>, <https://news.shop.dev/u/1>\r\n";
const POST: &str = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";

/// Signed by dkimpy, which covers `List-Unsubscribe` by itself, and `List-Unsubscribe-Post` when it is told to.
fn signed(content: &str, key: &Path, fields: &str) -> String {
    let script = format!(
        "import sys, dkim\n\
         pem = open({:?}, 'rb').read()\n\
         message = sys.stdin.buffer.read()\n\
         fields = {fields}\n\
         sys.stdout.buffer.write(dkim.sign(message, b'r1', b'example.org', pem, include_headers=fields) + message)\n",
        key.to_str().unwrap()
    );
    run(Path::new(PYTHON), &["-c", &script], content).good().stdout
}

/// What we have written into a message of how its list is left.
fn result(content: &str) -> Option<String> {
    let unfolded = content.replace("\r\n\t", " ");
    let mut values = unfolded.lines().filter_map(|line| line.strip_prefix("X-Unsubscribe-Result: "));
    let value = values.next().map(str::to_owned);
    assert_eq!(values.next(), None, "{content}");
    value
}

#[test]
fn one_click_is_what_others_have_signed() {
    let house = House::with("", |_, sink| (String::new(), sink.route()));
    let key = house.key("dkim/r1.pem");
    let both = "[b'from', b'list-unsubscribe', b'list-unsubscribe-post']";
    let list = format!("{LINK}{POST}{REST}");
    let insecure = list.replacen("https:", "http:", 1);
    let forged = "X-Unsubscribe-Result: mx.ringpost.test; way=one-click header.d=example.org aligned=yes\r\n";
    for (content, way, told) in [
        (signed(&list, &key, both), "one-click", Some("way=one-click header.d=example.org aligned=yes")),
        // What dkimpy does by itself is not enough.
        (signed(&list, &key, "None"), "link", Some("way=link reason=unsigned")),
        (list.clone(), "link", Some("way=link reason=unsigned")),
        (signed(&list, &key, both).replacen("/u/1", "/u/2", 1), "link", Some("way=link reason=unsigned")),
        (
            signed(&insecure, &key, both),
            "mail",
            Some("way=mail reason=insecure header.d=example.org aligned=yes"),
        ),
        // Nobody says it in our name.
        (signed(&format!("{forged}{REST}"), &key, "None"), "none", None),
        (format!("{forged}{list}"), "link", Some("way=link reason=unsigned")),
    ] {
        let before = house.server.metric("ringpost_list_unsubscribe_total", &[&format!("way=\"{way}\"")]);
        let reply = house.send("192.0.2.1", "ann@example.org", &content);
        assert!(reply.starts_with("250 "), "{reply}");
        let received = house.sink.mail().content;
        assert_eq!(result(&received), told.map(|told| format!("mx.ringpost.test; {told}")), "{received}");
        let accepted = house.server.event("accepted", |_| true);
        assert_eq!(accepted["unsubscribe"].as_str(), (way != "none").then_some(way), "{accepted}");
        let after = house.server.metric("ringpost_list_unsubscribe_total", &[&format!("way=\"{way}\"")]);
        assert_eq!(after - before, 1.0, "{way}");
    }
    // Who does not want the field has none, and a forged one goes all the same.
    house.change("unsubscribe-result = false\n");
    let reply = house.send("192.0.2.1", "ann@example.org", &format!("{forged}{list}"));
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(result(&house.sink.mail().content), None);
}

/// A message by swaks, whose `--data` has `\n` for line ends; and the last reply.
fn swaks(server: &Server, content: &str) -> (bool, String) {
    let (ip, port) = (server.smtp().ip().to_string(), server.smtp().port().to_string());
    let data = content.replace("\r\n", "\\n");
    let Finished { status, stdout, .. } = run(
        &tool("swaks"),
        &[
            "--server",
            &ip,
            "--port",
            &port,
            "--helo",
            "client.test",
            "--from",
            "ann@shop.dev",
            "--to",
            "bob@example.net",
            "--data",
            &data,
        ],
        "",
    );
    let mut replies = stdout.lines().filter(|line| line.starts_with("<") && !line.contains(" 221 "));
    let last = replies.next_back().unwrap_or_default();
    (status.success(), last.split_once(' ').unwrap_or_default().1.trim().to_owned())
}

#[test]
fn bulk_mail_of_a_tenant_goes_out_with_a_way_to_leave_it() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let (key, record) = new_key(&server, "shop.dev", "r1", "rsa2048");
    let configuration = |check: &str, more: &str| {
        format!(
            "{key}[[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\nunsubscribe-check = \"{check}\"\n{more}\
             [journal]\nspill = \"64KiB\"\n[limits]\nmessage-size-max = \"16MiB\"\n[queue]\ncampaign-header = \"X-Mailing\"\n{}",
            sink.route()
        )
    };
    server.configure(&configuration("refuse", ""));
    server.resume();
    let rest = REST.replace("example.org", "shop.dev");
    let bulk = format!("List-Id: <news.shop.dev>\r\n{rest}");
    let count =
        |result: &str| server.metric("ringpost_unsubscribe_checks_total", &[&format!("result=\"{result}\"")]);
    // No bulk mail, and none that has all of it.
    let records = [("r1._domainkey.shop.dev", record.as_str())];
    let large = format!("{LINK}{POST}{bulk}{}", "And it goes on, and on. \r\n".repeat(100_000));
    for content in [rest.clone(), format!("{LINK}{POST}{bulk}")] {
        let (taken, reply) = swaks(&server, &content);
        assert!(taken && reply.starts_with("250 "), "{reply}");
        let received = sink.mail().content;
        assert_eq!(verified(&received, &records), "shop.dev r1 True\n", "{received}");
    }
    // Also when it is written out before its end.
    server.client().send("ann@shop.dev", &["bob@example.net"], &large);
    assert_eq!(verified(&sink.mail().content, &records), "shop.dev r1 True\n");
    assert_eq!(count("sound"), 2.0);
    let other = bulk.replace("ann@shop.dev", "ann@other.dev");
    for (content, flaw, mark, expected) in [
        (
            bulk.clone(),
            "missing",
            "list-id",
            "550 5.7.1 bulk mail needs List-Unsubscribe: <https://...> (RFC 8058)",
        ),
        (
            format!("Precedence: bulk\r\n{POST}{rest}"),
            "missing",
            "precedence",
            "550 5.7.1 bulk mail needs List-Unsubscribe: <https://...> (RFC 8058)",
        ),
        (
            format!("X-Mailing: spring\r\n{LINK}{rest}"),
            "no-post",
            "campaign",
            "550 5.7.1 bulk mail needs List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        ),
        (
            format!("Feedback-ID: 1:shop\r\n{}{POST}{rest}", LINK.replace("https", "http")),
            "insecure",
            "feedback-id",
            "550 5.7.1 List-Unsubscribe must stand once, with one https link (RFC 8058)",
        ),
        (
            format!("{LINK}{LINK}{POST}{bulk}"),
            "repeated",
            "list-id",
            "550 5.7.1 List-Unsubscribe must stand once, with one https link (RFC 8058)",
        ),
        (
            format!("{}{POST}{bulk}", LINK.replace("news.shop.dev", "www.example.com")),
            "example",
            "list-id",
            "550 5.7.1 List-Unsubscribe must stand once, with one https link (RFC 8058)",
        ),
        (
            format!("{LINK}{POST}{other}"),
            "unsigned",
            "list-id",
            "550 5.7.20 DKIM: List-Unsubscribe is not signed: no key for the author's domain",
        ),
    ] {
        let before = count(flaw);
        let (taken, reply) = swaks(&server, &content);
        assert!(!taken && reply == expected, "{flaw}: {reply}");
        let event = server.event("unsubscribe_flawed", |_| true);
        let said = ["tenant", "from", "mark", "flaw", "action"].map(|name| event[name].as_str().unwrap());
        assert_eq!(said, ["shop", "ann@shop.dev", mark, flaw, "refuse"], "{event}");
        assert_eq!(count(flaw) - before, 1.0, "{flaw}");
    }
    let refused = server.metric("ringpost_refusals_total", &["reason=\"unsubscribe_malformed\""]);
    assert_eq!(refused, 3.0);
    // A link of ours is as good as one of the sender's: also for the key alone that covers it.
    let ours = "suppression = \"refuse\"\nunsubscribe = \"marked\"\n[unsubscribe]\nurl = \"https://news.shop.dev/u\"\n\
                secrets = [\"0123456789abcdef\"]\n";
    server.configure(&configuration("refuse", ours));
    assert_eq!(server.reload()["event"], "reloaded");
    let (taken, reply) = swaks(&server, &bulk);
    assert!(taken, "{reply}");
    let received = sink.mail().content;
    assert!(received.contains("List-Unsubscribe: <https://news.shop.dev/u/"), "{received}");
    assert_eq!(verified(&received, &records), "shop.dev r1 True\n", "{received}");
    // Said, and taken all the same.
    server.configure(&configuration("log", ""));
    assert_eq!(server.reload()["event"], "reloaded");
    let (taken, reply) = swaks(&server, &bulk);
    assert!(taken, "{reply}");
    assert_eq!(verified(&sink.mail().content, &records), "shop.dev r1 True\n");
    let event = server.event("unsubscribe_flawed", |event| event["action"] == "log");
    assert_eq!(event["flaw"], "missing");
    // Without keys nothing is signed, which is a flaw as well.
    server.configure(&configuration("log", "").replacen(&key, "", 1));
    assert_eq!(server.reload()["event"], "reloaded");
    let (taken, reply) = swaks(&server, &format!("{LINK}{POST}{bulk}"));
    assert!(taken, "{reply}");
    assert!(!sink.mail().content.contains("DKIM-Signature"));
    server.event("unsubscribe_flawed", |event| event["flaw"] == "unsigned" && event["action"] == "log");
    let (taken, reply) = swaks(&server, &rest);
    assert!(taken, "{reply}");
    server.stop();
}
