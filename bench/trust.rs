//! What do verdicts and signatures cost the CPU, for a message of 4 KB? Whole verdicts with everything known, and the
//! signatures themselves beside what the library takes for them.
//!
//! `cargo bench -p bench --bench trust`

use std::{collections::HashMap, hint::black_box, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dns::{Answer, Outcome, Question, Records, Security};
use mail::{ReversePath, Timestamp};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use trust::{
    Case, Client, Digest, Digester, DkimResult, DmarcResult, Judge, Judged, Key, Limits, Signer,
    SignerOptions, Verdict,
};

/// As the server has it: a verdict allocates some hundred times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Made for tests and measurements.
const RSA_KEY: &str = "-----BEGIN PRIVATE KEY-----
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
/// RFC 8463 §A.2
const ED25519_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const RSA_PUBLIC: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA4/3gwwsUe67dUO0RMgsfCBvRDVtgAt26u9KxozVxScb57j3W3mnE\
2ksXQTRpKSI6mn+NWnHLh3UQHHluicD9n9Bm3YPYYPUyad44341aGYNRDTaoVB219t4kQ5RmCLGTiRBCHUr4ub9CThUYggzy\
7R8Acs3sYhuQShOzrr0+pIKm9z7KLGdhqnvdHp/G8yUKpDIYDzNTaTLgqbn0vO7aB6wOYekZXR7Wvqjrn+bk/RdU9H4JpW3I\
pFAQAhs8ID8T0Y9UVUyyftEA0XMgrcJzkvj9X97vcvb0dNIvUlds73tvVfnZtsOWYxqTwZ5JF3WTyd80LNPt1paF/Ek9tC4N\
MwIDAQAB";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const AT: Timestamp = Timestamp::from_secs(1_790_000_000);
const NOW: Duration = Duration::ZERO;

/// 4 KB, of which some 700 octets are header fields.
fn message() -> Vec<u8> {
    let mut message = b"Received: from client.example.org (client.example.org [192.0.2.1])\r\n\tby mx.example with \
        ESMTPS id 0000000000001 (TLSv1.3)\r\n\tfor <bob@example.net>;\r\n\tThu, 20 Nov 2025 09:05:00 +0000\r\n\
        From: Ann Example <ann@example.org>\r\nTo: Bob Example <bob@example.net>\r\nCc: carol@example.net\r\n\
        Subject: The minutes of our last meeting, with\r\n the figures\r\nDate: Thu, 20 Nov 2025 09:05:00 +0000\r\n\
        Message-ID: <1234567890.abcdef@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 7bit\r\nX-Mailer: none in particular\r\n\r\n"
        .to_vec();
    let line = b"the quick brown fox jumps over the lazy dog and goes on for a while or so\r\n";
    while message.len() + line.len() <= 4096 {
        message.extend_from_slice(line);
    }
    message
}

fn signers() -> [Signer; 2] {
    [("rsa", RSA_KEY), ("ed", ED25519_KEY)].map(|(selector, pem)| {
        let key = Key::parse(pem).expect("a key");
        let domain = "example.org".parse().expect("a domain");
        Signer::new(key, &domain, selector, SignerOptions::default()).expect("a signer")
    })
}

fn digest(message: &[u8], digester: Digester) -> Digest {
    let mut digester = digester;
    digester.push(message);
    digester.finish()
}

fn signed(message: &[u8], signer: &Signer) -> Vec<u8> {
    let mut out = Vec::new();
    let digest = digest(message, Digester::new(Limits::default()).signing([signer]));
    signer.sign(&mut out, &digest, b"", AT).expect("a signature");
    out.extend_from_slice(message);
    out
}

/// All that is known: the warm cache.
fn known() -> HashMap<Question, Arc<Answer>> {
    let texts = [
        ("example.org", "v=spf1 include:_spf.example.org -all".to_owned()),
        (
            "_spf.example.org",
            "v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.0/24 ip4:192.0.2.0/24 ip6:2001:db8::/32 ~all"
                .to_owned(),
        ),
        ("_dmarc.example.org", "v=DMARC1; p=reject; rua=mailto:reports@example.org".to_owned()),
        ("rsa._domainkey.example.org", format!("v=DKIM1; k=rsa; p={RSA_PUBLIC}")),
        ("ed._domainkey.example.org", format!("v=DKIM1; k=ed25519; p={ED25519_PUBLIC}")),
        ("client.example.org", "v=spf1 ip4:192.0.2.1 -all".to_owned()),
    ];
    let name = |text: &str| dns::Name::parse(text).expect("a name");
    let mut known: Vec<_> = texts
        .map(|(at, text)| {
            let records = Records::Texts(vec![text.into_bytes().into()]);
            (Question { name: name(at), kind: dns::Kind::Txt }, records)
        })
        .into();
    let address = [192, 0, 2, 1].into();
    let reverse = Question { name: dns::Name::reverse(address), kind: dns::Kind::Ptr };
    known.push((reverse, Records::Names(vec![name("client.example.org")])));
    known.push((Question::a(name("client.example.org")), Records::Addresses(vec![address])));
    let answer = |outcome| {
        Arc::new(Answer {
            outcome,
            security: Security::Unproven,
            alias_of: None,
            ttl: Duration::from_secs(60),
        })
    };
    known.into_iter().map(|(question, records)| (question, answer(Outcome::Found(records)))).collect()
}

fn verdict(judge: &Judge, known: &HashMap<Question, Arc<Answer>>, message: &[u8]) -> Verdict {
    let none = Arc::new(Answer {
        outcome: Outcome::NxDomain,
        security: Security::Unproven,
        alias_of: None,
        ttl: Duration::ZERO,
    });
    let client = Client {
        address: [192, 0, 2, 1].into(),
        helo: "client.example.org".to_owned(),
        mail_from: ReversePath::Address("ann@example.org".parse().expect("an address")),
    };
    let mut case = Case::open(client, "mx.example", Limits::default(), AT, NOW);
    let digest = digest(message, Digester::new(Limits::default()).verifying());
    loop {
        match case.judge_message(judge, &digest, NOW) {
            Judged::Known(verdict) => return verdict,
            Judged::Missing(questions) => {
                for question in questions {
                    let answer = known.get(&question).unwrap_or(&none).clone();
                    case.learn(question, answer);
                }
            }
        }
    }
}

fn verifying(c: &mut Criterion) {
    let mut group = c.benchmark_group("verdict on 4 KB, all known");
    let (judge, known) = (Judge::new(), known());
    let plain = message();
    group.bench_function("no signature", |b| b.iter(|| verdict(&judge, &known, black_box(&plain))));
    for (name, signer) in ["RSA-2048", "Ed25519"].into_iter().zip(signers()) {
        let message = signed(&plain, &signer);
        let found = verdict(&judge, &known, &message);
        assert_eq!(found.dkim[0].result, DkimResult::Pass);
        assert_eq!(found.dmarc.result, DmarcResult::Pass);
        group.bench_function(name, |b| b.iter(|| verdict(&judge, &known, black_box(&message))));
    }
    group.finish();
}

fn signing(c: &mut Criterion) {
    let mut group = c.benchmark_group("signing 4 KB");
    let message = message();
    for (name, signer) in ["RSA-2048", "Ed25519"].into_iter().zip(signers()) {
        group.bench_function(name, |b| b.iter(|| signed(black_box(&message), &signer)));
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY.as_bytes()).expect("a key");
    let bare = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key of RSA");
    let random = SystemRandom::new();
    let mut signature = vec![0; bare.public_modulus_len()];
    group.bench_function("RSA-2048, the signature alone", |b| {
        b.iter(|| bare.sign(&RSA_PKCS1_SHA256, &random, black_box(&message[..700]), &mut signature));
    });
    group.finish();
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("one pass");
    let [rsa, _] = signers();
    for size in [4 << 10, 100 << 10] {
        let line = b"the quick brown fox jumps over the lazy dog and goes on for a while or so\r\n";
        let message: Vec<u8> =
            [b"From: a@example.org\r\n\r\n".as_slice(), &line.repeat(size / line.len())].concat();
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("{} KB, relaxed hash", size >> 10), |b| {
            b.iter(|| digest(black_box(&message), Digester::new(Limits::default()).signing([&rsa])));
        });
    }
    group.finish();
}

criterion_group!(benches, verifying, signing, reading);
criterion_main!(benches);
