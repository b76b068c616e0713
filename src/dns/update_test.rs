//! Updates as a server reads them, and answers as a client does.

use hickory_proto::op::{Message as Theirs, OpCode};

use super::*;

const NOW: u64 = 1_764_387_000;

fn key(secret: &[u8]) -> TsigKey {
    TsigKey::new(Name::parse("update.example.org").unwrap(), TsigAlgorithm::HmacSha256, secret)
}

fn update(change: Change<'_>, key: Option<&TsigKey>) -> Update {
    let zone = Name::parse("example.org").unwrap();
    let name = Name::parse("s1._domainkey.example.org").unwrap();
    Update::new(&zone, &name, change, key, (0x1234, NOW)).unwrap()
}

/// What a server would answer, signed by this key.
fn answer(update: &Update, code: u16, key: Option<&TsigKey>, at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [0x1234, RESPONSE | OPCODE_UPDATE | code, 1, 0, 0, 0] {
        put(&mut bytes, number);
    }
    put_name(&mut bytes, "example.org");
    put(&mut bytes, TYPE_SOA);
    put(&mut bytes, CLASS_IN);
    if let Some(key) = key {
        let stamp = Stamp { secs: at, fudge: FUDGE, error: 0, other: &[] };
        let mac = key.sign(update.mac.as_deref(), &bytes, &stamp).sign();
        append_tsig(&mut bytes, key, &stamp, mac.as_ref(), 0x1234);
    }
    bytes
}

/// Another program reads what we write: hickory-proto.
#[test]
fn updates_are_what_they_mean() {
    let long = "x".repeat(600);
    for (change, prerequisites, updates) in [
        (Change::Add { text: &long, ttl: 300 }, 1, 1),
        (Change::Replace { old: &long, new: "v=DKIM1; p=", ttl: 300 }, 1, 2),
        (Change::Remove(&[&long, "v=DKIM1; p="]), 0, 2),
    ] {
        let key = key(b"secret");
        for key in [None, Some(&key)] {
            let update = update(change, key);
            let read = Theirs::from_vec(&update.bytes).unwrap();
            assert_eq!((read.metadata.id, read.metadata.op_code), (0x1234, OpCode::Update));
            assert_eq!(read.queries[0].name().to_string(), "example.org.");
            assert_eq!((read.answers.len(), read.authorities.len()), (prerequisites, updates), "{change:?}");
            for record in read.answers.iter().chain(&read.authorities) {
                assert_eq!(record.name.to_string(), "s1._domainkey.example.org.");
            }
        }
    }
    let shown = format!("{:?}", key(b"secret"));
    assert!(!shown.contains("secret") && shown.contains("update.example.org"), "{shown}");
    let zone = Name::parse("example.org").unwrap();
    let text = "x".repeat(70_000);
    let too_long = Update::new(&zone, &zone, Change::Add { text: &text, ttl: 1 }, None, (1, NOW));
    assert_eq!(too_long.unwrap_err(), UpdateError::TooLong);
}

#[test]
fn answers_good_and_bad() {
    let (ours, other) = (key(b"secret"), key(b"another"));
    let signed = update(Change::Remove(&["x"]), Some(&ours));
    let read = |answer: &[u8]| signed.on_answer(answer, Some(&ours), NOW + 10);
    assert_eq!(read(&answer(&signed, 0, Some(&ours), NOW)), Ok(Updated::Done));
    for code in 6..=8 {
        assert_eq!(read(&answer(&signed, code, Some(&ours), NOW)), Ok(Updated::OtherThere));
    }
    assert_eq!(read(&answer(&signed, 5, Some(&ours), NOW)), Err(UpdateError::Refused("REFUSED".into())));
    assert_eq!(read(&answer(&signed, 9, None, NOW)), Err(UpdateError::Refused("NOTAUTH".into())));
    // Whoever does not know the secret cannot say that it is done, nor can an old answer.
    for unsigned in [
        answer(&signed, 0, None, NOW),
        answer(&signed, 0, Some(&other), NOW),
        answer(&signed, 0, Some(&ours), NOW - 1_000),
        answer(&update(Change::Remove(&["y"]), Some(&ours)), 0, Some(&ours), NOW),
    ] {
        assert_eq!(read(&unsigned), Err(UpdateError::Unsigned));
    }
    let good = answer(&signed, 0, Some(&ours), NOW);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_ne!(read(&bad), Ok(Updated::Done), "octet {at}");
        assert_ne!(read(&good[..at]), Ok(Updated::Done), "up to octet {at}");
    }
    // Without a secret everybody is believed.
    let plain = update(Change::Remove(&["x"]), None);
    assert_eq!(plain.on_answer(&answer(&plain, 0, None, NOW), None, NOW), Ok(Updated::Done));
    assert_eq!(plain.on_answer(b"", None, NOW), Err(UpdateError::Foreign));
    assert_eq!(plain.on_answer(&plain.bytes, None, NOW), Err(UpdateError::Foreign));
}

/// A name that leads to itself ends.
#[test]
fn names_that_go_round() {
    let mut bytes = vec![0; HEADER];
    bytes[5] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1]);
    assert!(Message::read(&bytes).is_none());
}
