//! What is right key by key and wrong together.

use std::collections::HashMap;

use mail::Span;

use crate::{
    Config, ConfigError, CoreCount, DomainPattern, ListenerTls, Problem, Via, reader::Reader, size_text,
};

impl Config {
    /// Tells the reader of every contradiction.
    pub(crate) fn check(&self, reader: &mut Reader<'_>) {
        self.check_machine(reader);
        self.check_memory_and_disk(reader);
        self.check_listeners(reader);
        self.check_certificates(reader);
        self.check_relay(reader);
        self.check_routes(reader);
        self.check_times(reader);
    }

    /// What works, but not as somebody may think; with so many CPUs for us to use.
    pub fn warnings(&self, cpus_usable: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.hostname.as_str() == "localhost" {
            warnings.push(
                "hostname is \"localhost\": other servers want a name that leads back to this host".into(),
            );
        }
        let shards = self.cores.shards(cpus_usable);
        if shards > cpus_usable {
            warnings.push(format!(
                "cores.count is {shards}, and {cpus_usable} CPUs may be used: shards will wait for each other"
            ));
        }
        if shards > usize::from(self.journal.shards) {
            let journal = self.journal.shards;
            warnings.push(format!("{shards} cores and {journal} journal shards: some cores take no mail in"));
        }
        if !self.routes.iter().any(|route| route.domains.contains(&DomainPattern::Any)) {
            warnings.push("no route is for \"*\": mail to domains that no route names is refused".into());
        }
        for address in self.http.address.iter().filter(|address| !address.ip().is_loopback()) {
            warnings.push(format!("http.address {address}: whoever reaches it reads the metrics"));
        }
        for net in self.relay.networks.iter().filter(|net| net.prefix_len() < 8) {
            warnings.push(format!("relay.networks {net}: that many clients may send anything to anybody"));
        }
        warnings
    }

    fn check_machine(&self, reader: &mut Reader<'_>) {
        let cores = &self.cores;
        for (at, cpu) in cores.cpus.iter().enumerate() {
            if cores.cpus[..at].contains(cpu) {
                reader.conflict("cores.cpus", format!("CPU {cpu} is named twice"), "name each once");
            }
        }
        match cores.count {
            CoreCount::Count(count) if !cores.cpus.is_empty() && cores.cpus.len() < usize::from(count) => {
                let problem = format!("{count} cores, but {} CPUs to bind them to", cores.cpus.len());
                reader.conflict("cores.cpus", problem, "name as many, or none");
            }
            CoreCount::Count(count) if count > self.journal.shards => {
                let problem = format!("{count} cores, but {} journal shards", self.journal.shards);
                reader.conflict("cores.count", problem, "at most as many cores as `journal.shards`");
            }
            CoreCount::Count(_) | CoreCount::All => {}
        }
        if !cores.pin && !cores.cpus.is_empty() {
            let remedy = "leave `cores.cpus` out, or set `cores.pin = true`";
            reader.conflict("cores.cpus", "CPUs to bind to, and no binding".into(), remedy);
        }
        if !self.ring.depth.is_power_of_two() {
            let below = 1 << self.ring.depth.ilog2();
            let problem = format!("{} is not a power of two", self.ring.depth);
            reader.conflict("ring.depth", problem, &format!("write {below} or {}", below * 2));
        }
        if self.group.is_some() && self.user.is_none() {
            reader.conflict("group", "a group without a user".into(), "set `user` too");
        }
    }

