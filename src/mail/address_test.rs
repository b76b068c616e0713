//! Addresses, good and bad.

use super::*;

fn check(text: &str, expected: Result<(&str, &str), AddressError>) {
    let address = Address::parse(text.as_bytes());
    let halves = address.as_ref().map(|a| (a.local_part().as_str(), a.domain_str())).map_err(|e| *e);
    assert_eq!(halves, expected, "{text}");
}

#[test]
fn addresses_as_people_have_them() {
    check("ann@example.org", Ok(("ann", "example.org")));
    check("Ann.Lee+x@EXAMPLE.org", Ok(("Ann.Lee+x", "example.org")));
    check("\"a b\\\"c\"@example.org", Ok(("\"a b\\\"c\"", "example.org")));
    check("\"\"@example.org", Ok(("\"\"", "example.org")));
    check("bob@[192.0.2.1]", Ok(("bob", "[192.0.2.1]")));
    check("bob@[IPv6:2001:db8::1]", Ok(("bob", "[ipv6:2001:db8::1]")));
    check("bob@localhost", Ok(("bob", "localhost")));
    check("jörg@bücher.example", Ok(("jörg", "bücher.example")));
    check("a@host_name.example", Ok(("a", "host_name.example")));
    // Senders that keep a recipient's address in their own: 64 octets are what must be taken, not what may.
    let (long, longest) = ("bounce+".repeat(11), "b".repeat(242));
    check(&format!("{long}@example.org"), Ok((&long, "example.org")));
    check(&format!("{longest}@example.org"), Ok((&longest, "example.org")));
}

#[test]
fn addresses_nobody_has() {
    use AddressError::{Domain, DomainMissing, LocalPart, TooLong};
    check("", Err(LocalPart));
    check("ann", Err(DomainMissing));
    check("@example.org", Err(LocalPart));
    check(".ann@example.org", Err(LocalPart));
    check("a..b@example.org", Err(LocalPart));
    check("ann.@example.org", Err(LocalPart));
    check("a b@example.org", Err(LocalPart));
    check("\"ann@example.org", Err(LocalPart));
    check("\"a\"b@example.org", Err(LocalPart));
    check("ann@", Err(Domain));
    check("ann@example..org", Err(Domain));
    check("ann@example.org.", Err(Domain));
    check("ann@-x.org", Err(Domain));
    check("ann@[1.2.3]", Err(Domain));
    check("ann@[IPv6:1]", Err(Domain));
    check("ann@exa mple.org", Err(Domain));
    check("ann@a@b", Err(Domain));
    check(&format!("{}@example.org", "a".repeat(243)), Err(TooLong));
    check(&format!("a@{}.org", "b".repeat(64)), Err(Domain));
    check(&format!("{}@{}", "a".repeat(64), "b.".repeat(100) + "org"), Err(TooLong));
    assert_eq!(Address::parse(b"\xff@example.org"), Err(AddressError::Encoding));
    assert_eq!(Address::parse(b"a\0b@example.org"), Err(LocalPart));
}

#[test]
fn an_address_at_a_domain() {
    let domain = super::Domain::parse("Example.ORG").unwrap();
    assert_eq!(Address::new("postmaster", &domain).unwrap().as_str(), "postmaster@example.org");
    assert_eq!(Address::new("a@b", &domain), Err(AddressError::LocalPart));
}

#[test]
fn literals_are_addresses_of_hosts() {
    let literal = |text: &str| super::Domain::parse(text).unwrap().literal();
    assert_eq!(literal("[192.0.2.1]"), "192.0.2.1".parse().ok());
    assert_eq!(literal("[IPv6:2001:db8::1]"), "2001:db8::1".parse().ok());
    assert_eq!(literal("[tag:x]"), None);
    assert_eq!(literal("example.org"), None);
}
