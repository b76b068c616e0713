//! Strangers, and what becomes of their mail before it is taken: lists of the DNS that unbound serves, and greylisting, with a Postfix
//! that comes again.

use std::net::SocketAddr;

use end_to_end::{Client, Finished, Reply, Server, Sink, built, free_address, run, until};
use serde_json::Value;

use crate::{names::Unbound, postfix::Postfix};

/// A server that takes mail for example.net of everybody, who comes by a proxy.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) sink: Sink,
    pub(crate) dns: SocketAddr,
}

const PROXIED: &str =
    "[[listener]]\nname = \"smtp\"\nproxy-networks = [\"127.0.0.0/8\"]\n[[domain]]\nname = \"example.net\"\n";

const MESSAGE: &str =
    "From: ann@example.org\r\nDate: Sun, 29 Nov 2026 06:00:00 +0000\r\nSubject: x\r\n\r\nx\r\n.\r\n";

/// unbound with these records.
pub(crate) fn records(at: SocketAddr, records: &[&str]) -> Unbound {
    let lines: Vec<_> = records.iter().map(|record| format!("local-data: '{record}'")).collect();
    Unbound::start_at(at, &lines.join("\n"))
}

impl House {
    /// With the DNS at that address, and this configuration.
    fn new(dns: SocketAddr, more: &str) -> Self {
        let (sink, server) = (Sink::start(), Server::prepare(""));
        let mut house = Self { server, sink, dns };
        house.server.configure(&house.configuration(more));
        house.server.resume();
        house
    }

    pub(crate) fn configuration(&self, more: &str) -> String {
        // What is asked anew every second shows what the DNS says now.
        let dns = format!(
            "[dns]\nservers = [\"{}\"]\ntimeout = \"1s\"\nttl-min = \"1s\"\nttl-max = \"1s\"\n\
             negative-ttl-max = \"1s\"\nfailure-ttl = \"0s\"\n",
            self.dns
        );
        format!("{PROXIED}{dns}{more}{}", self.sink.route())
    }

    fn change(&self, more: &str) {
        self.server.configure(&self.configuration(more));
        assert_eq!(self.server.reload()["event"], "reloaded");
    }

    /// A session of a client at this address.
    fn client(&self, address: &str, ehlo: &str) -> Client {
        let mut client = Client::connect(self.server.smtp());
        let (family, own) =
            if address.contains(':') { ("TCP6", "2001:db8::25") } else { ("TCP4", "198.51.100.1") };
        client.put(format!("PROXY {family} {address} {own} 56324 25\r\n").as_bytes());
        client.expect(220);
        client.say(&format!("EHLO {ehlo}"));
        client.expect(250);
        client
    }

    /// What a recipient gets.
    pub(crate) fn rcpt(&self, address: &str, from: &str, to: &str) -> Reply {
        let mut client = self.client(address, "client.example.org");
        client.say(&format!("MAIL FROM:<{from}>"));
        client.expect(250);
        client.ask(&format!("RCPT TO:<{to}>"))
    }

    /// Sends a message, all of it at once; answers the replies to RCPT and to the message.
    fn send(&self, address: &str, from: &str, to: &str) -> [Reply; 2] {
        let mut client = self.client(address, "client.example.org");
        client.put(format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes());
        client.expect(250);
        let rcpt = client.reply();
        let data = client.reply();
        if data.code != 354 {
            return [rcpt, data];
        }
        client.put(MESSAGE.as_bytes());
        [rcpt, client.reply()]
    }

    /// The content of a message that is taken.
    fn taken(&self, address: &str, from: &str) -> String {
        let [_, taken] = self.send(address, from, "bob@example.net");
        assert_eq!(taken.code, 250, "{taken}");
        self.sink.mail().content
    }

    fn greylist(&self, arguments: &[&str]) -> Finished {
        let config = self.server.place().join("ringpost.toml");
        let all = [&["greylist", "--config", config.to_str().unwrap()], arguments].concat();
        run(&built("ringpost"), &all, "")
    }

