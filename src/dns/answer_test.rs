//! Answers, whole and broken.

use hickory_proto::rr::{
    Name as WireName, RecordType,
    rdata::{A, AAAA, CNAME, MX, PTR, SOA, TLSA, TXT, tlsa},
};

use super::*;
use crate::encode_query;

const ID: u16 = 0x4321;
const CASE: LetterCase = LetterCase::Mixed(0b1011_0110_1101);

fn question(name: &str, kind: Kind) -> Question {
    Question { name: Name::parse(name).unwrap(), kind }
}

fn wire(name: &str) -> WireName {
    WireName::from_ascii(name).unwrap()
}

fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(wire(name), ttl, data)
}

fn mx(preference: u16, host: &str) -> RData {
    RData::MX(MX::new(preference, wire(host)))
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(wire("ns.example."), wire("root.example."), 1, 2, 3, 4, minimum);
    record("example.", ttl, RData::SOA(soa))
}

/// An answer to the question as our query has it.
fn reply(question: &Question, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let query = Message::from_vec(&encode_query(ID, question, CASE, 1232)).unwrap();
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.add_queries(query.queries);
    change(&mut message);
    message.to_vec().unwrap()
}

fn decode(question: &Question, change: impl FnOnce(&mut Message)) -> Result<Answer, AnswerError> {
    decode_answer(&reply(question, change), ID, question, CASE)
}

fn found(question: &Question, records: Vec<Record>) -> (Outcome, u64) {
    let answer = decode(question, |message| {
        message.add_answers(records);
    })
    .unwrap();
    (answer.outcome, answer.ttl.as_secs())
}

fn exchange(preference: u16, host: ExchangeHost) -> Exchange {
    Exchange { preference, host }
}

fn named(host: &str) -> ExchangeHost {
    ExchangeHost::Name(Name::parse(host).unwrap())
}

#[test]
fn the_query_asks_what_it_should() {
    let question = question("Mail.Example.org", Kind::Aaaa);
    let query = Message::from_vec(&encode_query(ID, &question, CASE, 1232)).unwrap();
    assert_eq!((query.metadata.id, query.metadata.message_type), (ID, MessageType::Query));
    assert!(query.metadata.recursion_desired && query.metadata.authentic_data);
    assert_eq!(query.edns.as_ref().map(|edns| edns.max_payload()), Some(1232));
    let [asked] = query.queries.as_slice() else { panic!("one question") };
    assert_eq!(asked.query_type(), RecordType::AAAA);
    assert_eq!(asked.name().to_ascii(), "MaIL.eXAmPLe.Org.");
    let lower = Message::from_vec(&encode_query(1, &question, LetterCase::Lower, 512)).unwrap();
    assert_eq!(lower.queries[0].name().to_ascii(), "mail.example.org.");
}

#[test]
fn records_of_each_kind() {
    let host = question("mx.example", Kind::A);
    let records = vec![record("MX.example.", 300, a("192.0.2.1")), record("mx.example.", 60, a("192.0.2.2"))];
    let addresses = vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
    assert_eq!(found(&host, records), (Outcome::Found(Records::Addresses(addresses)), 60));

    let host = question("mx.example", Kind::Aaaa);
    let records = vec![record("mx.example.", 300, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())))];
    let addresses = vec!["2001:db8::1".parse().unwrap()];
    assert_eq!(found(&host, records), (Outcome::Found(Records::Addresses(addresses)), 300));

    let reverse = Question { name: Name::reverse("192.0.2.1".parse().unwrap()), kind: Kind::Ptr };
    let data = RData::PTR(PTR(wire("MX.example.")));
    let records = vec![record("1.2.0.192.in-addr.arpa.", 9, data)];
    let names = Records::Names(vec![Name::parse("mx.example").unwrap()]);
    assert_eq!(found(&reverse, records), (Outcome::Found(names), 9));

    let text = question("example", Kind::Txt);
    let data = RData::TXT(TXT::new(vec!["v=spf1 ".to_owned(), "-all".to_owned()]));
    let texts = Records::Texts(vec![(*b"v=spf1 -all").into()]);
    assert_eq!(found(&text, vec![record("example.", 9, data)]), (Outcome::Found(texts), 9));

    let service = question("_25._tcp.mx.example", Kind::Tlsa);
    let data = TLSA::new(tlsa::CertUsage::DaneEe, tlsa::Selector::Spki, tlsa::Matching::Sha256, vec![7; 32]);
    let expected = Tlsa { usage: 3, selector: 1, matching: 1, data: [7; 32].into() };
    let records = vec![record("_25._tcp.mx.example.", 9, RData::TLSA(data))];
    assert_eq!(found(&service, records), (Outcome::Found(Records::Tlsa(vec![expected])), 9));
}

