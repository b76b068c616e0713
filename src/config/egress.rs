//! From which of our addresses mail leaves: sources, pools of them, and how new ones are warmed up.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use mail::{Domain, Timestamp};

use crate::{
    Config, Rate,
    check::check_identity,
    notation::{FilePath, List, Literal, Maybe, Spelled, Text, Time, Whole, Word},
    reader::Reader,
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// Sources of a pool: among so many parts its mail is divided.
pub const POOL_MAX: usize = 64;

/// A source of a pool, and its part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    /// The name of the source.
    pub source: String,
    /// So many parts, where one without a weight has one.
    pub weight: u32,
}

/// A day of the calendar, in UTC: so many since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub u32);

/// A password: like a secret, but of any length, since others choose it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

choice! {
    /// How a proxy is spoken to.
    pub enum ProxyProtocol {
        /// it is asked to connect to the next hop, by address (SOCKS5, RFC 1928)
        Socks5 = "socks5",
        /// it is told by a header, as a line of text, from which address to which next hop it is to connect
        /// (HAProxy's PROXY protocol)
        HaproxyV1 = "haproxy-v1",
        /// the same, as octets
        HaproxyV2 = "haproxy-v2",
    }
}

choice! {
    /// What is done about an address of ours that is on a list.
    pub enum Listed {
        /// an event in the log, and a metric
        Alarm = "alarm",
        /// and its source has a quarter of its part, the others of the pool have the rest
        Lower = "lower",
        /// and its source is not used as long as the address is on the list
        Stop = "stop",
    }
}

section! {
    /// An address of ours that mail leaves from. A source is never replaced by another address behind its back: when it is out
    /// of use, because the address is not there, the proxy is dead or a list says so, its mail leaves from the other sources of
    /// the pool, or waits. Limits of a `[[site]]` hold for each source of ours.
    pub struct Source {
        /// In messages, logs and metrics, and for later files to find it: letters, digits, - and _.
        name: String [Text] = String::new();
        /// The address, or one of each family. A next hop of a family that is not here is not connected to. With
        /// proxy-protocol = "socks5" it is what connects to the proxy, and may be left out.
        address: Vec<IpAddr> [List<Literal>] = Vec::new();
        /// As which addresses the world sees it, where these are others: for lists of the DNS, and for complaints. With a SOCKS5
        /// proxy they say as well which families it can connect to. Empty: those in `address`.
        public_address: Vec<IpAddr> [List<Literal>] = Vec::new();
        /// Our name in EHLO, which the address should lead to and back. Empty: `hostname`.
        ehlo_name: Option<Domain> [Maybe<Literal>] = None;
        /// The certificate that is shown to next hops which ask for one, as PEM. Empty: that of the route.
        client_certificate: Option<PathBuf> [Maybe<FilePath>] = None;
        /// Its private key, as PEM.
        client_key: Option<PathBuf> [Maybe<FilePath>] = None;
        /// The proxy that connects for us. What is looked up in the DNS is looked up here. Empty: none.
        proxy: Option<SocketAddr> [Maybe<Literal>] = None;
        /// How it is spoken to.
        proxy_protocol: ProxyProtocol [Word] = ProxyProtocol::Socks5;
        /// With proxy-protocol = "socks5": our name there (RFC 1929). Empty: it does not ask.
        proxy_user: Option<String> [Maybe<Text>] = None;
        /// Our password there.
        proxy_password: Option<Password> [Maybe<Literal>] = None;
        /// Connections open at once, to all sites. Empty: any number.
        connections_max: Option<u32> [Maybe<Whole<1, 100_000>>] = None;
        /// Messages, one for each transaction, to all sites: "10/s", "100/m", "1000/h", "5000/d". Empty: any number.
        message_rate: Option<Rate> [Maybe<Literal>] = None;
    }
}

section! {
    /// Sources that share mail by their weights. Who chooses: the `pool` of the `[[campaign]]`, else of the `[[tenant]]`, else of the `[[site]]`, else of the
    /// `[[route]]`; a `[[reply-rule]]` or a `[[warm-up]]` that has sent a message to another pool comes before all of them.
    /// What is divided are messages, by their queue ids, into 64 parts, so that a message is tried again from where it was tried before.
    pub struct Pool {
        /// In messages, and for later files to find it.
        name: String [Text] = String::new();
        /// Its sources, at most 64, each perhaps with a weight: "a", "b:3".
        sources: Vec<Share> [List<Literal>] = Vec::new();
    }
}

