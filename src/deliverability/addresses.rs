//! Our addresses: their names, what we greet as from there, and lists of the DNS.

use std::net::{IpAddr, Ipv4Addr};

use dns::{Kind, Name};
use mail::{Address, Domain, ReversePath};
use trust::{
    Facts, IprevResult, Lack, ListFindings, ListWord, Sought, SpfResult, iprev_of, is_public, list_inquiries,
    spf_of, survey_spf,
};

use crate::{
    Check, EgressAddress, Finding, Severity,
    checkup::Bench,
    spf::{mechanisms, with},
    words::{kind_of, listed, shown},
};

pub(crate) fn judge(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) {
    let plan = &bench.plan;
    if plan.addresses.is_empty() && bench.hidden.is_empty() {
        let text = "it is not known from which addresses mail leaves".to_owned();
        findings.push(
            Finding::new(Check::Ptr, Severity::Warn, &plan.domain, text)
                .remedy("name them in deliverability.addresses, or have a [[source]] for each"),
        );
    }
    let mut greeted: Vec<&str> = Vec::new();
    for EgressAddress { address, from, .. } in &bench.hidden {
        let text = format!("mail from {from} leaves from here, which is no address of the open network");
        findings.push(Finding::new(Check::Ptr, Severity::Warn, address, text).remedy(
            "name the address that the world sees of it: public-address of a [[source]], or deliverability.addresses",
        ));
    }
    for own in &plan.addresses {
        findings.push(pointer(bench, facts, own));
        findings.push(greeting(bench, facts, own));
        if !greeted.contains(&&*own.ehlo) {
            greeted.push(&own.ehlo);
            findings.extend(greeting_spf(bench, facts, own));
        }
    }
    lists(bench, facts, findings);
}

/// Whether the address has a name that has the address (RFC 8601 §3).
fn pointer(bench: &Bench, facts: &Facts, own: &EgressAddress) -> Finding {
    let EgressAddress { address, ehlo, .. } = own;
    let finding = |severity, text| Finding::new(Check::Ptr, severity, address, text);
    let found = iprev_of(facts, &bench.plan.limits, *address);
    let named = |finding: Finding| match public(ehlo) {
        Some(name) => finding.publish(Name::reverse(*address), "PTR", format!("{name}.")),
        // What is no name of the world is nobody's name.
        None => finding,
    };
    let whose =
        "the record is in a zone of whoever has given you the address: tell him, or set it in his console";
    match (found.result, found.name) {
        (IprevResult::Pass, Some(name)) if is_generic(&name, *address) => named(finding(
            Severity::Note,
            format!(
                "its name is {name}, which leads back to it, and looks like one that a provider gives to any \
                address"
            ),
        )
        .remedy(whose)),
        (IprevResult::Pass, name) => {
            let name = name.map_or_else(String::new, |name| name.to_string());
            finding(Severity::Pass, format!("its name is {name}, which leads back to it"))
        }
        (IprevResult::Fail, _) => {
            let names = facts.names(*address).unwrap_or_default();
            let text = format!("its name is {}, which does not lead back to it", listed(names));
            let finding = finding(Severity::Fail, text).remedy(
                "give that name the address, or the address another \
                name",
            );
            match names.first() {
                Some(name) => finding.publish(name, kind_of(*address), address.to_string()),
                None => finding,
            }
        }
        (IprevResult::PermError, _) => {
            named(finding(Severity::Fail, "it has no name (PTR)".to_owned()).remedy(whose))
        }
        (IprevResult::TempError, _) => {
            finding(Severity::Warn, "the DNS does not tell now whether it has a name".to_owned())
        }
    }
}

/// A name that the world could know.
fn public(name: &str) -> Option<Name> {
    Name::parse(name).ok().filter(is_public)
}

