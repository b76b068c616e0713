//! How mail is shaped: what a site takes from us, and how fast.

use std::{fmt, time::Duration};

use ipnet::IpNet;
use mail::Domain;

use crate::{
    DomainPattern, Fingerprint, QuotaExcess, SuppressionUse, UnsubscribeCheck, UnsubscribeUse,
    notation::{List, Literal, Maybe, Spelled, Text, Time, Whole, Word, YesNo},
    schema::{Entry, choice, section},
};

/// So many of something in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
/// What a rate may be for.
const PERIODS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

choice! {
    /// TLS that a site has to have.
    pub enum SiteTls {
        /// always, whatever its certificate
        Required = "required",
        /// always, and the certificate must be good for the name of the host
        Verified = "verified",
    }
}

section! {
    /// A site: hosts that take mail for many domains, which count what comes from us without asking for which. Domains with the
    /// same mail hosts are one site anyway; a rule here gives it a name and limits, whatever its hosts are called. The first
    /// rule that is for a domain counts. Limits hold for the host as a whole. What is not said is as the route says.
    pub struct Site {
        /// In messages, logs and metrics, and for later files to find it. Without any of . , ; > +
        name: String [Text] = String::new();
        /// It is this site when all mail hosts of a domain are among these.
        hosts: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Or when the domain is one of these.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Only for mail of these tenants, and only where all other lists fit. What the rule allows, it allows each of them. Empty: of all.
        tenants: Vec<String> [List<Text>] = Vec::new();
        /// Only for mail of these campaigns, by the names of their `[[campaign]]`; the same. Empty: of all, and of none.
        campaigns: Vec<String> [List<Text>] = Vec::new();
        /// Connections open at once. Empty: `route.concurrency-max`.
        connections_max: Option<u32> [Maybe<Whole<1, 100_000>>] = None;
        /// New connections: "10/s", "100/m", "1000/h", "5000/d". Empty: any number.
        connection_rate: Option<Rate> [Maybe<Literal>] = None;
        /// Messages, one for each transaction: "10/s", "100/m", "1000/h", "5000/d". Empty: any number.
        message_rate: Option<Rate> [Maybe<Literal>] = None;
        /// Messages on one connection. Empty: `route.transactions-max`.
        transactions_max: Option<u32> [Maybe<Whole<1, 1_000_000>>] = None;
        /// Recipients in one transaction. Empty: `queue.recipients-per-transaction`.
        recipients_per_transaction: Option<u32> [Maybe<Whole<1, 100_000>>] = None;
        /// How long a connection is kept for more mail. Empty: `route.idle`.
        idle: Option<Duration> [Maybe<Time<0, { HOUR }>>] = None;
        /// TLS that its hosts have to have, beyond what the route and the domain ask for; a site of `domains` has it whatever the DNS
        /// says of their hosts. Empty: no more than that.
        tls: Option<SiteTls> [Maybe<Word>] = None;
        /// The `[[pool]]` of sources that mail for it leaves from, unless its tenant has one. Empty: that of the route.
        pool: Option<String> [Maybe<Text>] = None;
    }
}

section! {
    /// How sites that the DNS names get less when they complain, and more again when all goes well: connections and messages a minute are halved by a storm
    /// of refusals, at the least they are left alone for a while, and then probed by one connection (docs/queue.md). What a refusal is
    /// about, `[[reply-rule]]` says.
    pub struct Throttle {
        /// Whether they do.
        enabled: bool [YesNo] = true;
        /// Never fewer connections than this, unless the site is left alone.
        connections_min: u32 [Whole<1, 1000>] = 1;
        /// Never fewer messages, unless the site is left alone.
        rate_min: Rate [Literal] = Rate { count: 6, per: Duration::from_secs(60) };
        /// After so long of success there may be more.
        round: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// In so many of these it grows from nothing to all.
        steps: u32 [Whole<1, 1000>] = 20;
        /// So many refused messages in that time are a storm,
        storm_min: u32 [Whole<1, 1_000_000>] = 5;
        /// if they are so many of a hundred.
        storm_percent: u32 [Whole<1, 100>] = 20;
        /// What is refused so soon after it got less was on its way before.
        settle: Duration [Time<0, { HOUR }>] = Duration::from_secs(10);
        /// So many connections that were not made, one after the other, and the site is left alone.
        unconnected_max: u32 [Whole<1, 1000>] = 5;
        /// For so long the first time; each time that follows is twice as long,
        suspend_min: Duration [Time<{ SECOND }, { 24 * HOUR }>] = Duration::from_secs(60);
        /// but never longer than this, unless a rule says so.
        suspend_max: Duration [Time<{ SECOND }, { 24 * HOUR }>] = Duration::from_secs(3600);
    }
}

