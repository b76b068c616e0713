//! A domain as it should be, and what is said when one thing of it is not.

use std::sync::OnceLock;

use dns::Security;
use mail::Domain;
use trust::{DnsList, Key, KeyKind, Limits, ListSubject, Signer, SignerOptions, new_key};

use super::*;
use crate::{Check, EgressAddress, Severity, UnsubscribeLinks, zone::Zone};

const AT: Timestamp = Timestamp::from_secs(1_764_417_600);

/// All is well with it.
struct World {
    plan: Plan,
    zone: String,
    policy: Option<Result<Vec<u8>, String>>,
    host: Option<HostProbe>,
    security: Security,
}

impl World {
    fn new() -> Self {
        // Making one takes its time.
        static KEYS: OnceLock<[String; 2]> = OnceLock::new();
        let keys =
            KEYS.get_or_init(|| [KeyKind::Rsa2048, KeyKind::Ed25519].map(|kind| new_key(kind).unwrap()));
        let signer = |selector: &str, pem: &str| {
            let key = Key::parse(pem).unwrap();
            let domain = Domain::parse("example.org").unwrap();
            Signer::new(key, &domain, selector, SignerOptions::default()).unwrap()
        };
        let signers = vec![signer("r1", &keys[0]), signer("e1", &keys[1])];
        let list = DnsList {
            name: "bl".into(),
            zone: Name::parse("bl.example").unwrap(),
            subjects: vec![ListSubject::Ipv4, ListSubject::Ipv6, ListSubject::SenderDomain],
            weight: 10,
            codes: Vec::new(),
            explains: true,
        };
        let own = EgressAddress {
            address: "192.0.2.1".parse().unwrap(),
            ehlo: "mx.example.org".into(),
            from: "the source a".into(),
        };
        let (certificate, _) = tls::self_signed(&["mx.example.org".to_owned()]).unwrap();
        let der = der(&certificate);
        let digest: String =
            tls::key_digest(&der).unwrap().iter().map(|octet| format!("{octet:02x}")).collect();
        let zone = format!(
            "192.0.2.1 PTR mx.example.org\n\
             mx.example.org A 192.0.2.1\n\
             mx.example.org TXT v=spf1 a -all\n\
             example.org TXT v=spf1 mx -all\n\
             example.org MX 10 mx.example.org\n\
             r1._domainkey.example.org TXT {}\n\
             e1._domainkey.example.org TXT {}\n\
             _dmarc.example.org TXT v=DMARC1; p=reject; rua=mailto:dmarc@example.org\n\
             _mta-sts.example.org TXT v=STSv1; id=1\n\
             mta-sts.example.org A 192.0.2.2\n\
             _smtp._tls.example.org TXT v=TLSRPTv1; rua=mailto:tls@example.org\n\
             _25._tcp.mx.example.org TLSA 3 1 1 {digest}\n\
             default._bimi.example.org TXT v=BIMI1; l=https://example.org/x.svg; a=https://example.org/x.pem\n",
            signers[0].record(),
            signers[1].record(),
        );
        let seen = HostSeen { version: "TLSv1.3".into(), chain: vec![der], trusted: Ok(()), days_left: None };
        Self {
            plan: Plan {
                domain: Name::parse("example.org").unwrap(),
                addresses: vec![own],
                reverse_paths: Vec::new(),
                signers,
                lists: vec![list],
                unsubscribe: UnsubscribeLinks::Used,
                port: 25,
                connects: true,
                limits: Limits { lookups_max: 1000, ..Limits::default() },
            },
            zone,
            policy: Some(Ok(b"version: STSv1\nmode: enforce\nmax_age: 604800\nmx: *.example.org\n".to_vec())),
            host: Some(HostProbe::Secure(seen)),
            security: Security::Secure,
        }
    }

    /// With another record in the place of one, by the beginning of its line; with none, when the new one is empty.
    fn with(mut self, line: &str, other: &str) -> Self {
        assert!(self.zone.contains(&format!("\n{line}")) || self.zone.starts_with(line), "{line}");
        let kept: Vec<&str> = self.zone.lines().filter(|old| !old.starts_with(line)).chain([other]).collect();
        self.zone = kept.join("\n");
        self
    }

    fn and(mut self, more: &str) -> Self {
        self.zone = format!("{}\n{more}", self.zone);
        self
    }

