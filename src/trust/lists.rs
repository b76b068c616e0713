//! What lists of the DNS say of a stranger: whom they are asked about, and what their answers add up to.
//!
//! ```text
//!  inquiries(lists, stranger) ─▶ the questions, to be asked all at once
//!  Findings::learn(list, inquiry, answer) for each that has come in time
//!  findings.score()           the weights of the lists that know somebody, each list once
//! ```
//!
//! What is not known in time counts nothing, neither for the stranger nor against it.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
};

use dns::{Answer, CodePattern, Failure, Kind, ListAnswer, Name, Question};
use mail::{Domain, ReversePath};

/// A list of the DNS (RFC 5782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsList {
    /// What it is called here.
    pub name: Box<str>,
    /// Where it is asked.
    pub zone: Name,
    /// About whom.
    pub subjects: Vec<ListSubject>,
    /// What an entry weighs: more than nothing speaks against the stranger, less speaks for it.
    pub weight: i32,
    /// Codes that count, and what each weighs, where that is something else; the first that fits. Empty: all.
    pub codes: Vec<(CodePattern, Option<i32>)>,
    /// Whether the client is told what the list says of it.
    pub explains: bool,
}

/// Whom a list knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListSubject {
    /// The client's address, of IPv4.
    Ipv4,
    /// Of IPv6.
    Ipv6,
    /// The argument of EHLO or HELO, when it is a name.
    EhloName,
    /// The domain of the reverse-path.
    SenderDomain,
    /// The name of the client's address, when it leads back to it.
    ClientName,
}

/// Who is to be looked for, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sought<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The argument of EHLO or HELO.
    pub ehlo: Option<&'a str>,
    /// The reverse-path.
    pub sender: Option<&'a ReversePath>,
    /// The name of the address.
    pub client_name: Option<&'a Name>,
}

/// A question to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListInquiry {
    /// Which of the lists.
    pub list: usize,
    /// Whom it is about.
    pub subject: ListSubject,
    /// What to ask.
    pub question: Question,
}

/// What a list has said of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListWord {
    /// It has an entry.
    Listed,
    /// It has none, or one that does not count.
    Unlisted,
    /// It does not answer us.
    Refused(Ipv4Addr),
    /// It has not answered.
    Failed,
    /// It was not asked, since we ask too much at once: which is no fault of its.
    Unasked,
}

/// An entry that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListHit {
    /// Of which of the lists.
    pub list: usize,
    /// What that is called.
    pub name: Box<str>,
    /// Whom it is about.
    pub subject: ListSubject,
    /// The codes that count.
    pub codes: Vec<Ipv4Addr>,
    /// What it weighs.
    pub weight: i32,
    /// Where the list says why.
    pub why: Question,
}

/// What all of them have said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFindings {
    hits: Vec<ListHit>,
}

impl ListSubject {
    /// In the configuration and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::EhloName => "ehlo-name",
            Self::SenderDomain => "sender-domain",
            Self::ClientName => "client-name",
        }
    }
}

impl DnsList {
    /// The name by which it is asked about somebody, if it is and there is something to ask.
    fn asked(&self, subject: ListSubject, sought: &Sought<'_>) -> Option<Name> {
        let by_name = |name: &str| Name::of_listed_name(name, &self.zone).ok();
        match subject {
            ListSubject::Ipv4 | ListSubject::Ipv6 => {
                let address = sought.address?.to_canonical();
                let is_it = address.is_ipv4() == (subject == ListSubject::Ipv4);
                is_it.then(|| Name::of_listed_address(address, &self.zone).ok()).flatten()
            }
            ListSubject::EhloName => sought.ehlo.and_then(domain_name).as_deref().and_then(by_name),
            ListSubject::SenderDomain => sought
                .sender?
                .address()
                .and_then(|a| domain_name(a.domain_str()))
                .as_deref()
                .and_then(by_name),
            ListSubject::ClientName => by_name(sought.client_name?.as_str()),
        }
    }

