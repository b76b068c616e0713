//! Mark certificates, good and bad, made here.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, CustomExtension,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use super::*;
use crate::Public;

/// Within 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const URL: &str = "data:image/svg+xml;base64,H4sIAAAA";
const LOGOTYPE_ID: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 12];
const TIMESTAMPS_ID: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];

fn der(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[kind, 0x82], &length[..], contents].concat()
}

/// An extension with these pictures of the subject, each at these places.
fn logotype(pictures: &[&[&str]]) -> Vec<u8> {
    let picture = |places: &&[&str]| {
        let places: Vec<u8> = places.iter().flat_map(|place| der(IA5_STRING, place.as_bytes())).collect();
        let hashes = der(SEQUENCE, &der(SEQUENCE, &[]));
        let details = [der(IA5_STRING, b"image/svg+xml"), hashes, der(SEQUENCE, &places)].concat();
        der(SEQUENCE, &der(SEQUENCE, &details))
    };
    let images: Vec<u8> = pictures.iter().flat_map(picture).collect();
    let subject = der(CONTEXT_2, &der(CONTEXT_0, &der(SEQUENCE, &images)));
    der(SEQUENCE, &[der(0xa1, &der(0xa1, &[])), subject].concat())
}

fn purposes() -> Vec<ExtendedKeyUsagePurpose> {
    vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 31])]
}

fn authority(name: &str, purposes: Vec<ExtendedKeyUsagePurpose>) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = purposes;
    params
}

fn mark(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = purposes();
    params.not_before = date_time_ymd(2029, 1, 1);
    params.not_after = date_time_ymd(2031, 1, 1);
    params.custom_extensions = vec![
        CustomExtension::from_oid_content(LOGOTYPE_ID, logotype(&[&[URL]])),
        CustomExtension::from_oid_content(TIMESTAMPS_ID, vec![4, 0]),
    ];
    params
}

/// Two authorities, one of which issues for the other, and who believes the first.
struct House {
    intermediate: CertifiedIssuer<'static, KeyPair>,
    judge: MarkJudge,
}

impl House {
    fn new(purposes: Vec<ExtendedKeyUsagePurpose>) -> Self {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority("root", Vec::new()), key()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(authority("issuer", purposes), key(), &root).unwrap();
        let mut authorities = Authorities::of(Public::Ignored);
        authorities.add("root.pem".as_ref(), root.as_ref().pem().as_bytes()).unwrap();
        Self { intermediate, judge: MarkJudge::new(authorities) }
    }

    fn issue(&self, params: &CertificateParams) -> Certificate {
        params.signed_by(&KeyPair::generate().unwrap(), &self.intermediate).unwrap()
    }

    /// Issues it, and looks at it.
    fn verify(&self, params: &CertificateParams) -> Result<Mark, MarkError> {
        self.read(&[self.issue(params).pem(), self.intermediate.as_ref().pem()].concat())
    }

    fn read(&self, pem: &str) -> Result<Mark, MarkError> {
        self.judge.verify(pem.as_bytes(), NOW, DAY)
    }
}

#[test]
fn what_a_good_certificate_says() {
    let house = House::new(purposes());
    let names = ["Example.org", "brand._bimi.example.org"];
    let found = house.verify(&mark(&names)).unwrap();
    assert_eq!(found.names, ["example.org", "brand._bimi.example.org"]);
    assert_eq!((&*found.logotype, found.good_for), (URL, DAY));
    // The end of it is near.
    let mut params = mark(&names);
    params.not_after = date_time_ymd(2030, 3, 18);
    let end = Duration::from_secs(1_900_022_400);
    let left = house.verify(&params).unwrap().good_for;
    assert!(left <= end - NOW && left > end - NOW - Duration::from_secs(120), "{left:?}");
}

#[test]
fn what_is_not_believed() {
    let house = House::new(purposes());
    let chain = |params: &CertificateParams| match house.verify(params) {
        Err(MarkError::Chain(why)) => why.to_string(),
        other => panic!("{other:?}"),
    };
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = mark(&["example.org"]);
        change(&mut params);
        params
    };
    assert!(chain(&with(|params| params.not_after = date_time_ymd(2030, 1, 1))).contains("CertExpired"));
    assert!(
        chain(&with(|params| params.not_before = date_time_ymd(2030, 12, 1))).contains("CertNotValidYet")
    );
    assert!(chain(&with(|params| params.extended_key_usages.clear())).contains("RequiredEku"));
    let server = with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(chain(&server).contains("RequiredEku"));
    assert!(
        chain(&with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))).contains("CaUsed")
    );
    let critical = with(|params| params.custom_extensions[0].set_criticality(true));
    assert!(chain(&critical).contains("UnsupportedCriticalExtension"));
    // Its issuer is not for this, or not there, or nobody whom we know.
    let other = House::new(Vec::new());
    assert!(matches!(other.verify(&mark(&["example.org"])), Err(MarkError::Chain(_))));
    let alone = house.issue(&mark(&["example.org"])).pem();
    assert!(matches!(house.read(&alone), Err(MarkError::Chain(_))));
    let foreign = House::new(purposes());
    let pem = [foreign.issue(&mark(&["example.org"])).pem(), foreign.intermediate.as_ref().pem()].concat();
    assert!(matches!(house.read(&pem), Err(MarkError::Chain(_))));
    assert!(foreign.read(&pem).is_ok() && foreign.judge.believes_somebody());
    let nobody = MarkJudge::new(Authorities::of(Public::Ignored));
    assert!(!nobody.believes_somebody() && nobody.verify(pem.as_bytes(), NOW, DAY).is_err());
    for (pem, error) in [
        (String::new(), MarkError::Pem),
        ("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n".to_owned(), MarkError::Pem),
        (alone.repeat(CHAIN_MAX + 1), MarkError::Long),
    ] {
        assert_eq!(house.read(&pem), Err(error));
    }
}

#[test]
fn what_a_certificate_has_to_have_beside() {
    let house = House::new(purposes());
    let with = |extensions: &[(&[u64], Vec<u8>)]| {
        let mut params = mark(&["example.org"]);
        let extension =
            |(id, value): &(&[u64], Vec<u8>)| CustomExtension::from_oid_content(id, value.clone());
        params.custom_extensions = extensions.iter().map(extension).collect();
        house.verify(&params)
    };
    let timestamps = (TIMESTAMPS_ID, vec![4, 0]);
    let good = logotype(&[&[URL]]);
    assert!(with(&[(LOGOTYPE_ID, good.clone()), timestamps.clone()]).is_ok());
    assert_eq!(with(&[(LOGOTYPE_ID, good.clone())]), Err(MarkError::Unlogged));
    assert_eq!(with(std::slice::from_ref(&timestamps)), Err(MarkError::Logotype));
    for bad in [
        logotype(&[]),
        logotype(&[&[]]),
        logotype(&[&[URL], &[URL]]),
        logotype(&[&[URL, "https://example.org/x.svg"]]),
        der(SEQUENCE, &[]),
        der(SEQUENCE, &der(0xa1, &[])),
        good[..good.len() - 1].to_vec(),
        vec![SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff],
        vec![4, 0],
    ] {
        let found = with(&[(LOGOTYPE_ID, bad.clone()), timestamps.clone()]);
        assert!(matches!(found, Err(MarkError::Logotype | MarkError::Chain(_))), "{bad:?}: {found:?}");
    }
    assert_eq!(house.verify(&mark(&[])), Err(MarkError::Nameless));
}
