//! The sender's address of mail that is passed on to somebody else's server (SRS): one of ours, which leads back to the sender.
//!
//! ```text
//!  ann@a.example                        SRS0=<mac>=<day>=a.example=ann@f.example           we pass on what came from its sender
//!  SRS0=x=y=a.example=ann@b.example     SRS1=<mac>=b.example==x=y=a.example=ann@f.example  what somebody else has passed on to us
//!  SRS1=<mac>=b.example=<rest>@c.example   the same, past whoever it came by: the way back is never longer than two steps
//! ```
//!
//! The scheme has no RFC; it is that of Meng Weng Wong and Shevek ("SRS", 2004), as all who speak it do. Nothing has to be remembered,
//! and nobody else can make such an address: HMAC-SHA-256 cut to 40 bits, in characters that survive a host that changes their
//! case. Only we read it.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time, hmac};
use mail::{Address, Domain, Timestamp};

/// Makes and knows the addresses of one domain.
#[derive(Clone)]
pub struct Srs {
    domain: Domain,
    /// The first signs, all are known: a new one comes in front, and the old one goes when its addresses are over.
    keys: Vec<hmac::Key>,
    lifetime: Duration,
}

/// What an address is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SrsAddress {
    /// It is of another domain.
    Elsewhere,
    /// It leads back to this one.
    Returns(Address),
    /// We made it, and too long ago.
    Expired,
    /// It is of our domain, and we did not make it.
    Unknown,
}

const DAY: u64 = 86_400;
/// Octets that everybody takes for a local-part (RFC 5321 §4.5.3.1.1).
const LOCAL_PART_MAX: usize = 64;
/// Characters of a MAC, of five bits each.
const MAC: usize = 8;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Days are told apart among so many: two characters.
const DAYS: u64 = 1024;
/// What stands behind `SRS0`: all that are in use are read.
const SEPARATORS: [char; 3] = ['=', '+', '-'];

impl Srs {
    /// Of this domain, with these secrets, the one that signs first.
    pub fn new<'a>(domain: &Domain, secrets: impl IntoIterator<Item = &'a str>, lifetime: Duration) -> Self {
        let key = |secret: &str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { domain: domain.clone(), keys: secrets.into_iter().map(key).collect(), lifetime }
    }

    /// The address of ours that leads back to this one, signed now; none without a secret, and none where it would be longer than
    /// what everybody takes.
    pub fn forward(&self, from: &Address, now: Timestamp) -> Option<Address> {
        let key = self.keys.first()?;
        if from.domain_str().eq_ignore_ascii_case(self.domain.as_str()) {
            return Some(from.clone());
        }
        let local_part = plain(from);
        let made = match tagged(&local_part) {
            // Whoever comes next needs no way back but to the first one.
            Some(("SRS1", rest)) => {
                match rest[1..].split_once('=').and_then(|(_, rest)| rest.split_once('=')) {
                    Some((host, rest)) => format!("SRS1={}={host}={rest}", mac(key, &[host, rest])),
                    None => self.first(key, &local_part, from.domain_str(), now),
                }
            }
            Some((_, rest)) => {
                let host = from.domain_str();
                format!("SRS1={}={host}={rest}", mac(key, &[host, rest]))
            }
            None => self.first(key, &local_part, from.domain_str(), now),
        };
        of(&made, &self.domain).filter(|made| local_part_len(made) <= LOCAL_PART_MAX)
    }

    /// What an address is.
    pub fn recognise(&self, address: &Address, now: Timestamp) -> SrsAddress {
        if !address.domain_str().eq_ignore_ascii_case(self.domain.as_str()) {
            return SrsAddress::Elsewhere;
        }
        let local_part = plain(address);
        let told = tagged(&local_part).and_then(|(tag, rest)| Some((tag, rest[1..].split_once('=')?)));
        let Some((tag, (told, rest))) = told else { return SrsAddress::Unknown };
        let returned = match tag {
            "SRS1" => {
                let Some((host, rest)) = rest.split_once('=') else { return SrsAddress::Unknown };
                if !self.is_ours(told, &[host, rest]) {
                    return SrsAddress::Unknown;
                }
                (format!("SRS0{rest}"), host)
            }
            _ => {
                let parts = rest.split_once('=').and_then(|(day, rest)| Some((day, rest.split_once('=')?)));
                let Some((day, (host, local_part))) = parts else { return SrsAddress::Unknown };
                if !self.is_ours(told, &[day, host, local_part]) {
                    return SrsAddress::Unknown;
                }
                if self.is_over(day, now) {
                    return SrsAddress::Expired;
                }
                (local_part.to_owned(), host)
            }
        };
        let (local_part, host) = returned;
        let domain = Domain::parse(host).ok();
        let address = domain.and_then(|domain| of(&local_part, &domain));
        address.map_or(SrsAddress::Unknown, SrsAddress::Returns)
    }

    fn first(&self, key: &hmac::Key, local_part: &str, host: &str, now: Timestamp) -> String {
        let day = day_text(now.secs() / DAY);
        format!("SRS0={}={day}={host}={local_part}", mac(key, &[&day, host, local_part]))
    }

    fn is_ours(&self, told: &str, signed: &[&str]) -> bool {
        let told = told.to_ascii_lowercase();
        let is_by = |key: &hmac::Key| {
            constant_time::verify_slices_are_equal(mac(key, signed).as_bytes(), told.as_bytes()).is_ok()
        };
        // All of them, whatever comes of the first.
        self.keys.iter().fold(false, |found, key| is_by(key) | found)
    }

    fn is_over(&self, day: &str, now: Timestamp) -> bool {
        let digit = |octet: u8| ALPHABET.iter().position(|other| *other == octet.to_ascii_lowercase());
        let digits: Option<Vec<usize>> = day.bytes().map(digit).collect();
        let Some([high, low]) = digits.as_deref() else { return true };
        let then = (*high as u64) << 5 | *low as u64;
        let age = (now.secs() / DAY).wrapping_sub(then) % DAYS;
        // Made a day ahead is no older than today: clocks differ.
        age != DAYS - 1 && Duration::from_secs(age * DAY) > self.lifetime
    }
}

