//! Where the domain's own mail goes: its hosts, their TLS, and what it says of that.

use std::net::IpAddr;

use delivery::{
    dane::{DaneRecord, DaneUsage, Matching, Selector, usable},
    sts::{Mode, Policy, record_id},
};
use dns::{Exchange, ExchangeHost, Kind, Name, Question};
use tls::{Association, Dane, Form, Holder, Part};
use trust::{Facts, Lack, is_public};

use crate::{
    Check, Errands, Finding, HostProbe, PolicyErrand, Severity,
    checkup::{Bench, HostSeen},
    is_open,
    words::{listed, shown},
};

/// Hosts that are looked at.
const HOSTS_MAX: usize = 10;
/// A certificate that ends sooner should have been renewed.
const DAYS_MIN: u16 = 14;
/// A policy that holds for less protects little (RFC 8461 §3.2 has weeks in mind).
const MAX_AGE_MIN: u32 = 86_400;

/// A host of the domain.
struct Host {
    name: Name,
    addresses: Vec<IpAddr>,
}

pub(crate) fn judge(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>, errands: &mut Errands) {
    let domain = &bench.plan.domain;
    let hosts = exchanges(bench, facts, findings);
    let mode = policy(bench, facts, &hosts, findings, errands);
    reports(bench, facts, findings);
    let is_proven = facts.is_proven(domain, Kind::Mx);
    for host in &hosts {
        let proof = associations(bench, facts, host, is_proven, findings);
        transport(bench, host, (proof, mode), findings);
    }
    if bench.plan.connects {
        let reachable = hosts.into_iter().filter(|host| !host.addresses.is_empty());
        errands.hosts = reachable.map(|host| (host.name, host.addresses)).collect();
    }
}

/// The hosts, as far as they are such.
fn exchanges(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) -> Vec<Host> {
    let domain = &bench.plan.domain;
    let finding = |severity, text: String| Finding::new(Check::Mx, severity, domain, text);
    let own_host = bench.plan.addresses.first().map_or("mail.example.org", |own| own.ehlo.as_str());
    let own_host = Name::parse(own_host).ok().filter(is_public);
    let record = |finding: Finding| match &own_host {
        Some(host) => finding.publish(domain, "MX", format!("10 {host}.")),
        None => finding,
    };
    let exchanges: Vec<Exchange> = match facts.exchanges(domain) {
        Ok([Exchange { host: ExchangeHost::Null, .. }]) => {
            let text = "it takes no mail (a null MX): many hosts refuse mail from those who cannot be answered (RFC \
                7505 §4.2)";
            findings.push(record(
                finding(Severity::Warn, text.to_owned())
                    .remedy("have a host that takes its mail, in the place of the null MX"),
            ));
            return Vec::new();
        }
        Ok(exchanges) => {
            if exchanges.len() > HOSTS_MAX {
                let text =
                    format!("it has {} MX records, of which {HOSTS_MAX} are looked at", exchanges.len());
                findings.push(finding(Severity::Note, text));
            }
            exchanges.iter().take(HOSTS_MAX).cloned().collect()
        }
        Err(Lack::Unknown) => {
            findings
                .push(finding(Severity::Warn, "the DNS does not tell now where its mail goes".to_owned()));
            return Vec::new();
        }
        Err(Lack::NxDomain) => {
            let text = "it does not exist: whoever looks for the sender's domain refuses the mail".to_owned();
            findings.push(record(finding(Severity::Fail, text).remedy("publish its records")));
            return Vec::new();
        }
        Err(Lack::NoData) => {
            let (found, unknown) = addresses(facts, domain);
            if found.is_empty() {
                let (severity, text) = match unknown {
                    true => (Severity::Warn, "the DNS does not tell now where its mail goes"),
                    false => {
                        (Severity::Fail, "it has neither an MX record nor an address: nobody can be answered")
                    }
                };
                findings.push(record(
                    finding(severity, text.to_owned()).remedy("have a host that takes its mail"),
                ));
                return Vec::new();
            }
            let text = "it has no MX record, so that it is its own host (RFC 5321 §5.1)".to_owned();
            findings.push(finding(Severity::Note, text).publish(domain, "MX", format!("10 {domain}.")));
            let found = reachable(bench, Check::Mx, domain, found, findings);
            return vec![Host { name: domain.clone(), addresses: found }];
        }
    };
    let mut hosts = Vec::new();
    for Exchange { host, .. } in exchanges {
        let ExchangeHost::Name(name) = host else {
            findings.push(
                finding(Severity::Fail, "an MX record names what is no host".to_owned())
                    .remedy("name a host by its name: not by an address, and not the root beside others"),
            );
            continue;
        };
        let of_host = |severity, text: &str| Finding::new(Check::Mx, severity, &name, text.to_owned());
        let aliases = [Kind::A, Kind::Aaaa].map(|kind| {
            let answer = facts.answer(&Question { name: name.clone(), kind });
            answer.is_some_and(|answer| answer.alias_of.is_some())
        });
        if aliases.contains(&true) {
            findings.push(
                of_host(
                    Severity::Warn,
                    "it is an alias (CNAME), which the host of an MX record must not be (RFC 5321 §5.1)",
                )
                .remedy("name in the MX record the host that the alias leads to"),
            );
        }
        let (found, unknown) = addresses(facts, &name);
        if found.is_empty() {
            findings.push(match unknown {
                true => of_host(Severity::Warn, "the DNS does not tell now which addresses it has"),
                false => {
                    of_host(Severity::Fail, "it has no address: mail for the domain waits or comes back")
                        .remedy("give it an address, or take it out of the MX records")
                }
            });
        } else {
            findings.push(of_host(Severity::Pass, &format!("it takes mail at {}", listed(&found))));
        }
        let found = reachable(bench, Check::Mx, &name, found, findings);
        hosts.push(Host { name, addresses: found });
    }
    hosts
}