#[test]
fn mail_exchanges() {
    let domain = question("example", Kind::Mx);
    let check = |records: Vec<RData>, expected: Vec<Exchange>| {
        let records = records.into_iter().map(|data| record("example.", 60, data)).collect();
        assert_eq!(found(&domain, records), (Outcome::Found(Records::Exchanges(expected)), 60));
    };
    check(
        vec![mx(20, "b.example."), mx(10, "A.Example."), mx(20, "b.example.")],
        vec![exchange(10, named("a.example")), exchange(20, named("b.example"))],
    );
    check(vec![mx(0, ".")], vec![exchange(0, ExchangeHost::Null)]);
    check(vec![mx(0, "."), mx(5, "a.example.")], vec![exchange(5, named("a.example"))]);
    let spaced = WireName::from_labels([&b"a b"[..], b"example"]).unwrap();
    check(vec![RData::MX(MX::new(0, spaced))], vec![exchange(0, ExchangeHost::Malformed)]);
    let null = decode(&domain, |message| {
        message.add_answer(record("example.", 60, mx(0, ".")));
    });
    assert!(null.unwrap().is_null_mx());
}

#[test]
fn aliases_are_followed() {
    let alias = |from: &str, to: &str, ttl| record(from, ttl, RData::CNAME(CNAME(wire(to))));
    let host = question("a.example", Kind::A);
    let address = |name: &str| record(name, 300, a("192.0.2.1"));
    let expected = Outcome::Found(Records::Addresses(vec!["192.0.2.1".parse().unwrap()]));
    let chain = vec![
        address("c.example."),
        alias("b.example.", "C.example.", 40),
        alias("a.example.", "b.example.", 50),
    ];
    assert_eq!(found(&host, chain), (expected, 40));
    // What does not belong to the chain is not looked at.
    assert_eq!(found(&host, vec![address("x.example.")]).0, Outcome::NoData);
    // Where it ends is told, and the alias alone when it is asked for.
    let told = decode(&host, |message| {
        message.add_answer(alias("a.example.", "C.example.", 5)).add_answer(address("c.example."));
    });
    assert_eq!(told.unwrap().alias_of, Some(Name::parse("c.example").unwrap()));
    let plain = decode(&host, |message| {
        message.add_answer(address("A.example."));
    });
    assert_eq!(plain.unwrap().alias_of, None);
    let names = Records::Names(vec![Name::parse("b.example").unwrap()]);
    let asked = question("a.example", Kind::Cname);
    assert_eq!(found(&asked, vec![alias("a.example.", "b.example.", 5)]), (Outcome::Found(names), 5));
    // A circle ends.
    let circle = vec![alias("a.example.", "b.example.", 9), alias("b.example.", "a.example.", 9)];
    assert_eq!(found(&host, circle).0, Outcome::NoData);
    let gone = decode(&host, |message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_answer(alias("a.example.", "b.example.", 5)).add_authority(soa(9, 9));
    });
    assert_eq!(gone.map(|a| (a.outcome, a.ttl.as_secs())), Ok((Outcome::NxDomain, 5)));
}