/// `SRS0` or `SRS1` in any case, and the rest from the separator on.
fn tagged(local_part: &str) -> Option<(&'static str, &str)> {
    let (head, rest) = local_part.split_at_checked(4)?;
    let tag = ["SRS0", "SRS1"].into_iter().find(|tag| head.eq_ignore_ascii_case(tag))?;
    rest.starts_with(SEPARATORS).then_some((tag, rest))
}

/// A local-part without its quotes.
fn plain(address: &Address) -> String {
    let text = address.as_str();
    let local_part = &text[..local_part_len(address)];
    let inner = local_part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(local_part).to_owned()
}

fn local_part_len(address: &Address) -> usize {
    address.as_str().rsplit_once('@').map_or(0, |(local_part, _)| local_part.len())
}

/// In quotes where it has to be; what stood within quotes is escaped as it was.
fn of(local_part: &str, domain: &Domain) -> Option<Address> {
    let written = [format!("{local_part}@{domain}"), format!("\"{local_part}\"@{domain}")];
    written.iter().find_map(|text| Address::parse(text.as_bytes()).ok())
}

fn day_text(day: u64) -> String {
    let day = day % DAYS;
    [day >> 5, day & 31].map(|digit| char::from(ALPHABET[digit as usize])).iter().collect()
}

/// Of what may come back in another case.
fn mac(key: &hmac::Key, signed: &[&str]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(b"ringpost srs\0");
    for part in signed {
        context.update(part.to_lowercase().as_bytes());
        context.update(b"\0");
    }
    let tag = context.sign();
    let bits = tag.as_ref()[..5].iter().fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
    (0..MAC).map(|place| char::from(ALPHABET[(bits >> (5 * (MAC - 1 - place)) & 31) as usize])).collect()
}

