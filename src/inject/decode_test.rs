//! Requests as programs write them, right and wrong.

use super::*;

const LIMITS: Limits = Limits { messages_max: 5, values_max: 1000 };

fn read(text: &str) -> Request {
    request(text.as_bytes(), LIMITS).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

/// Places and details of the mistakes.
fn mistakes(text: &str) -> Vec<(String, String)> {
    match request(text.as_bytes(), LIMITS) {
        Err(DecodeError::Faults(faults)) => {
            assert!(faults.iter().all(|fault| !fault.remedy.is_empty()), "{faults:?}");
            faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn mistake(text: &str, pointer: &str, detail: &str) {
    let found = mistakes(text);
    let hit = found.iter().any(|(at, what)| at == pointer && what.contains(detail));
    assert!(hit, "{text}\n wanted {pointer}: {detail}\n found {found:?}");
}

#[test]
fn a_message_of_parts() {
    let request = read(
        r#"{"from": "Ann <ann@example.org>", "to": ["bob@example.net", {"address": "c@example.net", "name": "C, D"}],
            "cc": "e@example.net, F <f@example.net>", "bcc": [], "reply_to": {"address": "r@example.org"},
            "envelope_from": "bounce@example.org", "subject": "Hi {{name}}", "text": "x", "html": "<p>x",
            "headers": {"X-One": "1", "X-Two": ["2", "3"]},
            "attachments": [{"content": "aGk=", "filename": "hi.txt", "content_type": "text/plain; charset=utf-8"}],
            "inline": [{"content": "aGk=\r\n", "content_id": "logo@example.org", "content_type": "image/png"}]}"#,
    );
    assert_eq!(request.shape, Shape::One);
    let [draft] = &request.drafts[..] else { panic!() };
    let [copy] = &draft.copies[..] else { panic!() };
    let names =
        |list: &[Mailbox]| list.iter().map(|m| format!("{}|{}", m.name, m.address)).collect::<Vec<_>>();
    assert_eq!(names(&copy.to), ["|bob@example.net", "C, D|c@example.net"]);
    assert_eq!(names(&copy.cc), ["|e@example.net", "F|f@example.net"]);
    assert!(copy.bcc.is_empty());
    let Content::Parts(parts) = &draft.content else { panic!() };
    assert_eq!(names(&parts.from), ["Ann|ann@example.org"]);
    // Without variables it is no template.
    assert_eq!(parts.subject.as_ref().unwrap().fill(&Variables::new()).unwrap(), "Hi {{name}}");
    assert_eq!(
        parts.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["X-One", "X-Two", "X-Two"]
    );
    assert_eq!(parts.attachments[0].encoded, b"aGk=\r\n");
    assert_eq!(parts.inline[0].content_id.as_deref(), Some("logo@example.org"));
}

#[test]
fn copies_have_their_own_variables() {
    let request = read(
        r#"{"from": "a@b.example", "subject": "{{greeting}} {{name}}", "text": "{{n}}",
            "variables": {"greeting": "Dear", "n": 1},
            "recipients": [{"to": "x@y.example", "variables": {"name": "X", "n": 2.5}},
                           {"to": "z@y.example", "variables": {"name": "Z", "greeting": "Hi"}}]}"#,
    );
    assert_eq!(request.shape, Shape::Many);
    let draft = &request.drafts[0];
    let Content::Parts(parts) = &draft.content else { panic!() };
    let filled: Vec<_> = draft
        .copies
        .iter()
        .map(|copy| {
            let fill =
                |template: &Option<Template>| template.as_ref().unwrap().fill(&copy.variables).unwrap();
            (copy.pointer.as_str(), fill(&parts.subject), fill(&parts.text))
        })
        .collect();
    assert_eq!(filled[0], ("/recipients/0", "Dear X".into(), "2.5".into()));
    assert_eq!(filled[1], ("/recipients/1", "Hi Z".into(), "1".into()));
}

#[test]
fn an_unknown_variable_is_told_with_its_place() {
    let text = r#"{"messages": [{"from": "a@b.example", "text": "one\ntwo {{nme}}", "headers": {"X-A/B": "{{x}}"},
        "recipients": [{"to": "x@y.example", "variables": {"name": "X", "x": 1}}]}]}"#;
    let found = mistakes(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "/messages/0/text");
    assert_eq!(
        found[0].1,
        "the variable \"nme\" is not given, in line 2, column 7, for /messages/0/recipients/0"
    );
    mistake(&text.replace("\"x\": 1", "\"y\": 1"), "/messages/0/headers/X-A~1B", "\"x\" is not given");
    mistake(r#"{"from":"a@b.example","to":"c@d.example","text":"{{","variables":{}}"#, "/text", "without");
}

