//! Mail by MX records: unbound answers for zones of our making.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use end_to_end::{Place, Program, Server, Sink, free_address, tool, until};

/// unbound with these records and refusals, and no other knowledge.
pub(crate) struct Unbound {
    _program: Program,
    _place: Place,
    pub(crate) address: SocketAddr,
}

impl Unbound {
    pub(crate) fn start(lines: &str) -> Self {
        Self::start_at(free_address(), lines)
    }

    pub(crate) fn start_at(address: SocketAddr, lines: &str) -> Self {
        let place = Place::new();
        let (ip, port, directory) = (address.ip(), address.port(), place.path().display());
        let file = place.write(
            "unbound.conf",
            format!(
                "server:\n\
                 interface: {ip}\n\
                 port: {port}\n\
                 access-control: 127.0.0.0/8 allow\n\
                 directory: \"{directory}\"\n\
                 chroot: \"\"\n\
                 username: \"\"\n\
                 pidfile: \"\"\n\
                 logfile: \"\"\n\
                 use-syslog: no\n\
                 do-daemonize: no\n\
                 do-ip6: no\n\
                 num-threads: 1\n\
                 module-config: \"iterator\"\n\
                 log-queries: yes\n\
                 local-zone: \".\" static\n\
                 {lines}\n"
            ),
        );
        let mut command = Command::new(tool("unbound"));
        command.arg("-d").arg("-c").arg(file);
        let program = Program::start("unbound", &mut command);
        program.wait_for("it runs", |line| line.contains("start of service").then_some(()));
        Self { _program: program, _place: place, address }
    }

    fn records(records: &[&str]) -> Self {
        Self::records_at(free_address(), records)
    }

    pub(crate) fn records_at(address: SocketAddr, records: &[&str]) -> Self {
        let lines: Vec<_> = records.iter().map(|record| format!("local-data: \"{record}\"")).collect();
        Self::start_at(address, &lines.join("\n"))
    }
}

/// Another loopback address with the same port, where nobody listens.
fn beside(address: SocketAddr) -> SocketAddr {
    let IpAddr::V4(ip) = address.ip() else { panic!("the tests use IPv4") };
    let [a, b, c, d] = ip.octets();
    SocketAddr::new([a, b | 128, c, d].into(), address.port())
}

/// A server that finds its way by this DNS, to hosts at this port. What is for `example.org` goes to `sink`.
fn server(dns: &Unbound, port: u16, sink: &Sink) -> Server {
    Server::start(&routes(dns, port, sink))
}

fn routes(dns: &Unbound, port: u16, sink: &Sink) -> String {
    format!(
        "[cores]\ncount = 1\n[dns]\nservers = [\"{}\"]\ntimeout = \"1s\"\nfailure-ttl = \"0s\"\n\
         [queue]\ndestination-retry-min = \"1s\"\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        dns.address,
        sink.address()
    )
}

/// Sends a message to this domain; answers the outcome.
fn send(server: &Server, domain: &str) -> serde_json::Value {
    let recipient = format!("bob@{domain}");
    let lower = recipient.to_ascii_lowercase();
    server.client().send("ann@example.org", &[&recipient], "Subject: by name\r\n\r\n");
    server.event("outcome", |event| event["to"] == *lower)
}

#[test]
fn hosts_in_order_of_preference() {
    let (first, back) = (Sink::start(), Sink::start());
    let absent = beside(first.address());
    let (here, there) = (first.address().ip(), absent.ip());
    let dns = Unbound::records(&[
        "one.test. MX 20 here.test.",
        "one.test. MX 10 there.test.",
        "two.test. MX 10 here.test.",
        "two.test. MX 20 there.test.",
        &format!("here.test. A {here}"),
        &format!("plain.test. A {here}"),
        &format!("there.test. A {there}"),
    ]);
    let server = server(&dns, first.address().port(), &back);
    // The preferred host is not there: the next one takes it, in the same attempt.
    let outcome = send(&server, "one.test");
    assert_eq!((&outcome["result"], &outcome["attempt"]), (&"delivered".into(), &1.into()), "{outcome}");
    assert_eq!(outcome["host"], "here.test", "{outcome}");
    first.mail();
    // Now it is there, and gets it.
    let second = Sink::start_at(absent);
    let server = Server::restarted(server);
    assert_eq!(send(&server, "one.test")["host"], "there.test");
    second.mail();
    assert_eq!(send(&server, "two.test")["host"], "here.test");
    first.mail();
    // Without MX, the domain is the host (RFC 5321 §5.1).
    assert_eq!(send(&server, "plain.test")["host"], "plain.test");
    first.mail();
    // The case of names means nothing.
    assert_eq!(send(&server, "PLAIN.Test")["result"], "delivered");
    first.mail();
    // A host that says 421 to the message wants to be left alone: the next one is asked. Any other refusal counts.
    let refusals = [
        ("421 4.3.2 not now", "delivered", "here.test"),
        ("450 4.2.0 try later", "deferred", "there.test"),
        ("550 5.7.1 never", "failed", "there.test"),
    ];
    for (reply, result, host) in refusals {
        second.answer(move |command| command.starts_with("RCPT").then(|| reply.to_owned()));
        let outcome = send(&server, "one.test");
        assert_eq!((&outcome["result"], &outcome["host"]), (&result.into(), &host.into()), "{outcome}");
    }
    // What is known is not asked again.
    assert!(server.metric("ringpost_dns_questions_total", &[]) >= 8.0);
    assert!(server.metric("ringpost_dns_cache_hits_total", &[]) >= 2.0);
}

