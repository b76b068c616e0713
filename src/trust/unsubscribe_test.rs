//! Fields by which lists are left, good and bad.

use super::*;
use crate::{
    Digester, Judge, Key, Limits, Signer, SignerOptions, Verdict,
    sign::test::{ED25519_KEY, PUBLIC, RSA_KEY},
    unsubscribe_result,
    zone::{AT, Zone, case, digest},
};

const LINK: &str = "List-Unsubscribe: <https://news.shop.dev/u/1>\r\n";
const POST: &str = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
const REST: &str = "From: Ann <ann@example.com>\r\nTo: bob@example.net\r\nSubject: x\r\n\
                    Date: Sun, 29 Nov 2026 06:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nx\r\n";

/// All URIs, `~` when something else stands behind them, and `_` when one has white space in it.
fn list(value: &str) -> String {
    let Some(Uris { uris, has_space, has_more }) = uris(value.as_bytes()) else { return "too long".into() };
    let marks = [has_space.then_some("_"), has_more.then_some("~")];
    uris.into_iter().chain(marks.into_iter().flatten().map(str::to_owned)).collect::<Vec<_>>().join(" ")
}

/// The examples of RFC 2369 §3.2, and its guidelines of §2.
#[test]
fn lists_of_uris() {
    for (value, expected) in [
        ("<mailto:list@host.com?subject=unsubscribe>", "mailto:list@host.com?subject=unsubscribe"),
        (
            " (Use this command to get off the list)\r\n     <mailto:list-manager@host.com?body=unsubscribe%20list>\r\n",
            "mailto:list-manager@host.com?body=unsubscribe%20list",
        ),
        ("<mailto:list-off@host.com>", "mailto:list-off@host.com"),
        (
            "<http://www.host.com/list.cgi?cmd=unsub&lst=list>,\r\n    <mailto:list-request@host.com?subject=unsubscribe>",
            "http://www.host.com/list.cgi?cmd=unsub&lst=list mailto:list-request@host.com?subject=unsubscribe",
        ),
        // "If the content of the field begins with any character other than the opening angle bracket".
        ("https://a.dev/u", "~"),
        ("", ""),
        (" \r\n ", ""),
        ("<a:b> and <c:d>", "a:b ~"),
        ("<a:b>, c:d, <e:f>", "a:b ~"),
        ("<a:b> (x (y) \\) \\( z) , (and) <c:d> (more)", "a:b c:d"),
        ("<a:b>,", "a:b"),
        ("<a:b>,,<c:d>", "a:b ~"),
        // A comment that does not end hides all behind it.
        ("<a:b>, (never ends <c:d>", "a:b"),
        ("(<a:b>", ""),
        ("(a\\", ""),
        // "any whitespace, that might be inserted by poorly behaved MTAs, as characters to ignore".
        ("<https://a.dev/\r\n u?x=\t1>", "https://a.dev/u?x=1 _"),
        ("< a:b >", "a:b _"),
        ("<a:b", "~"),
        ("<>", "~"),
        ("<no-scheme>", "~"),
        ("<a:b\u{7f}>", "~"),
        ("<a:é>", "~"),
        ("<a:<b>", "~"),
        ("<a:\"b>", "~"),
    ] {
        assert_eq!(list(value), expected, "{value:?}");
    }
    let many = |count: usize| vec!["<a:b>"; count].join(",");
    assert_eq!(list(&many(URIS_MAX)).split(' ').count(), URIS_MAX);
    assert_eq!(list(&many(URIS_MAX + 1)), "too long");
    let long = |length: usize| format!("<a:{}>", "b".repeat(length - 2));
    assert_eq!(list(&long(URI_MAX)).len(), URI_MAX);
    assert_eq!(list(&long(URI_MAX + 1)), "too long");
    assert_eq!(list(&" ".repeat(VALUE_MAX + 1)), "too long");
    assert_eq!(list(&"(".repeat(VALUE_MAX)), "");
}

