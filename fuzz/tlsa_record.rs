//! TLSA records of any octets against certificates of any octets: nothing that was not signed is proven by an authority. And a
//! login is tied to whatever a server shows for its certificate.

#![no_main]

use delivery::dane::{DaneUsage, Matching, Selector, usable};
use dns::Tlsa;
use libfuzzer_sys::fuzz_target;
use tls::{Association, Dane, Form, Holder, Part};

fuzz_target!(|input: &[u8]| {
    let known = tls::server_end_point(input);
    assert!(known.is_none_or(|hash| (28..=64).contains(&hash.len())));
    // Usage, selector, matching and the length of the data for each of up to four records; then certificates, by NULs.
    let Some((head, mut rest)) = input.split_at_checked(16) else { return };
    let mut records = Vec::new();
    for numbers in head.chunks_exact(4) {
        let length = usize::from(numbers[3]).min(rest.len());
        let (data, after) = rest.split_at(length);
        rest = after;
        records.push(Tlsa {
            usage: numbers[0] % 5,
            selector: numbers[1] % 3,
            matching: numbers[2] % 4,
            data: data.into(),
        });
    }
    let usable = usable(&records);
    assert!(usable.len() <= records.len());
    let records: Vec<_> = usable
        .into_iter()
        .map(|record| Association {
            holder: match record.usage {
                DaneUsage::TrustAnchor => Holder::Authority,
                DaneUsage::EndEntity => Holder::Server,
            },
            part: match record.selector {
                Selector::Certificate => Part::Certificate,
                Selector::PublicKey => Part::PublicKey,
            },
            form: match record.matching {
                Matching::Full => Form::Full,
                Matching::Sha256 => Form::Sha256,
                Matching::Sha512 => Form::Sha512,
            },
            data: record.data,
        })
        .collect();
    let whole = records.iter().any(|record| {
        (record.holder, record.part, record.form) == (Holder::Server, Part::Certificate, Form::Full)
    });
    let has_authority = records.iter().any(|record| record.holder == Holder::Authority);
    let dane = Dane { records, names: vec!["mx.example.org".to_owned()] };
    let chain: Vec<Vec<u8>> = rest.split(|b| *b == 0).map(Into::into).collect();
    let proven = dane.proves(&chain);
    // Octets that somebody made up match themselves, and no digest and no signature.
    assert!(!proven || whole || has_authority);
});
