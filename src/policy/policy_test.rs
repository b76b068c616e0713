//! Who may send what to whom.

use config::{Checks, Limits, Source, Tolerance};
use mail::Utf8;
use message::{HeaderLimits, HeaderScan};

use super::*;

const CONFIG: &str = "hostname = \"mx.example.org\"\n[relay]\nnetworks = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n\
    [[domain]]\nname = \"example.org\"\nkind = \"local\"\n[[domain]]\nname = \"example.net\"\n\
    [[domain]]\nname = \"[192.0.2.25]\"\n[[listener]]\nname = \"a\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n";

const OWN: Client = Client { standing: Standing::Own, role: Role::Relay };
const STRANGER: Client = Client { standing: Standing::Stranger, role: Role::Relay };

fn policy() -> Policy {
    let config = Config::from_sources(&[Source { file: "c.toml".into(), text: CONFIG.into() }]);
    Policy::new(&config.unwrap())
}

fn path(text: &str) -> ForwardPath {
    if text == "postmaster" { ForwardPath::Postmaster } else { ForwardPath::Address(text.parse().unwrap()) }
}

#[test]
fn strangers_reach_our_domains_alone() {
    let policy = policy();
    let check = |text: &str, expected| {
        assert_eq!(policy.rcpt(STRANGER, &path(text), Routed::Yes), expected, "{text}");
        assert_eq!(policy.rcpt(OWN, &path(text), Routed::Yes), Ok(()), "{text}");
    };
    let denied = Err(Refusal::RelayDenied);
    check("ann@example.org", Ok(()));
    check("ann@EXAMPLE.net", Ok(()));
    check("ann@[192.0.2.25]", Ok(()));
    check("postmaster", Ok(()));
    check("Postmaster@mx.example.org", Ok(()));
    check("ann@mx.example.org", denied);
    check("ann@sub.example.org", denied);
    check("ann@notexample.org", denied);
    check("ann@example.com", denied);
    check("ann@[192.0.2.26]", denied);
    check("ann%example.com@example.net", denied);
    check("example.com!ann@example.net", denied);
    check("\"ann@example.com\"@example.net", denied);
    check("\"@example.com:ann@example.com\"@example.net", denied);
    check("\"a b\"@example.net", Ok(()));
}

#[test]
fn a_new_configuration_is_no_open_relay() {
    let policy = Policy::new(&Config::default());
    for address in ["192.0.2.1", "10.0.0.1", "192.168.0.1", "2001:db8::1", "fe80::1", "::ffff:192.0.2.1"] {
        let standing = policy.standing(Some(address.parse().unwrap()));
        assert_eq!(standing, Standing::Stranger, "{address}");
    }
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(policy.standing(Some(address.parse().unwrap())), Standing::Own, "{address}");
    }
    assert_eq!(policy.standing(None), Standing::Own, "by a Unix socket");
    let verdict = policy.rcpt(STRANGER, &path("ann@example.com"), Routed::Yes);
    assert_eq!(verdict, Err(Refusal::RelayDenied));
}

#[test]
fn a_unix_socket_is_this_host_and_no_more() {
    let mut config = Config::default();
    config.relay.networks = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(Policy::new(&config).standing(None), Standing::Stranger);
}

#[test]
fn mail_without_a_road_is_not_taken() {
    let policy = policy();
    assert_eq!(policy.rcpt(OWN, &path("ann@example.com"), Routed::No), Err(Refusal::Policy));
    assert_eq!(policy.rcpt(STRANGER, &path("ann@example.com"), Routed::No), Err(Refusal::RelayDenied));
}

#[test]
fn submission_is_for_our_own() {
    let policy = policy();
    let check = |standing, role, expected| {
        let client = Client { standing, role };
        assert_eq!(policy.mail(client, &ReversePath::Null), expected, "{client:?}");
    };
    check(Standing::Own, Role::Submission, Ok(()));
    check(Standing::Stranger, Role::Submission, Err(Refusal::AuthenticationRequired));
    check(Standing::Own, Role::Relay, Ok(()));
    check(Standing::Stranger, Role::Relay, Ok(()));
    check(Standing::Stranger, Role::Lmtp, Ok(()));
}

#[test]
fn senders_on_the_list_may_not_send() {
    let mut config = Config::default();
    let address = |text: &str| config::SenderPattern::Address(text.parse().unwrap());
    let domain =
        |text: &str| config::SenderPattern::Domains(config::DomainPattern::Exact(text.parse().unwrap()));
    config.senders.deny = vec![domain("example.com"), address("ann@example.net")];
    config.senders.allow = vec![address("bob@example.com")];
    let policy = Policy::new(&config);
    for (sender, expected) in [
        ("ann@example.com", Err(Refusal::SenderNotAllowed)),
        ("bob@example.com", Ok(())),
        ("ann@example.net", Err(Refusal::SenderNotAllowed)),
        ("bob@example.net", Ok(())),
    ] {
        for client in [OWN, STRANGER] {
            let reverse_path = ReversePath::Address(sender.parse().unwrap());
            assert_eq!(policy.mail(client, &reverse_path), expected, "{sender}");
        }
    }
    assert_eq!(policy.mail(STRANGER, &ReversePath::Null), Ok(()));
}

