//! MTA-STS (RFC 8461): policies kept to, tried, changed, out of reach, and known over a restart.

use end_to_end::{Server, until};

use super::{Host, authority::Authority, check, policy_host::PolicyHost, send, zones::Zones};

const ENFORCE: &str = "200\ntext/plain\nversion: STSv1\nmode: enforce\nmx: good.plain.test\nmax_age: 86400\n";

#[test]
fn policies_of_domains() {
    let authority = Authority::new(&["good.plain.test"]);
    let domains =
        ["kept", "strange", "misnamed", "trial", "off", "moved", "html", "broken", "gone", "both.signed"];
    let full = |domain: &str| {
        if domain.contains('.') { format!("{domain}.test") } else { format!("{domain}.plain.test") }
    };
    let names: Vec<_> = domains
        .iter()
        .filter(|domain| **domain != "misnamed")
        .map(|d| format!("mta-sts.{}", full(d)))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut policies = PolicyHost::start(authority.issue("policies", &names));
    let host = Host::start(&authority, "");
    let (port, here, there) = (host.address().port(), host.address().ip(), policies.address().ip());
    let announce = |domain: &str, mx: &str| {
        let domain = full(domain);
        format!(
            "{domain}. MX 10 {mx}\n_mta-sts.{domain}. TXT \"v=STSv1; id=1;\"\nmta-sts.{domain}. A {there}"
        )
    };
    let mut plain: Vec<String> = domains[..9]
        .iter()
        .map(|domain| announce(domain, if *domain == "strange" { "other" } else { "good" }))
        .collect();
    plain.push(format!("good A {here}\nother A {here}"));
    // A host with records of its own, which the policy does not name.
    let signed = [
        announce("both.signed", "mx"),
        format!("mx A {here}\n_{port}._tcp.mx TLSA 3 1 1 {}", authority.key_digest("host")),
    ];
    let zones = Zones::start(&signed, &plain, port);
    for domain in ["kept", "strange", "misnamed", "both.signed"] {
        policies.says(&full(domain), ENFORCE);
    }
    policies.says(&full("trial"), &ENFORCE.replace("enforce", "testing").replace("good", "none"));
    policies.says(&full("off"), &ENFORCE.replace("enforce", "none"));
    policies.says(&full("moved"), &ENFORCE.replace("200", "302"));
    policies.says(&full("html"), &ENFORCE.replace("text/plain", "text/html"));
    policies.says(&full("broken"), &ENFORCE.replace("enforce", "strict"));
    let policy_port = policies.address().port();
    let configuration = |more: &str| {
        format!(
            "[cores]\ncount = 2\n[dns]\nservers = [\"{}\"]\nfailure-ttl = \"0s\"\n[queue]\ndestination-retry-min = \"1s\"\n\
             [outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
             [mta-sts]\nport = {}\n\
             [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n{more}",
            zones.address(),
            authority.certificate().display(),
            policy_port,
        )
    };
    let server = Server::start(&configuration(""));
    let to = |server: &Server, domain: &str, result: &str, policy: &str, reply: &str| {
        check(server, &full(domain), result, policy, reply);
    };
    let unnamed = "the MTA-STS policy of the domain does not name the mail host other.plain.test";
    to(&server, "kept", "delivered", "sts", "");
    to(&server, "kept", "delivered", "sts", "");
    to(&server, "strange", "deferred", "", unnamed);
    to(&server, "trial", "delivered", "sts-testing", "");
    to(&server, "off", "delivered", "opportunistic", "");
    to(&server, "both.signed", "delivered", "dane", "");
    // Policies that cannot be had: for now there is none (§5.1).
    for (domain, why) in [
        ("misnamed", "the policy host cannot be trusted"),
        ("moved", "the host answered 302"),
        ("html", "the host gave no text/plain"),
        ("broken", "the mode of the policy is not"),
        ("gone", "the host answered 404"),
    ] {
        to(&server, domain, "delivered", "opportunistic", "");
        // The mail goes on before it is told.
        let is_it = |event: &serde_json::Value| event["domain"] == *full(domain);
        let failed = until(domain, || server.events("policy_failed").into_iter().find(is_it));
        assert!(failed["error"].as_str().unwrap().contains(why), "{failed}");
    }
    // Each was fetched once, and nobody asks again so soon where there was none.
    to(&server, "gone", "delivered", "opportunistic", "");
    until("all policies are told of", || (server.events("policy_fetched").len() == 5).then_some(()));
    assert_eq!(policies.count(&full("kept")), 1);
    assert_eq!(server.events("policy_failed").len(), 5);
    let counted = |policy: &str, result: &str| {
        let labels = [format!("policy=\"{policy}\""), format!("result=\"{result}\"")];
        server.metric("ringpost_tls_policies_total", &[&labels[0], &labels[1]])
    };
    assert_eq!(counted("sts", "kept"), 2.0);
    // What would have failed, and is not to.
    assert_eq!(counted("sts-testing", "broken"), 1.0);
    // After a restart, and with nobody there who has the policies, they hold.
    policies.stop();
    let server = Server::restarted(server);
    to(&server, "kept", "delivered", "sts", "");
    to(&server, "strange", "deferred", "", unnamed);
    to(&server, "gone", "delivered", "opportunistic", "");
    // Who keeps to no policies, keeps to none.
    server.configure(&configuration("mta-sts = false\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    to(&server, "strange", "delivered", "opportunistic", "");
    policies.resume();
}

/// A host that the policy names, with a certificate that is not its own.
#[test]
fn a_host_that_is_not_what_it_is_called() {
    let authority = Authority::new(&["another.plain.test"]);
    let policies = PolicyHost::start(authority.issue("policies", &["mta-sts.kept.plain.test"]));
    policies.says("kept.plain.test", ENFORCE);
    let host = Host::start(&authority, "");
    let (port, here, there) = (host.address().port(), host.address().ip(), policies.address().ip());
    let plain = format!(
        "kept MX 10 good\ngood A {here}\n_mta-sts.kept TXT \"v=STSv1; id=1;\"\nmta-sts.kept A {there}"
    );
    let zones = Zones::start(&[], &[plain], port);
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n[dns]\nservers = [\"{}\"]\n\
         [outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n[mta-sts]\nport = {}\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n",
        zones.address(),
        authority.certificate().display(),
        policies.address().port(),
    ));
    check(&server, "kept.plain.test", "deferred", "sts", "the certificate was not accepted");
    assert_eq!(send(&server, "kept.plain.test")["status"], "4.7.5");
}