    /// The codes of an answer that count, and what they weigh: of several the heaviest.
    fn weigh(&self, codes: Vec<Ipv4Addr>) -> (Vec<Ipv4Addr>, i32) {
        if self.codes.is_empty() {
            return (codes, self.weight);
        }
        let (mut counting, mut heaviest) = (Vec::new(), 0_i32);
        for code in codes {
            let Some((_, weight)) = self.codes.iter().find(|(pattern, _)| pattern.fits(code)) else {
                continue;
            };
            let weight = weight.unwrap_or(self.weight);
            if weight.unsigned_abs() > heaviest.unsigned_abs() {
                heaviest = weight;
            }
            counting.push(code);
        }
        (counting, heaviest)
    }
}

/// A name as lists have them: a literal is none, nor is a word without a dot.
fn domain_name(text: &str) -> Option<Box<str>> {
    let domain = Domain::parse(text).ok().filter(|domain| domain.literal().is_none())?;
    let name = domain.as_str();
    let is_name = name.parse::<IpAddr>().is_err() && name.trim_end_matches('.').contains('.');
    (is_name && !name.starts_with('[')).then(|| name.into())
}

/// What to ask of these lists, each under the number that it has for the caller. A name is asked of a list once.
pub fn list_inquiries<'a>(
    lists: impl Iterator<Item = (usize, &'a DnsList)>,
    sought: &Sought<'_>,
) -> Vec<ListInquiry> {
    let mut inquiries: Vec<ListInquiry> = Vec::new();
    for (number, list) in lists {
        for subject in &list.subjects {
            let Some(name) = list.asked(*subject, sought) else { continue };
            let question = Question::a(name);
            if !inquiries.iter().any(|known| known.list == number && known.question == question) {
                inquiries.push(ListInquiry { list: number, subject: *subject, question });
            }
        }
    }
    inquiries
}

impl ListFindings {
    /// Takes in an answer, and says what it was.
    pub fn learn(&mut self, list: &DnsList, inquiry: &ListInquiry, answer: &Answer) -> ListWord {
        let codes = match ListAnswer::read(answer) {
            ListAnswer::Codes(codes) => codes,
            ListAnswer::Unlisted => return ListWord::Unlisted,
            ListAnswer::Refused(code) => return ListWord::Refused(code),
            ListAnswer::Failed(Failure::Overload) => return ListWord::Unasked,
            ListAnswer::Failed(_) => return ListWord::Failed,
        };
        let (codes, weight) = list.weigh(codes);
        if codes.is_empty() {
            return ListWord::Unlisted;
        }
        let hit = ListHit {
            list: inquiry.list,
            name: list.name.clone(),
            subject: inquiry.subject,
            codes,
            weight,
            why: Question { name: inquiry.question.name.clone(), kind: Kind::Txt },
        };
        // A list counts once, whomever it knows.
        match self.hits.iter_mut().find(|known| known.list == hit.list) {
            Some(known) if known.weight.unsigned_abs() >= hit.weight.unsigned_abs() => {}
            Some(known) => *known = hit,
            None => self.hits.push(hit),
        }
        ListWord::Listed
    }

    /// What the entries weigh together.
    pub fn score(&self) -> i32 {
        self.hits.iter().fold(0, |sum: i32, hit| sum.saturating_add(hit.weight))
    }

    /// The entries that count, each list once.
    pub fn hits(&self) -> &[ListHit] {
        &self.hits
    }

    /// Whether a list speaks for the stranger.
    pub fn is_vouched_for(&self) -> bool {
        self.hits.iter().any(|hit| hit.weight < 0)
    }
}

