//! Mail data after DATA.

use super::{Input, differs, same};

pub(super) const INPUTS: &[Input] = &[
    same("a message", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\nx\r\n.\r\n"),
    differs(
        "nothing but the dot",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:.\r\n",
        "A message of no octets. We pass on what came; Exim adds the empty line that ends a header section.",
    ),
    same("an empty line", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:\r\n.\r\n"),
    differs(
        "a header section without body",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n.\r\n",
        "We pass on what came. Exim ends it in an empty line.",
    ),
    differs(
        "a body without header section",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:no field\r\n.\r\n",
        "We pass on what came (RFC 5321 §6.4): it is not for a relay to repair. The others add the empty line before a body.",
    ),
    differs(
        "a header field without a name",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:: x\r\n\r\nx\r\n.\r\n",
        "We pass on what came, as does Exim (RFC 5321 §6.4). Postfix takes it for the body.",
    ),
    same("an empty body", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n.\r\n"),
    same("dots doubled", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n..\r\n..x\r\n...\r\n.\r\n"),
    same("a dot not doubled", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n.x\r\n.\r\n"),
    same("a dot and a space", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n. \r\nx\r\n.\r\n"),
    same("a dot in a line", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\nx.\r\n x.x\r\n.\r\n"),
    same("empty lines at the end", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\nx\r\n\r\n\r\n.\r\n"),
    same("spaces at line ends", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\nx  \r\n\t\r\n.\r\n"),
    same("8-bit octets without BODY", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\xc3\xa9\r\n.\r\n"),
    same("8-bit octets with BODY=8BITMIME", b"MAIL FROM:<ann@a.test> BODY=8BITMIME|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\xc3\xa9\r\n.\r\n"),
    same("8-bit octets with BODY=7BIT", b"MAIL FROM:<ann@a.test> BODY=7BIT|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\xc3\xa9\r\n.\r\n"),
    same("octets that are not UTF-8", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\xe9\xff\r\n.\r\n"),
    same("8-bit octets in a header field", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: \xc3\xa9\r\n\r\nx\r\n.\r\n"),
    differs(
        "a NUL",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\na\0b\r\n.\r\n",
        "A NUL is no character of a message (RFC 5322 §4); Postfix drops it in header fields, Exim makes `?` of it. We refuse it, unless `nul-bytes` says otherwise (RFC 5321 §4.5.2).",
    ),
    differs(
        "a NUL in a header field",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: a\0b\r\n\r\nx\r\n.\r\n",
        "As above.",
    ),
    same("control characters", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\x01\x07\x1b\x7f\r\n.\r\n"),
    same("a form feed", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n\x0c\r\n.\r\n"),
    differs(
        "a bare LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\na\nb\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "a bare LF in the header section",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\nX-Two: y\r\n\r\nx\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "bare LFs alone",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\n\nx\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "a bare CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\na\rb\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "a bare CR in a header field",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: a\rb\r\n\r\nx\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "CR CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\na\r\r\nb\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "LF CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\na\n\rb\r\n.\r\n",
        "A bare CR or LF is not to be sent and ends nothing (RFC 5321 §2.3.8). We refuse the message, unless `bare-line-ends` says otherwise: each of the others makes another message of it, and so does each next hop.",
    ),
    differs(
        "a false end: LF . LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\n.\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: LF . CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\n.\r\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR LF . LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n.\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR . CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r.\rNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR . CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r.\r\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR LF . CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n.\rNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: LF . CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\n.\rNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR . LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r.\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR LF . CR CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n.\r\r\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR CR LF . CR CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\r\n.\r\r\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: CR LF NUL . CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n\0.\r\nNOOP\r\n.\r\n",
        "No end, for anybody here. A NUL is no character of a message (RFC 5321 §4.5.2, RFC 5322 §4), and some next hop drops it and sees an end.",
    ),
    differs(
        "a false end: CR LF . NUL CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n.\0\r\nNOOP\r\n.\r\n",
        "No end, for anybody here. A NUL is no character of a message (RFC 5321 §4.5.2, RFC 5322 §4), and some next hop drops it and sees an end.",
    ),
    differs(
        "a false end: LF LF . LF LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\n\n.\n\nNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    differs(
        "a false end: LF CR . LF CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\n\r.\n\rNOOP\r\n.\r\n",
        "Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). We refuse the message with its bare CR or LF (§2.3.8); the others end it at the true end too, and repair what is before it.",
    ),
    same("a line of 998 octets", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n{998}\r\n.\r\n"),
    differs(
        "a line of 999 octets",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n{999}\r\n.\r\n",
        "998 octets are what every server takes (RFC 5321 §4.5.3.1.6); longer lines are content like other content, and to cut them breaks signatures. Postfix cuts, Exim sends the message back. `long-lines` can refuse them.",
    ),
    differs(
        "a line of 5000 octets",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\n{5000}\r\n.\r\n",
        "As above.",
    ),
    differs(
        "a header field of 5000 octets",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:X-Long: {5000}\r\n\r\nx\r\n.\r\n",
        "As above.",
    ),
    differs(
        "101 Received fields",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:{loop}\r\nx\r\n.\r\n",
        "A hundred hops are a loop (RFC 5321 §6.3). Exim takes the message and sends a report.",
    ),
    same("a command in the data", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=1:Subject: x\r\n\r\nQUIT\r\nRSET\r\n.\r\n"),
    differs(
        "the connection ends before the dot",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n",
        "No end, no message (RFC 5321 §4.1.1.4). Whether there is a 421 does not matter: nobody reads it.",
    ),
    differs(
        "the connection ends after the dot's CR",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|DATA|=0:Subject: x\r\n\r\nx\r\n.\r",
        "No end, no message (RFC 5321 §4.1.1.4). Whether there is a 421 does not matter: nobody reads it.",
    ),
];