    /// Waits until so many records of the greylist are written down, which is done once a second.
    fn written(&self, records: u64) {
        until("it is written down", || {
            let files = std::fs::read_dir(self.server.place().join("data/greylist")).unwrap();
            let files = files.filter_map(Result::ok);
            let written = files.filter(|file| file.file_name().to_string_lossy().ends_with(".grey"));
            let octets: u64 = written.map(|file| file.metadata().unwrap().len()).sum();
            (octets >= records * 20).then_some(())
        });
    }

    fn greylisted(&self, result: &str) -> f64 {
        self.server.metric("ringpost_greylist_total", &[&format!("result=\"{result}\"")])
    }
}

const LISTS: &str = "\
    [[dns-list]]\nname = \"bl\"\nzone = \"bl.test\"\nexplain = true\n\
    codes = [\"127.0.0.2\", \"127.0.0.4=7\", \"127.0.0.5=5\", \"127.0.0.&64=2\"]\n\
    [[dns-list]]\nname = \"white\"\nzone = \"wl.test\"\nweight = -20\ncodes = [\"127.0.*.2-3\"]\n\
    [[dns-list]]\nname = \"names\"\nzone = \"dbl.test\"\nsubjects = [\"sender-domain\", \"ehlo-name\", \"client-name\"]\n";
const STEPS: &str = "[strangers]\ndefer-at = 7\nquarantine-at = 5\ntag-at = 2\n";
const RECORDS: &[&str] = &[
    "1.2.0.192.bl.test. 60 A 127.0.0.2",
    "1.2.0.192.bl.test. 60 TXT \"see https://bl.test/192.0.2.1\"",
    "2.2.0.192.bl.test. 60 A 127.0.0.4",
    "3.2.0.192.bl.test. 60 A 127.0.0.2",
    "3.2.0.192.wl.test. 60 A 127.0.9.3",
    "4.2.0.192.bl.test. 60 A 127.0.0.5",
    "5.2.0.192.bl.test. 60 A 127.0.0.65",
    "6.2.0.192.bl.test. 60 A 127.0.0.7",
    "7.2.0.192.wl.test. 60 A 127.0.9.1",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test. 60 A 127.0.0.2",
    "bad.example.dbl.test. 60 A 127.0.1.2",
    "host.spam.example.dbl.test. 60 A 127.0.1.2",
    "8.2.0.192.in-addr.arpa. 60 PTR host.spam.example.",
    "host.spam.example. 60 A 192.0.2.8",
    "9.2.0.192.in-addr.arpa. 60 PTR host.spam.example.",
];

