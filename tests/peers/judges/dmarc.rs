//! DMARC: libopendmarc and we, given the same results of SPF and DKIM, and the same records.

use std::{collections::BTreeMap, path::Path};

use end_to_end::{Place, run};
use mail::Timestamp;
use serde_json::{Value, json};
use trust::{
    Digester, DkimResult, DmarcPolicy, DmarcResult, Judge, Key, KeyKind, Limits, Signer, SignerOptions,
    SpfResult,
};

use super::{Random, World, client, digest, now};
use crate::authenticity::PYTHON;

const CASES: usize = 1500;
const DOMAINS: &[&str] = &[
    "one.test",
    "sub.one.test",
    "deep.sub.one.test",
    "other.one.test",
    "two.test",
    "sub.two.test",
    "notone.test",
];

/// What may differ between RFC 7489, which it follows, and RFC 9989.
const DIFFERENCES: &[Difference] = &[
    // "t": "the policy is to be applied one step milder"; there was none.
    Difference { name: "testing", section: "RFC 9989 §4.7", is: |asked| asked.record.contains("t=y") },
    // A domain that does not exist; there was no such tag, and `sp` counted.
    Difference { name: "nonexistent", section: "RFC 9989 §4.7", is: |asked| asked.record.contains("np=") },
    // The tree walk finds what stands between the author's domain and that of its organization.
    Difference {
        name: "tree walk",
        section: "RFC 9989 §4.10",
        is: |asked| asked.between && asked.theirs == "none",
    },
    // It compares organizations where the author's domain is one itself, whatever `adkim` and `aspf` say.
    Difference {
        name: "strict",
        section: "RFC 7489 §3.1.1, RFC 9989 §4.10.2",
        is: |asked| asked.record.contains("=s") && asked.is_organization && asked.theirs == "pass",
    },
    // Whose organization it is, is what records say, and no list of suffixes.
    Difference { name: "organization", section: "RFC 9989 §4.10.2", is: |asked| !asked.at_organization },
];

struct Asked<'a> {
    record: &'a str,
    theirs: &'a str,
    /// Whether the author's domain is that of an organization.
    is_organization: bool,
    /// Whether the record stands between the author's domain and the organization's.
    between: bool,
    /// Whether there is one at the organization's.
    at_organization: bool,
}

