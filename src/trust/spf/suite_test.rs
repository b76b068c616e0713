//! The community's suite of SPF (openspf.org, release 2014.04, as pyspf keeps it): 203 cases of RFC 7208.
//!
//! It is somebody else's and stays where it is, beside the repository.

use std::{fs, net::IpAddr, path::Path};

use yaml_rust2::{Yaml, YamlLoader};

use super::{Question, SpfIdentity, check};
use crate::{
    Limits,
    zone::{Data, Zone},
};

/// How many cases there are, so that none is passed over without a word.
const CASES: usize = 203;
/// Cases that we answer otherwise, and why. None.
const DEVIATIONS: [&str; 0] = [];

#[test]
fn cases_of_the_community_suite() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/suites/spf/rfc7208-tests.yml");
    let Ok(suite) = fs::read_to_string(&file) else {
        println!("not run: the SPF suite is not there ({})", file.display());
        return;
    };
    let (mut cases, mut wrong) = (0, Vec::new());
    for scenario in YamlLoader::load_from_str(&suite).expect("the suite is YAML") {
        let zone = zone(&scenario["zonedata"]);
        for (name, case) in scenario["tests"].as_hash().expect("tests by name") {
            cases += 1;
            if let Err(difference) = run(&zone, case) {
                wrong.push(format!("{}: {difference}", name.as_str().unwrap_or_default()));
            }
        }
    }
    assert_eq!(wrong, DEVIATIONS);
    assert_eq!(cases, CASES);
}

fn run(zone: &Zone, case: &Yaml) -> Result<(), String> {
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let (helo, mail_from) = (text("helo"), text("mailfrom"));
    let (local_part, domain) = mail_from.rsplit_once('@').unwrap_or(("", helo));
    let address: IpAddr = text("host").parse().expect("an address");
    let question = Question {
        address: address.to_canonical(),
        identity: SpfIdentity::MailFrom,
        local_part,
        domain,
        helo,
        receiver: "receiver",
        time: 0,
    };
    let (spf, _, _) = zone.run(|facts| check(facts, &Limits::default(), &question));
    // One, or several of which each will do.
    let result = &case["result"];
    let several = result.as_vec().into_iter().flatten().filter_map(Yaml::as_str);
    let results: Vec<_> = result.as_str().into_iter().chain(several).collect();
    if !results.contains(&spf.result.as_str()) {
        return Err(format!("{spf:?}, expected {results:?}"));
    }
    match case["explanation"].as_str() {
        // Ours is none.
        Some("DEFAULT") if spf.explanation.is_some() => Err(format!("{:?}, expected none", spf.explanation)),
        None | Some("DEFAULT") => Ok(()),
        expected if expected == spf.explanation.as_deref() => Ok(()),
        expected => Err(format!("{:?}, expected {expected:?}", spf.explanation)),
    }
}

fn zone(data: &Yaml) -> Zone {
    let mut zone = Zone::default();
    for (name, records) in data.as_hash().expect("records by name") {
        let name = name.as_str().expect("a name");
        let records = records.as_vec().expect("a list of records");
        // "auto-magic duplication of SPF to TXT records", where there are none.
        let has_texts = records.iter().any(|record| !record["TXT"].is_badvalue());
        for record in records {
            let Some(record) = record.as_hash() else {
                zone.add(name, Data::Timeout);
                continue;
            };
            let (kind, value) = record.front().expect("one record");
            let text = || value.as_str().expect("a text");
            let data = match kind.as_str().expect("a type") {
                "A" | "AAAA" => Data::Address(text().parse().expect("an address")),
                "MX" => Data::Exchange(
                    value[0].as_i64().expect("a preference") as u16,
                    value[1].as_str().expect("a host").to_owned(),
                ),
                "PTR" => Data::Pointer(text().parse().expect("a name")),
                "CNAME" => Data::Alias(text().parse().expect("a name")),
                "TXT" if value.as_str() == Some("NONE") => continue,
                "SPF" if has_texts => continue,
                "SPF" | "TXT" => Data::Text(octets(value)),
                kind => panic!("{kind}"),
            };
            zone.add(name, data);
        }
    }
    zone
}

/// A text, or several to be joined; a character stands for an octet.
fn octets(value: &Yaml) -> Vec<u8> {
    if let Some(texts) = value.as_vec() {
        return texts.iter().flat_map(octets).collect();
    }
    let text = value.as_str().expect("a text");
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("an octet")).collect()
}
