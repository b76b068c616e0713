//! Hosts that are not always there, and ask for their mail when they are (RFC 1985).

use end_to_end::{Client, Server, Sink, free_address, run, tool};

use crate::drained;

/// Says these by Python's smtplib, and answers the codes.
fn ask(server: &Server, commands: &[&str]) -> Vec<String> {
    let (host, port) = (server.smtp().ip(), server.smtp().port());
    let script = format!(
        r#"
import smtplib
with smtplib.SMTP("{host}", {port}) as client:
    client.ehlo()
    print("offered" if client.has_extn("etrn") else "absent")
    for command in {commands:?}:
        code, text = client.docmd(command)
        print(code, text.decode())
"#
    );
    run(&tool("python3"), &["-c", &script], "").good().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_branch_asks_for_its_mail() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.1 not there");
    let (hop, dead) = (sink.address(), free_address());
    let routes = format!(
        "[[route]]\nname = \"branch\"\ndomains = [\"branch.example\", \"other.example\"]\nvia = \"hop\"\nhosts = [\"{hop}\"]\n\
         [[route]]\nname = \"rest\"\ndomains = [\"*\"]\n\
         [dns]\nservers = [\"{dead}\"]\ntimeout = \"100ms\"\nattempts = 1\nfailure-ttl = \"0s\"\n"
    );
    let rule = "[[etrn]]\nname = \"branch\"\nnetworks = [\"127.0.0.0/8\"]\n\
                domains = [\"branch.example\", \"*.branch.example\"]\n";
    let server = Server::start(&format!("{rule}{routes}"));
    assert_eq!(
        ask(
            &server,
            &["ETRN branch.example", "ETRN @branch.example", "ETRN other.example", "ETRN branch", "ETRN #q"]
        ),
        [
            "offered",
            "251 2.0.0 no messages waiting for node branch.example",
            "251 2.0.0 no messages waiting for node @branch.example",
            "459 4.7.1 node not allowed: it is not this client's",
            "501 5.5.4 syntax error in arguments",
            "501 5.5.4 syntax error in arguments",
        ]
    );
    let mut client = server.client();
    for to in ["bob@branch.example", "eve@other.example", "carl@deep.branch.example"] {
        client.send("ann@example.org", &[to], "Subject: wait\r\n\r\n");
        server.event("outcome", |event| event["to"] == *to && event["result"] == "deferred");
    }
    // What its sender has held back is not the branch's to have (RFC 4865 §4.2).
    let mut submission = Client::greeted(server.submission());
    for line in
        ["EHLO client.test", "MAIL FROM:<ann@example.org> HOLDFOR=80000", "RCPT TO:<dan@branch.example>"]
    {
        assert_eq!(submission.ask(line).code, 250);
    }
    submission.say("DATA");
    submission.expect(354);
    submission.put(b"From: ann@example.org\r\nSubject: later\r\n\r\n.\r\n");
    submission.expect(250);

    sink.accept();
    assert_eq!(
        ask(&server, &["ETRN branch.example"])[1],
        "250 2.0.0 queuing for node branch.example started"
    );
    server.event("asked", |event| event["node"] == "branch.example" && event["code"] == 250);
    assert!(sink.mail().rcpt[0].starts_with("<bob@"));
    assert_eq!(
        ask(&server, &["ETRN deep.branch.example"])[1],
        "252 2.0.0 pending messages for node deep.branch.example started"
    );
    server.event("outcome", |event| event["to"] == "carl@deep.branch.example" && event["attempt"] == 2);
    let left = server.queue_json(&["list"]);
    assert_eq!(left.len(), 3, "others wait: {left:?}");
    assert_eq!(sink.waiting(), 0);
    server.queue(&["remove", "--all", "--yes"]).good();
    drained(&server);

    // Whoever may not ask is not told of the command.
    server.configure(&format!("{}{routes}", rule.replace("127.0.0.0/8", "192.0.2.0/24")));
    server.reload();
    let said = ask(&server, &["ETRN branch.example"]);
    assert_eq!(said, ["absent", "502 5.5.1 command not implemented"]);
    server.configure(&format!(
        "[[listener]]\nname = \"smtp\"\nextensions = {{ etrn = false }}\n{rule}{routes}"
    ));
    server.reload();
    assert_eq!(ask(&server, &["ETRN branch.example"])[0], "absent");
}