    fn seen(mut self, change: impl Fn(&mut HostSeen)) -> Self {
        let Some(HostProbe::Secure(seen)) = &mut self.host else { panic!("nothing was seen") };
        change(seen);
        self
    }

    fn report(&self) -> Report {
        let (zone, now) = (Zone::parse(&self.zone), Duration::from_secs(7));
        let mut checkup = Checkup::open(self.plan.clone(), AT, now);
        let errands = loop {
            match checkup.errands(now) {
                Judged::Known(errands) => break errands,
                Judged::Missing(questions) => learn(&mut checkup, &zone, questions, self.security),
            }
        };
        let mut gathered = Gathered::default();
        if errands.policy.is_some() {
            gathered.policy.clone_from(&self.policy);
        }
        if let (Some(probe), Some((host, _))) = (&self.host, errands.hosts.first()) {
            gathered.hosts.insert(host.clone(), probe.clone());
        }
        checkup.bring(gathered);
        loop {
            match checkup.judge(now) {
                Judged::Known(report) => break report,
                Judged::Missing(questions) => learn(&mut checkup, &zone, questions, self.security),
            }
        }
    }

    /// All that is not as it should be: severity, check and words, and the record to publish.
    fn says(&self, check: Check) -> Vec<String> {
        let report = self.report();
        let wrong = |finding: &&Finding| finding.check == check && finding.severity != Severity::Pass;
        let line = |finding: &Finding| {
            let record = finding.publish.as_ref().map_or_else(String::new, |record| format!(" => {record}"));
            format!("{} {}: {}{record}", finding.severity.as_str(), finding.subject, finding.text)
        };
        report.findings.iter().filter(wrong).map(line).collect()
    }
}

fn learn(checkup: &mut Checkup, zone: &Zone, questions: Vec<Question>, security: Security) {
    for question in questions {
        let answer = zone.answer(&question, security);
        checkup.learn(question, Arc::new(answer));
    }
}

/// What is between the lines of PEM.
fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_domain_as_it_should_be() {
    let report = World::new().report();
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|f| format!("{} {} {}: {}", f.severity.as_str(), f.check.as_str(), f.subject, f.text))
        .collect();
    assert_eq!(
        found,
        [
            "pass ptr 192.0.2.1: its name is mx.example.org, which leads back to it",
            "pass helo 192.0.2.1: it greets as mx.example.org, which is its name",
            "pass dnsbl 192.0.2.1: it is on none of the lists that were asked (1)",
            "pass dnsbl example.org: it is on none of the lists that were asked (1)",
            "pass spf example.org: the record takes 1 of 10 look-ups",
            "pass spf example.org: it may be sent for from 192.0.2.1",
            "pass dkim r1._domainkey.example.org: the key that signs is published (RSA, 2048 bits)",
            "pass dkim e1._domainkey.example.org: the key that signs is published (Ed25519)",
            "pass dmarc _dmarc.example.org: the policy is p=reject",
            "pass dmarc _dmarc.example.org: reports go to dmarc@example.org",
            "pass dmarc example.org: mail passes, by SPF and by a signature",
            "pass mx mx.example.org: it takes mail at 192.0.2.1",
            "pass tls mx.example.org: it speaks TLSv1.3, and its certificate is good for its name",
            "pass mta-sts mta-sts.example.org: the policy is enforced",
            "pass dane _25._tcp.mx.example.org: a TLSA record proves the certificate",
            "pass tls-rpt _smtp._tls.example.org: reports about TLS go to 1 place",
            "pass bimi default._bimi.example.org: the picture is https://example.org/x.svg",
            "pass unsubscribe example.org: messages get a link to leave a list by one click",
        ]
    );
    assert_eq!((report.worst(), report.at, &*report.domain), (Severity::Pass, AT.secs(), "example.org"));
    assert_eq!(report.by_check().count(), Check::ALL.len());
}

/// Whatever is wrong with one thing, what is said of it is this and nothing else.
fn check(world: World, of: Check, expected: &[&str]) {
    assert_eq!(world.says(of), expected);
}

