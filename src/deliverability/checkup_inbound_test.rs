//! Where the domain's own mail goes, and what else it says of itself.

use super::*;

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

/// What the owner of a domain writes into the DNS leads nobody behind our walls.
#[test]
fn what_is_not_in_the_open_network_is_not_connected_to() {
    let errands = |world: &World| {
        let (zone, now) = (Zone::parse(&world.zone), Duration::from_secs(7));
        let mut checkup = Checkup::open(world.plan.clone(), AT, now);
        loop {
            match checkup.errands(now) {
                Judged::Known(errands) => break errands,
                Judged::Missing(questions) => learn(&mut checkup, &zone, questions, world.security),
            }
        }
    };
    let mut world = World::new()
        .with("mx.example.org A", "mx.example.org A 127.0.0.1")
        .with("mta-sts.example.org A", "mta-sts.example.org A 169.254.169.254");
    let Errands { policy, hosts, picture: _ } = errands(&world);
    assert_eq!((policy, hosts), (None, Vec::new()));
    let mx = "warn mx.example.org: it has what is no address of the open network: 127.0.0.1";
    assert_eq!(world.says(Check::Mx), [mx]);
    assert_eq!(world.says(Check::MtaSts).len(), 1);
    // Beside others it is left out.
    world = world.and("mx.example.org AAAA 2001:db8::25");
    let hosts = errands(&world).hosts;
    assert_eq!(hosts[0].1, ["2001:db8::25".parse::<IpAddr>().unwrap()]);
    // A trial has a port of its own.
    world.plan.port = 2525;
    assert_eq!(errands(&world).hosts[0].1.len(), 2);
    assert!(errands(&world).policy.is_some());
}

/// A message with such a link is judged as others judge it.
#[test]
fn links_to_leave_a_list_are_judged() {
    let warned = "warn example.org: messages get a link to leave a list, and nobody shows a button for it: ";
    let no_key =
        World::new().with("r1._domainkey.example.org TXT", "").with("e1._domainkey.example.org TXT", "");
    check(no_key, Check::Unsubscribe, &[&format!("{warned}no good signature covers it")]);
    let mut local = World::new();
    local.plan.unsubscribe = UnsubscribeLinks::Used("https://localhost/u/1".into());
    check(
        local,
        Check::Unsubscribe,
        &[&format!("{warned}the link of List-Unsubscribe leads to no host of the open network")],
    );
}
