//! BIMI: whether a picture may be shown (SVG Tiny Portable/Secure, draft-svg-tiny-ps-abrotman).
//!
//! Whoever publishes a record chooses these octets, and programs of readers draw them. So what is not known to be harmless is
//! refused, and nothing is mended: elements and what they refer to are those of the profile's schema, nothing outside the picture
//! is referred to, nothing runs and nothing moves, and the same parts are not drawn more often than a bound.

use std::{collections::BTreeMap, io::Read as _};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::bufread::GzDecoder;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

/// Why a picture is none that is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndicatorFlaw {
    /// More octets than there may be, packed or unpacked.
    #[error("it is longer than {0} octets")]
    TooLarge(usize),
    /// It begins as gzip does, and is none, or there is something behind it.
    #[error("it is packed, and damaged")]
    Archive,
    /// It is no UTF-8, or says that it is something else.
    #[error("it is not in UTF-8")]
    Encoding,
    /// It is no XML.
    #[error("it is no XML: {0}")]
    Syntax(Box<str>),
    /// It has a document type, which may define entities.
    #[error("it has a document type")]
    DocType,
    /// It has an entity that XML does not have by itself.
    #[error("it has an entity")]
    Entity,
    /// It has an instruction for programs, which may name a style sheet.
    #[error("it has a processing instruction")]
    Instruction,
    /// Its outermost element is not `svg`, or not the only one.
    #[error("it is no SVG")]
    NoSvg,
    /// The elements are not those of SVG.
    #[error("its namespace is not that of SVG")]
    Namespace,
    /// It does not claim to keep to the profile.
    #[error("its baseProfile is not \"tiny-ps\"")]
    Profile,
    /// It is of another version.
    #[error("its version is not \"1.2\"")]
    Version,
    /// `x` or `y` at the outermost element.
    #[error("its svg element has a place")]
    Place,
    /// It has no title, or an empty one.
    #[error("it has no title")]
    Title,
    /// An element that the profile does not have.
    #[error("it has an element that is not allowed: {0}")]
    Element(Box<str>),
    /// An attribute that the profile does not have.
    #[error("it has an attribute that is not allowed: {0}")]
    Attribute(Box<str>),
    /// It refers to something that is not within it.
    #[error("it refers to what is not within it: {0}")]
    Reference(Box<str>),
    /// Its elements are within each other too deep.
    #[error("its elements are too deep")]
    Deep,
    /// Its parts use each other so often that it takes long to draw it, or for ever.
    #[error("its parts use each other too often")]
    Use,
    /// What a certificate has of a picture is not what it should be.
    #[error("it is no data: URL of an SVG")]
    DataUrl,
}

/// A picture as it is handed on to readers: in base64, folded, with the name of the field before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndicatorText {
    field: Box<str>,
    hash: Box<str>,
}

const SVG: &str = "http://www.w3.org/2000/svg";
/// The elements of the profile's schema, and what text has within it in SVG Tiny 1.2.
const ELEMENTS: [&str; 21] = [
    "circle",
    "defs",
    "desc",
    "ellipse",
    "g",
    "line",
    "linearGradient",
    "path",
    "polygon",
    "polyline",
    "radialGradient",
    "rect",
    "solidColor",
    "stop",
    "svg",
    "tbreak",
    "text",
    "textArea",
    "title",
    "tspan",
    "use",
];
/// Elements within each other.
const DEPTH_MAX: usize = 64;
/// Parts that use others that use others.
const USES_DEEP_MAX: usize = 16;
/// How often anything is drawn because something uses it.
const USES_MAX: usize = 1_000;
/// Characters of what is refused that are told.
const WORD_LEN_MAX: usize = 64;
/// Characters of base64 on a line.
const LINE_LEN: usize = 72;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads a picture as a web server has it, as SVG or packed (SVGZ): its octets, unpacked.
///
/// # Errors
/// [`IndicatorFlaw`].
pub fn read_indicator(octets: &[u8], size_max: usize) -> Result<Vec<u8>, IndicatorFlaw> {
    if octets.len() > size_max {
        return Err(IndicatorFlaw::TooLarge(size_max));
    }
    let unpacked = if octets.starts_with(&GZIP) { unpack(octets, size_max)? } else { octets.to_vec() };
    Picture::check(&unpacked)?;
    Ok(unpacked)
}

