//! Whatever comes before a session: a header is found alike in pieces and at once, within its limit, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::{Header, read};

fuzz_target!(|bytes: &[u8]| {
    let (&luck, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let size_max = 107 + 4 * usize::from(luck);
    let whole = read(bytes, size_max);
    // What can be told of a part holds for all that begins with it.
    let first = (0..=bytes.len()).map(|len| read(&bytes[..len], size_max)).find(|found| *found != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole);
    match whole {
        Ok(Some((header, len))) => {
            assert!(len <= bytes.len().min(size_max));
            if let Header::Client(address) = header {
                assert_eq!(address.ip(), address.ip().to_canonical());
            }
        }
        Ok(None) => assert!(bytes.len() < size_max),
        Err(_) => {}
    }
});
