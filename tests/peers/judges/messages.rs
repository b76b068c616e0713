//! Messages as they are and as they might be: well-formed for SMTP, and odd in every other way.

use super::Random;

const WORDS: &[&str] = &[
    "the",
    "quick",
    "brown",
    "fox",
    "=?utf-8?q?J=C3=BCrgen?=",
    "\"a b\"",
    "<x@y.example>",
    "(comment)",
    "a,b;c",
    "Grüße",
    "日本語",
    "x=y",
    "100%",
    "\\",
    "'",
    "--",
    "v=1;",
    "b=",
    "::",
    "@",
    "..",
    "\u{7f}",
    "\u{1}",
];
const SPACES: &[&str] = &[" ", " ", " ", "  ", "\t", " \t ", "\r\n ", "\r\n\t", "\r\n   \t", "   "];
const AFTER_COLON: &[&str] = &[" ", " ", " ", "", "  ", "\t", "\r\n ", " \r\n\t"];
const AT_END: &[&str] = &["", "", "", "", " ", "\t", "  \t"];
const NAMES: &[&str] = &[
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "Sender",
    "MIME-Version",
    "Content-Type",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Unsubscribe",
    "X-Mailer",
    "X-Long-Name-Of-A-Field-That-Nobody-Knows",
    "Received",
    "Comments",
    "Keywords",
];

/// A message without signatures: lines end in CRLF, and `From` is at example.org.
pub(super) fn message(random: &mut Random) -> Vec<u8> {
    let mut message = Vec::new();
    let fields = match random.below(20) {
        0 => 0,
        1 => 150,
        n => n,
    };
    let author = random.below(fields + 1);
    for i in 0..=fields {
        if i == author {
            field(random, &mut message, "From", "Ann Example <ann@example.org>");
        }
        if i < fields {
            let name = random.text(NAMES);
            let value = value(random);
            field(random, &mut message, name, &value);
            // What may stand once stands twice.
            if random.one_in(15) {
                field(random, &mut message, name, &value);
            }
        }
    }
    message.extend_from_slice(b"\r\n");
    body(random, &mut message);
    message
}