#[test]
fn names_of_addresses() {
    let ptr = "192.0.2.1 PTR";
    let remedy = " => 1.2.0.192.in-addr.arpa. IN PTR mx.example.org.";
    check(
        World::new().with(ptr, ""),
        Check::Ptr,
        &[&format!("fail 192.0.2.1: it has no name (PTR){remedy}")],
    );
    check(
        World::new().with(ptr, "192.0.2.1 PTR other.example\nother.example A 192.0.2.9"),
        Check::Ptr,
        &[
            "fail 192.0.2.1: its name is other.example, which does not lead back to it => other.example. IN A \
                192.0.2.1",
        ],
    );
    check(
        World::new().with(ptr, "192.0.2.1 PTR TIMEOUT"),
        Check::Ptr,
        &["warn 192.0.2.1: the DNS does not tell now whether it has a name"],
    );
    check(
        World::new()
            .with(ptr, "192.0.2.1 PTR static-1-2-0-192.example\nstatic-1-2-0-192.example A 192.0.2.1"),
        Check::Ptr,
        &[&format!(
            "note 192.0.2.1: its name is static-1-2-0-192.example, which leads back to it, and looks like one that \
                a provider gives to any address{remedy}"
        )],
    );
    let mut world = World::new();
    world.plan.addresses.clear();
    check(world, Check::Ptr, &["warn example.org: it is not known from which addresses mail leaves"]);
}

#[test]
fn what_we_greet_as() {
    let greets = |ehlo: &str| {
        let mut world = World::new();
        world.plan.addresses[0].ehlo = ehlo.into();
        world
    };
    check(
        greets("localhost"),
        Check::Helo,
        &["fail 192.0.2.1: it greets as \"localhost\", which is no name that the world knows"],
    );
    assert_eq!(greets("mail.lan").says(Check::Helo).len(), 2, "it has no SPF record either");
    assert_eq!(greets("[192.0.2.1]").says(Check::Helo).len(), 2);
    check(
        greets("none.example.org"),
        Check::Helo,
        &[
            "fail 192.0.2.1: it greets as none.example.org, which has no address of its family => none.example.org. \
                IN A 192.0.2.1",
            "note none.example.org: none.example.org, as which we greet, has no SPF record: whoever likes greets as \
                we do => none.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 -all\"",
        ],
    );
    check(
        greets("mx2.example.org").and("mx2.example.org A 192.0.2.1\nmx2.example.org TXT v=spf1 a -all"),
        Check::Helo,
        &[
            "note 192.0.2.1: it greets as mx2.example.org, which leads to it, and is not the name that it has (PTR) \
                => 1.2.0.192.in-addr.arpa. IN PTR mx2.example.org.",
        ],
    );
    check(
        greets("mx2.example.org").and("mx2.example.org A 192.0.2.7\nmx2.example.org TXT v=spf1 a -all"),
        Check::Helo,
        &[
            "warn 192.0.2.1: it greets as mx2.example.org, which is another's: 192.0.2.7 => mx2.example.org. IN A \
                192.0.2.1",
            "fail mx2.example.org: by its own SPF record 192.0.2.1 may not greet as mx2.example.org: fail => \
                mx2.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 -all\"",
        ],
    );
}

#[test]
fn lists_of_the_dns() {
    check(
        World::new()
            .and("1.2.0.192.bl.example A 127.0.0.2\n1.2.0.192.bl.example TXT seen on 2026-11-29\u{7}"),
        Check::Dnsbl,
        &["fail 192.0.2.1: it is on the list bl (127.0.0.2): seen on 2026-11-29\u{fffd}"],
    );
    check(
        World::new().and("example.org.bl.example A 127.0.0.3"),
        Check::Dnsbl,
        &["fail example.org: it is on the list bl (127.0.0.3)"],
    );
    check(
        World::new().and("1.2.0.192.bl.example A 127.255.255.254"),
        Check::Dnsbl,
        &["note example.org: not all lists could be asked: bl refuses to answer (127.255.255.254)"],
    );
    check(
        World::new().and("1.2.0.192.bl.example A TIMEOUT\nexample.org.bl.example A TIMEOUT"),
        Check::Dnsbl,
        &["note example.org: not all lists could be asked: bl does not answer"],
    );
    let mut world = World::new();
    world.plan.lists[0].weight = -10;
    check(world, Check::Dnsbl, &["note example.org: no list of the DNS is asked"]);
}

