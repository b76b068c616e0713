//! What came back: records, or their absence, and for how long that holds.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RData, Record},
};

use crate::{Kind, LetterCase, Name, Question};

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records, or why there are none.
    pub outcome: Outcome,
    /// Whether a resolver we believe has proved it.
    pub security: Security,
    /// The name at the end of the aliases, when the name that was asked for is one (RFC 1034 §3.6.2).
    pub alias_of: Option<Name>,
    /// How long it holds, as it says itself; when it came from a cache, that of the server.
    pub ttl: Duration,
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There are records.
    Found(Records),
    /// The name exists and has no record of this kind (RFC 2308 §2.2).
    NoData,
    /// The name does not exist (RFC 2308 §2.1).
    NxDomain,
    /// Nothing is known now; ask again later.
    TempFail(Failure),
}

/// The records of an answer, of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// To [`Kind::A`] or [`Kind::Aaaa`].
    Addresses(Vec<IpAddr>),
    /// To [`Kind::Mx`], most preferred first.
    Exchanges(Vec<Exchange>),
    /// To [`Kind::Ptr`] and [`Kind::Cname`].
    Names(Vec<Name>),
    /// To [`Kind::Txt`]: the strings of each record, joined (RFC 7208 §3.3).
    Texts(Vec<Box<[u8]>>),
    /// To [`Kind::Tlsa`].
    Tlsa(Vec<Tlsa>),
}

/// An `MX` record (RFC 1035 §3.3.9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// Lower is tried first.
    pub preference: u16,
    /// Where the mail goes.
    pub host: ExchangeHost,
}

/// The host of an `MX` record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExchangeHost {
    /// A host's name.
    Name(Name),
    /// The root: the domain takes no mail (RFC 7505 §3).
    Null,
    /// What cannot be the name of a host.
    Malformed,
}

/// A `TLSA` record (RFC 6698 §2.1), its fields as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// Certificate usage (RFC 6698 §2.1.1).
    pub usage: u8,
    /// Selector (RFC 6698 §2.1.2).
    pub selector: u8,
    /// Matching type (RFC 6698 §2.1.3).
    pub matching: u8,
    /// Certificate association data.
    pub data: Box<[u8]>,
}

/// Whether DNSSEC proves an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// A resolver we believe set the AD bit (RFC 4035 §3.2.3), or the operator wrote it down.
    Secure,
    /// Nothing proves it.
    Unproven,
}

/// Why nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No server answered in time.
    #[error("no DNS server answered in time")]
    Timeout,
    /// The server could not find out (SERVFAIL); with a validating resolver also: the proof is wrong.
    #[error("the DNS server failed (SERVFAIL)")]
    ServerFailure,
    /// The server does not answer us (REFUSED and the like).
    #[error("the DNS server refused the question")]
    Refused,
    /// The server cannot be reached, or its answers cannot be read.
    #[error("the DNS server cannot be used")]
    Unusable,
    /// Too many questions are being asked.
    #[error("too many DNS questions at once")]
    Overload,
}

/// Why bytes are not the answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not a DNS message, or not an answer to this question: somebody else's, or a forgery. Wait on.
    #[error("not an answer to this question")]
    Foreign,
    /// It did not fit; ask again over TCP (RFC 7766 §5).
    #[error("the answer is truncated")]
    Truncated,
    /// The server says that it cannot tell.
    #[error(transparent)]
    Failed(Failure),
}

// One resolver never needs more; RFC 1034 §3.6.2 wants chains to work, and nobody has long ones.
const ALIASES_MAX: usize = 16;
// Nobody delivers to the two-hundredth exchange of a domain.
const RECORDS_MAX: usize = 200;
// "a TTL value received with the most significant bit set" counts as zero (RFC 2181 §8).
const TTL_MAX: u32 = i32::MAX as u32;

