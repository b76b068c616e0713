//! Keys for DKIM: made, and told to the world (RFC 6376 §3.6.1, RFC 8463 §4.1).

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::{
    Algorithm, KeyError,
    tags::{Tag, items, tags, value_of},
};

/// What a new key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// RSA with 2048 bits: what everybody verifies.
    Rsa2048,
    /// RSA with 4096 bits: signing takes some five times as long, and some resolvers cannot carry the record.
    Rsa4096,
    /// Ed25519 (RFC 8463): small and fast, and not verified by everybody yet.
    Ed25519,
}

/// Why there is no new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key can be made")]
pub struct NoKey;

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::Rsa4096, Self::Ed25519];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Makes a private key, in PEM.
///
/// # Errors
/// [`NoKey`] when the system has no random numbers.
pub fn new_key(kind: KeyKind) -> Result<String, NoKey> {
    let rsa = |size| {
        let pair = RsaKeyPair::generate(size).map_err(|_| NoKey)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| NoKey)?;
        Ok(der.as_ref().to_vec())
    };
    let der = match kind {
        KeyKind::Rsa2048 => rsa(KeySize::Rsa2048)?,
        KeyKind::Rsa4096 => rsa(KeySize::Rsa4096)?,
        KeyKind::Ed25519 => {
            // The first version of PKCS#8, without the public key: other programs read no other.
            let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| NoKey)?;
            document.as_ref().to_vec()
        }
    };
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        pem.extend(line.iter().map(|octet| char::from(*octet)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(pem)
}

/// The record to publish for a private key: the text at `selector._domainkey.domain`.
///
/// # Errors
/// [`KeyError`] says what is wrong with the key.
pub fn record(pem: &str) -> Result<String, KeyError> {
    public(pem).map(|public| public.record)
}

/// What may be known of a private key.
pub(crate) struct Public {
    /// The record to publish.
    pub(crate) record: String,
    /// Of the RSA modulus.
    pub(crate) bits: Option<usize>,
}

pub(crate) fn public(pem: &str) -> Result<Public, KeyError> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoPem)?;
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der()) {
        return Ok(Public { record: text(Algorithm::Ed25519Sha256, pair.public_key().as_ref()), bits: None });
    }
    let pair = if let PrivateKeyDer::Pkcs1(der) = &der {
        RsaKeyPair::from_der(der.secret_pkcs1_der())
    } else {
        RsaKeyPair::from_pkcs8(der.secret_der())
    };
    let pair = pair.map_err(|_| KeyError::Unusable)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyError::Unusable)?;
    Ok(Public {
        record: text(Algorithm::RsaSha256, public.as_ref()),
        bits: Some(pair.public_modulus_len() * 8),
    })
}

fn text(algorithm: Algorithm, public: &[u8]) -> String {
    let kind = match algorithm {
        Algorithm::Ed25519Sha256 => "ed25519",
        Algorithm::RsaSha256 | Algorithm::RsaSha1 => "rsa",
    };
    format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(public))
}

/// What is wrong with the record of a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFlaw {
    /// There is none.
    Missing,
    /// There are several, and which one counts is left to each host (RFC 6376 §3.6.2.2).
    Several,
    /// It is no key.
    Malformed,
    /// It is a key that has been given up: `p=` is empty.
    Revoked,
    /// It is another key.
    Other,
    /// It is for another algorithm, hash or service (`k=`, `h=`, `s=`).
    NotForThis,
    /// It says that mail is signed for a trial (`t=y`).
    Testing,
}

