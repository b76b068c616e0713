//! DMARC: libopendmarc and we, given the same results of SPF and DKIM, and the same records.
//!
//! It follows RFC 7489. Where RFC 9989 says something else, the records are brought to what both say alike: of these we have to say
//! what it does of the ones as they were, so that nothing is excused.

use std::{collections::BTreeMap, path::Path};

use end_to_end::{Place, run};
use mail::Timestamp;
use serde_json::{Value, json};
use trust::{
    Digester, DkimResult, DmarcPolicy, DmarcResult, Judge, Key, KeyKind, Limits, Signer, SignerOptions,
    SpfResult, Verdict,
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

/// The records of a case, by the domain they are of.
type Published<'a> = BTreeMap<&'a str, String>;

/// What it is called, and how it is done to the records of a case of this author.
type Change = (&'static str, for<'a> fn(&mut Published<'a>, &'a str));

/// Where it is known to say something else, mostly as RFC 9989 has changed what it follows: how records are written of which we say what
/// it says of those that were given.
const CHANGED: &[Change] = &[
    // `t=y` (RFC 9989 §4.7): the policy is applied one step milder. There was no such tag.
    ("testing", |records, _| without(records, "t")),
    // `np` (§4.7) is for domains that do not exist. There was no such tag, and `sp` counted.
    ("nonexistent", |records, _| without(records, "np")),
    // The tree walk (§4.10) finds what stands between the author's domain and that of its organization.
    ("tree walk", |records, author| {
        records.retain(|place, _| *place == author || *place == organization_of(author));
    }),
    // Whose organization it is, is what records say (§4.10.2). There was a list of suffixes, and none had to be there.
    ("organization", |records, author| {
        if records.contains_key(author) {
            records.entry(organization_of(author)).or_insert_with(|| "v=DMARC1; p=none".to_owned());
        }
    }),
    // `adkim=s` and `aspf=s` (RFC 7489 §3.1.1, RFC 9989 §4.10.2): it takes whose organization's domain is the author's, as if it were
    // the author's, before it looks at how strict to be. That is its fault.
    ("strict", |records, author| {
        if author == organization_of(author) {
            records.values_mut().for_each(|record| *record = record.replace("=s", "=r"));
        }
    }),
];

fn without(records: &mut Published<'_>, tag: &str) {
    for record in records.values_mut() {
        let kept: Vec<_> =
            record.split(';').filter(|part| part.trim().split('=').next() != Some(tag)).collect();
        *record = kept.join(";");
    }
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
        let records: Published<'_> = places.iter().map(|place| (*place, record(&mut random))).collect();
        let sender = random.text(DOMAINS);
        let spf = random.text(&["v=spf1 ip4:192.0.2.1 -all", "v=spf1 -all", "v=spf1 ?all"]);
        // With signatures of some domains, the one or other broken.
        let plain = format!("From: a@{author}\r\nSubject: x\r\n\r\nx\r\n").into_bytes();
        let mut content = plain.clone();
        for _ in 0..random.below(3) {
            let domain = random.text(DOMAINS).parse().unwrap();
            let signer = Signer::new(Key::parse(&pem).unwrap(), &domain, "s", SignerOptions::default());
            let signer = signer.unwrap();
            let at: Timestamp = now();
            let (mut out, digest) =
                (Vec::new(), digest(Digester::new(Limits::default()).signing([&signer]), &plain));
            signer.sign(&mut out, &digest, b"", at).unwrap();
            if random.one_in(4) {
                out = String::from_utf8(out).unwrap().replacen("; b=", "; x-y=z; b=", 1).into_bytes();
            }
            drop(content.splice(..0, out));
        }
        let judged = |records: &Published<'_>| {
            let mut world = World::default();
            DOMAINS.iter().for_each(|domain| world.text(&format!("s._domainkey.{domain}"), &key));
            records.iter().for_each(|(place, record)| world.text(&format!("_dmarc.{place}"), record));
            world.text(sender, spf);
            let client = client("192.0.2.1", "client.test", &format!("x@{sender}"));
            world.message(&judge, client, Limits::default(), &content)
        };
        let verdict = judged(&records);
        // The record that RFC 7489 §6.6.3 finds.
        let found = records.get(author).map(|record| (record, None));
        let found = found.or_else(|| records.get(organization).map(|record| (record, Some(organization))));
        let outcome = |good| if good { "pass" } else { "fail" };
        let mail_from = &verdict.envelope.mail_from;
        let dkim: Vec<_> = verdict
            .dkim
            .iter()
            .map(|dkim| json!([dkim.domain, outcome(dkim.result == DkimResult::Pass)]))
            .collect();
        let line = json!({
            "from": author,
            "spf": [mail_from.domain, outcome(mail_from.result == SpfResult::Pass)],
            "dkim": dkim,
            "record": found.map(|(record, _)| record),
            "organization": found.and_then(|(_, organization)| organization),
        });
        lines.push_str(&format!("{line}\n"));
        // What we say where all that was changed is set back, and where all but one is.
        let set_back = |but: &str| {
            let mut records = records.clone();
            CHANGED.iter().filter(|(name, _)| *name != but).for_each(|(_, set)| set(&mut records, author));
            said(&judged(&records))
        };
        let ours = set_back("");
        let matters =
            CHANGED.iter().map(|(name, _)| *name).filter(|name| set_back(name) != ours).collect::<Vec<_>>();
        cases.push((line, ours, matters));
    }
    let place = Place::new();
    let suffixes = place.write("suffixes", "test\n");
    let arguments = ["-c", include_str!("dmarc.py"), suffixes.to_str().unwrap()];
    let said = run(Path::new(PYTHON), &arguments, &lines).good();
    let answers: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), CASES, "{}", said.stderr);
    let (mut agreed, mut changed) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    let mut wrong = Vec::new();
    for ((line, ours, matters), theirs) in cases.iter().zip(answers) {
        matters.iter().for_each(|name| *changed.entry(name).or_default() += 1);
        let theirs = theirs["result"].as_str().unwrap();
        if theirs == *ours {
            *agreed.entry(ours).or_default() += 1;
        } else {
            wrong.push(format!("we say {ours}, opendmarc {theirs}: {line}"));
        }
    }
    println!("agreed: {agreed:?}; by what was changed we say otherwise: {changed:?}");
    let some = wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} differ:\n{some}", wrong.len());
    for result in ["pass", "fail", "quarantine", "reject", "none"] {
        assert!(agreed.get(result).is_some_and(|count| *count > 30), "{result}: {agreed:?}");
    }
    for (name, _) in CHANGED {
        assert!(changed.contains_key(name) || !Random::is_usual(), "{name} made no difference: {changed:?}");
    }
}

fn said(verdict: &Verdict) -> &'static str {
    match (verdict.dmarc.result, verdict.dmarc.policy) {
        (DmarcResult::Pass, _) => "pass",
        (DmarcResult::Fail, DmarcPolicy::None) => "fail",
        (DmarcResult::Fail, DmarcPolicy::Quarantine) => "quarantine",
        (DmarcResult::Fail, DmarcPolicy::Reject) => "reject",
        (DmarcResult::None, _) => "none",
        (DmarcResult::TempError | DmarcResult::PermError, _) => "error",
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
