//! The rules of RFC 7208 on limits, void look-ups, macros and identities, one by one, as a message meets them.
//!
//! `check_test.rs` goes through `check_host()` section by section, `record_test.rs` through the syntax; here is what lies between sections
//! and what each letter of a macro stands for in a look-up. A row is a rule, in the words of its section.

use super::{SpfProblem, SpfResult};
use crate::{
    EnvelopeVerdict, Limits,
    zone::{Zone, case},
};

/// What is found for a client that introduces itself as `client.example.net`; the null reverse-path where there is no sender.
fn envelope(zone: &str, address: &str, sender: &str) -> EnvelopeVerdict {
    let mut case =
        case(address, "client.example.net", sender, Limits { lookups_max: 1000, ..Limits::default() });
    Zone::parse(zone).envelope(&mut case)
}

struct Rule {
    section: &'static str,
    rule: &'static str,
    zone: String,
    /// Client, sender, result, and why where it is an error.
    cases: &'static [(&'static str, &'static str, SpfResult, Option<SpfProblem>)],
}

const ANN: &str = "ann@example.org";
const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

fn rule(section: &'static str, rule: &'static str, zone: impl Into<String>, cases: Cases) -> Rule {
    Rule { section, rule, zone: zone.into(), cases }
}

type Cases = &'static [(&'static str, &'static str, SpfResult, Option<SpfProblem>)];

/// So many terms that each find something else than the client.
fn terms(term: &str, n: usize, end: &str) -> String {
    format!(
        "example.org TXT v=spf1 {}{end}\nx.example A 203.0.113.1\nx.example MX 1 x.example\ny.example TXT v=spf1 -all",
        format!("{term} ").repeat(n)
    )
}

#[test]
fn limits() {
    use SpfProblem::{TooManyExchanges, TooManyTerms};
    use SpfResult::{Fail, Neutral, Pass, PermError};
    const WITHIN: Cases = &[(V4, ANN, Fail, None)];
    const OVER: Cases = &[(V4, ANN, PermError, Some(TooManyTerms))];
    let mut rules = Vec::new();
    for term in ["a:x.example", "mx:x.example", "ptr", "include:y.example"] {
        let text = "the include, a, mx, ptr, and exists mechanisms, and the redirect modifier";
        rules.push(rule("4.6.4", text, terms(term, 10, "-all"), WITHIN));
        rules.push(rule("4.6.4", text, terms(term, 11, "-all"), OVER));
        // The two that end it.
        for end in ["exists:x.example", "redirect=y.example"] {
            rules.push(rule("4.6.4", text, terms(term, 10, end), OVER));
        }
    }
    rules.extend([
        rule(
            "4.6.4",
            "the all, ip4, and ip6 mechanisms do not count",
            terms("ip4:203.0.113.1 ip6:2001:db8::2 ?ip4:203.0.113.2", 40, "-all"),
            WITHIN,
        ),
        rule(
            "4.6.4",
            "the limit is of evaluation: what follows a match is not looked up",
            terms("a:x.example", 10, "ip4:192.0.2.1 a:x.example -all"),
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, PermError, Some(TooManyTerms))],
        ),
        rule(
            "4.6.4",
            "terms of included records count, those behind a match in them do not",
            format!("{}\nz.example TXT v=spf1 ip4:192.0.2.1 a:x.example a:x.example", terms("a:x.example", 9, "include:z.example -all")),
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, PermError, Some(TooManyTerms))],
        ),
        rule(
            "4.6.4",
            "SPF implementations MUST limit the total number of those terms to 10, whatever leads in a circle",
            "example.org TXT v=spf1 include:y.example -all\ny.example TXT v=spf1 redirect=example.org",
            OVER,
        ),
        rule(
            "4.6.4",
            "the exp modifier does not cause a DNS lookup that counts",
            format!("{}\ne.example TXT no", terms("a:x.example", 10, "-all exp=e.example")),
            WITHIN,
        ),
        rule(
            "4.6.4",
            "the evaluation of each mx record MUST NOT result in querying more than 10 address records: permerror, even where one of them matches",
            (0..11).fold("example.org TXT v=spf1 mx -all\nm0.example A 192.0.2.1".to_owned(), |zone, i| {
                format!("{zone}\nexample.org MX {i} m{i}.example")
            }),
            &[(V4, ANN, PermError, Some(TooManyExchanges))],
        ),
        rule(
            "4.6.4",
            "if there are more than 10 PTR records, the first 10 are used: for %{p}, too",
            (0..10).fold("example.org TXT v=spf1 exists:%{p}.ok.example -all\nunknown.ok.example A 127.0.0.2".to_owned(), |zone, i| {
                format!("{zone}\n192.0.2.1 PTR p{i}.example\np{i}.example A 203.0.113.1")
            }) + "\n192.0.2.1 PTR good.example\ngood.example A 192.0.2.1",
            &[(V4, ANN, Pass, None)],
        ),
        rule("4.7", "if none of the mechanisms match and there is no redirect, neutral", "example.org TXT v=spf1 a:x.example\nx.example A 203.0.113.1", &[(V4, ANN, Neutral, None)]),
    ]);
    run(&rules);
}

