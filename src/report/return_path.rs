//! The addresses that reports on our mail come back to: each tells by itself which mail it is about (VERP).
//!
//! ```text
//!  bounces+<39 characters>@b.example.org
//!          queue id (64 bits) · place of the recipient (32) · day of the signature (16) · its HMAC-SHA-256, cut to 80
//!  bounces+<47 characters>@b.example.org
//!          the same, with whose mail it is (16) and a mark of the recipient's address (24) before the HMAC
//!  bounces+<42 or 50 characters>@b.example.org
//!          either, with the campaign (16) before the HMAC
//! ```
//!
//! The longer one is for mail of a tenant that keeps a suppression list: what comes back to it is about that recipient or it is
//! somebody's invention, and nobody gets others onto a list by writing reports about them. The mark is a keyed hash. So it is, and
//! so it has the campaign, where a rule for replies asks whose mail it was: the message may be long gone when a report comes.
//!
//! Nothing has to be remembered for it, and nobody else can make one: a report that comes to such an address is about mail
//! that we sent, whatever the report itself says. The recipient is told by its place, not by its address: with that, the
//! local-part would pass the 64 octets that everybody takes (RFC 5321 §4.5.3.1.1), and who reads a list of such addresses
//! learns of no recipients. Letters are lower case and read in any, since some hosts change them.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time, hmac};
use mail::{Address, Domain, QueueId, TenantId, Timestamp};

/// Makes and knows the addresses of one domain.
#[derive(Clone)]
pub struct ReturnPaths {
    domain: Domain,
    local_part: Box<str>,
    complaints: Box<str>,
    lifetime: Duration,
    /// None: no address is signed, and none is known.
    key: Option<hmac::Key>,
}

/// What [`ReturnPaths`] are made of.
#[derive(Clone, Copy, Debug)]
pub struct ReturnPathOptions<'a> {
    /// Where reports come to.
    pub domain: &'a Domain,
    /// What stands before the signed part.
    pub local_part: &'a str,
    /// The local-part to which complaints come, unsigned.
    pub complaints: &'a str,
    /// How long after its signature an address is taken.
    pub lifetime: Duration,
    /// What signatures are made with.
    pub secret: Option<&'a str>,
}

/// Which mail an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub id: QueueId,
    /// The recipient's place in its envelope; none when several had the same address.
    pub place: Option<u32>,
    /// Whose mail it was, and to whom, where that is told.
    pub party: Option<Party>,
    /// Of which campaign, where that is told.
    pub campaign: Option<CampaignMark>,
}

/// A campaign in 16 bits: those of one configuration are told apart by it, nearly always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignMark(u16);

/// Whose mail it was, and to whom: enough to know both again, and to tell nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    tenant: u16,
    recipient: [u8; 3],
}

/// What an address is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// It is of another domain.
    Elsewhere,
    /// We made it for that mail.
    Signed(Sent),
    /// We did, and too long ago.
    Expired(Sent),
    /// The one for complaints.
    Complaints,
    /// It is of our domain, and we did not make it.
    Unsigned,
}

const DAY: u64 = 86_400;
/// Octets that are signed, without and with a party.
const SIGNED: usize = 14;
const SIGNED_WITH_PARTY: usize = SIGNED + PARTY;
const PARTY: usize = 5;
const CAMPAIGN: usize = 2;
const MAC: usize = 10;
/// Octets that everybody takes for a local-part (RFC 5321 §4.5.3.1.1).
const LOCAL_PART_MAX: usize = 64;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// The place of nobody in particular.
const ALL: u32 = u32::MAX;

impl ReturnPaths {
    /// As they are configured.
    pub fn new(options: &ReturnPathOptions<'_>) -> Self {
        Self {
            domain: options.domain.clone(),
            local_part: options.local_part.to_ascii_lowercase().into(),
            complaints: options.complaints.to_ascii_lowercase().into(),
            lifetime: options.lifetime,
            key: options.secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
        }
    }

