//! Fields that stand twice or not at all, and those that were added to what is signed.

use super::{
    Attack,
    Becomes::{Counted, Flagged, Taken, Told},
    Message, from, of, plain, signed,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "Header fields in an encoded Subject",
        source: "RFC 2047 §5",
        message: |_| {
            let subject = "Subject: =?utf-8?q?x=0D=0AFrom:_ann=40example.org?=";
            of(&plain("From: mallory@evil.example").replace("Subject: hello", subject))
        },
        by_default: Flagged("Subject has hidden characters"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A Subject that is written from right to left",
        source: "WL",
        message: |_| {
            of(&plain("From: mallory@evil.example").replace("Subject: hello", "Subject: exe.\u{202e}fdp"))
        },
        by_default: Flagged("Subject has hidden characters"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Subject twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nSubject: another"),
        by_default: Flagged("a field stands twice and says two things"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A Subject with spaces of no width",
        source: "WL",
        message: |_| {
            of(&plain("From: mallory@evil.example").replace("Subject: hello", "Subject: in\u{200b}voice"))
        },
        by_default: Counted("Subject has characters of no width"),
        key: "irregular-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "The same Subject twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nSubject: hello"),
        by_default: Counted("a field stands twice"),
        key: "irregular-fields, or listener.checks.repeated-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "Date twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nDate: Sun, 29 Nov 2026 07:00:00 +0000"),
        by_default: Flagged("a field stands twice and says two things"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "To twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nTo: carol@example.net"),
        by_default: Counted("a field stands twice"),
        key: "irregular-fields, or listener.checks.repeated-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "Message-ID twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nMessage-ID: <2@evil.example>"),
        by_default: Counted("a field stands twice"),
        key: "irregular-fields, or listener.checks.repeated-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "Content-Type twice",
        source: "RFC 2045 §3",
        message: |_| {
            from("From: mallory@evil.example\r\nContent-Type: text/plain\r\nContent-Type: text/html")
        },
        by_default: Flagged("a field stands twice and says two things"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "No Date",
        source: "RFC 5322 §3.6",
        message: |_| of(&plain("From: mallory@evil.example").replace("\r\nDate:", "\r\nX-Date:")),
        by_default: Counted("Date or Message-ID is missing"),
        key: "irregular-fields, or listener.checks.missing-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "No Message-ID",
        source: "RFC 5322 §3.6.4",
        message: |_| of(&plain("From: mallory@evil.example").replace("\r\nMessage-ID:", "\r\nX-ID:")),
        by_default: Counted("Date or Message-ID is missing"),
        key: "irregular-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "Neither To nor Subject",
        source: "RFC 5322 §3.6",
        message: |_| {
            let message = plain("From: mallory@evil.example");
            of(&message.replace("\r\nTo:", "\r\nX-To:").replace("\r\nSubject:", "\r\nX-Subject:"))
        },
        by_default: Taken,
        key: "",
        refused: "",
    },
    Attack {
        name: "A signed message, sent again after its time",
        source: "RFC 6376 §8.6",
        message: |house| {
            signed(
                house,
                "example.org",
                "r1; x=2000",
                "dkim.time.time = lambda: 1000",
                "From: ann@example.org",
            )
        },
        by_default: Told("reason=\"signature expired\""),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A signed message with another From",
        source: "RFC 6376 §8.15",
        message: |house| {
            let message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            Message { content: format!("From: mallory@evil.example\r\n{}", message.content), ..message }
        },
        by_default: Flagged("several From fields"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A signed message with another Subject",
        source: "RFC 6376 §8.15, CK",
        message: |house| {
            let message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            Message { content: format!("Subject: another\r\n{}", message.content), ..message }
        },
        by_default: Flagged("a field stands twice and says two things, a field was added to what is signed"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A signed message with another To",
        source: "RFC 6376 §8.15",
        message: |house| {
            let message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            Message { content: format!("To: carol@example.net\r\n{}", message.content), ..message }
        },
        by_default: Flagged("a field was added to what is signed"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A signed message with a Reply-To that was not",
        source: "RFC 6376 §8.15",
        message: |house| {
            let message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            Message { content: format!("Reply-To: mallory@evil.example\r\n{}", message.content), ..message }
        },
        by_default: Counted("a field that is shown is not signed"),
        key: "irregular-fields",
        refused: "550 5.6.0 ",
    },
    Attack {
        name: "A signed message with more at its end (l=)",
        source: "RFC 6376 §8.2",
        message: |house| {
            let mut message = signed(house, "example.org", "r1", "length = True", "From: ann@example.org");
            message.content += "And more.\r\n";
            message
        },
        by_default: Told("reason=\"body length is limited\""),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A signature that leaves From out",
        source: "RFC 6376 §5.4",
        message: |house| {
            let mut message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            message.content = message.content.replacen("h=from", "h=x-from", 1);
            message
        },
        by_default: Told("reason=\"From is not signed\""),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
];
