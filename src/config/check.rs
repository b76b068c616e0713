//! What is right key by key and wrong together.

use std::{collections::HashMap, fmt, path::PathBuf};

use mail::Span;

use crate::{
    Config, ConfigError, CoreCount, DomainPattern, Hop, Host, Journal, ListenAddress, Listener, ListenerKind,
    ListenerTls, Loaded, Problem, ReplyAction, ReplyRule, Route, RouteTls, Via, reader::Reader, size_text,
};

/// What works, but perhaps not as somebody thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key it is about.
    pub key: String,
    /// What, and what to do.
    pub text: String,
}

impl Config {
    /// Tells the reader of every contradiction.
    pub(crate) fn check(&self, reader: &mut Reader<'_>) {
        self.check_machine(reader);
        self.check_memory_and_disk(reader);
        self.check_listeners(reader);
        self.check_certificates(reader);
        self.check_tls(reader);
        self.check_dkim(reader);
        self.check_bimi(reader);
        self.check_rotation(reader);
        self.check_relay(reader);
        self.check_routes(reader);
        self.check_credentials(reader);
        self.check_means(reader);
        self.check_sites(reader);
        self.check_tenants(reader);
        self.check_consent(reader);
        self.check_reply_rules(reader);
        self.check_retries(reader);
        self.check_egress(reader);
        self.check_campaigns(reader);
        self.check_strangers(reader);
        self.check_deliverability(reader);
        self.check_bounces(reader);
        self.check_srs(reader);
        self.check_reports_in(reader);
        self.check_api_keys(reader);
        self.check_etrn(reader);
        self.check_times(reader);
    }

