//! What mail testers would say of a domain: unbound has its records, signed by ldns, Python its policy, and our own
//! server is its host.

use end_to_end::{Finished, Server, built, run, tool};
use serde_json::Value;

use crate::{
    authenticity::new_key,
    indicators::{Marks, PURPOSE, WebHost, picture},
    outbound_tls::{Authority, PolicyHost, Zones},
};

/// A record of text as a zone file has it.
fn text(name: &str, text: &str) -> String {
    let strings: Vec<_> =
        text.as_bytes().chunks(200).map(|s| format!("\"{}\"", String::from_utf8_lossy(s))).collect();
    format!("{name} TXT {}", strings.join(" "))
}

/// Two domains, one of which is as it should be; and a server that sends for both, and is the host of both.
struct World {
    server: Server,
    _authority: Authority,
    _marks: Marks,
    pictures: WebHost,
    _policies: PolicyHost,
    _zones: Zones,
    configuration: String,
    port: u16,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new(&["host.signed.test"]);
        let policies =
            PolicyHost::start(authority.issue("policies", &["mta-sts.signed.test", "mta-sts.plain.test"]));
        let policy =
            |mx: &str| format!("200\ntext/plain\nversion: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 604800\n");
        policies.says("signed.test", &policy("host.signed.test"));
        policies.says("plain.test", &policy("other.plain.test"));
        let pictures = WebHost::start(authority.issue("pictures", &["logo.signed.test"]));
        let (marks, shown) = (Marks::new(), pictures.address().port());
        pictures.has("x.svg", picture(""));
        pictures.has("x.pem", marks.issue("DNS:signed.test", PURPOSE, &picture("")));
        let server = Server::prepare("");
        let (rsa, rsa_record) = new_key(&server, "signed.test", "r1", "rsa2048");
        let (ed, ed_record) = new_key(&server, "signed.test", "e1", "ed25519");
        let (lost, _) = new_key(&server, "plain.test", "r1", "rsa2048");
        let (here, port) = (server.smtp().ip(), server.smtp().port());
        let there = policies.address().ip();
        let signed = [
            "@ MX 10 host".to_owned(),
            format!("host A {here}"),
            "out A 192.0.2.1".to_owned(),
            text("out", "v=spf1 a -all"),
            text("@", "v=spf1 a:out.signed.test -all"),
            text("r1._domainkey", &rsa_record),
            text("e1._domainkey", &ed_record),
            text("_dmarc", "v=DMARC1; p=reject; rua=mailto:dmarc@signed.test"),
            text("_mta-sts", "v=STSv1; id=1"),
            format!("mta-sts A {there}"),
            text("_smtp._tls", "v=TLSRPTv1; rua=mailto:tls@signed.test"),
            text(
                "default._bimi",
                &format!(
                    "v=BIMI1; l=https://logo.signed.test:{shown}/x.svg; a=https://logo.signed.test:{shown}/x.pem"
                ),
            ),
            format!("logo A {}", pictures.address().ip()),
            format!("_{port}._tcp.host TLSA 3 1 1 {}", authority.key_digest("host")),
        ];
        let plain = [
            "@ MX 10 host\n@ MX 20 gone".to_owned(),
            format!("host A {here}"),
            text("@", "v=spf1 ip4:192.0.2.7 ptr +all"),
            text("_dmarc", "v=DMARC1; p=none; rua=mailto:dmarc@elsewhere.example"),
            text("_mta-sts", "v=STSv1; id=1"),
            format!("mta-sts A {there}"),
        ];
        // Names of addresses, and lists, are in no zone of a domain.
        let more = "local-zone: \"_dmarc.test.\" static\nlocal-data-ptr: \"192.0.2.1 out.signed.test\"\nlocal-data: \
            \"1.2.0.192.bl.example. A 127.0.0.2\"\n\
                    local-data: '1.2.0.192.bl.example. TXT \"seen today\"'\n";
        let zones = Zones::start_with(&signed, &plain, port, more);
        let file = |name: &str| authority.chain().with_file_name(name).display().to_string();
        let configuration = format!(
            "hostname = \"out.signed.test\"\n\
             [dns]\nservers = [\"{}\"]\ntimeout = \"2s\"\n[mta-sts]\nport = {}\n\
             [outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
             [[certificate]]\nname = \"own\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             [[dnsbl]]\nname = \"bl\"\nzone = \"bl.example\"\n\
             [[route]]\nname = \"mx\"\ndomains = [\"*\"]\n\
             [bimi]\nauthorities = [\"{}\"]\nprivate-servers = true\n\
             [unsubscribe]\nurl = \"https://signed.test/u\"\nsecrets = [\"0123456789abcdef\"]\n\
             [[tenant]]\nname = \"shop\"\nnetworks = [\"198.51.100.0/24\"]\nsuppression = \"refuse\"\nunsubscribe = \
                 \"all\"\n\
             {rsa}{ed}{lost}",
            zones.address(),
            policies.address().port(),
            file("ca.pem"),
            file("host.pem"),
            file("host-key.pem"),
            marks.authority().display(),
        );
        let world = Self {
            server,
            _authority: authority,
            _marks: marks,
            pictures,
            _policies: policies,
            _zones: zones,
            configuration,
            port,
        };
        world.configure("addresses = [\"192.0.2.1\"]\n");
        world
    }

    /// With these keys in `[deliverability]`.
    fn configure(&self, keys: &str) {
        let Self { configuration, port, .. } = self;
        self.server.configure(&format!("{configuration}[deliverability]\nport = {port}\n{keys}"));
    }

    fn look(&self, arguments: &[&str]) -> Finished {
        let config = self.server.place().join("ringpost.toml");
        let all = [&["deliverability", "--config", config.to_str().unwrap()], arguments].concat();
        run(&built("ringpost"), &all, "")
    }

    /// What is found of a domain: severity, check, and words with the record to publish behind them.
    fn found(&self, domain: &str) -> (Option<i32>, Vec<String>) {
        let Finished { status, stdout, stderr } = self.look(&[domain, "--json"]);
        let report: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"));
        assert_eq!(report["domain"], *domain);
        (status.code(), lines(&report))
    }

    /// Asks the server to look at a domain now.
    fn ask(&self, arguments: &[&str]) -> Value {
        let socket = self.server.place().join("data/control.sock");
        let url = "http://localhost/api/v1/deliverability";
        let all = [&["-sS", "--unix-socket", socket.to_str().unwrap(), url], arguments].concat();
        let answer = run(&tool("curl"), &all, "").good().stdout;
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

fn lines(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let word = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let record = &finding["publish"];
            let record = match record["value"].as_str() {
                Some(value) => format!(
                    " => {} {} {value}",
                    record["name"].as_str().unwrap(),
                    record["type"].as_str().unwrap()
                ),
                None => String::new(),
            };
            format!("{} {} {}: {}{record}", word("severity"), word("check"), word("subject"), word("text"))
        })
        .collect()
}

