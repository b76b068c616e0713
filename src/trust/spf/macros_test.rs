//! The examples of RFC 7208 §7.4, and what is no macro.

use super::*;

fn expand(text: &str, address: &str, place: Place) -> Result<String, SyntaxError> {
    let variables = Variables {
        local_part: "strong-bad",
        sender_domain: "email.example.com",
        domain: "email.example.com",
        address: address.parse().unwrap(),
        helo: "mail.example.com",
        receiver: "mx.example",
        time: 1_234_567_890,
    };
    Ok(MacroText::parse(text, place)?.expand(&variables, "mx.example.org"))
}

fn check(text: &str, expected: &str) {
    assert_eq!(expand(text, "192.0.2.3", Place::Record).as_deref(), Ok(expected), "{text}");
}

#[test]
fn the_examples_of_the_rfc() {
    for (text, expected) in [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
    ] {
        check(text, expected);
    }
    let ip6 = expand("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01", Place::Record).unwrap();
    assert_eq!(
        ip6.to_lowercase(),
        "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
    );
}

#[test]
fn what_else_stands_for_something() {
    check("%{h}|%{p}", "mail.example.com|mx.example.org");
    check("%%%_%-", "% %20");
    // Upper case is escaped as in a URL (RFC 7208 §7.3).
    check("%{S}", "strong-bad%40email.example.com");
    check("%{d99999999999999999999999}", "email.example.com");
    check("%{d2R}", "example.email");
    // Several delimiters part at each; what remains is joined by dots (RFC 7208 §7.3).
    check("%{sr-.+}", "com.example.bad@email.strong");
    let explained = |text| expand(text, "2001:db8::1", Place::Explanation);
    assert_eq!(
        explained("%{c} was refused by %{r} at %{t}").as_deref(),
        Ok("2001:db8::1 was refused by mx.example at 1234567890")
    );
}

#[test]
fn what_is_no_macro() {
    for text in [
        "%", "%x", "%(d)", "%{", "%{}", "%{d", "%{x}", "%{a}", "%{d0}", "%{d00}", "%{dr2}", "%{d-r}",
        "%{d@}", "%{ d}", "a b", "a\tb", "ä", "%{c}", "%{r}", "%{t}",
    ] {
        assert_eq!(expand(text, "192.0.2.3", Place::Record), Err(SyntaxError), "{text}");
    }
    for text in ["a\r\nb", "a\u{e4}", "\0"] {
        assert_eq!(expand(text, "192.0.2.3", Place::Explanation), Err(SyntaxError), "{text}");
    }
}
