//! Clients with and without certificates, and what is made of them.

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::{
    Certificates, Channel, Public, ServerOptions, Tickets, TlsError, Version, self_signed, server_config,
    settings::test_verifier,
};

/// 2026-01-01.
const NOW: Duration = Duration::from_secs(1_767_225_600);

struct Holder {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Holder {
    fn of_its_own() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["client.example".into()]).unwrap().self_signed(&key).unwrap();
        Self { chain: vec![certificate.der().clone()], key }
    }

    fn issued_by(issuer: &Issuer<'_, KeyPair>, purpose: ExtendedKeyUsagePurpose) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["client.example".into()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self { chain: vec![certificate.der().clone()], key }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.chain[0])
    }
}

fn authority() -> (Issuer<'static, KeyPair>, Authorities) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let mut authorities = Authorities::of(Public::Ignored);
    authorities.add(std::path::Path::new("ca.pem"), pem.as_bytes()).unwrap();
    (Issuer::new(params, key), authorities)
}

fn client(holder: Option<&Holder>, version_min: Version) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = match version_min {
        Version::Tls12 => builder.with_protocol_versions(&[&rustls::version::TLS12]),
        Version::Tls13 => builder.with_protocol_versions(&[&rustls::version::TLS13]),
    };
    let builder = builder.unwrap().dangerous().with_custom_certificate_verifier(test_verifier());
    let config = match holder {
        None => builder.with_no_client_auth(),
        Some(Holder { chain, key }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(chain.clone(), key).unwrap()
        }
    };
    Arc::new(config)
}

struct Server {
    config: Arc<rustls::ServerConfig>,
    credentials: Credentials,
}

fn server(clients: ClientCertificates, credentials: &Credentials) -> Server {
    let (chain, key) = self_signed(&["mx.example".into()]).unwrap();
    let certificates = Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let options = ServerOptions { clients, ..ServerOptions::default() };
    let config = server_config(certificates, &options, &Tickets::new().unwrap()).unwrap();
    Server { config, credentials: credentials.clone() }
}

/// What the server saw, and whether the session was resumed.
fn meet(server: &Server, client: &Arc<ClientConfig>) -> Result<(Shown, bool), TlsError> {
    let mut ends = [Channel::client(client, "mx.example").unwrap(), Channel::server(&server.config).unwrap()];
    loop {
        let [mut said, mut answered] = [Vec::new(), Vec::new()];
        ends[0].take_output(&mut said);
        let heard = ends[1].feed(&said, &mut |_| ());
        ends[1].take_output(&mut answered);
        let understood = ends[0].feed(&answered, &mut |_| ());
        heard?;
        understood?;
        if said.is_empty() && answered.is_empty() {
            let resumed = ends[1].session().expect("the handshake is done").resumed;
            return Ok((ends[1].shown(&server.credentials, NOW), resumed));
        }
    }
}

#[test]
fn what_a_client_shows() {
    let (issuer, authorities) = authority();
    let (strange, _) = self::authority();
    let (listed, other) = (Holder::of_its_own(), Holder::of_its_own());
    let issued = Holder::issued_by(&issuer, ExtendedKeyUsagePurpose::ClientAuth);
    let of_a_server = Holder::issued_by(&issuer, ExtendedKeyUsagePurpose::ServerAuth);
    let of_a_stranger = Holder::issued_by(&strange, ExtendedKeyUsagePurpose::ClientAuth);
    let credentials = Credentials::new([listed.fingerprint()], &authorities);
    let asking = server(ClientCertificates::AskedFor, &credentials);
    let requiring = server(ClientCertificates::Required(Arc::new(credentials.clone())), &credentials);
    let silent = server(ClientCertificates::NotAskedFor, &credentials);
    for version in [Version::Tls12, Version::Tls13] {
        for (holder, good) in [
            (&listed, true),
            (&issued, true),
            (&other, false),
            (&of_a_server, false),
            (&of_a_stranger, false),
        ] {
            let fingerprint = holder.fingerprint();
            let shown = if good { Shown::Credential(fingerprint) } else { Shown::Certificate(fingerprint) };
            assert_eq!(meet(&asking, &client(Some(holder), version)), Ok((shown, false)));
            assert_eq!(meet(&requiring, &client(Some(holder), version)).is_ok(), good);
            assert_eq!(meet(&silent, &client(Some(holder), version)), Ok((Shown::Nothing, false)));
        }
        assert_eq!(meet(&asking, &client(None, version)), Ok((Shown::Nothing, false)));
        assert!(meet(&requiring, &client(None, version)).is_err());
        // Nothing is a credential where none is configured.
        let unconfigured = server(ClientCertificates::AskedFor, &Credentials::default());
        let shown = Shown::Certificate(issued.fingerprint());
        assert_eq!(meet(&unconfigured, &client(Some(&issued), version)), Ok((shown, false)));
    }
}

#[test]
fn a_session_that_is_resumed_keeps_its_certificate() {
    let holder = Holder::of_its_own();
    let credentials = Credentials::new([holder.fingerprint()], &Authorities::of(Public::Ignored));
    for version in [Version::Tls12, Version::Tls13] {
        let mut server = server(ClientCertificates::AskedFor, &credentials);
        let client = client(Some(&holder), version);
        assert_eq!(meet(&server, &client), Ok((Shown::Credential(holder.fingerprint()), false)));
        assert_eq!(meet(&server, &client), Ok((Shown::Credential(holder.fingerprint()), true)));
        // What it is worth is judged anew.
        server.credentials = Credentials::default();
        assert_eq!(meet(&server, &client), Ok((Shown::Certificate(holder.fingerprint()), true)));
    }
}

#[test]
fn no_way_in_by_a_session_without_a_certificate() {
    let holder = Holder::of_its_own();
    let credentials = Credentials::new([holder.fingerprint()], &Authorities::of(Public::Ignored));
    let (chain, key) = self_signed(&["mx.example".into()]).unwrap();
    let certificates = Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let tickets = Tickets::new().unwrap();
    let server = |clients| {
        let options = ServerOptions { clients, ..ServerOptions::default() };
        let config = server_config(certificates.clone(), &options, &tickets).unwrap();
        Server { config, credentials: credentials.clone() }
    };
    let (open, closed) = (
        server(ClientCertificates::NotAskedFor),
        server(ClientCertificates::Required(Arc::new(credentials.clone()))),
    );
    for version in [Version::Tls12, Version::Tls13] {
        let client = client(None, version);
        assert_eq!(meet(&open, &client), Ok((Shown::Nothing, false)));
        assert_eq!(meet(&open, &client), Ok((Shown::Nothing, true)));
        assert!(meet(&closed, &client).is_err(), "the ticket of another listener");
    }
    // The keys are the same for a configuration made later.
    let client = client(None, Version::Tls13);
    assert_eq!(meet(&open, &client), Ok((Shown::Nothing, false)));
    assert_eq!(meet(&server(ClientCertificates::NotAskedFor), &client), Ok((Shown::Nothing, true)));
}

#[test]
fn fingerprints_are_those_of_openssl() {
    let fingerprint = Fingerprint::of(&CertificateDer::from_slice(b"abc"));
    assert_eq!(
        fingerprint.to_string(),
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
