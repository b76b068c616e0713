//! API keys: whose is the one that was shown, and what may be done with it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use aws_lc_rs::{constant_time, digest};
use config::{ApiKey, KeyHash};

use crate::scope::Scope;

/// Every key begins so: whoever finds one in a log or a repository sees what it is.
pub const KEY_PREFIX: &str = "ringpost_";

/// A key as the configuration knows it.
#[derive(Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    hash: KeyHash,
    pub(crate) scope: Scope,
    networks: Vec<Network>,
    pub(crate) messages_per_minute: u32,
    pub(crate) recipients_per_minute: u32,
    pub(crate) recipients_max: usize,
    pub(crate) message_size_max: usize,
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Keys(Vec<Arc<Key>>);

/// A network, as two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Network {
    address: IpAddr,
    prefix_len: u8,
}

/// The hash of a key, as the configuration has it.
pub fn hash_of(key: &str) -> KeyHash {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    KeyHash::new(digest.as_ref().try_into().expect("SHA-256 has 32 octets"))
}

/// A key made of random octets.
pub fn key_from(random: &[u8; 32]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

impl Keys {
    /// Those of the configuration.
    pub(crate) fn new(keys: &[ApiKey], limits: &config::Limits) -> Self {
        Self(keys.iter().filter_map(|key| Key::new(key, limits)).map(Arc::new).collect())
    }

    /// Whether there is a key of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|key| key.name == name)
    }

    /// Whose key this is. The time it takes tells how many keys there are, and nothing else.
    pub(crate) fn of(&self, shown: &str) -> Option<&Arc<Key>> {
        let hash = hash_of(shown);
        self.0.iter().fold(None, |found, key| {
            let same = constant_time::verify_slices_are_equal(hash.as_bytes(), key.hash.as_bytes());
            if same.is_ok() { Some(key) } else { found }
        })
    }
}

impl Key {
    fn new(key: &ApiKey, limits: &config::Limits) -> Option<Self> {
        let size_max = key.message_size_max.min(limits.message_size_max);
        Some(Self {
            name: key.name.clone(),
            hash: key.hash?,
            scope: Scope::new(&key.domains, &key.addresses),
            networks: key
                .networks
                .iter()
                .map(|net| Network { address: net.addr(), prefix_len: net.prefix_len() })
                .collect(),
            messages_per_minute: key.messages_per_minute,
            recipients_per_minute: key.recipients_per_minute,
            recipients_max: key.recipients_max.min(limits.recipients_max) as usize,
            message_size_max: usize::try_from(size_max).unwrap_or(usize::MAX),
        })
    }

    /// Whether it may be shown from this address.
    pub(crate) fn may_come_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty()
            || self.networks.iter().any(|network| network.contains(address.to_canonical()))
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let (ours, theirs, bits) = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (u128::from(bits(ours)), u128::from(bits(theirs)), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let host_bits = bits - u32::from(self.prefix_len).min(bits);
        ours.checked_shr(host_bits).unwrap_or(0) == theirs.checked_shr(host_bits).unwrap_or(0)
    }
}

const fn bits(address: Ipv4Addr) -> u32 {
    address.to_bits()
}

#[cfg(test)]
mod test {
    use super::*;

    fn key(name: &str, secret: &str) -> ApiKey {
        ApiKey { name: name.into(), hash: Some(hash_of(secret)), ..ApiKey::default() }
    }

    #[test]
    fn a_key_is_known_by_its_hash() {
        let keys =
            Keys::new(&[key("a", "one"), key("b", "two"), key("c", "three")], &config::Limits::default());
        let name = |shown| keys.of(shown).map(|key| key.name.as_str());
        assert_eq!(name("one"), Some("a"));
        assert_eq!(name("two"), Some("b"));
        assert_eq!(name("three"), Some("c"));
        assert_eq!(name(""), None);
        assert_eq!(name(&hash_of("one").to_string()), None);
        assert_eq!(Keys::default().of("one").map(|key| &key.name), None);
        let text = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        assert_eq!(hash_of("one").to_string(), text);
    }

    #[test]
    fn keys_look_like_keys() {
        let key = key_from(&[255; 32]);
        assert!(key.starts_with(KEY_PREFIX) && key.len() == KEY_PREFIX.len() + 43, "{key}");
        assert!(key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-')), "{key}");
    }

    #[test]
    fn a_key_may_be_bound_to_networks() {
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
        let key = Key::new(&ApiKey { networks, ..key("a", "one") }, &config::Limits::default()).unwrap();
        for (address, may) in [
            ("192.0.2.7", true),
            ("192.0.3.7", false),
            ("::ffff:192.0.2.7", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(key.may_come_from(address.parse().unwrap()), may, "{address}");
        }
        let everywhere = Network { address: [0, 0, 0, 0].into(), prefix_len: 0 };
        assert!(everywhere.contains([203, 0, 113, 9].into()));
    }
}
