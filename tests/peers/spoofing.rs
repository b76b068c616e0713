//! Mail that shows its reader another author than it has, in each way that was published: what becomes of it.
//!
//! [`ATTACKS`] is the table of docs/spoofing.md, which is held against it (`UPDATE_GOLDEN=1` writes it anew).
//! `mallory@evil.example` brings all of it, whose own domain is in order: SPF and DMARC pass for it.

use std::{env, fmt::Write as _, fs, path::Path};

use end_to_end::{Client, run};

use crate::authenticity::{House, PYTHON};

/// One way to deceive.
struct Attack {
    name: &'static str,
    /// Who has described it.
    source: &'static str,
    message: fn(&House) -> Message,
    /// What becomes of it in a configuration that says nothing of it.
    by_default: Becomes,
    /// What refuses it.
    key: &'static str,
    /// How the reply begins then.
    refused: &'static str,
}

enum Becomes {
    /// It is refused; so the reply begins.
    Refused(&'static str),
    /// It is taken with a warning that says this.
    Flagged(&'static str),
    /// It is taken, and this is told of it in `Authentication-Results`.
    Told(&'static str),
    /// It is taken without this.
    Without(&'static str),
    /// It is taken: a message may be so.
    Taken,
}

use Becomes::{Flagged, Refused, Taken, Told, Without};

struct Message {
    helo: &'static str,
    reverse_path: &'static str,
    content: String,
}

/// CK: Chen, Paxson, Jiang: Composition Kills. WL: Shen and others: Weak Links in Authentication Chains.
const ATTACKS: &[Attack] = &[
    Attack {
        name: "The author is another",
        source: "RFC 9989",
        message: |_| from("From: ann@example.org"),
        by_default: Told("dmarc=fail"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "The author is at a subdomain that there is not",
        source: "WL",
        message: |_| from("From: ann@nowhere.example.org"),
        by_default: Told("dmarc=fail"),
        key: "dmarc-quarantine",
        refused: "550 5.7.26",
    },
    Attack {
        name: "The reverse-path is another's, and the name given with EHLO is his own",
        source: "CK",
        message: |_| Message {
            reverse_path: "ann@nowhere.example.org",
            ..from("From: ann@nowhere.example.org")
        },
        by_default: Told("dmarc=fail"),
        key: "dmarc-quarantine",
        refused: "550 5.7.26",
    },
    Attack {
        name: "The null reverse-path, and the name given with EHLO is his own",
        source: "CK, WL",
        message: |_| Message { reverse_path: "", ..from("From: ann@example.org") },
        by_default: Told("smtp.mailfrom=postmaster@evil.example"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "The null reverse-path, and the name given with EHLO is another's",
        source: "RFC 7208 §2.4",
        message: |_| Message { reverse_path: "", helo: "example.org", ..from("From: ann@example.org") },
        by_default: Told("spf=fail"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A comment within the reverse-path",
        source: "CK",
        message: |_| Message {
            reverse_path: "ann@example.org(.evil.example",
            ..from("From: ann@example.org")
        },
        by_default: Refused("501 5.1.7"),
        key: "",
        refused: "501 5.1.7",
    },
    Attack {
        name: "Results within the quotes of the reverse-path",
        source: "CK",
        message: |_| Message {
            reverse_path: "\"x;dmarc=pass header.from=example.org(\"@evil.example",
            ..from("From: ann@example.org")
        },
        by_default: Told("smtp.mailfrom=\"\\\"x;dmarc=pass header.from=example.org(\\\"@evil.example\""),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A comment within the domain of a signature",
        source: "CK",
        message: |house| signed(house, "example.org(.evil.example", "s", "", "From: ann@example.org"),
        by_default: Told("dmarc=fail"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A NUL within the selector of a signature",
        source: "CK",
        message: |house| {
            let mut message = signed(house, "example.org", "r1", "", "From: ann@example.org");
            message.content = message.content.replacen("s=r1", "s=evil.example.\0", 1);
            message
        },
        by_default: Refused("550 5.6.0"),
        key: "listener.nul-bytes",
        refused: "550 5.6.0",
    },
    Attack {
        name: "Results in our name",
        source: "RFC 8601 §1.6, §5",
        message: |_| {
            from("Authentication-Results: mx.ringpost.test; dmarc=pass (forged)\r\nFrom: ann@example.org")
        },
        by_default: Without("(forged)"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "Results in our name, behind comments and folds",
        source: "RFC 8601 §5",
        message: |_| {
            from(
                "aUTHENTICATION-rESULTS : (x\r\n\t(y)) MX.ringpost.TEST 1; dmarc=pass (forged)\r\nFrom: ann@example.org",
            )
        },
        by_default: Without("(forged)"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "A result of SPF in our name",
        source: "RFC 7208 §9.1",
        message: |_| {
            from("Received-SPF: pass (forged) receiver=mx.ringpost.test; x=y\r\nFrom: mallory@evil.example")
        },
        by_default: Without("(forged)"),
        key: "",
        refused: "",
    },
    Attack {
        name: "A warning in our name",
        source: "",
        message: |_| {
            from("X-Authentication-Warning: mx.ringpost.test: (forged)\r\nFrom: mallory@evil.example")
        },
        by_default: Without("(forged)"),
        key: "",
        refused: "",
    },
    Attack {
        name: "A chain that vouches for it, made up",
        source: "RFC 8617 §11, WL",
        message: |_| {
            from(
                "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=example.org; s=r1; b=AAAA\r\n\
                 ARC-Message-Signature: i=1; a=rsa-sha256; d=example.org; s=r1; h=from; bh=AAAA; b=AAAA\r\n\
                 ARC-Authentication-Results: i=1; lists.example; dmarc=pass header.from=example.org\r\n\
                 From: ann@example.org",
            )
        },
        by_default: Told("arc=fail"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
    },
    Attack {
        name: "Several From fields, his own first",
        source: "CK, WL",
        message: |_| from("From: mallory@evil.example\r\nFrom: ann@example.org"),
        by_default: Flagged("several From fields"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Several From fields, his own last",
        source: "CK, WL",
        message: |_| from("From: ann@example.org\r\nFrom: mallory@evil.example"),
        by_default: Flagged("several From fields"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From with a space before its colon",
        source: "CK",
        message: |_| from("From : ann@example.org\r\nFrom: mallory@evil.example"),
        by_default: Flagged("several From fields"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From whose name is folded",
        source: "CK",
        message: |_| from("From\r\n : ann@example.org\r\nFrom: mallory@evil.example"),
        by_default: Flagged("several From fields"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From after a space, as the first line",
        source: "CK",
        message: |_| from(" From: ann@example.org\r\nFrom: mallory@evil.example"),
        by_default: Flagged("a line is no field"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From behind a line of white space",
        source: "RFC 5322 §4.2",
        message: |_| from("From: mallory@evil.example\r\nX-Y: z\r\n \t\r\n From: ann@example.org"),
        by_default: Flagged("a line is no field"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From before a line that is no field",
        source: "RFC 5322 §2.2",
        message: |_| from("X-Y: z\r\nno field\r\nFrom: mallory@evil.example"),
        by_default: Flagged("a line is no field"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Another From behind a bare LF",
        source: "RFC 5321 §2.3.8",
        message: |_| from("From: mallory@evil.example\r\nX-Y: z\nFrom: ann@example.org"),
        by_default: Refused("550 5.6.11"),
        key: "listener.bare-line-ends",
        refused: "550 5.6.11",
    },
    Attack {
        name: "Another From behind a bare CR",
        source: "RFC 5321 §2.3.8",
        message: |_| from("From: mallory@evil.example\r\nX-Y: z\rFrom: ann@example.org"),
        by_default: Refused("550 5.6.11"),
        key: "listener.bare-line-ends",
        refused: "550 5.6.11",
    },
    Attack {
        name: "No From, but a Sender",
        source: "CK",
        message: |_| from("Sender: ann@example.org\r\nResent-From: ann@example.org"),
        by_default: Flagged("From, Date or Message-ID is missing"),
        key: "no-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A Sender beside his own From",
        source: "CK, RFC 5322 §3.6.2",
        message: |_| from("Sender: ann@example.org\r\nFrom: mallory@evil.example"),
        by_default: Told("header.from=evil.example"),
        key: "",
        refused: "",
    },
    Attack {
        name: "Several addresses in From",
        source: "CK, WL",
        message: |_| from("From: <ann@example.org>, <mallory@evil.example>"),
        by_default: Flagged("several addresses in From"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Several addresses of one domain in From",
        source: "WL",
        message: |_| from("From: a@evil.example, b@evil.example"),
        by_default: Flagged("several addresses in From"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A group in From",
        source: "RFC 6854 §5",
        message: |_| from("From: ann: mallory@evil.example;"),
        by_default: Flagged("a group in From"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A route before the address in From",
        source: "CK",
        message: |_| from("From: <@example.org,@any.example:mallory@evil.example>"),
        by_default: Flagged("a route in From"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Two addresses without a comma in From",
        source: "CK",
        message: |_| from("From: <ann@example.org> <mallory@evil.example>"),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A quoted comma between two addresses in From",
        source: "CK",
        message: |_| from("From: <ann@example.org>\\, <mallory@evil.example>"),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Quoted brackets in From",
        source: "CK",
        message: |_| from("From: \\<ann@example.org\\> <mallory@evil.example>"),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A comment within the address in From",
        source: "CK, WL",
        message: |_| from("From: mallory@evil(@example.org).example"),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "An address within the local-part",
        source: "WL",
        message: |_| from("From: \"ann@example.org> \"@evil.example"),
        by_default: Flagged("the local-part of From has an address in it"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Two at signs in From",
        source: "WL",
        message: |_| from("From: ann@example.org@evil.example"),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A NUL within From",
        source: "WL",
        message: |_| from("From: ann@example.org\0@evil.example"),
        by_default: Refused("550 5.6.0"),
        key: "listener.nul-bytes",
        refused: "550 5.6.0",
    },
    Attack {
        name: "A control character within From",
        source: "WL",
        message: |_| from("From: ann@example.org\u{1},mallory@evil.example"),
        by_default: Flagged("control characters"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "The address in From as an encoded word",
        source: "CK, WL",
        message: |_| from("From: =?utf-8?B?YW5uQGV4YW1wbGUub3Jn?="),
        by_default: Flagged("From is malformed"),
        key: "deceptive-author",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "An address as an encoded word before his own",
        source: "CK, WL",
        message: |_| from("From: =?utf-8?B?YW5uQGV4YW1wbGUub3Jn?= <mallory@evil.example>"),
        by_default: Flagged("the name in From has another address in it"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "The same, in two words and another charset",
        source: "WL",
        message: |_| from("From: =?utf-7?Q?ann+AEA-?= =?us-ascii?q?example.org?= <mallory@evil.example>"),
        by_default: Flagged("the name in From has another address in it"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "An address in the name",
        source: "CK",
        message: |_| from("From: \"Ann <ann@example.org>\" <mallory@evil.example>"),
        by_default: Flagged("the name in From has another address in it"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "An address in the name, without quotes",
        source: "CK",
        message: |_| from("From: ann@example.org <mallory@evil.example>"),
        by_default: Flagged("the name in From has another address in it"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "An address in a comment",
        source: "CK",
        message: |_| from("From: mallory@evil.example (ann@example.org)"),
        by_default: Flagged("the name in From has another address in it"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A name with a line end in it",
        source: "WL",
        message: |_| from("From: =?utf-8?q?Ann=0D=0AFrom=3A_Ann?= <mallory@evil.example>"),
        by_default: Flagged("the name in From has hidden characters"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A name that is written from right to left",
        source: "WL",
        message: |_| from("From: =?utf-8?b?4oCuZ3JvLmVscG1heGVAbm5h?= <mallory@evil.example>"),
        by_default: Flagged("the name in From has hidden characters"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A name with spaces of no width",
        source: "WL",
        message: |_| from("From: \"ann@\u{200b}example.org\" <mallory@evil.example>"),
        by_default: Flagged("the name in From has hidden characters"),
        key: "deceptive-name",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Letters of another script in the domain",
        source: "WL, RFC 5890 §4.4",
        message: |_| from("From: ann@ex\u{430}mple.org"),
        by_default: Flagged("the domain in From has letters of several scripts"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A label of letters of another script that look like Latin ones",
        source: "WL",
        message: |_| from("From: ann@\u{440}\u{430}\u{443}\u{440}\u{430}.example"),
        by_default: Flagged("the domain in From has letters that look like Latin ones"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "The same, as an A-label",
        source: "WL",
        message: |_| from("From: ann@xn--80ak6aa92e.example"),
        by_default: Flagged("the domain in From has letters that look like Latin ones"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A domain that is mapped to another",
        source: "RFC 5891 §4.4",
        message: |_| from("From: ann@\u{ff45}xample.org"),
        by_default: Flagged("the domain in From is not written as it is looked up"),
        key: "deceptive-domain",
        refused: "550 5.7.",
    },
    Attack {
        name: "An A-label that stands for nothing",
        source: "RFC 5891 §5.4",
        message: |_| from("From: ann@xn--a.example"),
        by_default: Flagged("the domain in From is not written as it is looked up"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "A domain that looks like one of ours",
        source: "WL",
        message: |_| from("From: bob@examp1e.net"),
        by_default: Flagged("the domain in From looks like one that is known here"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Two letters that look like one",
        source: "WL",
        message: |_| from("From: bob@mail.exarnple.net"),
        by_default: Flagged("the domain in From looks like one that is known here"),
        key: "deceptive-domain",
        refused: "550 5.7.1 ",
    },
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
        by_default: Flagged("a field stands twice"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Date twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nDate: Sun, 29 Nov 2026 07:00:00 +0000"),
        by_default: Flagged("a field stands twice"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "To twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nTo: carol@example.net"),
        by_default: Flagged("a field stands twice"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Message-ID twice",
        source: "RFC 5322 §3.6",
        message: |_| from("From: mallory@evil.example\r\nMessage-ID: <2@evil.example>"),
        by_default: Flagged("a field stands twice"),
        key: "deceptive-fields, or listener.checks.repeated-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "Content-Type twice",
        source: "RFC 2045 §3",
        message: |_| {
            from("From: mallory@evil.example\r\nContent-Type: text/plain\r\nContent-Type: text/html")
        },
        by_default: Flagged("a field stands twice"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "No Date",
        source: "RFC 5322 §3.6",
        message: |_| of(&plain("From: mallory@evil.example").replace("\r\nDate:", "\r\nX-Date:")),
        by_default: Flagged("From, Date or Message-ID is missing"),
        key: "deceptive-fields, or listener.checks.missing-fields",
        refused: "550 5.7.1 ",
    },
    Attack {
        name: "No Message-ID",
        source: "RFC 5322 §3.6.4",
        message: |_| of(&plain("From: mallory@evil.example").replace("\r\nMessage-ID:", "\r\nX-ID:")),
        by_default: Flagged("From, Date or Message-ID is missing"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
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
        by_default: Flagged("a field stands twice, a field was added to what is signed"),
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
        by_default: Flagged("a field was added to what is signed"),
        key: "deceptive-fields",
        refused: "550 5.7.1 ",
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

/// What is as it should be, beside what these add.
fn plain(fields: &str) -> String {
    format!(
        "{fields}\r\nTo: bob@example.net\r\nSubject: hello\r\nDate: Sun, 29 Nov 2026 06:00:00 +0000\r\n\
         Message-ID: <1@evil.example>\r\n\r\nhello\r\n"
    )
}

fn of(content: &str) -> Message {
    Message { helo: "evil.example", reverse_path: "mallory@evil.example", content: content.to_owned() }
}

fn from(fields: &str) -> Message {
    of(&plain(fields))
}

/// With a signature by dkimpy that covers From, To, Subject and Date as they are.
fn signed(house: &House, domain: &str, selector: &str, before: &str, fields: &str) -> Message {
    let key = house.key("dkim/r1.pem");
    let script = format!(
        "import sys, dkim\n\
         length = False\n\
         {before}\n\
         message, pem = sys.stdin.buffer.read(), open({key:?}, 'rb').read()\n\
         fields = [b'from', b'to', b'subject', b'date']\n\
         signature = dkim.sign(message, b'{selector}', b'{domain}', pem, include_headers=fields, length=length)\n\
         sys.stdout.buffer.write(signature + message)\n"
    );
    of(&run(Path::new(PYTHON), &["-c", &script], &plain(fields)).good().stdout)
}

const ZONE: &str = "\
    local-data: 'evil.example TXT \"v=spf1 ip4:192.0.2.66 -all\"'\n\
    local-data: '_dmarc.evil.example TXT \"v=DMARC1; p=reject\"'\n\
    local-data: '_dmarc.example.org TXT \"v=DMARC1; p=reject; sp=quarantine\"'\n";

const STRICT: &str = "dmarc-reject = \"refuse\"\ndmarc-quarantine = \"refuse\"\nno-author = \"refuse\"\n\
    deceptive-author = \"refuse\"\ndeceptive-name = \"refuse\"\ndeceptive-domain = \"refuse\"\n\
    deceptive-fields = \"refuse\"\n";

/// Sends it, and answers the first reply that is not as it should be, or the last.
fn send(house: &House, message: &Message) -> String {
    let mut client = Client::connect(house.server.smtp());
    client.put(b"PROXY TCP4 192.0.2.66 198.51.100.1 56324 25\r\n");
    client.expect(220);
    client.say(&format!("EHLO {}", message.helo));
    client.expect(250);
    for line in [&format!("MAIL FROM:<{}>", message.reverse_path), "RCPT TO:<bob@example.net>"] {
        let reply = client.ask(line);
        if reply.code != 250 {
            return format!("{} {}", reply.code, reply.text());
        }
    }
    client.say("DATA");
    client.expect(354);
    client.put(message.content.as_bytes());
    let reply = client.ask(".");
    format!("{} {}", reply.code, reply.text())
}

fn unfolded(content: &str) -> String {
    content.replace("\r\n\t", " ")
}

/// The values of the fields of this name, ours first.
fn values<'a>(content: &'a str, name: &str) -> Vec<&'a str> {
    let head = content.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

#[test]
fn every_published_trick_is_refused_or_flagged() {
    let house = House::with("", |_, sink| (ZONE.to_owned(), sink.route()));
    // His own mail is in order.
    assert!(send(&house, &from("From: mallory@evil.example")).starts_with("250 "));
    let content = house.sink.mail().content;
    assert!(unfolded(&content).contains("dmarc=pass"), "{content}");
    assert_eq!(values(&content, "X-Authentication-Warning"), [""; 0], "{content}");
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        let reply = send(&house, &(attack.message)(&house));
        let taken = reply.starts_with("250 ");
        let content = if taken { unfolded(&house.sink.mail().content) } else { String::new() };
        let warnings = values(&content, "X-Authentication-Warning").join("|");
        let results = values(&content, "Authentication-Results").first().copied().unwrap_or_default();
        let good = match attack.by_default {
            Refused(begins) => reply.starts_with(begins),
            Flagged(says) => taken && warnings.contains(says) && warnings.starts_with("mx.ringpost.test: "),
            Told(says) => taken && results.contains(says) && results.starts_with("mx.ringpost.test; "),
            Without(text) => taken && !content.contains(text),
            Taken => taken && warnings.is_empty(),
        };
        // Nothing shows him as somebody of the other domain.
        let proven = results.contains("; dmarc=pass") && results.contains("header.from=example.org");
        if !good || (proven && !attack.name.starts_with("A signed message")) {
            wrong.push(format!("{}: {reply}\n    {warnings}\n    {results}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "by default:\n{}", wrong.join("\n"));
    house.change(STRICT);
    for attack in ATTACKS {
        let reply = send(&house, &(attack.message)(&house));
        let begins = if attack.refused.is_empty() { "250 " } else { attack.refused };
        if !reply.starts_with(begins) {
            wrong.push(format!("{}: {reply}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "strict:\n{}", wrong.join("\n"));
    // What the operator sees of it.
    let doubted = house.server.event("doubted", |event| event["against"] == "deceptive-author");
    assert!(doubted["tricks"].is_string(), "{doubted}");
    for kind in ["author", "name", "domain", "fields"] {
        let label = format!("kind=\"{kind}\"");
        assert!(house.server.metric("ringpost_deceptive_messages_total", &[&label]) > 1.0, "{kind}");
    }
    // A site may want none of it, and it may be tried out.
    house.change(&STRICT.replace("refuse", "accept"));
    assert!(send(&house, &from("From: a@evil.example, b@evil.example")).starts_with("250 "));
    house.change(&format!("{STRICT}dry-run = true\n"));
    assert!(send(&house, &from("From: a@evil.example, b@evil.example")).starts_with("250 "));
}

/// The table of docs/spoofing.md.
fn table() -> String {
    let mut table = "| attack | source | what becomes of it | refused by |\n|---|---|---|---|\n".to_owned();
    for attack in ATTACKS {
        let becomes = match attack.by_default {
            Refused(begins) => format!("refused: {}", begins.trim_end()),
            Flagged(says) => format!("flagged: {says}"),
            Told(says) => format!("told: `{says}`"),
            Without(_) => "taken out".to_owned(),
            Taken => "nothing: it may be so".to_owned(),
        };
        let key = match attack.key {
            "" if matches!(attack.by_default, Refused(_)) => "always".to_owned(),
            "" => "—".to_owned(),
            key => key.split(", or ").map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", or "),
        };
        let source = if attack.source.is_empty() { "—" } else { attack.source };
        writeln!(table, "| {} | {source} | {becomes} | {key} |", attack.name).unwrap();
    }
    table
}

#[test]
fn the_table_of_the_documentation_is_that_of_the_test() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spoofing.md");
    let page = fs::read_to_string(&file).unwrap();
    let start = page.find("| attack |").expect("the page has the table");
    let len = page[start..].find("\n\n").map_or(page.len() - start, |end| end + 1);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let page = [&page[..start], &table(), &page[start + len..]].concat();
        fs::write(&file, page).unwrap();
        return;
    }
    assert!(page[start..start + len] == table(), "docs/spoofing.md is old: run with UPDATE_GOLDEN=1");
}