/// Whether an address is one of the open network, as far as that can be told by itself.
pub fn is_open(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // This network, what is shared by a provider's customers, benchmarks, groups, and what is kept for later.
            let is_kept = first == 0
                || (first == 100 && second & 0xc0 == 64)
                || (first == 198 && second & 0xfe == 18)
                || first >= 224;
            !(is_kept || v4.is_private() || v4.is_loopback() || v4.is_link_local())
        }
        IpAddr::V6(v6) => match v6.segments() {
            // What is carried in IPv4 is where that is.
            [0x2002, high, low, ..] => {
                is_open(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into())
            }
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

/// Whether all octets of an address of IPv4 stand in a name as numbers.
fn is_generic(name: &Name, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let numbers: Vec<&str> =
        name.as_str().split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
    let mut octets = address.octets().map(|octet| octet.to_string());
    let stands = |octets: &[String; 4]| {
        numbers.windows(4).any(|window| window.iter().zip(octets).all(|(number, octet)| number == octet))
    };
    let forward = stands(&octets);
    octets.reverse();
    forward || stands(&octets)
}

/// Whether what we greet as is a name of the address (RFC 5321 §4.1.1.1, §4.1.4).
fn greeting(bench: &Bench, facts: &Facts, own: &EgressAddress) -> Finding {
    let EgressAddress { address, ehlo, from } = own;
    let finding = |severity, text| Finding::new(Check::Helo, severity, address, text);
    let other = format!("greet with a name of yours in the DNS: ehlo-name of {from}, or `hostname`");
    let Some(name) = public(ehlo) else {
        let text = format!("it greets as \"{}\", which is no name that the world knows", shown(ehlo));
        return finding(Severity::Fail, text).remedy(other);
    };
    let kind = if address.is_ipv4() { Kind::A } else { Kind::Aaaa };
    match facts.addresses(&name, kind) {
        Ok(addresses) if addresses.contains(address) => {
            let is_its_name = facts.names(*address).is_ok_and(|names| names.contains(&name));
            if is_its_name {
                return finding(Severity::Pass, format!("it greets as {name}, which is its name"));
            }
            let text =
                format!("it greets as {name}, which leads to it, and is not the name that it has (PTR)");
            finding(Severity::Note, text).remedy("some hosts want both to be the same").publish(
                Name::reverse(*address),
                "PTR",
                format!("{name}."),
            )
        }
        Ok(addresses) => {
            let text = format!("it greets as {name}, which is another's: {}", listed(addresses));
            let finding = finding(Severity::Warn, text)
                .remedy(format!("give the name this address as well, or {other}"));
            // Beside an address of something else, such as a web server, it would take half of what is for that.
            let is_ours = |address: &IpAddr| bench.plan.addresses.iter().any(|own| own.address == *address);
            if addresses.iter().all(is_ours) {
                return finding.publish(&name, kind_of(*address), address.to_string());
            }
            finding
        }
        Err(Lack::NoData | Lack::NxDomain) => {
            let severity = match facts.addresses(&name, if address.is_ipv4() { Kind::Aaaa } else { Kind::A })
            {
                Ok(_) => Severity::Warn,
                Err(_) => Severity::Fail,
            };
            let text = format!("it greets as {name}, which has no address of its family");
            finding(severity, text).remedy(format!("give the name this address, or {other}")).publish(
                &name,
                kind_of(*address),
                address.to_string(),
            )
        }
        Err(Lack::Unknown) => {
            finding(Severity::Warn, format!("the DNS does not tell now whose {name} is, as which it greets"))
        }
    }
}

/// What SPF says of the name itself, by which mail without a sender is judged (RFC 7208 §2.3, §2.4).
fn greeting_spf(bench: &Bench, facts: &Facts, own: &EgressAddress) -> Option<Finding> {
    let EgressAddress { address, ehlo, .. } = own;
    let name = public(ehlo)?;
    let limits = &bench.plan.limits;
    let of_name: Vec<&EgressAddress> =
        bench.plan.addresses.iter().filter(|other| other.ehlo == *ehlo).collect();
    let spf = spf_of(facts, limits, *address, &name, ehlo);
    let (severity, text) = match spf.result {
        SpfResult::Pass => return None,
        SpfResult::None => (
            Severity::Note,
            format!("{name}, as which we greet, has no SPF record: whoever likes greets as we do"),
        ),
        SpfResult::Neutral => {
            (Severity::Note, format!("{name}, as which we greet, does not say whether {address} may (SPF)"))
        }
        SpfResult::TempError => {
            (Severity::Warn, format!("the DNS does not tell now whether {address} may greet as {name} (SPF)"))
        }
        SpfResult::Fail | SpfResult::SoftFail | SpfResult::PermError => (
            Severity::Fail,
            format!("by its own SPF record {address} may not greet as {name}: {}", spf.result.as_str()),
        ),
    };
    let finding = Finding::new(Check::Helo, severity, &name, text);
    if spf.result == SpfResult::TempError {
        return Some(finding);
    }
    let finding = finding.remedy("mail without a sender (bounces) is judged by this name");
    let record = match spf.result {
        // Whose mail is looked at is told of that already.
        _ if name == bench.plan.domain => None,
        SpfResult::None => {
            // A name that takes mail may be behind the @ of others' mail, too.
            let takes_mail = !matches!(facts.exchanges(&name), Err(Lack::NoData | Lack::NxDomain));
            let end = if takes_mail { "~all" } else { "-all" };
            Some(format!("v=spf1 {} {end}", mechanisms(&of_name)))
        }
        // A record that is there stays: a second one would undo both.
        SpfResult::Neutral | SpfResult::Fail | SpfResult::SoftFail => {
            let record = survey_spf(facts, limits, *address, &name, ehlo).record;
            record.and_then(|record| with(&record, &of_name))
        }
        SpfResult::Pass | SpfResult::TempError | SpfResult::PermError => None,
    };
    Some(match record {
        Some(record) => finding.publish(&name, "TXT", record),
        None => finding,
    })
}

/// By which an SPF record names an address.
pub(crate) fn mechanism(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("ip4:{address}"),
        IpAddr::V6(address) => format!("ip6:{address}"),
    }
}

