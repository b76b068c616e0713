//! What is found out about strangers before their mail is taken: lists of the DNS.

use std::{fmt::Write as _, time::Duration};

use ipnet::Ipv4Net;
use mail::Domain;

use crate::{
    Config,
    notation::{List, Literal, Maybe, Spelled, Text, Time, Word, YesNo},
    reader::Reader,
    schema::{Entry, choice, section},
    signed::Signed,
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Codes by which a list answers, and what they weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeRule {
    /// Each octet of the code is at least this,
    pub low: [u8; 4],
    /// at most this,
    pub high: [u8; 4],
    /// and has one of these bits, where there are any.
    pub bits: [u8; 4],
    /// What it weighs; none: what the list does.
    pub weight: Option<i32>,
}

choice! {
    /// Whom a list of the DNS knows.
    pub enum ListSubject {
        /// the client's address, of IPv4
        Ipv4 = "ipv4",
        /// the client's address, of IPv6
        Ipv6 = "ipv6",
        /// the argument of EHLO or HELO, when it is a name
        EhloName = "ehlo-name",
        /// the domain of the reverse-path
        SenderDomain = "sender-domain",
        /// the name of the client's address, when it leads back to it
        ClientName = "client-name",
    }
}

section! {
    /// A list of the DNS that knows addresses or domains of strangers (RFC 5782), for better or worse. See strangers.md.
    pub struct DnsList {
        /// In messages, logs, metrics and replies, and for later files to find it.
        name: String [Text] = String::new();
        /// The zone. Whoever has a key in it: it is told to nobody.
        zone: Option<Domain> [Maybe<Literal>] = None;
        /// About whom it is asked. It counts once, whomever it knows.
        subjects: Vec<ListSubject> [List<Word>] = vec![ListSubject::Ipv4, ListSubject::Ipv6];
        /// What an entry weighs. Above 0 it speaks against the stranger, below 0 for it. See `strangers.refuse-at`.
        weight: i32 [Signed<-1000, 1000>] = 10;
        /// Which codes count, and what they weigh, where that is something else: "127.0.0.2", "127.0.0.10-11", "127.0.*.3=-20",
        /// "127.0.0.0/24=5"; "127.0.0.&6" for those with one of the bits of 6. The first that fits counts; of several codes in one
        /// answer, the heaviest. Empty: all of 127.0.0.0/8 but those by which lists refuse to answer (127.255.255.0/24).
        codes: Vec<CodeRule> [List<Literal>] = Vec::new();
        /// Whether a client that is refused or put off is told the name of the list, and what the list says of it (its TXT record).
        explain: bool [YesNo] = false;
        /// How often it is looked whether the list is still one: it must have no entry for 127.0.0.1 or for "invalid" (RFC 5782 §5).
        probe_interval: Duration [Time<{ SECOND }, { 24 * HOUR }>] = Duration::from_secs(900);
        /// One that refuses to answer, has no answer more often than not, or has an entry for everything, is set aside, and asked
        /// again after so long. Meanwhile it counts nothing, and an event in the log says so.
        rest: Duration [Time<{ SECOND }, { 24 * HOUR }>] = Duration::from_secs(300);
    }
}

section! {
    /// What is found out about strangers before their mail is taken, on listeners of kind "smtp": clients that may relay, clients in
    /// `clients.allow` and Unix sockets are spared. Lists of the DNS have weights, and what they come to decides. It is looked up
    /// from the greeting on, and waited for at RCPT alone; mail to postmaster is not refused for it. See strangers.md.
    pub struct Strangers {
        /// The `[[dns-list]]`s that are asked, by name. "*" is all of them.
        lists: Vec<String> [List<Text>] = vec!["*".into()];
        /// For the answers of all lists. What is not known by then counts nothing.
        lookup_time_max: Duration [Time<10, { 30 * SECOND }>] = Duration::from_secs(3);
        /// With a sum of so much or more, recipients get 554. Empty: never.
        refuse_at: Option<i32> [Maybe<Signed<1, 10_000>>] = Some(10);
        /// With so much, they get 450, and the client comes again. Empty: never.
        defer_at: Option<i32> [Maybe<Signed<1, 10_000>>] = None;
        /// With so much, the message is taken and held until an operator releases it (`ringpost queue`). Empty: never.
        quarantine_at: Option<i32> [Maybe<Signed<1, 10_000>>] = None;
        /// With so much, a field `X-Stranger-Warning` says what is against it. Empty: never.
        tag_at: Option<i32> [Maybe<Signed<1, 10_000>>] = None;
        /// Whether nothing is done beside telling in the log what would have been done.
        dry_run: bool [YesNo] = false;
    }
}

impl Config {
    /// What is wrong about lists and who names them.
    pub(crate) fn check_strangers(&self, reader: &mut Reader<'_>) {
        for list in &self.dns_lists {
            let key = format!("dns-list.{}", list.name.to_ascii_lowercase());
            if list.zone.is_none() {
                reader.missing(&key, "zone = \"bl.example.org\"", "say which zone is asked");
            }
            if list.subjects.is_empty() {
                let problem = "it is asked about nobody".into();
                reader.conflict(&[&format!("{key}.subjects")], problem, "say about whom, such as \"ipv4\"");
            }
        }
        let mut said = vec![("strangers.lists".to_owned(), &self.strangers.lists)];
        for listener in &self.listeners {
            let key = format!("listener.{}.strangers.lists", listener.name.to_ascii_lowercase());
            if reader.places.of(&key).is_some() {
                said.push((key, &listener.strangers.lists));
            }
        }
        for (key, names) in said {
            for name in names.iter().filter(|name| *name != Strangers::ALL) {
                if !self.dns_lists.iter().any(|list| list.name.eq_ignore_ascii_case(name)) {
                    let problem = format!("there is no `[[dns-list]]` with the name {name}");
                    reader.conflict(&[&key], problem, "name one that there is, or \"*\" for all");
                }
            }
        }
    }
}

impl Strangers {
    /// In the place of a name: all lists.
    pub const ALL: &'static str = "*";

    /// Whether a list is asked.
    pub fn asks(&self, list: &str) -> bool {
        self.lists.iter().any(|name| name == Self::ALL || name.eq_ignore_ascii_case(list))
    }
}

impl Entry for DnsList {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self { name: "example".into(), zone: Domain::parse("bl.example.org").ok(), ..Self::default() }
    }
}