#[test]
fn void_lookups() {
    use SpfProblem::TooManyVoid;
    use SpfResult::{Fail, Pass, PermError};
    const WITHIN: Cases = &[(V4, ANN, Fail, None)];
    const OVER: Cases = &[(V4, ANN, PermError, Some(TooManyVoid))];
    let both = "either a positive answer with an answer count of 0, or a \"Name Error\" answer";
    run(&[
        rule(
            "4.6.4",
            both,
            "example.org TXT v=spf1 a:empty.example a:none.example -all\nempty.example TXT x",
            WITHIN,
        ),
        rule(
            "4.6.4",
            both,
            "example.org TXT v=spf1 a:empty.example a:none.example mx:empty.example -all\nempty.example TXT x",
            OVER,
        ),
        rule(
            "4.6.4",
            both,
            "example.org TXT v=spf1 exists:a.example exists:b.example exists:c.example -all",
            OVER,
        ),
        rule(
            "4.6.4",
            "void lookups of included records count with the others",
            "example.org TXT v=spf1 a:a.example include:y.example a:b.example -all\ny.example TXT v=spf1 a:c.example -all",
            OVER,
        ),
        rule(
            "4.6.4",
            "void lookups of a redirected record do, too",
            "example.org TXT v=spf1 a:a.example a:b.example redirect=y.example\ny.example TXT v=spf1 a:c.example -all",
            OVER,
        ),
        rule(
            "4.6.4",
            "what follows a match is not looked up",
            "example.org TXT v=spf1 a:a.example a:b.example ip4:192.0.2.1 a:c.example -all",
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, PermError, Some(TooManyVoid))],
        ),
        rule(
            "5.5",
            "the reverse zone is the client's",
            "example.org TXT v=spf1 a:a.example a:b.example ptr ptr -all",
            WITHIN,
        ),
        rule(
            "6.2",
            "what an explanation needs is looked up when the result is there",
            "example.org TXT v=spf1 a:a.example a:b.example -all exp=none.example",
            WITHIN,
        ),
    ]);
}

#[test]
fn identities() {
    use SpfResult::{Fail, None as Nothing, Pass};
    run(&[
        rule(
            "2.4",
            "when the reverse-path is null, the identity is composed of the local-part \"postmaster\" and the HELO identity",
            "client.example.net TXT v=spf1 exists:%{l}.%{o}.ok.example -all\npostmaster.client.example.net.ok.example A 127.0.0.2",
            &[(V4, "", Pass, None), (V4, ANN, Nothing, None)],
        ),
        rule(
            "5",
            "when an IPv4 address is mapped into IPv6, it is an IPv4 address",
            "example.org TXT v=spf1 ip4:192.0.2.1 exists:%{v}.no.example -all",
            &[("::ffff:192.0.2.1", ANN, Pass, None), ("::ffff:192.0.2.2", ANN, Fail, None)],
        ),
        rule(
            "5",
            "mechanisms of one family never match addresses of the other",
            "example.org TXT v=spf1 ip4:0.0.0.0/0 a:x.example//0 -all\nx.example A 192.0.2.1",
            &[(V6, ANN, Fail, None)],
        ),
        rule(
            "4.3",
            "a name that is no multi-label domain name has no result",
            "localhost TXT v=spf1 +all",
            &[(V4, "ann@localhost", Nothing, None)],
        ),
    ]);
    // "It is RECOMMENDED [...] if the <domain> [...] is not a multi-label domain name": a literal is none (sections 2.3, 4.3).
    for helo in ["[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "", "192.0.2.1."] {
        let mut case = case(V4, helo, "", Limits::default());
        let found = Zone::parse("localhost TXT v=spf1 -all").envelope(&mut case);
        assert_eq!((found.helo.result, found.mail_from.result), (Nothing, Nothing), "{helo}");
    }
    // The HELO identity has its own result (section 2.3).
    let zone = "client.example.net TXT v=spf1 ip4:192.0.2.1 -all\nexample.org TXT v=spf1 ?all";
    let found = envelope(zone, V4, ANN);
    assert_eq!((found.helo.result, found.mail_from.result), (Pass, SpfResult::Neutral));
    assert_eq!(envelope(zone, "192.0.2.2", ANN).helo.result, Fail);
}

