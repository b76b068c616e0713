//! A message read in one pass, however it is cut.

use super::*;

/// RFC 6376 §3.4.3 and §3.4.4 as they are written, on a whole body.
fn canonical(form: Canonicalization, body: &[u8]) -> Vec<u8> {
    let mut text = body.to_vec();
    if form == Canonicalization::Relaxed {
        let lines = body.split(|octet| *octet == b'\n').map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
            let mut reduced = Vec::new();
            for octet in &line[..end] {
                match octet {
                    b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
                    b' ' | b'\t' => reduced.push(b' '),
                    octet => reduced.push(*octet),
                }
            }
            reduced
        });
        text = lines.collect::<Vec<_>>().join(b"\r\n".as_slice());
    }
    while text.ends_with(b"\r\n") {
        text.truncate(text.len() - 2);
    }
    if form == Canonicalization::Simple || !text.is_empty() {
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    HashAlgorithm::Sha256.hash(octets).as_ref().to_vec()
}

/// A pass over a header and a body, in slices of `step`.
fn pass(form: Canonicalization, body: &[u8], step: usize) -> Digest {
    let mut digester = Digester::new(Limits::default());
    digester.for_signing.push(form);
    let message = [b"From: a@example.org\r\nSubject: x\r\n\r\n", body].concat();
    message.chunks(step).for_each(|slice| digester.push(slice));
    digester.finish()
}

fn check(body: &[u8]) {
    for form in [Canonicalization::Simple, Canonicalization::Relaxed] {
        let expected = sha256(&canonical(form, body));
        for step in [1, 2, 3, 7, 4096] {
            let digest = pass(form, body, step);
            let hash = digest.body(form, HashAlgorithm::Sha256).unwrap();
            assert_eq!(hash, expected, "{form:?} {step} {:?}", String::from_utf8_lossy(body));
            assert_eq!(digest.flaw(), None);
            assert_eq!(digest.header(), b"From: a@example.org\r\nSubject: x\r\n");
        }
    }
}

#[test]
fn bodies_of_all_shapes() {
    for body in [
        "",
        "\r\n",
        "\r\n\r\n\r\n",
        " \t \r\n\r\n",
        "x",
        "x\r\n",
        "x \r\n",
        " C \r\nD \t E\r\n\r\n\r\n",
        // Lines of white space at the end, which mail-auth alone would keep.
        "x\r\n \r\n",
        "x\r\n \t\r\n\r\n \r\n",
        "x\r\n ",
        "x \t",
        "\r\n \r\nx\r\n\r\n y",
        "x\r\n\r\n\r\n z\r\n",
    ] {
        check(body.as_bytes());
    }
    let empty_lines = [b"x".as_slice(), &b"\r\n".repeat(100), b"y", &b" \r\n".repeat(100)].concat();
    check(&empty_lines);
}

#[test]
fn bodies_of_all_kinds() {
    let mut seed = 7_u64;
    for _ in 0..300 {
        let mut body = Vec::new();
        for _ in 0..40 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            body.extend_from_slice(
                [b" ".as_slice(), b"\t", b"\r\n", b"a", b"bcd", b"\r\n", b".", b"  "][(seed >> 61) as usize],
            );
        }
        check(&body);
    }
}

/// Long enough that octets are looked at many at a time: what is irregular stands at each place once.
#[test]
fn bodies_that_are_irregular_somewhere() {
    let line = b"the quick brown fox jumps over the lazy dog, and\x0bgoes on for a while \x01 or so\r\n";
    let body = line.repeat(3);
    for at in 0..=body.len() {
        // Not within a line end.
        if at > 0 && body[..at].ends_with(b"\r") {
            continue;
        }
        for irregular in [b"\t".as_slice(), b"  ", b" \t", b" \r\n", b"\t\r\n", b"\r\n ", b"\r\n\r\n"] {
            check(&[&body[..at], irregular, &body[at..]].concat());
        }
    }
}