section! {
    /// How an address that nobody knows yet comes into use: so many messages a day and no more. A day begins at midnight, UTC.
    pub struct WarmUp {
        /// In messages, logs and metrics, and for later files to find it.
        name: String [Text] = String::new();
        /// For mail from this source.
        source: String [Text] = String::new();
        /// To the `[[site]]` of that name. Empty: to all sites together.
        site: Option<String> [Maybe<Text>] = None;
        /// The first day, such as "2026-12-01". Before it nothing leaves from there.
        start: Option<Day> [Maybe<Literal>] = None;
        /// Messages on the first day, the second, … After the last there is no limit any more.
        caps: Vec<u32> [List<Whole<0, 1_000_000_000>>] = Vec::new();
        /// The pool that has what is too much. Empty: it waits until the next day.
        overflow: Option<String> [Maybe<Text>] = None;
        /// The plan pauses when so many of a thousand messages of a day brought a complaint (`[bounces]`) that names the address. Empty: never.
        complaints_max: Option<u32> [Maybe<Whole<1, 1000>>] = Some(3);
        /// Or when so many of a hundred were refused or deferred for what we are or how fast we come. Empty: never.
        refusals_max: Option<u32> [Maybe<Whole<1, 100>>] = Some(20);
        /// But not before so many messages have gone out on that day.
        sample: u32 [Whole<1, 1_000_000>] = 50;
        /// For how long it pauses; nothing leaves from there meanwhile.
        pause: Duration [Time<{ SECOND }, { 30 * DAY }>] = Duration::from_secs(86_400);
    }
}

section! {
    /// A list of the DNS that says which addresses are bad ones (RFC 5782). Each public address of each source is asked for.
    pub struct Dnsbl {
        /// In messages and logs, and for later files to find it.
        name: String [Text] = String::new();
        /// The zone.
        zone: Option<Domain> [Maybe<Literal>] = None;
        /// Which answers count, of 127.0.0.0/8. Empty: all but those in 127.255.255.0/24, by which lists refuse to answer.
        answers: Vec<IpNet> [List<Literal>] = Vec::new();
        /// What is done about an address that is on it.
        action: Listed [Word] = Listed::Lower;
    }
}

section! {
    /// How it is watched whether sources are fit for use.
    pub struct Egress {
        /// How often it is looked whether an address is there and a proxy answers.
        probe_interval: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// How long a proxy may take for that.
        probe_timeout: Duration [Time<{ SECOND }, { 60 * SECOND }>] = Duration::from_secs(10);
        /// How often lists of the DNS are asked.
        dnsbl_interval: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(900);
    }
}

impl Config {
    /// What is wrong about sources and who names them.
    pub(crate) fn check_egress(&self, reader: &mut Reader<'_>) {
        self.check_sources(reader);
        self.check_pools(reader);
        self.check_warm_ups(reader);
        for list in self.dnsbls.iter().filter(|list| list.zone.is_none()) {
            let key = format!("dnsbl.{}", list.name.to_ascii_lowercase());
            reader.missing(&key, "zone = \"bl.example.org\"", "say which zone is asked");
        }
    }

    fn check_sources(&self, reader: &mut Reader<'_>) {
        for source in &self.sources {
            let key = format!("source.{}", source.name.to_ascii_lowercase());
            let at = |name: &str| format!("{key}.{name}");
            if !is_word(&source.name) {
                let problem = "a source's name is of letters, digits, - and _ alone".into();
                reader.conflict(&[&at("name")], problem, "name it by one word of at most 40");
            }
            for (name, addresses) in
                [("address", &source.address), ("public-address", &source.public_address)]
            {
                for is_v4 in [true, false] {
                    if addresses.iter().filter(|address| address.is_ipv4() == is_v4).count() > 1 {
                        let problem = "there is more than one address of one family".into();
                        let remedy = "make a source of each, and a pool of these";
                        reader.conflict(&[&at(name)], problem, remedy);
                    }
                }
                if addresses.iter().any(IpAddr::is_unspecified) {
                    let problem = "0.0.0.0 and :: are not addresses to send from".into();
                    reader.conflict(&[&at(name)], problem, "name the address itself");
                }
            }
            let is_socks = source.proxy.is_some() && source.proxy_protocol == ProxyProtocol::Socks5;
            if source.address.is_empty() && !is_socks {
                reader.missing(&key, "address = [\"192.0.2.1\"]", "say from which address it sends");
            }
            if source.proxy_user.is_some() != source.proxy_password.is_some() {
                let problem = "a user and a password go together".into();
                reader.conflict(&[&at("proxy-user"), &at("proxy-password")], problem, "give both, or none");
            }
            if source.proxy_user.is_some() && !is_socks {
                let problem = "only a SOCKS5 proxy asks who we are".into();
                reader.conflict(&[&at("proxy-user")], problem, "leave it out");
            }
            let too_long = |text: &str| text.is_empty() || text.len() > 255;
            let password = source.proxy_password.as_ref().map(Password::expose);
            if source.proxy_user.as_deref().is_some_and(too_long) || password.is_some_and(too_long) {
                let problem = "they have 1 to 255 octets (RFC 1929 §2)".into();
                reader.conflict(
                    &[&at("proxy-user"), &at("proxy-password")],
                    problem,
                    "choose one of that length",
                );
            }
            check_identity(&key, (&source.client_certificate, &source.client_key), reader);
        }
    }

