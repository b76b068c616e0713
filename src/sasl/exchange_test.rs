//! The exchanges of the RFCs, and what servers should not say.

use super::*;
use crate::{BindingType, ChannelBinding};

fn password(user: &str, password: &str) -> Credentials {
    Credentials::new(user, Secret::Password(password.into())).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// The server's final message, and what it is good for.
fn scram(
    mechanism: Mechanism,
    nonce: &str,
    first: &str,
    challenge: &str,
    last: &str,
) -> (Exchange, Result<Response, ExchangeError>) {
    let (mut exchange, initial) =
        Exchange::begin(mechanism, &password("user", "pencil"), nonce, Binding::None);
    assert_eq!(text(initial.unwrap()), first);
    assert_eq!(exchange.on_success(), Err(ExchangeError::NotProven), "a yes that comes too early");
    let Ok(Response::Derive(derivation)) = exchange.on_challenge(challenge.as_bytes()) else {
        panic!("the challenge asks for a proof")
    };
    assert!(!format!("{derivation:?} {exchange:?}").contains("pencil"));
    let proof = text(exchange.on_derived(&derivation.derive()));
    assert_eq!(exchange.on_success(), Err(ExchangeError::NotProven), "a yes without a proof");
    let (message, verifier) = last.split_once(' ').unwrap();
    assert_eq!(proof, message);
    let result = exchange.on_challenge(verifier.as_bytes());
    (exchange, result)
}

#[test]
fn the_exchange_of_rfc_5802() {
    let (exchange, result) = scram(
        Mechanism::ScramSha1,
        "fyko+d2lbbFgONRv9qkxdawL",
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts= \
         v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    );
    assert_eq!((result, exchange.on_success()), (Ok(Response::Send(Vec::new())), Ok(())));
}

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const CHALLENGE: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const PROOF: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

#[test]
fn the_exchange_of_rfc_7677() {
    let verifier = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let (exchange, result) =
        scram(Mechanism::ScramSha256, NONCE, FIRST, CHALLENGE, &format!("{PROOF} {verifier}"));
    assert_eq!((result, exchange.on_success()), (Ok(Response::Send(Vec::new())), Ok(())));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    for (verifier, expected) in [
        ("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ExchangeError::NotProven),
        ("v=", ExchangeError::NotProven),
        ("v=?", ExchangeError::Syntax),
        ("", ExchangeError::Syntax),
        ("x=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ExchangeError::Syntax),
        ("e=invalid-proof", ExchangeError::Server("invalid-proof".into())),
    ] {
        let (exchange, result) =
            scram(Mechanism::ScramSha256, NONCE, FIRST, CHALLENGE, &format!("{PROOF} {verifier}"));
        assert_eq!(result, Err(expected), "{verifier}");
        assert_eq!(exchange.on_success(), Err(ExchangeError::NotProven), "{verifier}");
    }
}

fn begun(nonce: &str) -> Exchange {
    Exchange::begin(Mechanism::ScramSha256, &password("user", "pencil"), nonce, Binding::None).0
}

/// What an independent implementation (Python's hmac and hashlib, by the letter of RFC 5802 §3) makes of these.
#[test]
fn exchanges_that_are_tied_to_a_channel() {
    let check = |(mechanism, binding), header: &str, (bound, proof): (&str, &str), verifier: &str| {
        let (mut exchange, initial) = Exchange::begin(mechanism, &password("user", "pencil"), NONCE, binding);
        assert_eq!(text(initial.unwrap()), FIRST.replace("n,,", header));
        let Ok(Response::Derive(derivation)) = exchange.on_challenge(CHALLENGE.as_bytes()) else {
            panic!("the challenge asks for a proof")
        };
        let (nonce, _) = CHALLENGE.split_once(",s=").unwrap();
        assert_eq!(text(exchange.on_derived(&derivation.derive())), format!("{bound},{nonce},p={proof}"));
        assert_eq!(exchange.on_challenge(verifier.as_bytes()), Ok(Response::Send(Vec::new())));
        assert_eq!(exchange.on_success(), Ok(()));
    };
    let octets: Vec<u8> = (0..32).collect();
    let exporter = ChannelBinding::new(BindingType::TlsExporter, octets.clone());
    let end_point = ChannelBinding::new(BindingType::TlsServerEndPoint, octets);
    assert!(!format!("{exporter:?}").contains("31"), "{exporter:?}");
    check(
        (Mechanism::ScramSha256Plus, Binding::To(&exporter)),
        "p=tls-exporter,,",
        (
            "c=cD10bHMtZXhwb3J0ZXIsLAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            "QC6CS20quADQRb3mT99YUH+n3VJxUvzuK0K0E1Vrs2M=",
        ),
        "v=2GiAgapEppLVlUXbxUDksL3VgYHzuqiK5tR4mhJGgvs=",
    );
    check(
        (Mechanism::ScramSha1Plus, Binding::To(&exporter)),
        "p=tls-exporter,,",
        (
            "c=cD10bHMtZXhwb3J0ZXIsLAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            "/QKgZNBHelOsjZPTvucb5s4VtQE=",
        ),
        "v=tK3UShY5jkJWC9Q52aNEU6Ba6Is=",
    );
    check(
        (Mechanism::ScramSha256Plus, Binding::To(&end_point)),
        "p=tls-server-end-point,,",
        (
            "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "nY1Wus9a+gM2DrbQ1msXFgyhW6KM5ktOxWiU+/P/EGY=",
        ),
        "v=RwppMGddhz/J0lFYaRReBjXcQeNUFP5Qc76Lo5Exrig=",
    );
    check(
        (Mechanism::ScramSha256, Binding::NotOffered),
        "y,,",
        ("c=eSws", "FoqiHTtQEDE8lz1CdaEe3tK4mS+iMDTl77SPyDS53DY="),
        "v=dI4KpiQJwBr1+V+K6U1dA6l6I4I9DUNXWND4pcpRU3U=",
    );
    // Neither side can be told by the other's proof that it was to another channel.
    let refused = "e=channel-bindings-dont-match";
    let mut exchange = begun(NONCE);
    assert_eq!(
        exchange.on_challenge(b"e=unsupported-channel-binding-type"),
        Err(ExchangeError::Server("unsupported-channel-binding-type".into()))
    );
    let (exchange, result) =
        scram(Mechanism::ScramSha256, NONCE, FIRST, CHALLENGE, &format!("{PROOF} {refused}"));
    assert_eq!(result, Err(ExchangeError::Server("channel-bindings-dont-match".into())));
    assert_eq!(exchange.on_success(), Err(ExchangeError::NotProven));
}

#[test]
fn challenges_that_are_none() {
    let check = |challenge: &str, expected: &ExchangeError| {
        let mut exchange = begun("abc");
        assert_eq!(exchange.on_challenge(challenge.as_bytes()).unwrap_err(), *expected, "{challenge}");
    };
    for challenge in [
        "",
        "r=abc,s=QSXC,i=4096",
        "r=xbcd,s=QSXC,i=4096",
        "m=x,r=abcd,s=QSXC,i=4096",
        "s=QSXC,r=abcd,i=4096",
        "r=abcd,s=?,i=4096",
        "r=abcd,s=,i=4096",
        "r=abcd,s=QSXC",
    ] {
        check(challenge, &ExchangeError::Syntax);
    }
    for count in ["1", "4095", "1000001", "99999999999", "+4096", "", "-1", "4096x"] {
        check(&format!("r=abcd,s=QSXC,i={count}"), &ExchangeError::Iterations);
    }
    let mut exchange = begun("abc");
    assert_eq!(exchange.on_challenge(&[0xff]), Err(ExchangeError::Syntax));
    // What comes behind is nothing to us (RFC 5802 §5: extensions).
    assert!(matches!(exchange.on_challenge(b"r=abcd,s=QSXC,i=4096,x=y"), Ok(Response::Derive(_))));
    assert_eq!(exchange.on_challenge(b"r=abcd,s=QSXC,i=4096"), Err(ExchangeError::Syntax), "twice");
}

#[test]
fn names_are_written_so_that_no_comma_ends_them() {
    let (_, initial) = Exchange::begin(Mechanism::ScramSha1, &password("a=b,c", "x"), "n", Binding::None);
    assert_eq!(text(initial.unwrap()), "n,,n=a=3Db=2Cc,r=n");
}

#[test]
fn passwords_as_they_are() {
    let known = password("ann", "pencil");
    let (mut exchange, initial) = Exchange::begin(Mechanism::Plain, &known, "", Binding::None);
    assert_eq!(initial.unwrap(), b"\0ann\0pencil");
    assert_eq!(exchange.on_success(), Ok(()));
    assert_eq!(exchange.on_challenge(b""), Err(ExchangeError::Syntax));

    let (mut exchange, initial) = Exchange::begin(Mechanism::Login, &known, "", Binding::None);
    assert_eq!(initial, None);
    assert_eq!(exchange.on_success(), Err(ExchangeError::Syntax));
    assert_eq!(exchange.on_challenge(b"Username:"), Ok(Response::Send(b"ann".into())));
    assert_eq!(exchange.on_challenge(b"Password:"), Ok(Response::Send(b"pencil".into())));
    assert_eq!(exchange.on_success(), Ok(()));
    assert_eq!(exchange.on_challenge(b"And:"), Err(ExchangeError::Syntax));
}

#[test]
fn tokens_and_what_is_wrong_with_them() {
    let known = Credentials::new("ann@example.org", Secret::Token("ya29.x".into())).unwrap();
    let (mut exchange, initial) = Exchange::begin(Mechanism::XOAuth2, &known, "", Binding::None);
    assert_eq!(initial.unwrap(), b"user=ann@example.org\x01auth=Bearer ya29.x\x01\x01");
    assert_eq!(exchange.complaint(), None);
    let said = b"{\"status\":\"400\",\n\"scope\":\"mail\"}";
    assert_eq!(exchange.on_challenge(said), Ok(Response::Send(Vec::new())));
    assert_eq!(exchange.complaint(), Some("{\"status\":\"400\",\"scope\":\"mail\"}"));
    assert_eq!(exchange.on_challenge(said), Err(ExchangeError::Syntax));
}
