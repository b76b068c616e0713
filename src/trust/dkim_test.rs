//! The examples of RFC 8463 and RFC 6376, what is no signature, and the corpus of Mail::DKIM.

use std::{fs, path::Path};

use super::*;
use crate::zone::{AT, Zone, digest};

/// RFC 8463 §A.2, and for `brisbane` of example.com RFC 6376 §C.
pub(crate) const KEYS: &str = "\
    brisbane._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    test._domainkey.football.example.com TXT v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR\
iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5Q\
jvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB\n\
    brisbane._domainkey.example.com TXT v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/Dk\
MoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf\
6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";

/// RFC 8463 §A.3, its signatures apart from the rest.
const ED25519: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n \
    Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n";
const RSA: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
    date : message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n \
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n";
const HEADER: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\nSubject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n";
const BODY: &str = "\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n\r\n";

fn judge_with(zone: &Zone, message: &str, limits: Limits, at: Timestamp) -> Vec<Dkim> {
    let (judge, digest) = (Judge::new(), digest(message.as_bytes(), limits));
    zone.run(|facts| verify(facts, &judge, &digest, &limits, at)).0
}

/// Result and reason of each signature.
fn judge(zone: &str, message: &str) -> Vec<(DkimResult, Option<Reason>)> {
    let verdicts = judge_with(&Zone::parse(zone), message, Limits::default(), AT);
    verdicts.into_iter().map(|dkim| (dkim.result, dkim.reason)).collect()
}

fn pass() -> (DkimResult, Option<Reason>) {
    (DkimResult::Pass, None)
}

fn not(reason: Reason) -> (DkimResult, Option<Reason>) {
    (reason.result(), Some(reason))
}

/// The example of RFC 8463 §A.3.
pub(crate) fn message() -> String {
    signed(&[ED25519, RSA])
}

fn signed(signatures: &[&str]) -> String {
    [&signatures.concat(), HEADER, BODY].concat()
}

#[test]
fn the_example_of_rfc_8463() {
    let verdicts = judge_with(&Zone::parse(KEYS), &signed(&[ED25519, RSA]), Limits::default(), AT);
    let [ed25519, rsa] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((ed25519.result, rsa.result), (DkimResult::Pass, DkimResult::Pass), "{verdicts:?}");
    assert_eq!(ed25519.algorithm, Some(Algorithm::Ed25519Sha256));
    assert_eq!(rsa.algorithm, Some(Algorithm::RsaSha256));
    assert_eq!((&*rsa.domain, &*rsa.selector), ("football.example.com", "test"));
    assert_eq!((&*rsa.identity, &*rsa.start_of_b), ("@football.example.com", "F45dVWDf"));
    assert_eq!(rsa.key_use, KeyUse::Signing);
}

#[test]
fn the_example_of_rfc_6376() {
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n      \
        c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n      \
        h=Received : From : To : Subject : Date : Message-ID;\r\n      \
        bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n      \
        b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n      \
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n      \
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n      \
        4bmp/YzhwvcubU4=;\r\n\
        Received: from client1.football.example.com  [192.0.2.1]\r\n      \
        by submitserver.example.com with SUBMISSION;\r\n      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n";
    let body = "\r\nHi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";
    let message = [signature, HEADER, body].concat();
    assert_eq!(judge(KEYS, &message), [pass()]);
    // Nothing may change in the simple form.
    assert_eq!(judge(KEYS, &message.replace("Suzie Q", "Suzie  Q")), [not(Reason::Signature)]);
    assert_eq!(judge(KEYS, &message.replace("game. Are", "game.  Are")), [not(Reason::BodyHash)]);
    assert_eq!(judge(KEYS, &message.replace("Joe.\r\n", "Joe.\r\n\r\n\r\n")), [pass()]);
}

