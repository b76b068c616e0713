//! SPF: pyspf and we, over worlds of records that were made by chance.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use dns::{Exchange, ExchangeHost, Kind, Outcome, Question, Records};
use end_to_end::run;
use serde_json::{Value, json};
use trust::SpfResult;

use super::{Random, World, client};
use crate::authenticity::PYTHON;

const WORLDS: usize = 400;
const QUESTIONS: usize = 8;
/// Names that have records; some more have none.
const NAMES: usize = 12;
const ADDRESSES: &[&str] =
    &["192.0.2.1", "192.0.2.77", "198.51.100.9", "203.0.113.5", "2001:db8::1", "2001:db8:0:1::9"];

/// What is mended of pyspf in `spf.py`: a mended one has to say what we do of every question, so that nothing is excused.
const MENDED: &[&str] =
    &["recursion", "redirect", "void", "exchanges", "ptr", "unknown modifiers", "no labels"];

/// The same records twice: for us, and for pyspf.
#[derive(Default)]
struct Both {
    world: World,
    json: BTreeMap<String, BTreeMap<&'static str, Vec<Value>>>,
    kinds: BTreeMap<(String, &'static str), Vec<Data>>,
}

#[derive(Clone)]
enum Data {
    Text(String),
    Address(IpAddr),
    Exchange(u16, String),
    Name(String),
}

impl Both {
    fn add(&mut self, name: &str, data: Data) {
        let (kind, value) = match &data {
            Data::Text(text) => ("TXT", json!(text)),
            Data::Address(IpAddr::V4(address)) => ("A", json!(address.to_string())),
            Data::Address(IpAddr::V6(address)) => ("AAAA", json!(address.to_string())),
            Data::Exchange(preference, host) => ("MX", json!([preference, host])),
            Data::Name(name) => ("PTR", json!(name)),
        };
        self.json.entry(name.to_owned()).or_default().entry(kind).or_default().push(value);
        self.kinds.entry((name.to_owned(), kind)).or_default().push(data);
    }

    fn unavailable(&mut self, name: &str) {
        self.json.entry(name.to_owned()).or_default().insert("TIMEOUT", Vec::new());
    }