// Keys are secrets; what they make of nothing tells one from another.
impl fmt::Debug for Srs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|key| mac(key, &[])[..2].to_owned()).collect();
        f.debug_struct("Srs")
            .field("domain", &self.domain)
            .field("keys", &keys)
            .field("lifetime", &self.lifetime)
            .finish()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);
    const LIFETIME: Duration = Duration::from_secs(21 * DAY);

    fn srs(domain: &str, secrets: &[&str]) -> Srs {
        Srs::new(&domain.parse().unwrap(), secrets.iter().copied(), LIFETIME)
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn later(days: u64) -> Timestamp {
        NOW.saturating_add(Duration::from_secs(days * DAY))
    }

    #[test]
    fn mail_that_comes_back_finds_its_sender() {
        let ours = srs("f.example", &["secret"]);
        for sender in [
            "ann@a.example",
            "Ann.B+c=d@a.example",
            "\"a b\"@a.example",
            "x@[192.0.2.1]",
            "j\u{f6}rg@a.example",
        ] {
            let made = ours.forward(&address(sender), NOW).unwrap();
            assert!(made.as_str().contains("SRS0=") && made.domain_str() == "f.example", "{made}");
            assert_eq!(ours.recognise(&made, NOW), SrsAddress::Returns(address(sender)), "{made}");
        }
        // A host may change the case of what it does not know.
        let made = ours.forward(&address("ann@a.example"), NOW).unwrap().to_string();
        let returned = SrsAddress::Returns(address("ann@a.example"));
        assert_eq!(ours.recognise(&address(&made.to_lowercase()), NOW), returned);
        let upper = SrsAddress::Returns(address("ANN@a.example"));
        assert_eq!(ours.recognise(&address(&made.to_uppercase()), NOW), upper);
    }

    #[test]
    fn the_way_back_is_two_steps_at_most() {
        let [one, two, three] =
            ["one.example", "two.example", "three.example"].map(|name| srs(name, &[name]));
        let sender = address("ann@a.example");
        let first = one.forward(&sender, NOW).unwrap();
        let second = two.forward(&first, NOW).unwrap();
        let third = three.forward(&second, NOW).unwrap();
        assert!(
            second.as_str().starts_with("SRS1=") && third.as_str().starts_with("SRS1="),
            "{second} {third}"
        );
        assert_eq!(second.as_str().len(), third.as_str().len() - "three".len() + "two".len());
        for (ours, made) in [(&two, second), (&three, third)] {
            assert_eq!(ours.recognise(&made, NOW), SrsAddress::Returns(first.clone()), "{made}");
        }
        assert_eq!(one.recognise(&first, NOW), SrsAddress::Returns(sender));
        // What is ours already stays.
        assert_eq!(one.forward(&first, NOW), Some(first));
        // Other separators, as others write them.
        let other = address("SRS0+x=y=a.example=ann@b.example");
        let made = one.forward(&other, NOW).unwrap();
        assert_eq!(one.recognise(&made, NOW), SrsAddress::Returns(other));
    }

    #[test]
    fn nobody_else_makes_one_and_none_lasts_for_ever() {
        let ours = srs("f.example", &["secret"]);
        let made = ours.forward(&address("ann@a.example"), NOW).unwrap();
        for (days, expected) in
            [(0, true), (21, true), (22, false), (1023, true), (1024, true), (1045, true), (1046, false)]
        {
            let found = ours.recognise(&made, later(days));
            assert_eq!(matches!(found, SrsAddress::Returns(_)), expected, "{days}");
            assert!(expected || found == SrsAddress::Expired);
        }
        for odd in [
            "SRS0=aaaaaaaa=aa=a.example=ann",
            "SRS0=x",
            "SRS0=",
            "SRS0",
            "ann",
            "SRS1=aaaaaaaa=b.example==x",
            "SRS2=a=b",
        ] {
            assert_eq!(
                ours.recognise(&address(&format!("{odd}@f.example")), NOW),
                SrsAddress::Unknown,
                "{odd}"
            );
        }
        assert_eq!(ours.recognise(&address("SRS0=x@other.example"), NOW), SrsAddress::Elsewhere);
        let eve = made.as_str().replace("=ann@", "=eve@");
        assert_eq!(ours.recognise(&address(&eve), NOW), SrsAddress::Unknown);
        // A new secret signs, the old one is known as long as it is there.
        let renewed = srs("f.example", &["new", "secret"]);
        assert!(matches!(renewed.recognise(&made, NOW), SrsAddress::Returns(_)));
        assert_eq!(srs("f.example", &["new"]).recognise(&made, NOW), SrsAddress::Unknown);
        assert!(renewed.forward(&address("ann@a.example"), NOW) != Some(made));
        // What would be longer than everybody takes, and without a secret.
        let long = address(&format!("{}@a.example", "l".repeat(50)));
        assert_eq!(ours.forward(&long, NOW), None);
        assert_eq!(srs("f.example", &[]).forward(&address("ann@a.example"), NOW), None);
    }
}
