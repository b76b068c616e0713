//! Every usage, selector and matching type, against certificates made here.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

use super::*;

type Der = CertificateDer<'static>;

/// A server's certificate, whoever has issued that, and the authority over both.
struct Chain {
    own: Der,
    intermediate: Der,
    root: Der,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// For this name, until the end of this year.
fn chain(name: &str, year: i32) -> Chain {
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
    let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), key(), &root).unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 12, 31);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let own = params.signed_by(&key(), &intermediate).unwrap();
    let der = |der: &CertificateDer<'_>| der.clone().into_owned();
    Chain {
        own: der(own.der()),
        intermediate: der(intermediate.as_ref().der()),
        root: der(root.as_ref().der()),
    }
}

fn record(holder: Holder, part: Part, form: Form, of: &Der) -> Association {
    let part_of = match part {
        Part::Certificate => of.to_vec(),
        Part::PublicKey => public_key(of).unwrap(),
    };
    let data = match form {
        Form::Full => part_of.into(),
        Form::Sha256 => digest(&SHA256, &part_of).as_ref().into(),
        Form::Sha512 => digest(&SHA512, &part_of).as_ref().into(),
    };
    Association { holder, part, form, data }
}

/// Whether the certificates shown are what the records want, in the year 2030.
fn verify(records: Vec<Association>, names: &[&str], shown: &[&Der]) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(60 * 365 * 86_400));
    let others: Vec<_> = shown[1..].iter().map(|der| (*der).clone()).collect();
    let dane = Dane { records, names: names.iter().map(ToString::to_string).collect() };
    dane.verify(shown[0], &others, now, &provider())
}

const KINDS: [(Part, Form); 6] = [
    (Part::Certificate, Form::Full),
    (Part::Certificate, Form::Sha256),
    (Part::Certificate, Form::Sha512),
    (Part::PublicKey, Form::Full),
    (Part::PublicKey, Form::Sha256),
    (Part::PublicKey, Form::Sha512),
];

#[test]
fn the_servers_own() {
    let (good, other) = (chain("mx.test", 2040), chain("mx.test", 2040));
    // Neither name nor date count (RFC 7672 §3.1.1).
    let old = chain("elsewhere.test", 2020);
    for (part, form) in KINDS {
        for Chain { own, intermediate, .. } in [&good, &old] {
            let wanted = || record(Holder::Server, part, form, own);
            assert_eq!(verify(vec![wanted()], &["mx.test"], &[own]), Ok(()), "{part:?} {form:?}");
            let beside = vec![record(Holder::Server, part, form, &other.own), wanted()];
            assert_eq!(verify(beside, &[], &[own, intermediate]), Ok(()), "{part:?} {form:?}");
            // Somebody else's, and what is shown behind one's own.
            assert!(verify(vec![wanted()], &["mx.test"], &[&other.own]).is_err());
            assert!(verify(vec![wanted()], &["mx.test"], &[&other.own, own]).is_err());
        }
    }
    assert!(verify(Vec::new(), &["mx.test"], &[&good.own]).is_err());
}

#[test]
fn whoever_has_issued_it() {
    let Chain { own, intermediate, root } = &chain("mx.test", 2040);
    let other = chain("mx.test", 2040);
    for (part, form) in KINDS {
        let of = |der: &Der| vec![record(Holder::Authority, part, form, der)];
        let check = |records: Vec<Association>, names: &[&str], shown: &[&Der], is_good: bool| {
            let verified = verify(records, names, shown);
            assert_eq!(verified.is_ok(), is_good, "{part:?} {form:?} {names:?}: {verified:?}");
        };
        check(of(root), &["mx.test"], &[own, intermediate, root], true);
        check(of(intermediate), &["mx.test"], &[own, intermediate], true);
        // Any of the names will do, none of them will not (RFC 7672 §3.2.2).
        check(of(root), &["other.test", "mx.test"], &[own, intermediate, root], true);
        check(of(root), &["other.test"], &[own, intermediate, root], false);
        check(of(root), &[], &[own, intermediate, root], false);
        check(of(root), &["mx.test"], &[own, root], false);
        check(of(&other.root), &["mx.test"], &[own, intermediate, root], false);
        // Shown, but it has not issued this one.
        check(of(&other.intermediate), &["mx.test"], &[own, &other.intermediate], false);
        // The record has all of the authority, or the authority has to be shown (RFC 7671 §5.2.2).
        check(of(root), &["mx.test"], &[own, intermediate], form == Form::Full);
        check(of(intermediate), &["mx.test"], &[own], form == Form::Full);
        // The server's own is no authority's.
        check(of(own), &["mx.test"], &[own, intermediate, root], false);
    }
    let late = chain("mx.test", 2020);
    let records = vec![record(Holder::Authority, Part::PublicKey, Form::Sha256, &late.root)];
    let shown = [&late.own, &late.intermediate, &late.root];
    let expired = verify(records, &["mx.test"], &shown).unwrap_err();
    assert!(
        matches!(expired, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })),
        "{expired:?}"
    );
}

#[test]
fn rubbish_matches_nothing() {
    let Chain { own, intermediate, root } = &chain("mx.test", 2040);
    let rubbish = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    for (part, form) in KINDS {
        for holder in [Holder::Server, Holder::Authority] {
            for data in [
                vec![],
                vec![0x30],
                vec![0x30, 0x84, 0, 0, 0, 0],
                vec![0; 32],
                vec![0; 64],
                root[..100].to_vec(),
            ] {
                let records = vec![Association { holder, part, form, data: data.into() }];
                assert!(verify(records.clone(), &["mx.test", "..", ""], &[own, intermediate, root]).is_err());
                assert!(verify(records, &["mx.test"], &[&rubbish, &rubbish]).is_err());
            }
        }
    }
    for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
        let inner = vec![7; length];
        assert_eq!(sequence(&in_sequence(&inner)), Some(&*inner));
    }
}
