//! What is asked, and the bytes that ask it.

use std::fmt;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{DNSClass, RecordType},
};

use crate::Name;

/// One question: a name and the kind of record wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// Whose records.
    pub name: Name,
    /// Which.
    pub kind: Kind,
}

/// The kinds of record that mail needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses (RFC 1035 §3.4.1).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// The hosts that take a domain's mail (RFC 1035 §3.3.9).
    Mx,
    /// The names of an address (RFC 1035 §3.3.12).
    Ptr,
    /// Texts (RFC 1035 §3.3.14).
    Txt,
    /// The name that a name is an alias of (RFC 1035 §3.3.1), not followed.
    Cname,
    /// What a TLS server's certificate must be (RFC 6698).
    Tlsa,
}

/// How the letters of the name are written in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterCase {
    /// As the name is.
    Lower,
    /// The letters' case follows these bits. A server repeats the question as it was written, so each
    /// letter is one more bit for a forger to guess.
    Mixed(u64),
}

/// The query for a question: recursion wanted, EDNS with answers of up to `payload_max` octets over UDP
/// (RFC 6891 §6.2.3), and the AD bit, which asks for it in the answer (RFC 6840 §5.7).
pub fn encode_query(id: u16, question: &Question, case: LetterCase, payload_max: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = true;
    message.add_query(question.wire(case));
    let mut edns = Edns::new();
    edns.set_max_payload(payload_max);
    message.set_edns(edns);
    message.to_vec().expect("one question with a checked name fits into any message")
}

impl Question {
    /// Asks for the addresses of a name, IPv4.
    pub fn a(name: Name) -> Self {
        Self { name, kind: Kind::A }
    }

    /// Asks for the addresses of a name, IPv6.
    pub fn aaaa(name: Name) -> Self {
        Self { name, kind: Kind::Aaaa }
    }

    /// Asks for the mail exchanges of a domain.
    pub fn mx(name: Name) -> Self {
        Self { name, kind: Kind::Mx }
    }

    /// The question as it stands in a message.
    pub(crate) fn wire(&self, case: LetterCase) -> Query {
        let mut bits = match case {
            LetterCase::Lower => 0,
            LetterCase::Mixed(bits) => bits,
        };
        let mut text = self.name.as_str().as_bytes().to_vec();
        for byte in text.iter_mut().filter(|b| b.is_ascii_lowercase()) {
            if bits & 1 == 1 {
                byte.make_ascii_uppercase();
            }
            bits = bits.rotate_right(1);
        }
        let mut name = hickory_proto::rr::Name::from_labels(text.split(|b| *b == b'.'))
            .expect("labels and length of a name are checked");
        name.set_fqdn(true);
        let mut query = Query::query(name, self.kind.record_type());
        query.set_query_class(DNSClass::IN);
        query
    }
}

impl Kind {
    pub(crate) const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Mx => RecordType::MX,
            Self::Ptr => RecordType::PTR,
            Self::Txt => RecordType::TXT,
            Self::Cname => RecordType::CNAME,
            Self::Tlsa => RecordType::TLSA,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Txt => "TXT",
            Self::Cname => "CNAME",
            Self::Tlsa => "TLSA",
        })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind)
    }
}
