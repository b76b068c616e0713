//! Mail that is passed on with a sender's address of ours, and what comes back to it (SRS).

use end_to_end::{Server, Sink};

const CONTENT: &str = "Subject: passed on\r\n\r\nx\r\n";

fn configuration(sink: &Sink, secrets: &str) -> String {
    format!(
        "[srs]\ndomain = \"f.test\"\nsecrets = [{secrets}]\n[[domain]]\nname = \"ours.test\"\n\
         [[route]]\nname = \"on\"\ndomains = [\"ours.test\"]\nvia = \"hop\"\nhosts = [\"{}\"]\ntls = \"none\"\nsrs = true\n{}",
        sink.address(),
        sink.route(),
    )
}

/// What stands between the angle brackets of a path.
fn path(text: &str) -> String {
    text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap().0.to_owned()
}

/// Of the next message.
fn sender(sink: &Sink) -> String {
    path(&sink.mail().mail)
}

/// The only one of the next message.
fn recipient(sink: &Sink) -> String {
    let mail = sink.mail();
    assert_eq!(mail.rcpt.len(), 1, "{:?}", mail.rcpt);
    path(&mail.rcpt[0])
}

#[test]
fn what_is_passed_on_can_come_back() {
    let sink = Sink::start();
    let mut server = Server::start(&configuration(&sink, "\"0123456789abcdef\""));
    server.client().send("ann@a.example", &["bob@ours.test"], CONTENT);
    let made = sender(&sink);
    assert!(made.starts_with("SRS0=") && made.ends_with("=a.example=ann@f.test"), "{made}");
    // A sender of ours stays, and so does one who sends where nothing is rewritten.
    for (from, to) in
        [("eve@ours.test", "bob@ours.test"), ("ann@a.example", "carl@else.example"), ("", "bob@ours.test")]
    {
        server.client().send(from, &[to], CONTENT);
        assert_eq!(sender(&sink), from);
    }
    // A report finds its way back, whoever brings it and in whatever case.
    for to in [made.clone(), made.to_lowercase()] {
        server.client().send("", &[&to], CONTENT);
        assert_eq!(recipient(&sink), "ann@a.example");
    }
    let mut client = server.client();
    client.ask("EHLO x.test");
    client.ask("MAIL FROM:<>");
    let forged = made.replace("=ann@", "=eve@");
    let refused = client.ask(&format!("RCPT TO:<{forged}>"));
    assert_eq!(refused.code, 550, "{}", refused.text());
    assert_eq!(client.ask("RCPT TO:<postmaster@f.test>").code, 550);
    // A new secret in front: the old address is still known, over a restart as well.
    server.configure(&configuration(&sink, "\"fedcba9876543210\", \"0123456789abcdef\""));
    server = server.restarted();
    server.client().send("", &[&made], CONTENT);
    assert_eq!(recipient(&sink), "ann@a.example");
    server.client().send("ann@a.example", &["bob@ours.test"], CONTENT);
    assert_ne!(sender(&sink), made);
    server.configure(&configuration(&sink, "\"fedcba9876543210\""));
    server.reload();
    let mut client = server.client();
    client.ask("EHLO x.test");
    client.ask("MAIL FROM:<>");
    assert_eq!(client.ask(&format!("RCPT TO:<{made}>")).code, 550);
    assert_eq!(server.metric("ringpost_srs_total", &["way=\"in\""]), 1.0);
}
