//! What both ends of a connection know of it, to tie a login to it (RFC 5056).
//!
//! In TLS 1.3 it is keying material of the connection (`tls-exporter`, RFC 9266). rustls gives it out for connections with buffers
//! of its own only, so it is made here (RFC 8446 §7.5) of the secret that is told to whoever logs keys, and that secret is
//! forgotten at once. In TLS 1.2 there is the server's certificate (`tls-server-end-point`, RFC 5929): an exporter
//! is good for this only with the extended master secret, and whether that was agreed on we are not told.

use std::cell::Cell;

use aws_lc_rs::{digest, hkdf};
use rustls::KeyLog;

use crate::der::{CONTEXT_0, OBJECT_IDENTIFIER, SEQUENCE, element};

/// What a connection is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `tls-exporter`.
    Exporter(Exported),
    /// `tls-server-end-point`. It ties to the server if the handshake has shown that it has the key of its certificate.
    ServerEndPoint(Box<[u8]>),
}

/// Keying material.
pub type Exported = [u8; EXPORTED];

/// Octets of it (RFC 9266 §2).
const EXPORTED: usize = 32;
/// What it is for (RFC 9266 §2).
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

thread_local! {
    static EXPORTED_HERE: Cell<Option<Exported>> = const { Cell::new(None) };
}

/// Takes what is to be exported when the handshake ends.
#[derive(Debug)]
pub(crate) struct Exporter;

/// Of the handshake that has just ended on this thread.
pub(crate) fn take_exported() -> Option<Exported> {
    EXPORTED_HERE.take()
}

impl KeyLog for Exporter {
    fn log(&self, _: &str, _: &[u8], secret: &[u8]) {
        EXPORTED_HERE.set(export(secret));
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// `TLS-Exporter(label, "", 32)` (RFC 8446 §7.5).
fn export(secret: &[u8]) -> Option<Exported> {
    // The hash is that of the cipher suite, and the secret as long as it.
    let (hash, algorithm) = match secret.len() {
        32 => (&digest::SHA256, hkdf::HKDF_SHA256),
        48 => (&digest::SHA384, hkdf::HKDF_SHA384),
        _ => return None,
    };
    let nothing = digest::digest(hash, b"");
    let mut derived = vec![0; secret.len()];
    expand((algorithm, secret), LABEL, nothing.as_ref(), &mut derived)?;
    let mut exported = [0; EXPORTED];
    expand((algorithm, &derived), b"exporter", nothing.as_ref(), &mut exported)?;
    Some(exported)
}

/// `HKDF-Expand-Label` (RFC 8446 §7.1).
fn expand(
    (algorithm, secret): (hkdf::Algorithm, &[u8]),
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    let key = hkdf::Prk::new_less_safe(algorithm, secret);
    key.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The hash of a certificate that ties to the server which has shown it; none where it is not defined. Of any octets.
pub fn server_end_point(certificate: &[u8]) -> Option<Box<[u8]>> {
    let hash = hash_of(certificate)?;
    Some(digest::digest(hash, certificate).as_ref().into())
}

/// "If the certificate's signatureAlgorithm uses a single hash function, and that hash function is either MD5 or SHA-1, then use
/// SHA-256", else that one; with none or several it is not defined (RFC 5929 §4.1).
fn hash_of(certificate: &[u8]) -> Option<&'static digest::Algorithm> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature } (RFC 5280 §4.1).
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(outer, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    if name == RSASSA_PSS {
        // RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] DEFAULT sha1, … } (RFC 4055 §3.1).
        let (parameters, _) = element(parameters, SEQUENCE)?;
        let Some((hash, _)) = element(parameters, CONTEXT_0) else { return Some(&digest::SHA256) };
        let (hash, _) = element(hash, SEQUENCE)?;
        let (hash, _) = element(hash, OBJECT_IDENTIFIER)?;
        return HASHES.iter().find(|(name, _)| *name == hash).map(|(_, algorithm)| *algorithm);
    }
    SIGNATURES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

/// 1.2.840.113549.1.1.10.
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// Signature algorithms, and by what is hashed for them.
static SIGNATURES: [(&[u8], &digest::Algorithm); 11] = [
    // 1.2.840.113549.1.1: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512, SHA-224.
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], &digest::SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], &digest::SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], &digest::SHA256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], &digest::SHA384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], &digest::SHA512),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e], &digest::SHA224),
    // 1.2.840.10045.4: ECDSA with SHA-1, SHA-224, SHA-256, SHA-384, SHA-512.
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], &digest::SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01], &digest::SHA224),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], &digest::SHA256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &digest::SHA384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], &digest::SHA512),
];

/// Hashes by their own names.
static HASHES: [(&[u8], &digest::Algorithm); 5] = [
    // 1.3.14.3.2.26: SHA-1.
    (&[0x2b, 0x0e, 0x03, 0x02, 0x1a], &digest::SHA256),
    // 2.16.840.1.101.3.4.2: SHA-256, SHA-384, SHA-512, SHA-224.
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01], &digest::SHA256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02], &digest::SHA384),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03], &digest::SHA512),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04], &digest::SHA224),
];

#[cfg(test)]
#[path = "binding_test.rs"]
mod test;