section! {
    /// A tenant: mail of some clients of ours, which shares the queue with that of others by its weight. Where places are few, at a
    /// provider or on a core, each tenant that waits has as many turns as its weight says, however much it has. The first
    /// tenant counts whose clients and senders a message has. All other mail is that of one more, with the weight 1.
    pub struct Tenant {
        /// In logs and metrics, and for later files to find it.
        name: String [Text] = String::new();
        /// So many turns, where one without a weight has one.
        weight: u32 [Whole<1, 1000>] = 1;
        /// Its clients, by their networks: of those that may relay.
        networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Its clients, by the SHA-256 of the certificates that they show: of those that may relay.
        certificates: Vec<Fingerprint> [List<Literal>] = Vec::new();
        /// Its programs, by the names of their `[[api-key]]`.
        api_keys: Vec<String> [List<Text>] = Vec::new();
        /// Only mail with these domains in the reverse-path. Empty: any.
        senders: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// What becomes of its recipients who are on its suppression list or on that of all (`[suppression]`). Unless it is
        /// "none", refusals, reports and complaints about its mail put people on its list.
        suppression: SuppressionUse [Word] = SuppressionUse::None;
        /// Which of its messages get a List-Unsubscribe field with a link of ours (`[unsubscribe]`): of those with one recipient.
        unsubscribe: UnsubscribeUse [Word] = UnsubscribeUse::None;
        /// What becomes of its bulk mail (`unsubscribe.bulk-marks`) that, as it would go out, has no List-Unsubscribe with one sound
        /// link of https and List-Unsubscribe-Post, both signed by a `[[dkim]]`: large providers want that of whoever sends much.
        unsubscribe_check: UnsubscribeCheck [Word] = UnsubscribeCheck::None;
        /// Recipients in an hour of the clock (UTC), over all cores. Empty: any number.
        hourly_max: Option<u64> [Maybe<Whole<1, 1_000_000_000_000>>] = None;
        /// The same for a day.
        daily_max: Option<u64> [Maybe<Whole<1, 1_000_000_000_000>>] = None;
        /// The same for a month of the calendar.
        monthly_max: Option<u64> [Maybe<Whole<1, 1_000_000_000_000>>] = None;
        /// What becomes of more than these.
        quota_excess: QuotaExcess [Word] = QuotaExcess::Refuse;
        /// When so many percent of one of these are used, an event `quota_warned` says so.
        quota_warning: u8 [Whole<1, 100>] = 80;
        /// A message with the same Message-ID to the same recipient, that comes again within this time, is taken and not sent
        /// again. "0s": it is sent. A restart forgets what came before.
        duplicate_window: Duration [Time<0, { 7 * 24 * HOUR }>] = Duration::ZERO;
        /// The `[[pool]]` of sources that its mail leaves from, whatever site it goes to. Empty: that of the site, or of the route. A `[[campaign]]`
        /// may have another.
        pool: Option<String> [Maybe<Text>] = None;
    }
}

impl Entry for Tenant {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "shop".into(),
            networks: "192.0.2.0/24".parse().into_iter().collect(),
            ..Self::default()
        }
    }
}

impl Entry for Site {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let hosts = Domain::parse("mx.example.org").map(DomainPattern::Below);
        Self { name: "provider".into(), hosts: hosts.into_iter().collect(), ..Self::default() }
    }
}

impl Spelled for Rate {
    const KIND: &'static str = "rate";
    const EXPECTED: &'static str = "a rate such as \"10/s\", \"100/m\", \"1000/h\" or \"5000/d\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (count, unit) = text.split_once('/').unwrap_or((text, ""));
        let unit = PERIODS.iter().find(|(name, _)| *name == unit);
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        match (unit, count.parse()) {
            (Some((_, per)), Ok(count)) if count > 0 => Ok(Self { count, per: Duration::from_secs(*per) }),
            (Some(_), _) if digits => Err("the number is from 1 to 4294967295".into()),
            (None, Ok(count)) if count > 0 => Err(format!("say in which time: \"{count}/m\"")),
            _ => Err(String::new()),
        }
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIODS.iter().find(|(_, per)| Duration::from_secs(*per) == self.per);
        write!(f, "{}/{}", self.count, unit.map_or("s", |(name, _)| name))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn rates() {
        for (text, count, per) in [("10/s", 10, 1), ("1/m", 1, 60), ("5000/d", 5000, 86_400)] {
            let rate = Rate { count, per: Duration::from_secs(per) };
            assert_eq!((Rate::parse(text), rate.to_string()), (Ok(rate), text.to_owned()));
        }
        for text in ["", "10", "0/s", "10/", "10/w", "-1/s", "1.5/s", "10 / s", "99999999999/s", "/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