#[test]
fn macros_in_lookups() {
    use SpfResult::{Fail, Pass, PermError};
    const FOUND: Cases = &[(V4, "Strong-Bad.x+y@sub.example.org", Pass, None)];
    let mut rules = Vec::new();
    for (section, text, asked) in [
        ("7.2", "%{s}.t.example", "strong-bad.x+y@sub.example.org.t.example"),
        ("7.2", "%{l}.t.example", "strong-bad.x+y.t.example"),
        ("7.2", "%{o}.t.example", "sub.example.org.t.example"),
        ("7.2", "%{d}.t.example", "sub.example.org.t.example"),
        ("7.2", "%{i}.t.example", "192.0.2.1.t.example"),
        ("7.2", "%{p}.t.example", "unknown.t.example"),
        ("7.2", "%{v}.t.example", "in-addr.t.example"),
        ("7.2", "%{h}.t.example", "client.example.net.t.example"),
        ("7.3", "%{d1}.t.example", "org.t.example"),
        ("7.3", "%{d2}.t.example", "example.org.t.example"),
        ("7.3", "%{d9}.t.example", "sub.example.org.t.example"),
        ("7.3", "%{dr}.t.example", "org.example.sub.t.example"),
        ("7.3", "%{d2r}.t.example", "example.sub.t.example"),
        ("7.3", "%{ir}.%{v}.t.example", "1.2.0.192.in-addr.t.example"),
        ("7.3", "%{l-}.t.example", "strong.bad.x+y.t.example"),
        ("7.3", "%{l1r-.+}.t.example", "strong.t.example"),
        ("7.3", "%{l+.}.t.example", "strong-bad.x.y.t.example"),
        ("7.3", "%{L}.t.example", "strong-bad.x%2By.t.example"),
        ("7.3", "%{S1}.t.example", "org.t.example"),
        ("7.1", "%%%_%-x.t.example", "% %20x.t.example"),
        ("7.1", "a%{l1r-}b.t.example", "astrongb.t.example"),
    ] {
        let zone = format!("sub.example.org TXT v=spf1 exists:{text} -all");
        rules.push(rule(section, text, zone, FOUND));
        let Some(last) = rules.last_mut() else { unreachable!() };
        last.zone += &format!("\nASKED {asked}");
    }
    for row in &rules {
        // The name is put in by itself: it has characters that a line of a zone has not.
        let (zone, asked) = row.zone.split_once("\nASKED ").unwrap();
        let mut zone = Zone::parse(zone);
        zone.add(asked, crate::zone::Data::Address([127, 0, 0, 2].into()));
        let (address, sender, expected, _) = row.cases[0];
        let mut case = case(address, "client.example.net", sender, Limits::default());
        let found = zone.envelope(&mut case).mail_from.result;
        assert_eq!(found, expected, "RFC 7208 §{}: {} asks for {asked}", row.section, row.rule);
    }
    run(&[
        rule(
            "7.2",
            "<domain> of an included record is its own, and <sender> stays",
            "example.org TXT v=spf1 include:y.example -all\ny.example TXT v=spf1 exists:%{d}.%{o}.ok.example\n\
             y.example.example.org.ok.example A 127.0.0.2",
            &[(V4, ANN, Pass, None)],
        ),
        rule(
            "6.1",
            "the domain of a redirected record is the new one",
            "example.org TXT v=spf1 redirect=y.example\ny.example TXT v=spf1 exists:%{d}.%{o}.ok.example -all\n\
             y.example.example.org.ok.example A 127.0.0.2",
            &[(V4, ANN, Pass, None)],
        ),
        rule(
            "7.2",
            "%{p} is \"unknown\" if a DNS error occurs",
            "example.org TXT v=spf1 exists:%{p}.ok.example -all\nunknown.ok.example A 127.0.0.2\n192.0.2.1 TIMEOUT",
            &[(V4, ANN, Pass, None)],
        ),
        rule(
            "7.3",
            "IPv6 addresses are dot-separated hexadecimal digits",
            "example.org TXT v=spf1 exists:%{ir}.%{v}.ok.example -all\n\
             1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.ok.example A 127.0.0.2",
            &[(V6, ANN, Pass, None), (V4, ANN, Fail, None)],
        ),
        rule(
            "7.1",
            "c, r and t are for explanations alone",
            "example.org TXT v=spf1 exists:%{c}.ok.example -all",
            &[(V4, ANN, PermError, Some(SpfProblem::Syntax))],
        ),
    ]);
}