#[test]
fn lists_of_the_dns_decide_what_becomes_of_mail() {
    let dns = free_address();
    let _unbound = records(dns, RECORDS);
    let house = House::new(dns, &format!("{STEPS}{LISTS}"));
    // Refused, with what the list says; all that was sent behind it, too.
    let [rcpt, data] = house.send("192.0.2.1", "ann@example.org", "bob@example.net");
    assert_eq!(
        rcpt.to_string(),
        "554 5.7.1 refused: your address or name is on a list: bl: see https://bl.test/192.0.2.1"
    );
    assert_eq!(data.code, 503, "{data}");
    let listed = house.server.event("stranger_listed", |_| true);
    assert_eq!(
        [&listed["client"], &listed["lists"], &listed["action"], &listed["dry_run"]],
        [
            &Value::from("192.0.2.1"),
            &Value::from("bl:127.0.0.2:+10"),
            &Value::from("refuse"),
            &Value::from("no")
        ],
        "{listed}"
    );
    let refused = house.server.event("refused", |event| event["reason"] == "listed");
    assert_eq!((&refused["to"], &refused["code"]), (&"<bob@example.net>".into(), &554.into()), "{refused}");
    // Whoever is refused can say so to somebody.
    let [rcpt, taken] = house.send("192.0.2.1", "ann@example.org", "postmaster@example.net");
    assert_eq!((rcpt.code, taken.code), (250, 250), "{rcpt} {taken}");
    assert!(house.sink.mail().content.contains("X-Stranger-Warning: mx.ringpost.test: score 10;"));
    let code = |address: &str, from: &str| house.rcpt(address, from, "bob@example.net").to_string();
    assert!(code("2001:db8::1", "ann@example.org").starts_with("554 5.7.1 "));
    assert!(code("192.0.2.2", "ann@example.org").starts_with("450 4.7.1 "));
    // A list speaks for it, and others may say what they like.
    assert!(!house.taken("192.0.2.3", "ann@example.org").contains("X-Stranger-Warning"));
    let tagged = house.taken("192.0.2.5", "ann@example.org");
    assert!(
        tagged.contains("X-Stranger-Warning: mx.ringpost.test: score 2;\r\n\tbl:127.0.0.65:+2\r\n"),
        "{tagged}"
    );
    // An entry with another code, and one that does not count, are none.
    for address in ["192.0.2.6", "192.0.2.7", "192.0.2.66"] {
        assert!(!house.taken(address, "ann@example.org").contains("X-Stranger-Warning"), "{address}");
    }
    let [_, taken] = house.send("192.0.2.4", "ann@example.org", "bob@example.net");
    assert_eq!(taken.code, 250, "{taken}");
    let held = house.server.queue_json(&["list", "--state", "held"]);
    assert_eq!(held.len(), 1, "{held:?}");
    // Names: of the sender, of EHLO, and of the address where it leads back.
    assert!(code("192.0.2.66", "eve@bad.example").starts_with("554 5.7.1 "));
    assert!(code("192.0.2.66", "eve@bad.example").ends_with("on a list"), "it is not told which");
    let mut client = house.client("192.0.2.66", "bad.example");
    client.say("MAIL FROM:<>");
    client.expect(250);
    client.say("RCPT TO:<bob@example.net>");
    client.expect(554);
    assert!(code("192.0.2.8", "ann@example.org").starts_with("554 5.7.1 "));
    assert!(code("192.0.2.9", "ann@example.org").starts_with("250 "), "the name does not lead back");
    let count = |list: &str, result: &str| {
        let labels = [format!("list=\"{list}\""), format!("result=\"{result}\"")];
        house.server.metric("ringpost_dns_list_answers_total", &labels.each_ref().map(String::as_str))
    };
    assert!(
        count("bl", "listed") >= 5.0 && count("white", "listed") == 1.0 && count("bl", "unlisted") >= 4.0
    );
    assert_eq!(house.server.metric("ringpost_stranger_actions_total", &["action=\"defer\""]), 1.0);
    // In one session each message is judged by its own sender.
    let mut client = house.client("192.0.2.66", "client.example.org");
    for (from, expected) in [("eve@bad.example", 554), ("ann@example.org", 250), ("eve@bad.example", 554)] {
        client.say(&format!("MAIL FROM:<{from}>"));
        client.expect(250);
        client.say("RCPT TO:<bob@example.net>");
        client.expect(expected);
        client.say("RSET");
        client.expect(250);
    }
}

#[test]
fn some_are_not_asked_about_and_some_only_told_of() {
    let dns = free_address();
    let _unbound = records(dns, RECORDS);
    let house = House::new(dns, &format!("{LISTS}[strangers]\ndry-run = true\n"));
    assert!(!house.taken("192.0.2.1", "ann@example.org").contains("X-Stranger-Warning"));
    let listed = house.server.event("stranger_listed", |_| true);
    assert_eq!((&listed["action"], &listed["dry_run"]), (&"refuse".into(), &"yes".into()), "{listed}");
    let told = || house.server.events("stranger_listed").len();
    for spared in [
        "[clients]\nallow = [\"192.0.2.1\"]\n",
        "[relay]\nnetworks = [\"192.0.2.0/24\"]\n",
        "[strangers]\nlists = [\"white\"]\n",
        "[strangers]\nlists = []\n",
    ] {
        house.change(&format!("{LISTS}{spared}"));
        house.taken("192.0.2.1", "ann@example.org");
    }
    // A listener has its own mind.
    house.change(&format!("{LISTS}[strangers]\nrefuse-at = \"\"\n"));
    house.taken("192.0.2.1", "ann@example.org");
    // Of those before nothing was told.
    house.server.event("stranger_listed", |event| event["action"] == "accept");
    assert_eq!(told(), 2);
    let own = house.configuration(LISTS).replacen("[[domain]]", "strangers.refuse-at = 20\n[[domain]]", 1);
    house.server.configure(&own);
    house.server.reload();
    house.taken("192.0.2.1", "ann@example.org");
    house.change(LISTS);
    assert_eq!(house.rcpt("192.0.2.1", "ann@example.org", "bob@example.net").code, 554);
}

