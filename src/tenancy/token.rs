//! Links by which a recipient leaves a list with one click (RFC 8058).
//!
//! ```text
//!  https://news.example.org/u/<characters>
//!          version (1) · id of the key (2) · tenant, list and address, sealed (AES-256-GCM-SIV), 16 octets longer than they are
//! ```
//!
//! Nothing has to be remembered for a link, nobody else can make one, and whoever sees one learns nothing of the recipient but
//! about how long the address is. There is no nonce: the same recipient of the same list has the same link each time, and that is
//! all that this mode gives away without one (RFC 8452 §4). A link holds as long as its key is configured: the first key
//! seals, all of them open.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mail::Address;

use crate::Scope;

/// Makes and opens links.
#[derive(Clone)]
pub struct Links {
    url: Box<str>,
    keys: Vec<Arc<Key>>,
}

struct Key {
    id: [u8; 2],
    /// What tells it from others.
    mark: [u8; 16],
    seal: LessSafeKey,
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which list.
    pub scope: Scope,
    /// Who leaves it.
    pub address: Address,
}

/// What is no link of ours, or one whose key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no link of ours, or one that is too old")]
pub struct TokenError;

const VERSION: u8 = 1;
const NAME_MAX: usize = 200;
/// A token is not longer than this: two names, an address, and what seals them, in base64.
const TEXT_MAX: usize = (3 + 2 * (1 + NAME_MAX) + 254 + 16) * 4 / 3 + 2;

impl Links {
    /// Links that begin with this URL. The first secret makes them; those that others made hold as well.
    pub fn new<'a>(url: &str, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let url = url.strip_suffix('/').unwrap_or(url).into();
        Self { url, keys: secrets.into_iter().map(|secret| Arc::new(Key::of(secret))).collect() }
    }

    /// The link of a recipient; none without a secret, and for names that are too long.
    pub fn link(&self, scope: &Scope, address: &Address) -> Option<String> {
        Some(format!("{}/{}", self.url, self.token(scope, address)?))
    }

    /// The end of it.
    fn token(&self, scope: &Scope, address: &Address) -> Option<String> {
        let Key { id, seal, .. } = &**self.keys.first()?;
        if scope.tenant.len() > NAME_MAX || scope.list.len() > NAME_MAX {
            return None;
        }
        let mut sealed = Vec::with_capacity(64);
        for name in [&scope.tenant, &scope.list] {
            sealed.push(name.len() as u8);
            sealed.extend_from_slice(name.as_bytes());
        }
        sealed.extend_from_slice(address.as_str().as_bytes());
        let mut token = vec![VERSION, id[0], id[1]];
        let aad = Aad::from([VERSION, id[0], id[1]]);
        seal.seal_in_place_append_tag(no_nonce(), aad, &mut sealed).ok()?;
        token.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(token))
    }

    /// What the end of a link says.
    ///
    /// # Errors
    /// [`TokenError`] for everything that we have not made.
    pub fn open(&self, token: &str) -> Result<Link, TokenError> {
        if token.len() > TEXT_MAX {
            return Err(TokenError);
        }
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError)?;
        let (head, sealed) = token.split_first_chunk::<3>().ok_or(TokenError)?;
        if head[0] != VERSION {
            return Err(TokenError);
        }
        // Two keys may have one id.
        let keys = self.keys.iter().filter(|key| key.id == head[1..]);
        let opened = keys.into_iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let opened = key.seal.open_in_place(no_nonce(), Aad::from(*head), &mut sealed).ok()?;
            Some(opened.to_vec())
        });
        let opened = opened.ok_or(TokenError)?;
        let (tenant, rest) = name(&opened).ok_or(TokenError)?;
        let (list, address) = name(rest).ok_or(TokenError)?;
        let address = Address::parse(address).map_err(|_| TokenError)?;
        Ok(Link { scope: Scope { tenant: tenant.into(), list: list.into() }, address })
    }
}

