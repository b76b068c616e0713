//! When a reply says to come again: whatever it says, no time is believed that is outrageous.

#![no_main]

use std::time::Duration;

use delivery::retry_hint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let Some(time) = retry_hint(&text) else { return };
    assert!((Duration::from_secs(30)..=Duration::from_secs(4 * 3600)).contains(&time), "{time:?}");
    // What stands behind the time is no matter.
    let end = text.floor_char_boundary(900);
    assert_eq!(retry_hint(&format!("{} x", &text[..end])), retry_hint(&format!("{} x y", &text[..end])));
});
