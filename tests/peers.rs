//! Mail from and to the programs that others use: Postfix, swaks, openssl, curl, unbound.

use end_to_end::{Server, Sink};

#[test]
fn a_message_goes_through() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut client = server.client();
    client.send("ann@example.org", &["bob@example.net"], "Subject: hello\r\n\r\n.hello\r\n");
    let mail = sink.mail();
    assert!(mail.content.ends_with("\r\n\r\n.hello\r\n"), "{mail:?}");
    assert_eq!(server.event("outcome", |_| true)["result"], "delivered");
}