#[test]
fn a_domain_as_it_should_be_and_one_as_it_should_not() {
    let mut world = World::new();
    world.server.resume();
    let port = world.port;
    let (status, found) = world.found("signed.test");
    let logo = format!("https://logo.signed.test:{}/x.svg", world.pictures.address().port());
    let expected = [
        "pass ptr 192.0.2.1: its name is out.signed.test, which leads back to it",
        "pass helo 192.0.2.1: it greets as out.signed.test, which is its name",
        "fail dnsbl 192.0.2.1: it is on the list bl (127.0.0.2): seen today",
        "pass spf signed.test: the record takes 1 of 10 look-ups",
        "pass spf signed.test: it may be sent for from 192.0.2.1",
        "pass dkim r1._domainkey.signed.test: the key that signs is published (RSA, 2048 bits)",
        "pass dkim e1._domainkey.signed.test: the key that signs is published (Ed25519)",
        "pass dmarc _dmarc.signed.test: the policy is p=reject",
        "pass dmarc _dmarc.signed.test: reports go to dmarc@signed.test",
        "pass dmarc signed.test: mail passes, by SPF and by a signature",
        &format!("pass mx host.signed.test: it takes mail at {}", world.server.smtp().ip()),
        "pass tls host.signed.test: it speaks TLSv1.3, and its certificate is good for its name",
        "pass mta-sts mta-sts.signed.test: the policy is enforced",
        &format!("pass dane _{port}._tcp.host.signed.test: a TLSA record proves the certificate"),
        "pass tls-rpt _smtp._tls.signed.test: reports about TLS go to 1 place",
        &format!("pass bimi default._bimi.signed.test: the picture is {logo}"),
        "pass unsubscribe signed.test: messages get a link to leave a list by one click",
    ];
    assert_eq!((status, found), (Some(3), expected.map(str::to_owned).to_vec()));
    let (status, found) = world.found("plain.test");
    assert_eq!(status, Some(3));
    let wrong: Vec<_> = found.into_iter().filter(|line| !line.starts_with("pass")).collect();
    // The key is a new one in each run.
    let key = |line: &String| line.split(" p=").next().unwrap().split("; id=").next().unwrap().to_owned();
    let dkim =
        "plain.test: the key that signs is not published => r1._domainkey.plain.test TXT v=DKIM1; k=rsa;";
    assert_eq!(
        wrong.iter().map(key).collect::<Vec<_>>(),
        [
            "fail dnsbl 192.0.2.1: it is on the list bl (127.0.0.2): seen today",
            "fail spf plain.test: the record leaves everybody in: the whole world may send for the domain => \
                plain.test TXT v=spf1 ip4:192.0.2.1 ip4:192.0.2.7 ptr ~all",
            "warn spf plain.test: the record of plain.test has a term `ptr`, which is not to be used (RFC 7208 §5.5)",
            &format!("fail dkim r1._domainkey.{dkim}"),
            "fail dkim r1._domainkey.plain.test: a message signed with this key does not verify: no key for \
                signature => r1._domainkey.plain.test TXT v=DKIM1; k=rsa;",
            "note dkim plain.test: there is no key of Ed25519 beside that of RSA",
            "note dmarc _dmarc.plain.test: the policy is",
            "warn dmarc _dmarc.plain.test: reports to dmarc@elsewhere.example go nowhere: elsewhere.example takes \
                no mail",
            "warn dmarc _dmarc.plain.test: reports to dmarc@elsewhere.example are not sent: elsewhere.example does not \
                say that it wants them => plain.test._report._dmarc.elsewhere.example TXT v=DMARC1",
            "warn dmarc plain.test: mail passes by SPF alone, and not once it is forwarded: no signature stands by \
                the author",
            "fail mx gone.plain.test: it has no address: mail for the domain waits or comes back",
            "fail tls host.plain.test: it speaks TLSv1.3, and its certificate is not good for its name: the \
                certificate was not accepted: certificate not valid for name \"host.plain.test\"; certificate is only \
                valid for DnsName(\"host.signed.test\")",
            "fail mta-sts mta-sts.plain.test: the policy leaves out host.plain.test, gone.plain.test: whoever keeps \
                to it sends nothing there => _mta-sts.plain.test TXT v=STSv1",
            &format!(
                "note dane _{port}._tcp.host.plain.test: the zones of the domain and its host are not signed \
                    (DNSSEC), or our resolver does not say so: there is no DANE"
            ),
            &format!(
                "note dane _{port}._tcp.gone.plain.test: the zones of the domain and its host are not signed \
                    (DNSSEC), or our resolver does not say so: there is no DANE"
            ),
            "note tls-rpt _smtp._tls.plain.test: nobody is told when others cannot send under TLS (TLSRPT) => \
                _smtp._tls.plain.test TXT v=TLSRPTv1; rua=mailto:tls-reports@plain.test",
            "note bimi default._bimi.plain.test: there is no picture of the domain (BIMI) => \
                default._bimi.plain.test TXT v=BIMI1; l=https://plain.test/logo.svg; a=https://plain.test/logo.pem",
            "warn unsubscribe plain.test: messages get a link to leave a list, and nobody shows a button for it: no good \
                signature covers it",
        ]
    );
    // For people; and without a host to be seen.
    world.server.stop();
    let shown = world.look(&["signed.test"]);
    assert_eq!(shown.status.code(), Some(3));
    assert!(
        shown.stdout.contains("FAIL  tls          host.signed.test: it takes no mail from here: "),
        "{}",
        shown.stdout
    );
    let shown = world.look(&["signed.test", "--no-connect"]).stdout;
    assert!(!shown.contains("  tls  "), "{shown}");
    assert_eq!(world.look(&["[192.0.2.1]"]).status.code(), Some(2));
}