    /// The address for reports about that mail, signed now; none without a secret. Where it would be too long with a campaign or a party, it
    /// has none.
    pub fn address(&self, sent: Sent, now: Timestamp) -> Option<Address> {
        let key = self.key.as_ref()?;
        let mut token = Vec::with_capacity(SIGNED_WITH_PARTY + CAMPAIGN + MAC);
        token.extend_from_slice(&sent.id.to_bits().to_be_bytes());
        token.extend_from_slice(&sent.place.unwrap_or(ALL).to_be_bytes());
        token.extend_from_slice(&day(now).to_be_bytes());
        let has_room = |signed: usize| self.local_part.len() + 1 + text_len(signed + MAC) <= LOCAL_PART_MAX;
        if let Some(Party { tenant, recipient }) = sent.party.filter(|_| has_room(SIGNED_WITH_PARTY)) {
            token.extend_from_slice(&tenant.to_be_bytes());
            token.extend_from_slice(&recipient);
        }
        if let Some(CampaignMark(mark)) = sent.campaign.filter(|_| has_room(token.len() + CAMPAIGN)) {
            token.extend_from_slice(&mark.to_be_bytes());
        }
        let mac = self.mac(key, &token);
        token.extend_from_slice(&mac);
        Address::new(&format!("{}+{}", self.local_part, text_of(&token)), &self.domain).ok()
    }

    /// The party of a tenant's mail to a recipient; none without a secret.
    pub fn party(&self, tenant: TenantId, recipient: &Address) -> Option<Party> {
        let key = self.key.as_ref()?;
        let mut context = hmac::Context::with_key(key);
        context.update(b"ringpost recipient\0");
        context.update(&tenant.0.to_be_bytes());
        // Whoever reports may write it otherwise.
        context.update(recipient.as_str().to_lowercase().as_bytes());
        let tag = context.sign();
        Some(Party { tenant: mark(tenant), recipient: std::array::from_fn(|at| tag.as_ref()[at]) })
    }

    /// What an address is.
    pub fn recognise(&self, address: &Address, now: Timestamp) -> Recognised {
        if address.domain_str() != self.domain.as_str() {
            return Recognised::Elsewhere;
        }
        let local_part = address.local_part().as_str().to_ascii_lowercase();
        if local_part == *self.complaints {
            return Recognised::Complaints;
        }
        let text = local_part.strip_prefix(&*self.local_part).and_then(|rest| rest.strip_prefix('+'));
        let Some((token, key)) = text.and_then(token_of).zip(self.key.as_ref()) else {
            return Recognised::Unsigned;
        };
        let (signed, told) = token.split_at(token.len() - MAC);
        let mac = self.mac(key, signed);
        if constant_time::verify_slices_are_equal(told, &mac).is_err() {
            return Recognised::Unsigned;
        }
        let number = |octets: &[u8]| octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
        let place = number(&signed[8..12]) as u32;
        // Of which parts it is, its length says.
        let more = &signed[SIGNED..];
        let (party, campaign) = more.split_at(if more.len() >= PARTY { PARTY } else { 0 });
        let party = (!party.is_empty()).then(|| Party {
            tenant: number(&party[..2]) as u16,
            recipient: std::array::from_fn(|at| party[2 + at]),
        });
        let campaign = (!campaign.is_empty()).then(|| CampaignMark(number(campaign) as u16));
        let id = QueueId::from_bits(number(&signed[..8]));
        let sent = Sent { id, place: (place != ALL).then_some(place), party, campaign };
        // The day that wrapped around is as far away as it can be.
        let age = day(now).wrapping_sub(number(&signed[12..SIGNED]) as u16);
        // Signed a day ahead is no older than today: clocks differ.
        let age = if age == u16::MAX { 0 } else { age };
        let is_old = Duration::from_secs(u64::from(age) * DAY) > self.lifetime;
        if is_old { Recognised::Expired(sent) } else { Recognised::Signed(sent) }
    }

    fn mac(&self, key: &hmac::Key, signed: &[u8]) -> [u8; MAC] {
        let mut context = hmac::Context::with_key(key);
        // An address of one domain is none of another, and a signature for this is none for anything else.
        context.update(b"ringpost return path\0");
        context.update(self.domain.as_str().as_bytes());
        context.update(b"\0");
        context.update(signed);
        let tag = context.sign();
        std::array::from_fn(|at| tag.as_ref()[at])
    }
}

// The key is a secret; what it makes of nothing tells one from another.
impl fmt::Debug for ReturnPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|key| self.mac(key, b"")[..2].to_vec());
        f.debug_struct("ReturnPaths")
            .field("domain", &self.domain)
            .field("local_part", &self.local_part)
            .field("complaints", &self.complaints)
            .field("lifetime", &self.lifetime)
            .field("key", &key)
            .finish()
    }
}

/// The day of a time, of which there are 65,536.
const fn day(now: Timestamp) -> u16 {
    (now.secs() / DAY) as u16
}

