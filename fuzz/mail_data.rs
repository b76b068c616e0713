//! The scanner of mail data, fed in pieces, finds what a scanner of single octets finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{Findings, MailDataScanner, Piece, Progress};

#[path = "../src/smtp/mail_data_model.rs"]
mod model;

fuzz_target!(|input: &[u8]| {
    // The first octets say where the wire is cut.
    let (cuts, wire) = input.split_at(input.len().min(4));
    let mut cuts = cuts.iter().cycle().map(|cut| usize::from(*cut) + 1);
    let mut scanner = MailDataScanner::new();
    let (mut content, mut end, mut fed) = (Vec::new(), None, 0);
    while fed < wire.len() && end.is_none() {
        let len = cuts.next().expect("there is a cut").min(wire.len() - fed);
        let piece = &wire[fed..fed + len];
        let progress = scanner.scan(piece, |found| match found {
            Piece::Input(range) => {
                assert!(!range.is_empty());
                content.extend(&piece[range]);
            }
            Piece::CarriedCr => content.push(b'\r'),
        });
        match progress {
            Progress::More => fed += len,
            Progress::Ended { consumed } => end = Some(fed + consumed),
        }
    }
    let found = model::Found { content, end, findings: scanner.findings() };
    assert_eq!(found, model::scan(wire));
});