    fn check_memory_and_disk(&self, reader: &mut Reader<'_>) {
        let (buffers, journal) = (&self.buffers, &self.journal);
        if buffers.large < buffers.small {
            let remedy = "make `buffers.large` at least as large as `buffers.small`";
            reader.conflict("buffers.large", "smaller than a small buffer".into(), remedy);
        }
        if buffers.free > buffers.budget {
            reader.conflict("buffers.free", "more than there is".into(), "at most `buffers.budget`");
        }
        // A core that cannot hold one message whole, and the buffers it comes in by, never ends it.
        let budget_min = 2 * journal.spill + 16 * buffers.large;
        if buffers.budget < budget_min {
            let (spill, large) = (size_text(journal.spill), size_text(buffers.large));
            let problem = format!("too little for messages of {spill} (journal.spill) in buffers of {large}");
            reader.conflict("buffers.budget", problem, &format!("at least \"{}\"", size_text(budget_min)));
        }
        if journal.spill > journal.segment_size / 4 {
            let remedy = "at most a quarter of `journal.segment-size`";
            reader.conflict("journal.spill", "pieces too large for a segment".into(), remedy);
        }
        if journal.reserve > journal.segment_size {
            let remedy = "at most `journal.segment-size`";
            reader.conflict("journal.reserve", "more than a segment".into(), remedy);
        }
        let disk_min = journal.segment_size.saturating_mul(u64::from(journal.ready) + 2);
        if journal.disk_max < disk_min {
            let problem = format!("too little for the {} segments a core needs to begin", journal.ready + 2);
            reader.conflict("journal.disk-max", problem, &format!("at least \"{}\"", size_text(disk_min)));
        }
        if journal.segments_max < journal.ready + 2 {
            let remedy = "at least two more than `journal.ready`";
            reader.conflict("journal.segments-max", "too few".into(), remedy);
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
                    reader.conflict(&format!("{key}.address"), problem, "give it another address or port");
                }
            }
            match listener.tls {
                ListenerTls::Starttls | ListenerTls::Required | ListenerTls::Implicit
                    if self.certificates.is_empty() =>
                {
                    let problem = format!("tls = \"{}\", and there is no certificate", listener.tls);
                    let remedy = "add a [[certificate]], or set tls = \"none\"";
                    reader.conflict(&format!("{key}.tls"), problem, remedy);
                }
                ListenerTls::Starttls | ListenerTls::Required | ListenerTls::Implicit | ListenerTls::None => {
                }
            }
            self.check_limits(&key, listener, reader);
        }
    }

    fn check_limits(&self, key: &str, listener: &crate::Listener, reader: &mut Reader<'_>) {
        let limits = &listener.limits;
        // The key that was written: the listener's own, or that of all.
        let at = |reader: &Reader<'_>, section: &str, name: &str, all: &str| {
            let own = format!("{key}.{section}.{name}");
            if reader.places.contains_key(&own) { own } else { format!("{all}.{name}") }
        };
        // A large message may lie in many segments, but it must leave room for others.
        let room = self
            .journal
            .segment_size
            .saturating_mul(self.journal.segments_max.into())
            .min(self.journal.disk_max);
        if limits.message_size_max > room / 4 {
            let (size, room) = (size_text(limits.message_size_max), size_text(room));
            let problem = format!("a message of {size} is too large for a journal of {room}");
            let remedy = "at most a quarter of `journal.segment-size` times `journal.segments-max`";
            reader.conflict(&at(reader, "limits", "message-size-max", "limits"), problem, remedy);
        }
        if limits.header_size_max > limits.message_size_max {
            let remedy = "at most `message-size-max`";
            let key = at(reader, "limits", "header-size-max", "limits");
            reader.conflict(&key, "more than a whole message".into(), remedy);
        }
        if limits.command_line_max > self.buffers.large {
            let key = at(reader, "limits", "command-line-max", "limits");
            reader.conflict(&key, "a command would not fit a buffer".into(), "at most `buffers.large`");
        }
        let timeouts = &listener.timeouts;
        if timeouts.session < timeouts.command.max(timeouts.data_block) {
            let key = at(reader, "timeouts", "session", "timeouts.inbound");
            let problem = "shorter than the wait for one command or block of data".into();
            reader.conflict(&key, problem, "at least `command` and `data-block`");
        }
    }

    fn check_certificates(&self, reader: &mut Reader<'_>) {
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

    fn check_relay(&self, reader: &mut Reader<'_>) {
        for net in self.relay.networks.iter().filter(|net| net.prefix_len() == 0) {
            let problem = format!("{net} is everybody: this is an open relay, and others will block it");
            reader.conflict("relay.networks", problem, "name the networks of your own clients");
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
                    reader.conflict(&format!("{key}.domains"), problem, "each pattern belongs to one route");
                }
            }
            match route.via {
                Via::Hop if route.hosts.is_empty() => {
                    reader.missing(
                        &key,
                        "hosts = [\"relay.example.org:25\"]",
                        "via = \"hop\" needs next hops",
                    );
                }
                Via::Mx | Via::Discard | Via::Hold if !route.hosts.is_empty() => {
                    let problem = format!("hosts are for via = \"hop\", this is via = \"{}\"", route.via);
                    reader.conflict(&format!("{key}.hosts"), problem, "change `via`, or leave `hosts` out");
                }
                Via::Hop | Via::Mx | Via::Discard | Via::Hold => {}
            }
        }
    }

    fn check_times(&self, reader: &mut Reader<'_>) {
        let (queue, dns) = (&self.queue, &self.dns);
        if queue.retry.is_empty() {
            reader.missing("queue.retry", "retry = [\"5m\"]", "at least the first wait");
        }
        for wait in queue.retry.iter().filter(|wait| **wait > queue.retry_max) {
            let problem = format!("{} is longer than retry-max, {}", Span(*wait), Span(queue.retry_max));
            reader.conflict("queue.retry", problem, "raise `queue.retry-max`, or shorten it");
        }
        if queue.retry_max > queue.give_up {
            let remedy = "at most `queue.give-up`";
            reader.conflict("queue.retry-max", "longer than a message may live".into(), remedy);
        }
        if queue.bounce_give_up > queue.give_up {
            let remedy = "at most `queue.give-up`";
            reader.conflict("queue.bounce-give-up", "longer than for other mail".into(), remedy);
        }
        if queue.delay_warning.is_some_and(|delay| delay >= queue.give_up) {
            let remedy = "less than `queue.give-up`, or \"\" for never";
            reader.conflict("queue.delay-warning", "the message has been returned by then".into(), remedy);
        }
        if queue.destination_retry_min > queue.destination_retry_max {
            let remedy = "at most `queue.destination-retry-max`";
            reader.conflict("queue.destination-retry-min", "longer than the longest".into(), remedy);
        }
        if dns.ttl_min > dns.ttl_max {
            reader.conflict("dns.ttl-min", "more than `dns.ttl-max`".into(), "at most as long");
        }
        for server in dns.servers.iter().filter(|server| server.port() == 0) {
            reader.conflict("dns.servers", format!("{server}: port 0 cannot be asked"), "DNS has port 53");
        }
    }
}

impl Reader<'_> {
    fn conflict(&mut self, key: &str, problem: String, remedy: &str) {
        self.push(key, Problem::Conflict(problem), remedy);
    }

    fn missing(&mut self, key: &str, expected: &str, remedy: &str) {
        self.push(key, Problem::Missing { expected: format!("`{expected}`") }, remedy);
    }

    fn push(&mut self, key: &str, problem: Problem, remedy: &str) {
        let place = self.places.get(key).cloned();
        self.errors.push(ConfigError { place, key: key.into(), problem, remedy: remedy.into() });
    }
}