#[test]
fn who_may_send() {
    let spf = |text: &str| World::new().with("example.org TXT", &format!("example.org TXT {text}"));
    let new = " => example.org. IN TXT \"v=spf1 ip4:192.0.2.1 -all\"";
    check(
        World::new().with("example.org TXT", ""),
        Check::Spf,
        &[&format!("fail example.org: there is no SPF record{new}")],
    );
    check(
        World::new().and("example.org TXT v=spf1 -all"),
        Check::Spf,
        &[&format!(
            "fail example.org: there is more than one SPF record, so that none counts (RFC 7208 §4.5){new}"
        )],
    );
    check(
        spf("v=spf1 ip4:192.0.2.7 -all"),
        Check::Spf,
        &["fail example.org: it may not be sent for from 192.0.2.1 (fail, by -all) => example.org. IN TXT \
                \"v=spf1 ip4:192.0.2.1 ip4:192.0.2.7 -all\""],
    );
    check(
        spf("v=spf1 mxx -all"),
        Check::Spf,
        &[&format!("fail example.org: the record makes no sense to others: malformed record{new}")],
    );
    check(
        spf("v=spf1 mx +all"),
        Check::Spf,
        &["fail example.org: the record leaves everybody in: the whole world may send for the domain => \
                example.org. IN TXT \"v=spf1 mx ~all\""],
    );
    check(
        spf("v=spf1 mx"),
        Check::Spf,
        &[
            "warn example.org: the record does not say what is to be thought of all others (?all, or no all) => \
                example.org. IN TXT \"v=spf1 mx ~all\"",
        ],
    );
    check(
        spf("v=spf1 mx ptr -all"),
        Check::Spf,
        &[
            "warn example.org: the record of example.org has a term `ptr`, which is not to be used (RFC 7208 §5.5)",
        ],
    );
    check(
        spf("v=spf1 mx a:n1.example a:n2.example a:n3.example -all"),
        Check::Spf,
        &["fail example.org: 3 look-ups of the record find nothing, and others stop at 2 with an error"],
    );
    check(
        spf("v=spf1 mx a:n1.example -all"),
        Check::Spf,
        &["note example.org: a look-up of the record finds nothing"],
    );
    let includes = |count: usize| {
        let terms: Vec<_> = (0..count).map(|i| format!("include:i{i}.example")).collect();
        let zone: Vec<_> = (0..count).map(|i| format!("i{i}.example TXT v=spf1 -all")).collect();
        spf(&format!("v=spf1 {} mx -all", terms.join(" "))).and(&zone.join("\n"))
    };
    check(
        includes(8),
        Check::Spf,
        &["warn example.org: the record takes 9 of 10 look-ups: whoever is included may add one at any time"],
    );
    assert_eq!(
        includes(10).says(Check::Spf)[0],
        "fail example.org: the record takes 11 look-ups, and others stop at 10 with an error"
    );
    check(
        spf("v=spf1 include:none.example mx -all"),
        Check::Spf,
        &[&format!(
            "fail example.org: the record makes no sense to others: included domain has no record{new}"
        )],
    );
    check(
        spf("v=spf1 include:late.example mx -all").and("late.example TXT TIMEOUT"),
        Check::Spf,
        &["warn example.org: the DNS does not tell now what all terms of the record lead to"],
    );
    check(
        World::new().with("example.org TXT", "example.org TXT TIMEOUT"),
        Check::Spf,
        &["warn example.org: the DNS does not tell now whether there is an SPF record"],
    );
    // The domain of reports is looked at as well.
    let mut world = World::new();
    world.plan.reverse_paths.push(Name::parse("bounces.example.org").unwrap());
    check(
        world,
        Check::Spf,
        &[
            "fail bounces.example.org: there is no SPF record => bounces.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 \
                -all\"",
        ],
    );
}