/// The empty bodies of RFC 6376 §3.4.3 and §3.4.4, by their hashes.
#[test]
fn empty_bodies_by_the_rfc() {
    let hex = |form, body: &[u8]| {
        let digest = pass(form, body, 4096);
        let hash = digest.body(form, HashAlgorithm::Sha256).unwrap();
        hash.iter().map(|octet| format!("{octet:02x}")).collect::<String>()
    };
    for body in [b"".as_slice(), b"\r\n", b"\r\n\r\n"] {
        // frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=
        assert_eq!(
            hex(Canonicalization::Simple, body),
            "7eb70257593da06f682a3ddda54a9d260d4fc514f645237f5ca74b08f8da61a6"
        );
        // 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
        assert_eq!(
            hex(Canonicalization::Relaxed, body),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}

fn flaw(message: &[u8], limits: Limits) -> Option<Reason> {
    let flaws: Vec<_> = [1, 2, 5, 4096]
        .map(|step| {
            let mut digester = Digester::new(limits);
            digester.for_signing.push(Canonicalization::Relaxed);
            message.chunks(step).for_each(|slice| digester.push(slice));
            digester.finish().flaw()
        })
        .to_vec();
    assert!(flaws.iter().all(|flaw| *flaw == flaws[0]), "{flaws:?} {:?}", String::from_utf8_lossy(message));
    flaws[0]
}

#[test]
fn line_ends_that_are_none() {
    for (message, expected) in [
        ("From: x\r\n\r\nbody\r\n", None),
        ("From: x\r\n\r\nbody", None),
        ("From: x\r\n\r\nbody\n", Some(Reason::BareLineEnd)),
        ("From: x\r\n\r\nbo\rdy\r\n", Some(Reason::BareLineEnd)),
        ("From: x\r\n\r\nbody\r", Some(Reason::BareLineEnd)),
        ("From: x\r\n\r\nbody\r\r\n", Some(Reason::BareLineEnd)),
        ("From: x\nTo: y\r\n\r\nbody\r\n", Some(Reason::BareLineEnd)),
        ("From: x\rTo: y\r\n\r\nbody\r\n", Some(Reason::BareLineEnd)),
        ("From: x\n\nbody\r\n", Some(Reason::BareLineEnd)),
    ] {
        assert_eq!(flaw(message.as_bytes(), Limits::default()), expected, "{message:?}");
    }
}

/// Wherever in a long body it stands.
#[test]
fn a_line_end_that_is_none_is_found_anywhere() {
    let body = b"the quick brown fox jumps over the lazy dog and goes on for a while or so\r\n".repeat(3);
    for at in 0..body.len() {
        for octet in [b"\r", b"\n"] {
            let message = [b"From: x\r\n\r\n", &body[..at], octet, &body[at..]].concat();
            assert_eq!(flaw(&message, Limits::default()), Some(Reason::BareLineEnd), "{at}");
        }
    }
}

#[test]
fn header_sections_that_are_too_long() {
    let limits = Limits { header_size_max: 30, fields_max: 3, ..Limits::default() };
    for (message, expected) in [
        ("A: 1\r\nB: 2\r\nC: 3\r\n\r\nx", None),
        ("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\nx", Some(Reason::HeaderTooLong)),
        ("A: 1234567890123456789012345\r\n\r\nx", None),
        ("A: 12345678901234567890123456\r\n\r\nx", Some(Reason::HeaderTooLong)),
        ("A: 123456789012345678901234567890123456789012345678901234567890", Some(Reason::HeaderTooLong)),
        ("A: 123456789012345678901234567", None),
        ("A: 1234567890123456789012345678", Some(Reason::HeaderTooLong)),
    ] {
        assert_eq!(flaw(message.as_bytes(), limits), expected, "{message:?}");
    }
}

#[test]
fn where_the_header_section_ends() {
    for (message, header, body) in [
        ("A: 1\r\n\r\nbody", "A: 1\r\n", "body"),
        ("A: 1\r\n\r\n", "A: 1\r\n", ""),
        ("A: 1\r\n", "A: 1\r\n", ""),
        ("A: 1", "A: 1", ""),
        ("\r\nbody", "", "body"),
        ("\r\n\r\nbody", "", "\r\nbody"),
        ("", "", ""),
        ("A: 1\r\n \r\nB: 2\r\n\r\nbody", "A: 1\r\n \r\nB: 2\r\n", "body"),
    ] {
        for step in [1, 2, 3, 4096] {
            let mut digester = Digester::new(Limits::default());
            digester.for_signing.push(Canonicalization::Simple);
            message.as_bytes().chunks(step).for_each(|slice| digester.push(slice));
            let digest = digester.finish();
            assert_eq!(str::from_utf8(digest.header()).unwrap(), header, "{message:?} {step}");
            let expected = sha256(&canonical(Canonicalization::Simple, body.as_bytes()));
            assert_eq!(
                digest.body(Canonicalization::Simple, HashAlgorithm::Sha256),
                Some(expected.as_slice())
            );
        }
    }
}

#[test]
fn only_what_is_needed_is_hashed() {
    let signature = |a: &str, c: &str| {
        format!("DKIM-Signature: v=1; a={a}; c={c}; d=x.example; s=s; h=from; bh=YQ==; b=YQ==\r\n")
    };
    let hashes = |header: &str, limits| {
        let mut digester = Digester::new(limits).verifying();
        digester.push(header.as_bytes());
        digester.push(b"\r\nbody");
        digester.finish().bodies().iter().map(|body| (body.form, body.algorithm)).collect::<Vec<_>>()
    };
    use Canonicalization::{Relaxed, Simple};
    let header = [
        signature("rsa-sha256", "relaxed/relaxed"),
        signature("ed25519-sha256", "simple/relaxed"),
        signature("rsa-sha256", "relaxed"),
        signature("rsa-sha1", "relaxed/relaxed"),
    ]
    .concat();
    let expected = [(Relaxed, HashAlgorithm::Sha256), (Simple, HashAlgorithm::Sha256)];
    assert_eq!(hashes(&header, Limits::default()), expected);
    let limits = Limits { sha1: crate::Sha1Signatures::Accepted, ..Limits::default() };
    assert_eq!(hashes(&header, limits).len(), 3);
    assert_eq!(hashes("From: x\r\n", Limits::default()), []);
}