    /// No more comes.
    fn complete(&mut self) {
        let kinds =
            [("TXT", Kind::Txt), ("A", Kind::A), ("AAAA", Kind::Aaaa), ("MX", Kind::Mx), ("PTR", Kind::Ptr)];
        for (name, there) in &self.json {
            for (label, kind) in kinds {
                let question = Question { name: dns::Name::printable(name).unwrap(), kind };
                let outcome = match self.kinds.get(&(name.clone(), label)) {
                    _ if there.contains_key("TIMEOUT") => Outcome::TempFail(dns::Failure::ServerFailure),
                    Some(data) => Outcome::Found(records(data)),
                    None => Outcome::NoData,
                };
                self.world.add(question, outcome);
            }
        }
    }
}

fn records(data: &[Data]) -> Records {
    let texts = data.iter().filter_map(|data| {
        let Data::Text(text) = data else { return None };
        Some(text.chars().map(|c| c as u8).collect::<Vec<_>>().into())
    });
    let addresses = data.iter().filter_map(|data| {
        let Data::Address(address) = data else { return None };
        Some(*address)
    });
    let names = data.iter().filter_map(|data| {
        let Data::Name(name) = data else { return None };
        name.parse().ok()
    });
    let exchanges = data.iter().filter_map(|data| {
        let Data::Exchange(preference, host) = data else { return None };
        Some(Exchange { preference: *preference, host: ExchangeHost::Name(host.parse().ok()?) })
    });
    match data[0] {
        Data::Text(_) => Records::Texts(texts.collect()),
        Data::Address(_) => Records::Addresses(addresses.collect()),
        Data::Name(_) => Records::Names(names.collect()),
        Data::Exchange(..) => {
            let mut exchanges: Vec<_> = exchanges.collect();
            exchanges.sort();
            Records::Exchanges(exchanges)
        }
    }
}

#[test]
fn pyspf_and_we_agree() {
    let mut random = Random::new(7208);
    let (mut lines, mut cases) = (String::new(), Vec::new());
    for _ in 0..WORLDS {
        let both = world(&mut random);
        for _ in 0..QUESTIONS {
            let address = random.text(ADDRESSES);
            let domain = format!("n{}.example", random.below(NAMES));
            let sender = match random.below(8) {
                0 => String::new(),
                1 => format!("strong-bad.x+y@{domain}"),
                2 => format!("ann@sub.{domain}"),
                _ => format!("ann@{domain}"),
            };
            let helo = if sender.is_empty() { domain } else { "mail.n0.example".to_owned() };
            let line = json!({"world": both.json, "address": address, "sender": sender, "helo": helo});
            lines.push_str(&format!("{line}\n"));
            let verdict = both.world.envelope(client(address, &helo, &sender)).mail_from;
            let domain = sender.rsplit_once('@').map_or(helo.as_str(), |(_, domain)| domain).to_owned();
            let record =
                both.json.get(&domain).map_or_else(String::new, |found| format!("{:?}", found.get("TXT")));
            cases.push((verdict, format!("{address} {sender:?} {helo}: {record}"), both.json.clone()));
        }
    }
    let said = run(Path::new(PYTHON), &["-c", include_str!("spf.py")], &lines).good();
    let answers: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len(), "{}", said.stderr);
    let (mut agreed, mut mended) = (BTreeMap::<&str, usize>::new(), BTreeMap::<String, usize>::new());
    let mut wrong = Vec::new();
    for ((ours, record, world), theirs) in cases.iter().zip(answers) {
        let [result, explanation] =
            ["result", "explanation"].map(|key| theirs[key].as_str().unwrap_or_default());
        for name in theirs["mended"].as_array().into_iter().flatten() {
            *mended.entry(name.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let explained = match &ours.explanation {
            // Its own words are for where there are none of the domain's.
            None => explanation == "SPF fail - not authorized" || ours.result != SpfResult::Fail,
            Some(ours) => ours == explanation,
        };
        if ours.result.as_str() == result && explained {
            *agreed.entry(ours.result.as_str()).or_default() += 1;
        } else {
            wrong.push(format!(
                "{record}\n    we say {:?}, pyspf {result} {explanation:?}\n    {}",
                ours,
                json!(world)
            ));
        }
    }
    println!("agreed: {agreed:?}; of these pyspf as it is says otherwise, by what is mended: {mended:?}");
    let some = wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} differ:\n{some}", wrong.len(), cases.len());
    for result in ["pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"] {
        assert!(agreed.get(result).is_some_and(|count| *count > 20), "{result}: {agreed:?}");
    }
    // What is never needed is not to be mended.
    let unneeded: Vec<_> = MENDED.iter().filter(|name| !mended.contains_key(**name)).collect();
    assert!(unneeded.is_empty() || !Random::is_usual(), "{unneeded:?} made no difference: {mended:?}");
}

fn world(random: &mut Random) -> Both {
    let mut both = Both::default();
    for i in 0..NAMES {
        let name = format!("n{i}.example");
        if random.one_in(40) {
            both.unavailable(&name);
            continue;
        }
        if !random.one_in(10) {
            both.add(&name, Data::Text(record(random)));
        }
        if random.one_in(25) {
            both.add(&name, Data::Text("v=spf1 -all".into()));
        }
        if random.one_in(4) {
            both.add(
                &name,
                Data::Text(random.text(&["other text", "v=spf10 +all", "v=spf1+all", "100%{d}"]).to_string()),
            );
        }
        for _ in 0..random.below(3) {
            both.add(&name, Data::Address(random.text(ADDRESSES).parse().unwrap()));
        }
        let exchanges = if random.one_in(30) { 11 } else { random.below(4) };
        for preference in 0..exchanges {
            let host = format!("n{}.example", random.below(NAMES + 2));
            both.add(&name, Data::Exchange(preference as u16 * 10, host));
        }
        let sub = format!("sub.{name}");
        if random.one_in(2) {
            both.add(&sub, Data::Text(record(random)));
        }
        both.add(&format!("e.{name}"), Data::Text(explanation(random)));
    }
    for address in ADDRESSES {
        let address: IpAddr = address.parse().unwrap();
        let reverse = dns::Name::reverse(address).to_string();
        for _ in 0..random.below(3) {
            both.add(&reverse, Data::Name(format!("n{}.example", random.below(NAMES))));
        }
        // For `exists`.
        if let IpAddr::V4(address) = address
            && random.one_in(2)
        {
            both.add(&format!("{address}.list.example"), Data::Address([127, 0, 0, 2].into()));
        }
    }
    both.add("ann.users.example", Data::Address([127, 0, 0, 2].into()));
    both.add("strong.users.example", Data::Address([127, 0, 0, 2].into()));
    both.complete();
    both
}

fn record(random: &mut Random) -> String {
    let mut record = random.text(&["v=spf1", "v=spf1", "V=SPF1", "v=spf1 "]).to_string();
    for _ in 0..random.below(7) {
        record.push(' ');
        record.push_str(&term(random));
    }
    match random.below(6) {
        0 => {}
        1 => record.push_str(&format!(" redirect={}", domain(random))),
        _ => record.push_str(random.text(&[" -all", " ~all", " ?all", " +all", " -ALL", " -all", "  -all "])),
    }
    if random.one_in(3) {
        record.push_str(&format!(" exp=e.n{}.example", random.below(NAMES)));
    }
    record
}

fn term(random: &mut Random) -> String {
    let qualifier = random.text(&["", "", "", "+", "-", "~", "?"]);
    let prefix = random.text(&["", "", "", "/24", "/32", "/0", "//64", "/24//64"]).to_string();
    let term = match random.below(22) {
        0 => "a".to_owned() + &prefix,
        1 | 2 => format!("a:{}{prefix}", domain(random)),
        3 => "mx".to_owned() + &prefix,
        4 => format!("mx:{}{prefix}", domain(random)),
        5 => "ptr".to_owned(),
        6 => format!("ptr:{}", domain(random)),
        7 | 8 => {
            format!("ip4:{}{}", random.text(&ADDRESSES[..4]), random.text(&["", "/24", "/31", "/8", "/0"]))
        }
        9 => format!("ip6:{}{}", random.text(&ADDRESSES[4..]), random.text(&["", "/64", "/32", "/0"])),
        10 => "exists:%{i}.list.example".to_owned(),
        11 => format!("exists:{}", domain(random)),
        12 => format!("exists:{}.users.example", random.text(&["%{l}", "%{l1r-}", "%{l1r+-.}", "%{L}"])),
        13..=16 => format!("include:{}", domain(random)),
        17 => return random.text(&["moo=x", "x-y.z=%{d}", "unknown-modifier="]).to_string(),
        18 if random.one_in(4) => random
            .text(&[
                "moo",
                "a:",
                "ip4:192.0.2",
                "ip4:192.0.2.1/33",
                "ip6:::g",
                "a/33",
                "include",
                "exists:",
                "a:%{x}.example",
                "a:%{d0}.example",
                "a:%",
                "ptr/24",
                "all:x",
                "mx//129",
                "redirect:n0.example",
                "a:n0.example..",
                "include:n1",
            ])
            .to_string(),
        _ => format!("ip4:{}", random.text(&["192.0.2.0/28", "10.0.0.0/8", "203.0.113.0/24"])),
    };
    format!("{qualifier}{term}")
}

/// One that is there, mostly.
fn domain(random: &mut Random) -> String {
    let number = random.below(NAMES + 1);
    match random.below(12) {
        0 => format!("sub.n{number}.example"),
        1 => format!("%{{d1r}}.n{number}.example"),
        2 => "%{d2}".to_owned(),
        3 => "%{o}".to_owned(),
        4 => "void.example".to_owned(),
        _ => format!("n{number}.example"),
    }
}

fn explanation(random: &mut Random) -> String {
    random
        .text(&[
            "%{i} is not one of %{d}'s",
            "See http://%{d}/why.html?s=%{S}&i=%{I}",
            "%{c} %{h} %{l} %{o} %%%_%-",
            "%{dr} %{d2} %{ir}",
            "plain",
            "bad %{x}",
            "100%",
            "%{v} %{s}",
        ])
        .to_string()
}