#[test]
fn what_may_change_in_the_relaxed_form_and_what_may_not() {
    let message = signed(&[ED25519, RSA]);
    for (from, to) in [
        ("Subject: Is dinner", "SUBJECT  :\tIs\r\n   dinner"),
        ("lost the game.  Are", "lost\tthe game.   Are"),
        ("Joe.\r\n\r\n", "Joe. \t\r\n\r\n \r\n\t\r\n"),
        ("From: Joe", "X-Spam: no\r\nFrom: Joe"),
        ("c=relaxed/relaxed;\r\n d=", "c=relaxed/relaxed;  d="),
    ] {
        let changed = message.replace(from, to);
        assert_ne!(changed, message, "{from}");
        assert_eq!(judge(KEYS, &changed), [pass(), pass()], "{to:?}");
    }
    for (from, to, reason) in [
        ("dinner ready", "supper ready", Reason::Signature),
        ("From: Joe SixPack <joe", "From: Joe SixPack <jim", Reason::Signature),
        // Signed once more than it was there: nobody may add one, first or last.
        ("From: Joe", "From: evil@example.net\r\nFrom: Joe", Reason::Signature),
        ("Subject: Is", "Subject : another\r\nSubject: Is", Reason::Signature),
        ("t=1528637909", "t=1528637910", Reason::Signature),
        ("q=dns/txt", "q=dns/txt; x=1999999999", Reason::Signature),
        ("We lost", "We won", Reason::BodyHash),
        ("Joe.\r\n\r\n", "Joe.\r\n\r\nps", Reason::BodyHash),
    ] {
        let changed = message.replace(from, to);
        assert_ne!(changed, message, "{from}");
        assert_eq!(judge(KEYS, &changed), [not(reason), not(reason)], "{to:?}");
    }
}

#[test]
fn each_signature_is_judged_for_itself() {
    let wrong = RSA.replace("F45dVW", "F45dVX");
    assert_eq!(
        judge(KEYS, &signed(&[&wrong, ED25519, "DKIM-Signature: moo\r\n", RSA])),
        [not(Reason::Signature), pass(), not(Reason::Syntax), pass()]
    );
    assert_eq!(judge(KEYS, &signed(&[])), []);
}

#[test]
fn signatures_that_are_none() {
    // RFC 6376 §3.5, §6.1.1
    for (from, to, reason) in [
        ("v=1; ", "", Reason::Syntax),
        ("v=1; ", "v=2; ", Reason::Version),
        ("v=1; ", "v=1.0; ", Reason::Version),
        ("a=rsa-sha256", "a=rsa-sha512", Reason::Algorithm),
        ("a=rsa-sha256", "a=", Reason::Syntax),
        ("c=relaxed/relaxed", "c=nofws", Reason::Canonicalization),
        ("q=dns/txt", "q=http", Reason::QueryMethod),
        ("q=dns/txt", "q=http:dns/txt:x", Reason::Signature),
        ("d=football.example.com;", "", Reason::Syntax),
        ("d=football.example.com;", "d=a..b;", Reason::Syntax),
        ("s=test", "s=", Reason::Syntax),
        ("h=from : to", "h=to : to", Reason::Signature),
        ("t=1528637909", "t=soon", Reason::Syntax),
        ("t=1528637909", "t=1528637909; l=-1", Reason::Syntax),
        ("t=1528637909", "t=1528637909; x=1528637908", Reason::Syntax),
        ("t=1528637909", "t=1528637909; t=1528637909", Reason::Syntax),
        ("t=1528637909", "t=1528637909; T=1", Reason::Syntax),
        ("t=1528637909", "t=1528637909; moo", Reason::Syntax),
        ("t=1528637909", "t=1528637909; l=10", Reason::BodyLength),
        ("t=1528637909", "t=1528637909; l=0", Reason::BodyLength),
        ("a=rsa-sha256", "a=rsa-sha1", Reason::Sha1),
        ("b=F45d", "b=F4=d", Reason::Signature),
        ("i=@football.example.com", "i=@example.com", Reason::Identity),
        ("i=@football.example.com", "i=@otherfootball.example.com", Reason::Identity),
        ("i=@football.example.com", "i=joe", Reason::Identity),
        // "if the "c=" tag is missing", or its second half, the form is simple: another one than was hashed (RFC 6376 §3.5).
        ("c=relaxed/relaxed;", "", Reason::BodyHash),
        ("c=relaxed/relaxed", "c=relaxed", Reason::BodyHash),
        ("c=relaxed/relaxed", "c=simple/relaxed", Reason::Signature),
    ] {
        let changed = RSA.replace(from, to);
        assert_ne!(changed, RSA, "{from}");
        assert_eq!(judge(KEYS, &signed(&[&changed])), [not(reason)], "{to}");
    }
    let unsigned = RSA.replace("from :", "reply-to :").replace(": from", ": cc");
    assert_eq!(judge(KEYS, &signed(&[&unsigned])), [not(Reason::FromNotSigned)]);
    let many = RSA.replace("h=from", &format!("h={}from", "a:".repeat(200)));
    assert_eq!(judge(KEYS, &signed(&[&many])), [not(Reason::TooMany)]);
}

