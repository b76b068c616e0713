//! The choices of protocol: versions, key exchange, whom we believe.
//!
//! One provider does all cryptography (aws-lc-rs). Key exchange begins with X25519MLKEM768, so that what is
//! recorded today stays secret from the machines of tomorrow; TLS 1.2 is the least we speak (RFC 8996).

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, Ticketer},
    },
    server::{NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    Authorities, Certificates, ClientCertificates, Dane, Identity, binding::Exporter, channel::iana_name,
    credentials::Asking, dane::ByRecords,
};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

/// What a client asks of a server's certificate.
#[derive(Clone, Copy, Debug)]
pub enum Authentication<'a> {
    /// Nothing: whatever it shows is better than sending in clear (RFC 7435).
    Opportunistic,
    /// Issued for the name by one of these.
    Authorities(&'a Authorities),
    /// As the TLSA records of the server want it.
    Records(&'a Dane),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A suite or group that there is not.
    #[error("there is no cipher suite or group `{0}`")]
    Unknown(String),
    /// The provider refuses.
    #[error("the cryptographic provider failed: {0}")]
    Provider(#[from] Error),
}

/// Makes aws-lc-rs the provider of the whole process. Call it first thing; a second call changes nothing.
pub fn install_provider() {
    // An error here says that a provider is already in place.
    drop(aws_lc_rs::default_provider().install_default());
}

/// What a server speaks.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The oldest version.
    pub version_min: Version,
    /// The cipher suites by their registered names. Empty: all there are.
    pub suites: Vec<String>,
    /// The key exchange groups by their registered names. Empty: the usual ones.
    pub groups: Vec<String>,
    /// Whether clients are asked for a certificate.
    pub clients: ClientCertificates,
}

/// The keys that sessions are resumed by: they change every six hours, and whoever holds these has the same. Each way to
/// treat clients' certificates has its own, so that nobody gets in by a session that began without one.
#[derive(Clone, Debug)]
pub struct Tickets {
    not_asked: Arc<dyn ProducesTickets>,
    asked: Arc<dyn ProducesTickets>,
    required: Arc<dyn ProducesTickets>,
}

impl Tickets {
    /// New keys.
    ///
    /// # Errors
    /// [`SettingsError::Provider`] when the system has no random numbers.
    pub fn new() -> Result<Self, SettingsError> {
        let [not_asked, asked, required] = [Ticketer::new()?, Ticketer::new()?, Ticketer::new()?];
        Ok(Self { not_asked, asked, required })
    }

    fn of(&self, clients: &ClientCertificates) -> Arc<dyn ProducesTickets> {
        match clients {
            ClientCertificates::NotAskedFor => self.not_asked.clone(),
            ClientCertificates::AskedFor => self.asked.clone(),
            ClientCertificates::Required(_) => self.required.clone(),
        }
    }
}

/// What our servers speak. One for all cores: their tickets are then good on each of them.
///
/// Sessions are resumed by tickets alone, so the server keeps nothing for a client that went away. A client that has shown a
/// certificate has it in its ticket: what that is worth is to be judged anew.
///
/// # Errors
/// [`SettingsError`] when a name is unknown, or no suite is for any of the versions.
pub fn server_config(
    certificates: Arc<Certificates>,
    options: &ServerOptions,
    tickets: &Tickets,
) -> Result<Arc<ServerConfig>, SettingsError> {
    let provider = Arc::new(chosen(options)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(options.version_min))?;
    let builder = match Asking::new(&options.clients, provider) {
        Some(asking) => builder.with_client_cert_verifier(Arc::new(asking)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.ticketer = tickets.of(&options.clients);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One ticket: a client that resumes gets another, and few open several connections at once.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// What our clients speak; at most `sessions_max` servers' sessions are kept for resumption.
///
/// Make one for each core, for the cache of sessions has a lock. Sessions never cross from one
/// configuration to another, so an unverified one is never resumed where a verified one is asked for.
///
/// # Errors
/// [`SettingsError::Provider`] when the provider does not know a version.
pub fn client_config(
    authentication: Authentication<'_>,
    version_min: Version,
    sessions_max: usize,
) -> Result<Arc<ClientConfig>, SettingsError> {
    client_config_as(None, authentication, version_min, sessions_max)
}

/// As [`client_config`], for a client that shows this certificate to servers that ask for one.
///
/// # Errors
/// Likewise.
pub fn client_config_as(
    identity: Option<&Identity>,
    authentication: Authentication<'_>,
    version_min: Version,
    sessions_max: usize,
) -> Result<Arc<ClientConfig>, SettingsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(version_min))?;
    let builder = match authentication {
        Authentication::Opportunistic => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        }
        Authentication::Authorities(authorities) => builder.with_root_certificates(authorities.roots.clone()),
        Authentication::Records(dane) => {
            let by_records = Arc::new(ByRecords::new(dane.clone()));
            builder.dangerous().with_custom_certificate_verifier(by_records)
        }
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.resolver())),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(sessions_max);
    config.key_log = Arc::new(Exporter);
    Ok(Arc::new(config))
}

/// The provider with these suites and groups alone, in its own order.
fn chosen(options: &ServerOptions) -> Result<CryptoProvider, SettingsError> {
    let mut provider = aws_lc_rs::default_provider();
    let (suites, groups) = (&provider.cipher_suites, &provider.kx_groups);
    let suite_of = |suite: &SupportedCipherSuite| suite.suite().as_str().map(iana_name);
    let known = |name: &str| suites.iter().any(|suite| suite_of(suite) == Some(name));
    let group_of = |group: &dyn SupportedKxGroup| group.name().as_str();
    let known_group = |name: &str| groups.iter().any(|group| is_group(group_of(*group), name));
    let unknown = options.suites.iter().find(|name| !known(name));
    if let Some(name) = unknown.or_else(|| options.groups.iter().find(|name| !known_group(name))) {
        return Err(SettingsError::Unknown(name.clone()));
    }
    if !options.suites.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| options.suites.iter().any(|name| suite_of(suite) == Some(name)));
    }
    if !options.groups.is_empty() {
        let wanted = |group: Option<&str>| options.groups.iter().any(|name| is_group(group, name));
        provider.kx_groups.retain(|group| wanted(group_of(*group)));
    }
    Ok(provider)
}

/// The registry spells `x25519`, others `X25519`.
fn is_group(group: Option<&str>, name: &str) -> bool {
    group.is_some_and(|group| group.eq_ignore_ascii_case(name))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn versions(version_min: Version) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match version_min {
        Version::Tls12 => &FROM_TLS12,
        Version::Tls13 => &FROM_TLS12[..1],
    }
}

/// Believes everything: opportunistic encryption protects from those who listen, not from those who
/// pretend (RFC 7435 §3). The handshake's signature is not checked either: who could forge it could as well
/// show a certificate of his own.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The verifier that believes everything, for tests that put a configuration together by hand.
#[cfg(test)]
pub(crate) fn test_verifier() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyCertificate { provider: provider() })
}