#[test]
fn signatures() {
    let world = World::new();
    let (rsa, record) = ("r1._domainkey.example.org", world.plan.signers[0].record().to_owned());
    let publish = format!(" => {}", crate::Record::text(rsa, record.clone()));
    let with = |text: &str| {
        world_of(&world).with(rsa, &if text.is_empty() { String::new() } else { format!("{rsa} TXT {text}") })
    };
    let both = |text: &str, why: &str| {
        [
            format!("fail {rsa}: {text}{publish}"),
            format!("fail {rsa}: a message signed with this key does not verify: {why}{publish}"),
        ]
    };
    let check =
        |text: &str, expected: &[String]| assert_eq!(with(text).says(Check::Dkim), expected, "{text}");
    check("", &both("the key that signs is not published", "no key for signature"));
    let other = trust::record(&new_key(KeyKind::Rsa2048).unwrap()).unwrap();
    check(
        &other,
        &both("the key that is published is another than the one that signs", "signature did not verify"),
    );
    check("v=DKIM1; k=rsa; p=", &both("the key is given up (an empty p=), and still signs", "key revoked"));
    check("v=DKIM1; k=rsa", &both("the record is no key", "malformed key"));
    check(
        &format!("{record}; h=sha1"),
        &both(
            "the record is for another algorithm, hash or service (k=, h=, s=)",
            "key is not for this signature",
        ),
    );
    check(
        &format!("{record}; t=y"),
        &[format!(
            "warn {rsa}: the record says that this is a trial (t=y), so that others need not count it{publish}"
        )],
    );
    check(
        "TIMEOUT",
        &[
            format!("warn {rsa}: the DNS does not tell now which key is there"),
            format!("fail {rsa}: a message signed with this key does not verify: key unavailable{publish}"),
        ],
    );
    let several = world_of(&world).and(&format!("{rsa} TXT {record}; n=again"));
    assert_eq!(
        several.says(Check::Dkim),
        [format!("fail {rsa}: there is more than one record, and hosts choose any of them{publish}")]
    );
    let mut alone = world_of(&world);
    alone.plan.signers.remove(1);
    assert_eq!(alone.says(Check::Dkim), ["note example.org: there is no key of Ed25519 beside that of RSA"]);
    let mut alone = world_of(&world);
    alone.plan.signers.remove(0);
    assert_eq!(
        alone.says(Check::Dkim),
        ["warn example.org: there is a key of Ed25519 alone, which many hosts cannot verify"]
    );
    let mut none = world_of(&world);
    none.plan.signers.clear();
    assert_eq!(none.says(Check::Dkim), ["fail example.org: mail of the domain is not signed"]);
}

/// The same keys once more.
fn world_of(world: &World) -> World {
    World { plan: world.plan.clone(), zone: world.zone.clone(), ..World::new() }
}

#[test]
fn what_holds_it_together() {
    let at = "_dmarc.example.org";
    let dmarc = |text: &str| World::new().with(at, &format!("{at} TXT {text}"));
    let new = " => _dmarc.example.org. IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc-reports@example.org\"";
    check(
        World::new().with(at, ""),
        Check::Dmarc,
        &[&format!(
            "fail {at}: there is no DMARC record, which large providers want of whoever sends much{new}"
        )],
    );
    check(
        World::new().and(&format!("{at} TXT v=DMARC1; p=none")),
        Check::Dmarc,
        &[&format!(
            "fail {at}: there is more than one DMARC record, so that none counts (RFC 9989 §4.10){new}"
        )],
    );
    check(
        dmarc("v=DMARC1; p=refuse"),
        Check::Dmarc,
        &[&format!("fail {at}: the DMARC record has no policy (p=), or one that is none{new}")],
    );
    check(
        dmarc("p=reject; v=DMARC1"),
        Check::Dmarc,
        &[&format!(
            "fail {at}: a text there looks like a DMARC record, and does not begin with v=DMARC1{new}"
        )],
    );
    check(
        dmarc("TIMEOUT"),
        Check::Dmarc,
        &[&format!("warn {at}: the DNS does not tell now whether there is a DMARC record")],
    );
    let rua = "rua=mailto:dmarc@example.org";
    check(
        dmarc(&format!("v=DMARC1; p=none; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy is p=none: forged mail is as welcome as yours")],
    );
    check(
        dmarc(&format!("v=DMARC1; p=reject; t=y; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy is p=reject, for a trial (t=y)")],
    );
    check(
        dmarc(&format!("v=DMARC1; p=reject; sp=none; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy for domains below it is milder: sp=none, where p=reject")],
    );
    check(
        dmarc("v=DMARC1; p=reject"),
        Check::Dmarc,
        &[&format!("note {at}: nobody is told how mail of the domain fares: no rua= names an address")],
    );
    check(
        dmarc("v=DMARC1; p=reject; rua=mailto:a@none.example"),
        Check::Dmarc,
        &[
            &format!("warn {at}: reports to a@none.example go nowhere: none.example takes no mail"),
            &format!(
                "warn {at}: reports to a@none.example are not sent: none.example does not say that it wants them => \
                    example.org._report._dmarc.none.example. IN TXT \"v=DMARC1\""
            ),
        ],
    );
    let outside = "rep.example MX 10 mx.example.org\nexample.org._report._dmarc.rep.example TXT v=DMARC1";
    check(dmarc("v=DMARC1; p=reject; rua=mailto:a@rep.example").and(outside), Check::Dmarc, &[]);
}

