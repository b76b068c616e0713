//! The choices of protocol: versions, key exchange, whom we believe.
//!
//! One provider does all cryptography (aws-lc-rs). Key exchange begins with X25519MLKEM768, so that what is
//! recorded today stays secret from the machines of tomorrow; TLS 1.2 is the least we speak (RFC 8996).

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{Authorities, Certificates};

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
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The provider refuses.
    #[error("the cryptographic provider failed: {0}")]
    Provider(#[from] Error),
}

/// Makes aws-lc-rs the provider of the whole process. Call it first thing; a second call changes nothing.
pub fn install_provider() {
    // An error here says that a provider is already in place.
    drop(aws_lc_rs::default_provider().install_default());
}

/// What our servers speak. One for all cores: their tickets are then good on each of them.
///
/// Sessions are resumed by tickets alone, under keys that change every six hours, so the server keeps
/// nothing for a client that went away.
///
/// # Errors
/// [`SettingsError::Provider`] when the system has no random numbers.
pub fn server_config(
    certificates: Arc<Certificates>,
    version_min: Version,
) -> Result<Arc<ServerConfig>, SettingsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(version_min))?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
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
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(version_min))?;
    let mut config = match authentication {
        Authentication::Opportunistic => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        }
        Authentication::Authorities(authorities) => builder.with_root_certificates(authorities.roots.clone()),
    }
    .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(sessions_max);
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
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