#[test]
fn mistakes_name_their_place() {
    for (text, pointer, detail) in [
        ("[]", "", "this is an array"),
        ("{}", "/from", "nobody is named"),
        (r#"{"form": "a@b.example"}"#, "/form", "unknown"),
        (r#"{"from": 5}"#, "/from", "this is a number"),
        (r#"{"from": "a@b.example", "to": ["x", "c@d.example"], "text": ""}"#, "/to/0", "no address"),
        (r#"{"from": "a@b.example", "to": [["x"]], "text": ""}"#, "/to/0", "this is an array"),
        (r#"{"from": "a@b.example", "to": {"name": "X"}, "text": ""}"#, "/to/address", "no address"),
        (r#"{"from": "a@b.example", "to": {"address": "X <x@y.example>"}, "text": ""}"#, "/to", "no address"),
        (
            r#"{"from": "a@b.example", "to": {"address": "x@y.example", "name": "a\r\nb"}, "text": ""}"#,
            "/to/name",
            "control",
        ),
        (r#"{"from": "a@b.example", "to": {"adress": "x@y.example"}, "text": ""}"#, "/to/adress", "unknown"),
        (r#"{"from": "a@b.example", "text": "x"}"#, "/to", "no recipient"),
        (r#"{"from": "a@b.example", "to": "c@d.example"}"#, "", "no content"),
        (r#"{"from": "a@b.example", "to": "c@d.example", "text": "x\u0000"}"#, "/text", "NUL"),
        (r#"{"from": "a@b.example", "to": "c@d.example", "text": ["x"]}"#, "/text", "this is an array"),
        (r#"{"from": "a@b.example", "envelope_from": "A <a@b.example>"}"#, "/envelope_from", "a@b.example"),
        (r#"{"headers": {"Subject": "x"}, "from": "a@b.example"}"#, "/headers/Subject", "field of its own"),
        (
            r#"{"headers": {"content-type": "x"}, "from": "a@b.example"}"#,
            "/headers/content-type",
            "follows from",
        ),
        (
            r#"{"headers": {"Resent-From": "x"}, "from": "a@b.example"}"#,
            "/headers/Resent-From",
            "follows from",
        ),
        (r#"{"headers": {"X:Y": "x"}, "from": "a@b.example"}"#, "/headers/X:Y", "no name"),
        (r#"{"headers": {"X\r\nBcc": "x"}, "from": "a@b.example"}"#, "/headers/X\r\nBcc", "no name"),
        (r#"{"headers": ["x"], "from": "a@b.example"}"#, "/headers", "this is an array"),
        (
            r#"{"attachments": [{"filename": "x"}], "from": "a@b.example"}"#,
            "/attachments/0/content",
            "no content",
        ),
        (
            r#"{"attachments": [{"content": "a"}], "from": "a@b.example"}"#,
            "/attachments/0/content",
            "no base64",
        ),
        (
            r#"{"attachments": [{"content": "", "filename": "a\nb"}], "from": "a@b.example"}"#,
            "/attachments/0/filename",
            "line end",
        ),
        (
            r#"{"attachments": [{"content": "", "content_type": "x"}], "from": "a@b.example"}"#,
            "/attachments/0/content_type",
            "no media type",
        ),
        (
            r#"{"attachments": [{"content": "", "content_type": "a/b; c"}], "from": "a@b.example"}"#,
            "/attachments/0/content_type",
            "no value",
        ),
        (
            r#"{"attachments": [{"content": "", "content_type": "a/b; c=\"d\"e\""}], "from": "a@b.example"}"#,
            "/attachments/0/content_type",
            "malformed",
        ),
        (
            r#"{"attachments": [{"content": "", "content_type": "message/rfc822"}], "from": "a@b.example"}"#,
            "/attachments/0/content_type",
            "base64",
        ),
        (r#"{"inline": [{"content": ""}], "from": "a@b.example"}"#, "/inline/0/content_id", "needs one"),
        (
            r#"{"inline": [{"content": "", "content_id": "<a>"}], "from": "a@b.example"}"#,
            "/inline/0/content_id",
            "no Content-ID",
        ),
        (r#"{"variables": {"1a": "x"}, "from": "a@b.example"}"#, "/variables/1a", "no name"),
        (r#"{"variables": {"a": null}, "from": "a@b.example"}"#, "/variables/a", "this is null"),
        (r#"{"recipients": [], "from": "a@b.example", "text": ""}"#, "/recipients", "nobody"),
        (
            r#"{"recipients": [{"to": "a@b.example"}], "to": "c@d.example", "from": "a@b.example"}"#,
            "/to",
            "beside `recipients`",
        ),
        (
            r#"{"recipients": [{"to": "a@b.example", "subject": "x"}], "from": "a@b.example"}"#,
            "/recipients/0/subject",
            "unknown",
        ),
        (r#"{"envelope_to": "a@b.example", "from": "a@b.example"}"#, "/envelope_to", "only beside `raw`"),
        (r#"{"raw": "eA==", "text": "x"}"#, "/text", "beside `raw`"),
        (r#"{"raw": "eA=="}"#, "/raw", "no recipient"),
        (r#"{"raw": ""}"#, "/raw", "no message"),
        (r#"{"raw": "*"}"#, "/raw", "no base64"),
        (r#"{"messages": []}"#, "/messages", "no message"),
        (r#"{"messages": {}}"#, "/messages", "this is an object"),
        (r#"{"messages": [], "to": "x"}"#, "/to", "unknown"),
        (
            r#"{"messages": [{"from": "a@b.example", "to": "", "text": "x"}]}"#,
            "/messages/0/to",
            "no recipient",
        ),
    ] {
        mistake(text, pointer, detail);
    }
}

#[test]
fn limits_hold() {
    let message = r#"{"from": "a@b.example", "to": "c@d.example", "text": "x"}"#;
    let batch = |count: usize| format!("{{\"messages\": [{}]}}", vec![message; count].join(","));
    assert_eq!(read(&batch(5)).drafts.len(), 5);
    mistake(&batch(6), "/messages/5", "more than 5 messages");
    let copies = [r#"{"to": "c@d.example"}"#; 6].join(",");
    mistake(
        &format!(r#"{{"from": "a@b.example", "text": "x", "recipients": [{copies}]}}"#),
        "/recipients/5",
        "more than 5 messages",
    );
    let many = ["\"x\""; 50].join(",");
    let found = mistakes(&format!(r#"{{"from": "a@b.example", "text": "x", "to": [{many}]}}"#));
    assert_eq!(found.len(), FAULTS_MAX);
    assert!(matches!(request(b"{", LIMITS), Err(DecodeError::Json(_))));
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert!(matches!(request(deep.as_bytes(), LIMITS), Err(DecodeError::Json(_))));
}

#[test]
fn a_whole_message_and_its_envelope() {
    let content = b"From: a@b.example\nTo: c@d.example\nBcc: e@f.example\n\nx\n".to_vec();
    let query = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let check = |pairs: &[(&str, &str)], reverse_path: &str, to: &[&str]| {
        let request = whole(content.clone(), &query(pairs)).unwrap();
        let draft = &request.drafts[0];
        assert_eq!(draft.reverse_path.as_ref().unwrap().to_string(), reverse_path);
        assert_eq!(draft.copies[0].envelope_to.iter().map(Address::as_str).collect::<Vec<_>>(), to);
    };
    check(&[], "<a@b.example>", &["c@d.example", "e@f.example"]);
    check(
        &[("envelope_from", ""), ("envelope_to", "x@y.example"), ("envelope_to", "z@y.example, w@y.example")],
        "<>",
        &["x@y.example", "z@y.example", "w@y.example"],
    );
    for (pairs, pointer) in [
        (&[("to", "x@y.example")][..], "/to"),
        (&[("envelope_from", "x")], "/envelope_from"),
        (&[("envelope_to", "x")], "/envelope_to"),
        (&[("envelope_from", "a@b.example"), ("envelope_from", "a@b.example")], "/envelope_from"),
    ] {
        let Err(DecodeError::Faults(faults)) = whole(content.clone(), &query(pairs)) else { panic!() };
        assert_eq!(faults[0].pointer, pointer);
    }
}

/// A field of the tables that the decoder does not read would be told as unknown.
#[test]
fn every_field_of_the_tables_is_read() {
    for object in fields::OBJECTS {
        for field in object.fields {
            let wrong = "7";
            let inner = format!("{{\"{}\": {wrong}}}", field.name);
            let text = match object.name {
                "Batch" | "Message" => inner,
                "Copy" => format!(r#"{{"from": "a@b.example", "text": "", "recipients": [{inner}]}}"#),
                "Part" => format!(r#"{{"from": "a@b.example", "attachments": [{inner}]}}"#),
                "MailboxObject" => format!(r#"{{"from": {inner}}}"#),
                other => panic!("{other}"),
            };
            let found = mistakes(&text);
            let of_field = found.iter().find(|(at, _)| at.ends_with(&format!("/{}", field.name)));
            let (_, detail) = of_field.unwrap_or_else(|| panic!("{text}: {found:?}"));
            assert!(!detail.contains("unknown"), "{text}: {detail}");
            serde_json::from_str::<serde_json::Value>(field.schema).unwrap();
        }
        assert!(object.required.iter().all(|name| object.has(name)));
    }
}