    /// What works, but not as somebody may think; with so many CPUs for us to use.
    pub fn warnings(&self, cpus_usable: usize) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &str, text: String| warnings.push(Warning { key: key.to_owned(), text });
        if self.hostname.as_str() == "localhost" {
            warn(
                "hostname",
                "it is \"localhost\": other servers want a name that leads back to this host".into(),
            );
        }
        if let Some(campaign) = self.campaigns_without_field() {
            let key = format!("campaign.{}", campaign.name.to_ascii_lowercase());
            warn(
                &key,
                "no mail is of it: `queue.campaign-header` does not name the field that says so".into(),
            );
        }
        let shards = self.cores.shards(cpus_usable);
        if shards > cpus_usable {
            let text = format!(
                "{shards} cores, and {cpus_usable} CPUs may be used: shards will wait for each other; \
                 at most {cpus_usable}, or \"all\""
            );
            warn("cores.count", text);
        }
        if shards > usize::from(self.journal.shards) {
            let journal = self.journal.shards;
            let text = format!(
                "{shards} cores and {journal} journal shards: some cores take no mail in; \
                 `cores.count` is at most {journal}"
            );
            warn("cores.count", text);
        } else if self.upgrade.enabled && 2 * shards > usize::from(self.journal.shards) {
            let text = format!(
                "{} for {shards} cores: at `ringpost upgrade` the new program waits for the old one to end, and clients \
                 wait with it; {} or more in a data directory that is made anew",
                self.journal.shards,
                2 * shards
            );
            warn("journal.shards", text);
        }
        if !self.routes.iter().any(|route| route.domains.contains(&DomainPattern::Any)) {
            let text = "none is for \"*\": mail to domains that no route names is refused".into();
            warn("route", text);
        }
        let signs = self.bounces.domain.is_some() && self.bounces.secret.is_some();
        for route in self.routes.iter().filter(|route| route.verp && !signs) {
            let key = format!("route.{}.verp", route.name.to_ascii_lowercase());
            let text =
                "`bounces` has no domain or no secret: mail leaves with the reverse-path that it came with";
            warn(&key, text.into());
        }
        let rewrites = self.srs.domain.is_some() && !self.srs.secrets.is_empty();
        for route in self.routes.iter().filter(|route| route.srs && !rewrites) {
            let key = format!("route.{}.srs", route.name.to_ascii_lowercase());
            let text =
                "`srs` has no domain or no secrets: mail leaves with the reverse-path that it came with";
            warn(&key, text.into());
        }
        if !self.reports_in.addresses.is_empty() && !self.authentication.verify {
            let text = "`authentication.verify` is off: of no report anybody knows who has sent it";
            warn("reports-in.addresses", text.into());
        }
        for address in self.http.address.iter().filter(|address| !address.ip().is_loopback()) {
            warn("http.address", format!("{address}: whoever reaches it reads the metrics"));
        }
        for net in self.relay.networks.iter().filter(|net| net.prefix_len() < 8) {
            warn("relay.networks", format!("{net}: that many clients may send anything to anybody"));
        }
        for (key, text) in self.idle_certificates().into_iter().chain(self.rotation_warnings()) {
            warn(&key, text);
        }
        warnings
    }

    fn check_machine(&self, reader: &mut Reader<'_>) {
        let cores = &self.cores;
        for (at, cpu) in cores.cpus.iter().enumerate() {
            if cores.cpus[..at].contains(cpu) {
                reader.conflict(&["cores.cpus"], format!("CPU {cpu} is named twice"), "name each once");
            }
        }
        match cores.count {
            CoreCount::Count(count) if !cores.cpus.is_empty() && cores.cpus.len() < usize::from(count) => {
                let problem = format!("{count} cores, but {} CPUs to bind them to", cores.cpus.len());
                reader.conflict(&["cores.cpus", "cores.count"], problem, "name as many, or none");
            }
            CoreCount::Count(count) if count > self.journal.shards => {
                let problem = format!("{count} cores, but {} journal shards", self.journal.shards);
                let remedy = "at most as many cores as `journal.shards`";
                reader.conflict(&["cores.count", "journal.shards"], problem, remedy);
            }
            CoreCount::Count(_) | CoreCount::All => {}
        }
        if !cores.pin && !cores.cpus.is_empty() {
            let remedy = "leave `cores.cpus` out, or set `cores.pin = true`";
            let problem = "CPUs to bind to, and no binding".into();
            reader.conflict(&["cores.cpus", "cores.pin"], problem, remedy);
        }
        if !self.ring.depth.is_power_of_two() {
            let below = 1 << self.ring.depth.ilog2();
            let problem = format!("{} is not a power of two", self.ring.depth);
            reader.conflict(&["ring.depth"], problem, &format!("write {below} or {}", below * 2));
        }
        if self.group.is_some() && self.user.is_none() {
            reader.conflict(&["group"], "a group without a user".into(), "set `user` too");
        }
    }

    fn check_memory_and_disk(&self, reader: &mut Reader<'_>) {
        let (buffers, journal) = (&self.buffers, &self.journal);
        let size = size_text;
        if buffers.large < buffers.small {
            let problem = format!(
                "large buffers of {} are smaller than small ones of {}",
                size(buffers.large),
                size(buffers.small)
            );
            let remedy = "make `buffers.large` at least as large as `buffers.small`";
            reader.conflict(&["buffers.large", "buffers.small"], problem, remedy);
        }
        if buffers.free > buffers.budget {
            let problem =
                format!("{} cannot be kept of a budget of {}", size(buffers.free), size(buffers.budget));
            let remedy = "`buffers.free` is at most `buffers.budget`";
            reader.conflict(&["buffers.free", "buffers.budget"], problem, remedy);
        }
        // A core that cannot hold one message whole, and the buffers it comes in by, never ends it.
        let budget_min = 2 * journal.spill + 16 * buffers.large;
        if buffers.budget < budget_min {
            let (spill, large) = (size(journal.spill), size(buffers.large));
            let problem = format!(
                "a budget of {} is too little for messages of {spill} (journal.spill) in buffers of {large}",
                size(buffers.budget)
            );
            let remedy = format!("`buffers.budget` is at least \"{}\"", size(budget_min));
            reader.conflict(&["buffers.budget", "journal.spill", "buffers.large"], problem, &remedy);
        }
        if journal.spill > journal.segment_size / 4 {
            let problem = format!(
                "pieces of {} are too large for segments of {}",
                size(journal.spill),
                size(journal.segment_size)
            );
            let remedy = "`journal.spill` is at most a quarter of `journal.segment-size`";
            reader.conflict(&["journal.spill", "journal.segment-size"], problem, remedy);
        }
        if journal.reserve > journal.segment_size {
            let problem = format!(
                "{} to be kept free is more than a segment of {}",
                size(journal.reserve),
                size(journal.segment_size)
            );
            let remedy = "`journal.reserve` is at most `journal.segment-size`";
            reader.conflict(&["journal.reserve", "journal.segment-size"], problem, remedy);
        }
        match self.cores.count {
            CoreCount::Count(count) => self.check_disk(usize::from(count), reader),
            // How many there are is known only on the host.
            CoreCount::All => self.check_disk(1, reader),
        }
        if journal.segments_max < journal.ready + 2 {
            let problem =
                format!("{} segments, and {} to be made ready ahead", journal.segments_max, journal.ready);
            let remedy = "`journal.segments-max` is at least two more than `journal.ready`";
            reader.conflict(&["journal.segments-max", "journal.ready"], problem, remedy);
        }
    }

    pub(crate) fn check_disk(&self, shards: usize, reader: &mut Reader<'_>) {
        let least = self.journal.disk_min(shards);
        if self.journal.disk_max < least {
            let cores = if shards == 1 { "a core".to_owned() } else { format!("each of {shards} cores") };
            let problem = format!(
                "{} is too little: {cores} needs {} segments of {}",
                size_text(self.journal.disk_max),
                Journal::SEGMENTS_MIN,
                size_text(self.journal.segment_size),
            );
            let remedy = format!(
                "`journal.disk-max` is at least \"{}\"; or lower `journal.segment-size`",
                size_text(least)
            );
            let keys = ["journal.disk-max", "journal.segment-size", "cores.count"];
            reader.conflict(&keys, problem, &remedy);
        }
    }

    fn check_listeners(&self, reader: &mut Reader<'_>) {
        if self.listeners.is_empty() {
            reader.missing("listener", "[[listener]]", "without one nobody can bring mail");
        }
        let mut taken = HashMap::new();
        for address in &self.http.address {
            taken.insert(address.to_string(), "http".to_owned());
        }
        for address in self.http.mail_address.iter().filter(|address| address.port() != 0) {
            if let Some(other) = taken.insert(address.to_string(), "http.mail-address".to_owned()) {
                let problem = format!("{address} is already taken by {other}");
                reader.conflict(&["http.mail-address"], problem, "give it another address or port");
            }
        }
        for address in self.unsubscribe.address.iter().filter(|address| address.port() != 0) {
            if let Some(other) = taken.insert(address.to_string(), "unsubscribe.address".to_owned()) {
                let problem = format!("{address} is already taken by {other}");
                reader.conflict(&["unsubscribe.address"], problem, "give it another address or port");
            }
        }
        for address in self.reports_in.http_address.iter().filter(|address| address.port() != 0) {
            if let Some(other) = taken.insert(address.to_string(), "reports-in.http-address".to_owned()) {
                let problem = format!("{address} is already taken by {other}");
                reader.conflict(&["reports-in.http-address"], problem, "give it another address or port");
            }
        }
        for listener in &self.listeners {
            let key = format!("listener.{}", listener.name.to_ascii_lowercase());
            if listener.address.is_empty() {
                reader.missing(&key, "address = [\"0.0.0.0:25\"]", "say where it listens");
            }
            for address in &listener.address {
                let address = address.to_string();
                // Port 0 is another port each time.
                if address.ends_with(":0") {
                    continue;
                }
                if let Some(other) = taken.insert(address.clone(), key.clone()) {
                    let problem = format!("{address} is already taken by {other}");
                    reader.conflict(&[&format!("{key}.address")], problem, "give it another address or port");
                }
            }
            match listener.tls {
                ListenerTls::Starttls | ListenerTls::Required | ListenerTls::Implicit
                    if self.certificates.is_empty() =>
                {
                    let problem = format!("tls = \"{}\", and there is no certificate", listener.tls);
                    let remedy = "add a [[certificate]], or set tls = \"none\"";
                    reader.conflict(&[&format!("{key}.tls")], problem, remedy);
                }
                ListenerTls::Starttls | ListenerTls::Required | ListenerTls::Implicit | ListenerTls::None => {
                }
            }
            for net in listener.proxy_networks.iter().filter(|net| net.prefix_len() == 0) {
                let problem = format!("{net} is everybody: any client could say that it is another");
                reader.conflict(
                    &[&format!("{key}.proxy-networks")],
                    problem,
                    "name the networks of your proxies",
                );
            }
            for (name, nets, could) in [
                ("xclient-networks", &listener.xclient_networks, "that it is another"),
                ("xforward-networks", &listener.xforward_networks, "where mail is from"),
            ] {
                for net in nets.iter().filter(|net| net.prefix_len() == 0) {
                    let problem = format!("{net} is everybody: any client could say {could}");
                    reader.conflict(
                        &[&format!("{key}.{name}")],
                        problem,
                        "name the networks of those who may",
                    );
                }
            }
            if !listener.address.iter().any(|address| matches!(address, ListenAddress::Unix(_))) {
                for (name, said) in [
                    ("unix-mode", listener.unix_mode != Listener::default().unix_mode),
                    ("unix-owner", listener.unix_owner.is_some()),
                    ("unix-group", listener.unix_group.is_some()),
                ] {
                    let key = format!("{key}.{name}");
                    if said {
                        let remedy = "add an address such as \"unix:/run/ringpost/smtp\", or leave it out";
                        reader.conflict(&[&key], "the listener has no Unix socket".into(), remedy);
                    }
                }
            }
            if listener.kind == ListenerKind::Lmtp {
                check_lmtp(&key, listener, reader);
            }
            self.check_limits(&key, listener, reader);
        }
    }

    /// Of what a listener inherits, a mistake is told at the key it is inherited from, and so once.
    fn check_limits(&self, key: &str, listener: &Listener, reader: &mut Reader<'_>) {
        let limits = &listener.limits;
        let at = |reader: &Reader<'_>, section: &str, name: &str, all: &str| {
            let own = format!("{key}.{section}.{name}");
            if reader.places.of(&own).is_some() { own } else { format!("{all}.{name}") }
        };
        let size = size_text;
        // A large message may lie in many segments, but it must leave room for others.
        let journal = &self.journal;
        let segments = journal.segment_size.saturating_mul(journal.segments_max.into());
        let room = segments.min(journal.disk_max);
        if limits.message_size_max > room / 4 {
            let by = if room == segments {
                ["journal.segments-max", "journal.segment-size"]
            } else {
                ["journal.disk-max", "journal.disk-max"]
            };
            let problem = format!(
                "a message of {} (message-size-max) is too large for a journal of {} ({})",
                size(limits.message_size_max),
                size(room),
                if room == segments { "segments-max times segment-size" } else { "disk-max" },
            );
            let remedy = format!("at most a quarter, \"{}\", or a larger journal", size(room / 4));
            let key = at(reader, "limits", "message-size-max", "limits");
            reader.conflict(&[&key, by[0], by[1]], problem, &remedy);
        }
        if limits.header_size_max > limits.message_size_max {
            let problem = format!(
                "a header section of {} (header-size-max) is more than a whole message of {} (message-size-max)",
                size(limits.header_size_max),
                size(limits.message_size_max)
            );
            let header = at(reader, "limits", "header-size-max", "limits");
            let message = at(reader, "limits", "message-size-max", "limits");
            let remedy = "lower `header-size-max`, or raise `message-size-max`";
            reader.conflict(&[&header, &message], problem, remedy);
        }
        // EHLO, STARTTLS and EHLO again, MAIL, one for each recipient, DATA, and some room for what was refused.
        let least = limits.recipients_max.saturating_add(10);
        if limits.commands_max < least {
            let problem = format!(
                "a message to {} recipients (recipients-max) is more commands than {} (commands-max)",
                limits.recipients_max, limits.commands_max
            );
            let [commands, recipients] =
                ["commands-max", "recipients-max"].map(|name| at(reader, "limits", name, "limits"));
            let remedy = format!("`commands-max` is at least {least}, or lower `recipients-max`");
            reader.conflict(&[&commands, &recipients], problem, &remedy);
        }
        for (what, name, max) in [
            ("a command", "command-line-max", limits.command_line_max),
            ("a header of a proxy", "proxy-header-max", limits.proxy_header_max),
        ] {
            if max > self.buffers.large {
                let problem = format!(
                    "{what} of {} ({name}) would not fit a buffer of {} (buffers.large)",
                    size(max),
                    size(self.buffers.large)
                );
                let key = at(reader, "limits", name, "limits");
                reader.conflict(
                    &[&key, "buffers.large"],
                    problem,
                    &format!("`{name}` is at most `buffers.large`"),
                );
            }
        }
        let timeouts = &listener.timeouts;
        let names = [("command", timeouts.command), ("data-block", timeouts.data_block)];
        for (name, wait) in names.into_iter().filter(|(_, wait)| *wait > timeouts.session) {
            let problem = format!(
                "a wait of {} ({name}) is longer than a whole session of {} (session)",
                Span(wait),
                Span(timeouts.session)
            );
            let at = |name| at(reader, "timeouts", name, "timeouts.inbound");
            let (session, part) = (at("session"), at(name));
            let remedy = format!("raise `session`, or lower `{name}`");
            reader.conflict(&[&session, &part], problem, &remedy);
        }
    }

    fn check_certificates(&self, reader: &mut Reader<'_>) {
        let towards = &self.outbound_tls;
        if !towards.public_authorities && towards.authorities.is_empty() {
            let keys = ["outbound-tls.public-authorities", "outbound-tls.authorities"];
            let problem = "no authority is believed, so that no certificate is good".into();
            reader.conflict(&keys, problem, "name a file of authorities");
        }
        for certificate in &self.certificates {
            let key = format!("certificate.{}", certificate.name.to_ascii_lowercase());
            if certificate.certificate.as_os_str().is_empty() {
                reader.missing(&key, "certificate = \"cert.pem\"", "name the file of the certificate");
            }
            if certificate.key.as_os_str().is_empty() {
                reader.missing(&key, "key = \"key.pem\"", "name the file of its private key");
            }
        }
    }

    fn check_dkim(&self, reader: &mut Reader<'_>) {
        let doors = self.listeners.iter().map(|listener| {
            (
                format!("listener.{}.authentication", listener.name.to_ascii_lowercase()),
                &listener.authentication,
            )
        });
        for (key, rules) in doors.chain([("authentication".to_owned(), &self.authentication)]) {
            let Some(name) = &rules.seal else { continue };
            if !self.dkim.iter().any(|dkim| dkim.name.eq_ignore_ascii_case(name)) {
                let problem = format!("there is no `[[dkim]]` with the name {name}");
                reader.conflict(
                    &[&format!("{key}.seal"), "authentication.seal"],
                    problem,
                    "name one that there is",
                );
            }
        }
        for rule in &self.author_rules {
            if rule.domains.is_empty() {
                let key = format!("author-rule.{}", rule.name.to_ascii_lowercase());
                reader.missing(&key, "domains = [\"bank.example\"]", "say for which authors");
            }
        }
        for dkim in &self.dkim {
            let key = format!("dkim.{}", dkim.name.to_ascii_lowercase());
            if dkim.domain.is_none() {
                reader.missing(&key, "domain = \"example.org\"", "say whose key it is");
            }
            if dkim.selector.is_empty() {
                reader.missing(&key, "selector = \"s1\"", "say where under the domain it is published");
            }
            let is_field = |text: &str| {
                let name = text.split_once(':').map_or("", |(name, _)| name);
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if let Some(when) = dkim.when.as_deref().filter(|when| !is_field(when)) {
                let problem = format!("\"{when}\" is no field and what it says");
                reader.conflict(&[&format!("{key}.when")], problem, "write \"X-Brand: news\"");
            }
            for tenant in &dkim.tenants {
                if !self.tenants.iter().any(|known| known.name.eq_ignore_ascii_case(tenant)) {
                    let remedy = "name one of the `[[tenant]]`, or leave it out for all mail";
                    let problem = format!("there is no tenant `{tenant}`");
                    reader.conflict(&[&format!("{key}.tenants")], problem, remedy);
                }
            }
        }
    }

    fn check_relay(&self, reader: &mut Reader<'_>) {
        for net in self.relay.networks.iter().filter(|net| net.prefix_len() == 0) {
            let problem = format!("{net} is everybody: this is an open relay, and others will block it");
            reader.conflict(&["relay.networks"], problem, "name the networks of your own clients");
        }
    }

    fn check_srs(&self, reader: &mut Reader<'_>) {
        for route in self.routes.iter().filter(|route| route.srs) {
            let key = format!("route.{}.srs", route.name.to_ascii_lowercase());
            if route.verp {
                let problem =
                    "one reverse-path cannot lead back to its sender (srs) and to us (verp)".to_owned();
                reader.conflict(&[&key, &format!("{key}.verp")], problem, "choose one of the two");
            }
        }
        let Some(domain) = &self.srs.domain else { return };
        let exact = DomainPattern::Exact(domain.clone());
        let also = self.domains.iter().find(|other| other.name == *domain).map(|_| "a `[[domain]]`");
        let also =
            also.or(self.routes.iter().find(|route| route.domains.contains(&exact)).map(|_| "a `[[route]]`"));
        let also = also.or((self.bounces.domain.as_ref() == Some(domain)).then_some("`bounces.domain`"));
        if let Some(also) = also {
            let problem = format!("{domain} is in {also} as well");
            reader.conflict(&["srs.domain"], problem, "take a domain that is for this alone");
        }
    }

    fn check_bounces(&self, reader: &mut Reader<'_>) {
        let Some(domain) = &self.bounces.domain else { return };
        let exact = DomainPattern::Exact(domain.clone());
        let also = self.domains.iter().find(|other| other.name == *domain).map(|_| "domain");
        let also = also.or(self.routes.iter().find(|route| route.domains.contains(&exact)).map(|_| "route"));
        if let Some(also) = also {
            let problem = format!("{domain} is in a `[[{also}]]` as well");
            reader.conflict(&["bounces.domain"], problem, "take a domain that is for reports alone");
        }
        for (key, local_part) in
            [("local-part", &self.bounces.local_part), ("complaints", &self.bounces.complaints)]
        {
            let sound = local_part.len() <= 24 && mail::Address::new(local_part, domain).is_ok();
            if !sound || local_part.starts_with('"') {
                let problem = format!("\"{local_part}\" is no local-part of up to 24 characters");
                reader.conflict(&[&format!("bounces.{key}")], problem, "write a word such as \"bounces\"");
            }
        }
    }

    fn check_reply_rules(&self, reader: &mut Reader<'_>) {
        for rule in self.reply_rules.iter().filter(|rule| rule.fits_everything()) {
            let key = format!("reply-rule.{}", rule.name.to_ascii_lowercase());
            reader.missing(&key, "text = [\"…\"]", "say which refusals it is for");
        }
        let ends = |rule: &&ReplyRule| rule.pool.is_some() && rule.action == ReplyAction::Permanent;
        for rule in self.reply_rules.iter().filter(ends) {
            let key = format!("reply-rule.{}", rule.name.to_ascii_lowercase());
            let problem = "what is not tried again has no next pool".into();
            let keys = [&*format!("{key}.pool"), &*format!("{key}.action")];
            reader.conflict(&keys, problem, "leave one of them out");
        }
    }

    fn check_retries(&self, reader: &mut Reader<'_>) {
        for rule in &self.retries {
            let key = format!("retry.{}", rule.name.to_ascii_lowercase());
            if rule.says_nothing() {
                reader.missing(
                    &key,
                    "retry = [\"1h\"]",
                    "say when, with `first`, `hint`, `retry` or `give-up`",
                );
            }
            // A site may have a name of its own; a route has one of these.
            for name in &rule.routes {
                if !self.routes.iter().any(|route| route.name.eq_ignore_ascii_case(name)) {
                    let problem = format!("there is no route \"{name}\"");
                    reader.conflict(&[&format!("{key}.routes")], problem, "name a [[route]] by its `name`");
                }
            }
        }
    }

    fn check_routes(&self, reader: &mut Reader<'_>) {
        let mut patterns = HashMap::new();
        for route in &self.routes {
            let key = format!("route.{}", route.name.to_ascii_lowercase());
            if route.domains.is_empty() {
                reader.missing(&key, "domains = [\"*\"]", "say for which domains");
            }
            for pattern in &route.domains {
                if let Some(other) = patterns.insert(pattern, key.clone()) {
                    let problem = format!("\"{pattern}\" is already in {other}");
                    reader.conflict(
                        &[&format!("{key}.domains")],
                        problem,
                        "each pattern belongs to one route",
                    );
                }
            }
            match route.via {
                Via::Hop | Via::Lmtp if route.hosts.is_empty() => {
                    let by_lmtp = route.via == Via::Lmtp;
                    let host = if by_lmtp { "unix:/run/dovecot/lmtp" } else { "relay.example.org:25" };
                    reader.missing(
                        &key,
                        &format!("hosts = [\"{host}\"]"),
                        &format!("via = \"{}\" needs next hops", route.via),
                    );
                }
                Via::Mx | Via::Discard | Via::Hold | Via::Pipe | Via::Http if !route.hosts.is_empty() => {
                    let problem = format!("hosts are for via = \"hop\", this is via = \"{}\"", route.via);
                    reader.conflict(
                        &[&format!("{key}.hosts")],
                        problem,
                        "change `via`, or leave `hosts` out",
                    );
                }
                Via::Hop | Via::Lmtp => check_hosts(&key, route, reader),
                Via::Mx | Via::Discard | Via::Hold | Via::Pipe | Via::Http => {}
            }
            check_identity(&key, (&route.client_certificate, &route.client_key), reader);
        }
    }

    fn check_sites(&self, reader: &mut Reader<'_>) {
        for site in &self.sites {
            let key = format!("site.{}", site.name.to_ascii_lowercase());
            if site.hosts.is_empty() && site.domains.is_empty() {
                reader.missing(
                    &key,
                    "hosts = [\"*.mx.example.org\"]",
                    "say which mail hosts are this site's",
                );
            }
            if site.name.contains(['.', ',', ';', '>', '+']) {
                let problem = "a site's name has none of . , ; > +, which names of other sites have".into();
                reader.conflict(&[&format!("{key}.name")], problem, "name it by one word");
            }
        }
    }

    fn check_tenants(&self, reader: &mut Reader<'_>) {
        for tenant in &self.tenants {
            let key = format!("tenant.{}", tenant.name.to_ascii_lowercase());
            if tenant.networks.is_empty() && tenant.certificates.is_empty() && tenant.api_keys.is_empty() {
                reader.missing(&key, "networks = [\"192.0.2.0/24\"]", "say which clients are its");
            }
            for name in &tenant.api_keys {
                if !self.api_keys.iter().any(|key| key.name.eq_ignore_ascii_case(name)) {
                    let problem = format!("there is no `[[api-key]]` with the name {name}");
                    reader.conflict(&[&format!("{key}.api-keys")], problem, "name one that there is");
                }
            }
        }
    }

    fn check_etrn(&self, reader: &mut Reader<'_>) {
        for rule in &self.etrn {
            let key = format!("etrn.{}", rule.name.to_ascii_lowercase());
            if rule.networks.is_empty() && rule.certificates.is_empty() {
                reader.missing(&key, "networks = [\"192.0.2.25/32\"]", "say who may ask");
            }
            if rule.domains.is_empty() {
                reader.missing(&key, "domains = [\"branch.example.org\"]", "say whose mail they may ask for");
            }
        }
    }

    fn check_api_keys(&self, reader: &mut Reader<'_>) {
        let mut hashes = HashMap::new();
        for api_key in &self.api_keys {
            let key = format!("api-key.{}", api_key.name.to_ascii_lowercase());
            match api_key.hash {
                None => {
                    reader.missing(&key, "hash = \"sha256:…\"", "`ringpost key` makes a key and prints it")
                }
                Some(hash) => {
                    if let Some(other) = hashes.insert(hash, key.clone()) {
                        let problem = format!("the hash is already that of {other}");
                        reader.conflict(&[&format!("{key}.hash")], problem, "each name has a key of its own");
                    }
                }
            }
            if api_key.domains.is_empty() && api_key.addresses.is_empty() {
                reader.missing(&key, "domains = [\"example.org\"]", "say from which domains it may send");
            }
        }
        if self.api_keys.is_empty() && !self.http.mail_address.is_empty() {
            let problem = "mail is taken in here from whoever has a key, and there is no key".into();
            reader.conflict(&["http.mail-address"], problem, "add an [[api-key]]: `ringpost key` makes one");
        }
        let least = self.http.request_size_max.saturating_mul(2);
        if self.http.memory < least {
            let problem = format!(
                "{} of memory is too little for a request of {} (request-size-max)",
                size_text(self.http.memory),
                size_text(self.http.request_size_max)
            );
            let remedy = format!("at least twice that, \"{}\"", size_text(least));
            reader.conflict(&["http.memory", "http.request-size-max"], problem, &remedy);
        }
    }

    fn check_times(&self, reader: &mut Reader<'_>) {
        let (queue, dns) = (&self.queue, &self.dns);
        if queue.retry.is_empty() {
            reader.missing("queue.retry", "retry = [\"5m\"]", "at least the first wait");
        }
        for wait in queue.retry.iter().filter(|wait| **wait > queue.retry_max) {
            let problem = format!("{} is longer than retry-max, {}", Span(*wait), Span(queue.retry_max));
            let remedy = "raise `queue.retry-max`, or shorten it";
            reader.conflict(&["queue.retry", "queue.retry-max"], problem, remedy);
        }
        for ((shorter, short), (longer, long)) in [
            (("queue.retry-max", queue.retry_max), ("queue.give-up", queue.give_up)),
            (("queue.bounce-give-up", queue.bounce_give_up), ("queue.give-up", queue.give_up)),
            (
                ("queue.destination-retry-min", queue.destination_retry_min),
                ("queue.destination-retry-max", queue.destination_retry_max),
            ),
            (("dns.ttl-min", dns.ttl_min), ("dns.ttl-max", dns.ttl_max)),
        ] {
            if short > long {
                let problem = format!("{} ({shorter}) is longer than {} ({longer})", Span(short), Span(long));
                let remedy = format!("`{shorter}` is at most `{longer}`");
                reader.conflict(&[shorter, longer], problem, &remedy);
            }
        }
        if let Some(delay) = queue.delay_warning.filter(|delay| *delay >= queue.give_up) {
            let (delay, end) = (Span(delay), Span(queue.give_up));
            let problem =
                format!("a warning after {delay}, and after {end} (give-up) the message has been returned");
            let remedy = "`queue.delay-warning` is less than `queue.give-up`, or \"\" for never";
            reader.conflict(&["queue.delay-warning", "queue.give-up"], problem, remedy);
        }
        for server in dns.servers.iter().filter(|server| server.port() == 0) {
            reader.conflict(&["dns.servers"], format!("{server}: port 0 cannot be asked"), "DNS has port 53");
        }
    }
}

