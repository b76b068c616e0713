//! An authority of a test's own, and the certificates that it issues, by openssl.

use std::path::PathBuf;

use end_to_end::{Place, run, tool};

/// An authority, and the certificate of a host with these names.
pub(crate) struct Authority {
    place: Place,
}

impl Authority {
    pub(crate) fn new(names: &[&str]) -> Self {
        let place = Place::new();
        let authority = Self { place };
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=test-authority -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign -keyout ca-key.pem -out ca.pem");
        authority.issue("host", names);
        let read = |file: &str| std::fs::read_to_string(authority.place.join(file)).unwrap();
        let chain = format!("{}{}{}", read("host-key.pem"), read("host.pem"), read("ca.pem"));
        authority.place.write("chain.pem", chain);
        authority
    }

    /// Issues a certificate: `NAME.pem` and `NAME-key.pem`.
    pub(crate) fn issue(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let alternatives: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let extensions = self
            .place
            .write(&format!("{name}.ext"), format!("subjectAltName = {}\n", alternatives.join(",")));
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}-key.pem -out {name}.csr"));
        let extensions = extensions.display();
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 365 -extfile {extensions} -out {name}.pem"));
        (self.place.join(&format!("{name}.pem")), self.place.join(&format!("{name}-key.pem")))
    }

    /// The key and the certificates of the host, the authority's own among them.
    pub(crate) fn chain(&self) -> PathBuf {
        self.place.join("chain.pem")
    }

    /// The certificate of the authority itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.place.join("ca.pem")
    }

    /// The SHA2-256 of a certificate's key, as a TLSA record with selector 1 and matching type 1 has it.
    pub(crate) fn key_digest(&self, name: &str) -> String {
        self.openssl(&format!("x509 -in {name}.pem -pubkey -noout -out {name}.pub"));
        self.openssl(&format!("pkey -pubin -in {name}.pub -outform DER -out {name}.spki"));
        let digest = self.openssl(&format!("dgst -sha256 -r {name}.spki"));
        digest.split(' ').next().unwrap().to_owned()
    }

    /// The SHA2-512 of a certificate: selector 0, matching type 2.
    pub(crate) fn digest(&self, name: &str) -> String {
        self.openssl(&format!("x509 -in {name}.pem -outform DER -out {name}.der"));
        let digest = self.openssl(&format!("dgst -sha512 -r {name}.der"));
        digest.split(' ').next().unwrap().to_owned()
    }

    fn openssl(&self, arguments: &str) -> String {
        // Names of files are those in our own place.
        let place = |word: &str| {
            let is_file = [".pem", ".csr", ".pub", ".spki", ".der"].iter().any(|end| word.ends_with(end));
            if is_file { self.place.join(word).display().to_string() } else { word.to_owned() }
        };
        let arguments: Vec<String> = arguments.split(' ').map(place).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&tool("openssl"), &arguments, "").good().stdout
    }
}
