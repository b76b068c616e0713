//! Challenges of any octets to a login: no panic, no secret said twice or to the wrong question, and no yes without a proof.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sasl::{Binding, BindingType, ChannelBinding, Credentials, Exchange, Mechanism, Response, Secret};

fuzz_target!(|input: &[u8]| {
    // Which mechanism; then what the server says, a line for each challenge.
    let Some((first, rest)) = input.split_first() else { return };
    let mechanism = Mechanism::ALL[usize::from(*first) % Mechanism::ALL.len()];
    let secret = match mechanism {
        Mechanism::XOAuth2 => Secret::Token("pencil".into()),
        Mechanism::ScramSha256Plus
        | Mechanism::ScramSha1Plus
        | Mechanism::ScramSha256
        | Mechanism::ScramSha1
        | Mechanism::Plain
        | Mechanism::Login => Secret::Password("pencil".into()),
    };
    let credentials = Credentials::new("user", secret).expect("fine credentials");
    let channel = ChannelBinding::new(BindingType::TlsExporter, *b"octets");
    let binding = if mechanism.is_bound() { Binding::To(&channel) } else { Binding::NotOffered };
    let (mut exchange, _) = Exchange::begin(mechanism, &credentials, "nonce", binding);
    let is_scram = mechanism.name().starts_with("SCRAM");
    assert!(!is_scram || exchange.on_success().is_err(), "a yes without a word");
    for challenge in rest.split(|byte| *byte == b'\n') {
        let said = match exchange.on_challenge(challenge) {
            Ok(Response::Send(said)) => said,
            Ok(Response::Derive(derivation)) => {
                // What a server may ask of us takes too long to be tried often.
                if challenge.windows(7).any(|window| window == b",i=4096") {
                    exchange.on_derived(&derivation.derive())
                } else {
                    return;
                }
            }
            Err(_) => return,
        };
        if is_scram {
            assert!(!said.windows(6).any(|window| window == b"pencil"), "the password is said");
            // The proof of the server is a hash that nobody finds.
            assert!(exchange.on_success().is_err(), "a yes without a proof");
        }
    }
});