#[test]
fn absence_and_how_long_it_holds() {
    let domain = question("example", Kind::Mx);
    let absent = |code, authority: Option<Record>| {
        let answer = decode(&domain, |message| {
            message.metadata.response_code = code;
            message.add_authorities(authority);
        });
        answer.map(|answer| (answer.outcome, answer.ttl.as_secs()))
    };
    assert_eq!(absent(ResponseCode::NoError, Some(soa(300, 60))), Ok((Outcome::NoData, 60)));
    assert_eq!(absent(ResponseCode::NXDomain, Some(soa(30, 60))), Ok((Outcome::NxDomain, 30)));
    assert_eq!(absent(ResponseCode::NXDomain, None), Ok((Outcome::NxDomain, 0)));
    // The top bit of a TTL makes it zero (RFC 2181 §8).
    assert_eq!(absent(ResponseCode::NXDomain, Some(soa(1 << 31, 60))), Ok((Outcome::NxDomain, 0)));
    let failed = |failure| Err(AnswerError::Failed(failure));
    assert_eq!(absent(ResponseCode::ServFail, None), failed(Failure::ServerFailure));
    assert_eq!(absent(ResponseCode::Refused, None), failed(Failure::Refused));
    assert_eq!(absent(ResponseCode::NotImp, None), failed(Failure::Refused));
}

#[test]
fn security_is_the_servers_word() {
    let host = question("mx.example", Kind::A);
    let security = |authentic| {
        let answer = decode(&host, |message| {
            message.metadata.authentic_data = authentic;
        });
        answer.unwrap().security
    };
    assert_eq!((security(true), security(false)), (Security::Secure, Security::Unproven));
}

#[test]
fn answers_to_something_else() {
    let host = question("mx.example", Kind::A);
    let foreign = |change: fn(&mut Message)| assert_eq!(decode(&host, change), Err(AnswerError::Foreign));
    foreign(|m| m.metadata.id = 1);
    foreign(|m| m.metadata.message_type = MessageType::Query);
    foreign(|m| m.metadata.op_code = OpCode::Notify);
    foreign(|m| m.queries.clear());
    foreign(|m| m.queries.push(m.queries[0].clone()));
    foreign(|m| _ = m.queries[0].set_query_type(RecordType::MX));
    foreign(|m| _ = m.queries[0].set_query_class(DNSClass::CH));
    foreign(|m| _ = m.queries[0].set_name(wire("my.example.")));
    // The right name in another letter case is a guess.
    foreign(|m| _ = m.queries[0].set_name(wire("mx.example.")));
    assert_eq!(decode_answer(b"", ID, &host, CASE), Err(AnswerError::Foreign));
    assert_eq!(decode_answer(&reply(&host, |_| ())[..9], ID, &host, CASE), Err(AnswerError::Foreign));
}

#[test]
fn answers_that_did_not_fit() {
    let host = question("mx.example", Kind::A);
    assert_eq!(decode(&host, |m| m.metadata.truncation = true), Err(AnswerError::Truncated));
    let whole = reply(&host, |message| {
        message.metadata.truncation = true;
        message.add_answer(record("mx.example.", 1, a("192.0.2.1")));
    });
    assert_eq!(decode_answer(&whole[..whole.len() - 2], ID, &host, CASE), Err(AnswerError::Truncated));
}

#[test]
fn broken_messages_do_not_panic() {
    let domain = question("example", Kind::Mx);
    let whole = reply(&domain, |message| {
        message.add_answer(record("example.", 1, RData::CNAME(CNAME(wire("other.example.")))));
        message.add_answer(record("other.example.", 1, mx(1, "mx.other.example.")));
        message.add_authority(soa(1, 1));
    });
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random() % 4 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        bytes.truncate(if random() % 3 == 0 { random() % bytes.len() } else { bytes.len() });
        drop(decode_answer(&bytes, ID, &domain, CASE));
    }
    // A name that points to itself.
    let mut circle = whole[..12].to_vec();
    circle.extend_from_slice(&[0xc0, 12, 0, 15, 0, 1]);
    assert_eq!(decode_answer(&circle, ID, &domain, CASE), Err(AnswerError::Foreign));
}