/// Reads the answer to the query that [`encode_query`](crate::encode_query) made with these arguments.
///
/// Aliases within the answer are followed. The AD bit is reported as it stands: whether the server may be
/// believed is the caller's to know.
///
/// # Errors
/// [`AnswerError`] says what to do instead.
#[expect(clippy::wildcard_enum_match_arm, reason = "of the registry's codes, three mean something here")]
pub fn decode_answer(
    bytes: &[u8],
    id: u16,
    question: &Question,
    case: LetterCase,
) -> Result<Answer, AnswerError> {
    let Some([id_high, id_low, flags, _]) = bytes.first_chunk().copied() else {
        return Err(AnswerError::Foreign);
    };
    const RESPONSE: u8 = 0x80;
    const TRUNCATED: u8 = 0x02;
    if u16::from_be_bytes([id_high, id_low]) != id || flags & RESPONSE == 0 {
        return Err(AnswerError::Foreign);
    }
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        // Some servers cut in the middle of a record.
        Err(_) if flags & TRUNCATED != 0 => return Err(AnswerError::Truncated),
        Err(_) => return Err(AnswerError::Foreign),
    };
    let metadata = &message.metadata;
    if metadata.message_type != MessageType::Response || metadata.op_code != OpCode::Query {
        return Err(AnswerError::Foreign);
    }
    let wanted = question.wire(case);
    let echoed = matches!(message.queries.as_slice(), [query] if query.name().eq_case(wanted.name())
        && query.query_type() == wanted.query_type()
        && query.query_class() == wanted.query_class());
    // A server that cannot read the question need not repeat it (RFC 1035 §4.1.1, format error).
    let unread = message.queries.is_empty() && metadata.response_code == ResponseCode::FormErr;
    if !echoed && !unread {
        return Err(AnswerError::Foreign);
    }
    if metadata.truncation {
        return Err(AnswerError::Truncated);
    }
    let exists = match metadata.response_code {
        ResponseCode::NoError => true,
        ResponseCode::NXDomain => false,
        ResponseCode::ServFail => return Err(AnswerError::Failed(Failure::ServerFailure)),
        _ => return Err(AnswerError::Failed(Failure::Refused)),
    };
    let security = if metadata.authentic_data { Security::Secure } else { Security::Unproven };
    let Collected { outcome, ttl, alias_of } = collect(&message, question.kind, wanted.name(), exists);
    Ok(Answer { outcome, security, alias_of, ttl: Duration::from_secs(ttl.into()) })
}

impl Answer {
    /// An answer that says why there is none.
    pub const fn failed(failure: Failure, ttl: Duration) -> Self {
        Self { outcome: Outcome::TempFail(failure), security: Security::Unproven, alias_of: None, ttl }
    }

    /// The addresses; none when there are none or something else was asked.
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.outcome {
            Outcome::Found(Records::Addresses(addresses)) => addresses,
            Outcome::Found(
                Records::Exchanges(_) | Records::Names(_) | Records::Texts(_) | Records::Tlsa(_),
            )
            | Outcome::NoData
            | Outcome::NxDomain
            | Outcome::TempFail(_) => &[],
        }
    }

    /// The mail exchanges, most preferred first; none when there are none or something else was asked.
    pub fn exchanges(&self) -> &[Exchange] {
        match &self.outcome {
            Outcome::Found(Records::Exchanges(exchanges)) => exchanges,
            Outcome::Found(
                Records::Addresses(_) | Records::Names(_) | Records::Texts(_) | Records::Tlsa(_),
            )
            | Outcome::NoData
            | Outcome::NxDomain
            | Outcome::TempFail(_) => &[],
        }
    }

    /// Whether the domain says that it takes no mail: a single `MX` with the root (RFC 7505 §3).
    pub fn is_null_mx(&self) -> bool {
        matches!(self.exchanges(), [Exchange { host: ExchangeHost::Null, .. }])
    }

    /// Memory it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + match &self.outcome {
                Outcome::Found(Records::Addresses(addresses)) => size_of_val(addresses.as_slice()),
                Outcome::Found(Records::Exchanges(exchanges)) => exchanges.len() * 80,
                Outcome::Found(Records::Names(names)) => names.len() * 64,
                Outcome::Found(Records::Texts(texts)) => texts.iter().map(|t| t.len() + 32).sum(),
                Outcome::Found(Records::Tlsa(records)) => records.iter().map(|t| t.data.len() + 32).sum(),
                Outcome::NoData | Outcome::NxDomain | Outcome::TempFail(_) => 0,
            }
    }
}

