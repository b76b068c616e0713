//! Policies of MTA-STS and the records that announce them: reading ends, and what was read is written and read again.

#![no_main]

use std::sync::Arc;

use delivery::sts::{Kept, Mode, Policies, PoliciesLimits, Policy, record_id};
use dns::Name;
use libfuzzer_sys::fuzz_target;
use mail::Timestamp;

fuzz_target!(|input: &[u8]| {
    if let Some(id) = record_id(&[input]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
    let now = Timestamp::from_secs(1);
    let mut policies = Policies::new(PoliciesLimits { domains_max: 8, ..PoliciesLimits::default() });
    policies.take_text(&String::from_utf8_lossy(input), now);
    let text = policies.to_text(now);
    let mut again = Policies::new(PoliciesLimits::default());
    assert_eq!(again.take_text(&text, now), 0);
    assert_eq!(again.to_text(now), text);
    let Ok(policy) = Policy::parse(input) else { return };
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert_eq!(Policy::parse(policy.to_string().as_bytes()).as_ref(), Ok(&policy));
    let host = Name::parse("mx.example.org").expect("a name");
    let _ = policy.names(&host);
    let kept = Kept { id: "1".into(), policy: Arc::new(policy), since: now };
    policies.keep(host, kept, now);
    assert_eq!(again.take_text(&policies.to_text(now), now), 0);
});
