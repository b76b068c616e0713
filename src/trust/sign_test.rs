//! What we sign verifies, and keeps verifying.

use super::*;
use crate::{
    Case, Digester, Dkim, DkimResult, Judge, Limits,
    zone::{AT, Zone, case, digest},
};

/// Made for these tests, in PKCS#8; its public half is `ours` of example.com.
pub(crate) const RSA_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDj/eDDCxR7rt1Q
7REyCx8IG9ENW2AC3bq70rGjNXFJxvnuPdbeacTaSxdBNGkpIjqaf41accuHdRAc
eW6JwP2f0Gbdg9hg9TJp3jjfjVoZg1ENNqhUHbX23iRDlGYIsZOJEEIdSvi5v0JO
FRiCDPLtHwByzexiG5BKE7OuvT6kgqb3PsosZ2Gqe90en8bzJQqkMhgPM1NpMuCp
ufS87toHrA5h6RldHta+qOuf5uT9F1T0fgmlbcikUBACGzwgPxPRj1RVTLJ+0QDR
cyCtwnOS+P1f3u9y9vR00i9SV2zve29V+dm2w5ZjGpPBnkkXdZPJ3zQs0+3WloX8
ST20Lg0zAgMBAAECggEAB+ktPVdLFKeSolY3fIcKQpvEezQqdq7+5bl/1GvsTGUN
EwkuRXViETj9y5Nn+rdnVSkL3JGKQF79eh90iG8b3cm7aABFJ8gaQbYmPwuGjtAR
peW5nYGSaMh4dafWioKu3dikkqOhUcCjKlZtDUYpv7SNrW4bv6O5M/jPCUcjv02A
fYtRKEvAdLLHdbiHf0WAxJWMuQ1mp8ZHuGXJIgWJbACnVxwzjz01c9GHX4zSOqvt
kW2F1ABd8Xj46+XJu/ypS6JSox5K8Gjv/LZx2DRQO48dUftgyR/otG7jSD8nawLK
AjklvlIjTHY2H8Q5eAB3ayUsVpSXhWP8uqQeThMG4QKBgQDzCooWonT/4imwcsyb
p/A4MblVcFl/CTX/4/odD+ziIbTQwvResRCPEnooAt54UWNmiYsKpLZKDeanrJ27
gNy5znPgQPtKoiv1T7N1JgoDD/M7IepP3R8T8FpLCLh9nmi8g5Zi32IUBbOLoyFx
mmv+WqXxngGQPVYU9SO9ZnWDawKBgQDwJeqoxmktuKV2sMeMlStcdOmj7oqbup6Y
a/f1avZSr+ubT8DeTzS0FMTOv+jthA7d1DLMZZBS7P4wn3xrCHyM3Rllgdz+ostG
wv6mgPK0hcw+2pWFotLxXZAD6BSAv2AJZGId9yQVxe3VPJ55zIYoupVn9hAL3qeM
bQu6JX5XWQKBgDNNhDym6l+hU/+FHB+3YYPbKy4X2yxvu1BaxU8hL3XEe7Cdlovu
gHpTAio0ANYRCBR68Di88CXNrWSzkVAlMXKfW+J4lRL6DKFpw431C6P91/Ahhp55
JLhGwiiYnKkXqTAx7qrMUJ29XlsZglPCrw0wAVtxaQ8Tg3pFDNhMKn4lAoGAIB0x
8Df4QMD8f47MYKRiFA8eX2m653BhXQizNAKFxjD4VOCpbhExfxN37h4DzB9ozYle
8a5zSmOe6mmpfba40S2QA98F6pdij6fr3eBIlJN/6LfaXvCTPOvCIoOamkz9TsQ5
ysAN90tsrqNYnfkXx8KL0Ec7hhrUVRcQBmiVKKECgYEA8i7sa92Fh4UpyttOiZrs
lL17GIp3/f2skBcCG/oiv+PObqKn6lVpAA4VH06lHGZUMffLMacQUhKQcXAs6KfV
1PUwSGmRdRrSfbZlS6rDcLguLdwdrkryEar/k4Gnptwx3ifFYFVzWdlpptV6oREZ
Ba8jMGMW0VYFuwUPUORpJts=
-----END PRIVATE KEY-----
";
pub(crate) const PUBLIC: &str = "ours._domainkey.example.com TXT v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA4/3gwwsUe67dUO0RMgsfCBvRDVtgAt26u9KxozVxScb57j3W3mnE\
2ksXQTRpKSI6mn+NWnHLh3UQHHluicD9n9Bm3YPYYPUyad44341aGYNRDTaoVB219t4kQ5RmCLGTiRBCHUr4ub9CThUYggzy\
7R8Acs3sYhuQShOzrr0+pIKm9z7KLGdhqnvdHp/G8yUKpDIYDzNTaTLgqbn0vO7aB6wOYekZXR7Wvqjrn+bk/RdU9H4JpW3I\
pFAQAhs8ID8T0Y9UVUyyftEA0XMgrcJzkvj9X97vcvb0dNIvUlds73tvVfnZtsOWYxqTwZ5JF3WTyd80LNPt1paF/Ek9tC4N\
MwIDAQAB";
/// The key of RFC 8463 §A.2, in PKCS#8; its public half is `brisbane` of football.example.com.
pub(crate) const ED25519_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const SHORT_KEY: &str = "-----BEGIN RSA PRIVATE KEY-----
MIICXwIBAAKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC
jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb
to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB
AoGBALmn+XwWk7akvkUlqb+dOxyLB9i5VBVfje89Teolwc9YJT36BGN/l4e0l6QX
/1//6DWUTB3KI6wFcm7TWJcxbS0tcKZX7FsJvUz1SbQnkS54DJck1EZO/BLa5ckJ
gAYIaqlA9C0ZwM6i58lLlPadX/rtHb7pWzeNcZHjKrjM461ZAkEA+itss2nRlmyO
n1/5yDyCluST4dQfO8kAB3toSEVc7DeFeDhnC1mZdjASZNvdHS4gbLIA1hUGEF9m
3hKsGUMMPwJBAPW5v/U+AWTADFCS22t72NUurgzeAbzb1HWMqO4y4+9Hpjk5wvL/
eVYizyuce3/fGke7aRYw/ADKygMJdW8H/OcCQQDz5OQb4j2QDpPZc0Nc4QlbvMsj
7p7otWRO5xRa6SzXqqV3+F0VpqvDmshEBkoCydaYwc2o6WQ5EBmExeV8124XAkEA
qZzGsIxVP+sEVRWZmW6KNFSdVUpk3qzK0Tz/WjQMe5z0UunY9Ax9/4PVhp/j61bf
eAYXunajbBSOLlx4D+TunwJBANkPI5S9iylsbLs6NkaMHV6k5ioHBBmgCak95JGX
GMot/L2x0IYyMLAz6oLWh2hm7zwtb0CgOrPo1ke44hFYnfc=
-----END RSA PRIVATE KEY-----
";
const MESSAGE: &str = "From: ann@football.example.com\r\nTo: bob@example.net\r\nSubject: =?utf-8?q?a?=\r\n \tb  c\r\n\
    Received: x\r\nReceived: y\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700\r\nX-Other: 1\r\n\r\nHi.  \r\n\r\nBye.\r\n \r\n\r\n";

