//! Refusals and their categories; reports on our mail that come back, and who may write them.

use end_to_end::{Server, Sink, until};
use serde_json::Value;

const BOUNCES: &str = "[bounces]\ndomain = \"b.example.org\"\nsecret = \"0123456789abcdef\"\n";

/// What a host writes that did not find the recipient.
const REPORT: &str = "From: MAILER-DAEMON@mx.example.net\r\nContent-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\
    Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n\
    Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n\
    Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\r\n--x--\r\n";

/// What a next hop was given for a reverse-path, without its angle brackets.
fn reverse_path(sink: &Sink) -> String {
    let mail = sink.mail();
    mail.mail.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}

fn about(event: &Value, keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| event[key].clone()).collect()
}

#[test]
fn a_refusal_has_a_category_in_the_log_the_metrics_and_the_queue() {
    let sink = Sink::start();
    sink.refuse_recipients("452 4.2.2 <bob@example.net>: user is over quota");
    let rule = "[[reply-rule]]\nname = \"full\"\ntext = [\"over quota\"]\ncategory = \"quota\"\naction = \"alarm\"\n";
    let server = Server::start(&(sink.route() + rule));
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let alarm = server.event("alarmed", |_| true);
    assert_eq!(about(&alarm, &["to", "rule"]), ["bob@example.net", "full"]);
    let outcome = server.event("outcome", |_| true);
    assert_eq!(about(&outcome, &["result", "category", "rule"]), ["deferred", "quota", "full"]);
    let labels = ["result=\"deferred\"", "category=\"quota\""];
    until("it is counted", || {
        (server.metric("ringpost_outbound_refusals_total", &labels) >= 1.0).then_some(())
    });
    let id = outcome["id"].as_str().unwrap();
    let shown = server.queue_json(&["show", id]);
    assert_eq!(shown[0]["recipients"][0]["category"], "quota");
}

#[test]
fn a_rule_makes_what_was_permanent_temporary() {
    let sink = Sink::start();
    sink.refuse_recipients("550 5.7.1 Ip frequency limited");
    let rule = "[[reply-rule]]\nname = \"later\"\ntext = [\"frequency limited\"]\ncategory = \"rate\"\naction = \"temporary\"\n";
    let server = Server::start(&(sink.route() + rule));
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let outcome = server.event("outcome", |_| true);
    assert_eq!(about(&outcome, &["result", "status"]), ["deferred", "4.7.1"]);
}

#[test]
fn a_report_comes_back_to_an_address_that_tells_what_it_is_about() {
    let sink = Sink::start();
    let server = Server::start(&(sink.route() + "verp = true\n" + BOUNCES));
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let sent = server.event("outcome", |_| true);
    let address = reverse_path(&sink);
    assert!(address.starts_with("bounces+") && address.ends_with("@b.example.org"), "{address}");

    server.client().send("", &[&address], REPORT);
    let bounced = server.event("bounced", |_| true);
    assert_eq!(bounced["id"], sent["id"]);
    assert_eq!(
        about(&bounced, &["to", "result", "category", "status", "host", "form"]),
        ["bob@example.net", "failed", "bad-mailbox", "5.1.1", "mx.example.net", "standard"]
    );
    assert_eq!(bounced["place"], 0);
    let labels = ["category=\"bad-mailbox\""];
    until("it is counted", || (server.metric("ringpost_bounces_total", &labels) >= 1.0).then_some(()));

    // A complaint comes to the address that providers know, and quotes ours.
    let complaint = format!(
        "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x\r\n\
         Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nOriginal-Mail-From: <{address}>\r\n\
         Original-Rcpt-To: bob@example.net\r\n\r\n--x--\r\n"
    );
    server.client().send("fbl@example.net", &["complaints@b.example.org"], &complaint);
    let complained = server.event("complained", |_| true);
    assert_eq!(complained["id"], sent["id"]);
    assert_eq!(about(&complained, &["to", "kind"]), ["bob@example.net", "abuse"]);
}

#[test]
fn nobody_else_makes_such_an_address() {
    let sink = Sink::start();
    let server = Server::start(&(sink.route() + "verp = true\n" + BOUNCES));
    let mut client = server.client();
    client.ask("MAIL FROM:<>");
    for forged in ["bounces+00000000000000000000000000000000000000q", "bounces", "ann", "postmaster"] {
        assert_eq!(client.ask(&format!("RCPT TO:<{forged}@b.example.org>")).code, 550, "{forged}");
    }
    client.ask("RSET");
    // A report of ours has the null reverse-path, and keeps it.
    client.send("", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(reverse_path(&sink), "");
    // Several recipients of one message share an address.
    client.send("ann@example.org", &["bob@example.net", "eve@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert!(reverse_path(&sink).starts_with("bounces+"));
}

#[test]
fn rules_for_a_campaign_or_a_tenant_are_asked_of_reports_that_come_later() {
    const RULES: &str = "\
        [[campaign]]\nname = \"news\"\nvalues = [\"news-*\"]\n\
        [[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\n\
        [[reply-rule]]\nname = \"of-news\"\ntext = [\"User unknown\"]\ncampaigns = [\"news\"]\ncategory = \"policy\"\n\
        [[reply-rule]]\nname = \"of-shop\"\ntext = [\"User unknown\"]\ntenants = [\"shop\"]\ncategory = \"inactive-mailbox\"\n";
    let sink = Sink::start();
    let route = sink.route() + "verp = true\n";
    let server =
        Server::start(&format!("[queue]\ncampaign-header = \"X-Campaign\"\n{route}{BOUNCES}{RULES}"));
    for (field, rule, category) in
        [("X-Campaign: news-7\r\n", "of-news", "policy"), ("", "of-shop", "inactive-mailbox")]
    {
        server.client().send(
            "ann@example.org",
            &["bob@example.net"],
            &format!("{field}Subject: x\r\n\r\nx\r\n"),
        );
        let address = reverse_path(&sink);
        assert!(address.split('@').next().unwrap().len() <= 64, "{address}");
        // The message has been delivered, and is gone, when the report comes.
        server.client().send("", &[&address], REPORT);
        let bounced = server.event("bounced", |event| event["rule"] == rule);
        assert_eq!(about(&bounced, &["to", "category"]), ["bob@example.net", category]);
    }
}
