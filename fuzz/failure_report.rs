//! Failure reports on messages of any octets: nobody's words break out of their place, whoever is named by an address is not named, and
//! we read what we write.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mail::{Address, Timestamp};
use report::{
    Incoming, IncomingLimits, Redactor, Shown,
    dmarc::{DeliveryResult, FailedSignature, Failure, FailureKind, FailureReport, Unaligned},
    read,
};

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let some = || text.chars().take(320).collect::<Box<str>>();
    let failure = Failure {
        domain: "example.org".into(),
        author: some(),
        to: Vec::new(),
        kind: FailureKind::Dmarc,
        unaligned: Unaligned { dkim: true, spf: false },
        delivery: DeliveryResult::Policy,
        source: [192, 0, 2, 1].into(),
        mail_from: some(),
        arrival: Timestamp(1_763_629_500_000_000),
        signature: Some(FailedSignature { domain: some(), identity: some(), selector: some() }),
        spf: Some(some()),
        results: input.to_vec(),
        header: input.to_vec(),
    };
    let redactor = Redactor::new(Some("nobody will find this one"));
    let report = FailureReport {
        failure: &failure,
        submitter: "mx.example.net",
        generator: "ringpost/1",
        redactor: &redactor,
        shown: Shown { subject: input.len() % 2 == 0, size_max: 4096 },
        spf_record: Some(&text),
        incidents: 2,
    };
    let address = Address::parse(b"dmarc@example.net").expect("an address");
    let id = report.id();
    let mail = report.to_mail(&id, &address, &address, "today");
    assert!(mail.len() <= 24 << 10);
    assert!(mail.iter().all(|octet| matches!(octet, b' '..=b'~' | b'\r' | b'\n')));
    let mail = String::from_utf8(mail).expect("it is US-ASCII");
    assert_eq!(mail.matches(&format!("\r\n--=_failure_{id}")).count(), 4);
    for line in mail.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n']));
    }
    let Incoming::Complaint(told) = read(&[Bytes::from(mail)], &IncomingLimits::default()) else {
        panic!("it says so")
    };
    assert_eq!((&*told.feedback_type, told.incidents), ("auth-failure", 2));

    // Wherever an address stands in a field, it is one of a hash.
    if input.contains(&b'\n') {
        return;
    }
    let named = [b"Received: ".as_slice(), input, b" for <secret.person@example.net>\r\n"].concat();
    let shown = redactor.header(&named, Shown { subject: true, size_max: 64 << 10 });
    assert!(!shown.contains("secret.person@"), "{shown}");
});