#[test]
fn what_stands_by_the_author() {
    let dmarc = |world: &World| world.says(Check::Dmarc);
    let spf = World::new().with("example.org TXT", "example.org TXT v=spf1 -all");
    assert_eq!(
        dmarc(&spf),
        ["note example.org: mail passes by a signature alone: SPF does not stand by the author"]
    );
    let mut unsigned = World::new();
    unsigned.plan.signers.clear();
    assert_eq!(
        dmarc(&unsigned),
        [
            "warn example.org: mail passes by SPF alone, and not once it is forwarded: no signature stands by the \
                author"
        ]
    );
    unsigned = unsigned.with("example.org TXT", "");
    assert_eq!(
        dmarc(&unsigned),
        ["fail example.org: mail does not pass: neither SPF nor a signature stands by the author"]
    );
}

#[test]
fn where_its_mail_goes() {
    let mx = |text: &str| World::new().with("example.org MX", text);
    let record = " => example.org. IN MX 10 mx.example.org.";
    check(
        mx("example.org MX 0 ."),
        Check::Mx,
        &[&format!(
            "warn example.org: it takes no mail (a null MX): many hosts refuse mail from those who cannot be \
                answered (RFC 7505 §4.2){record}"
        )],
    );
    check(
        mx(""),
        Check::Mx,
        &[&format!(
            "fail example.org: it has neither an MX record nor an address: nobody can be answered{record}"
        )],
    );
    check(
        mx("example.org A 192.0.2.1"),
        Check::Mx,
        &[
            "note example.org: it has no MX record, so that it is its own host (RFC 5321 §5.1) => example.org. IN \
                MX 10 example.org.",
        ],
    );
    check(
        mx("example.org MX TIMEOUT"),
        Check::Mx,
        &["warn example.org: the DNS does not tell now where its mail goes"],
    );
    check(mx("example.org MX 10 ?"), Check::Mx, &["fail example.org: an MX record names what is no host"]);
    check(
        mx("example.org MX 10 none.example.org"),
        Check::Mx,
        &["fail none.example.org: it has no address: mail for the domain waits or comes back"],
    );
    check(
        World::new().with("mx.example.org A", "mx.example.org A ALIAS 192.0.2.1"),
        Check::Mx,
        &[
            "warn mx.example.org: it is an alias (CNAME), which the host of an MX record must not be (RFC 5321 §5.1)",
        ],
    );
    let mut world = World::new();
    world.zone = "x.example A 192.0.2.1".into();
    check(
        world,
        Check::Mx,
        &[&format!(
            "fail example.org: it does not exist: whoever looks for the sender's domain refuses the mail{record}"
        )],
    );
}

#[test]
fn tls_of_its_hosts() {
    let probe = |probe| World { host: Some(probe), ..World::new() };
    check(
        probe(HostProbe::Unreachable("192.0.2.1:25: refused".into())),
        Check::Tls,
        &["fail mx.example.org: it takes no mail from here: 192.0.2.1:25: refused"],
    );
    check(
        probe(HostProbe::NoStartTls),
        Check::Tls,
        &["fail mx.example.org: it does not offer STARTTLS: mail to it can be read on the way"],
    );
    check(
        probe(HostProbe::Broken("alert".into())),
        Check::Tls,
        &["fail mx.example.org: it offers STARTTLS, and no TLS comes of it: alert"],
    );
    let days = |days| World::new().seen(|seen| seen.days_left = Some(days));
    check(
        days(2),
        Check::Tls,
        &["fail mx.example.org: it speaks TLSv1.3, and its certificate ends in 2 days"],
    );
    check(
        days(13),
        Check::Tls,
        &["warn mx.example.org: it speaks TLSv1.3, and its certificate ends in 13 days"],
    );
    check(days(14), Check::Tls, &[]);
    let untrusted = || World::new().seen(|seen| seen.trusted = Err("expired".into()));
    let text = "mx.example.org: it speaks TLSv1.3, and its certificate is not good for its name: expired";
    check(untrusted(), Check::Tls, &[&format!("fail {text}")]);
    // Without an enforced policy others send all the same, and what DANE proves needs no authority.
    check(untrusted().with("_mta-sts.example.org", ""), Check::Tls, &[&format!("note {text}")]);
    check(
        untrusted().with("_mta-sts.example.org", "").with("_25._tcp", ""),
        Check::Tls,
        &[&format!("warn {text}")],
    );
    // Where nobody was connected to, nothing is said.
    check(World { host: None, ..World::new() }, Check::Tls, &[]);
}

