//! What proves a domain, or is to look as if it did: reverse-path, signatures, results.

use super::{
    Attack,
    Becomes::{Refused, Told, Without},
    Message, from, signed,
};

pub(super) const ATTACKS: &[Attack] = &[
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
        name: "A route before the reverse-path",
        source: "CK",
        message: |_| Message {
            reverse_path: "@example.org,@any.example:mallory@evil.example",
            ..from("From: ann@example.org")
        },
        by_default: Told("smtp.mailfrom=mallory@evil.example"),
        key: "dmarc-reject",
        refused: "550 5.7.26",
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
        name: "A quote within the domain of a signature",
        source: "CK",
        message: |house| signed(house, "example.org\\'.evil.example", "s", "", "From: ann@example.org"),
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
];
