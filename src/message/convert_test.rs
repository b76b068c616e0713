//! What is converted, what is left alone and what is refused; and that a reader sees the same afterwards.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use super::*;

fn seven(content: &str) -> Result<Option<String>, Unconvertible> {
    let content = content.replace('\n', "\r\n");
    let converted = convert(content.as_bytes(), BodyType::EightBitMime, Capacity::SevenBit)?;
    Ok(converted.map(|converted| String::from_utf8(converted).unwrap().replace("\r\n", "\n")))
}

fn check(content: &str, expected: &str) {
    assert_eq!(seven(content).unwrap().as_deref(), Some(expected), "{content}");
    assert_eq!(seven(expected), Ok(None), "what is converted is not converted again");
}

const MIME: &str = "MIME-Version: 1.0\n";

#[test]
fn leaves() {
    check(
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\ncontent-transfer-encoding : 8bit\nTo: b\n\n\
         hier geht es um Grüße \n.\nund mehr\n",
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nTo: b\nContent-Transfer-Encoding: quoted-printable\n\n\
         hier geht es um Gr=C3=BC=C3=9Fe=20\n.\nund mehr\n",
    );
    // Mostly octets: base64.
    check(
        &format!("{MIME}Content-Type: text/plain; charset=utf-8\n\nüüü\n"),
        &format!(
            "{MIME}Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw7zDvMO8DQo=\n"
        ),
    );
    check(
        &format!("{MIME}Content-Type: application/json\n\n{{\"name\": \"ü\"}}\n"),
        &format!(
            "{MIME}Content-Type: application/json\nContent-Transfer-Encoding: base64\n\neyJuYW1lIjogIsO8In0NCg==\n"
        ),
    );
    // Mail from before MIME, and mail that says nothing.
    check(
        "Subject: x\n\nSchöne Aussicht\n",
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
         Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Aussicht\n",
    );
    // No field is what begins here.
    check(
        "Schöne Aussicht\n",
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
         Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Aussicht\n",
    );
    // Encoded already, but for an octet that should not be there.
    let head = format!("{MIME}Content-Type: text/plain\nContent-Transfer-Encoding:");
    check(
        &format!("{head} (really) Quoted-Printable\n\na=20ü\n"),
        &format!("{head} (really) Quoted-Printable\n\na=20=C3=BC\n"),
    );
    check(&format!("{head} BASE64\n\nYWJj\nüYWJj\n"), &format!("{head} BASE64\n\nYWJj\nYWJj\n"));
    for content in ["", "\n", "a: b\n", "a: b\n\nc\n", "a: ü\n\nc\n", &format!("{head} 8bit\n\nc\n")] {
        assert_eq!(seven(content), Ok(None), "{content}");
    }
    assert_eq!(seven(&format!("{head} x-uuencode\n\nü\n")), Err(Unconvertible::Encoding));
    // The end of the content is a line end, and none that was not there is made up.
    let converted = convert(
        "a: b\r\n\r\nGrüße an alle miteinander".as_bytes(),
        BodyType::EightBitMime,
        Capacity::SevenBit,
    );
    assert!(converted.unwrap().unwrap().ends_with(b"\r\n\r\nGr=C3=BC=C3=9Fe an alle miteinander=\r\n"));
}

