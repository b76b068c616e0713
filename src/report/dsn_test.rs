//! Reports as they go out: whole ones in `golden/`, rewritten by `UPDATE_GOLDEN=1`.

use std::{fs, path::Path};

use mail::JournalShard;

use super::*;

const ORIGINAL: &str = "Received: from client.example by mx.example; Thu, 20 Nov 2025 09:00:00 +0000\r\n\
    From: Ann <ann@client.example>\r\n\
    To: Bob <bob@example.org>\r\n\
    Subject: Lunch\r\n\
    Message-ID: <lunch.1@client.example>\r\n\
    Date: Thu, 20 Nov 2025 09:00:00 +0000\r\n\
    \r\n\
    At noon?\r\n\
    --=_not_our_boundary\r\n";

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn at(minutes: u64) -> Timestamp {
    Timestamp::from_secs(1_763_629_200 + 60 * minutes)
}

fn envelope(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Envelope {
    Envelope {
        received_at: at(0),
        reverse_path,
        recipients,
        body: BodyType::SevenBit,
        utf8: Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        handling: mail::Handling::default(),
        upstream: None,
    }
}

fn from_ann(recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|r| Recipient::new(address(r))).collect();
    envelope(ReversePath::Address(address("ann@client.example")), recipients)
}

fn failed(recipient: &Recipient) -> RecipientFacts<'_> {
    RecipientFacts {
        recipient,
        outcome: Outcome::Failed,
        status: Status(5, 1, 1),
        remote_mta: Some("mail.example.org"),
        diagnostic: Some(Diagnostic::Smtp(
            b"550-5.1.1 No such user here\r\n550 5.1.1 see <https://example.org/>",
        )),
        last_attempt: Some(at(1)),
    }
}

