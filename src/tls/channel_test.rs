//! Both ends of a channel against each other.

use super::*;
use crate::{
    Authentication, Authorities, Certificates, Public, ServerOptions, Tickets, client_config, self_signed,
    server_config,
};

struct World {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn names() -> Vec<String> {
    vec!["mx.example".into()]
}

fn world(version_min: Version) -> World {
    let (chain, key) = self_signed(&names()).unwrap();
    let certificates = Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    World {
        server: server_config(
            certificates,
            &ServerOptions { version_min, ..ServerOptions::default() },
            &Tickets::new().unwrap(),
        )
        .unwrap(),
        client: client_config(Authentication::Opportunistic, version_min, 32).unwrap(),
    }
}

/// One side with what it received in clear.
struct Side {
    channel: Channel,
    received: Vec<u8>,
}

impl Side {
    fn feed(&mut self, bytes: &[u8]) -> Result<Progress, TlsError> {
        let received = &mut self.received;
        self.channel.feed(bytes, &mut |plaintext| received.extend_from_slice(plaintext))
    }

    fn output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.channel.take_output(&mut output);
        assert_eq!(self.channel.output_len(), 0);
        output
    }
}

struct Pair {
    client: Side,
    server: Side,
}

impl Pair {
    fn new(world: &World) -> Self {
        let side = |channel| Side { channel, received: Vec::new() };
        Self {
            client: side(Channel::client(&world.client, "mx.example.").unwrap()),
            server: side(Channel::server(&world.server).unwrap()),
        }
    }

    /// Carries bytes both ways in pieces of `piece` octets until nobody has any.
    fn carry(&mut self, piece: usize) -> Result<(), TlsError> {
        loop {
            let (up, down) = (self.client.output(), self.server.output());
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
            for bytes in up.chunks(piece) {
                self.server.feed(bytes)?;
            }
            for bytes in down.chunks(piece) {
                self.client.feed(bytes)?;
            }
        }
    }

    fn connected(world: &World, piece: usize) -> Self {
        let mut pair = Self::new(world);
        pair.carry(piece).unwrap();
        assert!(
            pair.client.channel.progress().handshake_done && pair.server.channel.progress().handshake_done
        );
        pair
    }
}

/// The older version, as a peer speaks it that has no other.
fn tls12_client() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(crate::settings::test_verifier())
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn handshake_and_words_both_ways() {
    for piece in [1, 7, 500, 100_000] {
        let mut pair = Pair::new(&world(Version::Tls12));
        // A server with implicit TLS greets before it knows whether the handshake will end.
        pair.server.channel.write(b"220 mx.example ESMTP\r\n").unwrap();
        pair.carry(piece).unwrap();
        assert_eq!(pair.client.received, b"220 mx.example ESMTP\r\n");
        pair.client.channel.write(b"EHLO client.example\r\n").unwrap();
        pair.carry(piece).unwrap();
        assert_eq!(pair.server.received, b"EHLO client.example\r\n");
        assert_eq!(pair.client.received, b"220 mx.example ESMTP\r\n", "the greeting came once");

        let session = pair.server.channel.session().unwrap();
        assert_eq!(session.version, Version::Tls13);
        assert!(session.cipher_suite.starts_with("TLS_AES_"), "{}", session.cipher_suite);
        assert_eq!(session.group, Some("X25519MLKEM768"));
        assert_eq!(session.server_name.as_deref(), Some("mx.example"));
        assert!(!session.resumed);
        assert_eq!(pair.client.channel.peer_certificates().len(), 1);
    }
}

