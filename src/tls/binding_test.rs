//! The same as rustls makes it for the other end; certificates of all kinds, and octets that are none.

use std::{io::Read as _, sync::Arc};

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::ServerConnection;

use super::*;
use crate::{Authentication, Channel, ServerOptions, Tickets, Version, client_config, server_config};

/// What a client has, and what rustls exports at the other end of the same connection.
fn both_ends(version_min: Version) -> (Option<Binding>, Exported) {
    let (chain, key) = crate::self_signed(&["mx.example".to_owned()]).unwrap();
    let certificates = crate::Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let options = ServerOptions { version_min, ..ServerOptions::default() };
    let server = server_config(Arc::new(certificates), &options, &Tickets::new().unwrap()).unwrap();
    let client = client_config(Authentication::Opportunistic, version_min, 8).unwrap();
    let mut client = Channel::client(&client, "mx.example").unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    assert_eq!(client.binding(), None, "before the handshake");
    while !client.progress().handshake_done || server.is_handshaking() {
        let mut sent = Vec::new();
        client.take_output(&mut sent);
        server.read_tls(&mut sent.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        client.feed(&answer, &mut |_| ()).unwrap();
    }
    assert!(server.reader().read(&mut [0]).is_err(), "nobody has said anything");
    (client.binding(), server.export_keying_material([0; 32], LABEL, Some(b"")).unwrap())
}

#[test]
fn the_other_end_exports_the_same() {
    let (client, server) = both_ends(Version::Tls13);
    assert_eq!(client, Some(Binding::Exporter(server)));
    let (client, another) = both_ends(Version::Tls13);
    assert_eq!(client, Some(Binding::Exporter(another)));
    assert_ne!(server, another, "each connection has its own");
    assert_eq!(take_exported(), None, "nothing is left of it on the thread");
}

#[test]
fn certificates_are_hashed_as_they_were_for_their_signature() {
    let check = |algorithm: &'static SignatureAlgorithm, hash: Option<&'static digest::Algorithm>| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            CertificateParams::new(["mx.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der();
        let expected = hash.map(|hash| digest::digest(hash, der).as_ref().into());
        assert_eq!(server_end_point(der), expected, "{algorithm:?}");
        for length in 0..der.len() {
            // What is cut off says nothing, or the same; and nothing panics.
            let _ = server_end_point(&der[..length]);
        }
    };
    check(&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256));
    check(&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384));
    check(&rcgen::PKCS_RSA_SHA256, Some(&digest::SHA256));
    check(&rcgen::PKCS_RSA_SHA512, Some(&digest::SHA512));
    // No hash of its own: not defined.
    check(&rcgen::PKCS_ED25519, None);
}

#[test]
fn certificates_by_hand() {
    let tlv = |kind: u8, contents: &[u8]| [&[kind, u8::try_from(contents.len()).unwrap()], contents].concat();
    let check = |parameters: &[u8], hash: Option<&'static digest::Algorithm>| {
        let algorithm = [tlv(OBJECT_IDENTIFIER, RSASSA_PSS), parameters.to_vec()].concat();
        let signed =
            [tlv(SEQUENCE, b"to be signed"), tlv(SEQUENCE, &algorithm), tlv(3, b"signature")].concat();
        let certificate = tlv(SEQUENCE, &signed);
        let expected = hash.map(|hash| digest::digest(hash, &certificate).as_ref().into());
        assert_eq!(server_end_point(&certificate), expected, "{parameters:?}");
    };
    let by = |name: &[u8]| tlv(SEQUENCE, &tlv(CONTEXT_0, &tlv(SEQUENCE, &tlv(OBJECT_IDENTIFIER, name))));
    for (name, hash) in HASHES {
        check(&by(name), Some(hash));
    }
    // SHA-1 where nothing is said.
    check(&tlv(SEQUENCE, &[]), Some(&digest::SHA256));
    check(&by(b"another"), None);
    check(&[], None);
    // A length of too many octets, of none, and one that goes beyond the end.
    for odd in
        [&[0x30, 0x85, 1, 1, 1, 1, 1][..], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30]]
    {
        assert_eq!(server_end_point(odd), None, "{odd:?}");
    }
}