#[test]
fn an_address_in_the_place_of_a_domain_and_mail_that_comes_back_to_us() {
    let (host, back) = (Sink::start(), Sink::start());
    let dns =
        Unbound::records(&["loop.test. MX 10 us.test.", &format!("us.test. A {}", host.address().ip())]);
    let server = server(&dns, host.address().port(), &back);
    let literal = format!("[{}]", host.address().ip());
    let outcome = send(&server, &literal);
    assert_eq!(
        (&outcome["result"], &outcome["host"]),
        (&"delivered".into(), &literal.clone().into()),
        "{outcome}"
    );
    assert_eq!(host.mail().rcpt, [format!("<bob@{literal}>")]);
    // One that is none of the internet's.
    let outcome = send(&server, "[x400:elsewhere]");
    assert_eq!((&outcome["result"], &outcome["status"]), (&"failed".into(), &"5.1.2".into()), "{outcome}");
    // The same addresses, at a port where we take mail ourselves.
    server.configure(&routes(&dns, server.smtp().port(), &back));
    server.reload();
    for domain in [&literal, "loop.test"] {
        let outcome = send(&server, domain);
        assert_eq!(
            (&outcome["result"], &outcome["status"]),
            (&"failed".into(), &"5.4.6".into()),
            "{outcome}"
        );
        assert!(outcome["reply"].as_str().unwrap().contains("loops back to this host"), "{outcome}");
    }
}

#[test]
fn domains_that_take_no_mail() {
    let back = Sink::start();
    let dns = Unbound::start(
        "local-data: \"null.test. MX 0 .\"\n\
         local-data: \"dangling.test. MX 10 nowhere.test.\"\n\
         local-data: \"empty.test. TXT hello\"\n\
         local-zone: \"refused.test.\" always_refuse",
    );
    let server = server(&dns, 25, &back);
    for (domain, result, status) in [
        // RFC 7505 §4.1
        ("null.test", "failed", "5.1.10"),
        ("missing.test", "failed", "5.1.2"),
        // It is there, but has neither MX nor address.
        ("empty.test", "failed", "5.1.2"),
        ("dangling.test", "failed", "5.4.4"),
        ("refused.test", "deferred", "4.4.3"),
    ] {
        let outcome = send(&server, domain);
        assert_eq!((&outcome["result"], &outcome["status"]), (&result.into(), &status.into()), "{outcome}");
        if result == "failed" {
            let report = back.mail();
            assert!(report.mail.starts_with("<>"), "{report:?}");
            assert!(report.content.contains(&format!("Status: {status}\r\n")), "{report:?}");
        }
    }
    assert_eq!(back.waiting(), 0);
}

#[test]
fn without_dns_mail_waits() {
    let (host, back) = (Sink::start(), Sink::start());
    let record = format!("later.test. A {}", host.address().ip());
    let dns = Unbound::records(&[&record]);
    let server = server(&dns, host.address().port(), &back);
    drop(dns);
    let outcome = send(&server, "later.test");
    assert_eq!((&outcome["result"], &outcome["status"]), (&"deferred".into(), &"4.4.3".into()), "{outcome}");
    assert_eq!(back.waiting(), 0);
}

