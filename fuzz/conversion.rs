//! Content of any octets made into content for hops that take less: what comes of it is what they take, and is not changed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::BodyType;
use message::convert::{Capacity, convert};

fuzz_target!(|input: &[u8]| {
    // From what to what; then the content.
    let Some((first, content)) = input.split_first() else { return };
    let body = if first & 1 == 0 { BodyType::EightBitMime } else { BodyType::BinaryMime };
    let to = if first & 2 == 0 { Capacity::SevenBit } else { Capacity::EightBit };
    let Ok(Some(converted)) = convert(content, body, to) else { return };
    assert!(converted.ends_with(b"\r\n"), "content ends with a line");
    // A few fields for each part, and three octets for one.
    assert!(converted.len() <= content.len() * 64 + 1024, "it grows without bound");
    let again = convert(&converted, body, to).expect("what was converted is content like any other");
    assert_eq!(again, None, "converted twice");
});
