//! mail-auth's resolver reaches nobody, without a runtime and without waiting.

use mail_auth::{DnsError, Error};

use super::*;

#[test]
fn the_resolver_has_nobody_to_ask() {
    let judge = Judge::new();
    // These go past every cache. With a server to ask, they would look for a reactor and panic.
    for name in ["example.org.", "a.example.", "example.local."] {
        let texts = at_once(judge.authenticator.txt_raw_lookup(name));
        assert!(matches!(texts, Some(Err(Error::Dns(DnsError::Resolver(_))))), "{name}: {texts:?}");
    }
    let cache = None::<&NoCache<Box<str>, RecordSet<MX>>>;
    let exchanges = at_once(judge.authenticator.mx_lookup("example.org.", cache));
    assert!(matches!(exchanges, Some(Err(Error::Dns(DnsError::Resolver(_))))), "{exchanges:?}");
    let cache = None::<&NoCache<IpAddr, RecordSet<Box<str>>>>;
    let names = at_once(judge.authenticator.ptr_lookup([192, 0, 2, 1].into(), cache));
    assert!(matches!(names, Some(Err(Error::Dns(DnsError::Resolver(_))))), "{names:?}");
}

#[test]
fn what_would_wait_has_no_result() {
    assert_eq!(at_once(std::future::pending::<()>()), None);
    assert_eq!(at_once(std::future::ready(7)), Some(7));
}