    fn check_pools(&self, reader: &mut Reader<'_>) {
        for pool in &self.pools {
            let key = format!("pool.{}", pool.name.to_ascii_lowercase());
            let sources = format!("{key}.sources");
            if pool.sources.is_empty() {
                reader.missing(&key, "sources = [\"a\"]", "say which sources are in it");
            }
            if pool.sources.len() > POOL_MAX {
                let problem = format!("a pool has at most {POOL_MAX} sources");
                reader.conflict(&[&sources], problem, "make two of it");
            }
            let mut seen = HashSet::new();
            for share in &pool.sources {
                if !seen.insert(share.source.to_ascii_lowercase()) {
                    let problem = format!("{} is in it twice", share.source);
                    reader.conflict(&[&sources], problem, "give it a weight instead");
                }
                if !self.sources.iter().any(|source| source.name == share.source) {
                    let problem = format!("there is no `[[source]]` with the name {}", share.source);
                    reader.conflict(&[&sources], problem, "name one that there is");
                }
            }
        }
        let mut named: Vec<(String, &str)> = Vec::new();
        for route in &self.routes {
            let key = format!("route.{}", route.name.to_ascii_lowercase());
            named.extend(route.pool.as_deref().map(|pool| (format!("{key}.pool"), pool)));
            if route.pool.is_some() && !route.source_address.is_empty() {
                let problem = "a pool says which addresses there are".into();
                reader.conflict(
                    &[&format!("{key}.source-address"), &format!("{key}.pool")],
                    problem,
                    "leave one of them out",
                );
            }
        }
        let of = |kind: &str, name: &str| format!("{kind}.{}.pool", name.to_ascii_lowercase());
        for site in &self.sites {
            named.extend(site.pool.as_deref().map(|pool| (of("site", &site.name), pool)));
        }
        for tenant in &self.tenants {
            named.extend(tenant.pool.as_deref().map(|pool| (of("tenant", &tenant.name), pool)));
        }
        for campaign in &self.campaigns {
            named.extend(campaign.pool.as_deref().map(|pool| (of("campaign", &campaign.name), pool)));
        }
        for rule in &self.reply_rules {
            named.extend(rule.pool.as_deref().map(|pool| (of("reply-rule", &rule.name), pool)));
        }
        for plan in &self.warm_ups {
            let key = format!("warm-up.{}.overflow", plan.name.to_ascii_lowercase());
            named.extend(plan.overflow.as_deref().map(|pool| (key, pool)));
        }
        for (key, name) in named {
            if !self.pools.iter().any(|pool| pool.name == name) {
                let problem = format!("there is no `[[pool]]` with the name {name}");
                reader.conflict(&[&key], problem, "name one that there is");
            }
        }
    }

    fn check_warm_ups(&self, reader: &mut Reader<'_>) {
        for plan in &self.warm_ups {
            let key = format!("warm-up.{}", plan.name.to_ascii_lowercase());
            if !is_word(&plan.name) {
                let problem = "a plan's name is of letters, digits, - and _ alone".into();
                reader.conflict(&[&format!("{key}.name")], problem, "name it by one word of at most 40");
            }
            if !self.sources.iter().any(|source| source.name == plan.source) {
                let problem = format!("there is no `[[source]]` with the name \"{}\"", plan.source);
                reader.conflict(&[&format!("{key}.source")], problem, "name one that there is");
            }
            if let Some(name) = &plan.site
                && !self.sites.iter().any(|site| site.name == *name)
            {
                let problem = format!("there is no `[[site]]` with the name {name}");
                reader.conflict(&[&format!("{key}.site")], problem, "name one that there is");
            }
            if plan.start.is_none() {
                reader.missing(&key, "start = \"2026-12-01\"", "say on which day it begins");
            }
            if plan.caps.is_empty() {
                reader.missing(&key, "caps = [50, 100, 200]", "say how many messages a day there may be");
            }
            let overflow = plan.overflow.as_ref();
            let overflow = overflow.and_then(|name| self.pools.iter().find(|pool| pool.name == *name));
            if overflow.is_some_and(|pool| pool.sources.iter().any(|share| share.source == plan.source)) {
                let problem = format!("the source {} is in that pool itself", plan.source);
                reader.conflict(&[&format!("{key}.overflow")], problem, "name a pool without it");
            }
        }
    }
}

