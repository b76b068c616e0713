//! Rules for replies that send messages to another pool.

use end_to_end::{Server, Sink};

use super::{address, pool, source};

#[test]
fn a_reply_sends_a_message_to_another_pool() {
    let sink = Sink::start();
    let rule = "[[reply-rule]]\nname = \"not-from-there\"\ntext = [\"not from there\"]\ncategory = \"spam-reputation\"\npool = \"other\"\n";
    let server = Server::start(&format!(
        "{}pool = \"p\"\n{rule}{}{}{}{}",
        sink.route(),
        source("a", address(1), ""),
        source("b", address(2), ""),
        pool("p", "\"a\""),
        pool("other", "\"b\"")
    ));
    sink.answer(|command| command.starts_with("RCPT TO:<bob").then(|| "550 5.7.1 not from there".to_owned()));
    // One recipient is refused, as if for ever, the other is not.
    server.client().send(
        "ann@example.org",
        &["bob@example.net", "cid@example.net"],
        "Subject: x\r\n\r\nx\r\n",
    );
    assert_eq!(sink.mail().client.ip(), address(1));
    let outcome = server.event("outcome", |event| event["to"] == "bob@example.net");
    assert_eq!((&outcome["result"], &outcome["source"]), (&"deferred".into(), &"a".into()), "{outcome}");
    // It waits as it would have, and is tried from there.
    let entry = server.queue_json(&["list"]).remove(0);
    assert_eq!(entry["recipients"][0]["state"], "deferred", "{entry}");
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    let mail = sink.mail();
    assert_eq!((mail.client.ip(), mail.rcpt.len()), (address(2), 1), "{mail:?}");
    let outcome = server.event("outcome", |event| event["to"] == "bob@example.net");
    assert_eq!((&outcome["result"], &outcome["source"]), (&"delivered".into(), &"b".into()), "{outcome}");
    // Others are where they were.
    server.client().send("ann@example.org", &["dan@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(sink.mail().client.ip(), address(1));
    // Who is refused there, too, is refused.
    sink.refuse_recipients("550 5.7.1 not from there");
    server.client().send("ann@example.org", &["eve@example.net"], "Subject: x\r\n\r\nx\r\n");
    server.event("outcome", |event| event["to"] == "eve@example.net" && event["result"] == "deferred");
    server.queue(&["retry", "--recipient", "eve@example.net"]).good();
    let last = server.event("outcome", |event| event["to"] == "eve@example.net");
    assert_eq!((&last["result"], &last["source"]), (&"failed".into(), &"b".into()), "{last}");
}

#[test]
fn what_a_reply_has_chosen_holds_over_a_restart() {
    let sink = Sink::start();
    let rule = "[[reply-rule]]\nname = \"not-from-there\"\ntext = [\"not from there\"]\ncategory = \"spam-reputation\"\npool = \"other\"\n";
    let sources = format!("{}{}", source("a", address(1), ""), source("b", address(2), ""));
    let pools = format!("{}{}", pool("p", "\"a\""), pool("other", "\"b\""));
    let route = format!("{}pool = \"p\"\n", sink.route());
    let mut server = Server::start(&format!("{route}{rule}{sources}{pools}"));
    sink.answer(|command| command.starts_with("RCPT TO:<bob").then(|| "550 5.7.1 not from there".to_owned()));
    let all = ["bob@example.net", "cid@example.net"];
    server.client().send("ann@example.org", &all, "Subject: x\r\n\r\nx\r\n");
    assert_eq!(sink.mail().client.ip(), address(1));
    server.event("outcome", |event| event["to"] == all[0] && event["result"] == "deferred");
    // Twice: what the first start has read it writes down for the second.
    for stop in ["orderly", "crash"] {
        match stop {
            "crash" => drop(server.kill()),
            _ => assert!(server.stop().0.success()),
        }
        server.resume();
        let entry = server.queue_json(&["list"]).remove(0);
        assert_eq!(entry["recipients"][0]["state"], "deferred", "{entry}");
    }
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    assert_eq!(sink.mail().client.ip(), address(2));
    // A pool that is gone has chosen nothing.
    sink.answer(|command| command.starts_with("RCPT TO:<bob").then(|| "550 5.7.1 not from there".to_owned()));
    server.client().send("ann@example.org", &all[..1], "Subject: x\r\n\r\nx\r\n");
    server.event("outcome", |event| event["to"] == all[0] && event["result"] == "deferred");
    assert!(server.stop().0.success());
    let pools = pool("p", "\"a\"");
    server.configure(&format!("{route}{sources}{pools}"));
    server.resume();
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    assert_eq!(sink.mail().client.ip(), address(1));
}
