//! Answers of DNS servers: no bytes may panic, whatever was asked.
#![no_main]

use dns::{Kind, LetterCase, Name, Question, ResolvConf, decode_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The id is copied, so that what follows it is looked at.
    let id = input.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let name = Name::parse("example.org").expect("a sound name");
    for kind in [Kind::A, Kind::Aaaa, Kind::Mx, Kind::Ptr, Kind::Txt, Kind::Cname, Kind::Tlsa] {
        let question = Question { name: name.clone(), kind };
        let _ = decode_answer(input, id, &question, LetterCase::Lower);
    }
    let _ = ResolvConf::parse(input);
    let _ = std::str::from_utf8(input).map(Name::parse);
});
