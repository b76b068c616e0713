//! The keys of others, read once and kept: what is warm in the cache of the DNS need not be decoded again for each message.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use aws_lc_rs::signature::{
    ED25519, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, VerificationAlgorithm,
};
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use mail_auth::{
    Error,
    common::{
        crypto::{Algorithm, CryptoError, HashContext as _, HashImpl as _, Sha256, VerifyingKey},
        verify::DomainKey,
    },
    dkim::Canonicalization,
};

/// So many are kept; then all are read anew. One takes some 3 KB.
const KEYS_MAX: usize = 1024;
/// A longer record is not kept.
const RECORD_LEN_MAX: usize = 2048;
/// Padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Keys by their records: for one shard.
#[derive(Default)]
pub(crate) struct KnownKeys(RefCell<HashMap<Box<[u8]>, Arc<DomainKey>>>);

/// A key that is ready to verify with, and what mail-auth has read of the same record.
struct ReadyKey {
    theirs: Box<dyn VerifyingKey + Send + Sync>,
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl KnownKeys {
    /// The key of a record: as it was `read` before, if it was.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn get(
        &self,
        record: &[u8],
        read: impl FnOnce(&[u8]) -> Result<DomainKey, Error>,
    ) -> Result<Arc<DomainKey>, Error> {
        if let Some(key) = self.0.borrow().get(record) {
            return Ok(key.clone());
        }
        let key = Arc::new(read(record)?);
        if record.len() <= RECORD_LEN_MAX {
            let mut keys = self.0.borrow_mut();
            if keys.len() >= KEYS_MAX {
                keys.clear();
            }
            keys.insert(record.into(), key.clone());
        }
        Ok(key)
    }
}

/// Has the key of a record ready, whose value of `p=` is given. One that the library does not take is left as it is: nothing
/// verifies by it.
pub(crate) fn ready(key: DomainKey, p: &[u8]) -> DomainKey {
    let DomainKey { p: theirs, f } = key;
    let p = match parsed(&*theirs, p) {
        Some((algorithm, key)) => Box::new(ReadyKey { theirs, algorithm, key }),
        None => theirs,
    };
    DomainKey { p, f }
}

fn parsed(theirs: &dyn VerifyingKey, p: &[u8]) -> Option<(Algorithm, ParsedPublicKey)> {
    let dense: Vec<u8> = p.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    // mail-auth tells keys apart by the number of their bits alone: one of Ed25519 has as many as there are.
    let (algorithm, by): (_, &'static dyn VerificationAlgorithm) = if theirs.public_key_bits() == usize::MAX {
        (Algorithm::Ed25519Sha256, &ED25519)
    } else {
        (Algorithm::RsaSha256, &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY)
    };
    Some((algorithm, ParsedPublicKey::new(by, BASE64.decode(dense).ok()?).ok()?))
}

impl VerifyingKey for ReadyKey {
    fn verify<'a>(
        &self,
        headers: &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
        signature: &[u8],
        canonicalization: Canonicalization,
        algorithm: Algorithm,
    ) -> Result<(), Error> {
        if algorithm != self.algorithm {
            return self.theirs.verify(headers, signature, canonicalization, algorithm);
        }
        let mut data = Vec::with_capacity(1024);
        canonicalization.canonicalize_headers(headers, &mut data);
        self.verify_bytes(&data, signature, algorithm)
    }

    fn verify_bytes(&self, input: &[u8], signature: &[u8], algorithm: Algorithm) -> Result<(), Error> {
        if algorithm != self.algorithm {
            return self.theirs.verify_bytes(input, signature, algorithm);
        }
        let verified = match algorithm {
            // What is signed is the hash (RFC 8463 §3).
            Algorithm::Ed25519Sha256 => {
                let mut hasher = Sha256::hasher();
                hasher.update(input);
                self.key.verify_sig(hasher.complete().as_ref(), signature)
            }
            Algorithm::RsaSha256 | Algorithm::RsaSha1 => self.key.verify_sig(input, signature),
        };
        verified.map_err(|_| Error::Crypto(CryptoError::FailedVerification))
    }

    fn public_key_bits(&self) -> usize {
        self.theirs.public_key_bits()
    }
}

#[cfg(test)]
mod test {
    use mail_auth::{common::parse::TxtRecordParser as _, dkim::DkimError};

    use super::*;
    use crate::dkim::test::KEYS;

    fn read(record: &[u8]) -> Result<DomainKey, Error> {
        let p = crate::tags::tags(record).map_err(|_| Error::ParseError)?;
        DomainKey::parse(record).map(|key| ready(key, crate::tags::value_of(&p, b"p").unwrap_or_default()))
    }

    fn records() -> impl Iterator<Item = &'static str> {
        KEYS.lines().filter_map(|line| line.split_once(" TXT ")).map(|(_, record)| record.trim())
    }

    #[test]
    fn a_key_is_read_once() {
        let keys = KnownKeys::default();
        let mut count = 0;
        for record in records() {
            let key = keys.get(record.as_bytes(), read).unwrap();
            let again = keys.get(record.as_bytes(), |_| unreachable!("it is known")).unwrap();
            assert!(Arc::ptr_eq(&key, &again), "{record}");
            count += 1;
        }
        assert!(count >= 2, "keys of both kinds");
        let revoked = keys.get(b"v=DKIM1; p=", read);
        assert_eq!(revoked.err(), Some(Error::Dkim(DkimError::RevokedPublicKey)));
        assert_eq!(keys.0.borrow().len(), count, "what is no key is not kept");
    }

    #[test]
    fn only_so_many_are_kept() {
        let keys = KnownKeys::default();
        let record = records().next().unwrap();
        for i in 0..=KEYS_MAX {
            keys.get(format!("{record}; n={i}").as_bytes(), read).unwrap();
            assert!(keys.0.borrow().len() <= KEYS_MAX);
        }
        assert_eq!(keys.0.borrow().len(), 1);
        keys.get(format!("{record}; n={}", "x".repeat(RECORD_LEN_MAX)).as_bytes(), read).unwrap();
        assert_eq!(keys.0.borrow().len(), 1);
    }

    /// With white space within, without padding, and an RSA key alone, without the structure that says what it is.
    #[test]
    fn keys_are_ready_however_they_are_written() {
        for record in records() {
            let p = record.split_once("p=").unwrap().1;
            let (head, tail) = p.split_at(9);
            let octets = BASE64.decode(p).unwrap();
            let bare = if octets.len() == 32 { &octets[..] } else { &octets[22..] };
            let ways = [p, &format!("{head} \t {}", tail.trim_end_matches('=')), &BASE64.encode(bare)];
            for way in ways {
                let theirs = DomainKey::parse(record.replace(p, way).as_bytes()).unwrap().p;
                let (algorithm, _) = parsed(&*theirs, way.as_bytes()).expect(way);
                assert_eq!(algorithm == Algorithm::Ed25519Sha256, octets.len() == 32, "{way}");
            }
            let theirs = DomainKey::parse(record.as_bytes()).unwrap().p;
            assert!(parsed(&*theirs, b"AAAA").is_none() && parsed(&*theirs, b"not base64").is_none());
        }
    }
}
