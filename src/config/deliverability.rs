//! Domains that are looked at as mail testers do.

use std::{net::IpAddr, time::Duration};

use mail::Domain;

use crate::{
    Config,
    notation::{List, Literal, Time, Whole, YesNo},
    reader::Reader,
    schema::section,
};

const SECOND: u64 = 1_000;
const DAY: u64 = 24 * 3_600 * SECOND;
/// Domains that are looked at by and by: each has a series of metrics for each check.
const DOMAINS_MAX: usize = 200;

section! {
    /// Domains of ours that are looked at now and then as mail testers do: names of our addresses, SPF, DKIM, DMARC,
    /// MTA-STS, DANE, lists of the
    /// DNS, the TLS of their hosts. What is found is a metric, and an event when it changes; `ringpost deliverability
    /// DOMAIN` shows all of
    /// it for any domain, with the records to publish. See deliverability.md.
    pub struct Deliverability {
        /// The domains, as they stand in the addresses of authors; at most 200. Empty: none is looked at, unless
        /// somebody asks.
        domains: Vec<Domain> [List<Literal>] = Vec::new();
        /// How often each is looked at.
        interval: Duration [Time<{ 60 * SECOND }, { 30 * DAY }>] = Duration::from_secs(6 * 3_600);
        /// Addresses that mail leaves from, as the world sees them, beside those of `[[source]]` and `[[route]]`. With
        /// no address anywhere:
        /// those that this host has in the open network.
        addresses: Vec<IpAddr> [List<Literal>] = Vec::new();
        /// Whether the mail hosts of the domains are connected to, to see their TLS.
        connect: bool [YesNo] = true;
        /// The port of these hosts. Anything but 25 is for trials.
        port: u16 [Whole<1, 65535>] = 25;
        /// How long a host may take, and how long one that has a policy (MTA-STS).
        timeout: Duration [Time<{ SECOND }, { 300 * SECOND }>] = Duration::from_secs(20);
    }
}

impl Config {
    /// What is wrong about domains that are looked at.
    pub(crate) fn check_deliverability(&self, reader: &mut Reader<'_>) {
        let domains = &self.deliverability.domains;
        if domains.len() > DOMAINS_MAX {
            let problem =
                format!("there are {} domains, and at most {DOMAINS_MAX} are looked at", domains.len());
            reader.conflict(&["deliverability.domains"], problem, "name those that most of the mail is from");
        }
        if let Some(literal) = domains.iter().find(|domain| domain.literal().is_some()) {
            let problem = format!("{literal} is an address, and no domain");
            reader.conflict(&["deliverability.domains"], problem, "name the domain of an author");
        }
    }
}