#[test]
fn where_links_lead_to() {
    let known = |link: &str| host(link).is_some_and(|host| is_public(&host));
    for link in [
        "https://a.dev",
        "HTTPS://A.dev/",
        "https://a.dev:8443/x?y",
        "https://a.dev#x",
        "https://xn--4ca.dev/",
    ] {
        assert!(known(link), "{link}");
    }
    for link in [
        "https:a.dev",
        "https:///a.dev",
        "https://",
        "https://localhost/",
        "https://intranet/",
        "https://a.localhost/",
        "https://printer.local/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://bank.dev@a.dev/",
        "https://bank.dev:x@a.dev/",
        "https://a.dev:123456/",
        "https://a.dev\\@b.dev/",
        "https://a%2edev/",
        "https://a..dev/",
        "https://.dev/",
    ] {
        assert!(!known(link), "{link}");
    }
}

/// Way and flaw of a message that nobody has signed.
fn unsigned(head: &str) -> Option<(UnsubscribeWay, Option<UnsubscribeFlaw>)> {
    let message = format!("{head}{REST}");
    let found = judge(&digest(message.as_bytes(), Limits::default()), &[], |_| SignerAligned::Yes)?;
    Some((found.way, found.flaw))
}

#[test]
fn without_a_signature_one_click_is_never_enough() {
    use UnsubscribeFlaw::*;
    use UnsubscribeWay::*;
    assert_eq!(unsigned(""), None);
    let fields = |uris: &str| format!("List-Unsubscribe: {uris}\r\n{POST}");
    let (link, mail, insecure) = ("<https://a.dev/u>", "<mailto:off@a.dev>", "<http://a.dev/u>");
    for (head, way, flaw) in [
        (fields(link), Link, Unsigned),
        (fields(&format!("{mail}, {link}")), Link, Unsigned),
        (format!("list-unsubscribe : {link}\r\n{POST}"), Link, Unsigned),
        (fields(mail), Mail, NoLink),
        (fields(insecure), Unusable, Insecure),
        (fields(&format!("{insecure}, {mail}")), Mail, Insecure),
        (fields(&format!("{link}, {insecure}")), Link, Insecure),
        (fields(&format!("{link}, {link}")), Link, SeveralLinks),
        (fields("https://a.dev/u"), Unusable, Syntax),
        (fields("<ftp://a.dev/u>"), Unusable, NoLink),
        (fields("<https://127.0.0.1/u>"), Unusable, Host),
        (fields(&format!("<https://10.0.0.1/u>, {mail}")), Mail, Host),
        (fields(&"<a:b>,".repeat(100)), Unusable, TooLong),
        (LINK.repeat(2) + POST, Unusable, Repeated),
        (POST.into(), Unusable, Missing),
        (LINK.into(), Link, NoPost),
        (format!("{LINK}{POST}{POST}"), Link, PostRepeated),
        (format!("{LINK}List-Unsubscribe-Post: List-Unsubscribe=One-Click; x\r\n"), Link, PostValue),
        (format!("{LINK}List-Unsubscribe-Post:\r\n"), Link, PostValue),
        (format!("{LINK}List-Unsubscribe-Post:\r\n List-Unsubscribe=One-Click \r\n"), Link, Unsigned),
    ] {
        assert_eq!(unsigned(&head), Some((way, Some(flaw))), "{head}");
    }
}

fn rsa(options: SignerOptions) -> Signer {
    let key = Key::parse(RSA_KEY).unwrap();
    Signer::new(key, &"example.com".parse().unwrap(), "ours", options).unwrap()
}

fn ed25519() -> Signer {
    let key = Key::parse(ED25519_KEY).unwrap();
    let domain = "football.example.com".parse().unwrap();
    Signer::new(key, &domain, "brisbane", SignerOptions::default()).unwrap()
}

/// The message with these signatures.
fn signed(message: &str, signers: &[Signer]) -> String {
    let mut digester = Digester::new(Limits::default()).signing(signers);
    digester.push(message.as_bytes());
    let digest = digester.finish();
    let mut out = Vec::new();
    for signer in signers {
        signer.sign(&mut out, &digest, &[], AT).unwrap();
    }
    String::from_utf8(out).unwrap() + message
}

