//! Campaigns: what messages say which they are of is kept, and pools, rules and operators choose by it.

use std::{collections::BTreeMap, net::IpAddr};

use end_to_end::{Server, Sink};

use super::egress::{address, pool, source};

const HEADER: &str =
    "[queue]\ncampaign-header = \"X-Campaign\"\nretry = [\"1h\"]\njitter = 0\ngreylist-retry = \"\"\n";
/// Who brings mail in these tests is a tenant's client.
const SHOP: &str = "[[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\n";
const NEWS: &str = "[[campaign]]\nname = \"news\"\nvalues = [\"news-*\", \"weekly\"]\ntenants = [\"shop\"]\n";

/// Sends a message that says this of its campaign.
fn send(server: &Server, to: &str, field: &str) {
    let content = format!("Subject: x\r\n{field}To: {to}\r\n\r\nX-Campaign: in the body\r\n");
    server.client().send("ann@example.org", &[to], &content);
}

fn only<'a>(entries: &'a [serde_json::Value], what: &str) -> Vec<&'a str> {
    let mut all: Vec<_> = entries.iter().map(|entry| entry[what].as_str().unwrap_or_default()).collect();
    all.sort_unstable();
    all
}

#[test]
fn what_a_message_says_is_kept_and_found_by() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.1 later");
    let more = format!("{HEADER}{SHOP}{NEWS}{}", sink.route());
    let mut server = Server::start(&more);
    for (to, field) in [
        ("a@example.net", "x-campaign: News-2026\r\n"),
        ("b@example.net", "X-Campaign:\r\n sale\r\n 2026\r\n"),
        ("c@example.net", ""),
        ("d@example.net", "X-Campaign: weekly\r\n"),
        ("e@example.net", "X-Campaign: \u{1}\r\n"),
    ] {
        send(&server, to, field);
        let accepted = server.event("accepted", |_| true);
        let event = server.event("outcome", |event| event["to"] == *to && event["result"] == "deferred");
        let said = match to.as_bytes()[0] {
            b'a' => "News-2026".into(),
            b'b' => "sale 2026".into(),
            b'd' => "weekly".into(),
            _ => serde_json::Value::Null,
        };
        assert_eq!((&accepted["campaign"], &event["campaign"]), (&said, &said), "{accepted} {event}");
    }
    let check = |server: &Server| {
        for (name, expected) in [
            // By the name of a campaign, else by what they say; the case of letters does not count.
            ("NEWS", &["News-2026", "weekly"][..]),
            ("news-2026", &["News-2026"]),
            ("Sale 2026", &["sale 2026"]),
            ("other", &[]),
        ] {
            let found = server.queue_json(&["list", "--campaign", name]);
            assert_eq!(only(&found, "campaign"), expected, "{name}");
        }
        assert_eq!(server.queue_json(&["list"]).len(), 5);
    };
    check(&server);
    // A change goes by the same, of the queue's own knowledge and by reading; also after a restart.
    server.queue(&["hold", "--campaign", "news"]).good();
    let held = |server: &Server| only(&server.queue_json(&["list", "--state", "held"]), "campaign").join(" ");
    assert_eq!(held(&server), "News-2026 weekly");
    assert!(server.stop().0.success());
    server.resume();
    check(&server);
    assert_eq!(held(&server), "News-2026 weekly");
    server.queue(&["release", "--campaign", "weekly"]).good();
    assert_eq!(held(&server), "News-2026");
    // Another configuration knows other campaigns, of mail that waits as well.
    let sales = "[[campaign]]\nname = \"sales\"\nvalues = [\"sale*\"]\n";
    server.configure(&format!("{HEADER}{SHOP}{sales}{}", sink.route()));
    assert_eq!(server.reload()["event"], "reloaded");
    server.event("rerouted", |_| true);
    assert_eq!(only(&server.queue_json(&["list", "--campaign", "sales"]), "campaign"), ["sale 2026"]);
    // No metric says what senders have written.
    let metrics = server.get("/metrics");
    assert!(["News-2026", "sale 2026", "weekly"].iter().all(|said| !metrics.contains(said)), "{metrics}");
    sink.accept();
    server.queue(&["release", "--all"]).good();
    server.queue(&["retry", "--all"]).good();
    (0..5).for_each(|_| drop(sink.mail()));
}

