//! Files of certificates, good and bad.

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn pair(&self, name: &str, own_names: &[&str]) -> CertificateFiles {
        let (chain, key) = self_signed(&names(own_names)).unwrap();
        CertificateFiles {
            chain: self.write(&format!("{name}.crt"), &chain),
            key: self.write(&format!("{name}.key"), &key),
            names: Vec::new(),
        }
    }
}

fn shown(certificates: &Certificates, name: &str) -> Option<Vec<u8>> {
    certificates.set.load().find(name).map(|key| key.cert[0].to_vec())
}

#[test]
fn a_certificate_for_each_name() {
    let folder = Folder::new();
    let one = folder.pair("one", &["mx.example", "*.wild.example"]);
    let two = folder.pair("two", &["mx.example", "two.example"]);
    let three =
        CertificateFiles { names: names(&["Three.Example"]), ..folder.pair("three", &["own.example"]) };
    // What a certificate is named for goes before what stands in another.
    let four = CertificateFiles { names: names(&["four.example"]), ..folder.pair("four", &["x.example"]) };
    let five = folder.pair("five", &["four.example"]);
    let certificates = Certificates::load(&[one, two, three, five, four]).unwrap();

    let default = certificates.set.load().default.cert[0].to_vec();
    assert_eq!(shown(&certificates, "MX.example"), Some(default.clone()));
    assert_eq!(shown(&certificates, "a.wild.example"), Some(default.clone()));
    assert_eq!(shown(&certificates, "a.b.wild.example"), None);
    assert_eq!(shown(&certificates, "wild.example"), None);
    assert!(shown(&certificates, "two.example").is_some_and(|cert| cert != default));
    assert!(shown(&certificates, "three.example").is_some_and(|cert| cert != default));
    assert_eq!(shown(&certificates, "own.example"), shown(&certificates, "three.example"));
    assert_eq!(shown(&certificates, "four.example"), shown(&certificates, "x.example"));
    let all = ["*.wild.example", "four.example", "mx.example", "own.example", "three.example"];
    assert_eq!(certificates.names(), [&all[..], &["two.example", "x.example"]].concat());
}

#[test]
fn a_reload_is_whole_or_not_at_all() {
    let folder = Folder::new();
    let one = folder.pair("one", &["one.example"]);
    let certificates = Certificates::load(std::slice::from_ref(&one)).unwrap();
    let before = shown(&certificates, "one.example");
    let two = folder.pair("two", &["two.example"]);
    let missing = CertificateFiles { chain: "/nowhere".into(), ..one };
    assert!(certificates.reload(&[two.clone(), missing]).is_err());
    assert_eq!(shown(&certificates, "one.example"), before);
    certificates.reload(&[two]).unwrap();
    assert_eq!(shown(&certificates, "one.example"), None);
    assert!(shown(&certificates, "two.example").is_some());
}

#[test]
fn what_is_wrong_is_said() {
    let folder = Folder::new();
    let good = folder.pair("good", &["mx.example"]);
    let check = |chain: &Path, key: &Path, expected: &str| {
        let files = CertificateFiles { chain: chain.into(), key: key.into(), names: Vec::new() };
        let error = Certificates::load(&[files]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nshould say {expected:?}");
    };
    let other = folder.pair("other", &["mx.example"]);
    let empty = folder.write("empty", "");
    let encrypted = folder.write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let cut = folder.write("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let noise = folder.write("noise", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let dsa = folder.write("dsa", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let large = folder.write("large", &"x".repeat(2 << 20));

    check(Path::new("/nowhere/crt"), &good.key, "cannot read /nowhere/crt");
    check(&good.chain, Path::new("/nowhere/key"), "cannot read /nowhere/key");
    check(&empty, &good.key, "empty holds no certificate");
    check(&good.chain, &empty, "empty holds no private key");
    check(&good.key, &good.key, "good.key holds no certificate");
    check(&good.chain, &good.chain, "good.crt holds no private key");
    check(&good.chain, &encrypted, "openssl pkey -in");
    check(&cut, &good.key, "cut is not valid PEM");
    check(&noise, &good.key, "the first certificate in");
    check(&good.chain, &dsa, "unsupported kind");
    check(&good.chain, &other.key, "is not the key of the first certificate");
    check(&large, &good.key, "larger than 1 MiB");
    assert!(matches!(Certificates::load(&[]), Err(CertificateError::Unconfigured)));
    assert!(matches!(self_signed(&names(&["bücher.example"])), Err(CertificateError::Generate(_))));
}