/// Domains that one provider hosts share its connections and the limit on them; another order of its hosts does not.
#[test]
fn domains_with_the_same_hosts_are_one_site() {
    let (hosts, back) = (Sink::start(), Sink::start());
    let here = hosts.address().ip();
    let mut records: Vec<String> = (0..10).map(|number| format!("d{number}.test. MX 10 mx.test.")).collect();
    records.extend([
        format!("mx.test. A {here}"),
        "known.test. MX 10 a.provider.test.".into(),
        format!("a.provider.test. A {here}"),
    ]);
    let dns = Unbound::records(&records.iter().map(String::as_str).collect::<Vec<_>>());
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n[dns]\nservers = [\"{}\"]\n\
         [[site]]\nname = \"provider\"\nhosts = [\"*.provider.test\"]\nconnections-max = 1\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {}\nconcurrency-max = 1\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        dns.address,
        hosts.address().port(),
        back.address()
    ));
    let mut client = server.client();
    for number in 0..10 {
        client.send("ann@example.org", &[&format!("bob@d{number}.test")], "Subject: one of many\r\n\r\n");
    }
    for number in 0..10 {
        let outcome = server.event("outcome", |event| event["to"] == *format!("bob@d{number}.test"));
        assert_eq!(outcome["result"], "delivered", "{outcome}");
        assert_eq!(outcome["destination"], *format!("mx:d{number}.test"), "{outcome}");
        assert_eq!(outcome["site"], "hosts:mx.test", "{outcome}");
        hosts.mail();
    }
    // One connection for all of them, since there may be no other.
    assert_eq!(server.metric("ringpost_connections_total", &["side=\"out\""]), 1.0);
    let outcome = send(&server, "known.test");
    assert_eq!(outcome["site"], "site:provider", "{outcome}");
    let summary = server.queue(&["summary"]).stdout;
    assert!(summary.contains("mx:d1.test at hosts:mx.test"), "{summary}");
}

/// When an event was, as the log says.
fn second_of_the_day(event: &serde_json::Value) -> f64 {
    let time = event["time"].as_str().and_then(|time| time.split(['T', 'Z']).nth(1)).expect("a time");
    time.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().expect("a number"))
}

/// A site's rates hold for all cores together. Only how fast it is not can be asserted: a busy machine may be slower.
#[test]
fn a_site_is_sent_to_at_its_pace() {
    let (hosts, back) = (Sink::start(), Sink::start());
    let here = hosts.address().ip();
    let dns = Unbound::records(&[
        "slow.test. MX 10 mx.slow.test.",
        "few.test. MX 10 mx.few.test.",
        &format!("mx.slow.test. A {here}"),
        &format!("mx.few.test. A {here}"),
    ]);
    let server = Server::start(&format!(
        "[cores]\ncount = 2\n[dns]\nservers = [\"{}\"]\n\
         [[site]]\nname = \"slow\"\nhosts = [\"*.slow.test\"]\nmessage-rate = \"5/s\"\n\
         [[site]]\nname = \"few\"\nhosts = [\"*.few.test\"]\nconnection-rate = \"2/s\"\ntransactions-max = 1\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {}\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        dns.address,
        hosts.address().port(),
        back.address()
    ));
    let deliver = |domain: &str, count: usize| {
        let (mut first, mut last) = (f64::MAX, f64::MIN);
        for number in 0..count {
            let to = format!("bob{number}@{domain}");
            server.client().send("ann@example.org", &[&to], "Subject: one of many\r\n\r\n");
        }
        for number in 0..count {
            let to = format!("bob{number}@{domain}");
            // Each core has an order of its own.
            let outcome =
                until("an outcome", || server.events("outcome").into_iter().find(|event| event["to"] == *to));
            assert_eq!(
                (&outcome["result"], &outcome["attempt"]),
                (&"delivered".into(), &1.into()),
                "{outcome}"
            );
            let at = second_of_the_day(&outcome);
            (first, last) = (first.min(at), last.max(at));
            hosts.mail();
        }
        (last - first).rem_euclid(86_400.0)
    };
    // What waits says why, and until when.
    for number in 0..30 {
        let to = format!("carl{number}@slow.test");
        server.client().send("ann@example.org", &[&to], "Subject: one of many\r\n\r\n");
    }
    let why = until("the rate is told of", || {
        let answer = server.queue(&["why", "site:slow"]).stdout;
        answer.contains("as its rate lets: 5/s").then_some(answer)
    });
    assert!(why.contains("set by site.slow.message-rate"), "{why}");
    (0..30).for_each(|_| drop(hosts.mail()));
    // Five at once, and then five a second.
    let took = deliver("slow.test", 20);
    assert!(took >= 2.9, "{took}");
    assert!(server.metric("ringpost_message_waits_total", &[]) >= 1.0);
    // Two at once, and then two a second, each for one message.
    let took = deliver("few.test", 6);
    assert!(took >= 1.9, "{took}");
}

