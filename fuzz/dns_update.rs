//! Answers to signed updates of a zone: no octets may panic, and none that are not signed say that something is done. And texts of
//! the DNS where the record of a key is looked for.
#![no_main]

use std::time::Duration;

use dns::{Change, Name, TsigAlgorithm, TsigKey, Update, Updated};
use libfuzzer_sys::fuzz_target;
use mail::Timestamp;
use trust::{Look, Publishing, Rotation, RotationRules, Rotations, Round, Seen};

fuzz_target!(|input: &[u8]| {
    // The id is copied, so that what follows it is looked at.
    let id = input.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let name = Name::parse("example.org").expect("a sound name");
    let key = TsigKey::new(name.clone(), TsigAlgorithm::HmacSha256, b"a secret that nobody knows");
    for key in [None, Some(&key)] {
        let update = Update::new(&name, &name, Change::Remove(&["x"]), key, (id, 0)).expect("a short text");
        let answer = update.on_answer(input, key, 0);
        assert!(key.is_none() || !matches!(answer, Ok(Updated::Done | Updated::OtherThere)));
    }
    let rules = RotationRules {
        every: Duration::from_secs(1),
        settle: Duration::ZERO,
        retire: Duration::ZERO,
        revoke: None,
        overdue: Duration::from_secs(2),
        publishing: Publishing::Hand,
    };
    let mut rotation = Rotation::default();
    for second in 0..3 {
        let now = Timestamp::from_secs(second);
        let sought = rotation.sought(&rules, now, |_, number| format!("s{number}").into(), |_| false);
        let texts = input.split(|octet| *octet == b'|').map(Into::into).collect::<Vec<Box<[u8]>>>();
        let look = if rotation.is_empty() { Look::Absent(Duration::ZERO) } else { Look::Texts(texts) };
        let looks = sought.into_iter().map(|selector| (selector, look.clone())).collect();
        let round = Round { now, elapsed: Duration::from_secs(1), in_force: true, looks: &looks };
        rotation.on_round(&rules, &round, |_, number| format!("s{number}").into());
        let made: Vec<_> = rotation.keys().iter().map(|key| key.selector.clone()).collect();
        made.iter().for_each(|selector| rotation.on_made(selector, "v=DKIM1; p=MCowBQ==", now));
    }
    assert!(rotation.keys().iter().all(|key| match &key.seen {
        Seen::Other(text) => text.chars().count() <= 1_000,
        Seen::Unknown | Seen::Right | Seen::Absent => true,
    }));
    if let Some(rotations) = std::str::from_utf8(input).ok().and_then(|text| Rotations::from_text(text).ok()) {
        assert_eq!(Rotations::from_text(&rotations.to_text()), Ok(rotations));
    }
});