/// Reads a picture as a certificate has it: a `data:` URL, in which it is packed (RFC 6170 §5.2).
///
/// # Errors
/// [`IndicatorFlaw`].
pub fn read_logotype(url: &str, size_max: usize) -> Result<Vec<u8>, IndicatorFlaw> {
    let rest = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).map(|_| &url[5..]);
    let (kind, data) = rest.and_then(|rest| rest.split_once(',')).ok_or(IndicatorFlaw::DataUrl)?;
    let kind = kind.strip_suffix(";base64").ok_or(IndicatorFlaw::DataUrl)?;
    if !["image/svg+xml", "image/svg+xml+gzip"].iter().any(|svg| kind.eq_ignore_ascii_case(svg)) {
        return Err(IndicatorFlaw::DataUrl);
    }
    if data.len() / 4 * 3 > size_max {
        return Err(IndicatorFlaw::TooLarge(size_max));
    }
    let octets = STANDARD.decode(data).map_err(|_| IndicatorFlaw::DataUrl)?;
    // "The SVG MUST be compressed".
    if !octets.starts_with(&GZIP) {
        return Err(IndicatorFlaw::DataUrl);
    }
    read_indicator(&octets, size_max)
}

fn unpack(octets: &[u8], size_max: usize) -> Result<Vec<u8>, IndicatorFlaw> {
    let mut decoder = GzDecoder::new(octets);
    let mut unpacked = Vec::new();
    // One more than there may be tells whether there is more.
    let room = size_max as u64 + 1;
    decoder.by_ref().take(room).read_to_end(&mut unpacked).map_err(|_| IndicatorFlaw::Archive)?;
    if unpacked.len() > size_max {
        return Err(IndicatorFlaw::TooLarge(size_max));
    }
    if decoder.into_inner().is_empty() { Ok(unpacked) } else { Err(IndicatorFlaw::Archive) }
}

impl IndicatorText {
    /// That of a picture, which is as [`read_indicator`] gave it.
    pub fn new(svg: &[u8]) -> Self {
        let encoded = STANDARD.encode(svg);
        let mut field = String::with_capacity(encoded.len() + encoded.len() / LINE_LEN * 3 + 32);
        field.push_str("BIMI-Indicator:");
        let mut rest = &*encoded;
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE_LEN));
            field.push_str(if field.len() == "BIMI-Indicator:".len() { " " } else { "\r\n\t" });
            field.push_str(line);
            rest = after;
        }
        field.push_str("\r\n");
        let hash = digest(&SHA256, svg);
        let hash: String = hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        // "truncated to the final 8 (at least) characters" (§8.6).
        Self { field: field.into(), hash: hash[hash.len() - 16..].into() }
    }

    /// The field, to its CRLF.
    pub const fn field(&self) -> &str {
        &self.field
    }

    /// The end of the picture's SHA2-256.
    pub const fn hash(&self) -> &str {
        &self.hash
    }
}

/// What was seen of a picture so far.
#[derive(Default)]
struct Picture {
    /// Names of the elements that are open, and their ids.
    open: Vec<(String, Option<Box<str>>)>,
    ended: bool,
    titled: bool,
    /// For each id, what is used within that element, as often as it is.
    used: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// What is used at all.
    drawn: Vec<Box<str>>,
}

