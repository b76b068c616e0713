//! DANE (RFC 7672): records good, bad, unusable, bogus and not proven.

use end_to_end::{Server, Sink};

use super::{Host, authority::Authority, beside, check, zones::Zones};

#[test]
fn hosts_are_held_to_their_records() {
    let authority = Authority::new(&["ta.signed.test", "elsewhere.test"]);
    let host = Host::start(&authority, "");
    // The same port at another address, where there is no TLS.
    let clear = Sink::start_at(beside(host.address()));
    let (port, here, there) = (host.address().port(), host.address().ip(), clear.address().ip());
    let key = authority.key_digest("host");
    let (issuer, issuer_key) = (authority.digest("ca"), authority.key_digest("ca"));
    let wrong = "7".repeat(64);
    let record = |name: &str, data: &str| {
        let tlsa = |data: &str| format!("_{port}._tcp.{name} TLSA {data}");
        let mut lines = vec![format!("{name} MX 10 {name}"), format!("{name} A {here}")];
        lines.extend(data.split("; ").filter(|data| !data.is_empty()).map(tlsa));
        lines
    };
    let mut signed: Vec<String> = [
        record("ee", &format!("3 1 1 {key}")),
        record("two", &format!("3 1 1 {wrong}; 3 1 1 {key}")),
        record("wrong", &format!("3 1 1 {wrong}")),
        record("ta", &format!("2 0 2 {issuer}")),
        record("ta-key", &format!("2 1 1 {issuer_key}")),
        record("unusable", &format!("1 1 1 {key}; 0 0 2 {issuer}")),
        record("without", ""),
    ]
    .concat();
    signed.extend([
        // The name in the certificate is that of the host, the domain is another.
        "served MX 10 ta".to_owned(),
        // An alias: the records are at its end.
        "alias-mx CNAME ee".to_owned(),
        "alias MX 10 alias-mx".to_owned(),
        format!("in-clear MX 10 in-clear\nin-clear A {there}\n_{port}._tcp.in-clear TLSA 3 1 1 {key}"),
        // The host cannot be proven, whatever its domain is.
        "leads-out MX 10 host.plain.test.".to_owned(),
        // Two hosts: the first does not keep to its records, the second does.
        "both MX 10 in-clear\nboth MX 20 ee".to_owned(),
    ]);
    // What is spoilt is found by this name.
    signed.push(format!("bogus MX 10 bogus\nbogus A {here}\n_{port}._tcp.bogus TLSA 3 1 1 {key}"));
    let plain =
        [format!("host A {here}\n_{port}._tcp.host TLSA 3 1 1 {wrong}"), "direct MX 10 host".to_owned()];
    let zones = Zones::start(&signed, &plain, port);
    let routes = |tls: &str| {
        format!(
            "[cores]\ncount = 1\n[dns]\nservers = [\"{}\"]\nfailure-ttl = \"0s\"\n\
             [queue]\ndestination-retry-min = \"1s\"\n\
             [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n{tls}",
            zones.address()
        )
    };
    // Without a word: it is what there is by default.
    let server = Server::start(&routes(""));
    let to = |domain: &str, result: &str, policy: &str, reply: &str| {
        check(&server, &format!("{domain}.test"), result, policy, reply);
    };
    to("ee.signed", "delivered", "dane", "");
    to("two.signed", "delivered", "dane", "");
    to("ta.signed", "delivered", "dane", "");
    to("served.signed", "delivered", "dane", "");
    to("alias.signed", "delivered", "dane", "");
    to("both.signed", "delivered", "dane", "");
    to("unusable.signed", "delivered", "dane-unusable", "");
    to("without.signed", "delivered", "opportunistic", "");
    to("direct.plain", "delivered", "opportunistic", "");
    to("leads-out.signed", "delivered", "opportunistic", "");
    to("wrong.signed", "deferred", "dane", "no TLSA record matches it");
    // Issued by whom the record says, and for others.
    to("ta-key.signed", "deferred", "dane", "TLS handshake failed");
    to("in-clear.signed", "deferred", "dane", "TLS is required, but was not offered");
    to("bogus.signed", "deferred", "", "looking up the TLSA records of bogus.signed.test");
    let counted = |policy: &str, result: &str| {
        let labels = [format!("policy=\"{policy}\""), format!("result=\"{result}\"")];
        server.metric("ringpost_tls_policies_total", &[&labels[0], &labels[1]])
    };
    assert_eq!(counted("dane", "kept"), 6.0);
    // One of them was the first host of two.
    assert_eq!(counted("dane", "broken"), 4.0);
    assert_eq!(counted("dane-unusable", "kept"), 1.0);
    assert_eq!(counted("opportunistic", "kept"), 3.0);
    // Whoever asks for no less gets no less, and whoever does not care is not kept from anything.
    server.configure(&routes("tls = \"dane-required\"\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    to("ee.signed", "delivered", "dane", "");
    to("without.signed", "deferred", "", "DANE is required");
    to("direct.plain", "deferred", "", "DANE is required");
    server.configure(&routes("tls = \"opportunistic\"\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    to("wrong.signed", "delivered", "opportunistic", "");
    to("in-clear.signed", "delivered", "opportunistic", "");
}
