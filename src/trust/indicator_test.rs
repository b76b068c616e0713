//! Pictures that may be shown, and each thing for which one is refused.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;

const MAX: usize = 32 << 10;
const HEAD: &str =
    r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 8 8">"#;

/// A picture with this within it.
fn with(within: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{HEAD}<title>Us</title>{within}</svg>\n")
}

fn packed(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn check(svg: &str) -> Result<(), IndicatorFlaw> {
    read_indicator(svg.as_bytes(), MAX).map(|_| ())
}

#[test]
fn pictures_that_may_be_shown() {
    for within in [
        "",
        "<desc>Made by us &amp; ours &#x41;</desc><!-- plain -->",
        "<rect width='8' height='8' fill='#fff'/><g transform='scale(2)'><path d='M0 0L4 4z'/></g>",
        "<defs><linearGradient id='a'><stop offset='0' stop-color='red'/></linearGradient></defs>\
         <circle cx='4' cy='4' r='3' fill='url(#a)' stroke=\"url( '#a' )\"/>",
        "<g id='b' xmlns:xlink='http://www.w3.org/1999/xlink'><use xlink:href='#c' href='#c'/></g><path id='c' d='M0 0'/>",
        "<text x='1' y='2' xml:space='preserve'>A<tspan>B</tspan><![CDATA[<c>]]></text>",
    ] {
        let svg = with(within);
        assert_eq!(check(&svg), Ok(()), "{svg}");
        assert_eq!(read_indicator(&packed(svg.as_bytes()), MAX), Ok(svg.clone().into_bytes()));
        let bom = format!("\u{feff}{svg}");
        assert_eq!(check(&bom), Ok(()));
    }
}

#[test]
fn each_thing_that_is_refused_has_its_reason() {
    let refused = |svg: &str, flaw: &str| {
        let error = check(svg).expect_err(svg);
        assert!(error.to_string().starts_with(flaw), "{svg}: {error}");
    };
    for (within, flaw) in [
        ("<script>x</script>", "it has an element that is not allowed: script"),
        ("<SCRIPT/>", "it has an element that is not allowed: SCRIPT"),
        ("<svg:script/>", "it has an element that is not allowed: svg:script"),
        ("<animate attributeName='x'/>", "it has an element that is not allowed: animate"),
        ("<set/>", "it has an element that is not allowed: set"),
        ("<image href='#x'/>", "it has an element that is not allowed: image"),
        ("<foreignObject/>", "it has an element that is not allowed: foreignObject"),
        ("<a/>", "it has an element that is not allowed: a"),
        ("<style>*{}</style>", "it has an element that is not allowed: style"),
        ("<g><svg/></g>", "it has an element that is not allowed: svg"),
        ("<g onload='x'/>", "it has an attribute that is not allowed: onload"),
        ("<g ONclick='x'/>", "it has an attribute that is not allowed: ONclick"),
        ("<g style='fill:red'/>", "it has an attribute that is not allowed: style"),
        ("<g xml:base='https://evil.example/'/>", "it has an attribute that is not allowed: xml:base"),
        ("<g z:href='#x' xmlns:z='x'/>", "it has an attribute that is not allowed: z:href"),
        ("<g xmlns='http://www.w3.org/1999/xhtml'/>", "its namespace"),
        (
            "<use href='https://evil.example/x.svg#a'/>",
            "it refers to what is not within it: https://evil.example",
        ),
        ("<use xlink:href='data:image/svg+xml,x'/>", "it refers to what is not within it: data:"),
        ("<path fill='url(https://evil.example/)'/>", "it refers to what is not within it"),
        ("<path fill='url(#a) URL( \"//evil.example\")'/>", "it refers to what is not within it"),
        ("<path fill='&#117;rl(//evil.example)'/>", "it refers to what is not within it"),
        ("<path fill='u\\72 l(//evil.example)'/>", "it refers to what is not within it"),
        ("<text>&x;</text>", "it has an entity"),
        ("<path d='&x;'/>", "it has an entity"),
        ("<?xml-stylesheet href='x'?>", "it has a processing instruction"),
        ("<g>", "it is no XML"),
        ("</g>", "it is no XML"),
        ("<g a=1/>", "it is no XML"),
        ("<g a='1' a='2'/>", "it is no XML"),
        ("<text>\0</text>", "it is no XML"),
        ("</svg><svg>", "it is no SVG"),
        ("</svg>text<!---->", "it is no"),
    ] {
        refused(&with(within), flaw);
    }
    for (from, to, flaw) in [
        ("tiny-ps", "tiny", "its baseProfile"),
        ("baseProfile=\"tiny-ps\"", "", "its baseProfile"),
        ("version=\"1.2\"", "version=\"1.1\"", "its version"),
        ("http://www.w3.org/2000/svg", "x", "its namespace"),
        ("xmlns=\"http://www.w3.org/2000/svg\"", "", "its namespace"),
        ("viewBox", "x='0' viewBox", "its svg element has a place"),
        ("viewBox", "y='0' viewBox", "its svg element has a place"),
        ("viewBox", "onload='x' viewBox", "it has an attribute that is not allowed: onload"),
        ("<title>Us</title>", "", "it has no title"),
        ("<title>Us</title>", "<title> </title>", "it has no title"),
        ("<title>Us</title>", "<g><title>Us</title></g>", "it has no title"),
        ("<svg", "<!DOCTYPE svg [<!ENTITY x \"y\">]><svg", "it has a document type"),
        ("<svg", "x<svg", "it is no SVG"),
        ("UTF-8", "UTF-7", "it is not in UTF-8"),
        ("UTF-8", "utf-16", "it is not in UTF-8"),
    ] {
        let svg = with("");
        assert!(svg.contains(from), "{from}");
        let whole = svg.replacen(from, to, 1);
        refused(&whole, flaw);
    }
    refused("", "it is no SVG");
    refused("<html/>", "it is no SVG");
    assert_eq!(read_indicator(b"<svg>\xff</svg>", MAX), Err(IndicatorFlaw::Encoding));
    refused(
        &with(&format!("{}{}", "<g>".repeat(DEPTH_MAX), "</g>".repeat(DEPTH_MAX))),
        "its elements are too deep",
    );
}

#[test]
fn parts_that_use_each_other_are_drawn_so_often_and_no_more() {
    // Ten parts, each of which draws the one before ten times.
    let mut parts = "<g id='a0'/>".to_owned();
    for part in 1..10 {
        let before = format!("<use href='#a{}'/>", part - 1);
        parts += &format!("<g id='a{part}'>{}</g>", before.repeat(10));
    }
    assert_eq!(check(&with(&parts)), Err(IndicatorFlaw::Use));
    assert_eq!(check(&with("<g id='a'><use href='#a'/></g>")), Err(IndicatorFlaw::Use));
    assert_eq!(check(&with("<use id='a' href='#b'/><use id='b' href='#a'/>")), Err(IndicatorFlaw::Use));
    let chain: String = (0..40).map(|part| format!("<use id='a{}' href='#a{part}'/>", part + 1)).collect();
    assert_eq!(check(&with(&chain)), Ok(()), "each is drawn once");
    assert_eq!(check(&with(&"<use href='#a'/>".repeat(USES_MAX))), Ok(()));
    assert_eq!(check(&with(&"<use href='#a'/>".repeat(USES_MAX + 1))), Err(IndicatorFlaw::Use));
}

#[test]
fn size_counts_packed_and_unpacked() {
    let svg = with(&" ".repeat(2000));
    let length = svg.len();
    assert!(read_indicator(svg.as_bytes(), length).is_ok());
    assert_eq!(read_indicator(svg.as_bytes(), length - 1), Err(IndicatorFlaw::TooLarge(length - 1)));
    let small = packed(svg.as_bytes());
    assert!(small.len() < length / 4);
    assert!(read_indicator(&small, length).is_ok());
    assert_eq!(read_indicator(&small, length - 1), Err(IndicatorFlaw::TooLarge(length - 1)));
    // A bomb: a megabyte of nothing is a kilobyte.
    assert_eq!(read_indicator(&packed(&vec![b' '; 1 << 20]), MAX), Err(IndicatorFlaw::TooLarge(MAX)));
    for damaged in [&small[..small.len() - 1], &small[..12], &[&small[..], b"x"].concat()] {
        assert_eq!(read_indicator(damaged, MAX), Err(IndicatorFlaw::Archive));
    }
    // What is packed twice is no picture.
    assert_eq!(read_indicator(&packed(&small), MAX), Err(IndicatorFlaw::Encoding));
}

#[test]
fn pictures_of_certificates() {
    let svg = with("");
    let encoded = STANDARD.encode(packed(svg.as_bytes()));
    for url in
        [format!("data:image/svg+xml;base64,{encoded}"), format!("DATA:image/svg+xml+gzip;base64,{encoded}")]
    {
        assert_eq!(read_logotype(&url, MAX), Ok(svg.clone().into_bytes()));
    }
    for url in [
        format!("data:image/svg+xml;base64,{}", STANDARD.encode(&svg)),
        format!("data:image/svg+xml,{svg}"),
        format!("data:image/png;base64,{encoded}"),
        format!("data:image/svg+xml;base64,{encoded}*"),
        "https://example.org/x.svg".to_owned(),
        "dätä:,".to_owned(),
        String::new(),
    ] {
        assert_eq!(read_logotype(&url, MAX), Err(IndicatorFlaw::DataUrl), "{url}");
    }
    let scripted = STANDARD.encode(packed(with("<script/>").as_bytes()));
    let url = format!("data:image/svg+xml;base64,{scripted}");
    assert!(matches!(read_logotype(&url, MAX), Err(IndicatorFlaw::Element(_))));
    assert_eq!(read_logotype(&url, 10), Err(IndicatorFlaw::TooLarge(10)));
}

#[test]
fn the_field_of_a_picture() {
    let svg = with(&"<g/>".repeat(200));
    let text = IndicatorText::new(svg.as_bytes());
    let value = text.field().strip_prefix("BIMI-Indicator: ").unwrap();
    let unfolded: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    assert_eq!(STANDARD.decode(unfolded).unwrap(), svg.as_bytes());
    assert!(text.field().ends_with("\r\n") && !text.field().trim_end().contains("\r\n\r\n"));
    for line in text.field().split("\r\n").filter(|line| !line.is_empty()).skip(1) {
        assert!(line.starts_with('\t') && line.len() <= 78, "{line}");
    }
    assert!(text.field().split("\r\n").next().unwrap().len() <= 90);
    // FIPS 180-4, of "abc": ...f20015ad.
    assert_eq!(IndicatorText::new(b"abc").hash(), "b410ff61f20015ad");
}
