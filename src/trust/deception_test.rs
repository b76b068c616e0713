//! Header sections that are read in more than one way.

use super::*;
use crate::{
    Digester, Judge, Key, Limits, Signer, SignerOptions,
    sign::test::{PUBLIC, RSA_KEY},
    zone::{AT, Zone, case, digest},
};

const PLAIN: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: x\r\n\
                     Date: Sun, 29 Nov 2026 06:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nx\r\n";

fn found(message: &[u8]) -> Vec<Trick> {
    tricks(&digest(message, Limits::default()), &[]).iter().collect()
}

fn check(message: &str, expected: &[Trick]) {
    assert_eq!(found(message.as_bytes()), expected, "{message}");
}

#[test]
fn each_trick_has_its_place() {
    for (i, trick) in Trick::ALL.into_iter().enumerate() {
        assert_eq!(trick as usize, i);
        let mut tricks = Tricks::NONE;
        tricks.insert(trick);
        assert!(tricks.has(trick.kind()) && tricks.iter().eq([trick]));
    }
    assert!(Tricks::default().is_empty());
}

#[test]
fn header_sections() {
    use Trick::*;
    check(PLAIN, &[]);
    let with = |line: &str| format!("{line}\r\n{PLAIN}");
    check(&with("From: eve@evil.example"), &[SeveralFrom]);
    check(&with("from : eve@evil.example"), &[SeveralFrom, SpaceBeforeColon]);
    check(&with("Subject: y"), &[Repeated]);
    check(&with("Reply-To: a@one.example\r\nReply-To: b@two.example"), &[Repeated]);
    check(
        &with("Content-Type: text/html\r\nContent-Type: text/html\r\nContent-Type: text/plain"),
        &[Repeated, RepeatedAlike],
    );
    // What says the same, or is no matter, shows nobody anything else.
    check(&with("Subject:\r\n  x"), &[RepeatedAlike]);
    check(&with("To: carol@example.net"), &[RepeatedAlike]);
    check(&with("Message-ID: <2@example.org>"), &[RepeatedAlike]);
    check(&with("MIME-Version: 1.0\r\nMIME-Version: 1.0 (x)"), &[RepeatedAlike]);
    check(&with("From: Ann <ann@example.org>"), &[SeveralFrom]);
    check(&with("Content-Type: text/plain\r\nContent-Type: text/html"), &[Repeated]);
    check(&with("X-Y: z\r\nX-Y: z\r\nReceived: x\r\nReceived: y"), &[]);
    check(&with("no field"), &[NoField]);
    check(&with(" From: eve@evil.example"), &[NoField]);
    check(&with("From eve@evil.example Sun Nov 29 06:00:00 2026"), &[NoField]);
    check(&with("From\r\n : eve@evil.example"), &[SeveralFrom, SpaceBeforeColon]);
    check(&with("X-Y: z\r\n \r\nX-Z: z"), &[NoField]);
    check(&with("X-Y: z\r\n\t "), &[NoField]);
    check(&with("X-Y:\r\n z\r\n\tx"), &[]);
    check(&with("X-Y: a\0b"), &[ControlCharacter]);
    check(&with("X-Y: a\x0bb"), &[ControlCharacter]);
    check(&with("X-Y: a\nFrom: eve@evil.example"), &[ControlCharacter]);
    for field in ["Date", "Message-ID"] {
        check(&PLAIN.replace(&format!("{field}:"), "X-Y:"), &[Missing]);
    }
    check(&PLAIN.replace("From:", "X-From:"), &[NoFrom]);
    check(&PLAIN.replace("To:", "X-To:").replace("Subject:", "X-S:"), &[]);
    let subject = |subject: &str| PLAIN.replace("Subject: x", &format!("Subject: {subject}"));
    check(&subject("=?utf-8?q?J=C3=BCrgen=09x?="), &[]);
    check(&subject("folded\r\n =?utf-8?q?text?="), &[]);
    check(&subject("=?utf-8?q?x=0D=0AFrom:_eve@evil.example?="), &[HiddenInSubject]);
    check(&subject("=?utf-8?b?4oCuZ3B6?="), &[HiddenInSubject]);
    check(&subject("x\u{202e}y"), &[HiddenInSubject]);
    check(&subject("x\u{200b}y"), &[NoWidthInSubject]);
    check(&subject("\u{2068}Ann\u{2069}, \u{202b}שלום\u{202c}"), &[]);
}

