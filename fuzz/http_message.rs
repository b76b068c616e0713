//! A request's JSON, and whole messages: no panic, and what was understood can be made into a message.

#![no_main]

use inject::decode::{Limits, compose_all, request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = request(input, Limits { messages_max: 20, values_max: 2000 }) {
        for message in compose_all(&request).into_iter().flatten() {
            assert!(!message.is_empty());
        }
    }
});