#[test]
fn lists_that_cannot_be_believed_are_set_aside() {
    let at = free_address();
    // One that knows everybody, one that refuses, one that never answers; and a good one behind all of them.
    let good = "local-data: '1.2.0.192.bl.test. 60 A 127.0.0.2'";
    let unbound = Unbound::start_at(
        at,
        &format!(
            "local-zone: 'dead.test.' redirect\nlocal-data: 'dead.test. 1 A 127.0.0.2'\n\
             local-zone: 'rude.test.' redirect\nlocal-data: 'rude.test. 1 A 127.255.255.254'\n\
             local-zone: 'bought.test.' redirect\nlocal-data: 'bought.test. 1 A 198.51.100.80'\n\
             local-zone: 'mute.test.' deny\n{good}"
        ),
    );
    let list = |name: &str| {
        format!(
            "[[dns-list]]\nname = \"{name}\"\nzone = \"{name}.test\"\nrest = \"1s\"\nprobe-interval = \"1s\"\n"
        )
    };
    let lists = ["mute", "dead", "rude", "bought", "bl"].map(list).concat();
    let house = House::new(at, &format!("[strangers]\nlookup-time-max = \"200ms\"\n{lists}"));
    for (name, reason) in
        [("dead", "no list any more"), ("bought", "no list any more"), ("rude", "127.255.255.254")]
    {
        let aside = house.server.event("list_set_aside", |_| true);
        let aside = if aside["list"] == name {
            aside
        } else {
            until("it is told of the list", || {
                house.server.events("list_set_aside").into_iter().find(|event| event["list"] == name)
            })
        };
        assert!(aside["reason"].as_str().unwrap().contains(reason), "{aside}");
    }
    // Nobody is refused for what they say, nor kept for ever by one that says nothing.
    house.taken("192.0.2.66", "ann@example.org");
    assert_eq!(
        house.rcpt("192.0.2.1", "ann@example.org", "bob@example.net").code,
        554,
        "the good one counts"
    );
    let mute = until("the mute one is set aside", || {
        house.rcpt("192.0.2.66", "ann@example.org", "bob@example.net");
        house.server.events("list_set_aside").into_iter().find(|event| event["list"] == "mute")
    });
    assert!(mute["reason"].as_str().unwrap().contains("no answer"), "{mute}");
    let aside = |list: &str| house.server.metric("ringpost_dns_list_aside", &[&format!("list=\"{list}\"")]);
    assert_eq!(["mute", "dead", "rude", "bl"].map(aside), [1.0, 1.0, 1.0, 0.0]);
    // Whoever has mended his list is asked again.
    drop(unbound);
    let _unbound =
        Unbound::start_at(at, &format!("{good}\nlocal-data: '2.2.0.192.mute.test. 1 A 127.0.0.2'"));
    for name in ["mute", "dead", "rude", "bought"] {
        until("it is back", || {
            house.server.events("list_back").into_iter().find(|event| event["list"] == name)
        });
    }
    until("it is asked again", || {
        (house.rcpt("192.0.2.2", "ann@example.org", "bob@example.net").code == 554).then_some(())
    });
}

/// Greylisting with this delay and these other rules.
fn grey(delay: &str, more: &str) -> String {
    format!("[greylist]\nenabled = true\ndelay = \"{delay}\"\n{more}")
}