/// `7`, `7-9`, `*` or `&6`: the least, the most, and bits.
fn octet(text: &str) -> Option<(u8, u8, u8)> {
    let number = |text: &str| -> Option<u8> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    if text == "*" {
        return Some((0, 255, 0));
    }
    if let Some(bits) = text.strip_prefix('&') {
        return number(bits).filter(|bits| *bits > 0).map(|bits| (0, 255, bits));
    }
    match text.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (number(low)?, number(high)?);
            (low <= high).then_some((low, high, 0))
        }
        None => number(text).map(|number| (number, number, 0)),
    }
}

impl Spelled for CodeRule {
    const KIND: &'static str = "codes of a list, perhaps with a weight";
    const EXPECTED: &'static str = "codes such as \"127.0.0.2\", \"127.0.0.10-11\", \"127.0.*.3\", \"127.0.0.&6\" or \"127.0.0.0/24\", or with a weight \
         \"127.0.0.2=5\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (codes, weight) = match text.split_once('=') {
            None => (text, None),
            Some((codes, weight)) => {
                let digits = weight.strip_prefix(['+', '-']).unwrap_or(weight);
                let number = weight.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
                match number {
                    Some(weight @ -1000..=1000) => (codes, Some(weight)),
                    Some(_) | None => return Err("a weight is a whole number from -1000 to 1000".into()),
                }
            }
        };
        let (mut low, mut high, mut bits) = ([0; 4], [0; 4], [0; 4]);
        if codes.contains('/') {
            let net: Ipv4Net = codes.parse().map_err(|_| String::new())?;
            let net = net.trunc();
            (low, high) = (net.network().octets(), net.broadcast().octets());
        } else {
            let mut octets = codes.split('.');
            for at in 0..4 {
                (low[at], high[at], bits[at]) =
                    octets.next().and_then(octet).ok_or("a code has four octets, parted by dots")?;
            }
            if octets.next().is_some() {
                return Err("a code has four octets, parted by dots".into());
            }
        }
        if (low[0], high[0], bits[0]) != (127, 127, 0) {
            return Err("lists answer with addresses of 127.0.0.0/8 (RFC 5782 §2.1)".into());
        }
        Ok(Self { low, high, bits, weight })
    }

    fn spell(&self) -> String {
        let mut text = String::new();
        for at in 0..4 {
            let dot = if at > 0 { "." } else { "" };
            // Writing to a String does not fail.
            let _ = match (self.low[at], self.high[at], self.bits[at]) {
                (0, 255, 0) => write!(text, "{dot}*"),
                (0, 255, bits) => write!(text, "{dot}&{bits}"),
                (low, high, _) if low == high => write!(text, "{dot}{low}"),
                (low, high, _) => write!(text, "{dot}{low}-{high}"),
            };
        }
        if let Some(weight) = self.weight {
            let _ = write!(text, "={weight}");
        }
        text
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn codes_are_read_and_spelled() {
        for (text, low, high, bits, weight) in [
            ("127.0.0.2", [127, 0, 0, 2], [127, 0, 0, 2], [0; 4], None),
            ("127.0.0.10-11=3", [127, 0, 0, 10], [127, 0, 0, 11], [0; 4], Some(3)),
            ("127.0.*.3=-20", [127, 0, 0, 3], [127, 0, 255, 3], [0; 4], Some(-20)),
            ("127.0.0.&6", [127, 0, 0, 0], [127, 0, 0, 255], [0, 0, 0, 6], None),
        ] {
            let rule = CodeRule { low, high, bits, weight };
            assert_eq!((CodeRule::parse(text), rule.spell()), (Ok(rule), text.to_owned()));
        }
        let net = CodeRule::parse("127.0.0.64/26=+5").unwrap();
        assert_eq!((net.low, net.high, net.weight), ([127, 0, 0, 64], [127, 0, 0, 127], Some(5)));
        assert_eq!(net.spell(), "127.0.0.64-127=5");
        assert_eq!(CodeRule::parse("127.0.0.0/8").unwrap().spell(), "127.*.*.*");
        for text in [
            "",
            "127",
            "127.0.0",
            "127.0.0.2.3",
            "127.0.0.256",
            "127.0.0.3-2",
            "127.0.0.&0",
            "127.0.0.",
            "127.0.0.2=",
            "127.0.0.2=x",
            "127.0.0.2=1001",
            "127.0.0.2=--1",
            "192.0.2.1",
            "*.0.0.1",
            "126.0.0.0/7",
            "127.0.0.0/33",
            "127.0.0.+2",
            "127.0.0.&-1",
        ] {
            assert!(CodeRule::parse(text).is_err(), "{text}");
        }
    }

    /// What is said of the least there is and these lines.
    fn check(lines: &str, expected: &[&str]) {
        const LEAST: &str = "[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\n\
            [[dns-list]]\nname = \"a\"\nzone = \"a.example\"\n";
        let source = crate::Source { file: "c.toml".into(), text: format!("{lines}\n{LEAST}") };
        let errors = crate::Loaded::from_sources(&[source]).map_or_else(|errors| errors, |_| Vec::new());
        let errors: Vec<_> = errors.iter().map(|error| error.to_string().replace("c.toml:", "")).collect();
        assert_eq!(errors, expected, "{lines}");
    }

    #[test]
    fn mistakes_about_lists_are_told() {
        check("[strangers]\nlists = [\"A\"]\nrefuse-at = \"\"\ntag-at = 3", &[]);
        check(
            "[[dns-list]]\nname = \"b\"\nsubjects = []",
            &[
                "1:1: dns-list.b: missing, expected `zone = \"bl.example.org\"`; say which zone is asked",
                "3:1: dns-list.b.subjects: it is asked about nobody; say about whom, such as \"ipv4\"",
            ],
        );
        check(
            "[strangers]\nlists = [\"x\"]",
            &[
                "2:1: strangers.lists: there is no `[[dns-list]]` with the name x; name one that there is, or \"*\" for all",
            ],
        );
        check(
            "[[dns-list]]\nname = \"b\"\nzone = \"b.example\"\nweight = 1001",
            &[
                "4:10: dns-list.b.weight: expected a whole number from -1000 to 1000, found the number 1001; write it without quotes",
            ],
        );
        check(
            "[[listener]]\nname = \"m\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"none\"\nstrangers.lists = [\"x\"]",
            &[
                "5:11: listener.m.strangers.lists: there is no `[[dns-list]]` with the name x; name one that there is, or \"*\" for all",
            ],
        );
    }

    #[test]
    fn listeners_inherit_what_they_do_not_say() {
        let text = "[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\nstrangers.tag-at = 2\n\
            [strangers]\nrefuse-at = 7\ntag-at = 3\nlists = []\n";
        let source = crate::Source { file: "c.toml".into(), text: text.into() };
        let config = Config::from_sources(&[source]).unwrap();
        let strangers = &config.listeners[0].strangers;
        assert_eq!((strangers.refuse_at, strangers.tag_at, strangers.asks("a")), (Some(7), Some(2), false));
        assert!(Strangers::default().asks("a"));
    }
}