/// Those of a host's addresses that are connected to, which others can reach as well.
fn reachable(
    bench: &Bench,
    check: Check,
    host: &Name,
    found: Vec<IpAddr>,
    findings: &mut Vec<Finding>,
) -> Vec<IpAddr> {
    let (open, closed): (Vec<IpAddr>, Vec<IpAddr>) =
        found.into_iter().partition(|address| bench.plan.is_trial() || is_open(*address));
    if !closed.is_empty() {
        let text = format!("it has what is no address of the open network: {}", listed(&closed));
        findings.push(
            Finding::new(check, Severity::Warn, host, text)
                .remedy("take it out of the DNS; nothing connects there to look at it"),
        );
    }
    open
}

/// All addresses of a name, and whether there may be more.
pub(crate) fn addresses(facts: &Facts, name: &Name) -> (Vec<IpAddr>, bool) {
    let (mut found, mut unknown) = (Vec::new(), false);
    for kind in [Kind::Aaaa, Kind::A] {
        match facts.addresses(name, kind) {
            Ok(addresses) => found.extend_from_slice(addresses),
            Err(Lack::Unknown) => unknown = true,
            Err(Lack::NoData | Lack::NxDomain) => {}
        }
    }
    (found, unknown)
}

/// What the domain says of the TLS of its hosts by HTTPS (RFC 8461), and how it means that.
fn policy(
    bench: &Bench,
    facts: &Facts,
    hosts: &[Host],
    findings: &mut Vec<Finding>,
    errands: &mut Errands,
) -> Option<Mode> {
    let domain = &bench.plan.domain;
    let at = format!("_mta-sts.{domain}");
    let record = |finding: Finding| finding.publish(&at, "TXT", format!("v=STSv1; id={}", bench.at.secs()));
    let text = |severity, text: &str| Finding::new(Check::MtaSts, severity, &at, text.to_owned());
    let texts = match Name::parse(&at).map(|name| facts.texts(&name)) {
        Ok(Ok(texts)) => texts,
        Ok(Err(Lack::Unknown)) => {
            findings.push(text(Severity::Warn, "the DNS does not tell now whether there is a policy"));
            return None;
        }
        Ok(Err(Lack::NoData | Lack::NxDomain)) | Err(_) => &[],
    };
    let names: Vec<_> = hosts.iter().map(|host| format!("mx: {}", host.name)).collect();
    let file = format!(
        "serve at https://mta-sts.{domain}/.well-known/mta-sts.txt the lines \"version: STSv1\", \"mode: testing\", \
            \"max_age: 604800\", {}",
        listed(names.iter().map(|line| format!("\"{line}\"")))
    );
    if record_id(texts).is_none() {
        let announced = texts.iter().any(|text| text.to_ascii_lowercase().starts_with(b"v=stsv1"));
        findings.push(record(match announced {
            true => text(
                Severity::Fail,
                "the record of the policy is malformed, or there is more than one: nobody finds the policy",
            )
            .remedy("have this one in the place of what is there"),
            false => {
                text(Severity::Note, "there is no policy about the TLS of its hosts (MTA-STS)").remedy(file)
            }
        }));
        return None;
    }
    let Ok(host) = Name::parse(&format!("mta-sts.{domain}")) else { return None };
    let of_host = |severity, text: String| Finding::new(Check::MtaSts, severity, &host, text);
    let (found, unknown) = addresses(facts, &host);
    if found.is_empty() {
        findings.push(match unknown {
            true => of_host(Severity::Warn, "the DNS does not tell now where the policy is".to_owned()),
            false => {
                of_host(Severity::Fail, "there is a record of a policy, and no host that has it".to_owned())
                    .remedy(format!("give {host} the address of a web server; {file}"))
            }
        });
        return None;
    }
    let found = reachable(bench, Check::MtaSts, &host, found, findings);
    if found.is_empty() {
        return None;
    }
    errands.policy = Some(PolicyErrand { host: host.clone(), addresses: found });
    let body = match bench.gathered.policy.as_ref()? {
        Ok(body) => body,
        Err(why) => {
            let text = format!("there is a record of a policy, and the policy cannot be had: {}", shown(why));
            findings.push(of_host(Severity::Fail, text).remedy(file));
            return None;
        }
    };
    let policy = match Policy::parse(body) {
        Ok(policy) => policy,
        Err(error) => {
            findings
                .push(of_host(Severity::Fail, format!("the policy counts nothing: {error}")).remedy(file));
            return None;
        }
    };
    let left_out: Vec<_> =
        hosts.iter().filter(|host| !policy.names(&host.name)).map(|host| &host.name).collect();
    if !left_out.is_empty() && policy.mode != Mode::None {
        let severity = if policy.mode == Mode::Enforce { Severity::Fail } else { Severity::Warn };
        let text =
            format!("the policy leaves out {}: whoever keeps to it sends nothing there", listed(&left_out));
        let lines = listed(left_out.iter().map(|name| format!("\"mx: {name}\"")));
        findings.push(record(
            of_host(severity, text).remedy(format!("add {lines} to the policy, and change its id")),
        ));
    }
    if policy.max_age < MAX_AGE_MIN && policy.mode != Mode::None {
        let text = format!("the policy holds for {} seconds alone", policy.max_age);
        findings
            .push(of_host(Severity::Note, text).remedy("let it hold for weeks, such as max_age: 1209600"));
    }
    let (severity, text) = match policy.mode {
        Mode::Enforce => (Severity::Pass, "the policy is enforced"),
        Mode::Testing => (Severity::Note, "the policy is there for a trial (mode: testing)"),
        Mode::None => (Severity::Note, "the policy says that there is none (mode: none)"),
    };
    findings.push(of_host(severity, text.to_owned()));
    Some(policy.mode)
}

