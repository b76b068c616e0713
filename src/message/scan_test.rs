//! Header sections, whole and cut.

use bytes::Bytes;

use super::*;

const LIMITS: HeaderLimits = HeaderLimits { header_size_max: 1000 };

/// The same summary, however the content is cut.
fn scan(content: &[u8]) -> HeaderSummary {
    let whole = HeaderScan::of(&[Bytes::copy_from_slice(content)], LIMITS);
    for step in 1..=content.len().min(9) {
        let parts: Vec<_> = content.chunks(step).map(Bytes::copy_from_slice).collect();
        assert_eq!(HeaderScan::of(&parts, LIMITS), whole, "cut every {step}: {:?}", content.as_bstr());
    }
    whole
}

trait AsText {
    fn as_bstr(&self) -> String;
}

impl AsText for [u8] {
    fn as_bstr(&self) -> String {
        self.escape_ascii().to_string()
    }
}

fn value(content: &[u8], range: Option<Range<usize>>) -> String {
    range.map_or_else(|| "none".to_owned(), |range| content[range].as_bstr())
}

#[test]
fn an_ordinary_message() {
    let content = b"Received: from a by b;\r\n\tdate\r\nRECEIVED : x\r\nFrom: ann@example.org\r\n\
        To: bob@example.org\r\nMessage-ID:\r\n <1@x>\r\nmessage-id: <2@x>\r\nDate: now\r\nSubject: hi\r\n\
        X-A-Field-With-A-Very-Long-Name-Of-Our-Very-Own: 1\r\n\r\nFrom: body\r\n";
    let found = scan(content);
    assert_eq!(found.end, HeaderEnd::EmptyLine);
    assert_eq!(&content[found.body_start..], b"From: body\r\n");
    assert_eq!(found.body_start, found.len + 2);
    assert_eq!(found.malformed, 0);
    assert_eq!(found.control, 0);
    assert_eq!(found.eight_bit, EightBit::None);
    assert_eq!(found.line_len_max, 50);
    let fields = found.fields;
    assert_eq!((fields.all, fields.received, fields.from, fields.date), (9, 2, 1, 1));
    assert_eq!((fields.to, fields.message_id, fields.subject, fields.cc), (1, 2, 1, 0));
    assert_eq!(value(content, found.message_id), "\\r\\n <1@x>");
    assert_eq!(value(content, found.from), " ann@example.org");
}

#[test]
fn ends_of_a_header_section() {
    let check = |content: &[u8], end, len, body_start| {
        let found = scan(content);
        assert_eq!((found.end, found.len, found.body_start), (end, len, body_start), "{}", content.as_bstr());
    };
    check(b"", HeaderEnd::Content, 0, 0);
    check(b"\r\n", HeaderEnd::EmptyLine, 0, 2);
    check(b"\r\nbody", HeaderEnd::EmptyLine, 0, 2);
    check(b"A: b\r\n", HeaderEnd::Content, 6, 6);
    check(b"A: b", HeaderEnd::Content, 4, 4);
    check(b"A: b\r\n\r", HeaderEnd::Content, 7, 7);
    check(b"A: b\n\nbody", HeaderEnd::Content, 10, 10);
    check(&[b"A: ".as_slice(), &[b'x'; 2000]].concat(), HeaderEnd::TooLong, 1000, 1000);
}

#[test]
fn what_is_no_field() {
    let check = |content: &[u8], malformed, first: &str| {
        let found = scan(content);
        assert_eq!(found.malformed, malformed, "{}", content.as_bstr());
        assert_eq!(value(content, found.malformed_first), first, "{}", content.as_bstr());
    };
    check(b"A: b\r\nbody without a header\r\n more\r\nB: c\r\n\r\n", 2, "body without a header");
    check(b" continues nothing\r\nA: b\r\n\r\n", 1, " continues nothing");
    check(b": no name\r\n\r\n", 1, ": no name");
    check(b"From ann Thu Nov 20\r\nA: b\r\n\r\n", 1, "From ann Thu Nov 20");
    check(b"A B: c\r\n\r\n", 1, "A B: c");
    check(b"\xc3\xa9: c\r\n\r\n", 1, "\\xc3\\xa9: c");
    check(b"last", 1, "last");
}

#[test]
fn a_bare_cr_or_lf_ends_nothing() {
    let content = b"A: b\nReceived: x\rReceived: y\r\nReceived: z\r\r\n\0\r\n\r\n";
    let found = scan(content);
    assert_eq!(found.fields.received, 1);
    assert_eq!(found.end, HeaderEnd::EmptyLine);
    assert_eq!(found.control, 4);
}

#[test]
fn octets_above_127() {
    let check = |content: &[u8], expected| {
        assert_eq!(scan(content).eight_bit, expected, "{}", content.as_bstr());
    };
    check("Subject: 🦀 jörg\r\n\r\n".as_bytes(), EightBit::Utf8);
    check("Subject: x\r\n\r\nbödy".as_bytes(), EightBit::None);
    check(b"Subject: j\xf6rg\r\n\r\n", EightBit::Other);
    check(b"Subject: \xf0\x9f\xa6\r\n\r\n", EightBit::Other);
    check(b"Subject: \xf0\x9f\xa6", EightBit::Other);
    check(b"Subject: \xed\xa0\x80\r\n\r\n", EightBit::Other);
    check("Subject: ö\r\nX: \u{ff}\r\n\r\n\u{0}".as_bytes(), EightBit::Utf8);
}

#[test]
fn what_is_asked_of_tls() {
    for (content, expected) in [
        ("TLS-Required: No\r\n\r\n", " No"),
        ("tls-required:\r\n no\r\nTLS-Required: yes\r\n\r\n", "\\r\\n no"),
        ("Subject: x\r\n\r\nTLS-Required: No\r\n", "none"),
    ] {
        assert_eq!(value(content.as_bytes(), scan(content.as_bytes()).tls_required), expected, "{content}");
    }
}
