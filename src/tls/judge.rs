//! Whether a certificate would have been good enough, where any is taken.

use std::{sync::Arc, time::Duration};

use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{Authorities, TlsError, settings::provider};

/// Knows whose word counts.
#[derive(Clone, Debug)]
pub struct Judge(Option<Arc<WebPkiServerVerifier>>);

impl Judge {
    /// By these authorities.
    ///
    /// # Panics
    /// Never: there is nothing wrong with authorities that have been read.
    pub fn new(authorities: &Authorities) -> Self {
        let roots = &authorities.roots;
        Self((!roots.is_empty()).then(|| {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider());
            builder.build().expect("it fails without roots and for revocation lists alone")
        }))
    }

    /// Whether a server that shows this chain, its own certificate first, is the one of that name, so long after 1970 began.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(&self, chain: &[CertificateDer<'_>], name: &str, now: Duration) -> Result<(), TlsError> {
        let nobody = || TlsError::Certificate(rustls::CertificateError::UnknownIssuer);
        let (Some(verifier), [own, others @ ..]) = (&self.0, chain) else { return Err(nobody()) };
        let name = ServerName::try_from(name).map_err(|_| TlsError::ServerName)?;
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(own, others, &name, &[], now)?;
        Ok(())
    }
}