/// A certificate that is shown to next hops has its key, and a key its certificate.
pub(crate) fn check_identity(
    key: &str,
    shown: (&Option<PathBuf>, &Option<PathBuf>),
    reader: &mut Reader<'_>,
) {
    match shown {
        (None, Some(_)) => {
            reader.missing(key, "client-certificate = \"client.pem\"", "name the file of the certificate");
        }
        (Some(_), None) => {
            reader.missing(key, "client-key = \"client-key.pem\"", "name the file of its private key");
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
}

/// What is spoken at the hosts of a route, and what is not.
fn check_hosts(key: &str, route: &Route, reader: &mut Reader<'_>) {
    let at = format!("{key}.hosts");
    // RFC 2033 §5.
    let is_smtp = |hop: &&Hop| route.via == Via::Lmtp && hop.port == 25 && !matches!(hop.host, Host::Unix(_));
    if let Some(hop) = route.hosts.iter().find(is_smtp) {
        let problem = format!("{hop} is the port of SMTP, which LMTP must not be spoken on");
        reader.conflict(
            &[&at, &format!("{key}.via")],
            problem,
            "name its port, such as 24, or a Unix socket",
        );
    }
    let wants_tls = matches!(route.tls, RouteTls::Required | RouteTls::DaneRequired | RouteTls::Verified);
    if let Some(hop) = route.hosts.iter().find(|hop| wants_tls && matches!(hop.host, Host::Unix(_))) {
        let problem = format!("there is no TLS at {hop}, and tls = \"{}\" wants it", route.tls);
        let remedy = "set tls = \"opportunistic\" or \"none\": what goes there does not leave the host";
        reader.conflict(&[&format!("{key}.tls"), &at], problem, remedy);
    }
}

/// RFC 2033 §5.
fn check_lmtp(key: &str, listener: &Listener, reader: &mut Reader<'_>) {
    let is_smtp = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 25);
    for address in listener.address.iter().filter(|address| is_smtp(address)) {
        let problem = format!("{address} is the port of SMTP, which LMTP must not be spoken on");
        let remedy = "give it another port, such as 24, or a Unix socket";
        reader.conflict(&[&format!("{key}.address"), &format!("{key}.kind")], problem, remedy);
    }
    let extensions = &listener.extensions;
    for (name, offered) in
        [("pipelining", extensions.pipelining), ("enhancedstatuscodes", extensions.enhanced_status_codes)]
    {
        if !offered {
            let problem = format!("LMTP is not without {}", name.to_ascii_uppercase());
            let remedy = "leave it on, or make it another kind of listener";
            reader.conflict(&[&format!("{key}.extensions.{name}"), &format!("{key}.kind")], problem, remedy);
        }
    }
}

impl Loaded {
    /// What contradicts itself on a host where so many CPUs may be used.
    pub fn contradictions(&self, cpus_usable: usize) -> Vec<ConfigError> {
        let mut reader = Reader::new();
        reader.places.clone_from(&self.places);
        self.config.check_disk(self.config.cores.shards(cpus_usable), &mut reader);
        reader.errors
    }
}

impl Reader<'_> {
    /// A contradiction between keys, the first of them the one that most likely is to be changed. It is told at the
    /// first one that was written.
    pub(crate) fn conflict(&mut self, keys: &[&str], problem: String, remedy: &str) {
        let first = keys.first().copied().unwrap_or_default();
        let place = |key: &str| self.places.of(key).cloned();
        let written = keys.iter().find_map(|key| Some((*key, place(key)?)));
        // A section is where its keys would stand.
        let section = || first.rsplit_once('.').and_then(|(section, _)| place(section)).map(|at| (first, at));
        let (key, place) = written.or_else(section).map_or((first, None), |(key, at)| (key, Some(at)));
        let (key, problem) = (key.to_owned(), Problem::Conflict(problem));
        self.push(ConfigError { place, key, problem, remedy: remedy.into() });
    }

    pub(crate) fn missing(&mut self, key: &str, expected: &str, remedy: &str) {
        let place = self.places.of(key).cloned();
        let problem = Problem::Missing { expected: format!("`{expected}`") };
        self.push(ConfigError { place, key: key.into(), problem, remedy: remedy.into() });
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}