#[test]
fn the_server_looks_by_itself_and_when_it_is_asked() {
    let mut world = World::new();
    world.configure("domains = [\"signed.test\"]\naddresses = [\"192.0.2.1\"]\n");
    world.server.resume();
    let changed = world.server.event("deliverability_changed", |_| true);
    let said = |event: &Value| {
        ["domain", "check", "result", "before"].map(|name| event[name].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(said(&changed), ["signed.test", "dnsbl", "fail", "-"], "{changed}");
    assert_eq!(changed["finding"], "it is on the list bl (127.0.0.2): seen today");
    let level = |check: &str| {
        world
            .server
            .metric("ringpost_deliverability", &["domain=\"signed.test\"", &format!("check=\"{check}\"")])
    };
    assert_eq!([level("dnsbl"), level("spf"), level("dane"), level("tls")], [3.0, 0.0, 0.0, 0.0]);
    let last = world.ask(&[]);
    assert_eq!(last[0]["domain"], "signed.test", "{last}");
    // Another address, which nobody knows yet.
    world.configure("domains = [\"signed.test\"]\naddresses = [\"192.0.2.1\", \"192.0.2.9\"]\n");
    assert_eq!(world.server.reload()["event"], "reloaded");
    let now = world.ask(&["--json", "{\"domain\": \"signed.test\"}"]);
    let expected = "fail spf signed.test: it may not be sent for from 192.0.2.9 (fail, by -all) => signed.test TXT \
        v=spf1 ip4:192.0.2.9 a:out.signed.test -all";
    assert!(lines(&now).iter().any(|line| line == expected), "{now}");
    let changed = world.server.event("deliverability_changed", |event| event["check"] == "spf");
    assert_eq!(said(&changed), ["signed.test", "spf", "fail", "pass"], "{changed}");
    assert_eq!([level("spf"), level("ptr")], [3.0, 3.0]);
    // Whoever asks about another domain is told, and nothing is kept of it.
    let other = world.ask(&["--json", "{\"domain\": \"plain.test\"}"]);
    assert_eq!(other["domain"], "plain.test");
    let all = world.ask(&[]);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!(world.ask(&["--json", "{\"domain\": \"no domain\"}"])["status"], 400);
    // What is not looked at any more is not shown any more.
    world.configure("addresses = [\"192.0.2.1\"]\n");
    assert_eq!(world.server.reload()["event"], "reloaded");
    end_to_end::until("it is forgotten", || world.ask(&[]).as_array().unwrap().is_empty().then_some(()));
}
