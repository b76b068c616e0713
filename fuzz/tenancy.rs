//! What tenants' recipients and operators write: links, lines of lists, names of lists, counts of quotas. Reading ends, and what was
//! read is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::Timestamp;
use tenancy::{EntryLine, Links, LogLine, Quotas, UsedText};

fuzz_target!(|input: &[u8]| {
    if let Some(line) = message::field(input, "X-Campaign").and_then(|value| message::one_line(value, 128)) {
        assert!(!line.is_empty() && line.len() <= 128 && !line.chars().any(char::is_control));
    }
    if let Some(value) = message::field(input, "List-Id")
        && let Some(name) = message::list_name(value, 200)
    {
        assert!(!name.is_empty() && name.len() <= 200 && !name.chars().any(char::is_control));
    }
    let text = String::from_utf8_lossy(input);
    // A sum that fits is not found by chance.
    let sealed = format!("{:08x} {text}", crc32c::crc32c(text.as_bytes()));
    if let Ok(line) = LogLine::parse(sealed.as_bytes()) {
        let mut out = Vec::new();
        line.write_to(&mut out);
        assert!(out.len() <= LogLine::LEN_MAX);
        // A name that is longer than one may be is cut.
        let again = LogLine::parse(&out[..out.len() - 1]).expect("a line of ours");
        assert_eq!(again.0.whom(), line.0.whom());
    }
    if let Ok(Some(line)) = EntryLine::parse(&text) {
        let again = EntryLine::parse(&line.to_string()).expect("a line of ours").expect("an entry");
        assert_eq!((again.whom, again.reason), (line.whom, line.reason));
    }
    let links = Links::new("https://example.org/u", ["a secret of some length"]);
    assert!(links.open(&text).is_err(), "nobody else can make one");
    let now = Timestamp::from_secs(1_764_387_000);
    let quotas = Quotas::default();
    quotas.take_over(&UsedText(text.clone().into_owned()), now);
    quotas.set_others([&UsedText(text.into_owned())], now);
    let told = quotas.to_text(now);
    let again = Quotas::default();
    again.take_over(&told, now);
    assert_eq!(again.to_text(now), told);
});
