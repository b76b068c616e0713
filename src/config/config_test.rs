//! The whole way: files in, values or mistakes out, and files out again.

use std::{fs, time::Duration};

use mail::Domain;

use super::*;
use crate::schema::{Entry, Key, Section, Shape};

const LEAST: &str = "[[listener]]\nname = \"a\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n";

fn source(file: &str, text: &str) -> Source {
    Source { file: file.into(), text: text.into() }
}

fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::from_sources(&[source("c.toml", text)])
}

fn options() -> ExampleOptions {
    ExampleOptions {
        by_root: false,
        cpus: 2,
        hostname: Domain::parse("mx.example.org").unwrap(),
        certificate: "tls/cert.pem".into(),
        key: "tls/key.pem".into(),
        data_directory: "data".into(),
    }
}

/// What is commented out says the same as what is not there.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let key = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        key.unwrap_or(line).to_owned() + "\n"
    });
    lines.collect()
}

#[test]
fn the_example_says_what_it_means() {
    let text = Config::example(&options());
    let config = parse(&text).unwrap();
    assert_eq!(config.hostname.as_str(), "mx.example.org");
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[1].address[0].to_string(), "0.0.0.0:2465");
    assert_eq!(config.routes[0].via, Via::Mx);
    assert_eq!(config.relay, Relay::default());
    let again = parse(&config.to_toml()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn what_is_commented_out_holds_anyway() {
    let text = Config::example(&options());
    let config = parse(&text).unwrap();
    let mut all = parse(&uncommented(&text)).unwrap();
    assert_eq!(all.domains.pop(), Some(MailDomain::sample()));
    assert_eq!(all.api_keys.pop(), Some(ApiKey::sample()));
    assert_eq!(all.etrn.pop(), Some(Etrn::sample()));
    assert_eq!(all.sites.remove(0), Site::sample());
    assert_eq!(all.tenants.pop(), Some(Tenant::sample()));
    assert_eq!(all.campaigns.pop(), Some(crate::Campaign::sample()));
    assert_eq!(all.dkim.pop(), Some(crate::Dkim::sample()));
    assert_eq!(all.dns_providers.pop(), Some(crate::DnsProvider::sample()));
    assert_eq!(all.sources.pop(), Some(EgressSource::sample()));
    assert_eq!(all.pools.pop(), Some(Pool::sample()));
    assert_eq!(all.warm_ups.pop(), Some(WarmUp::sample()));
    assert_eq!(all.dnsbls.pop(), Some(Dnsbl::sample()));
    assert_eq!(all.dns_lists.pop(), Some(crate::DnsList::sample()));
    assert_eq!(all.reply_rules.pop(), Some(ReplyRule::sample()));
    assert_eq!(all.credentials.pop(), Some(Credential::sample()));
    assert_eq!(all.retries.pop(), Some(Retry::sample()));
    assert_eq!(all.programs.pop(), Some(crate::Program::sample()));
    assert_eq!(all.author_rules.pop(), Some(crate::AuthorRule::sample()));
    assert_eq!(all.endpoints.pop(), Some(crate::Endpoint::sample()));
    assert_eq!(all, config);
}

#[test]
fn providers_are_known_and_a_rule_of_the_same_name_lies_over_ours() {
    let site = |text: &str, name: &str| {
        let config = parse(&format!("{text}\n{LEAST}")).unwrap();
        let found = config.sites.iter().position(|site| site.name == name);
        (config.sites.len(), found, found.map(|place| config.sites[place].clone()))
    };
    let (count, _, google) = site("", "google");
    let google = google.unwrap();
    let text = "[[site]]\nname = \"mine\"\nhosts = [\"*.mine.example\"]\n[[site]]\nname = \"Google\"\nmessage-rate = \"5/m\"";
    let (more, place, changed) = site(text, "Google");
    let per = Duration::from_secs(60);
    let message_rate = Some(Rate { count: 5, per });
    // The operator's come first, in the operator's order.
    assert_eq!((more, place), (count + 1, Some(1)));
    assert_eq!(changed, Some(Site { name: "Google".into(), message_rate, ..google }));
    let none = format!("{text}\nhosts = [\"*.google.com\"]\n[queue]\nprovider-rules = false");
    assert_eq!(site(&none, "Google").0, 2);
    for rule in parse(LEAST).unwrap().sites {
        assert!(!rule.hosts.is_empty() && rule.connections_max.is_some(), "{}", rule.name);
    }
    check(
        "[[site]]\nname = \"a.b\"\nhosts = [\"*\"]\nconnection-rate = \"5\"",
        &[
            "4:19: site.a.b.connection-rate: expected a rate such as \"10/s\", \"100/m\", \"1000/h\" or \"5000/d\", found \"5\"; say in which time: \"5/m\"",
        ],
    );
    check(
        "[[site]]\nname = \"a.b\"",
        &[
            "1:1: site.a.b: missing, expected `hosts = [\"*.mx.example.org\"]`; say which mail hosts are this site's",
            "2:1: site.a.b.name: a site's name has none of . , ; > +, which names of other sites have; name it by one word",
        ],
    );
}

#[test]
fn every_key_stands_in_the_example_and_is_explained() {
    fn walk(path: &str, keys: &[Key], text: &str) {
        for key in keys {
            let path = format!("{path}.{}", key.name);
            assert!(!key.doc.concat().trim().is_empty(), "{path} is not explained");
            match &key.shape {
                Shape::Value { default, .. } => {
                    assert!(!default.is_empty(), "{path}");
                    assert!(text.contains(&format!("{} = ", key.name)), "{path} is not in the example");
                }
                Shape::Section { keys, .. } if path.starts_with(".listener.") => {
                    assert!(!keys.is_empty(), "{path}");
                }
                Shape::Section { keys, .. } => walk(&path, keys, text),
                Shape::Entries { sample, .. } => walk(&path, sample, text),
            }
        }
    }
    walk("", &Config::default().describe(), &Config::example(&options()));
}

#[test]
fn any_configuration_survives_being_written() {
    let mut config = parse(LEAST).unwrap();
    config.cores =
        Cores { count: CoreCount::Count(2), spare: 1, pin: true, cpus: vec![3, 1], balance: false };
    config.limits.message_size_max = 1 << 20;
    config.limits.errors_max = 7;
    config.listeners[0].limits = config.limits.clone();
    config.listeners[0].limits.errors_max = Limits::default().errors_max;
    config.listeners[0].bare_line_ends = Tolerance::Accept;
    config.listeners.push(Listener {
        name: "other \"one\"".into(),
        address: vec![
            "[::1]:26".parse().map(ListenAddress::Tcp).unwrap(),
            ListenAddress::Unix("/run/s".into()),
            ListenAddress::Systemd("s".into()),
        ],
        limits: config.limits.clone(),
        tls: ListenerTls::None,
        ..Listener::default()
    });
    config.listeners[1].timeouts.command = Duration::from_millis(1_500);
    config.domains.push(MailDomain {
        name: Domain::parse("[192.0.2.1]").unwrap(),
        kind: DomainKind::Local,
        recipients: vec!["ann".into(), "Bob.B".into()],
        verify: Some("127.0.0.1:10025".parse().unwrap()),
        subaddress: Some("+".into()),
        reports: Tolerance::Refuse,
    });
    config.routes.push(Route {
        name: "r".into(),
        domains: vec![DomainPattern::Below(Domain::parse("example.org").unwrap()), DomainPattern::Any],
        via: Via::Hop,
        hosts: ["relay.example", "relay.example:2525", "[2001:db8::1]:24", "192.0.2.7"]
            .map(|hop| notation::Spelled::parse(hop).unwrap())
            .to_vec(),
        chunking: false,
        ..Route::default()
    });
    config.reply_rules.push(ReplyRule {
        statuses: vec!["5.7.*".parse().unwrap()],
        stages: vec![ReplyStage::Rcpt, ReplyStage::Local],
        action: ReplyAction::Suspend,
        example: "550 \"no\"".into(),
        ..ReplyRule::sample()
    });
    config.dns.servers = vec!["127.0.0.1:5353".parse().unwrap()];
    config.dns.hosts = vec![(Domain::parse("mx.test").unwrap(), vec!["127.0.0.1".parse().unwrap()])];
    config.log.output = Output::File("ringpost.log".into());
    config.queue.delay_warning = None;
    config.user = Some("mail".into());
    config.timeouts.outbound.final_dot = Duration::from_secs(61);
    assert_eq!(parse(&config.to_toml()), Ok(config));
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = Config::reference();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &page).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == page, "docs/configuration.md is old: UPDATE_GOLDEN=1 cargo test -p config");
}