#[test]
fn its_policy() {
    let (at, host) = ("_mta-sts.example.org", "mta-sts.example.org");
    let record = " => _mta-sts.example.org. IN TXT \"v=STSv1; id=1764417600\"";
    check(
        World::new().with(at, ""),
        Check::MtaSts,
        &[&format!("note {at}: there is no policy about the TLS of its hosts (MTA-STS){record}")],
    );
    check(
        World::new().with(at, &format!("{at} TXT v=STSv1; id=a-b")),
        Check::MtaSts,
        &[&format!(
            "fail {at}: the record of the policy is malformed, or there is more than one: nobody finds the \
                policy{record}"
        )],
    );
    check(
        World::new().with(at, &format!("{at} TXT TIMEOUT")),
        Check::MtaSts,
        &[&format!("warn {at}: the DNS does not tell now whether there is a policy")],
    );
    check(
        World::new().with("mta-sts.example.org A", ""),
        Check::MtaSts,
        &[&format!("fail {host}: there is a record of a policy, and no host that has it")],
    );
    let policy = |policy: Result<&str, &str>| World {
        policy: Some(policy.map(|body| body.as_bytes().to_vec()).map_err(str::to_owned)),
        ..World::new()
    };
    check(
        policy(Err("the host answered 404")),
        Check::MtaSts,
        &[&format!(
            "fail {host}: there is a record of a policy, and the policy cannot be had: the host answered 404"
        )],
    );
    check(
        policy(Ok("mode: enforce")),
        Check::MtaSts,
        &[&format!("fail {host}: the policy counts nothing: the version of the policy is not STSv1")],
    );
    let body =
        |mode: &str, mx: &str, age: u32| format!("version: STSv1\nmode: {mode}\nmax_age: {age}\nmx: {mx}\n");
    check(
        policy(Ok(&body("enforce", "mx.example.net", 604_800))),
        Check::MtaSts,
        &[&format!(
            "fail {host}: the policy leaves out mx.example.org: whoever keeps to it sends nothing there{record}"
        )],
    );
    check(
        policy(Ok(&body("testing", "mx.example.net", 604_800))),
        Check::MtaSts,
        &[
            &format!(
                "warn {host}: the policy leaves out mx.example.org: whoever keeps to it sends nothing there{record}"
            ),
            &format!("note {host}: the policy is there for a trial (mode: testing)"),
        ],
    );
    check(
        policy(Ok(&body("enforce", "*.example.org", 3600))),
        Check::MtaSts,
        &[&format!("note {host}: the policy holds for 3600 seconds alone")],
    );
    check(
        policy(Ok("version: STSv1\nmode: none\nmax_age: 1")),
        Check::MtaSts,
        &[&format!("note {host}: the policy says that there is none (mode: none)")],
    );
}

#[test]
fn its_signed_zone() {
    let at = "_25._tcp.mx.example.org";
    let good = World::new();
    let line = good.zone.lines().find(|line| line.starts_with(at)).unwrap().to_owned();
    let record = format!(" => {at}. IN {}", line.split_once(' ').unwrap().1);
    let tlsa = |text: &str| {
        World { host: good.host.clone(), ..World::new() }
            .with(at, &if text.is_empty() { String::new() } else { format!("{at} TLSA {text}") })
    };
    check(
        tlsa(""),
        Check::Dane,
        &[&format!("note {at}: the zones are signed, and there are no TLSA records (DANE){record}")],
    );
    let other = format!("3 1 1 {}", "ab".repeat(32));
    check(
        tlsa(&other),
        Check::Dane,
        &[&format!(
            "fail {at}: no TLSA record is that of the certificate: whoever keeps to DANE sends nothing there; they \
                are {other}{record}"
        )],
    );
    check(
        tlsa(&format!("1 1 1 {}", "ab".repeat(32))),
        Check::Dane,
        &[&format!("warn {at}: none of the TLSA records means anything for mail (RFC 7672 §3.1.3){record}")],
    );
    check(
        tlsa("TIMEOUT"),
        Check::Dane,
        &[&format!(
            "fail {at}: the DNS does not tell the TLSA records, or proves them wrong: whoever keeps to DANE sends \
                nothing there"
        )],
    );
    let unproven = |world: World| World { security: Security::Unproven, ..world };
    check(
        unproven(tlsa("TIMEOUT")),
        Check::Dane,
        &[&format!("warn {at}: the DNS does not tell now whether there are TLSA records")],
    );
    check(
        unproven(tlsa(&other)),
        Check::Dane,
        &[&format!(
            "warn {at}: there are TLSA records, and the zones are not signed, or our resolver does not say so: they \
                count nothing"
        )],
    );
    check(
        unproven(tlsa("")),
        Check::Dane,
        &[&format!(
            "note {at}: the zones of the domain and its host are not signed (DNSSEC), or our resolver does not say \
                so: there is no DANE"
        )],
    );
    check(
        World { host: None, ..World::new() },
        Check::Dane,
        &[&format!("note {at}: there are TLSA records, and the certificate could not be compared with them")],
    );
}