#[test]
fn keys_that_are_none() {
    // RFC 6376 §3.6.1, §6.1.2
    let key = KEYS.lines().nth(1).unwrap().trim();
    for (from, to, expected) in [
        ("v=DKIM1; ", "", pass()),
        ("v=DKIM1; k=rsa;", "", pass()),
        ("k=rsa;", "k=rsa; t=y;", pass()),
        ("k=rsa;", "k=rsa; s=email; h=sha256:sha1; n=note; g=*;", pass()),
        ("k=rsa;", "k=rsa; s=tlsrpt:*;", pass()),
        ("k=rsa;", "k=rsa; t=s;", pass()),
        ("k=rsa;", "k=rsa; t=x:later;", pass()),
        ("k=rsa;", "k=rsa; h=moo:sha256;", pass()),
        ("k=rsa;", "k=rsa; s=moo:email;", pass()),
        ("k=rsa;", "k=rsa; zz=unknown;", pass()),
        ("p=MIGf", "p=M IG f", pass()),
        ("v=DKIM1;", "v=DKIM2;", not(Reason::KeySyntax)),
        ("v=DKIM1; k=rsa;", "k=rsa; v=DKIM1;", not(Reason::KeySyntax)),
        ("k=rsa;", "k=rsa; t;", not(Reason::KeySyntax)),
        ("k=rsa;", "k=rsa; k=rsa;", not(Reason::KeySyntax)),
        ("k=rsa;", "k=rsa; s=tlsrpt;", not(Reason::KeyNotForThis)),
        ("k=rsa;", "k=rsa; h=sha1;", not(Reason::KeyNotForThis)),
        ("k=rsa;", "k=rsa; h=md5;", not(Reason::KeyNotForThis)),
        ("k=rsa;", "k=moo;", not(Reason::KeyNotForThis)),
        ("k=rsa;", "k=ed25519;", not(Reason::KeySyntax)),
        ("p=MIGf", "p=; n=MIGf", not(Reason::KeyRevoked)),
        ("p=MIGf", "n=MIGf", not(Reason::KeySyntax)),
        ("p=MIGf", "p=AIGf", not(Reason::KeySyntax)),
    ] {
        let changed = key.replace(from, to);
        assert_ne!(changed, key, "{from}");
        assert_eq!(judge(&changed, &signed(&[RSA])), [expected], "{to}");
    }
    let name = "test._domainkey.football.example.com";
    for (zone, expected) in [
        (String::new(), not(Reason::NoKey)),
        (format!("{name} A 192.0.2.1"), not(Reason::NoKey)),
        (format!("{name} TIMEOUT"), not(Reason::KeyUnavailable)),
        (format!("{name} TXT moo"), not(Reason::KeySyntax)),
        (format!("{name} TXT moo\n{key}"), pass()),
        (
            key.replace(
                "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQ",
                "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOR",
            ),
            not(Reason::Signature),
        ),
    ] {
        assert_eq!(judge(&zone, &signed(&[RSA])), [expected], "{zone}");
    }
    // A key of Ed25519 is its 32 octets, and of no other kind of signature (RFC 8463 §4).
    let ed25519 = KEYS.lines().next().unwrap().trim();
    let pkix = ed25519.replace(
        "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    );
    assert_eq!(judge(&pkix, &signed(&[ED25519])), [not(Reason::KeySyntax)]);
    assert_eq!(judge(&ed25519.replace("k=ed25519; ", ""), &signed(&[ED25519])), [not(Reason::KeySyntax)]);
    let other = key.replace("test.", "brisbane.");
    assert_eq!(judge(&other, &signed(&[ED25519])), [not(Reason::KeyNotForThis)]);
}

#[test]
fn keys_for_trying_out_are_told() {
    let zone = Zone::parse(&KEYS.replace("k=rsa;", "k=rsa; t=y:s;"));
    let verdicts = judge_with(&zone, &signed(&[RSA]), Limits::default(), AT);
    assert_eq!((verdicts[0].result, verdicts[0].key_use), (DkimResult::Pass, KeyUse::Testing));
}

#[test]
fn a_key_may_forbid_subdomains() {
    // The signature does not verify any more; the identity is looked at first.
    let below = RSA.replace("i=@football", "i=@team.football");
    assert_eq!(judge(KEYS, &signed(&[&below])), [not(Reason::Signature)]);
    assert_eq!(judge(&KEYS.replace("k=rsa;", "k=rsa; t=s;"), &signed(&[&below])), [not(Reason::Identity)]);
}

#[test]
fn signatures_end() {
    let at = |secs| {
        judge_with(
            &Zone::default(),
            &signed(&[&RSA.replace("q=dns/txt", "x=1528637999")]),
            Limits::default(),
            Timestamp::from_secs(secs),
        )[0]
        .reason
    };
    assert_eq!(at(1_528_637_998), Some(Reason::NoKey));
    assert_eq!(at(1_528_637_999), Some(Reason::Expired));
}

#[test]
fn what_is_accepted_can_be_set() {
    let zone = Zone::parse(KEYS);
    let with = |limits, message: &str| judge_with(&zone, message, limits, AT)[0].reason;
    let limits = Limits::default();
    let long = RSA.replace("t=1528637909", "t=1528637909; l=49");
    let ignored = Limits { body_length: BodyLength::Ignored, ..limits };
    // As changed it cannot verify, but it comes to that.
    assert_eq!(with(ignored, &signed(&[&long])), Some(Reason::Signature));
    assert_eq!(with(ignored, &(signed(&[&long]) + "more")), Some(Reason::BodyHash));
    let short = Limits { rsa_bits_min: 2048, ..limits };
    assert_eq!(with(short, &signed(&[RSA])), Some(Reason::KeyTooShort));
    assert_eq!(with(short, &signed(&[ED25519])), None);
    let one = Limits { signatures_max: 1, ..limits };
    let results: Vec<_> =
        judge_with(&zone, &signed(&[RSA, RSA, RSA, RSA]), one, AT).iter().map(|d| d.reason).collect();
    assert_eq!(results, [None, Some(Reason::TooMany)]);
}

#[test]
fn what_cannot_be_told_is_no_pass() {
    let message = signed(&[RSA]);
    for (from, to, reason) in [
        ("Joe.\r\n", "Joe.\n", Reason::BareLineEnd),
        ("Joe.\r\n", "Joe\r.\r\n", Reason::BareLineEnd),
        ("ready?\r\n", "ready?\r\nX: a\nFrom: evil@example.net\r\n", Reason::BareLineEnd),
    ] {
        assert_eq!(judge(KEYS, &message.replace(from, to)), [not(reason)], "{to:?}");
    }
    let long = format!("X: {}\r\n{message}", "x".repeat(2 << 20));
    assert_eq!(judge(KEYS, &long), [not(Reason::HeaderTooLong)]);
    // A line that is no field hides nothing.
    assert_eq!(judge(KEYS, &message.replace("From:", "no field\r\nFrom:")), [pass()]);
}

#[test]
fn a_body_that_was_changed_costs_no_lookup() {
    let message = signed(&[RSA, ED25519]).replace("lost", "won");
    let (judge, limits) = (Judge::new(), Limits::default());
    let digest = digest(message.as_bytes(), limits);
    let (_, rounds, asked) = Zone::parse(KEYS).run(|facts| verify(facts, &judge, &digest, &limits, AT));
    assert_eq!((rounds, asked), (0, 0));
}

#[test]
fn all_keys_are_asked_for_at_once() {
    let (judge, limits) = (Judge::new(), Limits::default());
    let digest = digest(signed(&[RSA, ED25519, RSA]).as_bytes(), limits);
    let (_, rounds, asked) = Zone::parse(KEYS).run(|facts| verify(facts, &judge, &digest, &limits, AT));
    assert_eq!((rounds, asked), (1, 2));
}

/// Good messages of the corpus that do not pass, and why not: the drafts of 2006 had no `v=`, and keys had 512 and 768
/// bits, which are not even verified any more (RFC 8301 §3.2).
const NOT_PASSED: [(&str, Reason); 18] = [
    ("good_1878523", Reason::KeyTooShort),
    ("good_ietf00_1", Reason::Syntax),
    ("good_ietf00_2", Reason::Syntax),
    ("good_ietf00_3", Reason::Syntax),
    ("good_ietf00_4", Reason::Syntax),
    ("good_ietf00_5", Reason::Syntax),
    ("good_ietf01_1", Reason::Syntax),
    ("good_ietf01_2", Reason::Syntax),
    ("good_qp_1", Reason::KeyTooShort),
    ("good_qp_2", Reason::KeyTooShort),
    ("good_qp_3", Reason::KeyTooShort),
    ("good_rfc4871_3", Reason::KeyTooShort),
    ("good_rfc4871_4", Reason::KeyTooShort),
    ("goodkey_1", Reason::KeyTooShort),
    ("goodkey_2", Reason::KeyTooShort),
    ("goodkey_3", Reason::KeyTooShort),
    ("goodkey_4", Reason::KeyTooShort),
    ("multiple_1", Reason::Syntax),
];

/// The corpus of Mail::DKIM: file names say what is expected. It is somebody else's and stays where it is, beside
/// the repository.
#[test]
fn messages_of_mail_dkim() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/suites/dkim");
    let Ok(zone) = fs::read_to_string(folder.join("FAKE_DNS.dat")) else {
        println!("not run: the DKIM corpus is not there ({})", folder.display());
        return;
    };
    let zone = corpus_zone(&zone);
    let limits = Limits { sha1: Sha1Signatures::Accepted, ..Limits::default() };
    let (mut passed, mut not_passed, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut files: Vec<_> =
        fs::read_dir(folder.join("corpus")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let message = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        // Before one of the good ones ends and after another does.
        let verdicts = judge_with(&zone, &message, limits, Timestamp::from_secs(1_200_000_000));
        let good = (name.starts_with("good") || name.starts_with("multiple")) && !name.contains("_dk_");
        match (good, verdicts.iter().find(|dkim| dkim.result == DkimResult::Pass), verdicts.first()) {
            (true, Some(_), _) => passed.push(name),
            (true, None, Some(dkim)) => not_passed.push((name, dkim.reason.unwrap())),
            (true, None, None) | (false, Some(_), _) => wrong.push(name),
            (false, None, _) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(not_passed, NOT_PASSED.map(|(name, reason)| (name.to_owned(), reason)));
    assert_eq!(passed, ["good_83176", "goodkey_ed25519", "multiple_2"]);
    assert_eq!(files.len(), 79);
}

fn corpus_zone(text: &str) -> Zone {
    let mut zone = Zone::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, data)) = line.split_once(' ') else { continue };
        let data = data.trim().trim_matches('"');
        if data.starts_with("~~") {
            zone.add(name, crate::zone::Data::Timeout);
        } else if data != "NXDOMAIN" {
            zone.add(name, crate::zone::Data::Text(data.as_bytes().to_vec()));
        }
    }
    zone
}