fn rsa(options: SignerOptions) -> Signer {
    let key = Key::parse(RSA_KEY).unwrap();
    Signer::new(key, &"example.com".parse().unwrap(), "ours", options).unwrap()
}

fn ed25519(options: SignerOptions) -> Signer {
    let key = Key::parse(ED25519_KEY).unwrap();
    Signer::new(key, &"football.example.com".parse().unwrap(), "brisbane", options).unwrap()
}

fn pass(message: &str, signers: &[Signer]) -> Digest {
    let mut digester = Digester::new(Limits::default()).signing(signers);
    message.as_bytes().chunks(5).for_each(|slice| digester.push(slice));
    digester.finish()
}

/// The message with all signatures before it.
fn sign(message: &str, signers: &[Signer]) -> String {
    let digest = pass(message, signers);
    let mut out = Vec::new();
    for signer in signers {
        signer.sign(&mut out, &digest, b"", AT).unwrap();
    }
    String::from_utf8(out).unwrap() + message
}

fn verify(message: &str) -> Vec<Dkim> {
    let (zone, judge) = (Zone::parse(&[crate::dkim::test::KEYS, PUBLIC].join("\n")), Judge::new());
    let digest = digest(message.as_bytes(), Limits::default());
    let mut case: Case = case("192.0.2.1", "client.example", "", Limits::default());
    zone.message(&mut case, &judge, &digest).dkim
}

fn results(message: &str) -> Vec<DkimResult> {
    verify(message).iter().map(|dkim| dkim.result).collect()
}