#[test]
fn what_state_we_are_in_is_told_before_the_data() {
    let policy = policy();
    assert_eq!(policy.data(Storage::Room), Ok(()));
    assert_eq!(policy.data(Storage::Full), Err(Refusal::StorageFull));
    assert_eq!(policy.data(Storage::Failed), Err(Refusal::StorageFailed));
    assert_eq!(policy.data(Storage::Busy), Err(Refusal::Busy));
}

fn content(role: Role, header: &str, utf8: Utf8) -> Result<Completion, Refusal> {
    let mut scan = HeaderScan::new(HeaderLimits { header_size_max: 4096 });
    scan.push(header.as_bytes());
    policy().content(role, &scan.finish(), utf8, &Limits::default(), Some(&Checks::default()))
}

#[test]
fn loops_end_at_the_limit() {
    let hops = |number| content(Role::Relay, &("Received: x\r\n".repeat(number) + "\r\n"), Utf8::NotNeeded);
    assert_eq!(hops(0), Ok(Completion::NONE));
    assert_eq!(hops(100), Ok(Completion::NONE));
    assert_eq!(hops(101), Err(Refusal::Loop));
}

#[test]
fn others_mail_is_passed_on_as_it_is() {
    let odd = "no field\r\nFrom: a\r\nFrom: b\r\nSubject: \u{e9}\r\n\r\n";
    assert_eq!(content(Role::Relay, odd, Utf8::NotNeeded), Ok(Completion::NONE));
    assert_eq!(content(Role::Relay, "\r\n", Utf8::NotNeeded), Ok(Completion::NONE));
    let long = "Subject: x\r\n".repeat(400);
    assert_eq!(content(Role::Relay, &long, Utf8::NotNeeded), Err(Refusal::HeaderMalformed));
}

#[test]
fn a_strict_listener_refuses_what_it_is_told_to() {
    let strict = |rules: [bool; 4]| {
        let [missing_fields, repeated_fields, malformed_fields, eight_bit_fields] =
            rules.map(|refuse| if refuse { Tolerance::Refuse } else { Tolerance::Accept });
        let usual = Checks::default();
        Checks { missing_fields, repeated_fields, malformed_fields, eight_bit_fields, ..usual }
    };
    let good = "From: a\r\nDate: x\r\n\r\n";
    for (header, utf8, fault) in [
        (good, Utf8::NotNeeded, None),
        ("From: a\r\n\r\n", Utf8::NotNeeded, Some((0, Refusal::HeaderMissing))),
        ("Date: x\r\n\r\n", Utf8::NotNeeded, Some((0, Refusal::HeaderMissing))),
        ("From: a\r\nDate: x\r\nFROM: b\r\n\r\n", Utf8::NotNeeded, Some((1, Refusal::HeaderRepeated))),
        ("From: a\r\nDate: x\r\nno field\r\n\r\n", Utf8::NotNeeded, Some((2, Refusal::HeaderMalformed))),
        ("From: \u{e9}\r\nDate: x\r\n\r\n", Utf8::NotNeeded, Some((3, Refusal::EightBitHeader))),
        ("From: \u{e9}\r\nDate: x\r\n\r\n", Utf8::Needed, None),
    ] {
        let mut scan = HeaderScan::new(HeaderLimits { header_size_max: 4096 });
        scan.push(header.as_bytes());
        let summary = scan.finish();
        let ask = |checks: Option<&Checks>| {
            policy().content(Role::Relay, &summary, utf8, &Limits::default(), checks).err()
        };
        assert_eq!((ask(None), ask(Some(&Checks::default()))), (None, None), "{header:?}");
        for at in 0..4 {
            let mut rules = [false; 4];
            rules[at] = true;
            let expected = fault.filter(|(rule, _)| *rule == at).map(|(_, refusal)| refusal);
            assert_eq!(ask(Some(&strict(rules))), expected, "{header:?}, rule {at}");
        }
    }
}

#[test]
fn our_users_mail_is_completed_or_refused() {
    use Presence::{Absent, Present};
    let check = |header: &str, expected| {
        assert_eq!(content(Role::Submission, header, Utf8::NotNeeded), expected, "{header:?}");
    };
    let lacks = |date, message_id| Ok(Completion { date, message_id });
    let malformed = Err(Refusal::HeaderMalformed);
    check("From: a@example.org\r\n\r\n", lacks(Absent, Absent));
    check("From: a@example.org\r\nDate: x\r\n\r\n", lacks(Present, Absent));
    check("From: a@example.org\r\nMessage-ID: x\r\nDATE: x\r\n\r\n", lacks(Present, Present));
    check("Date: x\r\n\r\n", Err(Refusal::HeaderMissing));
    check("From: a\r\nFrom: b\r\n\r\n", Err(Refusal::HeaderRepeated));
    check("From: a\r\nSubject: a\r\nsubject: b\r\n\r\n", Err(Refusal::HeaderRepeated));
    check("From: a\r\nno field\r\n\r\n", malformed);
    check("From: \u{e9}\r\n\r\n", Err(Refusal::EightBitHeader));
    let utf8 = content(Role::Submission, "From: \u{e9}\r\n\r\n", Utf8::Needed);
    assert_eq!(utf8, lacks(Absent, Absent));
}

#[test]
fn domains_are_known_by_what_they_are() {
    let policy = policy();
    let domain = |text: &str| policy.domain(&text.parse().unwrap());
    assert_eq!(domain("Example.Org"), Some(DomainKind::Local));
    assert_eq!(domain("example.net"), Some(DomainKind::Relay));
    assert_eq!(domain("example.com"), None);
}
