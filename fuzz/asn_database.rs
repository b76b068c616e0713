//! Databases of autonomous systems of any octets: they are refused, or they answer, and either comes to an end.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use strangers::Systems;

fuzz_target!(|input: &[u8]| {
    let Ok(systems) = Systems::parse(input.to_vec()) else { return };
    assert!(systems.networks() > 0);
    for octet in [0, 10, 127, 192, 255] {
        let _ = systems.number(IpAddr::from([octet; 4]));
        let _ = systems.number(IpAddr::from([octet; 16]));
    }
});
