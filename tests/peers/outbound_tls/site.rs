//! TLS that an operator asks of a site, beyond what the route and the domain do.

use end_to_end::{Server, Sink};

use super::{Host, authority::Authority, beside, check, zones::Zones};

#[test]
fn a_site_has_to_have_tls() {
    let authority = Authority::new(&["host.plain.test"]);
    let stranger = Authority::new(&["host.plain.test"]);
    let host = Host::start(&authority, "");
    // The same port at another address, where there is no TLS.
    let clear = Sink::start_at(beside(host.address()));
    let (port, here, there) = (host.address().port(), host.address().ip(), clear.address().ip());
    let plain = [
        format!("host A {here}"),
        format!("bare A {there}"),
        format!("itself A {there}"),
        "tls MX 10 host".to_owned(),
        "clear MX 10 bare".to_owned(),
        "other MX 10 bare".to_owned(),
    ];
    let zones = Zones::start(&[], &plain, port);
    let with = |sites: &str, believed: &Authority| {
        format!(
            "[cores]\ncount = 1\n[outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
             [dns]\nservers = [\"{}\"]\n[queue]\ndestination-retry-min = \"1s\"\n{sites}\
             [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\n",
            believed.certificate().display(),
            zones.address()
        )
    };
    let server = Server::start(&with("", &stranger));
    let to = |domain: &str, result: &str, policy: &str, reply: &str| {
        check(&server, &format!("{domain}.plain.test"), result, policy, reply);
    };
    let configure = |sites: &str, believed: &Authority| {
        server.configure(&with(sites, believed));
        assert_eq!(server.reload()["event"], "reloaded");
    };
    to("clear", "delivered", "opportunistic", "");
    to("tls", "delivered", "opportunistic", "");
    // By its hosts; the connection that is open was made when nobody asked.
    configure("[[site]]\nname = \"s\"\nhosts = [\"bare.plain.test\"]\ntls = \"required\"\n", &stranger);
    to("clear", "deferred", "required", "TLS is required, but was not offered");
    to("tls", "delivered", "opportunistic", "");
    // By the domain, whatever its hosts are called; others at the same host are not meant.
    configure(
        "[[site]]\nname = \"s\"\ndomains = [\"clear.plain.test\", \"itself.plain.test\"]\ntls = \"required\"\n",
        &stranger,
    );
    to("other", "delivered", "opportunistic", "");
    to("clear", "deferred", "required", "TLS is required, but was not offered");
    to("itself", "deferred", "required", "TLS is required, but was not offered");
    // With a certificate: whose word counts is said elsewhere.
    let verified = "[[site]]\nname = \"s\"\nhosts = [\"host.plain.test\"]\ntls = \"verified\"\n";
    configure(verified, &stranger);
    to("tls", "deferred", "verified", "certificate");
    server.configure(&with(verified, &authority));
    let server = Server::restarted(server);
    check(&server, "tls.plain.test", "delivered", "verified", "");
}