fn verdict(message: &str, records: &str) -> Verdict {
    let zone = Zone::parse(&format!("{PUBLIC}\n{}\n{records}", crate::dkim::test::KEYS));
    let digest = digest(message.as_bytes(), Limits::default());
    let mut case = case("192.0.2.1", "mail.example.com", "ann@example.com", Limits::default());
    zone.message(&mut case, &Judge::new(), &digest)
}

/// What is written of a message.
fn told(message: &str, records: &str) -> String {
    let mut out = Vec::new();
    unsubscribe_result(&mut out, "mx.example", &verdict(message, records).unsubscribe.unwrap());
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("X-Unsubscribe-Result: mx.example;\r\n\t").unwrap().trim_end().to_owned()
}

#[test]
fn a_signature_of_both_fields_makes_it_one_click() {
    let list = format!("{LINK}{POST}{REST}");
    let message = signed(&list, &[rsa(SignerOptions::default())]);
    let found = verdict(&message, "").unsubscribe.unwrap();
    assert_eq!((found.way, found.flaw), (UnsubscribeWay::OneClick, None));
    assert_eq!(found.link.as_deref(), Some("https://news.shop.dev/u/1"));
    assert_eq!(told(&message, ""), "way=one-click header.d=example.com aligned=yes");
    // What is added or taken away afterwards is not covered, or breaks the signature.
    for (from, to, expected) in [
        ("/u/1", "/u/2", "way=link reason=unsigned"),
        ("bob@", "eve@", "way=link reason=unsigned"),
        (
            "List-Unsubscribe: ",
            "List-Unsubscribe: <https://evil.dev>\r\nList-Unsubscribe: ",
            "way=unusable reason=repeated",
        ),
        ("=One-Click", "=Two-Clicks", "way=link reason=post-value"),
    ] {
        let forged = message.replacen(from, to, 1);
        assert!(told(&forged, "").starts_with(expected), "{from}: {}", told(&forged, ""));
    }
    // A key that is only tried out, and one that is gone.
    let tried = PUBLIC.replacen("k=rsa;", "k=rsa; t=y;", 1);
    let zone = Zone::parse(&tried);
    let read = digest(message.as_bytes(), Limits::default());
    let mut of_trial = case("192.0.2.1", "mail.example.com", "ann@example.com", Limits::default());
    let found = zone.message(&mut of_trial, &Judge::new(), &read);
    assert_eq!(found.dkim[0].result, DkimResult::Pass);
    assert_eq!(found.unsubscribe.unwrap().flaw, Some(UnsubscribeFlaw::Unsigned));
}

/// Fields that were put before a message that was signed without them are not the signer's.
#[test]
fn fields_that_were_added_later_are_not_signed() {
    let message = signed(REST, &[rsa(SignerOptions::default())]);
    // The signature names both fields even where they are not there only if it seals them; ours does not.
    let added = format!("{LINK}{POST}{message}");
    let found = verdict(&added, "");
    assert_eq!(found.dkim[0].result, DkimResult::Pass);
    assert_eq!(told(&added, ""), "way=link reason=unsigned");
    let only_link = signed(&format!("{LINK}{REST}"), &[rsa(SignerOptions::default())]);
    assert_eq!(told(&format!("{POST}{only_link}"), ""), "way=link reason=unsigned");
}