#[test]
fn several_megabytes_in_odd_pieces() {
    let mut pair = Pair::connected(&world(Version::Tls12), 1000);
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut rest = data.as_slice();
    for length in [1, 16_383, 16_384, 16_385, 70_001, 1_000_003].into_iter().cycle() {
        let (part, behind) = rest.split_at(rest.len().min(length));
        pair.client.channel.write_slices(part.chunks(4097)).unwrap();
        pair.server.channel.write(part).unwrap();
        pair.carry(9973).unwrap();
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    assert!(pair.server.received == data, "what the server received differs");
    assert!(pair.client.received == data, "what the client received differs");
}

#[test]
fn an_idle_channel_holds_no_buffer() {
    let mut pair = Pair::connected(&world(Version::Tls12), 1000);
    pair.client.channel.write(&[b'x'; 100_000]).unwrap();
    pair.carry(5000).unwrap();
    for side in [&pair.client, &pair.server] {
        let channel = &side.channel;
        let held = channel.incoming.capacity() + channel.outgoing.capacity() + channel.early.capacity();
        assert_eq!(held, 0);
    }
    assert!(size_of::<Channel>() <= 256);
}

#[test]
fn slices_share_records() {
    let mut pair = Pair::connected(&world(Version::Tls12), 1000);
    pair.client.channel.write_slices(std::iter::repeat_n(&b"a line\r\n"[..], 1000)).unwrap();
    assert!(pair.client.channel.output_len() < 8000 + 100);
    pair.carry(1000).unwrap();
    assert_eq!(pair.server.received, b"a line\r\n".repeat(1000));
}

#[test]
fn a_session_is_taken_up_again() {
    let world = world(Version::Tls12);
    for resumed in [false, true, true] {
        let mut pair = Pair::connected(&world, 1000);
        // The ticket comes with the server's first words.
        pair.server.channel.write(b"220 hello\r\n").unwrap();
        pair.carry(1000).unwrap();
        assert_eq!(pair.client.channel.session().unwrap().resumed, resumed);
        assert_eq!(pair.server.channel.session().unwrap().resumed, resumed);
        assert_eq!(pair.server.channel.session().unwrap().server_name.as_deref(), Some("mx.example"));
    }
}

#[test]
fn the_older_version_still_works() {
    let world = World { client: tls12_client(), ..world(Version::Tls12) };
    for resumed in [false, true] {
        let mut pair = Pair::connected(&world, 333);
        pair.client.channel.write(&[b'x'; 40_000]).unwrap();
        pair.carry(333).unwrap();
        assert_eq!(pair.server.received.len(), 40_000);
        let session = pair.server.channel.session().unwrap();
        assert_eq!((session.version, session.resumed), (Version::Tls12, resumed));
        assert!(session.cipher_suite.starts_with("TLS_ECDHE_"), "{}", session.cipher_suite);
        // In a session that is taken up again too, it is the server's certificate that it is known by.
        let certificate = &pair.client.channel.peer_certificates()[0];
        let known = crate::server_end_point(certificate).map(Binding::ServerEndPoint);
        assert!(known.is_some());
        assert_eq!((pair.client.channel.binding(), pair.server.channel.binding()), (known, None));
    }

    let mut pair = Pair::new(&World { client: world.client, ..self::world(Version::Tls13) });
    let refused = pair.carry(1000);
    assert!(matches!(refused, Err(TlsError::Incompatible(_))), "{refused:?}");
    // The alert reaches the client.
    let alert = pair.server.output();
    assert_eq!(pair.client.feed(&alert), Err(TlsError::Alert(AlertDescription::ProtocolVersion)));
}

#[test]
fn verified_means_verified() {
    let (chain, key) = self_signed(&names()).unwrap();
    let certificates = Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let server = server_config(certificates, &ServerOptions::default(), &Tickets::new().unwrap()).unwrap();

    let mut authorities = Authorities::of(Public::Believed);
    let client = client_config(Authentication::Authorities(&authorities), Version::Tls12, 32).unwrap();
    let mut pair = Pair::new(&World { server: Arc::clone(&server), client });
    assert!(matches!(pair.carry(1000), Err(TlsError::Certificate(_))));
    let alert = pair.client.output();
    assert!(matches!(pair.server.feed(&alert), Err(TlsError::Alert(_))));

    // Its own issuer, once that is believed.
    authorities.add(std::path::Path::new("own.pem"), chain.as_bytes()).unwrap();
    let client = client_config(Authentication::Authorities(&authorities), Version::Tls12, 32).unwrap();
    Pair::connected(&World { server: Arc::clone(&server), client: Arc::clone(&client) }, 1000);
    let wrong_name =
        Side { channel: Channel::client(&client, "other.example").unwrap(), received: Vec::new() };
    let mut pair = Pair::new(&World { server, client });
    pair.client = wrong_name;
    assert!(matches!(pair.carry(1000), Err(TlsError::Certificate(_))));
}

#[test]
fn the_end_is_told() {
    let mut pair = Pair::connected(&world(Version::Tls12), 1000);
    pair.client.channel.write(b"QUIT\r\n").unwrap();
    pair.client.channel.close_notify();
    let bytes = pair.client.output();
    let progress = pair.server.feed(&bytes).unwrap();
    assert_eq!(progress, Progress { handshake_done: true, peer_closed: true });
    assert_eq!(pair.server.received, b"QUIT\r\n");
    // What comes behind it is ignored, however much it is; the other direction is still open.
    for _ in 0..20 {
        pair.server.feed(&[23; 20_000]).unwrap();
    }
    assert_eq!(pair.server.channel.incoming.capacity(), 0);
    pair.server.channel.write(b"221 bye\r\n").unwrap();
    pair.server.channel.close_notify();
    pair.carry(1000).unwrap();
    assert_eq!(pair.client.received, b"221 bye\r\n");
    assert!(pair.client.channel.progress().peer_closed);
}

#[test]
fn bytes_that_are_no_tls() {
    let world = world(Version::Tls12);
    let mut pair = Pair::new(&world);
    assert_eq!(pair.server.feed(b"EHLO client.example\r\n"), Err(TlsError::NotTls));
    assert_eq!(pair.server.channel.write(b"x"), Err(TlsError::NotTls));
    assert_eq!(pair.server.feed(b"QUIT\r\n"), Err(TlsError::NotTls));
    pair.server.channel.close_notify();
    assert_eq!(pair.client.feed(b"220 mx.example ESMTP\r\n"), Err(TlsError::NotTls));
    assert_eq!(Channel::client(&world.client, "not a host").err(), Some(TlsError::ServerName));
    assert!(Channel::client(&world.client, "192.0.2.1").is_ok());
}

#[test]
fn a_changed_record_ends_the_connection() {
    let mut pair = Pair::connected(&world(Version::Tls12), 1000);
    pair.client.channel.write(b"MAIL FROM:<>\r\n").unwrap();
    let mut bytes = pair.client.output();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(pair.server.feed(&bytes), Err(TlsError::Protocol(Error::DecryptError)));
    assert!(pair.server.received.is_empty());
    let alert = pair.server.output();
    assert_eq!(pair.client.feed(&alert), Err(TlsError::Alert(AlertDescription::BadRecordMac)));
}

#[test]
fn bounds_before_the_handshake_ends() {
    let world = world(Version::Tls12);
    let mut pair = Pair::new(&world);
    let full = vec![0; EARLY_MAX];
    pair.server.channel.write(&full).unwrap();
    assert_eq!(pair.server.channel.write(b"x"), Err(TlsError::TooMuch));

    // A handshake message of 64 KiB that never ends, in records of one octet each.
    let mut pair = Pair::new(&world);
    pair.server.feed(&[22, 3, 1, 0, 4, 1, 0, 255, 255]).unwrap();
    let records = [22, 3, 1, 0, 1, 0].repeat(65_000);
    let outcome = records.chunks(4000).try_for_each(|bytes| pair.server.feed(bytes).map(drop));
    assert!(outcome.is_err());
    assert_eq!(pair.server.channel.incoming.capacity(), 0);
}

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn no_bytes_panic() {
    let world = world(Version::Tls12);
    let hello = Pair::new(&world).client.output();
    for seed in 1..300 {
        let mut random = Random(seed);
        let mut pair = Pair::new(&world);
        // Noise, or a handshake with some bytes changed.
        let noise: Vec<u8> = (0..random.next() % 400).map(|_| random.next() as u8).collect();
        drop(pair.server.feed(&noise));
        drop(pair.client.feed(&noise));
        let mut pair = Pair::new(&world);
        let mut bytes = hello.clone();
        for _ in 0..1 + random.next() % 4 {
            let at = random.next() as usize % bytes.len();
            bytes[at] = random.next() as u8;
        }
        drop(pair.server.feed(&bytes));
        let mut bytes = pair.server.output();
        if !bytes.is_empty() {
            let at = random.next() as usize % bytes.len();
            bytes[at] ^= 1 << (random.next() % 8);
        }
        drop(pair.client.feed(&bytes));
    }
}

#[test]
fn suites_and_groups_are_those_of_the_options() {
    let (chain, key) = self_signed(&names()).unwrap();
    let certificates = Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let client = client_config(Authentication::Opportunistic, Version::Tls12, 32).unwrap();
    let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let with = |suites: &[&str], groups: &[&str]| {
        let options =
            ServerOptions { suites: strings(suites), groups: strings(groups), ..ServerOptions::default() };
        server_config(certificates.clone(), &options, &Tickets::new().unwrap())
    };
    for (suite, group, version) in [
        ("TLS_CHACHA20_POLY1305_SHA256", "x25519", Version::Tls13),
        ("TLS_AES_128_GCM_SHA256", "secp384r1", Version::Tls13),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "secp256r1", Version::Tls12),
    ] {
        let world = World { server: with(&[suite], &[group]).unwrap(), client: client.clone() };
        let session = Pair::connected(&world, 1000).server.channel.session().unwrap();
        assert_eq!((session.version, session.cipher_suite), (version, suite));
        assert!(session.group.is_some_and(|found| found.eq_ignore_ascii_case(group)), "{session:?}");
    }
    assert_eq!(
        with(&["TLS_RSA_WITH_RC4_128_SHA"], &[]).unwrap_err().to_string(),
        "there is no cipher suite or group `TLS_RSA_WITH_RC4_128_SHA`"
    );
    assert!(with(&[], &["ffdhe2048"]).is_err());
}