impl CampaignMark {
    /// Of the campaign with this name, whatever the case of its letters.
    pub fn of(name: &str) -> Self {
        // The hash is the one that names have everywhere.
        Self(mark(TenantId::of(name)))
    }
}

/// A tenant in 16 bits: those of one configuration are told apart by it, nearly always.
const fn mark(TenantId(id): TenantId) -> u16 {
    (id ^ id >> 16 ^ id >> 32 ^ id >> 48) as u16
}

impl Party {
    /// Whether it may be this tenant.
    pub const fn is_of(self, tenant: TenantId) -> bool {
        self.tenant == mark(tenant)
    }
}

/// Characters of five bits that so many octets take.
const fn text_len(octets: usize) -> usize {
    (octets * 8).div_ceil(5)
}

fn text_of(token: &[u8]) -> String {
    let bit = |at: usize| token.get(at / 8).is_some_and(|octet| octet >> (7 - at % 8) & 1 == 1);
    let digit = |at: usize| (0..5).fold(0, |digit, i| digit << 1 | usize::from(bit(at * 5 + i)));
    (0..text_len(token.len())).map(|at| char::from(ALPHABET[digit(at)])).collect()
}

/// Of text in lower case.
fn token_of(text: &str) -> Option<Vec<u8>> {
    let lengths = [SIGNED, SIGNED_WITH_PARTY, SIGNED + CAMPAIGN, SIGNED_WITH_PARTY + CAMPAIGN];
    let lengths = lengths.map(|signed| signed + MAC);
    let len = lengths.into_iter().find(|len| text.len() == text_len(*len))?;
    let mut token = vec![0_u8; len];
    for (at, character) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|other| *other == character)?;
        for i in (0..5).filter(|i| digit >> (4 - i) & 1 == 1) {
            let bit = at * 5 + i;
            // What is left of the last character belongs to no octet, and is zero.
            *token.get_mut(bit / 8)? |= 1 << (7 - bit % 8);
        }
    }
    Some(token)
}