/// Where reports about TLS go (RFC 8460 §3).
fn reports(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) {
    let domain = &bench.plan.domain;
    let at = format!("_smtp._tls.{domain}");
    let finding = |severity, text: &str| Finding::new(Check::TlsRpt, severity, &at, text.to_owned());
    let record = |finding: Finding| {
        finding.publish(&at, "TXT", format!("v=TLSRPTv1; rua=mailto:tls-reports@{domain}"))
    };
    let texts = match Name::parse(&at).map(|name| facts.texts(&name)) {
        Ok(Ok(texts)) => texts,
        Ok(Err(Lack::Unknown)) => {
            return findings
                .push(finding(Severity::Warn, "the DNS does not tell now whether reports are wanted"));
        }
        Ok(Err(Lack::NoData | Lack::NxDomain)) | Err(_) => &[],
    };
    let announced = texts.iter().any(|text| text.to_ascii_lowercase().starts_with(b"v=tlsrptv"));
    findings.push(match (report::tls::rua(texts).len(), announced) {
        (0, false) => record(
            finding(Severity::Note, "nobody is told when others cannot send under TLS (TLSRPT)")
                .remedy("have an address that reads the reports, and name it"),
        ),
        (0, true) => record(
            finding(
                Severity::Warn,
                "the record is malformed, or there is more than one: there are no reports",
            )
            .remedy("have one in the place of what is there, with an address that reads the reports"),
        ),
        (places, _) => {
            let s = if places == 1 { "" } else { "s" };
            finding(Severity::Pass, &format!("reports about TLS go to {places} place{s}"))
        }
    });
}