#[test]
fn a_campaign_has_a_pool_and_others_have_it_not() {
    let sink = Sink::start();
    let [one, two, three] = [1, 2, 3].map(address);
    let base = format!(
        "{HEADER}{}pool = \"r\"\n{}{}{}{}{}{}",
        sink.route(),
        source("a", one, ""),
        source("b", two, ""),
        source("c", three, ""),
        pool("r", "\"a\""),
        pool("p", "\"b\""),
        pool("t", "\"c\"")
    );
    let campaign = format!("{NEWS}pool = \"p\"\n");
    let mut server = Server::start(&format!("{base}{SHOP}pool = \"t\"\n{campaign}"));
    let leaves = |server: &Server, fields: &[&str]| -> BTreeMap<IpAddr, usize> {
        let mut from = BTreeMap::new();
        for field in fields {
            send(server, "bob@example.net", field);
            *from.entry(sink.mail().client.ip()).or_default() += 1;
        }
        from
    };
    let (news, weekly) = ("X-Campaign: news-1\r\n", "X-Campaign: Weekly\r\n");
    assert_eq!(leaves(&server, &[news, weekly, news]), BTreeMap::from([(two, 3)]));
    assert_eq!(leaves(&server, &["", "X-Campaign: else\r\n"]), BTreeMap::from([(three, 2)]));
    // What waits goes from there as well, after a restart too.
    sink.refuse_recipients("450 4.2.1 later");
    send(&server, "bob@example.net", news);
    server.event("outcome", |event| event["result"] == "deferred" && event["source"] == "b");
    assert!(server.stop().0.success());
    server.resume();
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    assert_eq!(sink.mail().client.ip(), two);
    // Whoever is not that tenant may write what it likes.
    let other = "[[tenant]]\nname = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n";
    server.configure(&format!("{base}{other}pool = \"t\"\n{campaign}"));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(leaves(&server, &[news]), BTreeMap::from([(one, 1)]));
}

#[test]
fn rules_are_for_tenants_and_campaigns() {
    let sink = Sink::start();
    sink.refuse_recipients("452 4.2.2 mailbox full");
    let rules = "[[reply-rule]]\nname = \"of-news\"\ncodes = [452]\ncategory = \"policy\"\ncampaigns = [\"news\"]\n\
        [[retry]]\nname = \"news-end\"\ncampaigns = [\"news\"]\nretry = [\"3h\"]\n\
        [[retry]]\nname = \"of-shop\"\ntenants = [\"Shop\"]\nretry = [\"2h\"]\n\
        [[retry]]\nname = \"of-none\"\ntenants = [\"office\"]\nretry = [\"1m\"]\n";
    let office = "[[tenant]]\nname = \"office\"\nnetworks = [\"192.0.2.0/24\"]\n";
    let server = Server::start(&format!("{HEADER}{SHOP}{office}{NEWS}{rules}{}", sink.route()));
    for (to, field, category, retry, wait) in [
        ("a@example.net", "X-Campaign: weekly\r\n", "policy", "news-end", 3.0 * 3600.0),
        ("b@example.net", "X-Campaign: daily\r\n", "quota", "of-shop", 2.0 * 3600.0),
        ("c@example.net", "", "quota", "of-shop", 2.0 * 3600.0),
    ] {
        send(&server, to, field);
        let event = server.event("outcome", |event| event["to"] == *to);
        assert_eq!((&event["category"], &event["retry"]), (&category.into(), &retry.into()), "{event}");
        assert!((event["next"].as_f64().unwrap() - wait).abs() < 60.0, "{event}");
        let reasons = server.why(event["id"].as_str().unwrap());
        assert!(reasons.iter().any(|(_, _, set_by)| *set_by == format!("retry.{retry}")), "{reasons:?}");
    }
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    (0..3).for_each(|_| drop(sink.mail()));
}