#[test]
fn whose_signature_it_is_is_told() {
    let list = format!("{LINK}{POST}{REST}");
    // That of somebody else is enough for RFC 8058, and is told.
    let theirs = list.replacen("ann@example.com", "ann@other.example", 1);
    let message = signed(&theirs, &[rsa(SignerOptions::default())]);
    assert_eq!(told(&message, ""), "way=one-click header.d=example.com aligned=no");
    // Of several that of the author's is named, wherever it stands.
    let both = [ed25519(), rsa(SignerOptions::default())];
    assert_eq!(told(&signed(&list, &both), ""), "way=one-click header.d=example.com aligned=yes");
    // Below the author's domain it is the author's where DMARC says so.
    let of_sub = signed(&list, &[ed25519()]);
    let relaxed = "_dmarc.example.com TXT v=DMARC1; p=none";
    assert_eq!(told(&of_sub, relaxed), "way=one-click header.d=football.example.com aligned=yes");
    let strict = "_dmarc.example.com TXT v=DMARC1; p=none; adkim=s";
    assert_eq!(told(&of_sub, strict), "way=one-click header.d=football.example.com aligned=no");
    assert_eq!(told(&of_sub, ""), "way=one-click header.d=football.example.com aligned=no");
    // One that stands by the author and leaves the fields out does not make the other the author's.
    let bare = signed(REST, &[rsa(SignerOptions::default())]);
    let (of_author, _) = bare.split_at(bare.len() - REST.len());
    let mixed = of_author.to_owned() + &of_sub;
    assert_eq!(verdict(&mixed, strict).dmarc.dkim, crate::Alignment::Aligned);
    assert_eq!(told(&mixed, strict), "way=one-click header.d=football.example.com aligned=no");
}

#[test]
fn who_writes_our_result_is_found() {
    let ours = "X-Unsubscribe-Result: (x) MX.example (y);\r\n way=one-click\r\n";
    let message = format!("{ours}X-Unsubscribe-Result: other.example; way=mail\r\n{REST}");
    let found = digest(message.as_bytes(), Limits::default()).forged_results("mx.example");
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*found, 0..ours.len());
}

/// What goes out is read with what is put before it, and with the signatures that were made.
#[test]
fn mail_of_ours_is_held_to_more() {
    use UnsubscribeFlaw::*;
    let as_sent = |added: &str, message: &str, signers: &[Signer]| {
        let mut digester = Digester::new(Limits::default()).signing(signers);
        digester.push(message.as_bytes());
        let digest = digester.finish();
        let mut made = Vec::new();
        for signer in signers {
            signer.sign(&mut made, &digest, added.as_bytes(), AT).unwrap();
        }
        unsubscribe_as_sent(&made, added.as_bytes(), &digest)
    };
    let key = [rsa(SignerOptions { fields: vec!["Subject".into()], ..SignerOptions::default() })];
    let with = |uris: &str| format!("List-Unsubscribe: {uris}\r\n{POST}{REST}");
    // Links of ours stand before the message.
    let ours = format!("Received: x\r\n{LINK}{POST}");
    assert_eq!(as_sent(&ours, REST, &key), Ok(()));
    assert_eq!(as_sent("", &with("<https://a.dev/u>, <mailto:off@a.dev>"), &key), Ok(()));
    assert_eq!(as_sent("", &with("<https://a.dev/u> "), &[]), Err(Unsigned));
    assert_eq!(as_sent(&ours, &with("<https://a.dev/u>"), &key), Err(Repeated));
    for (uris, flaw) in [
        ("<https://a.dev/ u>", Space),
        ("<https://a.dev/u> off", Syntax),
        ("<https://news.example.org/u>", Example),
        ("<https://shop.test/u>", Example),
        ("<http://a.dev/u>", Insecure),
        ("<mailto:off@a.dev>", NoLink),
        ("<https://localhost/u>", Host),
    ] {
        assert_eq!(as_sent("", &with(uris), &key), Err(flaw), "{uris}");
    }
    assert_eq!(as_sent("", REST, &key), Err(Missing));
    assert_eq!(as_sent("", &format!("{LINK}{REST}"), &key), Err(NoPost));
    // Signatures that came with the message are not ours.
    let theirs = signed(&with("<https://a.dev/u>"), &key);
    assert_eq!(as_sent("", &theirs, &[]), Err(Unsigned));
    let labels: std::collections::BTreeSet<_> = UnsubscribeFlaw::ALL.map(UnsubscribeFlaw::label).into();
    assert_eq!(labels.len(), UnsubscribeFlaw::ALL.len());
}