/// Whether the records of the zone prove the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Yes,
    No,
}

/// What the zone says of a host's certificate (RFC 7672).
fn associations(
    bench: &Bench,
    facts: &Facts,
    host: &Host,
    is_proven: bool,
    findings: &mut Vec<Finding>,
) -> Proof {
    let Ok(at) = host.name.tlsa(bench.plan.port) else { return Proof::No };
    let finding = |severity, text: &str| Finding::new(Check::Dane, severity, &at, text.to_owned());
    let seen = match bench.gathered.hosts.get(&host.name) {
        Some(HostProbe::Secure(seen)) => Some(seen),
        Some(HostProbe::Unreachable(_) | HostProbe::NoStartTls | HostProbe::Broken(_)) | None => None,
    };
    let record = |finding: Finding| match seen.and_then(|seen| tls::key_digest(seen.chain.first()?)) {
        Some(digest) => {
            let digits: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
            finding.publish(&at, "TLSA", format!("3 1 1 {digits}"))
        }
        None => finding,
    };
    let found = facts.associations(&at);
    let host_is_proven = [Kind::A, Kind::Aaaa].into_iter().any(|kind| facts.is_proven(&host.name, kind));
    let records = match found {
        Ok(records) => records,
        Err(Lack::Unknown) if host_is_proven => {
            let text = "the DNS does not tell the TLSA records, or proves them wrong: whoever keeps to DANE sends \
                nothing there";
            findings.push(
                finding(Severity::Fail, text)
                    .remedy("sign the zone anew; servers of the zone must answer for TLSA"),
            );
            return Proof::No;
        }
        Err(Lack::Unknown) => {
            findings
                .push(finding(Severity::Warn, "the DNS does not tell now whether there are TLSA records"));
            return Proof::No;
        }
        Err(Lack::NoData | Lack::NxDomain) if is_proven && host_is_proven => {
            findings.push(record(
                finding(Severity::Note, "the zones are signed, and there are no TLSA records (DANE)").remedy(
                    "see that this is the key of your host, and publish it only where a renewed certificate keeps \
                        its key, or the record of the next key is published before: else whoever keeps to DANE sends nothing there",
                ),
            ));
            return Proof::No;
        }
        Err(Lack::NoData | Lack::NxDomain) => {
            let text = "the zones of the domain and its host are not signed (DNSSEC), or our resolver does not say \
                so: there is no DANE";
            findings.push(finding(Severity::Note, text));
            return Proof::No;
        }
    };
    if !is_proven || !host_is_proven || !facts.is_proven(&at, Kind::Tlsa) {
        let text = "there are TLSA records, and the zones are not signed, or our resolver does not say so: they \
            count nothing";
        findings.push(
            finding(Severity::Warn, text).remedy("sign the zones of the domain and of the host (DNSSEC)"),
        );
        return Proof::No;
    }
    let usable = usable(records);
    if usable.is_empty() {
        let text = "none of the TLSA records means anything for mail (RFC 7672 §3.1.3)";
        findings.push(record(
            finding(Severity::Warn, text).remedy("publish one for the key of the certificate (3 1 1)"),
        ));
        return Proof::No;
    }
    let Some(seen) = seen else {
        let text = "there are TLSA records, and the certificate could not be compared with them";
        findings.push(finding(Severity::Note, text));
        return Proof::No;
    };
    let dane = Dane {
        records: usable.iter().map(association).collect(),
        names: vec![host.name.to_string(), bench.plan.domain.to_string()],
    };
    if dane.proves_at(&seen.chain, bench.at.secs()) {
        findings.push(finding(Severity::Pass, "a TLSA record proves the certificate"));
        return Proof::Yes;
    }
    let shown = listed(usable.iter().map(ToString::to_string));
    let text = format!(
        "no TLSA record is that of the certificate: whoever keeps to DANE sends nothing there; they are {shown}"
    );
    findings.push(record(
        finding(Severity::Fail, &text)
            .remedy("publish the record of the new certificate before that is put in its place"),
    ));
    Proof::No
}

