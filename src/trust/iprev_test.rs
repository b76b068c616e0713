//! RFC 8601 §2.7.3 and §3.

use super::*;
use crate::zone::Zone;

fn judge(zone: &str, address: &str, expected: IprevResult, name: Option<&str>) {
    let address = address.parse().unwrap();
    let (iprev, _, _) = Zone::parse(zone).run(|facts| check(facts, &Limits::default(), address));
    assert_eq!(iprev.result, expected, "{zone}");
    assert_eq!(iprev.name.as_ref().map(Name::as_str), name, "{zone}");
}

#[test]
fn an_address_and_its_names() {
    let one = "192.0.2.1 PTR x.example";
    judge(&format!("{one}\nx.example A 192.0.2.1"), "192.0.2.1", IprevResult::Pass, Some("x.example"));
    judge(&format!("{one}\nx.example A 192.0.2.2"), "192.0.2.1", IprevResult::Fail, None);
    judge(&format!("{one}\nx.example AAAA 2001:db8::1"), "192.0.2.1", IprevResult::Fail, None);
    judge(one, "192.0.2.1", IprevResult::Fail, None);
    judge("", "192.0.2.1", IprevResult::PermError, None);
    judge("192.0.2.1 TXT x", "192.0.2.1", IprevResult::PermError, None);
    judge("192.0.2.1 TIMEOUT", "192.0.2.1", IprevResult::TempError, None);
    judge(&format!("{one}\nx.example TIMEOUT"), "192.0.2.1", IprevResult::TempError, None);
    let six = "2001:db8::1 PTR x.example\nx.example AAAA 2001:db8::1";
    judge(six, "2001:db8::1", IprevResult::Pass, Some("x.example"));
}

#[test]
fn several_names() {
    let names = |n: usize, good: usize| {
        let name = |i| {
            let address = if i == good { "192.0.2.1" } else { "192.0.2.9" };
            format!("192.0.2.1 PTR x{i}.example\nx{i}.example A {address}\n")
        };
        (0..n).map(name).collect::<String>()
    };
    judge(&names(3, 2), "192.0.2.1", IprevResult::Pass, Some("x2.example"));
    judge(&names(20, 9), "192.0.2.1", IprevResult::Pass, Some("x9.example"));
    judge(&names(20, 10), "192.0.2.1", IprevResult::Fail, None);
    // One that is not known leaves it open, unless another one settles it.
    let open = "192.0.2.1 PTR x.example\n192.0.2.1 PTR y.example\nx.example TIMEOUT\n";
    judge(&format!("{open}y.example A 192.0.2.9"), "192.0.2.1", IprevResult::TempError, None);
    judge(&format!("{open}y.example A 192.0.2.1"), "192.0.2.1", IprevResult::Pass, Some("y.example"));
}
