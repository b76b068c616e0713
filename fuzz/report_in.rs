//! Reports of any octets, in each of the forms that they come in: bounded facts, and what is kept of them is read
//! again.

#![no_main]

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use report::received::{self, Limits, Told};

fn mail(kind: &str, octets: &[u8]) -> [Bytes; 2] {
    let head = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    [head.into(), STANDARD.encode(octets).into()]
}

fuzz_target!(|input: &[u8]| {
    let limits = Limits { mail_max: 256 << 10, expanded_max: 1 << 20, rows_max: 8 };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(input).expect("memory");
    let packed = encoder.finish().expect("memory");
    let failure = "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\
    Content-Type: message/feedback-report\r\n\r\nFeedback-Type: auth-failure\r\n";
    let posted = [input, &packed].map(|octets| received::read_posted(octets.to_vec(), &limits));
    let messages = [
        mail("application/octet-stream", input),
        mail("application/gzip", &packed),
        [Bytes::new(), Bytes::copy_from_slice(input)],
        [failure.into(), Bytes::copy_from_slice(input)],
    ];
    let mailed = messages.map(|message| received::read(&message, &limits));
    for reports in posted.into_iter().chain(mailed) {
        let Ok(reports) = reports else { continue };
        assert!(!reports.is_empty());
        for report in reports {
            assert!(report.begin <= report.end && !report.domain.is_empty());
            for value in [&report.organization, &report.contact, &report.id, &report.domain] {
                assert!(value.len() <= 255 && !value.chars().any(char::is_control));
            }
            match &report.told {
                Told::Dmarc(aggregate) => assert!(aggregate.rows.len() <= 8),
                Told::Tls(policies) => {
                    assert!(policies.iter().map(|policy| policy.details.len()).sum::<usize>() <= 8);
                }
                Told::Failure(_) => {}
            }
            let kept = serde_json::to_string(&report.told).expect("it is JSON");
            assert_eq!(serde_json::from_str::<Told>(&kept).expect("it was written"), report.told);
        }
    }
    let (domain, _) = received::proven(input, "mx.test");
    assert!(domain.len() <= 255);
});
