//! What strangers say of themselves, as lists of the DNS are asked for it and as greylisting compares it; and records of the greylist,
//! joined in any order.

#![no_main]

use dns::Name;
use libfuzzer_sys::fuzz_target;
use mail::{Address, ReversePath, Timestamp};
use strangers::{
    DEEDS_RECORD, GREY_PARTS, GREY_RECORD, Greylist, Origin, Reputation, read_deeds, read_grey, write_deeds, write_grey,
};
use trust::{DnsList, ListSubject, Sought, list_inquiries};

const NOW: Timestamp = Timestamp::from_secs(1_764_387_000);

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let (ehlo, sender) = (lines.next(), lines.next().unwrap_or_default());
    let address = Address::parse(sender.as_bytes()).ok();
    let reverse_path = address.clone().map_or(ReversePath::Null, ReversePath::Address);
    let list = DnsList {
        name: "list".into(),
        zone: Name::parse("list.example.org").expect("our own text"),
        subjects: vec![ListSubject::EhloName, ListSubject::SenderDomain, ListSubject::ClientName, ListSubject::Ipv4],
        weight: 1,
        codes: Vec::new(),
        explains: false,
    };
    let client_name = Name::parse(ehlo.unwrap_or_default()).ok();
    let sought = Sought {
        address: Some([127, 0, 0, 1].into()),
        ehlo,
        sender: Some(&reverse_path),
        client_name: client_name.as_ref(),
    };
    for inquiry in list_inquiries([(7, &list)].into_iter(), &sought) {
        let name = inquiry.question.name.as_str();
        assert!(name.ends_with(".list.example.org") && name.len() <= 253, "{name}");
        assert!(!name.contains(['[', ']', ':']) || inquiry.subject == ListSubject::ClientName, "{name}");
    }
    let (one, two) = (Greylist::default(), Greylist::default());
    one.set_entries_max(1024);
    if let Some(address) = &address {
        let key = one.triplet(Origin::Domain(sender), &reverse_path, address);
        assert_eq!(key, one.triplet(Origin::Domain(&sender.to_ascii_uppercase()), &reverse_path, address));
    }
    let mut records = Vec::new();
    for octets in input.chunks_exact(16) {
        // A sum that fits is not found by chance.
        let mut record = octets.to_vec();
        record.extend_from_slice(&crc32c::crc32c(octets).to_be_bytes());
        let record: [u8; GREY_RECORD] = record.try_into().expect("it has 20 octets");
        let (key, slot) = read_grey(&record).expect("its sum fits");
        let mut out = Vec::new();
        write_grey(key, slot, &mut out);
        records.push((key, slot));
    }
    let reputation = Reputation::default();
    reputation.configure(1024, std::time::Duration::from_secs(3_600));
    for octets in input.chunks_exact(22) {
        let mut record = octets.to_vec();
        record.extend_from_slice(&crc32c::crc32c(octets).to_be_bytes());
        let record: [u8; DEEDS_RECORD] = record.try_into().expect("it has 26 octets");
        let (key, deeds) = read_deeds(&record).expect("its sum fits");
        let mut out = Vec::new();
        write_deeds(key, deeds, &mut out);
        assert_eq!(out, record);
        reputation.absorb(key, deeds, NOW);
        if let Some(counts) = reputation.counts(key, NOW) {
            assert!((-9..=9).contains(&counts.weight(1, 9)) && counts.0.iter().all(|count| (0.0..=4096.0).contains(count)));
        }
    }
    for (key, slot) in &records {
        one.absorb(*key, *slot, NOW);
        two.absorb(*key, *slot, NOW);
        two.absorb(*key, *slot, NOW);
    }
    let entries = |greylist: &Greylist| {
        let mut entries: Vec<_> = (0..GREY_PARTS).flat_map(|part| greylist.entries(part)).collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    };
    assert_eq!(entries(&two).len() as u64, two.len());
    if records.len() < 16 {
        assert_eq!(entries(&one), entries(&two), "what is taken twice is taken once");
    }
});
