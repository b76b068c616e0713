//! Which TLSA records of a mail host mean something, and what the host is then held to (RFC 7672).

use std::fmt;

use dns::{Name, Tlsa};

/// What a host has to show, as its TLSA records say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaneHost {
    /// The name that it is asked for (SNI): the TLSA base domain (RFC 7672 §8.1).
    pub base: Name,
    /// The names its certificate may be for, where an authority vouches for it (RFC 7672 §3.2.2); the base domain first.
    pub names: Vec<Name>,
    /// The records, one of which has to match. None is left out that counts.
    pub records: Vec<DaneRecord>,
}

/// A TLSA record that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaneRecord {
    /// What the data is about.
    pub usage: DaneUsage,
    /// Which part of the certificate.
    pub selector: Selector,
    /// How that part and the data are compared.
    pub matching: Matching,
    /// Certificate association data.
    pub data: Box<[u8]>,
}

/// Certificate usages that mail knows (RFC 7672 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DaneUsage {
    /// DANE-TA(2): whoever has issued the certificate.
    TrustAnchor,
    /// DANE-EE(3): the certificate of the host itself.
    EndEntity,
}

/// RFC 6698 §2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Cert(0): all of it.
    Certificate,
    /// SPKI(1): the public key.
    PublicKey,
}

/// RFC 6698 §2.1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matching {
    /// Full(0).
    Full,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

/// Nobody publishes more, and each is compared with each certificate of a chain.
const RECORDS_MAX: usize = 32;

/// The records that count. None: all are unusable, and TLS is used with whoever is there (RFC 7672 §2.2).
pub fn usable(records: &[Tlsa]) -> Vec<DaneRecord> {
    let mut usable: Vec<_> = records.iter().filter_map(read).collect();
    // Of several digests for the same usage and selector the strongest alone counts (RFC 7671 §9). A record with the whole
    // thing is no digest, and stays.
    let strong: Vec<_> = usable
        .iter()
        .filter(|record| record.matching == Matching::Sha512)
        .map(|record| (record.usage, record.selector))
        .collect();
    usable.retain(|record| {
        record.matching != Matching::Sha256 || !strong.contains(&(record.usage, record.selector))
    });
    usable.truncate(RECORDS_MAX);
    usable
}

fn read(record: &Tlsa) -> Option<DaneRecord> {
    let usage = match record.usage {
        2 => DaneUsage::TrustAnchor,
        3 => DaneUsage::EndEntity,
        // PKIX-TA(0) and PKIX-EE(1) mean nothing for mail (RFC 7672 §3.1.3).
        _ => return None,
    };
    let selector = match record.selector {
        0 => Selector::Certificate,
        1 => Selector::PublicKey,
        _ => return None,
    };
    let (matching, fits) = match record.matching {
        0 => (Matching::Full, !record.data.is_empty()),
        1 => (Matching::Sha256, record.data.len() == 32),
        2 => (Matching::Sha512, record.data.len() == 64),
        _ => return None,
    };
    fits.then(|| DaneRecord { usage, selector, matching, data: record.data.clone() })
}

impl fmt::Display for DaneRecord {
    /// As it stands in a zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            DaneUsage::TrustAnchor => 2,
            DaneUsage::EndEntity => 3,
        };
        let selector = match self.selector {
            Selector::Certificate => 0,
            Selector::PublicKey => 1,
        };
        let matching = match self.matching {
            Matching::Full => 0,
            Matching::Sha256 => 1,
            Matching::Sha512 => 2,
        };
        write!(f, "{usage} {selector} {matching} ")?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn tlsa(usage: u8, selector: u8, matching: u8, length: usize) -> Tlsa {
        Tlsa { usage, selector, matching, data: vec![7; length].into() }
    }

    #[test]
    fn which_records_count() {
        let check = |records: &[Tlsa], expected: &[usize]| {
            let expected: Vec<_> = expected.iter().filter_map(|place| read(&records[*place])).collect();
            assert_eq!(usable(records), expected, "{records:?}");
        };
        check(&[], &[]);
        check(&[tlsa(3, 1, 1, 32), tlsa(2, 0, 1, 32), tlsa(3, 0, 0, 1), tlsa(2, 1, 2, 64)], &[0, 1, 2, 3]);
        // PKIX-TA and PKIX-EE, and what nobody has assigned.
        check(&[tlsa(0, 0, 1, 32), tlsa(1, 1, 1, 32), tlsa(4, 1, 1, 32), tlsa(255, 1, 1, 32)], &[]);
        check(&[tlsa(3, 2, 1, 32), tlsa(3, 1, 3, 32), tlsa(3, 255, 255, 32)], &[]);
        // Data that cannot be what it says.
        check(&[tlsa(3, 1, 1, 31), tlsa(3, 1, 2, 32), tlsa(3, 0, 0, 0), tlsa(3, 1, 1, 0)], &[]);
        // The stronger digest for the same thing, and the whole thing beside it.
        let both =
            [tlsa(3, 1, 1, 32), tlsa(3, 1, 2, 64), tlsa(3, 0, 1, 32), tlsa(2, 1, 1, 32), tlsa(3, 1, 0, 9)];
        check(&both, &[1, 2, 3, 4]);
        assert_eq!(usable(&vec![tlsa(3, 1, 1, 32); 100]).len(), RECORDS_MAX);
    }
}
