//! Lists of the DNS (RFC 5782): the name by which an address or a domain is asked for, and what an answer says.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Answer, Failure, Name, NameError, Outcome, Records};

/// What a list says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAnswer {
    /// It has an entry, with these codes. There is one at least.
    Codes(Vec<Ipv4Addr>),
    /// It has none.
    Unlisted,
    /// By this code it says that it does not answer us, or not so: too many questions, an unknown client, a wrong name.
    Refused(Ipv4Addr),
    /// Nothing is known now.
    Failed(Failure),
}

/// Codes that count, octet by octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePattern {
    /// Each octet is at least this.
    pub low: [u8; 4],
    /// And at most this.
    pub high: [u8; 4],
    /// And has one of these bits, where there are any.
    pub bits: [u8; 4],
}

/// By codes from there, lists say that they do not answer: the convention of the large ones, which others follow.
const NO_ANSWER: [u8; 3] = [127, 255, 255];

impl Name {
    /// By which a list is asked for an address (RFC 5782 §2.1, §2.4).
    ///
    /// # Errors
    /// [`NameError`]: the zone leaves no room.
    pub fn of_listed_address(address: IpAddr, zone: &Self) -> Result<Self, NameError> {
        let labels = Self::reverse(address);
        let labels = labels.as_str().trim_end_matches(".in-addr.arpa").trim_end_matches(".ip6.arpa");
        Self::parse(&format!("{labels}.{zone}"))
    }

    /// By which a list of names is asked for one (RFC 5782 §2.2).
    ///
    /// # Errors
    /// [`NameError`]: it is no name of the DNS, or too long with the zone behind it.
    pub fn of_listed_name(name: &str, zone: &Self) -> Result<Self, NameError> {
        let name = name.strip_suffix('.').unwrap_or(name);
        Self::parse(&format!("{name}.{zone}"))
    }

    /// What no list of addresses may have an entry for, and what no list of names may: whichever has one has gone, and
    /// somebody answers everything in its place (RFC 5782 §5).
    ///
    /// # Errors
    /// [`NameError`]: the zone leaves no room.
    pub fn never_listed(zone: &Self) -> [Result<Self, NameError>; 2] {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        [Self::of_listed_address(localhost, zone), Self::of_listed_name("invalid", zone)]
    }
}

impl ListAnswer {
    /// Reads the answer to a question for A records. Addresses outside of 127.0.0.0/8 are none of a list, but of whoever has its
    /// name by now.
    pub fn read(answer: &Answer) -> Self {
        match &answer.outcome {
            Outcome::Found(Records::Addresses(addresses)) => Self::of_codes(addresses),
            Outcome::Found(_) | Outcome::NoData | Outcome::NxDomain => Self::Unlisted,
            Outcome::TempFail(failure) => Self::Failed(*failure),
        }
    }

    fn of_codes(addresses: &[IpAddr]) -> Self {
        let codes = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(code) if code.is_loopback() => Some(*code),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        let codes: Vec<_> = codes.collect();
        match codes.iter().find(|code| code.octets()[..3] == NO_ANSWER) {
            Some(code) => Self::Refused(*code),
            None if codes.is_empty() => Self::Unlisted,
            None => Self::Codes(codes),
        }
    }
}

impl CodePattern {
    /// Whether a code is one of those.
    pub fn fits(&self, code: Ipv4Addr) -> bool {
        let octets = code.octets();
        (0..4).all(|at| {
            let (octet, bits) = (octets[at], self.bits[at]);
            (self.low[at]..=self.high[at]).contains(&octet) && (bits == 0 || octet & bits != 0)
        })
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use super::*;
    use crate::Security;

    fn zone() -> Name {
        Name::parse("bl.example.org").unwrap()
    }

    #[test]
    fn addresses_and_names_are_asked_for() {
        let asked = |address: &str| Name::of_listed_address(address.parse().unwrap(), &zone()).unwrap();
        assert_eq!(asked("192.0.2.99").as_str(), "99.2.0.192.bl.example.org");
        assert_eq!(asked("::ffff:192.0.2.99").as_str(), "99.2.0.192.bl.example.org");
        assert_eq!(
            asked("2001:db8:1:2:3:4:567:89ab").as_str(),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example.org"
        );
        let named = |name: &str| Name::of_listed_name(name, &zone());
        assert_eq!(named("Mail.Example.COM.").unwrap().as_str(), "mail.example.com.bl.example.org");
        assert_eq!(named("bücher.example").unwrap().as_str(), "xn--bcher-kva.example.bl.example.org");
        assert_eq!(named(&"a.".repeat(130)), Err(NameError::TooLong));
        assert!(named("").is_err() && named("a..b").is_err());
        let never = Name::never_listed(&zone()).map(|name| name.unwrap().as_str().to_owned());
        assert_eq!(never, ["1.0.0.127.bl.example.org", "invalid.bl.example.org"]);
    }

    #[test]
    fn answers_say_what_they_say() {
        let read = |outcome| {
            let security = Security::Unproven;
            ListAnswer::read(&Answer { outcome, security, alias_of: None, ttl: Duration::ZERO })
        };
        let found = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            read(Outcome::Found(Records::Addresses(addresses)))
        };
        let code = |last| Ipv4Addr::new(127, 0, 0, last);
        assert_eq!(found(&["127.0.0.2", "127.0.0.10"]), ListAnswer::Codes(vec![code(2), code(10)]));
        // A domain that somebody else has bought, with whatever beside it.
        assert_eq!(found(&["192.0.2.1"]), ListAnswer::Unlisted);
        assert_eq!(found(&["192.0.2.1", "127.0.0.2"]), ListAnswer::Codes(vec![code(2)]));
        assert_eq!(found(&[]), ListAnswer::Unlisted);
        let refused = Ipv4Addr::new(127, 255, 255, 254);
        assert_eq!(found(&["127.0.0.2", "127.255.255.254"]), ListAnswer::Refused(refused));
        assert_eq!(read(Outcome::NxDomain), ListAnswer::Unlisted);
        assert_eq!(read(Outcome::NoData), ListAnswer::Unlisted);
        assert_eq!(
            read(Outcome::TempFail(Failure::Timeout)),
            ListAnswer::Failed(Failure::Timeout),
            "which is not the same as not to be listed"
        );
    }

    #[test]
    fn codes_fit_octet_by_octet() {
        let fits = |low, high, bits, code: [u8; 4]| CodePattern { low, high, bits }.fits(code.into());
        let any = ([127, 0, 0, 0], [127, 255, 255, 255], [0; 4]);
        assert!(fits(any.0, any.1, any.2, [127, 9, 9, 9]) && !fits(any.0, any.1, any.2, [126, 0, 0, 2]));
        let (low, high) = ([127, 0, 0, 2], [127, 0, 255, 3]);
        assert!(fits(low, high, [0; 4], [127, 0, 77, 3]) && !fits(low, high, [0; 4], [127, 0, 77, 4]));
        let (low, high, bits) = ([127, 0, 0, 0], [127, 0, 0, 255], [0, 0, 0, 0b1010]);
        assert!(fits(low, high, bits, [127, 0, 0, 2]) && fits(low, high, bits, [127, 0, 0, 0b1_1000]));
        assert!(!fits(low, high, bits, [127, 0, 0, 0b100]) && !fits(low, high, bits, [127, 0, 0, 0]));
    }
}