/// What can stand in a key of the queue without being taken for something else.
pub(crate) fn is_word(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=40).contains(&name.len()) && name.bytes().all(is_plain)
}

impl Password {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Entry for Source {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let address = "192.0.2.1".parse().into_iter().collect();
        Self { name: "out1".into(), address, ..Self::default() }
    }
}

impl Entry for Pool {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let share = Share { source: "out1".into(), weight: 3 };
        Self { name: "bulk".into(), sources: vec![share] }
    }
}

impl Entry for WarmUp {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "new".into(),
            source: "out1".into(),
            start: Day::parse("2026-12-01").ok(),
            caps: vec![50, 100, 200, 500, 1000],
            ..Self::default()
        }
    }
}

impl Entry for Dnsbl {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self { name: "list".into(), zone: Domain::parse("bl.example.org").ok(), ..Self::default() }
    }
}

impl Spelled for Share {
    const KIND: &'static str = "source, perhaps with a weight";
    const EXPECTED: &'static str = "the name of a source such as \"out1\", or with a weight \"out1:3\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (source, weight) = text.split_once(':').unwrap_or((text, "1"));
        let digits = !weight.is_empty() && weight.bytes().all(|byte| byte.is_ascii_digit());
        match weight.parse() {
            Ok(weight @ 1..=1000) if digits && !source.is_empty() => {
                Ok(Self { source: source.into(), weight })
            }
            Ok(_) | Err(_) => Err("a weight is a whole number from 1 to 1000".into()),
        }
    }

    fn spell(&self) -> String {
        match self.weight {
            1 => self.source.clone(),
            weight => format!("{}:{weight}", self.source),
        }
    }
}

impl Spelled for Day {
    const KIND: &'static str = "day";
    const EXPECTED: &'static str = "a day such as \"2026-12-01\"";

    fn parse(text: &str) -> Result<Self, String> {
        let begin = Timestamp::from_rfc3339(&format!("{text}T00:00:00Z")).ok_or_else(String::new)?;
        u32::try_from(begin.secs() / 86_400).map(Self).map_err(|_| String::new())
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Timestamp::from_secs(u64::from(self.0) * 86_400).to_rfc3339();
        f.write_str(text.split('T').next().unwrap_or_default())
    }
}