/// What lists of the DNS say of our addresses, and of the domain.
fn lists(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) {
    let plan = &bench.plan;
    // A list that speaks for those it knows is no list to be on.
    let lists: Vec<_> = plan.lists.iter().enumerate().filter(|(_, list)| list.weight > 0).collect();
    if lists.is_empty() {
        findings.push(
            Finding::new(
                Check::Dnsbl,
                Severity::Note,
                &plan.domain,
                "no list of the DNS is asked".to_owned(),
            )
            .remedy("have a [[dnsbl]] for each list whose word counts where your mail goes"),
        );
        return;
    }
    let mut silent: Vec<String> = Vec::new();
    let author =
        Domain::parse(plan.domain.as_str()).ok().and_then(|domain| Address::new("postmaster", &domain).ok());
    let author = author.map(ReversePath::Address);
    let mut about = |subject: String, sought: &Sought<'_>| {
        let inquiries = list_inquiries(lists.iter().copied(), sought);
        let (mut known, mut asked) = (ListFindings::default(), 0);
        for inquiry in &inquiries {
            let list = &plan.lists[inquiry.list];
            let Some(answer) = facts.answer(&inquiry.question) else { continue };
            match known.learn(list, inquiry, answer) {
                ListWord::Listed | ListWord::Unlisted => asked += 1,
                ListWord::Refused(code) => silent.push(format!("{} refuses to answer ({code})", list.name)),
                ListWord::Failed | ListWord::Unasked => silent.push(format!("{} does not answer", list.name)),
            }
        }
        let mut is_listed = false;
        for hit in known.hits().iter().filter(|hit| hit.weight > 0) {
            is_listed = true;
            let why = facts.texts(&hit.why.name).unwrap_or_default();
            let why: Vec<_> = why.iter().map(|text| shown(&String::from_utf8_lossy(text))).collect();
            let says = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
            let text = format!("it is on the list {} ({}){says}", hit.name, listed(&hit.codes));
            findings
                .push(Finding::new(Check::Dnsbl, Severity::Fail, &subject, text).remedy(
                    "find out what was sent that brought it there, then ask the list to take it off",
                ));
        }
        if asked > 0 && !is_listed {
            let text = format!("it is on none of the lists that were asked ({asked})");
            findings.push(Finding::new(Check::Dnsbl, Severity::Pass, subject, text));
        }
    };
    for own in &plan.addresses {
        about(own.address.to_string(), &Sought { address: Some(own.address), ..Sought::default() });
    }
    about(plan.domain.to_string(), &Sought { sender: author.as_ref(), ..Sought::default() });
    silent.dedup();
    if !silent.is_empty() {
        let text = format!("not all lists could be asked: {}", listed(&silent));
        findings.push(Finding::new(Check::Dnsbl, Severity::Note, &plan.domain, text).remedy(
            "many lists refuse those who ask by a resolver of the public: use one of your own (dns.servers)",
        ));
    }
}