#[cfg(test)]
mod test {
    use mail::JournalShard;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_763_629_500);

    fn paths(domain: &str, secret: Option<&str>) -> ReturnPaths {
        let domain = Domain::parse(domain).unwrap();
        let lifetime = Duration::from_secs(14 * DAY);
        ReturnPaths::new(&ReturnPathOptions {
            domain: &domain,
            local_part: "bounces",
            complaints: "complaints",
            lifetime,
            secret,
        })
    }

    fn later(days: u64) -> Timestamp {
        Timestamp::from_secs(NOW.secs() + days * DAY)
    }

    #[test]
    fn an_address_tells_what_it_is_about_for_some_time() {
        let paths = paths("b.example.org", Some("a secret of some length"));
        for (shard, number, place) in
            [(0, 0, Some(0)), (4095, QueueId::NUMBER_MAX, None), (3, 77, Some(ALL - 1))]
        {
            let sent =
                Sent { id: QueueId::new(JournalShard(shard), number), place, party: None, campaign: None };
            let address = paths.address(sent, NOW).unwrap();
            assert!(address.local_part().as_str().len() <= 64);
            assert_eq!(paths.recognise(&address, NOW), Recognised::Signed(sent));
            assert_eq!(paths.recognise(&address, later(14)), Recognised::Signed(sent));
            assert_eq!(paths.recognise(&address, later(16)), Recognised::Expired(sent));
            assert_eq!(
                paths.recognise(&address, Timestamp::from_secs(NOW.secs() - DAY)),
                Recognised::Signed(sent)
            );
            let shouted = format!("{}@b.example.org", address.local_part().as_str().to_uppercase());
            assert_eq!(paths.recognise(&shouted.parse().unwrap(), NOW), Recognised::Signed(sent));
        }
    }

    #[test]
    fn a_party_is_known_again() {
        let ours = paths("b.example.org", Some("a secret of some length"));
        let (shop, ann) = (TenantId::of("shop"), "ann@example.org".parse().unwrap());
        let party = ours.party(shop, &ann);
        assert_eq!(party, ours.party(shop, &"Ann@Example.org".parse().unwrap()));
        for (tenant, other) in [(shop, "bob@example.org"), (TenantId::of("other"), "ann@example.org")] {
            assert_ne!(party, ours.party(tenant, &other.parse().unwrap()));
        }
        assert!(party.unwrap().is_of(shop) && !party.unwrap().is_of(TenantId::of("other")));
        let sent = Sent { id: QueueId::from_bits(7), place: None, party, campaign: None };
        let address = ours.address(sent, NOW).unwrap();
        assert!(address.local_part().as_str().len() <= 64);
        assert_eq!(ours.recognise(&address, later(14)), Recognised::Signed(sent));
        let text = address.local_part().as_str();
        for at in "bounces+".len()..text.len() {
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, if &text[at..=at] == "0" { "1" } else { "0" });
            let address = format!("{changed}@b.example.org").parse().unwrap();
            assert_eq!(ours.recognise(&address, NOW), Recognised::Unsigned, "{changed}");
        }
        // Where there is no room it is left out.
        let domain = Domain::parse("b.example.org").unwrap();
        let wordy = ReturnPaths::new(&ReturnPathOptions {
            domain: &domain,
            local_part: "undeliverable-and-late",
            complaints: "complaints",
            lifetime: Duration::from_secs(DAY),
            secret: Some("a secret of some length"),
        });
        let address = wordy.address(sent, NOW).unwrap();
        assert!(address.local_part().as_str().len() <= 64);
        assert_eq!(wordy.recognise(&address, NOW), Recognised::Signed(Sent { party: None, ..sent }));
        assert_eq!(paths("b.example.org", None).party(shop, &ann), None);
    }

    #[test]
    fn a_campaign_is_known_again() {
        let ours = paths("b.example.org", Some("a secret of some length"));
        let ann = "ann@example.org".parse().unwrap();
        let news = CampaignMark::of("News");
        assert!(news == CampaignMark::of("news") && news != CampaignMark::of("receipts"));
        for party in [None, ours.party(TenantId::of("shop"), &ann)] {
            let sent = Sent { id: QueueId::from_bits(7), place: Some(3), party, campaign: Some(news) };
            let address = ours.address(sent, NOW).unwrap();
            let local_part = address.local_part().as_str().to_owned();
            assert!(local_part.len() <= 64, "{local_part}");
            assert_eq!(ours.recognise(&address, later(14)), Recognised::Signed(sent));
            // What is cut, or longer, is none of ours.
            for end in "bounces+".len()..local_part.len() {
                let address = format!("{}@b.example.org", &local_part[..end]).parse().unwrap();
                assert_eq!(ours.recognise(&address, NOW), Recognised::Unsigned, "{end}");
            }
            let longer = format!("{local_part}0@b.example.org").parse().unwrap();
            assert_eq!(ours.recognise(&longer, NOW), Recognised::Unsigned);
        }
    }

    #[test]
    fn nobody_else_can_make_one() {
        let ours = paths("b.example.org", Some("a secret of some length"));
        let sent = Sent { id: QueueId::from_bits(7), place: Some(1), party: None, campaign: None };
        let address = ours.address(sent, NOW).unwrap();
        let text = address.local_part().as_str();
        for at in "bounces+".len()..text.len() {
            for other in ['0', 'z', 'i', '-', '\''] {
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, &other.to_string());
                if changed != text {
                    let address = format!("{changed}@b.example.org").parse().unwrap();
                    assert_eq!(ours.recognise(&address, NOW), Recognised::Unsigned, "{changed}");
                }
            }
        }
        let others = paths("b.example.org", Some("another secret of that length"));
        assert_eq!(others.recognise(&address, NOW), Recognised::Unsigned);
        let moved = format!("{text}@c.example.org").parse().unwrap();
        let elsewhere = paths("c.example.org", Some("a secret of some length"));
        assert_eq!(elsewhere.recognise(&moved, NOW), Recognised::Unsigned);
        assert_eq!(ours.recognise(&moved, NOW), Recognised::Elsewhere);
        let none = paths("b.example.org", None);
        assert_eq!((none.address(sent, NOW), none.recognise(&address, NOW)), (None, Recognised::Unsigned));
    }

    #[test]
    fn other_addresses_of_the_domain_are_told_apart() {
        let paths = paths("b.example.org", Some("a secret of some length"));
        for (text, expected) in [
            ("Complaints@B.example.org", Recognised::Complaints),
            ("bounces@b.example.org", Recognised::Unsigned),
            ("bounces+@b.example.org", Recognised::Unsigned),
            ("bounces+0@b.example.org", Recognised::Unsigned),
            ("\"bounces+\"@b.example.org", Recognised::Unsigned),
            ("é@b.example.org", Recognised::Unsigned),
            ("bounces@example.org", Recognised::Elsewhere),
        ] {
            assert_eq!(paths.recognise(&text.parse().unwrap(), NOW), expected, "{text}");
        }
        assert!(!format!("{paths:?}").contains("secret of"));
    }
}