/// The file is the least there is and these lines; the messages come without the name of the file.
fn check(lines: &str, expected: &[&str]) {
    let text = format!("{lines}\n{LEAST}");
    let errors = parse(&text).map_or_else(|errors| errors, |_| Vec::new());
    let errors: Vec<_> = errors.iter().map(|error| error.to_string().replace("c.toml:", "")).collect();
    assert_eq!(errors, expected, "{lines}");
}

#[test]
fn logins_that_cannot_be_or_should_not() {
    let login = |credential: &str, route: &str| {
        format!(
            "[[credential]]\nname = \"c\"\n{credential}\n[[route]]\nname = \"r\"\ndomains = [\"*\"]\n{route}\n\
             credential = \"C\""
        )
    };
    let (good, hop) = ("user = \"u\"\npassword-file = \"p\"", "via = \"hop\"\nhosts = [\"mx.example\"]");
    let verified = format!("{hop}\ntls = \"verified\"");
    check(&login(good, &verified), &[]);
    check(&login(&format!("{good}\nsecrecy = \"tls\""), &format!("{hop}\ntls = \"required\"")), &[]);
    check(&login(&format!("{good}\nsecrecy = \"none\""), &format!("{hop}\ntls = \"none\"")), &[]);
    let check_words = |text: &str, words: &str| {
        let errors = parse(&format!("{text}\n{LEAST}")).unwrap_err();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(words), "{text}: {errors:?}");
    };
    check_words(&login(good, &format!("{hop}\ntls = \"required\"")), "is too little for a login");
    check_words(&login(good, &format!("{hop}\ntls = \"opportunistic\"")), "set tls = \"verified\"");
    check_words(&login(good, "tls = \"verified\""), "via = \"mx\"");
    check_words(&login(good, &verified).replace("\"C\"", "\"d\""), "no `[[credential]]` with the name d");
    check_words(&login("user = \"u\"", &verified), "say where the secret is");
    check_words(&login("password-file = \"p\"", &verified), "say as whom");
    check_words(&login(&format!("{good}\ntoken-file = \"t\""), &verified), "which of the two?");
    check_words(
        &login(&format!("{good}\nmechanisms = [\"xoauth2\"]"), &verified),
        "none of these takes a password",
    );
    let token = "user = \"u\"\ntoken-file = \"t\"\nmechanisms = [\"plain\"]";
    check_words(&login(token, &verified), "none of these takes a token");
}

#[test]
fn bulk_mail_that_is_looked_at() {
    let tenant = |check: &str, more: &str| {
        let networks = "networks = [\"192.0.2.0/24\"]";
        parse(&format!(
            "[[tenant]]\nname = \"shop\"\n{networks}\nunsubscribe-check = \"{check}\"\n{more}\n{LEAST}"
        ))
    };
    let wrong = |check: &str, more: &str, words: &str| {
        let errors = tenant(check, more).unwrap_err();
        assert!(errors.len() == 1 && errors[0].to_string().contains(words), "{errors:?}");
    };
    let key = "[[dkim]]\nname = \"k\"\ndomain = \"shop.dev\"\nselector = \"s\"\nkey = \"k.pem\"";
    assert!(tenant("log", "").is_ok() && tenant("refuse", key).is_ok());
    wrong("refuse", "", "all of its bulk mail would be refused");
    wrong("log", "[unsubscribe]\nbulk-marks = []", "nothing says which mail that is");
    wrong("loud", "", "unsubscribe-check");
}