struct Difference {
    name: &'static str,
    section: &'static str,
    is: fn(&Asked<'_>) -> bool,
}

#[test]
fn opendmarc_and_we_agree() {
    let mut random = Random::new(9989);
    let pem = trust::new_key(KeyKind::Ed25519).unwrap();
    let key = trust::record(&pem).unwrap();
    let judge = Judge::new();
    let (mut lines, mut cases) = (String::new(), Vec::new());
    for _ in 0..CASES {
        let author = random.text(DOMAINS);
        let organization = organization_of(author);
        let mut world = World::default();
        // Records at the organization's domain, mostly; now and then at the author's, and between.
        let mut places = Vec::new();
        if !random.one_in(6) {
            places.push(organization);
        }
        if random.one_in(3) {
            places.push(author);
        }
        if random.one_in(8) && author.starts_with("deep.") {
            places.push("sub.one.test");
        }
        places.sort_unstable();
        places.dedup();
        let records: BTreeMap<&str, String> =
            places.iter().map(|place| (*place, record(&mut random))).collect();
        records.iter().for_each(|(place, record)| world.text(&format!("_dmarc.{place}"), record));
        let sender = random.text(DOMAINS);
        world.text(sender, random.text(&["v=spf1 ip4:192.0.2.1 -all", "v=spf1 -all", "v=spf1 ?all"]));
        // With signatures of some domains, the one or other broken.
        let plain = format!("From: a@{author}\r\nSubject: x\r\n\r\nx\r\n").into_bytes();
        let mut content = plain.clone();
        for _ in 0..random.below(3) {
            let domain = random.text(DOMAINS);
            world.text(&format!("s._domainkey.{domain}"), &key);
            let signer = Signer::new(
                Key::parse(&pem).unwrap(),
                &domain.parse().unwrap(),
                "s",
                SignerOptions::default(),
            )
            .unwrap();
            let at: Timestamp = now();
            let (mut out, digest) =
                (Vec::new(), digest(Digester::new(Limits::default()).signing([&signer]), &plain));
            signer.sign(&mut out, &digest, b"", at).unwrap();
            if random.one_in(4) {
                out = String::from_utf8(out).unwrap().replacen("; b=", "; x-y=z; b=", 1).into_bytes();
            }
            drop(content.splice(..0, out));
        }
        let client = client("192.0.2.1", "client.test", &format!("x@{sender}"));
        let verdict = world.message(&judge, client, Limits::default(), &content);
        // The record that RFC 7489 §6.6.3 finds.
        let found = records.get(author).map(|record| (record, None));
        let found = found.or_else(|| records.get(organization).map(|record| (record, Some(organization))));
        let outcome = |good| if good { "pass" } else { "fail" };
        let spf = &verdict.envelope.mail_from;
        let dkim: Vec<_> = verdict
            .dkim
            .iter()
            .map(|dkim| json!([dkim.domain, outcome(dkim.result == DkimResult::Pass)]))
            .collect();
        let line = json!({
            "from": author,
            "spf": [spf.domain, outcome(spf.result == SpfResult::Pass)],
            "dkim": dkim,
            "record": found.map(|(record, _)| record),
            "organization": found.and_then(|(_, organization)| organization),
        });
        lines.push_str(&format!("{line}\n"));
        let ours = match (verdict.dmarc.result, verdict.dmarc.policy) {
            (DmarcResult::Pass, _) => "pass",
            (DmarcResult::Fail, DmarcPolicy::None) => "fail",
            (DmarcResult::Fail, DmarcPolicy::Quarantine) => "quarantine",
            (DmarcResult::Fail, DmarcPolicy::Reject) => "reject",
            (DmarcResult::None, _) => "none",
            (DmarcResult::TempError | DmarcResult::PermError, _) => "error",
        };
        let applied = verdict.dmarc.published.as_ref().map(|record| record.domain.as_str().to_owned());
        cases.push((line, ours, applied, records.contains_key(organization)));
    }
    let place = Place::new();
    let suffixes = place.write("suffixes", "test\n");
    let arguments = ["-c", include_str!("dmarc.py"), suffixes.to_str().unwrap()];
    let said = run(Path::new(PYTHON), &arguments, &lines).good();
    let answers: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), CASES, "{}", said.stderr);
    let (mut agreed, mut seen) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    let mut wrong = Vec::new();
    for ((line, ours, applied, at_organization), theirs) in cases.iter().zip(answers) {
        let theirs = theirs["result"].as_str().unwrap();
        if theirs == *ours {
            *agreed.entry(ours).or_default() += 1;
            continue;
        }
        let author = line["from"].as_str().unwrap();
        let between =
            applied.as_deref().is_some_and(|place| place != author && place != organization_of(author));
        let record = line["record"].as_str().unwrap_or_default();
        let is_organization = author == organization_of(author);
        let asked = Asked { record, theirs, is_organization, between, at_organization: *at_organization };
        match DIFFERENCES.iter().find(|difference| (difference.is)(&asked)) {
            Some(difference) => *seen.entry(difference.name).or_default() += 1,
            None => {
                wrong.push(format!("we say {ours} by the record of {applied:?}, opendmarc {theirs}: {line}"))
            }
        }
    }
    println!("agreed: {agreed:?}; differences: {seen:?}");
    let some = wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} differ:\n{some}", wrong.len());
    for result in ["pass", "fail", "quarantine", "reject", "none"] {
        assert!(agreed.get(result).is_some_and(|count| *count > 30), "{result}: {agreed:?}");
    }
    for Difference { name, section, .. } in DIFFERENCES {
        assert!(seen.contains_key(name), "{name} ({section}) was not seen");
    }
}

/// By the list of suffixes, in which `test` is.
fn organization_of(domain: &str) -> &str {
    let dots = domain.match_indices('.').count();
    if dots == 1 { domain } else { organization_of(domain.split_once('.').unwrap().1) }
}

fn record(random: &mut Random) -> String {
    let policies = &["none", "quarantine", "reject"];
    let mut record =
        format!("{}p={}", random.text(&["v=DMARC1; ", "v=DMARC1;", "v=DMARC1 ; "]), random.text(policies));
    if random.one_in(3) {
        record += &format!("; sp={}", random.text(policies));
    }
    if random.one_in(12) {
        record += &format!("; np={}", random.text(policies));
    }
    for tag in ["adkim", "aspf"] {
        if random.one_in(3) {
            record += &format!("; {tag}={}", random.text(&["r", "s"]));
        }
    }
    if random.one_in(12) {
        record += "; t=y";
    }
    record + random.text(&["", ";", "; rua=mailto:a@one.test", "; fo=1", "; ri=3600"])
}
