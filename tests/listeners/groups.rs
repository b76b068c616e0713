//! Keys that are agreed on with ML-KEM (draft-ietf-tls-ecdhe-mlkem), both sides, with one that knows nothing else: the
//! openssl of the other tests does not know it.

#![expect(clippy::disallowed_types, reason = "a client of the server under test, and a next hop")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use end_to_end::{Place, Server, until};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::Acceptor,
};

const NAME: &str = "mx.ringpost.test";

/// Knows one group.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    assert_eq!(provider.kx_groups.len(), 1);
    Arc::new(provider)
}

fn chain(place: &Place) -> Vec<CertificateDer<'static>> {
    let chain = CertificateDer::pem_file_iter(place.join("certificate.pem")).unwrap();
    chain.map(|certificate| certificate.unwrap()).collect()
}

#[test]
fn a_client_that_knows_nothing_else() {
    let server = Server::start("");
    let mut roots = RootCertStore::empty();
    chain(server.place()).into_iter().for_each(|own| roots.add(own).unwrap());
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(server.smtps()).unwrap();
    let mut lines = BufReader::new(StreamOwned::new(connection, stream));
    let mut greeting = String::new();
    lines.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("220 "), "{greeting}");
    lines.get_mut().write_all(b"QUIT\r\n").unwrap();
    let group = lines.get_ref().conn.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

/// A next hop takes one message, under TLS. Answers the groups that its client offered, in that order, and whether all was
/// agreed on at the first try.
fn next_hop(listener: &TcpListener, place: &Place) -> (Vec<NamedGroup>, HandshakeKind) {
    let key = PrivateKeyDer::from_pem_file(place.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(place), key)
        .unwrap();
    let mut clear = BufReader::new(listener.accept().unwrap().0);
    clear.get_mut().write_all(b"220 hop.test\r\n").unwrap();
    for answer in ["250-hop.test\r\n250 STARTTLS\r\n", "220 go ahead\r\n"] {
        clear.read_line(&mut String::new()).unwrap();
        clear.get_mut().write_all(answer.as_bytes()).unwrap();
    }
    let mut stream = clear.into_inner();
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut stream).unwrap();
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).unwrap() {
            break accepted;
        }
    };
    let offered = accepted.client_hello().named_groups().unwrap().to_vec();
    let connection: ServerConnection = accepted.into_connection(Arc::new(config)).map_err(|e| e.0).unwrap();
    let mut lines = BufReader::new(StreamOwned::new(connection, stream));
    let mut data = false;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let answer = match line.trim_end() {
            "." => "250 taken",
            _ if data => continue,
            "DATA" => "354 go",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        data = answer.starts_with("354");
        lines.get_mut().write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        if line.starts_with("QUIT") {
            return (offered, lines.get_ref().conn.handshake_kind().unwrap());
        }
    }
}

#[test]
fn a_next_hop_that_knows_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = Server::start(&format!(
        "[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\n\
         tls = \"required\"\nidle = \"0s\"\n"
    ));
    let (offered, kind) = thread::scope(|scope| {
        let hop = scope.spawn(|| next_hop(&listener, server.place()));
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
        hop.join().unwrap()
    });
    assert_eq!(offered[0], NamedGroup::X25519MLKEM768, "{offered:?}");
    assert!(offered.contains(&NamedGroup::X25519), "{offered:?}");
    // Its share of the key came with the first words: nothing had to be asked for again.
    assert_eq!(kind, HandshakeKind::Full);
    let outcome = server.event("outcome", |_| true);
    assert_eq!(outcome["result"], "delivered", "{outcome}");
    assert!(outcome["tls"].as_str().unwrap().starts_with("TLSv1.3 "), "{outcome}");
    until("the queue is empty", || server.queue_json(&["list"]).is_empty().then_some(()));
}