/// What is wrong with the text records that stand where this one belongs.
pub fn record_flaw(texts: &[Box<[u8]>], expected: &str) -> Option<RecordFlaw> {
    let [text] = texts else {
        return Some(if texts.is_empty() { RecordFlaw::Missing } else { RecordFlaw::Several });
    };
    let (Ok(found), Ok(expected)) = (tags(text), tags(expected.as_bytes())) else {
        return Some(RecordFlaw::Malformed);
    };
    let is_version = |(name, value): &(&[u8], &[u8])| *name == b"v" && *value == b"DKIM1";
    if value_of(&found, b"v").is_some() && !found.first().is_some_and(is_version) {
        return Some(RecordFlaw::Malformed);
    }
    // White space may stand anywhere in base64 (RFC 6376 §2.10), and padding may be missing.
    let key = |tags: &[Tag<'_>]| -> Option<Vec<u8>> {
        let value = value_of(tags, b"p")?.iter();
        Some(value.copied().filter(|b| !b.is_ascii_whitespace() && *b != b'=').collect())
    };
    match key(&found) {
        None => return Some(RecordFlaw::Malformed),
        Some(key) if key.is_empty() => return Some(RecordFlaw::Revoked),
        other if other != key(&expected) => return Some(RecordFlaw::Other),
        Some(_) => {}
    }
    let kind = |tags: &[Tag<'_>]| value_of(tags, b"k").unwrap_or(b"rsa").to_ascii_lowercase();
    let lists = |name: &[u8], wanted: &[&[u8]]| {
        value_of(&found, name)
            .is_none_or(|value| items(value).any(|item| wanted.iter().any(|w| item.eq_ignore_ascii_case(w))))
    };
    if kind(&found) != kind(&expected) || !lists(b"h", &[b"sha256"]) || !lists(b"s", &[b"*", b"email"]) {
        return Some(RecordFlaw::NotForThis);
    }
    let is_for_testing = value_of(&found, b"t").is_some_and(|flags| items(flags).any(|flag| flag == b"y"));
    is_for_testing.then_some(RecordFlaw::Testing)
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{
        Key,
        sign::test::{ED25519_KEY, RSA_KEY},
    };

    #[test]
    fn new_keys_are_keys() {
        for (kind, algorithm) in
            [(KeyKind::Rsa2048, Algorithm::RsaSha256), (KeyKind::Ed25519, Algorithm::Ed25519Sha256)]
        {
            let pem = new_key(kind).unwrap();
            assert_eq!(Key::parse(&pem).unwrap().algorithm(), algorithm);
            assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
            assert_ne!(pem, new_key(kind).unwrap());
            assert!(record(&pem).unwrap().starts_with("v=DKIM1; k="));
        }
    }

    #[test]
    fn what_is_wrong_with_a_record() {
        let expected = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let of = |texts: &[&str]| {
            let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
            record_flaw(&texts, expected)
        };
        let p = "p=11qYAYKxCrfVS/7TyWQHOg7h cvPapiMlrwIaaPcHURo";
        assert_eq!(of(&[expected]), None);
        assert_eq!(of(&[&format!("k=ed25519; {p}")]), None, "what may be left out, and white space");
        for (texts, flaw) in [
            (&[][..], RecordFlaw::Missing),
            (&[expected, "v=DKIM1; p="], RecordFlaw::Several),
            (&["anything"], RecordFlaw::Malformed),
            (&["v=DKIM1; k=ed25519"], RecordFlaw::Malformed),
            (&[&format!("k=ed25519; v=DKIM1; {p}")], RecordFlaw::Malformed),
            (&["v=DKIM1; k=ed25519; p="], RecordFlaw::Revoked),
            (&["v=DKIM1; k=ed25519; p=AAAA"], RecordFlaw::Other),
            (&[&format!("v=DKIM1; {p}")], RecordFlaw::NotForThis),
            (&[&format!("v=DKIM1; k=ed25519; h=sha1; {p}")], RecordFlaw::NotForThis),
            (&[&format!("v=DKIM1; k=ed25519; s=tlsrpt; {p}")], RecordFlaw::NotForThis),
            (&[&format!("v=DKIM1; k=ed25519; t=s:y; {p}")], RecordFlaw::Testing),
        ] {
            assert_eq!(of(texts), Some(flaw), "{texts:?}");
        }
    }

    /// RFC 8463 appendix A.2 has the private key and the record of it.
    #[test]
    fn the_record_of_a_key() {
        assert_eq!(
            record(ED25519_KEY).unwrap(),
            "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        );
        assert!(record(RSA_KEY).unwrap().starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEF"));
        assert_eq!(record("nothing"), Err(KeyError::NoPem));
    }
}