fn options() -> impl Iterator<Item = SignerOptions> {
    use Canonicalization::{Relaxed, Simple};
    [(Simple, Simple), (Simple, Relaxed), (Relaxed, Simple), (Relaxed, Relaxed)]
        .into_iter()
        .map(|(header, body)| SignerOptions { header, body, ..SignerOptions::default() })
}

#[test]
fn what_we_sign_verifies() {
    let bodies = ["", "\r\n", "x", "x\r\n", " \r\n\r\n", "a \t b \r\n\r\n\r\n", " a\r\n b ", "x\r\n\t\r\n"];
    for options in options() {
        let signers = [rsa(options.clone()), ed25519(options.clone())];
        for message in [MESSAGE, "From: a@example.com\r\n\r\n", "From: a@example.com\r\n"] {
            assert_eq!(results(&sign(message, &signers)), [DkimResult::Pass; 2], "{options:?} {message:?}");
        }
        for body in bodies {
            let message = format!("From:a@example.com\r\nSubject:\r\n\r\n{body}");
            assert_eq!(results(&sign(&message, &signers)), [DkimResult::Pass; 2], "{options:?} {body:?}");
        }
    }
}

#[test]
fn signatures_of_all_lengths_fold_as_they_are_hashed() {
    for options in options() {
        for n in 0..90 {
            let fields: Vec<Box<str>> =
                (0..n % 9).map(|i| format!("X-{i}{}", "n".repeat(n)).into()).collect();
            let identity = format!("{}@a.example.com", "i".repeat(1 + n % 64)).into();
            let lifetime = (n % 2 == 0).then_some(Duration::from_secs(86_400));
            let options = SignerOptions { fields, identity: Some(identity), lifetime, ..options.clone() };
            let message = sign(MESSAGE, &[rsa(options)]);
            assert_eq!(results(&message), [DkimResult::Pass], "{n}");
            let (field, _) = message.split_once("\r\nFrom:").unwrap();
            assert!(!field.ends_with("\t;"), "{field}");
        }
    }
}

#[test]
fn what_is_sealed_cannot_be_added() {
    let message = sign(MESSAGE, &[rsa(SignerOptions::default())]);
    for added in [
        "From: evil@example.net",
        "from :x",
        "Subject: other",
        "Reply-To: evil@example.net",
        "Cc: many@example.net",
    ] {
        for changed in [
            format!("{added}\r\n{message}"),
            message.replace("\r\n\r\nHi", &format!("\r\n{added}\r\n\r\nHi")),
        ] {
            assert_eq!(results(&changed), [DkimResult::Fail], "{changed}");
        }
    }
    // Trace fields come and go.
    assert_eq!(results(&format!("Received: z\r\n{message}")), [DkimResult::Pass]);
    let lax =
        SignerOptions { sealed: Vec::new(), fields: vec!["Subject".into()], ..SignerOptions::default() };
    let message = sign(MESSAGE, &[rsa(lax)]);
    assert_eq!(results(&format!("Reply-To: x\r\n{message}")), [DkimResult::Pass]);
    assert_eq!(results(&message.replace("a?=\r\n", "z?=\r\n")), [DkimResult::Fail]);
    assert_eq!(results(&format!("From: evil@example.net\r\n{message}")), [DkimResult::Fail]);
}

#[test]
fn the_field_says_what_it_should() {
    let options = SignerOptions {
        lifetime: Some(Duration::from_secs(100)),
        identity: Some("@mail.example.com".into()),
        fields: vec!["Subject".into(), "Received".into(), "List-Id".into()],
        sealed: vec!["To".into(), "FROM".into(), "Cc".into()],
        ..SignerOptions::default()
    };
    let message = sign(MESSAGE, &[rsa(options)]);
    let field = message.split("\r\nFrom:").next().unwrap();
    let flat: String = field.split_ascii_whitespace().collect();
    assert!(
        flat.starts_with("DKIM-Signature:v=1;a=rsa-sha256;s=ours;d=example.com;c=relaxed/relaxed;"),
        "{flat}"
    );
    assert!(flat.contains(";h=From:From:To:To:Cc:Subject:Received:Received;"), "{flat}");
    assert!(flat.contains("i=@mail.example.com;t=1528637909;x=1528638009;bh="), "{flat}");
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
    let dkim = &verify(&message)[0];
    assert_eq!((dkim.result, &*dkim.identity), (DkimResult::Pass, "@mail.example.com"));
}

