//! By which road a domain's mail leaves.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use dns::Name;
use mail::{Domain, ReversePath, TlsDemand};
use smtp::client::{Chaining, Chunking, Limits, Options, Protocol, TlsLevel};

use crate::{DaneUse, Means, StsUse};

/// All routes, ready to be asked. The pattern that says most of a domain wins; of equal ones, the first.
#[derive(Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
    /// The keys of routes that are the same for all domains.
    keys: Vec<Option<Arc<str>>>,
    /// Those that have a name by which an operator may choose them.
    names: BTreeMap<Box<str>, RouteIndex>,
    exact: HashMap<Domain, RouteIndex>,
    below: HashMap<Box<str>, RouteIndex>,
    any: Option<RouteIndex>,
}

/// The number of a route in its [`Routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteIndex(pub u32);

/// Which domains go where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For which domains.
    pub patterns: Vec<Pattern>,
    /// Where.
    pub via: Via,
    /// How.
    pub options: RouteOptions,
}

/// Which domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: all.
    Any,
    /// `*.example.org`: what is below the domain, not the domain.
    Below(Domain),
    /// `example.org`: the domain alone.
    Exact(Domain),
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// To the hosts that DNS names for the domain (RFC 5321 §5.1), at this port.
    Mx(u16),
    /// To these hosts, the best first.
    NextHop(Vec<HopHost>),
    /// Into a program, or to a service that speaks HTTP.
    Pool(Arc<Means>),
    /// Nowhere: it counts as delivered.
    Discard,
    /// Nowhere yet: it waits for an operator.
    Hold,
    /// Nowhere: it is a report on mail of ours, and read.
    Reports,
}

/// A host named by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HopHost {
    /// Which.
    pub place: Place,
    /// The port; of no meaning at a Unix socket.
    pub port: u16,
}

/// How a host is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// By address.
    Address(IpAddr),
    /// By name; its addresses are looked up.
    Name(Name),
    /// It is this host, at a Unix socket.
    Unix(Arc<Path>),
}

/// Whether next hops that take it are told where a message first came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// No.
    #[default]
    Off,
    /// Yes, as far as it is known (XFORWARD).
    On,
}

/// What becomes of 8-bit and binary content where the next hop does not offer to take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EightBitContent {
    /// It is encoded (RFC 6152 §3), or refused where that would break it.
    #[default]
    Converted,
    /// It is refused.
    Refused,
    /// 8-bit content is sent all the same; binary content is refused.
    AsIs,
}

/// Whether mail leaves with the reverse-path that it came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReversePaths {
    /// Yes.
    #[default]
    Kept,
    /// No: with an address of ours, so that reports come to us (VERP).
    Ours,
    /// Mail of others with an address of ours that leads back to it (SRS).
    Rewritten,
}

/// How mail of a route is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Which protocol is spoken.
    pub protocol: Protocol,
    /// How much TLS.
    pub tls: TlsLevel,
    /// Whether TLSA records are kept to.
    pub dane: DaneUse,
    /// Whether MTA-STS policies are kept to; by MX records alone.
    pub sts: StsUse,
    /// Which of our certificates is shown, when a next hop asks for one.
    pub identity: Option<Box<str>>,
    /// As whom we log in, by the name of the credentials. It is here so that mail with others has other connections.
    pub login: Option<Box<str>>,
    /// Where `BDAT` is used.
    pub chunking: Chunking,
    /// Whether transactions are chained. Servers that stop at input they did not expect yet may
    /// dislike it, so it is for next hops one knows.
    pub chaining: Chaining,
    /// Whether XFORWARD is used.
    pub forwarding: Forwarding,
    /// What becomes of content that the next hop does not offer to take.
    pub eight_bit: EightBitContent,
    /// Where reports on the mail are to go.
    pub reverse_paths: ReversePaths,
    /// Connections at once to one destination.
    pub concurrency_max: u32,
    /// Transactions in one connection.
    pub transactions_max: u32,
    /// How long an idle connection is kept.
    pub idle_max: Duration,
    /// Where connections come from.
    pub sources: Sources,
    /// Which addresses are tried first, or at all.
    pub family: Family,
    /// The pool of sources that its mail leaves from, unless somebody else says.
    pub pool: Option<Box<str>>,
}

/// Our addresses to connect from; none: the kernel chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Towards IPv4 addresses.
    pub v4: Option<Ipv4Addr>,
    /// Towards IPv6 addresses.
    pub v6: Option<Ipv6Addr>,
}

