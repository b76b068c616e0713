//! Mail from and to the programs that others use: Postfix, Exim, Dovecot, HAProxy, swaks, openssl, curl, Python, unbound, ldns, dkimpy,
//! OpenDKIM, OpenDMARC, pyspf, parsedmarc.
//!
//! They are Debian's, but for parsedmarc; tests/setup.sh installs them. Each is started here with its own configuration, in a directory of
//! its own, on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "peers/authenticity.rs"]
mod authenticity;
#[path = "peers/channel_binding.rs"]
mod channel_binding;
#[path = "peers/clients.rs"]
mod clients;
#[path = "peers/commands.rs"]
mod commands;
#[path = "peers/conversions.rs"]
mod conversions;
#[path = "peers/deliverability.rs"]
mod deliverability;
#[path = "peers/differential.rs"]
mod differential;
#[path = "peers/dmarc_failures.rs"]
mod dmarc_failures;
#[path = "peers/dmarc_reports.rs"]
mod dmarc_reports;
#[path = "peers/egress.rs"]
mod egress;
#[path = "peers/etrn.rs"]
mod etrn;
#[path = "peers/exim.rs"]
mod exim;
#[path = "peers/extensions.rs"]
mod extensions;
#[path = "peers/haproxy.rs"]
mod haproxy;
#[path = "peers/indicators.rs"]
mod indicators;
#[path = "peers/judges.rs"]
mod judges;
#[path = "peers/logins.rs"]
mod logins;
#[path = "peers/mailboxes.rs"]
mod mailboxes;
#[path = "peers/names.rs"]
mod names;
#[path = "peers/outbound_tls.rs"]
mod outbound_tls;
#[path = "peers/parsedmarc.rs"]
mod parsedmarc;
#[path = "peers/postfix.rs"]
mod postfix;
#[path = "peers/queue.rs"]
mod queue;
#[path = "peers/races.rs"]
mod races;
#[path = "peers/relay.rs"]
mod relay;
#[path = "peers/reports.rs"]
mod reports;
#[path = "peers/reports_in.rs"]
mod reports_in;
#[path = "peers/rotation.rs"]
mod rotation;
#[path = "peers/spoofing.rs"]
mod spoofing;
#[path = "peers/strangers.rs"]
mod strangers;
#[path = "peers/systems.rs"]
mod systems;
#[path = "peers/unsubscribe.rs"]
mod unsubscribe;
#[path = "peers/xclient.rs"]
mod xclient;
#[path = "peers/xforward.rs"]
mod xforward;

use std::net::SocketAddr;

use end_to_end::{Server, until};

/// A route for every domain to this next hop, with this TLS level.
fn hop(address: SocketAddr, tls: &str) -> String {
    format!(
        "[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\ntls = \"{tls}\"\n"
    )
}

/// Waits until the server's queue is empty.
fn drained(server: &Server) {
    until("the queue is empty", || {
        let summary = server.queue_json(&["summary"]).remove(0);
        (summary["messages"] == 0).then_some(())
    });
}
