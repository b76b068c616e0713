//! The scanner of mail data against one that looks at single octets.

use super::{
    model::{self, Found},
    *,
};

fn scan(wire: &[u8], mut cut: impl FnMut(usize) -> usize) -> Found {
    let mut scanner = MailDataScanner::new();
    let mut content = Vec::new();
    let mut fed = 0;
    while fed < wire.len() {
        let input = &wire[fed..fed + cut(wire.len() - fed).clamp(1, wire.len() - fed)];
        let progress = scanner.scan(input, |piece| match piece {
            Piece::Input(range) => {
                assert!(!range.is_empty(), "an empty piece");
                content.extend(&input[range]);
            }
            Piece::CarriedCr => content.push(b'\r'),
        });
        if let Progress::Ended { consumed } = progress {
            return Found { content, end: Some(fed + consumed), findings: scanner.findings() };
        }
        fed += input.len();
    }
    Found { content, end: None, findings: scanner.findings() }
}

fn check(wire: &[u8], content: &[u8], end: Option<usize>) {
    let expected = model::scan(wire);
    assert_eq!(
        (&*expected.content, expected.end),
        (content, end),
        "the model itself, {}",
        wire.escape_ascii()
    );
    for step in 1..=wire.len() {
        assert_eq!(scan(wire, |_| step), expected, "{} in steps of {step}", wire.escape_ascii());
    }
}

#[test]
fn dots() {
    check(b".\r\n", b"", Some(3));
    check(b".\r\nQUIT\r\n", b"", Some(3));
    check(b"a\r\n.\r\nQUIT\r\n", b"a\r\n", Some(6));
    check(b"\r\n.\r\n", b"\r\n", Some(5));
    check(b"..\r\n.\r\n", b".\r\n", Some(7));
    check(b"a\r\n..\r\n...\r\n.b\r\n.\r\n", b"a\r\n.\r\n..\r\nb\r\n", Some(19));
    check(b"a.b\r\n.\r\n", b"a.b\r\n", Some(8));
    check(b"no end\r\n", b"no end\r\n", None);
}

#[test]
fn what_does_not_end_mail_data() {
    check(b"a\n.\nb", b"a\n.\nb", None);
    check(b"a\n.\r\nb", b"a\n.\r\nb", None);
    check(b"a\r.\rb", b"a\r.\rb", None);
    check(b"a\r\n.\nb", b"a\r\n\nb", None);
    check(b"a\r\n.\rb", b"a\r\n\rb", None);
    check(b"a\r\n.\r.\r\n.\r\n", b"a\r\n\r.\r\n", Some(11));
    check(b".\r\r\n.\r\n", b"\r\r\n", Some(7));
    check(b"a\r\r\n.\r\n", b"a\r\r\n", Some(7));
    check(b"a\n\r\n.\r\n", b"a\n\r\n", Some(7));
}

#[test]
fn random_mail_data_in_random_pieces() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..20_000 {
        let words: [&[u8]; 10] =
            [b".", b"\r\n", b"\r", b"\n", b"\r\n.", b"a", b"bc", b"\0", b"\xfc", &[b'x'; 400]];
        let len = 1 + random(12);
        let wire: Vec<u8> = (0..len).flat_map(|_| words[random(words.len())].to_vec()).collect();
        let found = scan(&wire, |rest| 1 + random(rest));
        assert_eq!(found, model::scan(&wire), "round {round}: {}", wire.escape_ascii());
    }
}

#[test]
#[should_panic(expected = "has ended")]
fn nothing_comes_after_the_end() {
    let mut scanner = MailDataScanner::new();
    let _ = scanner.scan(b".\r\n", |_| {});
    let _ = scanner.scan(b"a", |_| {});
}
