//! Tenants and their recipients: suppression lists, links by which recipients leave, quotas, what came already.

use std::{path::Path, sync::mpsc};

use end_to_end::{Client, Finished, Server, Sink, built, free_address, run, until};
use serde_json::{Value, json};

const TENANT: &str = "[[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\n";
const LINKS: &str = "[unsubscribe]\nurl = \"https://news.example.org/u\"\nsecrets = [\"0123456789abcdef\"]\n";
const BOUNCES: &str = "[bounces]\ndomain = \"b.example.org\"\nsecret = \"0123456789abcdef\"\n";
const HELLO: &str = "Subject: x\r\n\r\nx\r\n";

/// `ringpost suppression` with these arguments.
fn suppression(server: &Server, arguments: &[&str], input: &str) -> Finished {
    let config = server.place().join("ringpost.toml");
    let all = [&["suppression", "--config", config.to_str().unwrap()], arguments].concat();
    run(&built("ringpost"), &all, input)
}

/// Who is on the list of the shop, in JSON.
fn entries(server: &Server) -> Vec<Value> {
    let listed = suppression(server, &["list", "--tenant", "shop", "--json"], "").good();
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The code that a recipient gets.
fn rcpt(server: &Server, recipient: &str) -> (u16, String) {
    let mut client = server.client();
    client.ask("MAIL FROM:<ann@example.org>");
    let reply = client.ask(&format!("RCPT TO:<{recipient}>"));
    (reply.code, reply.text())
}

/// Status and body of what curl is answered.
fn curl(arguments: &[&str]) -> (u16, String) {
    let common = ["-sS", "--max-time", "60", "-w", "\n%{http_code}"];
    let Finished { stdout, .. } = run(Path::new("curl"), &[&common, arguments].concat(), "").good();
    let (body, status) = stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The reverse-path of the next message that has one.
fn return_path(sink: &Sink) -> String {
    loop {
        let mail = sink.mail().mail;
        if mail.starts_with("<bounces+") {
            return mail.split(['<', '>']).nth(1).unwrap().to_owned();
        }
    }
}

/// The value of a field of a message, unfolded.
fn field<'a>(content: &'a str, name: &str) -> Option<&'a str> {
    let (header, _) = content.split_once("\r\n\r\n")?;
    header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The path of the link in a message, on our own port.
fn link(server: &Server, content: &str) -> String {
    let url = field(content, "List-Unsubscribe").unwrap_or_else(|| panic!("no link: {content}"));
    let token = url.strip_prefix("<https://news.example.org/u/").and_then(|rest| rest.strip_suffix('>'));
    format!("http://{}/u/{}", server.http(), token.unwrap())
}

#[test]
fn who_is_on_the_list_gets_nothing_over_a_kill_and_a_restart() {
    let sink = Sink::start();
    let more = format!("{}{TENANT}suppression = \"refuse\"\n", sink.route());
    let mut server = Server::start(&more);
    assert_eq!(rcpt(&server, "bob@example.net").0, 250);
    let added =
        suppression(&server, &["add", "--tenant", "shop", "bob@example.net", "@example.com"], "").good();
    assert!(added.stdout.contains("2 entries"), "{}", added.stdout);
    // Nothing is done at the end of that process: what was answered is on disk.
    server.kill();
    server.resume();
    for (who, code) in [
        ("bob@example.net", 550),
        ("Bob@Example.NET", 550),
        ("eve@example.com", 550),
        ("eve@sub.example.com", 250),
        ("eve@example.net", 250),
    ] {
        let (got, text) = rcpt(&server, who);
        assert_eq!(got, code, "{who}: {text}");
        assert!(code == 250 || text.contains("5.7.1") && text.contains("suppression list"), "{text}");
    }
    let labels = ["reason=\"recipient_suppressed\""];
    assert_eq!(server.metric("ringpost_refusals_total", &labels), 3.0);
    assert_eq!(server.metric("ringpost_suppressions", &[]), 2.0);
    let shown = suppression(&server, &["show", "--tenant", "shop", "bob@example.net"], "").good();
    assert!(shown.stdout.contains("manual since"), "{}", shown.stdout);
    let removed = suppression(&server, &["remove", "--tenant", "shop", "bob@example.net"], "").good();
    assert!(removed.stdout.contains("1 entry"), "{}", removed.stdout);
    let server = server.restarted();
    assert_eq!(rcpt(&server, "bob@example.net").0, 250);
    let gone = suppression(&server, &["show", "--tenant", "shop", "bob@example.net"], "");
    assert!(!gone.status.success() && gone.stderr.contains("is not on the list"), "{}", gone.stderr);
    let unknown = suppression(&server, &["add", "--tenant", "shpo", "bob@example.net"], "");
    assert!(unknown.stderr.contains("no tenant is called shpo"), "{}", unknown.stderr);
}

#[test]
fn lists_are_exported_and_imported_and_searched() {
    let sink = Sink::start();
    let more =
        format!("{}{TENANT}suppression = \"refuse\"\n[http]\ntoken = \"0123456789abcdef\"\n", sink.route());
    let server = Server::start(&more);
    let mut file: String = (0..2500).map(|n| format!("user{n}@example.com\n")).collect();
    file += "# a remark\n\nann@example.net\tcomplaint\t2036-01-02T03:04:05Z\tnews\twhat she said\n";
    let read = suppression(&server, &["import", "--tenant", "shop", "-"], &file).good();
    assert_eq!(read.stdout.trim(), "2501 entries read, 2501 put on the list");
    let again = suppression(&server, &["import", "--tenant", "shop", "-"], "user7@example.com\n").good();
    assert_eq!(again.stdout.trim(), "1 entries read, 1 put on the list", "by hand it is put on anew");
    let exported = suppression(&server, &["export", "--tenant", "shop"], "").good().stdout;
    assert_eq!(exported.lines().count(), 2501);
    assert!(exported.contains("ann@example.net\tcomplaint\t2036-01-02T03:04:05Z\tnews\twhat she said\n"));
    let wrong = suppression(&server, &["import", "--tenant", "shop", "-"], "zoe@example.net\nnobody\n");
    assert!(wrong.stderr.contains("line 2") && !wrong.status.success(), "{}", wrong.stderr);
    assert_eq!(rcpt(&server, "zoe@example.net").0, 550, "what stands before it is taken");

    // Over HTTP, for whoever has the token.
    let url = format!("http://{}/api/v1/suppressions", server.http());
    assert_eq!(curl(&[&url]).0, 401);
    let bearer = "Authorization: Bearer 0123456789abcdef";
    let json = "Content-Type: application/json";
    let get = |query: &str| {
        let (status, body) = curl(&["-H", bearer, &format!("{url}{query}")]);
        (status, serde_json::from_str::<Value>(&body).unwrap_or(Value::Null))
    };
    let (status, page) = get("?domain=EXAMPLE.net&reason=complaint");
    assert_eq!((status, page["entries"].as_array().unwrap().len()), (200, 1), "{page}");
    let entry = &page["entries"][0];
    assert_eq!(entry["until"], "2036-01-02T03:04:05Z");
    assert_eq!([&entry["tenant"], &entry["list"], &entry["address"]], ["shop", "news", "ann@example.net"]);
    assert_eq!(get("?tenant=shop&address=user9@example.com").0, 200);
    assert_eq!(get("?tenant=shop&address=user9@example.org").0, 404);
    assert_eq!(get("?tenant=shop&adress=x").0, 400);
    assert_eq!(get("?cursor=nonsense").0, 400);
    let post = |action: &str, body: &Value| {
        let body = body.to_string();
        curl(&["-H", bearer, "-H", json, "-d", &body, &format!("{url}/{action}")])
    };
    let one = json!({"entries": [{"tenant": "*", "address": "all@example.com", "reason": "bounce"}]});
    assert_eq!(post("add", &one), (200, "{\"changed\":1}".into()));
    assert_eq!(rcpt(&server, "all@example.com").0, 550);
    assert_eq!(post("remove", &one), (200, "{\"changed\":1}".into()));
    assert_eq!(rcpt(&server, "all@example.com").0, 250);
    let bad = json!({"entries": [{"tenant": "shop", "address": "x@example.com"}, {"tenant": "shop", "address": "x"}]});
    assert_eq!(post("add", &bad).0, 400);
    assert_eq!(rcpt(&server, "x@example.com").0, 250, "all of them or none");
}

/// Whoever was refused for good is on the list, also when the rules change before the others of the message have had their turn.
#[test]
fn a_refusal_counts_when_a_reload_comes_in_between() {
    let sink = Sink::start();
    let (parting, parted) = mpsc::channel();
    let (reloaded, reload) = mpsc::channel::<()>();
    let mut sessions = 0;
    // One recipient in a transaction, and one transaction in a session.
    sink.answer(move |line| match line {
        line if line.starts_with("EHLO") => {
            Some("250-sink.test\r\n250 LIMITS MAILMAX=1 RCPTMAX=1".to_owned())
        }
        line if line.starts_with("RCPT TO:<gone@") => Some("550 5.1.1 User unknown".to_owned()),
        "QUIT" => {
            sessions += 1;
            if sessions == 1 {
                parting.send(()).unwrap();
                reload.recv().unwrap();
            }
            None
        }
        _ => None,
    });
    let more = format!("[queue]\nretry = [\"1s\"]\n{}{TENANT}suppression = \"refuse\"\n", sink.route());
    let server = Server::start(&more);
    server.client().send("ann@example.org", &["gone@example.net", "bob@example.net"], HELLO);
    parted.recv().unwrap();
    server.configure(&more.replace("\"1s\"", "\"2s\""));
    server.reload();
    reloaded.send(()).unwrap();
    let outcome = server.event("outcome", |event| event["result"] == "failed");
    assert_eq!(outcome["to"], "gone@example.net", "{outcome}");
    let put = server.event("suppressed", |_| true);
    assert_eq!([&put["tenant"], &put["to"], &put["reason"]], ["shop", "gone@example.net", "bounce"]);
    server.event("outcome", |event| event["to"] == "bob@example.net" && event["result"] == "delivered");
}

#[test]
fn refusals_reports_and_complaints_put_people_on_the_list() {
    let sink = Sink::start();
    sink.answer(|line| {
        line.starts_with("RCPT TO:<gone@").then(|| "550 5.1.1 <gone@example.net>: User unknown".to_owned())
    });
    let more = format!("{}verp = true\n{BOUNCES}{TENANT}suppression = \"refuse\"\n", sink.route());
    let server = Server::start(&more);
    server.client().send("ann@example.org", &["gone@example.net"], HELLO);
    let put = server.event("suppressed", |_| true);
    assert_eq!([&put["tenant"], &put["to"], &put["reason"]], ["shop", "gone@example.net", "bounce"]);
    assert!(put["until"].is_string(), "{put}");
    assert_eq!(rcpt(&server, "gone@example.net").0, 550);

    // A report to the address that tells whom it is about, which names somebody else as well.
    server.client().send("ann@example.org", &["bob@example.net"], HELLO);
    let address = return_path(&sink);
    let recipient = |address: &str| {
        format!(
            "Final-Recipient: rfc822; {address}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\r\n"
        )
    };
    let report = format!(
        "From: MAILER-DAEMON@mx.example.net\r\nContent-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n{}{}--x--\r\n",
        recipient("victim@example.net"),
        recipient("bob@example.net")
    );
    let send = |to: &str, content: &str| {
        server.client().send("", &[to], content);
    };
    send(&address, &report);
    let put = server.event("suppressed", |_| true);
    assert_eq!([&put["to"], &put["reason"]], ["bob@example.net", "bounce"]);

    server.client().send("ann@example.org", &["eve@example.net"], HELLO);
    let address = return_path(&sink);
    let complaint = |about: &str| {
        format!(
            "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x\r\n\
             Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nOriginal-Mail-From: <{address}>\r\n\
             Original-Rcpt-To: {about}\r\n\r\n--x--\r\n"
        )
    };
    send("complaints@b.example.org", &complaint("victim@example.net"));
    server.event("complained", |_| true);
    send("complaints@b.example.org", &complaint("Eve@example.net"));
    let put = server.event("suppressed", |_| true);
    assert_eq!([&put["to"], &put["reason"]], ["Eve@example.net", "complaint"]);
    assert_eq!(put["until"], Value::Null, "a complaint is for ever");
    assert_eq!(entries(&server).len(), 3, "and nobody else");
    assert_eq!(rcpt(&server, "victim@example.net").0, 250);
    assert_eq!(server.metric("ringpost_suppressions_added_total", &["reason=\"bounce\""]), 2.0);
}

#[test]
fn who_comes_onto_the_list_later_fails_without_being_asked() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.0 not now");
    let more = format!("{}{TENANT}suppression = \"drop\"\n", sink.route());
    let server = Server::start(&more);
    suppression(&server, &["add", "--tenant", "shop", "bob@example.net"], "").good();
    // As configured, it is taken and comes back.
    let to = ["bob@example.net", "eve@example.net"];
    server.client().send("ann@example.org", &to, HELLO);
    let failed = server.event("outcome", |event| event["to"] == "bob@example.net");
    assert_eq!(
        [&failed["result"], &failed["category"], &failed["status"]],
        ["failed", "suppressed", "5.7.1"]
    );
    assert_eq!(failed["host"], Value::Null);
    let deferred = server.event("outcome", |event| event["to"] == "eve@example.net");
    assert_eq!(deferred["result"], "deferred");
    server.event("returned", |event| event["to"] == "bob@example.net");
    assert!(sink.commands().iter().all(|line| !line.contains("bob@")), "{:?}", sink.commands());
    suppression(&server, &["add", "--tenant", "shop", "eve@example.net"], "").good();
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    let failed = server.event("outcome", |event| event["to"] == "eve@example.net");
    assert_eq!(failed["category"], "suppressed");
    assert_eq!(server.metric("ringpost_suppressed_recipients_total", &["stage=\"delivery\""]), 2.0);
}

