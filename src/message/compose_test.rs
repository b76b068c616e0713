//! Fields and parts as they travel.

use mail::JournalShard;

use super::*;

fn text(value: &str) -> String {
    let mut header = Header::new();
    header.text("Subject", value).unwrap();
    String::from_utf8(header.out).unwrap()
}

fn joined(content: Vec<Bytes>) -> String {
    String::from_utf8(content.concat()).unwrap()
}

#[test]
fn unstructured_fields() {
    assert_eq!(text("  plain  text "), "Subject: plain  text\r\n");
    assert_eq!(text(""), "Subject: \r\n");
    assert_eq!(text("jörg is here"), "Subject: =?utf-8?q?j=C3=B6rg_is_here?=\r\n");
    assert_eq!(text("=?utf-8?q?x?="), "Subject: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=\r\n");
    let long = "word ".repeat(60);
    let folded = text(&long);
    assert!(folded.lines().all(|line| line.len() <= LINE_LEN), "{folded}");
    assert_eq!(folded.replace("\r\n", ""), format!("Subject: {}", long.trim_end()));
}

#[test]
fn long_words_are_encoded_so_that_lines_stay_short() {
    for value in ["x".repeat(5000), "🦀".repeat(300), format!("{} y", "ö ".repeat(200))] {
        let field = text(&value);
        assert!(field.split("\r\n").all(|line| line.len() <= 76), "{field}");
        let decoded: Vec<u8> = field["Subject: ".len()..]
            .split_ascii_whitespace()
            .flat_map(|word| {
                assert!(word.len() <= 75);
                unquote(word.strip_prefix("=?utf-8?q?").unwrap().strip_suffix("?=").unwrap())
            })
            .collect();
        assert_eq!(String::from_utf8(decoded).unwrap(), value);
    }
    assert_eq!(Header::new().structured("X", &"x".repeat(901)), Err(ComposeError::TooLong));
}

/// Undoes the encoding of an encoded word.
fn unquote(text: &str) -> Vec<u8> {
    let mut octets = text.bytes();
    std::iter::from_fn(|| {
        Some(match octets.next()? {
            b'=' => {
                let mut digit = || char::from(octets.next().unwrap()).to_digit(16).unwrap() as u8;
                digit() << 4 | digit()
            }
            b'_' => b' ',
            octet => octet,
        })
    })
    .collect()
}

#[test]
fn no_value_breaks_out_of_its_field() {
    let mut header = Header::new();
    let address: Address = "ann@example.org".parse().unwrap();
    for value in ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "a\u{7f}b", "ö\r\n\r\nbody"] {
        assert_eq!(header.text("Subject", value), Err(ComposeError::Control));
        assert_eq!(header.structured("Subject", value), Err(ComposeError::Control));
        assert_eq!(header.mailbox("To", value, &address), Err(ComposeError::Control));
    }
    for name in ["", "a b", "a:", "a\r\nb", "ö"] {
        assert_eq!(header.text(name, "x"), Err(ComposeError::Name));
    }
    assert_eq!(header.as_bytes(), b"");
}

#[test]
fn mailboxes() {
    let address: Address = "ann@example.org".parse().unwrap();
    let check = |display: &str, expected: &str| {
        let mut header = Header::new();
        header.mailbox("To", display, &address).unwrap();
        assert_eq!(String::from_utf8(header.out).unwrap(), format!("To: {expected}\r\n"));
    };
    check("", "ann@example.org");
    check("Ann Lee", "Ann Lee <ann@example.org>");
    check("Lee, \"Ann\"", "\"Lee, \\\"Ann\\\"\" <ann@example.org>");
    check("Jörg <x>", "=?utf-8?q?J=C3=B6rg_=3Cx=3E?= <ann@example.org>");
}

#[test]
fn text_parts() {
    let check = |text: &str, encoding, expected: &str| {
        let content = joined(single(Header::new(), Part::text(text, encoding)));
        assert_eq!(content.split_once("charset=utf-8\r\n").unwrap().1, expected);
    };
    use TransferEncoding::{EightBit, QuotedPrintable, SevenBit};
    check("a\nb\r\n", EightBit, "\r\na\r\nb\r\n");
    check("a", QuotedPrintable, "\r\na\r\n");
    check("ö", EightBit, "Content-Transfer-Encoding: 8bit\r\n\r\nö\r\n");
    let quoted = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
    check("ö=\nx ", SevenBit, &format!("{quoted}=C3=B6=3D\r\nx=20\r\n"));
    let long = format!("{quoted}{}=\r\n{}\r\n", "x".repeat(75), "x".repeat(5));
    let head = Part::text(&format!("{}\n{}", "x".repeat(80), "ö"), SevenBit);
    assert!(joined(single(Header::new(), head)).contains(&long));
    let lines = joined(single(Header::new(), Part::text(&"x".repeat(3000), EightBit)));
    assert!(lines.lines().all(|line| line.len() <= QUOTED_LINE_LEN_MAX));
}

#[test]
fn a_multipart_keeps_its_parts_apart() {
    let id = QueueId::new(JournalShard(0), 1);
    let body = vec![Bytes::from_static(b"--=_0000000000"), Bytes::from_static(b"001_0\r\n")];
    let inner = body[0].as_ptr();
    let parts = vec![
        Part::text("hello", TransferEncoding::SevenBit).with("Content-Description", "Words").unwrap(),
        Part::new("message/rfc822", TransferEncoding::EightBit, body).unwrap(),
    ];
    let mut header = Header::new();
    header.text("Subject", "x").unwrap();
    let content = multipart(header, "report; report-type=delivery-status", id, parts).unwrap();
    assert!(content.iter().any(|slice| slice.as_ptr() == inner), "the content was copied");
    assert_eq!(
        joined(content),
        "Subject: x\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n \
         boundary=\"=_0000000000001_1\"\r\n\
         MIME-Version: 1.0\r\n\
         \r\n\
         --=_0000000000001_1\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Description: Words\r\n\
         \r\n\
         hello\r\n\
         \r\n\
         --=_0000000000001_1\r\n\
         Content-Type: message/rfc822\r\n\
         Content-Transfer-Encoding: 8bit\r\n\
         \r\n\
         --=_0000000000001_0\r\n\
         \r\n\
         --=_0000000000001_1--\r\n"
    );
}

#[test]
fn a_reply_becomes_one_line() {
    assert_eq!(one_line(b"  550-no\r\n550 \tsuch \xff\x00 user \r\n"), "550-no 550 such ?? user");
    assert_eq!(one_line(b""), "");
}
