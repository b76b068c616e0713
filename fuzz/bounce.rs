//! Reports of any octets, as a message and as the part for programs: bounded facts, that fit into a line.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use report::{Incoming, IncomingLimits, read};

fuzz_target!(|input: &[u8]| {
    let limits = IncomingLimits { recipients_max: 8, value_max: 64, text_max: 2048, size_max: 64 << 10 };
    let head = &b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\n"[..];
    let from = &b"From: MAILER-DAEMON\r\nSubject: failure notice\r\n\r\n"[..];
    // The message itself, the fields of a report, the text of one that is by no standard.
    for head in [&b""[..], head, from] {
        let message = [Bytes::copy_from_slice(head), Bytes::copy_from_slice(input)];
        let Incoming::Bounce(bounce) = read(&message, &limits) else { continue };
        assert!((1..=8).contains(&bounce.recipients.len()));
        let values = bounce.recipients.iter().flat_map(|one| [&one.remote_mta, &one.diagnostic]);
        let values = values.chain([&bounce.reporting_mta, &bounce.envelope_id, &bounce.original.message_id]);
        for value in values.flatten() {
            assert!(value.len() <= 64 && !value.chars().any(char::is_control));
        }
    }
});