#[test]
fn a_recipient_leaves_with_one_click_and_not_by_a_look() {
    let sink = Sink::start();
    let more = format!("{}{LINKS}{TENANT}suppression = \"refuse\"\nunsubscribe = \"marked\"\n", sink.route());
    let mut server = Server::start(&more);
    let news = "List-Id: News of the week <news.example.org>\r\nSubject: x\r\n\r\nx\r\n";
    server.client().send("ann@example.org", &["bob@example.net"], news);
    let content = sink.mail().content;
    assert_eq!(field(&content, "List-Unsubscribe-Post"), Some("List-Unsubscribe=One-Click"));
    assert!(content.starts_with("Received: "), "{content}");
    let link = link(&server, &content);
    // Whoever looks what is behind a link has not left.
    let (status, page) = curl(&[&link]);
    assert!(status == 200 && page.contains("<form method=\"post\">"), "{page}");
    assert_eq!(curl(&["-I", &link]).0, 200);
    assert_eq!(curl(&["-d", "", &link]).0, 400);
    assert_eq!(curl(&["-d", "List-Unsubscribe=No", &link]).0, 400);
    let large = format!("a={}", "x".repeat(20_000));
    assert_eq!(curl(&["-d", &large, &link]).0, 413);
    let forged = format!("{}A", &link[..link.len() - 1]);
    assert_eq!(curl(&["-d", "List-Unsubscribe=One-Click", &forged]).0, 404);
    assert!(entries(&server).is_empty());
    server.client().send("ann@example.org", &["bob@example.net"], news);

    assert_eq!(curl(&["-d", "List-Unsubscribe=One-Click", &link]).0, 200);
    server.kill();
    server.resume();
    let all = entries(&server);
    assert_eq!(all.len(), 1);
    assert_eq!([&all[0]["address"], &all[0]["reason"]], ["bob@example.net", "unsubscribe"]);
    assert_eq!(all[0]["list"], "news.example.org");
    // The list is left, and no other mail.
    assert_eq!(rcpt(&server, "bob@example.net").0, 250);
    server.client().send(
        "ann@example.org",
        &["bob@example.net"],
        "List-Id: <other.example.org>\r\n\r\nx\r\n",
    );
    let mut client = server.client();
    for line in ["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA"] {
        assert!(client.ask(line).is_positive());
    }
    client.put(news.as_bytes());
    let reply = client.ask(".");
    assert!(reply.code == 550 && reply.text().contains("suppression list"), "{reply}");
    // With others it fails alone.
    server.client().send("ann@example.org", &["bob@example.net", "eve@example.net"], news);
    let failed = server.event("outcome", |event| event["result"] == "failed");
    assert_eq!([&failed["to"], &failed["category"]], ["bob@example.net", "suppressed"]);
    assert_eq!(
        server.metric("ringpost_unsubscribe_requests_total", &["result=\"done\""]),
        0.0,
        "it began anew"
    );
    // As a form in parts, which RFC 8058 has as well, on a port for that alone.
    assert_eq!(curl(&["-F", "List-Unsubscribe=One-Click", &link]).0, 200);
    assert_eq!(server.metric("ringpost_unsubscribe_requests_total", &["result=\"done\""]), 1.0);
}