impl Picture {
    fn check(octets: &[u8]) -> Result<(), IndicatorFlaw> {
        let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
        let text = str::from_utf8(octets).map_err(|_| IndicatorFlaw::Encoding)?;
        // XML has no others, and readers differ in what they make of them.
        if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            return Err(syntax("it has a control character"));
        }
        let (mut reader, mut picture) = (Reader::from_str(text), Self::default());
        reader.config_mut().check_comments = true;
        loop {
            let event = reader.read_event().map_err(|error| syntax(&error.to_string()))?;
            match event {
                Event::Start(start) => picture.begin(&start)?,
                Event::Empty(start) => {
                    picture.begin(&start)?;
                    picture.end();
                }
                Event::End(_) => picture.end(),
                Event::Text(text) => picture.text(&text)?,
                Event::CData(text) => picture.text(&text)?,
                Event::GeneralRef(reference) => {
                    let known = ["lt", "gt", "amp", "quot", "apos"].contains(&&*reference);
                    if !known && !reference.resolve_char_ref().is_ok_and(|found| found.is_some()) {
                        return Err(IndicatorFlaw::Entity);
                    }
                    picture.text("&")?;
                }
                Event::Decl(declaration) => {
                    let encoding =
                        declaration.encoding().transpose().map_err(|_| syntax("its declaration"))?;
                    if !encoding.is_none_or(|name| {
                        name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii")
                    }) {
                        return Err(IndicatorFlaw::Encoding);
                    }
                }
                Event::DocType(_) => return Err(IndicatorFlaw::DocType),
                Event::PI(_) => return Err(IndicatorFlaw::Instruction),
                Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        if !picture.open.is_empty() {
            return Err(syntax("it ends before its end"));
        }
        if !picture.ended {
            return Err(IndicatorFlaw::NoSvg);
        }
        if !picture.titled {
            return Err(IndicatorFlaw::Title);
        }
        picture.draw()
    }

    fn begin(&mut self, start: &BytesStart<'_>) -> Result<(), IndicatorFlaw> {
        let name = start.name().into_inner();
        let is_outermost = self.open.is_empty();
        if self.ended || (is_outermost && name != "svg") {
            return Err(IndicatorFlaw::NoSvg);
        }
        if !ELEMENTS.contains(&name) || (name == "svg" && !is_outermost) {
            return Err(IndicatorFlaw::Element(word(name)));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(IndicatorFlaw::Deep);
        }
        let (mut namespace, mut profile, mut version) = (false, false, false);
        let (mut id, mut uses): (Option<Box<str>>, Option<Box<str>>) = (None, None);
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| syntax(&error.to_string()))?;
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| IndicatorFlaw::Entity)?;
            let key = attribute.key.into_inner();
            let refused = || Err(IndicatorFlaw::Attribute(word(key)));
            match key {
                "xmlns" if value == SVG => namespace = true,
                "xmlns" => return Err(IndicatorFlaw::Namespace),
                "baseProfile" if is_outermost => profile = value == "tiny-ps",
                "version" if is_outermost => version = value == "1.2",
                "x" | "y" if is_outermost => return Err(IndicatorFlaw::Place),
                "href" | "xlink:href" => match value.strip_prefix('#') {
                    Some(target) if name == "use" => uses = Some(Box::from(target)),
                    Some(_) => {}
                    None => return Err(IndicatorFlaw::Reference(word(&value))),
                },
                "id" | "xml:id" => id = Some(Box::from(&*value)),
                // `xml:base` would make of `#x` what is elsewhere.
                "xml:space" | "xml:lang" => {}
                // A style is a language of its own, and not that of the profile.
                "style" => return refused(),
                _ if key.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("on")) => return refused(),
                _ if key.starts_with("xmlns:") => {}
                _ if key.contains(':') => return refused(),
                _ => {}
            }
            if let Some(outside) = outside(&value) {
                return Err(IndicatorFlaw::Reference(word(outside)));
            }
        }
        if is_outermost {
            for (is_so, flaw) in [
                (namespace, IndicatorFlaw::Namespace),
                (profile, IndicatorFlaw::Profile),
                (version, IndicatorFlaw::Version),
            ] {
                if !is_so {
                    return Err(flaw);
                }
            }
        }
        if let Some(target) = uses {
            self.drawn.push(target.clone());
            for within in self.open.iter().filter_map(|(_, id)| id.as_ref()).chain(&id) {
                self.used.entry(within.clone()).or_default().push(target.clone());
            }
        }
        self.open.push((name.to_owned(), id));
        Ok(())
    }

    fn end(&mut self) {
        self.open.pop();
        self.ended = self.open.is_empty();
    }

    fn text(&mut self, text: &str) -> Result<(), IndicatorFlaw> {
        let is_blank = text.trim_matches(['\t', '\n', '\r', ' ']).is_empty();
        match &self.open[..] {
            [] if !is_blank => Err(IndicatorFlaw::NoSvg),
            [_, (name, _)] if name == "title" => {
                self.titled |= !is_blank;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How often parts are drawn. A few that use each other can be more than anybody can draw.
    fn draw(&self) -> Result<(), IndicatorFlaw> {
        let (mut known, mut all) = (BTreeMap::new(), 0_usize);
        for part in &self.drawn {
            all = all.saturating_add(self.cost(part, USES_DEEP_MAX, &mut known)?);
        }
        if all > USES_MAX { Err(IndicatorFlaw::Use) } else { Ok(()) }
    }

    fn cost<'a>(
        &'a self,
        part: &'a str,
        depth_left: usize,
        known: &mut BTreeMap<&'a str, usize>,
    ) -> Result<usize, IndicatorFlaw> {
        if let Some(cost) = known.get(part) {
            return Ok(*cost);
        }
        // One that uses itself gets here, too.
        let depth_left = depth_left.checked_sub(1).ok_or(IndicatorFlaw::Use)?;
        let mut cost = 1_usize;
        for other in self.used.get(part).into_iter().flatten() {
            cost = cost.saturating_add(self.cost(other, depth_left, known)?);
        }
        known.insert(part, cost);
        Ok(cost)
    }
}

/// What a value refers to outside of the picture. An escape of style sheets could write any of it otherwise.
fn outside(value: &str) -> Option<&str> {
    if value.contains('\\') {
        return Some(value);
    }
    let lower = value.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = lower[from..].find("url(") {
        from += at + 4;
        if !lower[from..].trim_start_matches([' ', '\t', '\'', '"']).starts_with('#') {
            return Some(value);
        }
    }
    None
}

fn syntax(what: &str) -> IndicatorFlaw {
    IndicatorFlaw::Syntax(word(what))
}

/// What somebody else has written, as far as it is told.
fn word(text: &str) -> Box<str> {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(WORD_LEN_MAX).collect::<String>().into()
}

#[cfg(test)]
#[path = "indicator_test.rs"]
mod test;
