//! A domain as it should be, and what is said when one thing of it is not.

use std::sync::OnceLock;

use dns::Security;
use mail::Domain;
use trust::{DnsList, Key, KeyKind, Limits, ListSubject, Signer, SignerOptions, new_key};

use super::*;
use crate::{Check, EgressAddress, Severity, UnsubscribeLinks, zone::Zone};

#[path = "checkup_authority_test.rs"]
mod authority;
#[path = "checkup_inbound_test.rs"]
mod inbound;
#[path = "checkup_sending_test.rs"]
mod sending;

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
                unsubscribe: UnsubscribeLinks::Used("https://news.example.org/u/1".into()),
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
    assert_eq!(passed, [], "nothing needs no DNS");
}