#[test]
fn links_are_for_one_recipient_and_hold_while_their_secret_is_configured() {
    let sink = Sink::start();
    let port = free_address();
    let config = |secrets: &str| {
        format!(
            "{}[unsubscribe]\nurl = \"https://news.example.org/u\"\nsecrets = [{secrets}]\naddress = [\"{port}\"]\n\
             requests-max = 3\n{TENANT}suppression = \"refuse\"\nunsubscribe = \"all\"\n",
            sink.route()
        )
    };
    let server = Server::start(&config("\"the-old-one-of-them\""));
    let mut client = server.client();
    client.send("ann@example.org", &["bob@example.net", "eve@example.net"], HELLO);
    assert_eq!(field(&sink.mail().content, "List-Unsubscribe"), None, "whose would it be?");
    let own = "List-Unsubscribe: <mailto:u@example.org>\r\nSubject: x\r\n\r\nx\r\n";
    client.send("ann@example.org", &["bob@example.net"], own);
    let content = sink.mail().content;
    assert_eq!(field(&content, "List-Unsubscribe"), Some("<mailto:u@example.org>"));
    assert_eq!(field(&content, "List-Unsubscribe-Post"), None);
    client.send("ann@example.org", &["bob@example.net"], HELLO);
    let old = link(&server, &sink.mail().content).replace(&server.http().to_string(), &port.to_string());

    server.configure(&config("\"the-new-one-of-them\", \"the-old-one-of-them\""));
    assert_eq!(server.reload()["event"], "reloaded");
    server.client().send("ann@example.org", &["bob@example.net"], HELLO);
    let new = link(&server, &sink.mail().content).replace(&server.http().to_string(), &port.to_string());
    assert_ne!(old, new);
    assert_eq!((curl(&[&old]).0, curl(&[&new]).0), (200, 200));
    server.configure(&config("\"the-new-one-of-them\""));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(until("a moment with room", || Some(curl(&[&old]).0).filter(|status| *status != 429)), 404);
    // More than three in a second come again later.
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(port)).collect();
    let path = new.split_once("/u/").unwrap().1;
    let request = format!("GET /u/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    clients.iter_mut().for_each(|client| client.put(request.as_bytes()));
    let turned =
        clients.iter_mut().filter_map(|client| client.rest().contains(" 429 ").then_some(())).count();
    assert!(turned >= 1, "forty at once, three a second");
}