#[test]
fn parts() {
    check(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"a b\" (x)\nContent-Transfer-Encoding: 8bit\n\n\
         für alte Leser\n--a b\n\nSchöne Grüße an alle von uns\n--a b \nContent-Type: text/html\n\n<p>\n--a b\n\
         Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: ü\n\ndas sind Käse und Brot\n--a b--\nnüll\n",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"a b\" (x)\nContent-Transfer-Encoding: 7bit\n\n\
         f??r alte Leser\n--a b\nContent-Type: text/plain; charset=unknown-8bit\n\
         Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Gr=C3=BC=C3=9Fe an alle von uns\n--a b \nContent-Type: text/html\n\n<p>\n\
         --a b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: ü\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n\
         das sind K=C3=A4se und Brot\n--a b--\nn??ll\n",
    );
    // The outer one ends the inner one, which has not been closed; and one boundary begins with the other.
    check(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/digest; boundary=xy\n\n--xy\n\n\
         Subject: s\n\nwir haben Käse\n--x\n\nund Öl, gar nicht wenig\n",
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/digest; boundary=xy\n\n--xy\n\n\
         Subject: s\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
         Content-Transfer-Encoding: quoted-printable\n\nwir haben K=C3=A4se\n--x\n\
         Content-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n\
         und =C3=96l, gar nicht wenig\n",
    );
    for line in ["--xü", "--x-", "--x y", "--x--y"] {
        let content = format!("{MIME}Content-Type: multipart/mixed; boundary=x\n\n--x\n\nü\n{line}\n--x--\n");
        assert_eq!(seven(&content), Err(Unconvertible::Boundary), "{line}");
    }
    // A line that is broken must not become a delimiter.
    let long = format!("{}--x", "z".repeat(75));
    let out = seven(&format!("{MIME}Content-Type: multipart/mixed; boundary=x\n\n--x\n\n{long} ü\n--x--\n"));
    assert!(out.as_ref().unwrap().as_ref().unwrap().contains("zz=\n=2D-x =C3=BC\n"), "{out:?}");
}

#[test]
fn what_is_signed_or_may_not_be_encoded_stays_as_it_is_or_is_not_sent() {
    let signed = |inside: &str, outside: &str| {
        format!(
            "{MIME}Content-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 8bit\n\n--o\n\
             Content-Type: multipart/signed; boundary=s\n\n--s\nContent-Transfer-Encoding: 8bit\n\n{inside}\n--s\n\
             Content-Type: application/pgp-signature\n\nxyz\n--s--\n--o\n\n{outside}\n--o--\n"
        )
    };
    assert_eq!(seven(&signed("ü", "u")), Err(Unconvertible::Signed));
    assert_eq!(seven(&signed("u", "u")), Ok(None));
    let converted = seven(&signed("u", "das ist ü")).unwrap().unwrap();
    assert!(converted.contains("--s\nContent-Transfer-Encoding: 8bit\n\nu\n--s\n"), "{converted}");
    assert!(
        converted.contains("Content-Transfer-Encoding: 7bit\n\n--o\n")
            && converted.contains("das ist =C3=BC")
    );
    // What a report returns is a copy; a report that is signed itself is not.
    let returned = format!(
        "{MIME}Content-Type: multipart/report; boundary=r\n\n--r\nContent-Type: message/rfc822\n\n{}--r--\n",
        signed("ü", "u")
    );
    assert!(seven(&returned).unwrap().unwrap().contains("base64\n\nw7w=\n--s\n"), "{returned}");
    let sealed = format!(
        "{MIME}Content-Type: multipart/signed; boundary=z\n\n--z\n{}--z--\n",
        returned.trim_start_matches(MIME)
    );
    assert_eq!(seven(&sealed), Err(Unconvertible::Signed));
    let of_type = |kind: &str| seven(&format!("{MIME}Content-Type: {kind}\n\nSubject: x\n\nBrot und ü\n"));
    assert_eq!(of_type("message/partial; id=1; number=1"), Err(Unconvertible::Type));
    assert_eq!(of_type("message/external-body"), Err(Unconvertible::Type));
    assert_eq!(of_type("multipart/mixed"), Err(Unconvertible::Type));
    assert!(of_type("message/global").unwrap().unwrap().contains("base64\n"));
    let deep: String =
        (0..60).map(|i| format!("Content-Type: multipart/mixed; boundary=b{i:02}\n\n--b{i:02}\n")).collect();
    assert_eq!(seven(&format!("{deep}\nü\n")), Err(Unconvertible::Parts));
    let many = "--x\n\nü\n".repeat(20_000);
    let many = format!("{MIME}Content-Type: multipart/mixed; boundary=x\n\n{many}");
    assert_eq!(seven(&many), Err(Unconvertible::Parts));
}