#[test]
fn mistakes_say_where_and_what_to_do() {
    check("", &[]);
    check(
        "hostnam = \"x\"\n[cores]\ncuont = 2\n[jornal]",
        &[
            "3:1: cores.cuont: unknown key; did you mean `count`?",
            "1:1: hostnam: unknown key; did you mean `hostname`?",
            "4:2: jornal: unknown key; did you mean `journal`?",
        ],
    );
    check("[shutdown]\nwhenever = 1", &["2:1: shutdown.whenever: unknown key; known here: grace"]);
    check(
        "[shutdown]\ngrace = 30",
        &[
            "2:9: shutdown.grace: expected a length of time from 0s to 1h, such as \"30s\", found the number 30; \
           write \"30s\" for seconds",
        ],
    );
    check(
        "[shutdown]\n  grace = \"30 sec\"",
        &[
            "2:11: shutdown.grace: expected a length of time from 0s to 1h, such as \"30s\", found \"30 sec\"; \
           write \"30s\"; the units are ms, s, m, h and d, the larger before the smaller, and no fractions",
        ],
    );
    check(
        "[shutdown]\ngrace = \"2h\"",
        &["2:9: shutdown.grace: expected a length of time from 0s to 1h, such as \"30s\", found \"2h\""],
    );
    check(
        "[limits]\nmessage-size-max = \"25MB\"",
        &[
            "2:20: limits.message-size-max: expected a size from 64KiB to 4GiB, such as \"1MiB\", found \"25MB\"; \
           write \"25MiB\"; the units are B, KiB, MiB, GiB and TiB (1KiB is 1024B), and no fractions",
        ],
    );
    check(
        "[limits]\nrecipients-max = \"100\"",
        &["2:18: limits.recipients-max: expected a whole number from 100 to 1000000, found \"100\"; \
           write the number without quotes"],
    );
    check(
        "[limits]\nrecipients-max = -1",
        &["2:18: limits.recipients-max: expected a whole number from 100 to 1000000, found the number -1"],
    );
    check(
        "[cores]\ncount = 0",
        &["2:9: cores.count: expected a whole number from 1 to 4096, or \"all\", found the number 0"],
    );
    check(
        "[cores]\npin = \"yes\"",
        &["2:7: cores.pin: expected true or false, found \"yes\"; write it without quotes"],
    );
    check(
        "[log]\nlevel = \"loud\"",
        &[
            "2:9: log.level: expected \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", found \"loud\"",
        ],
    );
    check(
        "[log]\nlevel = \"Warning\"\nformat = \"JSON\"",
        &[
            "3:10: log.format: expected \"text\" or \"json\", found \"JSON\"; write \"json\"",
            "2:9: log.level: expected \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", found \"Warning\"",
        ],
    );
    check(
        "[http]\naddress = [\"::1:8080\", \"::1\", \"127.0.0.1:65536\", \"localhost:80\"]",
        &[
            "2:12: http.address: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \
         found \"::1:8080\"; with a port, an IPv6 address is in brackets: \"[::1]:8080\"",
            "2:24: http.address: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \
         found \"::1\"; the port is missing: \"[::1]:PORT\"",
            "2:31: http.address: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \
         found \"127.0.0.1:65536\"; a port is a number up to 65535",
            "2:50: http.address: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \
         found \"localhost:80\"; names are not looked up here",
        ],
    );
    check(
        "cores = 2",
        &["1:9: cores: expected a section, found the number 2; write it as [name] on a line of its own"],
    );
    check(
        "[http]\naddress = [\"127.0.0.1\"]",
        &[
            "2:12: http.address: expected an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \
         found \"127.0.0.1\"; the port is missing",
        ],
    );
    check(
        "[relay]\nnetworks = [\"10.1.2.3/8\", \"fe80::/129\"]",
        &[
            "2:13: relay.networks: expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", \
         found \"10.1.2.3/8\"; write \"10.0.0.0/8\"",
            "2:27: relay.networks: expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", found \"fe80::/129\"",
        ],
    );
    check(
        "[dns.hosts]\n\"a b\" = []",
        &["2:1: dns.hosts.a b: expected a domain, found \"a b\"; the domain is malformed"],
    );
    check(
        "[http]\ntoken = \"short\"",
        &["2:9: http.token: expected a text of 16 to 256 visible ASCII characters, found \"short\"; \
         `openssl rand -hex 16` makes a good one"],
    );
}

#[test]
fn what_is_not_toml_is_found_and_mended() {
    check(
        "hostname = ",
        &["1:12: hostname: not TOML: string values must be quoted; write the value behind the equals sign"],
    );
    check(
        "[limits]\nmessage-size-max = 25MiB # enough\n",
        &["2:20: limits.message-size-max: not TOML: string values must be quoted; write \"25MiB\""],
    );
    check("hostname \"x\"", &["1:10: not TOML: key with no value; write key = value"]);
    check(
        "[limits]\nerrors-max = 5\n\nerrors-max = 6",
        &["4:1: limits.errors-max: written twice, first in line 2; keep one of the two"],
    );
    check(
        "[limits]\nerrors-max = 5\n[cores]\n[limits]\nreceived-max = 100",
        &["4:2: limits: written twice, first in line 1; keep one, and write all its keys below it"],
    );
    check(
        "limits.errors-max = 5\n[limits]\nreceived-max = 100",
        &["2:2: limits: written twice, first in line 1; keep one, and write all its keys below it"],
    );
    check(
        "[[route]]\nname = \"r\"\nvia = \"mx\"\n[[route]]\nname = \"s\"\nvia = \"mx\"\nvia = \"hop\"",
        &["7:1: route.via: written twice, first in line 6; keep one of the two"],
    );
}

