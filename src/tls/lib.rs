//! TLS records and certificates; no sockets.
//!
//! A [`Channel`] is one connection's TLS, either side, over plain buffers. [`Certificates`] are what our
//! servers show, exchanged while they run; [`server_config`] and [`client_config`] are the choices of
//! protocol, made once. Files are read here and only when the operator asks: at start and on reload.

mod authorities;
mod binding;
mod certificates;
mod channel;
mod credentials;
mod dane;
mod der;
mod judge;
mod mark;
mod settings;

pub use authorities::{Authorities, Public};
pub use binding::{Binding, Exported, server_end_point};
pub use certificates::{CertificateError, CertificateFiles, Certificates, Identity, self_signed};
pub use channel::{Channel, Flaw, Progress, Session, TlsError};
pub use credentials::{ClientCertificates, Credentials, Fingerprint, Shown};
pub use dane::{Association, Dane, Form, Holder, Part, key_digest};
pub use judge::Judge;
pub use mark::{Mark, MarkError, MarkJudge, logotype_of};
pub use rustls::{ClientConfig, ServerConfig};
pub use settings::{
    Authentication, ServerOptions, SettingsError, Tickets, Version, client_config, client_config_as,
    install_provider, server_config,
};