/// Which addresses of a host are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both in turn, IPv6 first.
    #[default]
    PreferIpv6,
    /// Both in turn, IPv4 first.
    PreferIpv4,
    /// IPv4 alone.
    OnlyIpv4,
    /// IPv6 alone.
    OnlyIpv6,
}

/// Where a domain's mail goes, under the name by which the queue knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Mail with the same key may share a connection: `hop:192.0.2.1:25`, `mx:example.org`.
    pub key: Arc<str>,
    /// The route.
    pub route: RouteIndex,
}

/// What mail asks of the connections it goes by, so that mail that asks for something else has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    None,
    /// `REQUIRETLS`, or it comes back (RFC 8689 §4.2.1).
    Required,
    /// `REQUIRETLS` where it can be had: a report, which has nowhere to come back to (RFC 8689 §5).
    Preferred,
    /// `TLS-Required: No`: what domains publish about the TLS of their hosts does not count (RFC 8689 §4.1).
    Waived,
}

/// Behind the source that mail leaves from.
const SOURCE: &str = "@";
const MX: &str = "mx:";
const HOP: &str = "hop:";
const HOLD: &str = "hold";
const PROGRAM: &str = "program:";
const SERVICE: &str = "http:";
/// Before the key of mail that is to travel under TLS alone.
const TLS: &str = "requiretls:";
/// Before the key of reports on such mail.
const TLS_PREFERRED: &str = "prefer-requiretls:";
/// Before the key of mail that is rather to arrive in clear than not.
const TLS_WAIVED: &str = "tls-waived:";
/// Before the key of mail that an operator sends by a route of this name, and behind the name.
const CHOSEN: &str = "via:";
const CHOSEN_END: char = '>';
/// The longest name by which a route can be chosen: as long as the journal keeps it.
const NAME_MAX: usize = 128;

impl Demand {
    /// Of mail with this reverse-path that asks this of TLS.
    pub const fn of(tls: TlsDemand, reverse_path: &ReversePath) -> Self {
        match (tls, reverse_path) {
            (TlsDemand::None, _) => Self::None,
            (TlsDemand::Waived, _) => Self::Waived,
            (TlsDemand::Required, ReversePath::Address(_)) => Self::Required,
            (TlsDemand::Required, ReversePath::Null) => Self::Preferred,
        }
    }
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            tls: TlsLevel::default(),
            dane: DaneUse::default(),
            sts: StsUse::default(),
            identity: None,
            login: None,
            chunking: Chunking::default(),
            chaining: Chaining::default(),
            forwarding: Forwarding::default(),
            eight_bit: EightBitContent::default(),
            reverse_paths: ReversePaths::default(),
            concurrency_max: 20,
            transactions_max: 1000,
            idle_max: Duration::from_secs(10),
            sources: Sources::default(),
            family: Family::default(),
            pool: None,
        }
    }
}

impl RouteOptions {
    /// How the client is to talk, with the TLS level that was chosen for this connection; without a login, which is whoever
    /// has the secret to add.
    pub fn client(&self, hostname: &str, tls: TlsLevel) -> Options {
        Options {
            protocol: self.protocol,
            hostname: hostname.into(),
            tls,
            chunking: self.chunking,
            chaining: self.chaining,
            login: None,
            limits: Limits { transactions_max: self.transactions_max, ..Limits::default() },
        }
    }
}