#[test]
fn no_more_than_the_quota_is_taken_over_a_kill_and_a_restart() {
    let sink = Sink::start();
    let config = |more: &str| format!("{}{TENANT}monthly-max = 10\nquota-warning = 50\n{more}", sink.route());
    let mut server = Server::start(&config(""));
    let send = |server: &Server, to: &[&str]| server.client().send("ann@example.org", to, HELLO);
    send(&server, &["a@example.net", "b@example.net", "c@example.net"]);
    send(&server, &["a@example.net", "b@example.net"]);
    let warned = server.event("quota_warned", |_| true);
    assert_eq!(
        [&warned["tenant"], &warned["period"], &warned["used"], &warned["max"]],
        [&json!("shop"), &json!("month"), &json!(5), &json!(10)]
    );
    // A message that does not become ours costs nothing.
    let mut client = server.client();
    for line in ["MAIL FROM:<ann@example.org>", "RCPT TO:<a@example.net>", "RSET"] {
        assert_eq!(client.ask(line).code, 250);
    }
    let labels = ["tenant=\"shop\"", "period=\"month\""];
    assert_eq!(server.metric("ringpost_tenant_recipients", &labels), 5.0);
    // Counts are written once a second.
    let used = |server: &Server| {
        let written = std::fs::read_dir(server.place().join("data/suppression")).unwrap().flatten();
        written
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "used"))
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
            .any(|text| text.lines().any(|line| line.contains(" month ") && line.ends_with(" 5")))
    };
    until("the count is on disk", || used(&server).then_some(()));
    server.kill();
    server.resume();
    assert_eq!(server.metric("ringpost_tenant_recipients", &labels), 5.0);
    // From several connections, which are on several cores, at once.
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    let mut taken = 5;
    for round in 0..4 {
        for client in &mut clients {
            client.ask("MAIL FROM:<ann@example.org>");
            let reply = client.ask("RCPT TO:<a@example.net>");
            if taken < 10 {
                assert_eq!(reply.code, 250, "{round}: {reply}");
                client.ask("DATA");
                assert_eq!(client.ask("x\r\n.").code, 250);
                taken += 1;
            } else {
                assert!(reply.code == 452 && reply.text().contains("4.7.1"), "{reply}");
                client.ask("RSET");
            }
        }
    }
    assert_eq!(taken, 10);
    server.event("quota_used_up", |_| true);
    assert_eq!(server.events("quota_used_up").len(), 1, "it is said once");
    let server = server.restarted();
    assert_eq!(rcpt(&server, "a@example.net").0, 452);
    server.configure(&config("quota-excess = \"report\"\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(rcpt(&server, "a@example.net").0, 250);
    send(&server, &["a@example.net"]);
    assert_eq!(server.metric("ringpost_tenant_recipients", &labels), 11.0);
    // Of two that come too late for RCPT to tell, one gets it after its content.
    server.configure(&config("").replace("= 10", "= 12"));
    assert_eq!(server.reload()["event"], "reloaded");
    let mut both = [server.client(), server.client()];
    for client in &mut both {
        for line in ["MAIL FROM:<ann@example.org>", "RCPT TO:<a@example.net>", "DATA"] {
            assert!(client.ask(line).is_positive());
        }
    }
    let codes = both.each_mut().map(|client| client.ask("x\r\n.").code);
    assert_eq!(codes, [250, 452]);
}

#[test]
fn what_came_already_is_taken_and_not_sent_again() {
    let sink = Sink::start();
    let mut server = Server::start(&format!("{}{TENANT}duplicate-window = \"1h\"\n", sink.route()));
    let message = |id: &str| format!("Message-ID: <{id}@example.org>\r\nSubject: x\r\n\r\nx\r\n");
    let mut client = server.client();
    // Refused after its content, it has not come.
    for line in ["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA"] {
        assert!(client.ask(line).is_positive());
    }
    client.put(message("one").as_bytes());
    client.put(b"a bare\nline feed\r\n");
    assert_eq!(client.ask(".").code / 100, 5);
    let first = client.send("ann@example.org", &["bob@example.net"], &message("one"));
    assert!(sink.mail().content.contains("<one@example.org>"));
    let again = client.send("ann@example.org", &["Bob@example.net"], &message("one"));
    let duplicate = server.event("duplicate", |_| true);
    assert_eq!([&duplicate["tenant"], &duplicate["to"]], ["shop", "Bob@example.net"]);
    assert!(first.text().contains(duplicate["id"].as_str().unwrap()));
    assert!(again.text().contains(duplicate["id"].as_str().unwrap()), "{again}");
    // Whoever has not got it gets it; another message is another message, and so is one without an id.
    client.send("ann@example.org", &["bob@example.net", "eve@example.net"], &message("one"));
    let mail = sink.mail();
    assert_eq!(mail.rcpt.len(), 1);
    assert!(mail.rcpt[0].starts_with("<eve@"), "{:?}", mail.rcpt);
    client.send("ann@example.org", &["bob@example.net"], &message("two"));
    for _ in 0..2 {
        client.send("ann@example.org", &["bob@example.net"], HELLO);
    }
    for expected in ["<two@", "Subject: x", "Subject: x"] {
        assert!(sink.mail().content.contains(expected), "{expected}");
    }
    // A restart has forgotten all of it.
    assert_eq!(server.metric("ringpost_duplicates_total", &[]), 2.0);
    server.kill();
    server.resume();
    let after = server.client().send("ann@example.org", &["bob@example.net"], &message("one"));
    assert!(!after.text().contains(duplicate["id"].as_str().unwrap()), "{after}");
    // What was under way at the kill may come again as well.
    let is_it = |event: &Value| after.text().contains(event["id"].as_str().unwrap_or("-"));
    assert_eq!(server.event("outcome", is_it)["result"], "delivered");
}

#[test]
fn an_upgrade_forgets_nobody_and_counts_nothing_twice() {
    let sink = Sink::start();
    let limits = "suppression = \"refuse\"\nmonthly-max = 5\n";
    let server = Server::start(&format!("{}{TENANT}{limits}", sink.route()));
    suppression(&server, &["add", "--tenant", "shop", "bob@example.net"], "").good();
    server.client().send("ann@example.org", &["a@example.net", "b@example.net"], HELLO);
    // The old program serves this one to its end, and the new one everybody else.
    let mut old = server.client();
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    assert_eq!(rcpt(&server, "bob@example.net").0, 550);
    let labels = ["tenant=\"shop\"", "period=\"month\""];
    until("the new one knows what was sent", || {
        (server.metric("ringpost_tenant_recipients", &labels) >= 2.0).then_some(())
    });
    suppression(&server, &["add", "--tenant", "shop", "eve@example.net"], "").good();
    until("the old one hears of it", || {
        old.ask("MAIL FROM:<ann@example.org>");
        let code = old.ask("RCPT TO:<eve@example.net>").code;
        old.ask("RSET");
        (code == 550).then_some(())
    });
    old.send("ann@example.org", &["a@example.net"], HELLO);
    assert_eq!(old.ask("QUIT").code, 221);
    until("the new one has taken over what the old one has counted", || {
        (server.metric("ringpost_tenant_recipients", &labels) >= 3.0).then_some(())
    });
    server.event("took_over", |_| true);
    server.client().send("ann@example.org", &["a@example.net", "b@example.net"], HELLO);
    assert_eq!(rcpt(&server, "a@example.net").0, 452);
    assert_eq!(server.metric("ringpost_tenant_recipients", &labels), 5.0);
    assert_eq!(entries(&server).len(), 2);
}

#[test]
fn by_http_it_is_the_same() {
    let sink = Sink::start();
    let Finished { stdout, stderr, .. } =
        run(&built("ringpost"), &["key", "shop", "--domain", "example.org"], "").good();
    let key = stderr.split_whitespace().find(|word| word.starts_with("ringpost_")).unwrap();
    let tenant = "[[tenant]]\nname = \"shop\"\napi-keys = [\"shop\"]\nsuppression = \"refuse\"\nunsubscribe = \"all\"\n\
                  monthly-max = 2\n";
    let server = Server::start(&format!("{}{stdout}{LINKS}{tenant}", sink.route()));
    suppression(&server, &["add", "--tenant", "shop", "bob@example.net"], "").good();
    let post = |to: &str| {
        let body = json!({"from": "ann@example.org", "to": [to], "subject": "x", "text": "x"}).to_string();
        let bearer = format!("Authorization: Bearer {key}");
        let url = format!("http://{}/api/v1/messages", server.http());
        let (status, body) =
            curl(&["-H", &bearer, "-H", "Content-Type: application/json", "-d", &body, &url]);
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, problem) = post("bob@example.net");
    assert_eq!((status, &problem["smtp"]["reason"]), (422, &json!("recipient_suppressed")), "{problem}");
    assert_eq!(post("eve@example.net").0, 202);
    let link = link(&server, &sink.mail().content);
    assert_eq!(curl(&["-d", "List-Unsubscribe=One-Click", &link]).0, 200);
    assert_eq!(post("eve@example.net").0, 422);
    assert_eq!(post("zoe@example.net").0, 202);
    let (status, problem) = post("zoe@example.net");
    assert_eq!((status, &problem["smtp"]["reason"]), (429, &json!("quota_used_up")), "{problem}");
    assert_eq!(problem["smtp"]["code"], 452);
}
