//! mail-auth, and what it wants to have around it.
//!
//! Its functions are async methods of a value that holds a resolver of hickory, and the type of that is fixed
//! (`lib.rs`: `MessageAuthenticator(pub TokioResolver)`). Ours has no servers, reads no file, and is never asked:
//! what is looked up comes from a [`TextCache`](crate::facts::TextCache), which has an answer to everything. Were
//! it asked, it would have nobody to send to (hickory-resolver, `name_server_pool.rs`, `try_send`) and fail, which
//! is a temporary failure. So the futures end when they are first polled.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcOutput, MX, MessageAuthenticator, Parameters, RecordSet,
    ResolverCache, Txt,
    common::cache::NoCache,
    dmarc::verify::DmarcParameters,
    hickory_resolver::{
        TokioResolver,
        config::{ResolveHosts, ResolverConfig, ResolverOpts},
        net::runtime::TokioRuntimeProvider,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::known_keys::KnownKeys;

/// What verdicts are made with: one for each shard, made once.
pub struct Judge {
    authenticator: MessageAuthenticator,
    keys: KnownKeys,
}

/// What mail-auth is told: all its look-ups but those of text records find no cache, and are never made.
pub(crate) type Told<'a, P, T> = Parameters<
    'a,
    P,
    T,
    NoCache<Box<str>, RecordSet<MX>>,
    NoCache<Box<str>, RecordSet<Ipv4Addr>>,
    NoCache<Box<str>, RecordSet<Ipv6Addr>>,
    NoCache<IpAddr, RecordSet<Box<str>>>,
>;

impl Judge {
    /// A judge who asks nobody.
    pub fn new() -> Self {
        // Without one that is given, hickory reads the certificates of the system.
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has what the default versions of TLS need")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        options.attempts = 0;
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let resolver = TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
            .with_options(options)
            .with_tls_config(tls)
            .build()
            .expect("a resolver without servers needs nothing that could be missing");
        Self { authenticator: MessageAuthenticator(resolver), keys: KnownKeys::default() }
    }

    /// The keys of others that it has met.
    pub(crate) const fn keys(&self) -> &KnownKeys {
        &self.keys
    }

    pub(crate) fn verify_dkim<'x, T: ResolverCache<Box<str>, Txt> + 'x>(
        &self,
        told: Told<'x, &'x AuthenticatedMessage<'x>, T>,
    ) -> Vec<DkimOutput<'x>> {
        at_once(self.authenticator.verify_dkim(told)).unwrap_or_default()
    }

    pub(crate) fn verify_dmarc<'x, T: ResolverCache<Box<str>, Txt> + 'x>(
        &self,
        told: Told<'x, DmarcParameters<'x>, T>,
    ) -> Option<DmarcOutput> {
        at_once(self.authenticator.verify_dmarc(told))
    }
}

impl Default for Judge {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}

/// The result of a future that waits for nothing; none if it does wait.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[cfg(test)]
#[path = "judge_test.rs"]
mod test;
