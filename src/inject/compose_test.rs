//! Messages as another parser reads them.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use super::*;
use crate::decode::{Limits, request};

fn composed(text: &str) -> Vec<Vec<u8>> {
    let request = request(text.as_bytes(), Limits { messages_max: 9, values_max: 999 }).unwrap();
    let of_draft =
        |draft: &Draft| draft.copies.iter().map(|copy| message(draft, copy).unwrap()).collect::<Vec<_>>();
    request.drafts.iter().flat_map(of_draft).collect()
}

fn one(text: &str) -> String {
    String::from_utf8(composed(text).remove(0)).unwrap()
}

#[test]
fn a_text_alone_is_one_part() {
    let message = one(
        r#"{"from": "Ann <ann@example.org>", "to": "bob@example.net", "subject": "Hi", "text": "a\nb\r\nc\rd"}"#,
    );
    assert_eq!(
        message,
        "From: \"Ann\" <ann@example.org>\r\nTo: <bob@example.net>\r\nSubject: Hi\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\na\r\nb\r\nc\r\nd"
    );
}

#[test]
fn blind_copies_stand_nowhere() {
    let message = one(
        r#"{"from": "a@b.example", "to": "c@d.example", "cc": "x@y.example", "bcc": "secret@d.example", "text": "x"}"#,
    );
    assert!(message.contains("x@y.example") && !message.contains("secret"), "{message}");
}

#[test]
fn the_tree_is_as_deep_as_it_must_be() {
    let file = r#"[{"content": "AAEC/w==", "filename": "a.bin"}]"#;
    let image = r#"[{"content": "AAEC/w==", "content_id": "logo", "content_type": "image/png"}]"#;
    let base = r#""from": "a@b.example", "to": "c@d.example""#;
    for (more, expected) in [
        (r#""text": "x""#.to_owned(), "text/plain"),
        (r#""html": "x""#.to_owned(), "text/html"),
        (r#""text": "x", "html": "y""#.to_owned(), "multipart/alternative(text/plain text/html)"),
        (
            format!(r#""text": "x", "attachments": {file}"#),
            "multipart/mixed(text/plain application/octet-stream)",
        ),
        (format!(r#""html": "x", "inline": {image}"#), "multipart/related(text/html image/png)"),
        (
            format!(r#""text": "x", "html": "y", "inline": {image}, "attachments": {file}"#),
            "multipart/mixed(multipart/alternative(text/plain multipart/related(text/html image/png)) application/octet-stream)",
        ),
        (format!(r#""text": "x", "inline": {image}"#), "multipart/mixed(text/plain image/png)"),
        (format!(r#""attachments": {file}"#), "multipart/mixed(application/octet-stream)"),
    ] {
        let message = composed(&format!("{{{base}, {more}}}")).remove(0);
        let parsed = MessageParser::default().parse(&message).unwrap();
        assert_eq!(shape(&parsed, 0), expected, "{more}");
        let files = parsed
            .parts
            .iter()
            .filter(|part| matches!(part.body, PartType::Binary(_) | PartType::InlineBinary(_)));
        for part in files {
            assert_eq!(part.contents(), [0, 1, 2, 255]);
        }
    }
}

fn shape(message: &mail_parser::Message<'_>, part: u32) -> String {
    let part = &message.parts[part as usize];
    let kind = part.content_type().unwrap();
    let name = format!("{}/{}", kind.c_type, kind.c_subtype.as_deref().unwrap_or_default());
    match &part.body {
        PartType::Multipart(children) => {
            let children = children.iter().map(|child| shape(message, *child)).collect::<Vec<_>>();
            format!("{name}({})", children.join(" "))
        }
        PartType::Text(_)
        | PartType::Html(_)
        | PartType::Binary(_)
        | PartType::InlineBinary(_)
        | PartType::Message(_) => name,
    }
}

#[test]
fn every_character_comes_through() {
    let text = "Grüße, 世界 = \t.\r\n.\r\nFrom here\r\n--x\r\n trailing \r\n";
    let long = "ж".repeat(700);
    let value = serde_json::json!({
        "from": {"address": "a@b.example", "name": "Ännchen \"die\" Große, \\ (Dr.)"},
        "to": [{"address": "c@d.example", "name": "山田太郎"}, "plain@d.example"],
        "subject": long,
        "text": text,
        "html": "<p>ü</p>",
        "headers": {"List-Unsubscribe": format!("<https://example.org/{}>", "u".repeat(200)), "X-Note": "naïve"},
        "attachments": [{"content": "aGk=", "filename": "Übersicht \"1\" 世.pdf", "content_type": "application/pdf"}],
    });
    let message = composed(&value.to_string()).remove(0);
    assert!(message.is_ascii(), "nothing asks more of the next hop than it must");
    assert!(message.split(|octet| *octet == b'\n').all(|line| line.len() <= 999));
    let parsed = MessageParser::default().parse(&message).unwrap();
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!(from.name(), Some("Ännchen \"die\" Große, \\ (Dr.)"));
    assert_eq!(parsed.to().unwrap().first().unwrap().name(), Some("山田太郎"));
    assert_eq!(parsed.subject(), Some(long.as_str()));
    assert_eq!(parsed.body_text(0).unwrap(), text);
    assert_eq!(parsed.attachment(0).unwrap().attachment_name(), Some("Übersicht \"1\" 世.pdf"));
    let text = String::from_utf8(message).unwrap();
    assert!(
        text.contains(&format!("<https://example.org/{}>\r\n", "u".repeat(200))),
        "a link is not encoded"
    );
}

#[test]
fn what_a_value_holds_stays_in_its_field() {
    let text = r#"{"from": "a@b.example", "text": "{{x}}", "subject": "{{x}}",
        "recipients": [{"to": "c@d.example", "variables": {"x": "one\r\nBcc: eve@evil.example"}}]}"#;
    let request = request(text.as_bytes(), Limits { messages_max: 9, values_max: 999 }).unwrap();
    let draft = &request.drafts[0];
    let fault = message(draft, &draft.copies[0]).unwrap_err();
    assert_eq!(fault.pointer, "/subject");
    assert!(
        fault.detail.contains("control character") && fault.detail.contains("/recipients/0"),
        "{fault:?}"
    );
}

#[test]
fn octets_say_what_the_next_hop_must_know() {
    let reverse_path = ReversePath::Null;
    let check = |content: &str, recipient: &str, expected| {
        assert_eq!(octets(content.as_bytes(), &reverse_path, &[recipient.parse().unwrap()]), expected);
    };
    check("From: a\r\n\r\nx", "a@b.example", (BodyType::SevenBit, Utf8::NotNeeded));
    check("From: a\r\n\r\nü", "a@b.example", (BodyType::EightBitMime, Utf8::NotNeeded));
    check("From: ü\r\n\r\nx", "a@b.example", (BodyType::EightBitMime, Utf8::Needed));
    check("From: a\r\n\r\nx", "ü@b.example", (BodyType::SevenBit, Utf8::Needed));
}

#[test]
fn nobody_gets_it_twice() {
    let text = r#"{"from": "a@b.example", "to": ["c@d.example", "e@d.example"], "cc": "c@d.example",
        "bcc": "e@D.example", "text": "x"}"#;
    let request = request(text.as_bytes(), Limits { messages_max: 9, values_max: 999 }).unwrap();
    let found: Vec<_> = recipients(&request.drafts[0].copies[0]).into_iter().map(Address::as_str).collect();
    assert_eq!(found, ["c@d.example", "e@d.example"]);
}