fn report_on(
    envelope: &Envelope,
    recipients: &[RecipientFacts<'_>],
    original: &[Bytes],
    limits: &Limits,
) -> Option<Report> {
    let host = "mx.example".parse().unwrap();
    let facts = Facts {
        report_id: QueueId::new(JournalShard(1), 1000),
        message_id: QueueId::new(JournalShard(1), 7),
        host: &host,
        now: at(2),
        envelope,
        recipients,
    };
    dsn(&facts, original, limits).unwrap()
}

fn original() -> Vec<Bytes> {
    let bytes = Bytes::from_static(ORIGINAL.as_bytes());
    vec![bytes.slice(..100), bytes.slice(100..)]
}

fn report(envelope: &Envelope, recipients: &[RecipientFacts<'_>]) -> Report {
    report_on(envelope, recipients, &original(), &Limits::default()).unwrap()
}

fn text(report: &Report) -> String {
    String::from_utf8(report.content.concat()).unwrap()
}

fn check_golden(name: &str, report: &Report) {
    let text = text(report);
    for line in text.split_inclusive('\n') {
        assert!(
            line.ends_with("\r\n") && line.len() <= 1000 && !line[..line.len() - 2].contains('\r'),
            "{line:?}"
        );
    }
    assert_eq!(report.envelope.reverse_path, ReversePath::Null);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    // In the file lines end as files have them.
    let text = text.replace("\r\n", "\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{name} has changed; UPDATE_GOLDEN=1 accepts it. Now:\n{text}");
}

#[test]
fn a_failure() {
    let mut envelope = from_ann(&["bob@example.org", "eve@example.net"]);
    envelope.envelope_id = Some("QQ314159".into());
    envelope.recipients[0].original =
        Some(OriginalRecipient { address_type: "rfc822".into(), address: "Bob@Example.ORG".into() });
    let gone = RecipientFacts {
        status: Status(4, 4, 7),
        remote_mta: None,
        diagnostic: Some(Diagnostic::Local("no host of example.net answered within 5d")),
        last_attempt: None,
        ..failed(&envelope.recipients[1])
    };
    let report = report(&envelope, &[failed(&envelope.recipients[0]), gone]);
    check_golden("failure.eml", &report);
    assert_eq!(report.envelope.body, BodyType::SevenBit);
    assert_eq!(report.envelope.recipients[0].address, address("ann@client.example"));
    assert_eq!(report.envelope.recipients[0].notify, Notify::NEVER);
}

#[test]
fn a_delay() {
    let envelope = from_ann(&["bob@example.org"]);
    let delayed = RecipientFacts {
        outcome: Outcome::Delayed { retry_until: at(5 * 24 * 60) },
        status: Status(4, 2, 2),
        diagnostic: Some(Diagnostic::Smtp(b"452 4.2.2 mailbox full")),
        ..failed(&envelope.recipients[0])
    };
    check_golden("delay.eml", &report(&envelope, &[delayed]));
}

#[test]
fn a_success() {
    let mut envelope = from_ann(&["bob@example.org", "list@example.org"]);
    for recipient in &mut envelope.recipients {
        recipient.notify.success = true;
    }
    let done = |outcome, recipient| RecipientFacts {
        outcome,
        status: Status(2, 1, 5),
        diagnostic: None,
        ..failed(recipient)
    };
    let recipients =
        [done(Outcome::Relayed, &envelope.recipients[0]), done(Outcome::Expanded, &envelope.recipients[1])];
    check_golden("success.eml", &report(&envelope, &recipients));
}

#[test]
fn addresses_in_utf8() {
    let mut envelope = envelope(
        ReversePath::Address(address("änne@bücher.example")),
        vec![Recipient::new(address("jörg@例え.example"))],
    );
    envelope.utf8 = Utf8::Needed;
    let facts = RecipientFacts { status: Status(5, 6, 7), ..failed(&envelope.recipients[0]) };
    let content = [Bytes::from_static("Subject: Grüße\r\n\r\nHallo, schön!\r\n".as_bytes())];
    let report = report_on(&envelope, &[facts], &content, &Limits::default()).unwrap();
    check_golden("utf8.eml", &report);
    assert_eq!((report.envelope.body, report.envelope.utf8), (BodyType::EightBitMime, Utf8::Needed));
}

#[test]
fn what_peers_write_stays_in_its_place() {
    let mut envelope = from_ann(&["\"a b\"@example.org"]);
    envelope.envelope_id = Some("1\r\nBcc: all@example.org".into());
    envelope.recipients[0].original =
        Some(OriginalRecipient { address_type: "rfc822\r\nX: y".into(), address: "a\r\n\r\nb".into() });
    let reply = [&b"550 \x1b[31mred\r\n\r\n.\r\nQUIT\r\n\xff"[..], &[b'x'; 5000]].concat();
    let facts = RecipientFacts {
        remote_mta: Some("mail\r\n.example.org"),
        diagnostic: Some(Diagnostic::Smtp(&reply)),
        ..failed(&envelope.recipients[0])
    };
    let content = [Bytes::from_static(b"Message-ID: <a@b>\r\n <c@d>\r\nSubject: x\r\n\r\n")];
    let report = report_on(&envelope, &[facts], &content, &Limits::default()).unwrap();
    check_golden("hostile.eml", &report);
    assert!(!text(&report).contains("\r\nBcc:") && !text(&report).contains("\r\nX:"));
}

#[test]
fn nobody_asked_for_these() {
    let recipient = |notify| Recipient { notify, ..Recipient::new(address("bob@example.org")) };
    let none = |reverse_path, notify, outcome| {
        let envelope = envelope(reverse_path, vec![recipient(notify)]);
        let facts = RecipientFacts { outcome, ..failed(&envelope.recipients[0]) };
        report_on(&envelope, &[facts], &original(), &Limits::default()).is_none()
    };
    let ann = || ReversePath::Address(address("ann@client.example"));
    let delayed = Outcome::Delayed { retry_until: at(9) };
    assert!(none(ReversePath::Null, Notify::default(), Outcome::Failed));
    assert!(none(ReversePath::Null, Notify::default(), delayed));
    for outcome in [Outcome::Failed, delayed, Outcome::Delivered] {
        assert!(none(ann(), Notify::NEVER, outcome));
    }
    assert!(none(ann(), Notify::default(), Outcome::Delivered));
    assert!(!none(ann(), Notify::default(), Outcome::Failed));
    assert!(!none(ann(), Notify::default(), delayed));
    assert!(none(ann(), Notify { delay: false, ..Notify::default() }, delayed));
    assert!(none(ann(), Notify { failure: false, ..Notify::default() }, Outcome::Failed));

    // One wants it, the other does not: only the first stands in the report.
    let mut envelope = from_ann(&["bob@example.org", "eve@example.net"]);
    envelope.recipients[1].notify = Notify::NEVER;
    let facts = [failed(&envelope.recipients[0]), failed(&envelope.recipients[1])];
    assert!(!text(&report(&envelope, &facts)).contains("eve@"));
}

#[test]
fn how_much_is_returned() {
    let limits = Limits { full_size_max: 1000, full_asked_size_max: 5000, ..Limits::default() };
    let content = |size| vec![Bytes::from_static(b"Subject: x\r\n\r\n"), Bytes::from(vec![b'x'; size])];
    let returned = |ret, outcome, body, size| {
        let mut envelope = from_ann(&["bob@example.org"]);
        (envelope.ret, envelope.body) = (ret, body);
        let facts = RecipientFacts { outcome, ..failed(&envelope.recipients[0]) };
        let text = text(&report_on(&envelope, &[facts], &content(size), &limits).unwrap());
        assert_eq!(text.contains("xxxxxxxx"), text.contains("Content-Type: message/rfc822\r\n"));
        assert_ne!(text.contains("xxxxxxxx"), text.contains("Content-Type: text/rfc822-headers\r\n"));
        assert!(text.contains("Subject: x\r\n"));
        text.contains("xxxxxxxx")
    };
    let delayed = Outcome::Delayed { retry_until: at(9) };
    assert!(returned(None, Outcome::Failed, BodyType::SevenBit, 900));
    assert!(!returned(None, Outcome::Failed, BodyType::SevenBit, 1000));
    assert!(returned(Some(Ret::Full), Outcome::Failed, BodyType::EightBitMime, 4900));
    assert!(!returned(Some(Ret::Full), Outcome::Failed, BodyType::SevenBit, 5000));
    assert!(!returned(Some(Ret::Headers), Outcome::Failed, BodyType::SevenBit, 10));
    assert!(!returned(Some(Ret::Full), delayed, BodyType::SevenBit, 10));
    assert!(!returned(Some(Ret::Full), Outcome::Failed, BodyType::BinaryMime, 10));
}

/// A report says which times were asked for (RFC 2852 §5, RFC 4865 §5.1.2).
#[test]
fn times_that_were_asked_for() {
    let fields = |handling: mail::Handling| {
        let mut envelope = from_ann(&["bob@example.org"]);
        envelope.handling = handling;
        let text = text(&report(&envelope, &[failed(&envelope.recipients[0])]));
        let (_, rest) = text.split_once("\r\nArrival-Date: Thu, 20 Nov 2025 09:00:00 +0000\r\n").unwrap();
        rest.split_once("\r\n\r\n").map_or("", |(fields, _)| fields).to_owned()
    };
    let none = mail::Handling::default();
    let deliver_by =
        Some(mail::DeliverBy { deadline: at(5), mode: DeliverByMode::Return, trace: DeliverByTrace::No });
    assert_eq!(
        fields(mail::Handling { deliver_by, ..none.clone() }),
        "Deliver-By-Date: Thu, 20 Nov 2025 09:05:00 +0000"
    );
    let hold_until = Some(at(5));
    assert_eq!(
        fields(mail::Handling { hold_until, ..none.clone() }),
        "Future-Release-Request: until;2025-11-20T09:05:00Z"
    );
    let hold_for = Some(HoldFor(300));
    assert_eq!(
        fields(mail::Handling { hold_until, hold_for, ..none.clone() }),
        "Future-Release-Request: for;300"
    );
}

/// RFC 8689 §5: a report on what was to travel under TLS alone travels so too, and holds the header section alone.
#[test]
fn a_report_on_what_requires_tls() {
    let mut envelope = from_ann(&["bob@example.org"]);
    envelope.handling.tls = TlsDemand::Required;
    envelope.ret = Some(Ret::Full);
    let report = report(&envelope, &[failed(&envelope.recipients[0])]);
    assert_eq!(report.envelope.handling.tls, TlsDemand::Required);
    let text = text(&report);
    assert!(text.contains("Subject: Lunch") && !text.contains("At noon?"), "{text}");
}

#[test]
fn content_without_a_sound_header() {
    let envelope = from_ann(&["bob@example.org"]);
    let facts = [failed(&envelope.recipients[0])];
    let limits = Limits { full_size_max: 0, headers_size_max: 100, ..Limits::default() };
    for content in [&b""[..], b"\r\n", b"no header", b"\xff\x00\r\n\r\n", &b"A: b\r\n".repeat(1000)] {
        let report = report_on(&envelope, &facts, &[Bytes::copy_from_slice(content)], &limits).unwrap();
        let content = report.content.concat();
        assert!(content.len() < 4000 && content.ends_with(b"--\r\n"));
    }
}

#[test]
fn action_and_status_agree() {
    let check = |outcome, status, expected| assert_eq!(action_and_status(outcome, status), expected);
    let delayed = Outcome::Delayed { retry_until: at(9) };
    check(Outcome::Failed, Status(5, 1, 1), ("failed", Status(5, 1, 1)));
    check(Outcome::Failed, Status(4, 4, 7), ("failed", Status(4, 4, 7)));
    check(Outcome::Failed, Status(2, 0, 0), ("failed", Status(5, 0, 0)));
    check(Outcome::Failed, Status(9, 0, 0), ("failed", Status(5, 0, 0)));
    check(delayed, Status(4, 2, 2), ("delayed", Status(4, 2, 2)));
    check(delayed, Status(5, 2, 2), ("delayed", Status(4, 0, 0)));
    check(Outcome::Delivered, Status(2, 1, 5), ("delivered", Status(2, 1, 5)));
    check(Outcome::Relayed, Status(4, 0, 0), ("relayed", Status(2, 0, 0)));
    check(Outcome::Expanded, Status(2, 0, 0), ("expanded", Status(2, 0, 0)));
}