impl Routes {
    /// Takes the routes in their order.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut all = Self::default();
        for route in routes {
            let index = RouteIndex(u32::try_from(all.routes.len()).expect("routes are few"));
            for pattern in &route.patterns {
                match pattern {
                    Pattern::Any => all.any = all.any.or(Some(index)),
                    Pattern::Below(domain) => {
                        all.below.entry(domain.as_str().into()).or_insert(index);
                    }
                    Pattern::Exact(domain) => {
                        all.exact.entry(domain.clone()).or_insert(index);
                    }
                }
            }
            let key = all.shared_key(&route);
            all.keys.push(key);
            all.routes.push(route);
        }
        all
    }

    /// Gives the first routes their names, in their order.
    #[must_use]
    pub fn named<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let indexes = (0..self.routes.len() as u32).map(RouteIndex);
        let usable = |name: &str| !name.is_empty() && name.len() <= NAME_MAX && !name.contains(CHOSEN_END);
        let named = names.into_iter().zip(indexes).filter(|(name, _)| usable(name));
        self.names = named.map(|(name, index)| (name.into(), index)).collect();
        self
    }

    /// The name of a route, if it has one.
    pub fn name_of(&self, route: RouteIndex) -> Option<&str> {
        self.names.iter().find(|(_, index)| **index == route).map(|(name, _)| &**name)
    }

    /// Whether a route has that name.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Where mail of this domain goes that an operator sends by the route of that name; `None` when there is none.
    pub fn destination_by(&self, name: &str, domain: &Domain, demand: Demand) -> Option<Destination> {
        let route = *self.names.get(name)?;
        let key = match &self.keys[route.0 as usize] {
            Some(key) => format!("{}{CHOSEN}{name}{CHOSEN_END}{key}", before(demand)),
            None => format!("{}{CHOSEN}{name}{CHOSEN_END}{MX}{domain}", before(demand)),
        };
        Some(Destination { key: key.into(), route })
    }

    /// The name of the route by which an operator sends mail with this key, whatever its domain's routes say.
    pub fn chosen_of_key(key: &str) -> Option<&str> {
        parted(key).1
    }

    /// Where this domain's mail goes; `None` when no route is for it.
    pub fn destination(&self, domain: &Domain) -> Option<Destination> {
        let route = self.find(domain)?;
        let key = match &self.keys[route.0 as usize] {
            Some(key) => Arc::clone(key),
            None => [MX, domain.as_str()].concat().into(),
        };
        Some(Destination { key, route })
    }

    /// Where mail of this domain goes that asks this. What is to travel under TLS alone has connections of its own.
    pub fn destination_for(&self, domain: &Domain, demand: Demand) -> Option<Destination> {
        let destination = self.destination(domain)?;
        Some(match before(demand) {
            "" => destination,
            before => Destination { key: [before, &*destination.key].concat().into(), ..destination },
        })
    }

    /// The key of mail for a domain that no route is for. It has one all the same, under which it waits for a route.
    pub fn unrouted(domain: &Domain, demand: Demand) -> Arc<str> {
        [before(demand), MX, domain.as_str()].concat().into()
    }

    /// Whether every domain's mail has the same key by these routes and by the others.
    pub fn leads_alike(&self, other: &Self) -> bool {
        let key = |routes: &Self, route: Option<RouteIndex>| {
            route.map(|route| routes.keys[route.0 as usize].clone())
        };
        let exact = self.exact.keys().chain(other.exact.keys());
        let below = self.below.keys().chain(other.below.keys());
        exact
            .map(|domain| (self.find(domain), other.find(domain)))
            .chain(below.map(|suffix| (self.find_below(suffix), other.find_below(suffix))))
            .all(|(ours, theirs)| key(self, ours) == key(other, theirs))
            && key(self, self.any) == key(other, other.any)
    }

    /// Which keys that these routes gave may stand for mail that goes another way by the routes of `after`, so that the
    /// domain has to be asked for again. The keys of [`Via::Mx`] routes are not among them: they name the domain, and
    /// [`Routes::route_of_key`] tells.
    pub fn shared_keys_changed(&self, after: &Self) -> HashSet<Arc<str>> {
        let key = |routes: &Self, route: Option<RouteIndex>| routes.keys.get(route?.0 as usize)?.clone();
        let mut changed = HashSet::new();
        let mut compare = |before: Option<RouteIndex>, now: Option<RouteIndex>| {
            let before = key(self, before);
            if before != key(after, now) {
                changed.extend(before);
            }
        };
        // A pattern that was not there takes its domains from the pattern that had them, and one that is gone leaves them
        // to another: a pattern is looked up as a domain for which it says most would be.
        for domain in self.exact.keys().chain(after.exact.keys()) {
            compare(self.find(domain), after.find(domain));
        }
        for suffix in self.below.keys().chain(after.below.keys()) {
            compare(self.find_below(suffix), after.find_below(suffix));
        }
        compare(self.any, after.any);
        changed
    }

    /// Whether a key that [`Routes::shared_keys_changed`] gave is this one's, whatever it asks of TLS.
    pub fn is_among(key: &str, shared: &HashSet<Arc<str>>) -> bool {
        let (_, chosen, key) = parted(key);
        chosen.is_none() && shared.contains(key)
    }

    /// Whether mail with this key is kept back by its route.
    pub fn is_hold_key(key: &str) -> bool {
        parted(key).2.strip_prefix(HOLD).is_some_and(|rest| rest.is_empty() || rest.starts_with(';'))
    }

    /// Whether mail with this key is sent: to hosts that the DNS or a route names, to a program or a service.
    pub fn is_sent_key(key: &str) -> bool {
        let site = parted(key).2;
        [MX, HOP, PROGRAM, SERVICE].iter().any(|kind| site.starts_with(kind))
    }

    /// What all mail with this key asks.
    pub fn demand_of_key(key: &str) -> Demand {
        match split_demand(key).0 {
            TLS => Demand::Required,
            TLS_PREFERRED => Demand::Preferred,
            TLS_WAIVED => Demand::Waived,
            _ => Demand::None,
        }
    }

    /// The route of a key that [`Routes::destination`] gave, perhaps before a change of configuration;
    /// `None` when no route gives such a key now: then the domain has to be asked for again.
    pub fn route_of_key(&self, key: &str) -> Option<RouteIndex> {
        let (_, chosen, key) = parted(key);
        if let Some(name) = chosen {
            let route = *self.names.get(name)?;
            let is_its = match &self.keys[route.0 as usize] {
                Some(shared) => **shared == *key,
                None => key.starts_with(MX),
            };
            return is_its.then_some(route);
        }
        let route = match Self::domain_of_key(key) {
            Some(domain) => self.find(&domain)?,
            None => {
                let index = self.keys.iter().position(|k| k.as_deref() == Some(key))?;
                return Some(RouteIndex(index as u32));
            }
        };
        matches!(self.routes[route.0 as usize].via, Via::Mx(_)).then_some(route)
    }

    /// The domain of a key of an [`Via::Mx`] route, which an attempt needs.
    pub fn domain_of_key(key: &str) -> Option<Domain> {
        Domain::parse(parted(key).2.strip_prefix(MX)?).ok()
    }

    /// The key of a site under a route: mail of routes that treat the same hosts otherwise has other connections, and so has
    /// mail that asks for something else.
    pub fn site_key(&self, route: RouteIndex, demand: Demand, site: &str) -> Box<str> {
        let route = self.route(route);
        // From where mail leaves is said by its source's name, whatever pool that is in.
        let options = |route: &Route| RouteOptions { pool: None, ..route.options.clone() };
        let alike = |one: &Route, other: &Route| one.via == other.via && options(one) == options(other);
        // Routes are few, and mostly alike in this.
        let mut kinds: Vec<&Route> = Vec::new();
        for other in self.routes.iter().filter(|other| matches!(other.via, Via::Mx(_))) {
            if !kinds.iter().any(|kind| alike(kind, other)) {
                kinds.push(other);
            }
        }
        match kinds.iter().position(|kind| alike(kind, route)) {
            None | Some(0) => [before(demand), site].concat().into(),
            Some(place) => format!("{}{site};{}", before(demand), place + 1).into(),
        }
    }

    /// For what the limits of a lane with this key hold: all mail from the same source to the site by routes that treat it alike,
    /// whatever is asked of TLS or published about it.
    pub fn limit_key(key: &str) -> Cow<'_, str> {
        let site = parted(key).2;
        let limit: Cow<'_, str> = match site.split_once('+') {
            None => site.into(),
            Some((site, marks)) => match marks.split_once(';') {
                None => site.into(),
                Some((_, route)) => format!("{site};{route}").into(),
            },
        };
        match Self::source_of_key(key) {
            None => limit,
            Some(source) => [source, SOURCE, &limit].concat().into(),
        }
    }

    /// The key of a site for mail from a source: that of the site alone, where there is none.
    pub fn with_source(key: &str, source: Option<&str>) -> Box<str> {
        let (demand, rest) = split_demand(key);
        match source {
            None => key.into(),
            Some(source) => [demand, source, SOURCE, rest].concat().into(),
        }
    }

    /// The source in a key that [`Routes::with_source`] or [`Routes::limit_key`] gave.
    pub fn source_of_key(key: &str) -> Option<&str> {
        split_source(split_demand(key).1).0
    }

    /// The key without its source.
    pub fn without_source(key: &str) -> Cow<'_, str> {
        let (demand, rest) = split_demand(key);
        match split_source(rest) {
            (None, _) => key.into(),
            (Some(_), site) if demand.is_empty() => site.into(),
            (Some(_), site) => [demand, site].concat().into(),
        }
    }

    /// The site of a key that [`Routes::site_key`] gave.
    pub fn site_of_key(key: &str) -> &str {
        let site = parted(key).2;
        site.split_once(';').map_or(site, |(site, _)| site)
    }

    /// A route.
    ///
    /// # Panics
    /// When the index is from other routes.
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[index.0 as usize]
    }

    fn find(&self, domain: &Domain) -> Option<RouteIndex> {
        let exact = self.exact.get(domain).copied();
        exact
            .or_else(|| {
                let (_, parent) = domain.as_str().split_once('.')?;
                self.find_suffix(parent)
            })
            .or(self.any)
    }

    /// The route of what is below a domain, unless a pattern says more.
    fn find_below(&self, suffix: &str) -> Option<RouteIndex> {
        self.find_suffix(suffix).or(self.any)
    }

    /// The longest suffix first, from the whole on.
    fn find_suffix(&self, suffix: &str) -> Option<RouteIndex> {
        let dots = suffix.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        let shorter = dots.map(|(dot, _)| &suffix[dot + 1..]);
        std::iter::once(suffix).chain(shorter).find_map(|suffix| self.below.get(suffix).copied())
    }

    /// Mail for different domains shares the connections to a next hop, but not with a route that
    /// treats the same next hop otherwise.
    fn shared_key(&self, route: &Route) -> Option<Arc<str>> {
        let key = match &route.via {
            Via::Mx(_) => return None,
            Via::Discard => "discard".to_owned(),
            Via::Hold => HOLD.to_owned(),
            Via::Reports => "reports".to_owned(),
            Via::Pool(means) => means.to_string(),
            Via::NextHop(hosts) => {
                let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
                [HOP, &hosts.join(",")].concat()
            }
        };
        let same = self
            .routes
            .iter()
            .zip(&self.keys)
            .find(|(other, _)| other.via == route.via && other.options == route.options);
        if let Some((_, Some(key))) = same {
            return Some(Arc::clone(key));
        }
        let others = self.routes.iter().filter(|other| other.via == route.via).count();
        Some(if others == 0 { key.into() } else { format!("{key};{}", others + 1).into() })
    }
}

