//! Mark certificates of any octets: nobody is believed who was not signed by somebody who is, and a record of any text leads nowhere
//! but to hosts that have names.

#![no_main]

use std::{path::Path, time::Duration};

use libfuzzer_sys::fuzz_target;
use tls::{Authorities, MarkJudge, Public, logotype_of};
use trust::bimi_record;

/// Of nobody: its key is nowhere.
const AUTHORITY: &str = include_str!("corpus/mark_certificate/authority.pem");

fuzz_target!(|input: &[u8]| {
    let mut authorities = Authorities::of(Public::Ignored);
    authorities.add(Path::new("authority.pem"), AUTHORITY.as_bytes()).expect("our own text");
    let judge = MarkJudge::new(authorities);
    let (now, day) = (Duration::from_secs(1_800_000_000), Duration::from_secs(86_400));
    assert!(judge.verify(input, now, day).is_err());
    // What is read of a certificate once it is believed.
    if let Some(url) = logotype_of(input) {
        assert!(url.is_ascii() && url.len() < input.len());
    }
    if let Ok(Some(record)) = bimi_record(&[input.into()]) {
        for place in record.location.iter().chain(&record.evidence) {
            assert!(place.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b';'));
            assert!(place.host().as_str().contains('.') && place.target().starts_with('/') && place.port() > 0);
        }
    }
});