#[test]
fn who_comes_for_the_first_time_comes_again() {
    let dns = free_address();
    let _unbound = records(
        dns,
        &[
            "pool.example. 60 TXT \"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all\"",
            "gmail.com. 60 TXT \"v=spf1 ip4:203.0.113.7 -all\"",
            "9.113.0.203.in-addr.arpa. 60 PTR mail-9.google.com.",
            "mail-9.google.com. 60 A 203.0.113.9",
            "5.113.0.203.wl.test. 60 A 127.0.9.3",
        ],
    );
    let mut house = House::new(dns, &format!("{LISTS}{}", grey("1h", "")));
    let (ann, bob) = ("ann@example.org", "bob@example.net");
    let reply = house.rcpt("192.0.2.1", ann, bob);
    assert_eq!(reply.to_string(), "451 4.7.1 greylisted, try again later: in 3600 seconds");
    let told = house.server.event("greylisted", |_| true);
    assert_eq!(
        (&told["client"], &told["to"], &told["dry_run"]),
        (&"192.0.2.1".into(), &bob.into(), &"no".into())
    );
    let again = house.rcpt("192.0.2.99", "ann+7@example.org", bob);
    assert!(again.to_string().starts_with("451 4.7.1 greylisted, try again later: in "), "{again}");
    assert_eq!((house.greylisted("new"), house.greylisted("early")), (1.0, 1.0));
    // Nobody is put off who writes to postmaster, or to nobody.
    assert_eq!(house.rcpt("192.0.2.1", ann, "postmaster@example.net").code, 250);
    assert_eq!(house.rcpt("192.0.2.1", ann, "bob@elsewhere.example").code, 550);
    // Large senders: by SPF, by the name of the address; and whom a list speaks for.
    for (address, from) in [
        ("203.0.113.7", "x@gmail.com"),
        ("203.0.113.9", "x@customer.example"),
        ("203.0.113.5", "x@any.example"),
    ] {
        assert_eq!(house.rcpt(address, from, bob).code, 250, "{address} {from}");
    }
    assert_eq!(house.rcpt("203.0.113.8", "x@gmail.com", bob).code, 451, "whoever says that he is there");
    assert_eq!(house.greylisted("excused"), 3.0);
    // Notifications are put off at DATA: whoever looks whether there is an address gets an answer.
    let [rcpt, data] = house.send("192.0.2.1", "", bob);
    assert_eq!((rcpt.code, data.code), (250, 451), "{rcpt} {data}");
    // A kill forgets nothing that was written, which is what a second ago was known.
    house.written(3);
    house.server.kill();
    house.server.resume();
    assert_eq!(house.rcpt("192.0.2.1", ann, bob).code, 451);
    assert_eq!((house.greylisted("new"), house.greylisted("early")), (0.0, 1.0));
    // What is known can be looked at by whoever knows whom he looks for, and forgotten.
    let shown = house.greylist(&["show", "192.0.2.77", ann, bob]).good().stdout;
    assert!(shown.starts_with("network-mail  waiting since "), "{shown}");
    let other = house.greylist(&["show", "192.0.2.77", ann, "rob@example.net"]).good().stdout;
    assert_eq!(other, "nothing is known of that\n");
    assert_eq!(house.greylist(&["clear", "192.0.2.1", ann, bob]).good().stdout, "1 entry is forgotten\n");
    assert_eq!(house.greylist(&["show", "192.0.2.1", ann, bob]).good().stdout, "nothing is known of that\n");
    assert!(!house.greylist(&["show", "192.0.2.1", "no-address", bob]).status.success());
    assert_eq!(house.rcpt("192.0.2.1", ann, bob).code, 451);
    assert_eq!(house.greylisted("new"), 1.0);
    // Who waits for as long as is wanted is known from then on, over a restart as well.
    house.change(&format!("{LISTS}{}", grey("1s", "clients-after = 2\n")));
    until("it is let in", || (house.rcpt("192.0.2.1", ann, bob).code == 250).then_some(()));
    house.server.event("greylist_passed", |event| event["to"] == bob);
    // From a pool whichever host comes again, it is the same.
    assert_eq!(house.rcpt("192.0.2.50", "x@pool.example", bob).code, 451);
    until("another host is let in", || {
        (house.rcpt("198.51.100.3", "x@pool.example", bob).code == 250).then_some(())
    });
    house.server = house.server.restarted();
    assert_eq!(house.rcpt("192.0.2.1", ann, bob).code, 250);
    assert_eq!(house.greylisted("known"), 1.0);
    // Two good ones of a network, and the others need not wait.
    let (other, new) = ("rob@example.net", "new@example.net");
    until("another is let in", || (house.rcpt("192.0.2.1", ann, other).code == 250).then_some(()));
    assert_eq!(house.rcpt("192.0.2.200", "stranger@any.example", new).code, 250);
    assert_eq!(house.greylisted("client"), 1.0);
    let client = house.greylist(&["show", "192.0.2.1"]).good().stdout;
    assert!(client.starts_with("network  client with 2 successes"), "{client}");
    let status = house.greylist(&["status"]).good().stdout;
    assert!(status.contains(" wait, ") && status.contains("0 were forgotten"), "{status}");
    // Only to be told of.
    house.change(&format!("{LISTS}{}", grey("1h", "dry-run = true\n")));
    assert_eq!(house.rcpt("203.0.113.77", ann, bob).code, 250);
    let told = house.server.event("greylisted", |event| event["client"] == "203.0.113.77");
    assert_eq!(told["dry_run"], "yes", "{told}");
}