/// A crowd of one tenant, with one connection to send it on, does not keep the mail of another waiting; not after a restart, either.
#[test]
fn a_crowd_of_one_tenant_does_not_keep_another_waiting() {
    const CROWD: usize = 200;
    let (hosts, back) = (Sink::start(), Sink::start());
    let here = hosts.address().ip();
    let dns = Unbound::records(&["crowd.test. MX 10 mx.test.", &format!("mx.test. A {here}")]);
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n[dns]\nservers = [\"{}\"]\n\
         [[tenant]]\nname = \"news\"\nnetworks = [\"127.0.0.0/8\"]\nsenders = [\"news.example\"]\n\
         [[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\nsenders = [\"shop.example\"]\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {}\nconcurrency-max = 1\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        dns.address,
        hosts.address().port(),
        back.address()
    ));
    hosts.answer(|command| command.starts_with("RCPT").then(|| "450 4.2.0 not yet".to_owned()));
    let mut client = server.client();
    for number in 0..CROWD {
        client.send("ann@news.example", &[&format!("bob{number}@crowd.test")], "Subject: news\r\n\r\n");
        // In the middle, whichever way a restart counts them.
        if number == CROWD / 2 {
            client.send("ann@shop.example", &["carl@crowd.test"], "Subject: reset\r\n\r\n");
        }
    }
    until("all are accepted, and whose they are is told", || {
        let accepted = server.events("accepted");
        let of = |tenant: &str| accepted.iter().filter(|event| event["tenant"] == tenant).count();
        (of("news") == CROWD && of("shop") == 1).then_some(())
    });
    until("all are deferred", || {
        let deferred = |event: &serde_json::Value| event["result"] == "deferred";
        (server.events("outcome").iter().filter(|event| deferred(event)).count() == CROWD + 1).then_some(())
    });
    // After a restart they are whose they were.
    let server = Server::restarted(server);
    hosts.answer(|_| None);
    let retry = server.queue(&["retry", "--all"]);
    assert!(retry.status.success(), "{retry:?}");
    let order = until("all are delivered", || {
        let delivered = |event: &serde_json::Value| event["result"] == "delivered";
        let outcomes = server.events("outcome");
        let order: Vec<_> =
            outcomes.into_iter().filter(delivered).map(|event| event["to"].to_string()).collect();
        (order.len() == CROWD + 1).then_some(order)
    });
    let place = order.iter().position(|to| to.contains("carl@")).unwrap();
    // As many as were in the one connection's hands, and a turn of the crowd.
    assert!(place <= 5, "after {place} of the crowd");
}

/// A site that complains gets less, and says why; one that a rule suspends is left alone until an operator knows better.
#[test]
fn a_site_that_complains_gets_less() {
    let (hosts, back) = (Sink::start(), Sink::start());
    let here = hosts.address().ip();
    let dns = Unbound::records(&[
        "busy.test. MX 10 mx.busy.test.",
        "angry.test. MX 10 mx.angry.test.",
        &format!("mx.busy.test. A {here}"),
        &format!("mx.angry.test. A {here}"),
    ]);
    let server = Server::start(&format!(
        "[cores]\ncount = 2\n[dns]\nservers = [\"{}\"]\n\
         [throttle]\nround = \"1s\"\nsettle = \"0s\"\nstorm-min = 3\n\
         [[reply-rule]]\nname = \"slow\"\ntext = [\"slow down\"]\ncategory = \"rate\"\naction = \"slower\"\n\
         [[reply-rule]]\nname = \"stop\"\ntext = [\"go away\"]\ncategory = \"spam-reputation\"\naction = \"suspend\"\n\
         suspend = \"1h\"\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {}\nconcurrency-max = 8\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        dns.address,
        hosts.address().port(),
        back.address()
    ));
    hosts.answer(|command| {
        let refused = |text: &str| command.starts_with("RCPT").then(|| text.to_owned());
        if command.contains("@busy.test") {
            refused("450 4.2.1 slow down please")
        } else if command.contains("@angry.test") {
            refused("450 4.7.1 go away")
        } else {
            None
        }
    });
    let send = |domain: &str, count: usize| {
        let mut client = server.client();
        for number in 0..count {
            client.send("ann@example.org", &[&format!("bob{number}@{domain}")], "Subject: hello\r\n\r\n");
        }
    };
    let throttled = |site: &'static str, rule: &'static str| {
        until("it gets less", || {
            let matches = |event: &serde_json::Value| event["site"] == site && event["rule"] == rule;
            server.events("throttled").into_iter().find(matches)
        })
    };
    send("busy.test", 4);
    let event = throttled("hosts:mx.busy.test", "slow");
    assert!(event["connections"].as_u64().is_some_and(|count| count < 8), "{event}");
    let why = server.queue(&["why", "mx:busy.test"]).stdout;
    assert!(why.contains("450 4.2.1 slow down please") && why.contains("set by reply-rule.slow"), "{why}");

    send("angry.test", 1);
    let event = throttled("hosts:mx.angry.test", "stop");
    assert!(event["suspended"].as_f64().is_some_and(|secs| secs > 3000.0), "{event}");
    // What comes now waits, untried.
    server.client().send("ann@example.org", &["carl@angry.test"], "Subject: hello\r\n\r\n");
    let listed = server.queue_json(&["list", "--recipient", "carl@angry.test"]);
    let id = listed[0]["id"].as_str().expect("it is queued").to_owned();
    let why = until("it waits", || {
        let answer = server.queue(&["why", &id]).stdout;
        answer.contains("left alone until").then_some(answer)
    });
    assert!(why.contains("450 4.7.1 go away") && why.contains("set by reply-rule.stop"), "{why}");
    until("both are counted", || (server.metric("ringpost_sites_throttled", &[]) >= 2.0).then_some(()));
    hosts.answer(|_| None);
    let retry = server.queue(&["retry", "--destination", "mx:angry.test"]);
    assert!(retry.status.success(), "{retry:?}");
    let outcome = until("it is delivered", || {
        server.events("outcome").into_iter().find(|event| event["to"] == "carl@angry.test")
    });
    assert_eq!((&outcome["result"], &outcome["attempt"]), (&"delivered".into(), &1.into()), "{outcome}");
    let is_over = |event: &serde_json::Value| event["site"] == "hosts:mx.angry.test";
    until("it is told", || server.events("unthrottled").into_iter().find(is_over));
}