impl fmt::Display for ListFindings {
    /// `zen:127.0.0.2,127.0.0.4:+10 white:127.0.9.3:-5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, hit) in self.hits.iter().enumerate() {
            if place > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{}:", hit.name)?;
            for (place, code) in hit.codes.iter().enumerate() {
                write!(f, "{}{code}", if place > 0 { "," } else { "" })?;
            }
            write!(f, ":{:+}", hit.weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use dns::{Outcome, Records, Security};

    use super::*;

    fn list(name: &str, subjects: &[ListSubject], weight: i32) -> DnsList {
        let zone = Name::parse(&format!("{name}.example")).unwrap();
        let (subjects, codes) = (subjects.to_vec(), Vec::new());
        DnsList { name: name.into(), zone, subjects, weight, codes, explains: false }
    }

    /// `127.0.0.low-high`, with these bits.
    fn pattern(low: u8, high: u8, bits: u8) -> CodePattern {
        CodePattern { low: [127, 0, 0, low], high: [127, 0, 0, high], bits: [0, 0, 0, bits] }
    }

    const ADDRESSES: &[ListSubject] = &[ListSubject::Ipv4, ListSubject::Ipv6];
    const NAMES: &[ListSubject] =
        &[ListSubject::EhloName, ListSubject::SenderDomain, ListSubject::ClientName];

    fn asked(lists: &[DnsList], sought: &Sought<'_>) -> Vec<String> {
        let inquiries = list_inquiries(lists.iter().enumerate(), sought);
        inquiries.iter().map(|inquiry| format!("{} {}", inquiry.list, inquiry.question)).collect()
    }

    #[test]
    fn what_is_asked_of_whom() {
        let lists = [list("bl", ADDRESSES, 10), list("rhs", NAMES, 5), list("v4", &ADDRESSES[..1], 5)];
        let sender: ReversePath = ReversePath::Address("ann@Spam.Example".parse().unwrap());
        let name = Name::parse("host.example.net").unwrap();
        let sought = Sought {
            address: Some("192.0.2.1".parse().unwrap()),
            ehlo: Some("mail.example.net"),
            sender: Some(&sender),
            client_name: Some(&name),
        };
        assert_eq!(
            asked(&lists, &sought),
            [
                "0 1.2.0.192.bl.example A",
                "1 mail.example.net.rhs.example A",
                "1 spam.example.rhs.example A",
                "1 host.example.net.rhs.example A",
                "2 1.2.0.192.v4.example A",
            ]
        );
        // The same name is asked for once; what is no name is not.
        let again = Sought { ehlo: Some("HOST.example.net"), sender: Some(&ReversePath::Null), ..sought };
        let v6 = Sought { address: Some("2001:db8::1".parse().unwrap()), ..again };
        assert_eq!(asked(&lists[1..2], &again), ["0 host.example.net.rhs.example A"]);
        assert_eq!(asked(&lists[2..], &v6), [""; 0]);
        assert!(asked(&lists[..1], &v6)[0].starts_with("0 1.0.0.0."));
        for ehlo in ["[192.0.2.1]", "192.0.2.1", "localhost", "a..b", "", "[IPv6:2001:db8::1]", "x y.z"] {
            assert_eq!(
                asked(&lists[1..2], &Sought { ehlo: Some(ehlo), ..Sought::default() }),
                [""; 0],
                "{ehlo}"
            );
        }
        let literal = ReversePath::Address("ann@[192.0.2.1]".parse().unwrap());
        assert_eq!(asked(&lists[1..2], &Sought { sender: Some(&literal), ..Sought::default() }), [""; 0]);
        let long = format!("{}.example", ["a"; 120].join("."));
        assert_eq!(asked(&lists[1..2], &Sought { ehlo: Some(&long), ..Sought::default() }), [""; 0]);
    }

    fn answer(outcome: Outcome) -> Answer {
        Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO }
    }