#[test]
fn reports_pictures_and_links() {
    let at = "_smtp._tls.example.org";
    let record = " => _smtp._tls.example.org. IN TXT \"v=TLSRPTv1; rua=mailto:tls-reports@example.org\"";
    check(
        World::new().with(at, ""),
        Check::TlsRpt,
        &[&format!("note {at}: nobody is told when others cannot send under TLS (TLSRPT){record}")],
    );
    check(
        World::new().with(at, &format!("{at} TXT v=TLSRPTv1; rua=nobody")),
        Check::TlsRpt,
        &[&format!(
            "warn {at}: the record is malformed, or there is more than one: there are no reports{record}"
        )],
    );
    check(
        World::new().with(at, &format!("{at} TXT TIMEOUT")),
        Check::TlsRpt,
        &[&format!("warn {at}: the DNS does not tell now whether reports are wanted")],
    );
    let at = "default._bimi.example.org";
    let record = " => default._bimi.example.org. IN TXT \"v=BIMI1; l=https://example.org/logo.svg; \
        a=https://example.org/logo.pem\"";
    let bimi = |text: &str| World::new().with(at, &format!("{at} TXT {text}"));
    check(
        World::new().with(at, ""),
        Check::Bimi,
        &[&format!("note {at}: there is no picture of the domain (BIMI){record}")],
    );
    check(
        bimi("v=BIMI1; l=http://example.org/x.svg"),
        Check::Bimi,
        &[&format!(
            "warn {at}: there is no picture of the domain: a place in the BIMI record is no https:// URL{record}"
        )],
    );
    check(
        bimi("v=BIMI1; l=https://example.org/x.svg"),
        Check::Bimi,
        &[&format!(
            "note {at}: the picture is https://example.org/x.svg, and no certificate says whose it is"
        )],
    );
    let lax = World::new()
        .with("_dmarc.example.org", "_dmarc.example.org TXT v=DMARC1; p=none; rua=mailto:a@example.org");
    check(
        lax,
        Check::Bimi,
        &[&format!("warn {at}: no reader shows the picture: the policy of DMARC asks for nothing")],
    );
    check(bimi("v=BIMI1; l="), Check::Bimi, &[]);
    check(
        bimi("TIMEOUT"),
        Check::Bimi,
        &[&format!("warn {at}: the DNS does not tell now whether there is a picture")],
    );
    for links in [UnsubscribeLinks::Unused, UnsubscribeLinks::Unconfigured] {
        let mut world = World::new();
        world.plan.unsubscribe = links;
        let said = world.says(Check::Unsubscribe);
        assert!(said.len() == 1 && said[0].starts_with("note example.org: "), "{said:?}");
    }
}

/// Whoever has no answer to anything gets a report all the same.
#[test]
fn it_ends_when_nobody_answers() {
    let world = World::new();
    let now = Duration::from_secs(7);
    let mut checkup = Checkup::open(world.plan, AT, now);
    assert!(matches!(checkup.errands(now), Judged::Missing(_)));
    let Judged::Known(errands) = checkup.errands(checkup.deadline()) else { panic!("it waits") };
    assert_eq!(errands, Errands::default());
    let Judged::Known(report) = checkup.judge(checkup.deadline()) else { panic!("it waits") };
    let passed: Vec<_> =
        report.findings.iter().filter(|f| f.severity == Severity::Pass).map(|f| f.check).collect();
    assert_eq!(passed, [Check::Unsubscribe], "what needs no DNS");
}