#[test]
fn binary_content_becomes_lines() {
    let head = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let part = |kind: &str, label: &str, body: &str| {
        format!("--x\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {label}\r\n\r\n{body}\r\n")
    };
    let content = [
        head,
        &part("image/png", "binary", "a\0b\nc\r"),
        &part("text/plain", "binary", "zwölf\r\nBoxkämpfer"),
        &part("text/plain", "binary", "plain"),
        &part("text/plain", "8bit", &"u".repeat(999)),
        "--x--",
    ]
    .concat();
    let to = |to| {
        String::from_utf8(convert(content.as_bytes(), BodyType::BinaryMime, to).unwrap().unwrap()).unwrap()
    };
    let expected = |label: &str, twelve: &str| {
        [
            &head.replace("binary", label),
            &part("image/png", "base64", "YQBiCmMN"),
            twelve,
            &part("text/plain", "7bit", "plain"),
            &part("text/plain", "base64", "…"),
            "--x--\r\n",
        ]
        .concat()
    };
    let long = |text: &str| {
        let at = text.find("dXV1").unwrap();
        let end = at + text[at..].find("\r\n--x").unwrap();
        format!("{}…{}", &text[..at], &text[end..])
    };
    assert_eq!(
        long(&to(Capacity::EightBit)),
        expected("8bit", &part("text/plain", "8bit", "zwölf\r\nBoxkämpfer"))
    );
    let quoted = part("text/plain", "quoted-printable", "zw=C3=B6lf\r\nBoxk=C3=A4mpfer");
    assert_eq!(long(&to(Capacity::SevenBit)), expected("7bit", &quoted));
}

/// What a reader sees: types and decoded octets of all leaves.
fn read(content: &[u8]) -> Vec<String> {
    fn walk(message: &mail_parser::Message<'_>, seen: &mut Vec<String>) {
        for part in &message.parts {
            let kind = part.content_type().map(|kind| format!("{}/{:?}", kind.ctype(), kind.subtype()));
            match &part.body {
                PartType::Message(inner) => walk(inner, seen),
                PartType::Multipart(_) => seen.push(format!("{kind:?}")),
                PartType::Text(_) | PartType::Html(_) | PartType::Binary(_) | PartType::InlineBinary(_) => {
                    seen.push(format!("{kind:?} {:?}", part.contents()));
                }
            }
        }
    }
    let mut seen = Vec::new();
    walk(&MessageParser::default().parse(content).unwrap(), &mut seen);
    seen
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn entity(&mut self, depth: usize, out: &mut String) {
        match self.below(if depth < 3 { 6 } else { 4 }) {
            0 => out.push_str(
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
            ),
            1 => out.push_str("Content-Type: text/html; charset=utf-8\r\n\r\n"),
            2 => out.push_str("Content-Type: application/x; name=\"a;b\"\r\n\r\n"),
            3 => out.push_str("Content-Type: image/png\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"),
            4 => {
                out.push_str("Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n");
                // A message with nothing but a message is more than the reader can do: deep enough, there is none.
                return self.entity(3, out);
            }
            _ => {
                let boundary = format!("b{depth}{}", "y".repeat(self.below(3)));
                *out += &format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\nfirst\r\n");
                for _ in 0..=self.below(3) {
                    *out += &format!("--{boundary}\r\n");
                    self.entity(depth + 1, out);
                    out.push_str("\r\n");
                }
                return *out += &format!("--{boundary}--\r\n");
            }
        }
        let words = [
            "Käse",
            " ",
            "\r\n",
            "x",
            "--c",
            "=",
            ".",
            "\t",
            "ü",
            "und so weiter",
            "-",
            "a long line of some words ",
        ];
        for _ in 0..self.below(60) {
            out.push_str(words[self.below(words.len())]);
        }
    }
}

#[test]
fn a_reader_sees_the_same_afterwards() {
    let mut converted = 0;
    for seed in 0..2000 {
        let mut content = String::from("Subject: x\r\nMIME-Version: 1.0\r\n");
        Chance(seed).entity(0, &mut content);
        content.push_str("\r\n");
        let out = match convert(content.as_bytes(), BodyType::EightBitMime, Capacity::SevenBit) {
            Ok(Some(out)) => out,
            Ok(None) | Err(Unconvertible::Boundary) => continue,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        converted += 1;
        assert!(out.is_ascii(), "seed {seed}");
        assert_eq!(
            read(content.as_bytes()),
            read(&out),
            "seed {seed}: {content}\n{}",
            String::from_utf8_lossy(&out)
        );
        let again = convert(&out, BodyType::EightBitMime, Capacity::SevenBit);
        assert_eq!(again, Ok(None), "seed {seed}");
    }
    assert!(converted > 1000, "{converted}");
}