#[test]
fn only_the_doubtful_are_greylisted() {
    let dns = free_address();
    let _unbound = records(dns, RECORDS);
    let house = House::new(dns, &format!("{LISTS}{}", grey("1h", "score-min = 2\n")));
    assert_eq!(house.rcpt("192.0.2.66", "ann@example.org", "bob@example.net").code, 250);
    assert_eq!(house.rcpt("192.0.2.5", "ann@example.org", "bob@example.net").code, 451);
    assert_eq!(house.rcpt("192.0.2.1", "ann@example.org", "bob@example.net").code, 554);
    // Those of ours are not.
    house.change(&format!("{LISTS}{}[relay]\nnetworks = [\"192.0.2.5\"]\n", grey("1h", "")));
    assert_eq!(house.rcpt("192.0.2.5", "ann@example.org", "bob@example.net").code, 250);
}

/// A real mail server, which comes again by itself.
#[test]
fn postfix_comes_again() {
    let sink = Sink::start();
    let more = format!(
        "[relay]\nnetworks = []\n[[domain]]\nname = \"example.net\"\n{}{}",
        grey("2s", "spf = \"ignore\"\npass = []\n"),
        sink.route()
    );
    let server = Server::start(&more);
    let postfix = Postfix::start(
        server.smtp(),
        "minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\nsmtp_tls_security_level = none\n",
    );
    let mut client = Client::greeted(postfix.address());
    client.send("ann@example.org", &["bob@example.net"], "Subject: again\r\n\r\nx\r\n");
    assert!(postfix.logs("greylisted, try again later").contains("451"));
    assert!(sink.mail().content.contains("Subject: again"));
    postfix.drained();
    server.event("greylist_passed", |event| event["from"] == "ann@example.org");
    // It is known now.
    client.send("ann@example.org", &["bob@example.net"], "Subject: known\r\n\r\nx\r\n");
    assert!(sink.mail().content.contains("Subject: known"));
    assert_eq!(server.metric("ringpost_greylist_total", &["result=\"known\""]), 1.0);
    assert_eq!(server.metric("ringpost_greylist_total", &["result=\"new\""]), 1.0);
}

/// During an upgrade the new process knows what the old one has written while it still serves.
#[test]
fn an_upgrade_forgets_nobody() {
    let dns = free_address();
    let _unbound = records(dns, &["nobody.example. 60 A 192.0.2.1"]);
    let house = House::new(dns, &grey("1h", ""));
    assert_eq!(house.rcpt("192.0.2.1", "ann@example.org", "bob@example.net").code, 451);
    house.written(1);
    house.server.upgrade(&[]).good();
    let reply = house.rcpt("192.0.2.1", "ann@example.org", "bob@example.net");
    assert_eq!(reply.code, 451, "{reply}");
    assert_eq!((house.greylisted("new"), house.greylisted("early")), (0.0, 1.0));
}

