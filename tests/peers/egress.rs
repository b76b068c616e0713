//! Sources, as far as the DNS has to do with them: sites that it names, and lists that our own addresses are on. unbound answers.

use std::net::Ipv4Addr;

use end_to_end::{Server, Sink, free_address, until};

use crate::names::Unbound;

#[test]
fn listed_addresses_have_less_or_rest() {
    let (sink, dns) = (Sink::start(), free_address());
    // 127.0.0.1 is as good an address as any; as whom the world sees it is what counts.
    let source = |name: &str, public: &str| {
        format!(
            "[[source]]\nname = \"{name}\"\naddress = [\"127.0.0.1\"]\npublic-address = [\"{public}\"]\nehlo-name = \"{name}.test\"\n"
        )
    };
    let kept = "2.2.0.192.some.bl.test. 1 A 127.0.0.4";
    let lists = Unbound::records_at(
        dns,
        &[
            "1.2.0.192.all.bl.test. 1 A 127.0.0.2",
            kept,
            // Not an entry: the list does not answer us, or has lapsed.
            "3.2.0.192.all.bl.test. 1 A 127.255.255.254",
            "3.2.0.192.some.bl.test. 1 A 198.51.100.1",
        ],
    );
    let server = Server::start(&format!(
        "{}pool = \"p\"\n[dns]\nservers = [\"{dns}\"]\nttl-min = \"1s\"\nttl-max = \"1s\"\nnegative-ttl-max = \"1s\"\nfailure-ttl = \"1s\"\n\
         [egress]\nprobe-interval = \"1s\"\ndnsbl-interval = \"1s\"\n\
         [[dnsbl]]\nname = \"all\"\nzone = \"all.bl.test\"\naction = \"stop\"\n\
         [[dnsbl]]\nname = \"some\"\nzone = \"some.bl.test\"\n\
         [[pool]]\nname = \"p\"\nsources = [\"a:8\", \"b:8\", \"c\"]\n{}{}{}",
        sink.route(),
        source("a", "192.0.2.1"),
        source("b", "192.0.2.2"),
        source("c", "192.0.2.3")
    ));
    let listed = server.event("source_listed", |event| event["source"] == "a");
    assert_eq!((&listed["list"], &listed["answer"]), (&"all".into(), &"127.0.0.2".into()), "{listed}");
    until("a is out, and b has less", || {
        let out = server.metric("ringpost_sources_out", &[]);
        let lowered = server.metric("ringpost_sources_lowered", &[]);
        ((out, lowered) == (1.0, 1.0)).then_some(())
    });
    let names = |count: usize| {
        let mut names = std::collections::BTreeMap::new();
        for _ in 0..count {
            server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
            *names.entry(sink.mail().name).or_insert(0) += 1;
        }
        names
    };
    let seen = names(60);
    assert!(!seen.contains_key("a.test"), "{seen:?}");
    // Of 30 slots b keeps 8, and c has 4 of its own and all that both had: one is seldom seen without the other.
    assert!(seen.get("c.test").is_some_and(|count| *count > 30), "{seen:?}");
    let shown = server.sources().good().stdout;
    for words in [
        "a  out for",
        "192.0.2.1 is on the list all (127.0.0.2)",
        "b  lowered for",
        "c  in use",
        "pools        p",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // The list takes it off; one that does not answer meanwhile changes nothing.
    drop(lists);
    let _lists = Unbound::records_at(dns, &[kept]);
    server.event("source_unlisted", |event| event["source"] == "a" && event["list"] == "all");
    server.event("source_used", |event| event["source"] == "a");
    until("a has mail again", || names(5).contains_key("a.test").then_some(()));
    assert!(server.events("source_unlisted").iter().all(|event| event["source"] == "a"));
}

#[test]
fn limits_of_a_site_hold_for_each_source() {
    let (sink, dns) = (Sink::start(), free_address());
    let [_, _, middle, low] = std::process::id().to_be_bytes();
    let addresses = [201, 202].map(|second| Ipv4Addr::new(127, second, middle, low));
    let (at, [one, two]) = (sink.address(), addresses);
    let _dns = Unbound::records_at(
        dns,
        &[
            "example.test. 60 MX 10 mx.slow.test.",
            "other.test. 60 MX 10 mx.slow.test.",
            &format!("mx.slow.test. 60 A {}", at.ip()),
        ],
    );
    let server = Server::start(&format!(
        "[dns]\nservers = [\"{dns}\"]\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nport = {}\nconcurrency-max = 1\nidle = \"30m\"\n\
         [[site]]\nname = \"slow\"\nhosts = [\"*.slow.test\"]\nmessage-rate = \"1/h\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nsources = [\"a\", \"b\"]\n\
         [[source]]\nname = \"a\"\naddress = [\"{one}\"]\n[[source]]\nname = \"b\"\naddress = [\"{two}\"]\n",
        at.port()
    ));
    for number in 0..40 {
        let recipient = if number % 2 == 0 { "bob@example.test" } else { "bob@other.test" };
        server.client().send("ann@example.org", &[recipient], "Subject: x\r\n\r\nx\r\n");
    }
    // One from each, whatever domain it is for.
    let mut from = [sink.mail(), sink.mail()].map(|mail| mail.client.ip());
    from.sort();
    assert_eq!(from, [one, two]);
    let told = until("it is told why the rest waits", || {
        let told = server.why("site:slow");
        let of =
            |name: &str| told.iter().any(|(subject, cause, _)| subject.starts_with(name) && cause == "rate");
        (of("a@site:slow") && of("b@site:slow")).then_some(told)
    });
    assert!(told.iter().any(|(_, _, set_by)| set_by == "site.slow.message-rate"), "{told:?}");
    let only = server.why("a@site:slow");
    assert!(
        !only.is_empty() && only.iter().all(|(subject, _, _)| subject.starts_with("a@site:slow")),
        "{only:?}"
    );
    assert_eq!((sink.waiting(), sink.open_max()), (0, 2), "one connection from each");
    let summary = server.queue_json(&["summary"]).remove(0);
    let shown = summary["destinations"].as_array().unwrap();
    assert!(shown.len() == 2 && shown.iter().all(|one| one["site"] == "site:slow"), "{summary}");
}

#[test]
fn limits_of_a_rule_for_some_hold_for_each_of_them() {
    let (sink, dns) = (Sink::start(), free_address());
    let at = sink.address();
    let _dns = Unbound::records_at(
        dns,
        &[
            "example.test. 60 MX 10 mx.slow.test.",
            "other.test. 60 MX 10 mx.slow.test.",
            &format!("mx.slow.test. 60 A {}", at.ip()),
        ],
    );
    let campaigns: String = ["sale", "news", "rest"]
        .map(|name| format!("[[campaign]]\nname = \"{name}\"\nvalues = [\"{name}-*\"]\n"))
        .concat();
    let server = Server::start(&format!(
        "[dns]\nservers = [\"{dns}\"]\n[queue]\ncampaign-header = \"X-Campaign\"\n\
         [[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\n{campaigns}\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nport = {}\nconcurrency-max = 1\nidle = \"30m\"\n\
         [[site]]\nname = \"bulk\"\nhosts = [\"*.slow.test\"]\ncampaigns = [\"sale\", \"news\"]\nmessage-rate = \"1/h\"\n\
         [[site]]\nname = \"own\"\nhosts = [\"*.slow.test\"]\ntenants = [\"shop\"]\n",
        at.port()
    ));
    let send = |recipient: &str, field: &str| {
        let content = format!("Subject: x\r\n{field}\r\nx\r\n");
        server.client().send("ann@example.org", &[recipient], &content);
    };
    for number in 0..10 {
        let recipient = if number % 2 == 0 { "bob@example.test" } else { "bob@other.test" };
        let day = number % 3;
        for name in ["sale", "news"] {
            send(recipient, &format!("X-Campaign: {name}-{day}\r\n"));
        }
    }
    // One of each campaign, whatever domain it is for and whatever it says beyond that.
    let mut came = [sink.mail(), sink.mail()].map(|mail| mail.content.contains("X-Campaign: sale"));
    came.sort_unstable();
    assert_eq!(came, [false, true]);
    let told = until("it is told why the rest waits", || {
        let told = server.why("site:bulk");
        let of =
            |name: &str| told.iter().any(|(subject, cause, _)| subject.starts_with(name) && cause == "rate");
        (of("site:bulk,campaign=sale+=") && of("site:bulk,campaign=news+=")).then_some(told)
    });
    assert!(told.iter().any(|(_, _, set_by)| set_by == "site.bulk.message-rate"), "{told:?}");
    // Other mail there has a rule of its own, and is not kept waiting.
    for field in ["", "X-Campaign: rest-1\r\n", "X-Campaign: else\r\n"] {
        send("carl@other.test", field);
        let outcome = server.event("outcome", |event| event["to"] == "carl@other.test");
        assert_eq!(
            (&outcome["result"], &outcome["site"]),
            (&"delivered".into(), &"site:own,tenant=shop".into())
        );
        assert!(sink.mail().rcpt[0].contains("carl"));
    }
    assert_eq!((sink.waiting(), sink.open_max()), (0, 3), "one connection of each");
}
