//! Chunks, cut anywhere, are counted to the octet, and what they are like does not depend on the cuts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::ChunkScanner;

fuzz_target!(|input: &[u8]| {
    let (cuts, content) = input.split_at(input.len().min(4));
    let mut whole = ChunkScanner::new();
    whole.begin_last(content.len() as u64);
    assert_eq!(whole.scan(&[content, b"NOOP\r\n"].concat()), content.len());

    let mut cut = ChunkScanner::new();
    let mut rest = content;
    for octet in cuts {
        let size = usize::from(*octet).min(rest.len()) / 2;
        cut.begin(size as u64);
        // A chunk may itself come in two pieces.
        let first = cut.scan(&rest[..size / 2]);
        let second = cut.scan(&rest[first..]);
        assert_eq!((first + second, cut.open()), (size, 0));
        rest = &rest[size..];
    }
    cut.begin_last(rest.len() as u64);
    assert_eq!(cut.scan(rest), rest.len());

    assert_eq!(cut.findings(), whole.findings());
    let found = whole.findings();
    let bare = |first: u8, second: u8, i: usize| content[i] == first && content.get(i + 1) != Some(&second);
    assert_eq!(found.size, content.len() as u64);
    assert_eq!(found.bare_cr, (0..content.len()).any(|i| bare(b'\r', b'\n', i)));
    assert_eq!(found.nul, content.contains(&0));
    assert_eq!(found.eight_bit, !content.is_ascii());
    assert_eq!(found.open_end, content.last().is_some_and(|b| *b != b'\n'));
});