/// What stands before the key of such mail.
const fn before(demand: Demand) -> &'static str {
    match demand {
        Demand::None => "",
        Demand::Required => TLS,
        Demand::Preferred => TLS_PREFERRED,
        Demand::Waived => TLS_WAIVED,
    }
}

/// What a key's mail asks, the route that an operator has chosen for it, and the rest of it, without the source that may stand
/// between.
fn parted(key: &str) -> (&str, Option<&str>, &str) {
    let (demand, rest) = split_demand(key);
    let rest = split_source(rest).1;
    match rest.strip_prefix(CHOSEN).and_then(|rest| rest.split_once(CHOSEN_END)) {
        Some((name, rest)) => (demand, Some(name), rest),
        None => (demand, None, rest),
    }
}

/// The source, and what it leads to. No key of a destination begins with a plain word and the mark.
fn split_source(key: &str) -> (Option<&str>, &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match key.split_once(SOURCE) {
        Some((source, site)) if !source.is_empty() && source.bytes().all(is_plain) => (Some(source), site),
        Some(_) | None => (None, key),
    }
}

/// What a key's mail asks, and the rest.
fn split_demand(key: &str) -> (&str, &str) {
    let demand = [TLS, TLS_PREFERRED, TLS_WAIVED].into_iter().find(|before| key.starts_with(before));
    key.split_at(demand.map_or(0, str::len))
}