/// Anybody may publish the hosts of others, and a moment later his own: that leads his mail there, and nobody else's.
#[test]
fn who_borrows_hosts_and_changes_them_gets_no_mail_of_others() {
    let (good, back) = (Sink::start(), Sink::start());
    let evil = Sink::start_at(beside(good.address()));
    let hosts = [
        format!("mx.good.test. 1 IN A {}", good.address().ip()),
        format!("mx.evil.test. 1 IN A {}", evil.address().ip()),
        "good.test. 1 IN MX 10 mx.good.test.".into(),
    ];
    let zone = |of_evil: &str| {
        let records = hosts.iter().cloned().chain([format!("evil.test. 1 IN MX 10 {of_evil}")]);
        records.collect::<Vec<_>>()
    };
    let before = zone("mx.good.test.");
    let dns = Unbound::records(&before.iter().map(String::as_str).collect::<Vec<_>>());
    let address = dns.address;
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n[dns]\nservers = [\"{address}\"]\nttl-min = \"0s\"\nttl-max = \"1s\"\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {}\nconcurrency-max = 1\nidle = \"0s\"\n\
         [[route]]\nname = \"back\"\ndomains = [\"example.org\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        good.address().port(),
        back.address()
    ));
    good.answer(|command| command.starts_with("RCPT").then(|| "450 4.2.0 not yet".to_owned()));
    let mut client = server.client();
    client.send("ann@example.org", &["eve@evil.test"], "Subject: bait\r\n\r\n");
    for number in 0..10 {
        client.send("ann@example.org", &[&format!("bob{number}@good.test")], "Subject: secret\r\n\r\n");
    }
    until("all are deferred, as of one site", || {
        let of_site = |event: &serde_json::Value| {
            event["result"] == "deferred" && event["site"] == "hosts:mx.good.test"
        };
        (server.events("outcome").iter().filter(|event| of_site(event)).count() == 11).then_some(())
    });
    drop(dns);
    let after = zone("mx.evil.test.");
    let _dns = Unbound::records_at(address, &after.iter().map(String::as_str).collect::<Vec<_>>());
    // What was known of the hosts is over; of the site it is not.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    good.answer(|_| None);
    let retry = server.queue(&["retry", "--all"]);
    assert!(retry.status.success(), "{retry:?}");
    let delivered = until("all are delivered", || {
        let outcomes = server.events("outcome").into_iter().filter(|event| event["result"] == "delivered");
        Some(outcomes.collect::<Vec<_>>()).filter(|outcomes| outcomes.len() == 11)
    });
    for outcome in delivered.iter().filter(|outcome| outcome["to"] != "eve@evil.test") {
        assert_eq!(outcome["host"], "mx.good.test", "{outcome}");
    }
}