#[test]
fn terms_and_modifiers() {
    use SpfResult::{Fail, Neutral, Pass};
    run(&[
        rule(
            "6",
            "modifiers may stand anywhere: the redirect counts when nothing has matched",
            "example.org TXT v=spf1 redirect=y.example ip4:192.0.2.1\ny.example TXT v=spf1 ?all",
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, Neutral, None)],
        ),
        rule(
            "6",
            "unrecognized modifiers MUST be ignored no matter where, or how often, they appear",
            "example.org TXT v=spf1 moo=1 ip4:192.0.2.1 moo=2 moo=%{d} -all x.y_z-1=",
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, Fail, None)],
        ),
        rule(
            "4.6.1",
            "mechanism and modifier names are case-insensitive, and so is the version",
            "example.org TXT V=SPF1 IP4:192.0.2.1 InClude:y.example A:x.example REDIRECT=z.example EXP=e.example\n\
             y.example TXT v=Spf1 ip4:192.0.2.2\nx.example A 192.0.2.3\nz.example TXT v=spf1 -ALL",
            &[
                (V4, ANN, Pass, None),
                ("192.0.2.2", ANN, Pass, None),
                ("192.0.2.3", ANN, Pass, None),
                ("192.0.2.4", ANN, Fail, None),
            ],
        ),
        rule(
            "6",
            "redirect and exp MUST NOT appear in a record more than once each, whatever their case",
            "example.org TXT v=spf1 exp=e.example EXP=e.example +all",
            &[(V4, ANN, SpfResult::PermError, Some(SpfProblem::Syntax))],
        ),
        rule(
            "4.6.4",
            "a redirect counts when it is followed, and not where it stands",
            "example.org TXT v=spf1 redirect=y.example a:x.example a:x.example a:x.example a:x.example a:x.example \
             a:x.example a:x.example a:x.example a:x.example a:x.example ip4:192.0.2.1\nx.example A 203.0.113.1\n\
             y.example TXT v=spf1 +all",
            &[
                (V4, ANN, Pass, None),
                ("192.0.2.2", ANN, SpfResult::PermError, Some(SpfProblem::TooManyTerms)),
            ],
        ),
        rule(
            "5.4",
            "exchanges are looked up in the order of preference until one matches",
            "example.org TXT v=spf1 mx -all\nexample.org MX 1 m1.example\nexample.org MX 2 n1.example\n\
             example.org MX 3 n2.example\nexample.org MX 4 n3.example\nm1.example A 192.0.2.1",
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, SpfResult::PermError, Some(SpfProblem::TooManyVoid))],
        ),
        rule(
            "6.1",
            "a redirect is ignored where there is an all",
            "example.org TXT v=spf1 redirect=none.example -all",
            &[(V4, ANN, Fail, None)],
        ),
        rule(
            "5.5",
            "the <target-name> of ptr is what the names must lie within",
            "example.org TXT v=spf1 ptr:other.example -all\n192.0.2.1 PTR mx.other.example\nmx.other.example A 192.0.2.1",
            &[(V4, ANN, Pass, None), ("192.0.2.2", ANN, Fail, None)],
        ),
        rule(
            "5.2",
            "include is no \"include\" of text: its fail is no match",
            "example.org TXT v=spf1 include:y.example ip4:192.0.2.1 -all\ny.example TXT v=spf1 -all",
            &[(V4, ANN, Pass, None)],
        ),
        rule(
            "5.6",
            "bits behind the prefix do not count",
            "example.org TXT v=spf1 ip4:192.0.2.77/24 ip6:2001:db8:0:0:f::/64 -all",
            &[(V4, ANN, Pass, None), (V6, ANN, Pass, None), ("192.0.3.1", ANN, Fail, None)],
        ),
    ]);
}

fn run(rules: &[Rule]) {
    for Rule { section, rule, zone, cases } in rules {
        for (address, sender, result, problem) in *cases {
            let found = envelope(zone, address, sender).mail_from;
            let expected = (*result, *problem);
            assert_eq!(
                (found.result, found.problem),
                expected,
                "RFC 7208 §{section}: {rule}\n{zone}\n{address} {sender}"
            );
        }
    }
}
