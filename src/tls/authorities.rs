//! The authorities whose word counts for the certificates of others.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::certificates::{CertificateError, read};

/// Authorities that are believed.
#[derive(Clone, Debug)]
pub struct Authorities {
    pub(crate) roots: RootCertStore,
}

/// Whether the authorities that browsers believe are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Public {
    /// They are: Mozilla's list, as of the build.
    Believed,
    /// They are not.
    Ignored,
}

impl Authorities {
    /// These, and those in the files, each of one certificate in PEM or more.
    ///
    /// # Errors
    /// [`CertificateError`] names the file that is not as it should be.
    pub fn load<P: AsRef<Path>>(public: Public, files: &[P]) -> Result<Self, CertificateError> {
        let mut all = Self::of(public);
        for file in files {
            let path = file.as_ref();
            all.add(path, &read(path)?)?;
        }
        Ok(all)
    }

    /// These alone.
    pub fn of(public: Public) -> Self {
        let roots = match public {
            Public::Believed => webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Public::Ignored => Vec::new(),
        };
        Self { roots: RootCertStore { roots } }
    }

    /// Adds those of a text in PEM; the path is for errors.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] and [`CertificateError::NoCertificate`].
    pub fn add(&mut self, path: &Path, pem: &[u8]) -> Result<(), CertificateError> {
        let malformed = |error: rustls_pki_types::pem::Error| CertificateError::Pem {
            path: path.into(),
            reason: error.to_string(),
        };
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(malformed)?;
        // Systems' lists hold a few that no verifier can use; the others count.
        match self.roots.add_parsable_certificates(certificates) {
            (0, 0) => Err(CertificateError::NoCertificate { path: path.into() }),
            (0, _) => Err(CertificateError::Malformed { path: path.into() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn files_add_to_what_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pem = || crate::self_signed(&["ca.example".to_owned()]).unwrap().0;
        let two = path("two.pem", &format!("{}{}", pem(), pem()));
        let public = Authorities::of(Public::Believed).roots.len();
        assert!(public > 50);
        assert_eq!(Authorities::load(Public::Believed, &[&two]).unwrap().roots.len(), public + 2);
        assert_eq!(Authorities::load(Public::Ignored, &[&two]).unwrap().roots.len(), 2);

        let error = |path: &Path| Authorities::load(Public::Believed, &[path]).unwrap_err();
        assert!(matches!(error(&path("empty.pem", "")), CertificateError::NoCertificate { .. }));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(error(&path("odd.pem", odd)), CertificateError::Malformed { .. }));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(error(&path("cut.pem", cut)), CertificateError::Pem { .. }));
        let missing = folder.path().join("missing.pem");
        assert_eq!(error(&missing).file(), Some(&*missing));
    }
}