#[test]
fn fields_that_are_added_are_signed_with_the_others() {
    let signers = [rsa(SignerOptions::default())];
    let (added, message) = ("Date: now\r\nMessage-ID: <x@y>\r\n", "From: a@example.com\r\n\r\nHi\r\n");
    let digest = pass(message, &signers);
    let mut out = Vec::new();
    signers[0].sign(&mut out, &digest, added.as_bytes(), AT).unwrap();
    let signature = String::from_utf8(out).unwrap();
    assert_eq!(results(&format!("{signature}{added}{message}")), [DkimResult::Pass]);
    assert_eq!(results(&format!("{signature}{message}")), [DkimResult::Fail]);
}

#[test]
fn what_is_not_signed() {
    let signer = rsa(SignerOptions::default());
    let sign =
        |message: &str| signer.sign(&mut Vec::new(), &pass(message, std::slice::from_ref(&signer)), b"", AT);
    assert_eq!(sign("Subject: x\r\n\r\nHi\r\n"), Err(SignError::NoFrom));
    assert_eq!(sign(""), Err(SignError::NoFrom));
    assert_eq!(sign("From: x\r\n\r\nHi\n"), Err(SignError::Flaw(Reason::BareLineEnd)));
    let digest = pass(MESSAGE, &[]);
    assert_eq!(signer.sign(&mut Vec::new(), &digest, b"", AT), Err(SignError::NotHashed));
}

#[test]
fn signers_good_and_bad() {
    let make = |domain: &str, selector: &str, options| {
        Signer::new(Key::parse(ED25519_KEY).unwrap(), &domain.parse().unwrap(), selector, options).map(drop)
    };
    let identity = |text: &str| SignerOptions { identity: Some(text.into()), ..SignerOptions::default() };
    let sealed = |text: &str| SignerOptions { sealed: vec![text.into()], ..SignerOptions::default() };
    let default = SignerOptions::default;
    assert_eq!(make("example.org", "2026-11.rsa_1", default()), Ok(()));
    assert_eq!(make("[192.0.2.1]", "s", default()), Err(SignerError::Domain));
    for selector in ["", "a b", "a;b", "a..b", "a=b"] {
        assert_eq!(make("example.org", selector, default()), Err(SignerError::Selector), "{selector}");
    }
    assert_eq!(make("example.org", "s", identity("a@sub.example.org")), Ok(()));
    for text in
        ["a@example.com", "a@notexample.org", "example.org", "a b@example.org", "a@example.org\r\nX: y"]
    {
        assert_eq!(make("example.org", "s", identity(text)), Err(SignerError::Identity), "{text}");
    }
    for text in ["", "a:b", "a b", "a;b", "ä"] {
        assert_eq!(make("example.org", "s", sealed(text)), Err(SignerError::Field), "{text}");
    }
    // U-labels are written as A-labels (RFC 8616 §5).
    let key = Key::parse(ED25519_KEY).unwrap();
    let signer = Signer::new(key, &"bücher.example".parse().unwrap(), "s", default()).unwrap();
    assert_eq!((signer.domain(), signer.selector()), ("xn--bcher-kva.example", "s"));
}

#[test]
fn keys_good_and_bad() {
    assert_eq!(Key::parse(RSA_KEY).unwrap().algorithm(), Algorithm::RsaSha256);
    assert_eq!(Key::parse(ED25519_KEY).unwrap().algorithm(), Algorithm::Ed25519Sha256);
    assert_eq!(format!("{:?}", Key::parse(RSA_KEY).unwrap()), "Key(RsaSha256)");
    let error = |pem: &str| Key::parse(pem).map(drop).unwrap_err();
    assert_eq!(error(""), KeyError::NoPem);
    assert_eq!(error("MC4CAQAwBQYDK2VwBCIEIJ1h"), KeyError::NoPem);
    assert_eq!(error(&RSA_KEY.replacen("AoIBA", "AoIBB", 1)), KeyError::Unusable);
    // The key of RFC 6376 §C has 1024 bits, which was enough once.
    assert_eq!(error(SHORT_KEY), KeyError::Unusable);
    assert_eq!(error(&ED25519_KEY.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vx")), KeyError::Unusable);
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    assert_eq!(error(public), KeyError::NoPem);
    // Elliptic curves of another kind.
    let p256 = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n\
        OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n\
        1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n\
        -----END PRIVATE KEY-----\n";
    assert_eq!(error(p256), KeyError::Unusable);
}