impl Spelled for Password {
    const KIND: &'static str = "password";
    const EXPECTED: &'static str = "a password";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.into()))
    }

    fn spell(&self) -> String {
        self.0.clone().into()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn shares_and_days() {
        for (text, source, weight) in [("a", "a", 1), ("b:3", "b", 3), ("c-1:1000", "c-1", 1000)] {
            let share = Share { source: source.into(), weight };
            assert_eq!((Share::parse(text), share.spell()), (Ok(share), text.to_owned()));
        }
        for text in ["", ":3", "a:0", "a:1001", "a:", "a:+1", "a:1.5"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
        for (text, day) in [("1970-01-01", 0), ("1970-01-02", 1), ("2026-12-01", 20_788)] {
            assert_eq!((Day::parse(text), Day(day).to_string()), (Ok(Day(day)), text.to_owned()));
        }
        for text in ["", "2026-13-01", "2026-12-01T00", "yesterday", "2026-12-1"] {
            assert!(Day::parse(text).is_err(), "{text}");
        }
    }

    /// What is said of the least there is, a source and a pool, and these lines.
    fn check(lines: &str, expected: &[&str]) {
        const LEAST: &str = "[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\n\
            [[source]]\nname = \"a\"\naddress = [\"192.0.2.1\"]\n[[pool]]\nname = \"p\"\nsources = [\"a\"]\n";
        let source = crate::Source { file: "c.toml".into(), text: format!("{lines}\n{LEAST}") };
        let errors = crate::Loaded::from_sources(&[source]).map_or_else(|errors| errors, |_| Vec::new());
        let errors: Vec<_> = errors.iter().map(|error| error.to_string().replace("c.toml:", "")).collect();
        assert_eq!(errors, expected, "{lines}");
    }

    #[test]
    fn mistakes_about_sources_are_told() {
        let good = "[[source]]\nname = \"b-2\"\naddress = [\"192.0.2.2\", \"2001:db8::2\"]\n\
            [[source]]\nname = \"s\"\nproxy = \"192.0.2.9:1080\"\nproxy-user = \"ann\"\nproxy-password = \"hush\"\n\
            [[pool]]\nname = \"q\"\nsources = [\"a:2\", \"b-2\", \"s:7\"]\n";
        check(good, &[]);
        let source = |lines: &str| format!("[[source]]\nname = \"b\"\n{lines}");
        check(
            &source(""),
            &[
                "1:1: source.b: missing, expected `address = [\"192.0.2.1\"]`; say from which address it sends",
            ],
        );
        check(
            &source("address = [\"192.0.2.2\", \"192.0.2.3\"]"),
            &[
                "3:1: source.b.address: there is more than one address of one family; make a source of each, and a pool of these",
            ],
        );
        check(
            &source("address = [\"0.0.0.0\"]"),
            &[
                "3:1: source.b.address: 0.0.0.0 and :: are not addresses to send from; name the address itself",
            ],
        );
        check(
            &source(
                "address = [\"192.0.2.2\"]\nproxy = \"192.0.2.9:25\"\nproxy-protocol = \"haproxy-v2\"\nproxy-user = \"ann\"",
            ),
            &[
                "6:1: source.b.proxy-user: a user and a password go together; give both, or none",
                "6:1: source.b.proxy-user: only a SOCKS5 proxy asks who we are; leave it out",
            ],
        );
        check(
            "[[source]]\nname = \"b c\"\naddress = [\"192.0.2.2\"]",
            &[
                "2:1: source.b c.name: a source's name is of letters, digits, - and _ alone; name it by one word of at most 40",
            ],
        );
    }

    #[test]
    fn mistakes_about_who_names_them_are_told() {
        check(
            "[[pool]]\nname = \"q\"\nsources = [\"a\", \"a:2\", \"x\"]",
            &[
                "3:1: pool.q.sources: a is in it twice; give it a weight instead",
                "3:1: pool.q.sources: there is no `[[source]]` with the name x; name one that there is",
            ],
        );
        check(
            "[[pool]]\nname = \"q\"",
            &["1:1: pool.q: missing, expected `sources = [\"a\"]`; say which sources are in it"],
        );
        for (entry, key) in [
            ("[[site]]\nname = \"n\"\nhosts = [\"*.example\"]", "site.n"),
            ("[[tenant]]\nname = \"n\"\nnetworks = [\"192.0.2.0/24\"]", "tenant.n"),
            ("[[route]]\nname = \"n\"\ndomains = [\"*\"]", "route.n"),
            ("[[reply-rule]]\nname = \"n\"\ncodes = [450]\ncategory = \"rate\"", "reply-rule.n"),
        ] {
            let line = entry.lines().count() + 1;
            check(
                &format!("{entry}\npool = \"x\""),
                &[&*format!(
                    "{line}:1: {key}.pool: there is no `[[pool]]` with the name x; name one that there is"
                )],
            );
            check(&format!("{entry}\npool = \"p\""), &[]);
        }
        let plan = "[[warm-up]]\nname = \"w\"\nsource = \"a\"\nstart = \"2026-12-01\"\ncaps = [50]\n";
        check(plan, &[]);
        check(
            &format!("{plan}overflow = \"p\""),
            &["6:1: warm-up.w.overflow: the source a is in that pool itself; name a pool without it"],
        );
        check(
            "[[warm-up]]\nname = \"w\"\nsource = \"a\"\nsite = \"x\"",
            &[
                "4:1: warm-up.w.site: there is no `[[site]]` with the name x; name one that there is",
                "1:1: warm-up.w: missing, expected `start = \"2026-12-01\"`; say on which day it begins",
                "1:1: warm-up.w: missing, expected `caps = [50, 100, 200]`; say how many messages a day there may be",
            ],
        );
        check(
            "[[dnsbl]]\nname = \"d\"",
            &["1:1: dnsbl.d: missing, expected `zone = \"bl.example.org\"`; say which zone is asked"],
        );
    }
}