    fn codes(last: &[u8]) -> Answer {
        let addresses = last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last).into()).collect();
        answer(Outcome::Found(Records::Addresses(addresses)))
    }

    /// What these answers, in the order of the inquiries, add up to.
    fn findings(lists: &[DnsList], sought: &Sought<'_>, answers: &[Answer]) -> (ListFindings, Vec<ListWord>) {
        let mut findings = ListFindings::default();
        let inquiries = list_inquiries(lists.iter().enumerate(), sought);
        assert_eq!(inquiries.len(), answers.len());
        let words = inquiries.iter().zip(answers);
        let words =
            words.map(|(inquiry, answer)| findings.learn(&lists[inquiry.list], inquiry, answer)).collect();
        (findings, words)
    }

    #[test]
    fn what_answers_add_up_to() {
        let mut lists = [
            list("bl", ADDRESSES, 10),
            list("mixed", ADDRESSES, 3),
            list("white", ADDRESSES, -5),
            list("dead", ADDRESSES, 10),
            list("slow", ADDRESSES, 10),
        ];
        lists[1].codes =
            vec![(pattern(10, 11, 0), None), (pattern(0, 255, 0b100), Some(7)), (pattern(2, 2, 0), Some(-1))];
        let sought = Sought { address: Some("192.0.2.1".parse().unwrap()), ..Sought::default() };
        let refused = answer(Outcome::Found(Records::Addresses(vec!["127.255.255.254".parse().unwrap()])));
        let failed = answer(Outcome::TempFail(Failure::Timeout));
        let none = answer(Outcome::NxDomain);
        let (found, words) = findings(
            &lists,
            &sought,
            &[codes(&[2]), codes(&[2, 12, 11, 9]), codes(&[3]), refused.clone(), failed],
        );
        let code = Ipv4Addr::new(127, 255, 255, 254);
        let expected =
            [ListWord::Listed, ListWord::Listed, ListWord::Listed, ListWord::Refused(code), ListWord::Failed];
        assert_eq!(words, expected);
        // 9 has none of the bits and is in no range; 12 has one and weighs most.
        assert_eq!((found.score(), found.is_vouched_for()), (12, true));
        assert_eq!(
            found.to_string(),
            "bl:127.0.0.2:+10 mixed:127.0.0.2,127.0.0.12,127.0.0.11:+7 white:127.0.0.3:-5"
        );
        assert_eq!(found.hits()[0].why.to_string(), "1.2.0.192.bl.example TXT");
        let (found, words) =
            findings(&lists, &sought, &[none.clone(), codes(&[9]), none.clone(), none.clone(), none.clone()]);
        assert_eq!((found.score(), found.hits().len()), (0, 0));
        assert_eq!(words, [const { ListWord::Unlisted }; 5]);
        let crowded = answer(Outcome::TempFail(Failure::Overload));
        let (found, words) = findings(&lists[..1], &sought, &[crowded]);
        assert_eq!(
            (found.score(), &words[..]),
            (0, &[ListWord::Unasked][..]),
            "nobody sets it aside for that"
        );
    }

    #[test]
    fn a_list_counts_once() {
        let mut lists = [list("rhs", NAMES, 4)];
        lists[0].codes = vec![(pattern(2, 2, 0), None), (pattern(3, 3, 0), Some(-9))];
        let sender = ReversePath::Address("ann@spam.example".parse().unwrap());
        let sought = Sought { ehlo: Some("bad.example"), sender: Some(&sender), ..Sought::default() };
        let (found, _) = findings(&lists, &sought, &[codes(&[2]), codes(&[2])]);
        assert_eq!((found.score(), found.hits().len()), (4, 1));
        let (found, _) = findings(&lists, &sought, &[codes(&[2]), codes(&[3])]);
        assert_eq!((found.score(), found.hits()[0].subject), (-9, ListSubject::SenderDomain));
        let (found, _) = findings(&lists, &sought, &[codes(&[3]), codes(&[2])]);
        assert_eq!(found.to_string(), "rhs:127.0.0.3:-9");
    }

    #[test]
    fn whatever_a_stranger_says_makes_a_name_of_the_zone_or_none() {
        let list = list("rhs", &NAMES[..2], 1);
        let letters: Vec<char> =
            "abcdefgh12345......-_[]:@ %\\\"1\u{e9}\u{212a}\u{5d0}\n\u{0}".chars().collect();
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut asked = 0;
        for _ in 0..20_000 {
            let text: String = (0..1 + next(12)).map(|_| letters[next(letters.len())]).collect();
            let sender = format!("a@{text}").parse().map_or(ReversePath::Null, ReversePath::Address);
            let sought = Sought { ehlo: Some(&text), sender: Some(&sender), ..Sought::default() };
            for inquiry in list_inquiries([(0, &list)].into_iter(), &sought) {
                let name = inquiry.question.name.as_str();
                assert!(name.ends_with(".rhs.example") && name.is_ascii(), "{text:?}: {name}");
                assert!(!name.contains(['[', ']', ':', ' ', '@']), "{text:?}: {name}");
                asked += 1;
            }
        }
        assert!(asked > 100, "{asked}");
    }
}