impl Key {
    fn of(secret: &str) -> Self {
        // A key for this alone, whatever else the secret is used for.
        let of = |label: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), label);
        let (key, id) = (of(b"ringpost unsubscribe key\0"), of(b"ringpost unsubscribe key id\0"));
        let key = UnboundKey::new(&AES_256_GCM_SIV, key.as_ref()).expect("HMAC-SHA-256 has 32 octets");
        let id: [u8; 16] = std::array::from_fn(|at| id.as_ref()[at]);
        Self { id: [id[0], id[1]], mark: id, seal: LessSafeKey::new(key) }
    }
}

fn no_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// A text with its length before it, and what follows.
fn name(octets: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = octets.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

impl PartialEq for Links {
    fn eq(&self, other: &Self) -> bool {
        let marks = |links: &Self| links.keys.iter().map(|key| key.mark).collect::<Vec<_>>();
        self.url == other.url && marks(self) == marks(other)
    }
}

// The keys are secrets; their ids tell one from another.
impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("Links").field("url", &self.url).field("keys", &ids).finish()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const OLD: &str = "an old secret of some length";
    const NEW: &str = "a new secret of some length";

    fn scope(list: &str) -> Scope {
        Scope { tenant: "shop".into(), list: list.into() }
    }

    fn links<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Links {
        Links::new("https://news.example.org/u/", secrets)
    }

    #[test]
    fn a_link_tells_us_and_nobody_else() {
        let links = links([NEW]);
        for (list, address) in [("", "ann@example.org"), ("spring sale", "änne@example.org")] {
            let (scope, address) = (scope(list), address.parse::<Address>().unwrap());
            let link = links.link(&scope, &address).unwrap();
            assert_eq!(Some(&link), links.link(&scope, &address).as_ref(), "the same each time");
            let token = link.strip_prefix("https://news.example.org/u/").unwrap();
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            assert_eq!(links.open(token), Ok(Link { scope, address }));
            let decoded = URL_SAFE_NO_PAD.decode(token).unwrap();
            assert!(!decoded.windows(4).any(|octets| octets == b"shop" || octets == b"exam"));
        }
    }

    #[test]
    fn nobody_else_can_make_one() {
        let links = links([NEW]);
        let address = "ann@example.org".parse().unwrap();
        let token = links.token(&scope("news"), &address).unwrap();
        for at in 0..token.len() {
            for other in ["A", "z", "_", "=", ""] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, other);
                if changed != token {
                    assert_eq!(links.open(&changed), Err(TokenError), "{changed}");
                }
            }
        }
        for token in ["", "AQ", &"A".repeat(10_000), "AQAA", "not base64!"] {
            assert_eq!(links.open(token), Err(TokenError), "{token}");
        }
        assert!(!format!("{links:?}").contains("secret"));
    }

    #[test]
    fn keys_are_exchanged_one_after_the_other() {
        let address = "ann@example.org".parse().unwrap();
        let old = links([OLD]).token(&scope(""), &address).unwrap();
        let both = links([NEW, OLD]);
        assert!(both.open(&old).is_ok());
        assert_ne!(both.token(&scope(""), &address), Some(old.clone()), "the new one makes them");
        assert_eq!(links([NEW]).open(&old), Err(TokenError));
        assert_eq!(links([]).link(&scope(""), &address), None);
        let long = Scope { tenant: "t".repeat(201).into(), list: "".into() };
        assert_eq!(both.link(&long, &address), None);
    }

    #[test]
    fn the_longest_one_is_opened() {
        let links = links([NEW]);
        let address: Address = format!("{}@example.org", "a".repeat(242)).parse().unwrap();
        let scope = Scope { tenant: "t".repeat(200).into(), list: "l".repeat(200).into() };
        let token = links.token(&scope, &address).unwrap();
        assert!(token.len() <= TEXT_MAX, "{}", token.len());
        assert_eq!(links.open(&token), Ok(Link { scope, address }));
    }
}