impl fmt::Debug for Routes {
    /// The same for the same routes, whatever the order of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { routes, keys, names, exact, below, any } = self;
        let exact: BTreeMap<_, _> = exact.iter().map(|(domain, index)| (domain.as_str(), index)).collect();
        let below: BTreeMap<_, _> = below.iter().collect();
        f.debug_struct("Routes")
            .field("routes", routes)
            .field("keys", keys)
            .field("names", names)
            .field("exact", &exact)
            .field("below", &below)
            .field("any", any)
            .finish()
    }
}

impl fmt::Display for HopHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Place::Name(name) => write!(f, "{}:{}", name.as_str(), self.port),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn route(patterns: &[&str], via: Via) -> Route {
        let pattern = |text: &&str| match (*text, text.strip_prefix("*.")) {
            ("*", _) => Pattern::Any,
            (_, Some(suffix)) => Pattern::Below(domain(suffix)),
            (exact, None) => Pattern::Exact(domain(exact)),
        };
        let patterns = patterns.iter().map(pattern).collect();
        Route { patterns, via, options: RouteOptions::default() }
    }

    fn hop(address: [u8; 4], port: u16) -> Via {
        Via::NextHop(vec![HopHost { place: Place::Address(address.into()), port }])
    }

    #[test]
    fn the_pattern_that_says_most_wins() {
        let named = Via::NextHop(vec![
            HopHost { place: Place::Name(Name::parse("relay.example").unwrap()), port: 587 },
            HopHost { place: Place::Address("2001:db8::1".parse().unwrap()), port: 25 },
        ]);
        let mut other = route(&["other.example"], hop([127, 0, 0, 1], 2600));
        other.options.tls = TlsLevel::None;
        let routes = Routes::new(vec![
            route(&["*"], Via::Mx(25)),
            route(&["*.example", "one.example"], hop([127, 0, 0, 1], 2600)),
            route(&["*.deep.example"], Via::Discard),
            route(&["stop.deep.example"], Via::Hold),
            route(&["named.example"], named),
            other,
            route(&["same.example", "*"], hop([127, 0, 0, 1], 2600)),
        ]);
        let check = |text: &str, key: &str, index: u32| {
            let expected = Destination { key: key.into(), route: RouteIndex(index) };
            assert_eq!(routes.destination(&domain(text)), Some(expected), "{text}");
        };
        check("example.org", "mx:example.org", 0);
        check("EXAMPLE", "mx:example", 0);
        check("[192.0.2.1]", "mx:[192.0.2.1]", 0);
        check("a.example", "hop:127.0.0.1:2600", 1);
        check("deep.example", "hop:127.0.0.1:2600", 1);
        check("a.b.deep.example", "discard", 2);
        check("stop.deep.example", "hold", 3);
        check("named.example", "hop:relay.example:587,[2001:db8::1]:25", 4);
        check("other.example", "hop:127.0.0.1:2600;2", 5);
        check("same.example", "hop:127.0.0.1:2600", 6);

        let secret = routes.destination_for(&domain("example.org"), Demand::Required).unwrap();
        assert_eq!((&*secret.key, secret.route), ("requiretls:mx:example.org", RouteIndex(0)));
        assert_eq!(Routes::domain_of_key(&secret.key), Some(domain("example.org")));
        assert_eq!(Routes::demand_of_key(&secret.key), Demand::Required);
        assert_eq!(Routes::demand_of_key("mx:example.org"), Demand::None);
        let report = routes.destination_for(&domain("example.org"), Demand::Preferred).unwrap();
        assert_eq!((&*report.key, report.route), ("prefer-requiretls:mx:example.org", RouteIndex(0)));
        assert_eq!(Routes::domain_of_key(&report.key), Some(domain("example.org")));
        assert_eq!(Routes::demand_of_key(&report.key), Demand::Preferred);
        assert_eq!(routes.route_of_key(&report.key), Some(RouteIndex(0)));
        let waived = routes.destination_for(&domain("example.org"), Demand::Waived).unwrap();
        assert_eq!((&*waived.key, waived.route), ("tls-waived:mx:example.org", RouteIndex(0)));
        assert_eq!(Routes::domain_of_key(&waived.key), Some(domain("example.org")));
        assert_eq!(Routes::demand_of_key(&waived.key), Demand::Waived);

        let site = routes.site_key(RouteIndex(0), Demand::Required, "hosts:mx.example");
        assert_eq!((&*site, Routes::site_of_key(&site)), ("requiretls:hosts:mx.example", "hosts:mx.example"));
        for (key, limit) in [
            ("hop:127.0.0.1:25", "hop:127.0.0.1:25"),
            ("requiretls:hop:127.0.0.1:25;2", "hop:127.0.0.1:25;2"),
            ("site:a+dnssec+sts-12", "site:a"),
            ("tls-waived:site:a+dnssec;3", "site:a;3"),
        ] {
            assert_eq!(Routes::limit_key(key), limit, "{key}");
        }
        for (key, source, with, limit) in [
            ("site:a+dnssec", "s-1", "s-1@site:a+dnssec", "s-1@site:a"),
            ("requiretls:hosts:mx.example", "s", "requiretls:s@hosts:mx.example", "s@hosts:mx.example"),
            ("mx:[192.0.2.1]", "s", "s@mx:[192.0.2.1]", "s@mx:[192.0.2.1]"),
            ("hop:relay.example:25;2", "s", "s@hop:relay.example:25;2", "s@hop:relay.example:25;2"),
            ("via:r@x>mx:a.example", "s", "s@via:r@x>mx:a.example", "s@mx:a.example"),
        ] {
            assert_eq!(&*Routes::with_source(key, Some(source)), with);
            assert_eq!(&*Routes::with_source(key, None), key);
            assert_eq!((Routes::limit_key(with), Routes::source_of_key(with)), (limit.into(), Some(source)));
            assert_eq!(
                (Routes::without_source(with), Routes::source_of_key(limit)),
                (key.into(), Some(source))
            );
            assert_eq!((Routes::without_source(key), Routes::source_of_key(key)), (key.into(), None));
            assert_eq!(Routes::site_of_key(with), Routes::site_of_key(key));
            assert_eq!(Routes::demand_of_key(with), Routes::demand_of_key(key));
            assert_eq!(Routes::domain_of_key(with), Routes::domain_of_key(key));
        }
        let mut second = route(&["*.org"], Via::Mx(25));
        second.options.concurrency_max = 1;
        let two = Routes::new(vec![route(&["*"], Via::Mx(25)), second, route(&["*.net"], Via::Mx(25))]);
        let keys = [0, 1, 2].map(|index| two.site_key(RouteIndex(index), Demand::None, "site:a"));
        assert_eq!(keys.each_ref().map(|key| &**key), ["site:a", "site:a;2", "site:a"]);
        assert_eq!(Routes::site_of_key(&keys[1]), "site:a");

        let of_key = |key: &str| routes.route_of_key(key).map(|index| index.0);
        assert_eq!(of_key("mx:example.org"), Some(0));
        assert_eq!(of_key("mx:a.example"), None);
        assert_eq!(of_key("requiretls:mx:example.org"), Some(0));
        assert_eq!(of_key("requiretls:hop:127.0.0.1:2600"), Some(1));
        assert_eq!(of_key("mx:.."), None);
        assert_eq!(of_key("hop:127.0.0.1:2600"), Some(1));
        assert_eq!(of_key("hop:127.0.0.1:2600;2"), Some(5));
        assert_eq!(of_key("hop:127.0.0.1:2601"), None);
        assert_eq!(of_key(""), None);
        assert_eq!(Routes::domain_of_key("mx:example.org"), Some(domain("example.org")));
    }

    #[test]
    fn a_change_names_the_keys_whose_mail_may_go_another_way() {
        let (one, two) = (hop([127, 0, 0, 1], 1), hop([127, 0, 0, 1], 2));
        let before = [
            route(&["*"], one.clone()),
            route(&["*.example", "a.test"], two.clone()),
            route(&["b.test"], Via::Hold),
            route(&["c.test"], Via::Mx(25)),
        ];
        let check = |after: &[Route], expected: &[&str]| {
            let changed = Routes::new(before.to_vec()).shared_keys_changed(&Routes::new(after.to_vec()));
            let mut changed: Vec<_> = changed.iter().map(|key| &**key).collect();
            changed.sort_unstable();
            assert_eq!(changed, expected);
            let (before, after) = (Routes::new(before.to_vec()), Routes::new(after.to_vec()));
            let alike = before.leads_alike(&after);
            assert_eq!(alike, after.leads_alike(&before));
            assert!(!alike || expected.is_empty());
        };
        let with = |index: usize, route: Route| {
            let mut after = before.to_vec();
            after[index] = route;
            after
        };
        let and = |route: Route| [before.to_vec(), vec![route]].concat();
        let (hop1, hop2) = ("hop:127.0.0.1:1", "hop:127.0.0.1:2");
        check(&before, &[]);
        // Another order, another treatment by the way: the keys are the same.
        check(&[1, 0, 3, 2].map(|index: usize| before[index].clone()), &[]);
        let mut gentle = before[0].clone();
        gentle.options.concurrency_max = 1;
        check(&with(0, gentle), &[]);
        // One that is changed, or gone.
        check(&with(0, route(&["*"], Via::Mx(25))), &[hop1]);
        check(&with(1, route(&["*.example"], two.clone())), &[hop2]);
        check(&with(2, route(&["b.test"], one.clone())), &["hold"]);
        check(&with(3, route(&["c.test"], one.clone())), &[]);
        check(&before[1..], &[hop1]);
        // One that is new: where its domains went before.
        check(&and(route(&["d.test"], two.clone())), &[hop1]);
        check(&and(route(&["d.example"], Via::Discard)), &[hop2]);
        check(&and(route(&["d.example", "a.c.test"], two.clone())), &[hop1]);
        check(&and(route(&["*.d.example"], one.clone())), &[hop2]);
        check(&and(route(&["*.test"], one.clone())), &[]);
        check(&and(route(&["*.test"], two)), &[hop1]);
        // Nothing that is shared: mail for the domain alone has it in its key.
        let after = Routes::new(with(3, route(&["c.test"], one.clone())));
        assert!(!Routes::new(before.to_vec()).leads_alike(&after));
        check(&[], &["hold", hop1, hop2]);

        let shared = [hop1.into()].into();
        assert!(Routes::is_among(hop1, &shared) && Routes::is_among("requiretls:hop:127.0.0.1:1", &shared));
        assert!(!Routes::is_among(hop2, &shared) && !Routes::is_among("mx:c.test", &shared));
        for (key, is_hold) in [
            ("hold", true),
            ("hold;2", true),
            ("requiretls:hold", true),
            ("holder", false),
            ("mx:hold", false),
        ] {
            assert_eq!(Routes::is_hold_key(key), is_hold, "{key}");
            assert!(!Routes::is_sent_key(key) || key == "mx:hold");
        }
        assert_eq!(&*Routes::unrouted(&domain("a.test"), Demand::Required), "requiretls:mx:a.test");
        assert_eq!(&*Routes::unrouted(&domain("a.test"), Demand::None), "mx:a.test");
    }

    #[test]
    fn an_operator_may_choose_a_route_by_its_name() {
        let backup = hop([127, 0, 0, 1], 2600);
        let make = |backup: Via| {
            let routes =
                vec![route(&["*"], Via::Mx(25)), route(&["b.test"], backup), route(&["c.test"], Via::Hold)];
            Routes::new(routes).named(["", "backup", "later"])
        };
        let routes = make(backup.clone());
        let by = |name: &str, text: &str, demand| routes.destination_by(name, &domain(text), demand);
        let chosen = by("backup", "example.org", Demand::Required).unwrap();
        assert_eq!((&*chosen.key, chosen.route), ("requiretls:via:backup>hop:127.0.0.1:2600", RouteIndex(1)));
        assert_eq!(Routes::demand_of_key(&chosen.key), Demand::Required);
        assert_eq!(Routes::chosen_of_key(&chosen.key), Some("backup"));
        assert_eq!(routes.route_of_key(&chosen.key), Some(RouteIndex(1)));
        // Its limits are those of all mail that goes there.
        assert_eq!(Routes::limit_key(&chosen.key), "hop:127.0.0.1:2600");
        assert!(Routes::is_hold_key(&by("later", "a.test", Demand::None).unwrap().key));
        assert_eq!(by("other", "a.test", Demand::None), None);
        assert_eq!(by("", "a.test", Demand::None), None);
        assert_eq!(Routes::chosen_of_key("hop:127.0.0.1:2600"), None);
        // Other hosts, or none of that name: the domain has to be asked for again. Patterns are no matter.
        let changed = make(hop([127, 0, 0, 1], 2601));
        assert_eq!(changed.route_of_key(&chosen.key), None);
        assert_eq!(Routes::default().route_of_key(&chosen.key), None);
        assert!(!Routes::is_among(&chosen.key, &routes.shared_keys_changed(&Routes::default())));
        let mx = make(Via::Mx(25)).destination_by("backup", &domain("a.test"), Demand::None).unwrap();
        assert_eq!(
            (&*mx.key, Routes::domain_of_key(&mx.key)),
            ("via:backup>mx:a.test", Some(domain("a.test")))
        );
    }

    #[test]
    fn without_a_route_there_is_no_destination() {
        let routes = Routes::new(vec![route(&["*.example"], Via::Hold)]);
        assert_eq!(routes.destination(&domain("example")), None);
        assert_eq!(routes.destination(&domain("example.org")), None);
        assert_eq!(Routes::default().destination(&domain("example.org")), None);
    }
}