fn field(random: &mut Random, message: &mut Vec<u8>, name: &str, value: &str) {
    let name = match random.below(8) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        2 => name
            .chars()
            .enumerate()
            .map(|(i, c)| if i % 2 == 0 { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
            .collect(),
        _ => name.to_owned(),
    };
    message.extend_from_slice(name.as_bytes());
    message.push(b':');
    message.extend_from_slice(random.text(AFTER_COLON).as_bytes());
    message.extend_from_slice(value.as_bytes());
    message.extend_from_slice(random.text(AT_END).as_bytes());
    message.extend_from_slice(b"\r\n");
}

fn value(random: &mut Random) -> String {
    let words = match random.below(30) {
        0 => 400,
        n => 1 + n % 12,
    };
    let mut value = (random.text(WORDS)).to_owned();
    for _ in 1..words {
        value.push_str(random.text(SPACES));
        value.push_str(random.text(WORDS));
    }
    value
}

fn body(random: &mut Random, message: &mut Vec<u8>) {
    let lines = match random.below(25) {
        0 => return,
        1 => 2000,
        n => n,
    };
    for _ in 0..lines {
        match random.below(10) {
            0 => {}
            1 => message.extend_from_slice(random.text(&[" ", "\t", "  \t "]).as_bytes()),
            2 => message.extend_from_slice(&[0xe9, 0xff, b' ', 0x80]),
            3 => message.extend_from_slice("x".repeat(random.below(3000)).as_bytes()),
            _ => {
                for _ in 0..random.below(12) {
                    message.extend_from_slice(random.text(WORDS).as_bytes());
                    // Within a line.
                    let space = random.text(&[" ", "  ", "\t", " \t", ""]);
                    message.extend_from_slice(space.as_bytes());
                }
            }
        }
        message.extend_from_slice(b"\r\n");
    }
    // What stands at the end is where canonical forms differ most.
    for _ in 0..random.below(4) {
        message.extend_from_slice(random.text(&["\r\n", " \r\n", "\t \r\n", "\r\n\r\n"]).as_bytes());
    }
    if random.one_in(10) {
        message.extend_from_slice(random.text(&["no end", " ", "no end  ", "\t"]).as_bytes());
    }
}

/// What may happen to a signed message on its way. Says what it was.
pub(super) fn change(random: &mut Random, message: &mut Vec<u8>) -> &'static str {
    let body_start = find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    let signature = find(message, b"DKIM-Signature:");
    let in_signature = |message: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = signature.and_then(|start| find(&message[start..body_start], from).map(|at| start + at));
        at.map(|at| drop(message.splice(at..at + from.len(), to.iter().copied())))
    };
    match random.below(34) {
        0 => {
            if let Some(at) =
                (body_start < message.len()).then(|| body_start + random.below(message.len() - body_start))
            {
                // Letters alone: lines stay lines.
                if message[at].is_ascii_lowercase() {
                    message[at] = if message[at] == b'q' { b'z' } else { b'q' };
                }
            }
            "a letter of the body"
        }
        1 => {
            message.extend_from_slice(b"\r\n\r\n");
            "empty lines at the end"
        }
        2 => {
            message.extend_from_slice(b" \r\n");
            "a line of white space at the end"
        }
        3 => {
            message.extend_from_slice(b"more\r\n");
            "a line at the end"
        }
        4 => {
            while message.len() > body_start && message.ends_with(b"\r\n") {
                message.truncate(message.len() - 2);
            }
            "no line ends at the end"
        }
        5 => {
            if let Some(at) = find(&message[body_start..], b" ") {
                message.insert(body_start + at, b' ');
            }
            "a space more in the body"
        }
        6 => {
            if let Some(at) = find(&message[body_start..], b"\r\n") {
                drop(message.splice(body_start + at..body_start + at, *b" \t"));
            }
            "white space at the end of a line"
        }
        7 => {
            if let Some(at) = find(&message[..body_start], b"\r\nsubject") {
                message[at + 2] = b'S';
            } else if let Some(at) = find(&message[..body_start], b"\r\nSubject") {
                message[at + 2] = b's';
            }
            "the case of a name"
        }
        8 => {
            if let Some(at) = find(&message[..body_start], b"Ann Example") {
                drop(message.splice(at + 3..at + 4, *b"\r\n \t "));
            }
            "a fold"
        }
        9 => {
            if let Some(at) = find(&message[..body_start], b"Ann Example") {
                message[at] = b'U';
            }
            "the author's name"
        }
        10 => {
            drop(message.splice(..0, *b"Subject: another\r\n"));
            "a Subject before all"
        }
        11 => {
            drop(message.splice(..0, *b"Received: by some host\r\nX-Other: y\r\n"));
            "fields that are not signed"
        }
        12 => {
            drop(message.splice(
                body_start.saturating_sub(2)..body_start.saturating_sub(2),
                *b"Subject: another\r\n",
            ));
            "a Subject after all"
        }
        13 => {
            in_signature(message, b"v=1", b"v=2");
            "another version"
        }
        14 => {
            in_signature(message, b"a=rsa-sha256", b"a=rsa-sha512");
            "an algorithm that there is not"
        }
        15 => {
            in_signature(message, b"c=relaxed", b"c=simple");
            "another canonical form"
        }
        16 => {
            in_signature(message, b"d=example.org", b"d=example.com");
            "another domain"
        }
        17 => {
            in_signature(message, b" s=", b" s=x");
            "another selector"
        }
        18 => {
            in_signature(message, b"bh=", b"bh=A");
            "another body hash"
        }
        19 => {
            in_signature(message, b" v=1;", b"");
            "no version"
        }
        20 => {
            in_signature(message, b" d=example.org;", b" d=example.org; d=example.org;");
            "a tag twice"
        }
        21 => {
            in_signature(message, b" v=1;", b" v=1; x=1;");
            "a time that is over"
        }
        22 => {
            in_signature(message, b" v=1;", b" v=1; q=dns/none;");
            "a query method that there is not"
        }
        23 => {
            in_signature(message, b" v=1;", b" v=1; i=@example.com;");
            "an identity elsewhere"
        }
        24 => {
            in_signature(message, b" v=1;", b" v = 1 ;\r\n\t");
            "white space within a signature"
        }
        25 => {
            in_signature(message, b" v=1;", b" v=1; zz=unknown;");
            "a tag that nobody knows"
        }
        _ => "nothing",
    }
}

pub(super) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