/// What `delivery` has read, in the words of `tls`.
fn association(record: &DaneRecord) -> Association {
    Association {
        holder: match record.usage {
            DaneUsage::TrustAnchor => Holder::Authority,
            DaneUsage::EndEntity => Holder::Server,
        },
        part: match record.selector {
            Selector::Certificate => Part::Certificate,
            Selector::PublicKey => Part::PublicKey,
        },
        form: match record.matching {
            Matching::Full => Form::Full,
            Matching::Sha256 => Form::Sha256,
            Matching::Sha512 => Form::Sha512,
        },
        data: record.data.clone(),
    }
}

/// What the host has shown.
fn transport(bench: &Bench, host: &Host, (proof, mode): (Proof, Option<Mode>), findings: &mut Vec<Finding>) {
    let Some(probe) = bench.gathered.hosts.get(&host.name) else { return };
    let finding = |severity, text: String| Finding::new(Check::Tls, severity, &host.name, text);
    let HostSeen { version, trusted, days_left, .. } = match probe {
        HostProbe::Secure(seen) => seen,
        HostProbe::Unreachable(why) => {
            let text = format!("it takes no mail from here: {}", shown(why));
            return findings.push(
                finding(Severity::Fail, text)
                    .remedy("see that it runs, and that nothing on the way blocks the port of SMTP"),
            );
        }
        HostProbe::NoStartTls => {
            return findings.push(
                finding(
                    Severity::Fail,
                    "it does not offer STARTTLS: mail to it can be read on the way".to_owned(),
                )
                .remedy("give it a certificate, and its listener tls = \"starttls\""),
            );
        }
        HostProbe::Broken(why) => {
            let text = format!("it offers STARTTLS, and no TLS comes of it: {}", shown(why));
            return findings
                .push(finding(Severity::Fail, text).remedy("look at its certificate and at its log"));
        }
    };
    // What DANE proves needs no authority (RFC 7672 §3.1.1).
    let severity = match (proof, mode) {
        (_, Some(Mode::Enforce)) => Severity::Fail,
        (Proof::Yes, _) => Severity::Note,
        (Proof::No, _) => Severity::Warn,
    };
    let renew = "let its certificate be renewed by itself, some weeks before it ends";
    findings.push(match (trusted, days_left) {
        (Err(why), _) => {
            let text =
                format!("it speaks {version}, and its certificate is not good for its name: {}", shown(why));
            finding(severity, text).remedy(format!(
                "give it a certificate for {} by an authority that others believe",
                host.name
            ))
        }
        (Ok(()), Some(days)) if *days < DAYS_MIN => {
            let severity = if *days < 3 { Severity::Fail } else { Severity::Warn };
            finding(severity, format!("it speaks {version}, and its certificate ends in {days} days"))
                .remedy(renew)
        }
        (Ok(()), _) => {
            finding(Severity::Pass, format!("it speaks {version}, and its certificate is good for its name"))
        }
    });
}
