//! Listeners of kind "lmtp" (RFC 2033).

use end_to_end::{Client, Server, Sink, free_address, run, tool};

use crate::{swaks, unfolded};

#[test]
fn clients_of_lmtp() {
    let sink = Sink::start();
    let lmtp = free_address();
    let listener = format!("[[listener]]\nname = \"lmtp\"\nkind = \"lmtp\"\naddress = [\"{lmtp}\"]\n");
    let server = Server::start(&(listener + &sink.route()));
    for (more, protocol) in
        [(&["--protocol", "LMTP"][..], "LMTP"), (&["--protocol", "LMTP", "--tls"], "LMTPS")]
    {
        let to = ["--to", "bob@example.net,cid@example.net"];
        let session = swaks(lmtp, &[&to, more].concat()).good();
        assert!(session.stdout.contains("LHLO client.test"), "{session}");
        let queued = session.stdout.matches("250 2.0.0 queued as ").count();
        assert_eq!(queued, 2, "one for each recipient: {session}");
        let mail = sink.mail();
        assert_eq!(mail.rcpt.len(), 2);
        let trace = unfolded(&mail.content);
        assert!(trace.contains(&format!(" by mx.ringpost.test with {protocol} id ")), "{trace}");
        assert_eq!(server.event("accepted", |_| true)["proto"], protocol);
    }
    // Postfix's own client of it.
    let address = format!("{}:{}", lmtp.ip(), lmtp.port());
    let common = ["-L", "-m", "20", "-s", "2", "-f", "ann@example.org", "-t", "bob@example.net", &address];
    run(&tool("smtp-source"), &common, "").good();
    for _ in 0..20 {
        sink.mail();
    }
    let lhlo = server.metric("ringpost_commands_total", &["verb=\"lhlo\""]);
    assert!(lhlo >= 4.0, "{lhlo}");
    // Who speaks the other protocol notices, on either side.
    let mut client = Client::connect(lmtp);
    assert_eq!(client.expect(220).text(), "mx.ringpost.test LMTP");
    for (command, code) in [("EHLO client.test", 500), ("HELO client.test", 500), ("LHLO client.test", 250)] {
        assert_eq!(client.ask(command).code, code, "{command}");
    }
    let mut client = Client::connect(server.smtp());
    client.expect(220);
    assert_eq!(client.ask("LHLO client.test").code, 502);
}
