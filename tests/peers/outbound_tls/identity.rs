//! A route's own certificate, and sessions that are taken up again.

use end_to_end::Server;

use super::{Host, authority::Authority, send};

#[test]
fn a_route_has_a_certificate_of_its_own() {
    let authority = Authority::new(&["mx.postfix.test"]);
    let host = Host::start(
        &authority,
        &format!(
            "smtpd_tls_ask_ccert = yes\nsmtpd_tls_req_ccert = yes\nsmtpd_tls_loglevel = 1\n\
             smtpd_tls_security_level = encrypt\nsmtpd_tls_CAfile = {}\n",
            authority.certificate().display()
        ),
    );
    let (certificate, key) = authority.issue("client", &["client.test"]);
    let route = |more: &str| {
        format!(
            "[cores]\ncount = 1\n[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n\
             tls = \"required\"\nidle = \"0s\"\n{more}",
            host.address()
        )
    };
    // Postfix wants one.
    let server = Server::start(&route(""));
    assert_eq!(send(&server, "example.net")["result"], "deferred");
    let shown =
        format!("client-certificate = \"{}\"\nclient-key = \"{}\"\n", certificate.display(), key.display());
    server.configure(&route(&shown));
    let mut server = Server::restarted(server);
    assert_eq!(send(&server, "example.net")["result"], "delivered");
    assert_eq!(send(&server, "example.net")["result"], "delivered");
    host.postfix.logs("Trusted TLS connection established from");
    // A source has its own, whatever the route's is; and a reload reads it.
    let of_source = |more: &str| {
        format!(
            "{}pool = \"p\"\n[[pool]]\nname = \"p\"\nsources = [\"a\"]\n[[source]]\nname = \"a\"\naddress = [\"127.0.0.1\"]\n{more}",
            route("")
        )
    };
    server.configure(&of_source(""));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(send(&server, "example.com")["result"], "deferred");
    server.configure(&of_source(&shown));
    assert_eq!(server.reload()["event"], "reloaded");
    let outcome = send(&server, "example.org");
    assert_eq!((&outcome["result"], &outcome["source"]), (&"delivered".into(), &"a".into()), "{outcome}");
    // A key that is not there keeps it from starting, and it says which.
    server.stop();
    server.configure(&route(&shown.replace("client-key.pem", "missing.pem")));
    let output = server.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("route.hop.client-key"), "{said}");
}

#[test]
fn a_session_is_taken_up_again() {
    let authority = Authority::new(&["mx.postfix.test"]);
    let host = Host::start(&authority, "");
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n\
         tls = \"required\"\nidle = \"0s\"\n",
        host.address()
    ));
    assert_eq!(send(&server, "one.test")["result"], "delivered");
    assert_eq!(server.metric("ringpost_tls_resumed_outbound_total", &[]), 0.0);
    assert_eq!(send(&server, "two.test")["result"], "delivered");
    assert_eq!(server.metric("ringpost_tls_resumed_outbound_total", &[]), 1.0);
    assert_eq!(server.metric("ringpost_tls_handshakes_total", &["side=\"out\"", "result=\"done\""]), 2.0);
}