#[test]
fn unknown_keys_are_known_elsewhere_or_near() {
    let limits = "there is a `header-size-max` in [limits] and in [listener.limits]";
    check("header-size-max = \"1MiB\"", &[&format!("1:1: header-size-max: unknown key; {limits}")]);
    check(
        "[queue]\nheader-size-max = \"1MiB\"",
        &[&format!("2:1: queue.header-size-max: unknown key; {limits}")],
    );
    check("[timeout.inbound]\ncommand = \"5m\"", &["1:2: timeout: unknown key; did you mean `timeouts`?"]);
    check(
        "[limits]\nhostname = \"mx.example.org\"",
        &["2:1: limits.hostname: unknown key; there is a `hostname` before the first section"],
    );
    check(
        "[limits]\nbacklog = 5",
        &["2:1: limits.backlog: unknown key; there is a `backlog` in a [[listener]]"],
    );
    check(
        "[Limits]\n[limits]\nErrors_Max = 5",
        &[
            "1:2: Limits: unknown key; did you mean `limits`?",
            "3:1: limits.Errors_Max: unknown key; did you mean `errors-max`?",
        ],
    );
    check("[index]\ncahce = 5", &["2:1: index.cahce: unknown key; did you mean `cache`?"]);
}

#[test]
fn contradictions_are_told_where_they_were_written() {
    check("[ring]\ndepth = 1000", &["2:1: ring.depth: 1000 is not a power of two; write 512 or 1024"]);
    check(
        "[relay]\nnetworks = [\"0.0.0.0/0\"]",
        &["2:1: relay.networks: 0.0.0.0/0 is everybody: this is an open relay, and others will block it; \
         name the networks of your own clients"],
    );
    check(
        "[journal]\nsegments-max = 8\nsegment-size = \"16MiB\"",
        &[
            "2:1: journal.segments-max: a message of 50MiB (message-size-max) is too large for a journal of 128MiB \
         (segments-max times segment-size); at most a quarter, \"32MiB\", or a larger journal",
        ],
    );
    check(
        "[journal]\ndisk-max = \"128MiB\"\nsegment-size = \"16MiB\"\n[limits]\nmessage-size-max = \"40MiB\"",
        &[
            "5:1: limits.message-size-max: a message of 40MiB (message-size-max) is too large for a journal of 128MiB \
         (disk-max); at most a quarter, \"32MiB\", or a larger journal",
        ],
    );
    check(
        "[limits]\nrecipients-max = 20000",
        &[
            "2:1: limits.recipients-max: a message to 20000 recipients (recipients-max) is more commands than 10000 \
         (commands-max); `commands-max` is at least 20010, or lower `recipients-max`",
        ],
    );
    check(
        "[cores]\ncount = 3\n[journal]\ndisk-max = \"1GiB\"",
        &["4:1: journal.disk-max: 1GiB is too little: each of 3 cores needs 8 segments of 64MiB; \
         `journal.disk-max` is at least \"1536MiB\"; or lower `journal.segment-size`"],
    );
    check(
        "[cores]\ncount = 3\ncpus = [0, 1, 1]\npin = false",
        &[
            "3:1: cores.cpus: CPU 1 is named twice; name each once",
            "3:1: cores.cpus: CPUs to bind to, and no binding; leave `cores.cpus` out, or set `cores.pin = true`",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\naddress = [\"0.0.0.0:25\", \"127.0.0.1:8080\"]",
        &[
            "3:1: listener.b.address: 127.0.0.1:8080 is already taken by http; give it another address or port",
            "1:1: listener.b.tls: tls = \"starttls\", and there is no certificate; \
         add a [[certificate]], or set tls = \"none\"",
        ],
    );
    check(
        "[[listener]]\nname = \"A\"\ntls = \"none\"",
        &[
            "4:1: listener.a: there are two of this name in one file; give one of them another name",
            "listener.a.address: missing",
        ][..1],
    );
    check(
        "[[listener]]\ntls = \"none\"",
        &[
            "1:1: listener: missing, expected name = \"…\"; each has a name, by which later files and messages find it",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\ntls = \"none\"\naddress = [\"0.0.0.0:0\"]\nlimits.command-line-max = \"64KiB\"\n[buffers]\nlarge = \"32KiB\"",
        &[
            "5:8: listener.b.limits.command-line-max: a command of 64KiB (command-line-max) would not fit a buffer of 32KiB \
             (buffers.large); `command-line-max` is at most `buffers.large`",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\ntls = \"none\"\naddress = [\"0.0.0.0:0\"]\nproxy-networks = [\"::/0\"]\n\
         limits.proxy-header-max = \"64KiB\"\n[buffers]\nlarge = \"32KiB\"",
        &[
            "5:1: listener.b.proxy-networks: ::/0 is everybody: any client could say that it is another; \
             name the networks of your proxies",
            "6:8: listener.b.limits.proxy-header-max: a header of a proxy of 64KiB (proxy-header-max) would not fit a \
             buffer of 32KiB (buffers.large); `proxy-header-max` is at most `buffers.large`",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\nkind = \"lmtp\"\ntls = \"none\"\naddress = [\"0.0.0.0:25\"]\n\
         extensions.pipelining = false",
        &[
            "5:1: listener.b.address: 0.0.0.0:25 is the port of SMTP, which LMTP must not be spoken on; give it another \
             port, such as 24, or a Unix socket",
            "6:12: listener.b.extensions.pipelining: LMTP is not without PIPELINING; leave it on, or make it another kind \
             of listener",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\ntls = \"none\"\naddress = [\"0.0.0.0:0\"]\nclient-certificate = \"request\"",
        &[
            "5:1: listener.b.client-certificate: certificates are shown in TLS, and there is none; set `tls`, or ask for no \
             certificate",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\ntls = \"starttls\"\naddress = [\"0.0.0.0:0\"]\nclient-certificate = \"require\"\n\
         [[certificate]]\nname = \"c\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"",
        &[
            "5:1: listener.b.client-certificate: who does not begin TLS comes in without a certificate; set tls = \
             \"required\" or \"implicit\"",
            "5:1: listener.b.client-certificate: no certificate is a credential: nobody could come in; set \
             `relay.certificates` or `relay.authorities`",
        ],
    );
    check(
        "[tls]\nmin-version = \"1.3\"\nsuites = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]\ngroups = []",
        &[
            "4:1: tls.groups: without one there is no TLS; name one, or leave the key out",
            "3:1: tls.suites: none of the suites is for TLS 1.3; add \"TLS_AES_128_GCM_SHA256\", or set `tls.min-version \
             = \"1.2\"`",
        ],
    );
    check(
        "[[listener]]\nname = \"b\"\ntls = \"none\"\naddress = [\"0.0.0.0:0\"]\nunix-mode = \"0600\"\nunix-group = \"mail\"",
        &[
            "5:1: listener.b.unix-mode: the listener has no Unix socket; add an address such as \
             \"unix:/run/ringpost/smtp\", or leave it out",
            "6:1: listener.b.unix-group: the listener has no Unix socket; add an address such as \
             \"unix:/run/ringpost/smtp\", or leave it out",
        ],
    );
    for mode in ["0999", "600a", "07777", "66", "+600", ""] {
        check(
            &format!(
                "[[listener]]\nname = \"b\"\ntls = \"none\"\naddress = [\"unix:/run/b\"]\nunix-mode = \"{mode}\""
            ),
            &[&format!(
                "5:13: listener.b.unix-mode: expected permissions such as \"0660\", found \"{mode}\"; three digits from 0 \
                 to 7: for the owner, the group and others"
            )],
        );
    }
    check(
        "[relay]\ncertificates = [\"sha256:12\"]",
        &["2:17: relay.certificates: expected \"sha256:\" and 64 hexadecimal digits, found \"sha256:12\"; \
             `openssl x509 -noout -fingerprint -sha256 -in cert.pem` prints it"],
    );
    check(
        "[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\n[[route]]\nname = \"s\"\ndomains = [\"*\"]\nhosts = [\"a\"]",
        &[
            "1:1: route.r: missing, expected `hosts = [\"relay.example.org:25\"]`; via = \"hop\" needs next hops",
            "7:1: route.s.domains: \"*\" is already in route.r; each pattern belongs to one route",
            "8:1: route.s.hosts: hosts are for via = \"hop\", this is via = \"mx\"; change `via`, or leave `hosts` out",
        ],
    );
    check(
        "[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"lmtp\"\nhosts = [\"unix:/run/lmtp\", \"192.0.2.1\"]\ntls = \"verified\"",
        &[
            "5:1: route.r.hosts: 192.0.2.1:25 is the port of SMTP, which LMTP must not be spoken on; name its port, such as 24, \
             or a Unix socket",
            "6:1: route.r.tls: there is no TLS at unix:/run/lmtp, and tls = \"verified\" wants it; set tls = \
             \"opportunistic\" or \"none\": what goes there does not leave the host",
        ],
    );
    check(
        "[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"unix:run;x\"]",
        &[
            "5:10: route.r.hosts: expected a host such as \"relay.example.org\", \"relay.example.org:2525\", \"192.0.2.1:25\", \
             \"[2001:db8::1]:25\" or \"unix:/run/dovecot/lmtp\", found \"unix:run;x\"; write the whole path of the socket, of \
             letters, digits, / . _ - and @",
        ],
    );
    check(
        "[[route]]\nname = \"r\"\ndomains = [\"a.test\"]\nvia = \"pipe\"\n[[route]]\nname = \"s\"\ndomains = [\"b.test\"]\n\
         via = \"http\"\nendpoint = \"none\"\n[[route]]\nname = \"t\"\ndomains = [\"c.test\"]\nprogram = \"p\"\n[[program]]\n\
         name = \"p\"\ncommand = [\"/bin/true\"]",
        &[
            "1:1: route.r: missing, expected `program = \"name\"`; via = \"pipe\" needs one; name a `[[program]]`",
            "9:1: route.s.endpoint: there is no `[[endpoint]]` with the name none; name one that there is",
            "13:1: route.t.program: this is for via = \"pipe\", and not for via = \"mx\"; change `via`, or leave it out",
        ],
    );
    check(
        "[[program]]\nname = \"a b\"\ncommand = [\"true\"]\n[[program]]\nname = \"c\"\ngroup = \"g\"\nenvironment = [\"A-B=c\"]\n\
         directory = \"x\"\n[[program]]\nname = \"d\"\ncommand = [\"/bin/x\", \"{user}\", \"-d{recipients}\", \"{domain}\"]\nrecipients-max = 5",
        &[
            "2:1: program.a b.name: \"a b\" is no name of letters, digits, - and _, 64 at most; name it by one such word",
            "3:1: program.a b.command: \"true\" is no path from the root on; write the whole path of the program",
            "4:1: program.c: missing, expected `command = [\"/usr/bin/program\"]`; say what is to be run",
            "8:1: program.c.directory: \"x\" is no path from the root on; write the whole path of a directory",
            "4:1: program.c: missing, expected `user = \"vmail\"`; a group goes with a user",
            "7:1: program.c.environment: \"A-B=c\" is no variable; write \"NAME=value\"",
            "11:1: program.d.command: {user} stands for nothing; there are {sender}, {recipient}, {recipients}, {local-part}, \
             {domain} and {id}",
            "11:1: program.d.command: {recipients} is an argument by itself, which becomes several; let it stand alone, or \
             write {recipient}",
            "11:1: program.d.command: \"{domain}\" is for one recipient, and there may be 5; set recipients-max = 1, or use \
             {recipients}",
        ],
    );
    check(
        "[[endpoint]]\nname = \"f\"\nurl = \"ftp://x/\"",
        &[
            "3:7: endpoint.f.url: expected a URL such as \"https://intake.example.org/mail\" or \"http://127.0.0.1:8080/mail\", \
             found \"ftp://x/\"; it begins with https:// or http://",
        ],
    );
    check(
        "[[endpoint]]\nname = \"e\"\n[[endpoint]]\nname = \"g\"\nurl = \"http://in.test/\"\n\
         credential = \"c\"\nheaders = [\"Host: x\", \"A: b\"]\n[[credential]]\nname = \"c\"\nuser = \"u\"\npassword-file = \"p\"",
        &[
            "1:1: endpoint.e: missing, expected `url = \"https://intake.example.org/mail\"`; say where it is",
            "7:1: endpoint.g.headers: \"Host: x\" is no field of a request that may be set here; write \"Name: value\", with a \
             name that is not one of ours",
            "5:1: endpoint.g.url: a secret would be sent in clear; use https://, or log in nowhere",
        ],
    );
    check(
        "[[certificate]]\nname = \"c\"\nkey = \"k\"",
        &[
            "1:1: certificate.c: missing, expected `certificate = \"cert.pem\"`; name the file of the certificate",
        ],
    );
    check(
        "[queue]\nretry = [\"1m\", \"6h\"]\ndelay-warning = \"5d\"",
        &[
            "2:1: queue.retry: 6h is longer than retry-max, 3h; raise `queue.retry-max`, or shorten it",
            "3:1: queue.delay-warning: a warning after 5d, and after 5d (give-up) the message has been returned; \
             `queue.delay-warning` is less than `queue.give-up`, or \"\" for never",
        ],
    );
    check(
        "[buffers]\nbudget = \"8MiB\"\nlarge = \"1MiB\"",
        &[
            "2:1: buffers.budget: a budget of 8MiB is too little for messages of 1MiB (journal.spill) in buffers of 1MiB; \
             `buffers.budget` is at least \"18MiB\"",
        ],
    );
    // What two listeners inherit is told once, at the key that somebody wrote.
    let second = "[[listener]]\nname = \"b\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n";
    check(
        &format!("[limits]\ncommand-line-max = \"64KiB\"\n[buffers]\nlarge = \"32KiB\"\n{second}"),
        &[
            "2:1: limits.command-line-max: a command of 64KiB (command-line-max) would not fit a buffer of 32KiB \
         (buffers.large); `command-line-max` is at most `buffers.large`",
        ],
    );
    check(
        &format!("{second}[timeouts.inbound]\nsession = \"1m\""),
        &[
            "6:1: timeouts.inbound.session: a wait of 5m (command) is longer than a whole session of 1m (session); \
         raise `session`, or lower `command`",
            "6:1: timeouts.inbound.session: a wait of 3m (data-block) is longer than a whole session of 1m (session); \
         raise `session`, or lower `data-block`",
        ],
    );
    check(
        "[buffers]\nfree = \"200MiB\"\n[queue]\ngive-up = \"1h\"\nretry = [\"1m\"]\ndelay-warning = \"\"",
        &[
            "2:1: buffers.free: 200MiB cannot be kept of a budget of 128MiB; `buffers.free` is at most `buffers.budget`",
            "4:1: queue.give-up: 3h (queue.retry-max) is longer than 1h (queue.give-up); \
         `queue.retry-max` is at most `queue.give-up`",
            "4:1: queue.give-up: 1d (queue.bounce-give-up) is longer than 1h (queue.give-up); \
         `queue.bounce-give-up` is at most `queue.give-up`",
        ],
    );
    let none = parse("").unwrap_err();
    assert_eq!(
        none[0].to_string(),
        "listener: missing, expected `[[listener]]`; without one nobody can bring mail"
    );
}

#[test]
fn later_files_override_extend_and_change() {
    let first = "hostname = \"a.example\"\n[limits]\nerrors-max = 5\n[[listener]]\nname = \"smtp\"\n\
                 address = [\"127.0.0.1:25\"]\ntls = \"none\"\nlimits.errors-max = 6\n";
    let second = "hostname = \"b.example\"\n[[listener]]\nname = \"SMTP\"\nkind = \"submission\"\n\
                  limits.recipients-max = 200\n[[listener]]\nname = \"more\"\naddress = [\"127.0.0.1:26\"]\n\
                  tls = \"none\"\n";
    let third = "[limits]\nerrors-max = 9\nreceived-max = 150\n";
    let sources = [source("a", first), source("b", second), source("c", third)];
    let config = Config::from_sources(&sources).unwrap();
    assert_eq!(config.hostname.as_str(), "b.example");
    let [smtp, more] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!((smtp.kind, smtp.tls, smtp.address.len()), (ListenerKind::Submission, ListenerTls::None, 1));
    let limits = (smtp.limits.errors_max, smtp.limits.recipients_max, smtp.limits.received_max);
    assert_eq!(limits, (6, 200, 150), "what a listener says holds, in whatever file the rest is said");
    assert_eq!((more.limits.errors_max, more.limits.recipients_max), (9, 1000));
}

#[test]
fn a_list_that_replaces_another_is_warned_of() {
    let check = |files: &[&str], expected: &[&str]| {
        let named = files.iter().enumerate().map(|(number, text)| source(&format!("{number}.toml"), text));
        let loaded = Loaded::from_sources(&named.collect::<Vec<_>>()).unwrap();
        let usual = loaded.config.warnings(2).len();
        let warnings = loaded.warnings(2).into_iter().skip(usual);
        let said: Vec<_> = warnings
            .map(|warning| format!("{}: {}", loaded.places.name(&warning.key), warning.text))
            .collect();
        let (advice, heads) = (
            ": a later file does not add to a list; write all of it at one of the two places",
            said.iter().map(|said| said.split(" in it").next().unwrap()).collect::<Vec<_>>(),
        );
        assert_eq!(heads, expected, "{files:?}");
        assert!(said.iter().all(|said| said.ends_with(advice)), "{said:?}");
    };
    let first = format!("clients.deny = [\"192.0.2.0/24\"]\nclients.allow = [\"192.0.2.1\"]\n{LEAST}");
    check(&[&first], &[]);
    check(&[&first, "clients.connections-max = 9"], &[]);
    check(&[&first, "[clients]\ndeny = [\"192.0.2.0/24\", \"198.51.100.0/24\"]"], &[]);
    check(
        &[&first, "[clients]\ndeny = [\"198.51.100.0/24\"]\nallow = []"],
        &[
            "1.toml:3:1: clients.allow: replaces the list at 0.toml:2:9, and 192.0.2.1/32 is no longer",
            "1.toml:2:1: clients.deny: replaces the list at 0.toml:1:9, and 192.0.2.0/24 is no longer",
        ],
    );
    let senders = |domain: &str| format!("senders.deny = [\"{domain}\"]");
    check(
        &[LEAST, &senders("a.example"), &senders("b.example")],
        &["2.toml:1:9: senders.deny: replaces the list at 1.toml:1:9, and a.example is no longer"],
    );
}

#[test]
fn files_are_found_and_paths_begin_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringpost.toml");
    let missing = Config::load(&file).unwrap_err();
    assert!(missing[0].to_string().contains("cannot be read"), "{missing:?}");
    fs::write(&file, LEAST).unwrap();
    let drop_ins = folder.path().join("conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("20.toml"), "[shutdown]\ngrace = \"2s\"").unwrap();
    fs::write(drop_ins.join("10.toml"), "[shutdown]\ngrace = \"1s\"").unwrap();
    fs::write(drop_ins.join("30.toml.bak"), "nonsense").unwrap();
    fs::write(drop_ins.join(".40.toml"), "nonsense").unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.shutdown.grace, Duration::from_secs(2));
    assert_eq!(config.data_directory, folder.path().join("data"));
    fs::write(drop_ins.join("20.toml"), "[shutdown]\ngarce = \"2s\"").unwrap();
    let error = Config::load(&file).unwrap_err().remove(0);
    let place = Place { file: drop_ins.join("20.toml"), line: 2, column: 1 };
    assert_eq!((error.place, error.key.as_str()), (Some(place), "shutdown.garce"));
}

#[test]
fn the_data_directory_is_found_in_a_broken_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringpost.toml");
    let check = |main: &str, other: &str, expected: &str| {
        fs::write(&file, main).unwrap();
        fs::create_dir_all(folder.path().join("conf.d")).unwrap();
        fs::write(folder.path().join("conf.d/1.toml"), other).unwrap();
        assert_eq!(Config::data_directory(&file), Ok(folder.path().join(expected)), "{main} {other}");
    };
    check("", "", "data");
    check("nonsense = 1\ndata-directory = \"here\"\n[limits\n", "", "here");
    check("data-directory = \"here\"\n", "data-directory = \"/there\"\ndata-directory = 5", "/there");
    check("data-directory = \"here\"\n", "data-directory = 5", "here");
    check("data-directory = \"\"\n", "\u{0}", "data");
    fs::remove_file(&file).unwrap();
    assert!(Config::data_directory(&file).is_err());
}

#[test]
fn files_that_are_no_text_say_at_which_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringpost.toml");
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(&file, LEAST).unwrap();
    let drop_in = folder.path().join("conf.d/10.toml");
    let check = |bytes: &[u8], expected: &str| {
        fs::write(&drop_in, bytes).unwrap();
        let errors: Vec<_> = Config::load(&file).unwrap_err().iter().map(ToString::to_string).collect();
        let text = errors.join("\n").replace(&format!("{}:", drop_in.display()), "");
        assert_eq!(text, expected, "{}", bytes.escape_ascii());
    };
    check(
        b"# fine: \xc3\xa9\n# caf\xe9 \xc3\xa9\n",
        "2:6: byte 17 of the file is 0xE9, which is not UTF-8; \
         save it as UTF-8; from Latin-1, `iconv -f LATIN1 -t UTF-8` makes it so",
    );
    check(
        b"\xff\xfeh\0o\0",
        "1:1: byte 1 of the file is 0xFF, which is not UTF-8; this is UTF-16: save it as UTF-8",
    );
    check(
        b"# \xc3",
        "1:3: byte 3 of the file is 0xC3, which is not UTF-8; \
         save it as UTF-8; from Latin-1, `iconv -f LATIN1 -t UTF-8` makes it so",
    );
    // Windows' editors write a mark at the start and end lines with CR and LF.
    fs::write(&drop_in, b"\xef\xbb\xbfhostname = \"bom.example\"\r\n[shutdown]\r\ngrace = \"1s\"\r\n")
        .unwrap();
    assert_eq!(Config::load(&file).unwrap().hostname.as_str(), "bom.example");
    // One file that cannot be read does not hide what is wrong in the others, nor makes more of it.
    fs::write(&file, b"\xe9").unwrap();
    fs::write(&drop_in, "[limits]\nerrors-maxx = 1\n").unwrap();
    let errors = Config::load(&file).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(errors[1].key, "limits.errors-maxx");
    fs::write(&drop_in, "[shutdown]\ngrace = \"1s\"\n").unwrap();
    assert_eq!(Config::load(&file).unwrap_err().len(), 1);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(Config::load(&file).unwrap_err()[0].to_string().contains("name the file in it"));
}

#[test]
fn what_takes_a_restart_keeps_its_value_and_is_named() {
    let loaded = |text: &str| Loaded::from_sources(&[source("c.toml", text)]).unwrap();
    let started = loaded(LEAST);
    let change = |text: &str| loaded(&format!("{text}\n{LEAST}")).change(&started.config, 2);
    let check = |text: &str, pending: &[&str]| {
        let Change { config, pending: found } = change(text).unwrap();
        assert_eq!(found, pending, "{text}");
        (config, loaded(&format!("{text}\n{LEAST}")).config)
    };
    let (in_force, new) = check("[queue]\njitter = 3\n[dns]\ncache-size = \"1MiB\"", &[]);
    assert_eq!(in_force, new);
    let (in_force, new) = check(
        "hostname = \"b.example\"\n[index]\ncache = \"2MiB\"\n[journal]\nspill = \"2MiB\"\nready = 3",
        &["journal.ready", "index.cache"],
    );
    assert_eq!((in_force.index.cache, in_force.journal.ready), (16 << 20, 2));
    assert_eq!((in_force.hostname, in_force.journal.spill), (new.hostname, 2 << 20));
    // A listener comes and goes with its port; a route does not.
    let other = "[[listener]]\nname = \"b\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n\
                 [[route]]\nname = \"r\"\ndomains = [\"*\"]";
    let (in_force, new) = check(other, &["listener.b"]);
    assert_eq!((in_force.listeners, in_force.routes), (started.config.listeners.clone(), new.routes));
    let only = loaded(&LEAST.replace("\"a\"", "\"b\""));
    let Change { config, pending } = only.change(&started.config, 2).unwrap();
    assert_eq!(
        (pending, config.listeners),
        (vec!["listener.b".into(), "listener.a".into()], started.config.listeners.clone())
    );
    let moved = loaded(&LEAST.replace("127.0.0.1", "127.0.0.2").replace("tls", "backlog = 7\ntls"));
    let Change { config, pending } = moved.change(&started.config, 2).unwrap();
    assert_eq!(pending, ["listener.a.address", "listener.a.backlog"]);
    assert_eq!(config, started.config);
    // Good by itself, but not with what stays.
    let errors = change("[buffers]\nlarge = \"1MiB\"\n[limits]\ncommand-line-max = \"64KiB\"");
    assert!(errors.is_ok(), "{errors:?}");
    let errors = change("[buffers]\nbudget = \"1GiB\"\n[journal]\nspill = \"16MiB\"");
    assert!(errors.is_ok(), "{errors:?}");
    let errors =
        change("[buffers]\nbudget = \"1GiB\"\n[journal]\nsegment-size = \"512MiB\"\nspill = \"100MiB\"");
    assert_eq!(errors.unwrap_err()[0].key, "buffers.budget");
    let errors = change("[journal]\nsegment-size = \"16MiB\"\ndisk-max = \"512MiB\"");
    assert_eq!(errors.unwrap_err()[0].key, "journal.disk-max", "enough for 2 cores after a restart");
}

#[test]
fn cores_are_counted_with_what_is_left_free() {
    let cores = |count, spare| Cores { count, spare, ..Cores::default() };
    assert_eq!(cores(CoreCount::All, 0).shards(8), 8);
    assert_eq!(cores(CoreCount::All, 2).shards(8), 6);
    assert_eq!(cores(CoreCount::All, 9).shards(8), 1);
    assert_eq!(cores(CoreCount::Count(3), 2).shards(8), 3);
    let mut config = parse(LEAST).unwrap();
    config.cores.count = CoreCount::Count(9);
    let keys =
        |config: &Config| config.warnings(8).into_iter().map(|warning| warning.key).collect::<Vec<_>>();
    assert_eq!(keys(&config), ["hostname", "cores.count", "journal.shards", "route"]);
    config.journal.shards = 18;
    assert_eq!(keys(&config), ["hostname", "cores.count", "route"]);
    let loaded =
        Loaded::from_sources(&[source("c.toml", &format!("[journal]\ndisk-max = \"1GiB\"\n{LEAST}"))])
            .unwrap();
    assert_eq!(loaded.contradictions(2), []);
    let many: Vec<_> = loaded.contradictions(3).iter().map(ToString::to_string).collect();
    assert!(
        many[0].starts_with("c.toml:2:1: journal.disk-max: 1GiB is too little: each of 3 cores"),
        "{many:?}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let text = format!("[http]\ntoken = \"0123456789abcdef\"\n{LEAST}");
    let config = parse(&text).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert_eq!(config.http.token, Some(Secret::new("0123456789abcdef")));
}

#[test]
fn api_keys_are_checked() {
    let hash = format!("sha256:{}", "0aF".repeat(22).get(..64).unwrap());
    let key = |more: &str| format!("{LEAST}[[api-key]]\nname = \"shop\"\n{more}");
    let good =
        format!("hash = \"{hash}\"\ndomains = [\"*.example.org\"]\naddresses = [\"ann@example.net\"]\n");
    let config = parse(&key(&good)).unwrap();
    assert_eq!(config.api_keys[0].hash.unwrap().to_string(), hash.to_ascii_lowercase());
    let printed = format!("{LEAST}{}", config.api_keys[0].lines());
    assert_eq!(parse(&printed).unwrap().api_keys, config.api_keys, "{printed}");
    for (text, expected) in [
        (key("domains = [\"example.org\"]\n"), "ringpost key"),
        (key(&format!("hash = \"{hash}\"\n")), "domains = [\"example.org\"]"),
        (key(&good.replace("sha256:", "md5:")), "64 hexadecimal digits"),
        (key(&good.replace("0aF0", "xxxx")), "64 hexadecimal digits"),
        (
            format!("{}{}", key(&good), key(&good).replace(LEAST, "").replace("shop", "other")),
            "already that of api-key.shop",
        ),
        (format!("{LEAST}[http]\nmail-address = [\"127.0.0.1:0\"]\n"), "there is no key"),
        (format!("{LEAST}[http]\nmemory = \"1MiB\"\n"), "too little for a request"),
        (
            format!("{}[http]\naddress = [\"127.0.0.1:8\"]\nmail-address = [\"127.0.0.1:8\"]\n", key(&good)),
            "already taken by http",
        ),
    ] {
        let errors = parse(&text).map(drop).unwrap_err();
        let told = format!("{errors:?}");
        assert!(
            told.contains(expected) || errors.iter().any(|error| error.to_string().contains(expected)),
            "{text}\n{told}"
        );
    }
}

#[test]
fn no_file_makes_us_panic() {
    let example = Config::example(&options());
    let mut random = 17u64;
    for _ in 0..300 {
        let mut bytes = example.clone().into_bytes();
        for _ in 0..1 + random % 4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            match random >> 29 & 3 {
                0 => bytes[at] = b"\"[]{}=.#\n0-\xff"[(random >> 20) as usize % 12],
                1 => drop(bytes.remove(at)),
                // Long enough to lose three more.
                2 => bytes.truncate(at.max(4)),
                _ => bytes.insert(at, b'['),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(config) = parse(&text) {
            let _: Vec<_> = config.warnings(2);
            assert_eq!(parse(&config.to_toml()), Ok(config), "{text}");
        }
    }
}
