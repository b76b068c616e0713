//! What domains say of the TLS of their hosts, kept to: DANE over a signed zone, MTA-STS over HTTPS.
//!
//! ldns signs the zones, unbound proves them, Postfix is the host, and Python has the policies. All on loopback.

#[path = "outbound_tls/authority.rs"]
mod authority;
#[path = "outbound_tls/dane.rs"]
mod dane;
#[path = "outbound_tls/identity.rs"]
mod identity;
#[path = "outbound_tls/policy_host.rs"]
mod policy_host;
#[path = "outbound_tls/reports.rs"]
mod reports;
#[path = "outbound_tls/site.rs"]
mod site;
#[path = "outbound_tls/sts.rs"]
mod sts;
#[path = "outbound_tls/zones.rs"]
mod zones;

use std::net::{IpAddr, SocketAddr};

use end_to_end::{Server, Sink};

pub(crate) use authority::Authority;
pub(crate) use policy_host::PolicyHost;
pub(crate) use zones::Zones;

use crate::postfix::Postfix;

/// A Postfix that shows the certificate of an authority, and what it takes in is swallowed.
struct Host {
    postfix: Postfix,
    _sink: Sink,
}

impl Host {
    fn start(authority: &Authority, settings: &str) -> Self {
        let sink = Sink::start();
        let chain = authority.chain().display().to_string();
        let settings = format!("smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {chain}\n{settings}");
        Self { postfix: Postfix::start(sink.address(), &settings), _sink: sink }
    }

    fn address(&self) -> SocketAddr {
        self.postfix.address()
    }
}

/// Another loopback address, with the same port.
fn beside(address: SocketAddr) -> SocketAddr {
    let IpAddr::V4(ip) = address.ip() else { panic!("the tests use IPv4") };
    let [a, b, c, d] = ip.octets();
    SocketAddr::new([a, b | 128, c, d].into(), address.port())
}

/// What became of a message to this domain.
fn send(server: &Server, domain: &str) -> serde_json::Value {
    let recipient = format!("bob@{domain}");
    server.client().send("ann@example.org", &[&recipient], "Subject: proven\r\n\r\n");
    server.event("outcome", |event| event["to"] == *recipient)
}

/// Sends to a domain, and looks at what came of it, by what, and why.
fn check(server: &Server, domain: &str, result: &str, policy: &str, reply: &str) {
    let outcome = send(server, domain);
    let policy = if policy.is_empty() { serde_json::Value::Null } else { policy.into() };
    assert_eq!((&outcome["result"], &outcome["policy"]), (&result.into(), &policy), "{domain}: {outcome}");
    assert!(outcome["reply"].as_str().unwrap().contains(reply), "{domain}: {outcome}");
}
