//! Hashes under a key that nobody outside knows.

use std::{hash::Hasher, sync::OnceLock};

use aws_lc_rs::{hmac, rand};

/// What hashes are made with; drawn when it is needed and nobody has said what it is.
#[derive(Debug, Default)]
pub(crate) struct HashKey(OnceLock<hmac::Key>);

/// For tables whose keys are such hashes already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

/// By these lowest bits the parts of a table are chosen.
const PART_BITS: u32 = 6;

impl HashKey {
    pub(crate) fn set(&self, key: &[u8; 32]) {
        // Whoever comes too late has asked before it was told, which only a test does.
        let _ = self.0.set(hmac::Key::new(hmac::HMAC_SHA256, key));
    }

    /// The first octets of HMAC-SHA-256.
    pub(crate) fn hash(&self, write: impl FnOnce(&mut hmac::Context)) -> u64 {
        let key = self.0.get_or_init(|| {
            let mut octets = [0; 32];
            rand::fill(&mut octets).expect("the system has random numbers");
            hmac::Key::new(hmac::HMAC_SHA256, &octets)
        });
        let mut context = hmac::Context::with_key(key);
        write(&mut context);
        let tag = context.sign();
        u64::from_be_bytes(*tag.as_ref().first_chunk().expect("SHA-256 has 32 octets"))
    }
}

impl Hasher for AsItIs {
    fn write(&mut self, octets: &[u8]) {
        // Keys are written by the other one.
        octets.iter().for_each(|octet| self.0 = self.0 << 8 | u64::from(*octet));
    }

    fn write_u64(&mut self, key: u64) {
        // A table takes the highest and the lowest bits.
        self.0 = key.rotate_right(PART_BITS);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