#[test]
fn authors() {
    use Trick::*;
    let from = |from: &str, expected: &[Trick]| {
        check(&PLAIN.replace("Ann <ann@example.org>", from), expected);
    };
    from("a@one.example, b@one.example", &[SeveralAddresses]);
    from("a@one.example, b@two.example", &[SeveralAddresses]);
    from("Ann <ann@one.example> <b@two.example>", &[Syntax]);
    from("\"admin@bank.example\" <ann@one.example>", &[OtherAddress]);
    from("=?utf-8?q?Bank=00?= <ann@one.example>", &[HiddenInName]);
    from("Bank\u{202e} <ann@one.example>", &[HiddenInName]);
    from("ann@раураӏ.example", &[Homograph]);
    from("ann@pаypal.example", &[MixedScripts]);
    from("nobody", &[Syntax]);
    from("Example, Inc. <a@one.example>", &[UnquotedName]);
    from("=?utf-8?q?Mustermann?=, Ann <a@one.example>", &[UnquotedName]);
    from("admin@bank.example, Inc. <a@one.example>", &[SeveralAddresses]);
    from("Ann", &[Syntax]);
    // Names as they are written in many languages.
    for name in [
        "=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?=",
        "=?UTF-8?B?0JjQstCw0L0=?= =?UTF-8?B?INCf0ZHRgtGA?=",
        "=?utf-8?q?M=C3=BCller=2C_J=C3=BCrgen?=",
        "\"Müller, Jürgen\"",
        "'Ann' via List",
        "\"a@one.example\"",
        "Ann (Sales)",
        "\u{202b}דוד\u{202c}",
        "山田 太郎",
    ] {
        from(&format!("{name} <a@one.example>"), &[]);
    }
    from(&format!("\"{}\" <ann@one.example>", "x".repeat(17_000)), &[Syntax]);
}

/// "if the header field is added after signing, the signature will verify" (RFC 6376 §8.15).
#[test]
fn fields_that_were_added_to_what_is_signed() {
    let options = SignerOptions {
        fields: ["To", "Subject", "Date"].map(Into::into).into(),
        sealed: Vec::new(),
        ..SignerOptions::default()
    };
    let signer =
        Signer::new(Key::parse(RSA_KEY).unwrap(), &"example.com".parse().unwrap(), "ours", options).unwrap();
    let plain = PLAIN.replace("example.org", "mail.example.com");
    let mut digester = Digester::new(Limits::default()).signing([&signer]);
    digester.push(plain.as_bytes());
    let mut signed = Vec::new();
    signer.sign(&mut signed, &digester.finish(), b"", AT).unwrap();
    let signed = String::from_utf8(signed).unwrap() + &plain;
    let tricks = |message: &str| {
        let digest = digest(message.as_bytes(), Limits::default());
        let mut case = case("192.0.2.1", "client.example", "", Limits::default());
        let verdict = Zone::parse(PUBLIC).message(&mut case, &Judge::new(), &digest);
        assert_eq!(verdict.dkim[0].result, DkimResult::Pass, "{message}");
        verdict.tricks.iter().collect::<Vec<_>>()
    };
    assert_eq!(tricks(&signed), []);
    assert_eq!(tricks(&format!("Subject: another\r\n{signed}")), [Trick::Repeated, Trick::Added]);
    // The same again is added, too, and a field of which none was signed may have been there.
    assert_eq!(tricks(&format!("To: bob@example.net\r\n{signed}")), [Trick::Added, Trick::RepeatedAlike]);
    assert_eq!(tricks(&format!("Reply-To: eve@evil.example\r\n{signed}")), [Trick::Unsigned]);
    // What others write on the way is no matter.
    assert_eq!(tricks(&format!("Received: x\r\nX-Y: z\r\n{signed}")), []);
}
