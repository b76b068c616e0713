//! Complaints of any octets: bounded facts. And addresses of any octets: none of them is ours.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mail::{Address, Domain, Timestamp};
use report::{Incoming, IncomingLimits, Recognised, ReturnPathOptions, ReturnPaths, read};

fuzz_target!(|input: &[u8]| {
    let limits = IncomingLimits { recipients_max: 8, value_max: 64, text_max: 2048, size_max: 64 << 10 };
    let head = &b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/feedback-report\r\n\r\n"[..];
    let message = [Bytes::from_static(head), Bytes::copy_from_slice(input)];
    let Incoming::Complaint(complaint) = read(&message, &limits) else { panic!("it says so") };
    assert!(complaint.recipients.len() <= 8 && complaint.domains.len() <= 8);
    let values = complaint.domains.iter().chain(&complaint.user_agent).chain(&complaint.source_ip);
    for value in values.chain([&complaint.feedback_type]) {
        assert!(value.len() <= 64 && !value.chars().any(char::is_control));
    }

    let domain = Domain::parse("b.test").expect("a domain");
    let paths = ReturnPaths::new(&ReturnPathOptions {
        domain: &domain,
        local_part: "bounces",
        complaints: "complaints",
        lifetime: Duration::from_secs(14 * 86_400),
        secret: Some("nobody will find this one"),
    });
    let now = Timestamp::from_secs(1_763_629_500);
    for address in [&b"bounces+"[..], b""].map(|start| [start, input, b"@b.test"].concat()) {
        if let Ok(address) = Address::parse(&address) {
            let found = paths.recognise(&address, now);
            assert!(!matches!(found, Recognised::Signed(_) | Recognised::Expired(_)), "{address}");
        }
    }
});
