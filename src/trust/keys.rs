//! Keys for DKIM: made, and told to the world (RFC 6376 §3.6.1, RFC 8463 §4.1).

use std::fmt::Write as _;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::{Algorithm, KeyError};

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
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoPem)?;
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der()) {
        return Ok(text(Algorithm::Ed25519Sha256, pair.public_key().as_ref()));
    }
    let pair = if let PrivateKeyDer::Pkcs1(der) = &der {
        RsaKeyPair::from_der(der.secret_pkcs1_der())
    } else {
        RsaKeyPair::from_pkcs8(der.secret_der())
    };
    let pair = pair.map_err(|_| KeyError::Unusable)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyError::Unusable)?;
    Ok(text(Algorithm::RsaSha256, public.as_ref()))
}

/// A record as a zone file has it (RFC 1035 §5.1): in strings of 255 octets at most, which are joined without anything between them
/// (RFC 6376 §3.6.2.2).
pub fn zone_line(name: &str, record: &str) -> String {
    const STRING_MAX: usize = 255;
    let mut line = format!("{name}. IN TXT (");
    for string in record.as_bytes().chunks(STRING_MAX) {
        // Writing to a String does not fail.
        let _ = write!(line, "\n    \"{}\"", String::from_utf8_lossy(string));
    }
    line + "\n)\n"
}

fn text(algorithm: Algorithm, public: &[u8]) -> String {
    let kind = match algorithm {
        Algorithm::Ed25519Sha256 => "ed25519",
        Algorithm::RsaSha256 | Algorithm::RsaSha1 => "rsa",
    };
    format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(public))
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