#[test]
fn what_strangers_did_is_remembered() {
    let dns = free_address();
    let _unbound = records(
        dns,
        &["pool.example. 60 TXT \"v=spf1 ip4:203.0.113.0/24 -all\"", "7.2.0.192.bl.test. 60 A 127.0.0.2"],
    );
    let mut house = House::new(dns, "");
    let change = |house: &House, mode: &str| {
        let rules = format!(
            "[authentication]\nverify = true\n[reputation]\nmode = \"{mode}\"\nsample = 4\nweight-max = 10\n\
             [[dns-list]]\nname = \"bl\"\nzone = \"bl.test\"\nweight = 1\n"
        );
        let of_bob = "name = \"example.net\"\nrecipients = [\"bob\"]\n";
        house.server.configure(&house.configuration(&rules).replacen("name = \"example.net\"\n", of_bob, 1));
        assert_eq!(house.server.reload()["event"], "reloaded");
    };
    let of = |house: &House, whose: &str| {
        let config = house.server.place().join("ringpost.toml");
        let all = ["reputation", "--config", config.to_str().unwrap(), whose];
        run(&built("ringpost"), &all, "").good().stdout
    };
    change(&house, "watch");
    let bob = "bob@example.net";
    assert_eq!(of(&house, "192.0.2.66"), "nothing is known of 192.0.2.66\n");
    for number in 0..5 {
        assert_eq!(house.rcpt("192.0.2.66", "x@any.example", &format!("n{number}@example.net")).code, 550);
    }
    // It is seen, and counts nothing yet.
    assert_eq!(house.rcpt("192.0.2.66", "x@any.example", bob).code, 250);
    let seen = house.server.event("stranger_listed", |event| event["client"] == "192.0.2.66");
    assert_eq!(
        (&seen["lists"], &seen["action"]),
        (&"reputation:address:+10".into(), &"accept".into()),
        "{seen}"
    );
    let shown = of(&house, "192.0.2.66");
    for words in ["address  weighs +10, which is only watched", "network  weighs +10", "unknown 5.0"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // It counts, for the network as well, and for nobody else.
    change(&house, "score");
    assert_eq!(house.rcpt("192.0.2.66", "x@any.example", bob).code, 554);
    assert_eq!(house.rcpt("192.0.2.67", "x@any.example", bob).code, 554);
    assert_eq!(house.rcpt("198.51.100.67", "x@any.example", bob).code, 250);
    // Over a restart, too.
    house.server = house.server.restarted();
    assert_eq!(house.rcpt("192.0.2.66", "x@any.example", bob).code, 554);
    // Accepted mail speaks for whom it is from, where that is proven.
    for _ in 0..5 {
        house.taken("203.0.113.5", "ann@pool.example");
    }
    let known = |whose: &str| {
        until("it is learned", || Some(of(&house, whose)).filter(|shown| shown.contains("-10")))
    };
    assert!(known("ann@pool.example").contains("sender   weighs -10;"));
    assert!(known("pool.example").contains("accepted 5.0"));
    assert_eq!(of(&house, "any.example"), "nothing is known of any.example\n", "anybody can say that");
    // What lists say is learned as well.
    house.rcpt("192.0.2.7", "x@any.example", bob);
    assert!(of(&house, "192.0.2.7").contains("listed 1.0"));
    // And what others say of mail that we have taken.
    house
        .sink
        .answer(|command| command.starts_with("RCPT").then(|| "550 5.7.1 message looks like spam".into()));
    let [_, taken] = house.send("198.51.100.9", "", bob);
    assert_eq!(taken.code, 250, "{taken}");
    until("it is learned", || Some(()).filter(|()| of(&house, "198.51.100.9").contains("bounced 1.0")));
    // Also when that is long after, and the server is another one.
    house.sink.refuse_recipients("451 4.7.1 come again");
    let [_, taken] = house.send("198.18.0.9", "", bob);
    assert_eq!(taken.code, 250, "{taken}");
    house.server.event("outcome", |event| event["result"] == "deferred");
    house.server = house.server.restarted();
    house.sink.refuse_recipients("550 5.7.1 message looks like spam");
    until("it is learned", || {
        // It may not be back from the journal yet.
        house.server.queue(&["retry", "--all"]).good();
        Some(()).filter(|()| of(&house, "198.18.0.9").contains("bounced 1.0"))
    });
    change(&house, "off");
    assert_eq!(house.rcpt("192.0.2.66", "x@any.example", bob).code, 250);
    assert!(of(&house, "192.0.2.66").contains("reputation.mode is off"));
}