/// What stands at the end of the aliases.
struct Collected {
    outcome: Outcome,
    /// Seconds that all of it holds.
    ttl: u32,
    alias_of: Option<Name>,
}

/// Follows the aliases from `first` and takes the records at their end.
fn collect(message: &Message, kind: Kind, first: &hickory_proto::rr::Name, exists: bool) -> Collected {
    let mut name = first;
    let mut ttl = TTL_MAX;
    for _ in 0..ALIASES_MAX {
        let here = || message.answers.iter().filter(|r| r.name == *name && r.dns_class == DNSClass::IN);
        let wanted: Vec<_> =
            here().filter(|r| r.record_type() == kind.record_type()).take(RECORDS_MAX).collect();
        if !wanted.is_empty() {
            let ttl = wanted.iter().map(|r| seconds(r.ttl)).fold(ttl, u32::min);
            // Records that all are unreadable for us are as none.
            let outcome = records(kind, &wanted).map_or(Outcome::NoData, Outcome::Found);
            return Collected { outcome, ttl, alias_of: end_of_aliases(first, name) };
        }
        let alias = here().find_map(|record| {
            let RData::CNAME(alias) = &record.data else { return None };
            Some((&alias.0, record.ttl))
        });
        let Some((target, alias_ttl)) = alias else { break };
        (name, ttl) = (target, ttl.min(seconds(alias_ttl)));
    }
    let outcome = if exists { Outcome::NoData } else { Outcome::NxDomain };
    Collected { outcome, ttl: ttl.min(negative_ttl(message)), alias_of: end_of_aliases(first, name) }
}

fn end_of_aliases(first: &hickory_proto::rr::Name, last: &hickory_proto::rr::Name) -> Option<Name> {
    if first == last { None } else { Name::host(last) }
}

/// The least of the SOA's TTL and its minimum; without a SOA not to be kept (RFC 2308 §5).
fn negative_ttl(message: &Message) -> u32 {
    let ttl = message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        Some(seconds(record.ttl).min(seconds(soa.minimum)))
    });
    ttl.unwrap_or(0)
}

const fn seconds(ttl: u32) -> u32 {
    if ttl > TTL_MAX { 0 } else { ttl }
}

fn records(kind: Kind, records: &[&Record]) -> Option<Records> {
    let data = records.iter().map(|record| &record.data);
    Some(match kind {
        Kind::A | Kind::Aaaa => Records::Addresses(some(data.filter_map(RData::ip_addr))?),
        Kind::Mx => {
            let mut exchanges = some(data.filter_map(exchange))?;
            exchanges.sort_by_key(|exchange| exchange.preference);
            // A null MX stands alone; beside others it says nothing (RFC 7505 §3).
            if exchanges.iter().any(|e| e.host != ExchangeHost::Null) {
                exchanges.retain(|e| e.host != ExchangeHost::Null);
            } else {
                exchanges.truncate(1);
            }
            Records::Exchanges(exchanges)
        }
        Kind::Ptr | Kind::Cname => Records::Names(some(data.filter_map(pointer))?),
        Kind::Txt => Records::Texts(some(data.filter_map(text))?),
        Kind::Tlsa => Records::Tlsa(some(data.filter_map(tlsa))?),
    })
}

fn some<T: PartialEq>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    (!found.is_empty()).then_some(found)
}

fn exchange(data: &RData) -> Option<Exchange> {
    let RData::MX(mx) = data else { return None };
    let host = if mx.exchange.is_root() {
        ExchangeHost::Null
    } else {
        Name::host(&mx.exchange).map_or(ExchangeHost::Malformed, ExchangeHost::Name)
    };
    Some(Exchange { preference: mx.preference, host })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all records two name a host")]
fn pointer(data: &RData) -> Option<Name> {
    match data {
        RData::PTR(pointer) => Name::host(&pointer.0),
        RData::CNAME(alias) => Name::host(&alias.0),
        _ => None,
    }
}

fn text(data: &RData) -> Option<Box<[u8]>> {
    let RData::TXT(text) = data else { return None };
    Some(text.txt_data.concat().into())
}

fn tlsa(data: &RData) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = data else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.as_slice().into(),
    })
}

#[cfg(test)]
#[path = "answer_test.rs"]
mod test;
