//! BIMI: what the author's domain asserts of its picture, and what is told of that (draft-brand-indicators-for-message-identification).
//!
//! A picture beside a message is trusted more than its text, so nothing is looked for unless it is beyond doubt whom the message is
//! from (§8.1): DMARC passes, by a signature or by an SPF record that does not let everybody send, and the domain and its
//! organization both want mail that fails to be treated as such. A selector counts only where the author's domain has signed it.

use dns::{Kind, Name};

use crate::{
    Alignment, Author, BimiError, BimiPlace, BimiRecord, Digest, DkimResult, DmarcPolicy, DmarcResult,
    TrickKind, Verdict, bimi_record,
    destination::organization,
    dmarc::{self, AlignmentMode},
    facts::{Facts, Lack},
    tags::{tags, tags_loosely, value_of},
};

/// What there is to say before a picture was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assertion {
    /// There is no picture to look at: that is all.
    Settled(Bimi),
    /// There is one, or a certificate that has one.
    Found(Box<Asserted>),
}

/// A record that names a picture or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asserted {
    /// The domain that it stands at: the author's, or that of his organization.
    pub domain: Name,
    /// The selector that it stands at.
    pub selector: Box<str>,
    /// What it says.
    pub record: BimiRecord,
}

/// What is told of it in `Authentication-Results` (§8.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bimi {
    /// The result.
    pub result: BimiResult,
    /// Why it is not a pass.
    pub reason: Option<Box<str>>,
    /// Domain and selector of the record, where there is one.
    pub at: Option<(Name, Box<str>)>,
    /// What the certificate is worth, where one was named or would have been looked at.
    pub authority: Option<BimiAuthority>,
    /// The end of the picture's SHA2-256, where a picture is handed on.
    pub hash: Option<Box<str>>,
}

/// The results of §8.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BimiResult {
    /// The picture is as it should be.
    Pass,
    /// The domain says nothing of a picture.
    None,
    /// The record, the picture or its certificate is not as it should be.
    Fail,
    /// It cannot be told now.
    TempError,
    /// The domain says that it has no picture.
    Declined,
    /// It was not looked for, or not looked at.
    Skipped,
}

/// What a certificate of a picture is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BimiAuthority {
    /// Somebody who is believed says whose picture it is.
    Pass,
    /// Nobody who is believed does.
    Fail,
    /// There is none, or it was not looked at.
    None,
}

/// A signature has one selector; a longer one is no name either.
const SELECTOR_LEN_MAX: usize = 200;

impl BimiResult {
    /// As in `Authentication-Results`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::None => "none",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::Declined => "declined",
            Self::Skipped => "skipped",
        }
    }
}

impl BimiAuthority {
    /// As in `Authentication-Results`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::None => "none",
        }
    }
}

impl Bimi {
    /// A result of which there is nothing more to say.
    pub const fn of(result: BimiResult) -> Self {
        Self { result, reason: None, at: None, authority: None, hash: None }
    }

    /// Nobody looks for a picture, for this reason.
    pub fn skipped(reason: &str) -> Self {
        Self { reason: Some(reason.into()), ..Self::of(BimiResult::Skipped) }
    }
}

impl Asserted {
    /// What came of looking at what it names.
    pub fn told(&self, result: BimiResult, reason: Option<&str>) -> Bimi {
        let at = Some((self.domain.clone(), self.selector.clone()));
        Bimi { reason: reason.map(Into::into), at, ..Bimi::of(result) }
    }
}

impl From<Bimi> for Assertion {
    fn from(bimi: Bimi) -> Self {
        Self::Settled(bimi)
    }
}

/// Why nothing is looked for.
enum Halt {
    /// It must not be.
    Skip(String),
    /// It is not known whether it may be.
    Unknown,
}

impl From<Lack> for Halt {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Unknown => Self::Unknown,
            Lack::NoData | Lack::NxDomain => Self::Skip("there is no DMARC record".to_owned()),
        }
    }
}

/// Looks for the record that is for a message (§8.1, §8.2).
pub(crate) fn discover(facts: &Facts, digest: &Digest, verdict: &Verdict) -> Assertion {
    let (author, organization) = match qualified(facts, digest, verdict) {
        Ok(domains) => domains,
        Err(Halt::Skip(reason)) => return Bimi::skipped(&reason).into(),
        Err(Halt::Unknown) => return Bimi::of(BimiResult::TempError).into(),
    };
    let Ok(selector) = selector(facts, digest, verdict, &author, &organization) else {
        return Bimi::of(BimiResult::TempError).into();
    };
    let selector = selector.as_deref().unwrap_or("default");
    let place = |domain: &Name| Name::parse(&format!("{selector}._bimi.{domain}")).ok();
    // Both are asked for at once: of two rounds the second would come late.
    place(&organization).iter().for_each(|name| facts.note(name, Kind::Txt));
    for domain in [&author, &organization] {
        let Some(name) = place(domain) else { continue };
        let found = match facts.texts(&name) {
            Ok(texts) => bimi_record(texts),
            Err(Lack::NoData | Lack::NxDomain) => Ok(None),
            Err(Lack::Unknown) => return Bimi::of(BimiResult::TempError).into(),
        };
        let at = Some((domain.clone(), Box::from(selector)));
        return match found {
            Ok(None) | Err(BimiError::Version) => continue,
            Err(error @ (BimiError::Several | BimiError::Malformed | BimiError::NotHttps)) => {
                Bimi { reason: Some(error.to_string().into()), at, ..Bimi::of(BimiResult::Fail) }.into()
            }
            Ok(Some(record)) if record.is_declination() => {
                Bimi { at, ..Bimi::of(BimiResult::Declined) }.into()
            }
            Ok(Some(record)) => Assertion::Found(Box::new(Asserted {
                domain: domain.clone(),
                selector: selector.into(),
                record,
            })),
        };
    }
    Bimi::of(BimiResult::None).into()
}

/// The author's domain and that of his organization, if a picture of theirs may be shown (§8.1).
fn qualified(facts: &Facts, digest: &Digest, verdict: &Verdict) -> Result<(Name, Name), Halt> {
    let skip = |reason: &str| Err(Halt::Skip(reason.to_owned()));
    let dmarc = &verdict.dmarc;
    let Author::Domain(author) = &dmarc.author else { return skip("there is no one author") };
    match dmarc.result {
        DmarcResult::Pass => {}
        DmarcResult::TempError => return Err(Halt::Unknown),
        DmarcResult::None | DmarcResult::Fail | DmarcResult::PermError => return skip("DMARC does not pass"),
    }
    if verdict.tricks.has(TrickKind::Author) {
        return skip("From is not one plain address");
    }
    if dmarc.policy == DmarcPolicy::None {
        return skip("the DMARC policy asks for nothing");
    }
    let organization = organization(facts, author)?;
    let applied = dmarc.published.as_ref().map(|published| &published.domain);
    for domain in [Some(author), applied, Some(&organization)].into_iter().flatten() {
        let texts = match dmarc::place(domain).map(|place| facts.texts(&place)) {
            Some(Ok(texts)) => texts,
            Some(Err(Lack::Unknown)) => return Err(Halt::Unknown),
            // Where the author's domain has none, that of the organization counts.
            Some(Err(Lack::NoData | Lack::NxDomain)) | None => continue,
        };
        if let Some(weakness) = bimi_weakness(texts) {
            return Err(Halt::Skip(format!("the DMARC policy of {domain} {weakness}")));
        }
    }
    // Who signs nothing proves himself by SPF: and that says nothing where everybody may send.
    let by_spf_of_all = verdict.envelope.mail_from.mechanism.as_deref().is_some_and(|mechanism| {
        let mechanism = mechanism.trim_start_matches('+');
        mechanism.eq_ignore_ascii_case("all")
    });
    if dmarc.dkim != Alignment::Aligned && by_spf_of_all {
        return skip("SPF lets everybody send, and the author's domain has not signed");
    }
    let passed =
        verdict.dkim.iter().zip(digest.signatures()).filter(|(dkim, _)| dkim.result == DkimResult::Pass);
    let mut signed = passed.filter_map(|(_, field)| field.signed()).flatten();
    // "MUST NOT be DKIM signed" (§6.5): what we write or take away would break the signature for whoever comes behind us.
    let ours = ["BIMI-Location", "BIMI-Indicator", "BIMI-Logo-Preference"];
    if signed.any(|name| ours.iter().any(|ours| name.eq_ignore_ascii_case(ours))) {
        return skip("a signature covers fields that only a receiver may write");
    }
    Ok((author.clone(), organization))
}

/// What keeps a DMARC record from being one that mail is held to (§8.1), as the end of a sentence about it; none where several are
/// there, of which none counts.
pub fn bimi_weakness(texts: &[Box<[u8]>]) -> Option<&'static str> {
    let mut records = texts.iter().filter(|text| dmarc::is_record(text));
    let (Some(text), None) = (records.next(), records.next()) else { return None };
    let tags = tags_loosely(text);
    let is = |name: &str, value: &[u8]| {
        value_of(&tags, name.as_bytes()).is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    if !is("p", b"quarantine") && !is("p", b"reject") {
        return Some("asks for nothing");
    }
    if is("sp", b"none") {
        return Some("asks for nothing of subdomains");
    }
    // RFC 7489 §6.3; "t=y" is what RFC 9989 has in its place.
    let percent = value_of(&tags, b"pct");
    if is("p", b"quarantine") && percent.is_some_and(|percent| percent != b"100") {
        return Some("is not for all mail");
    }
    is("t", b"y").then_some("is there to be tried out")
}

/// The selector that the author's domain has chosen for this message, if it has signed it (§5.2, §6.5). Fails where it is not known
/// whether whoever has signed it is of the same organization.
fn selector(
    facts: &Facts,
    digest: &Digest,
    verdict: &Verdict,
    author: &Name,
    of_author: &Name,
) -> Result<Option<String>, Lack> {
    let Some(selector) = asked_for(digest) else { return Ok(None) };
    let strict = verdict.dmarc.published.as_ref().is_some_and(|p| p.dkim_mode == AlignmentMode::Strict);
    let covers = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("BIMI-Selector"));
    for (dkim, field) in verdict.dkim.iter().zip(digest.signatures()) {
        if dkim.result != DkimResult::Pass || !field.signed().is_some_and(covers) {
            continue;
        }
        let Ok(domain) = Name::parse(&dkim.domain) else { continue };
        if domain == *author || (!strict && organization(facts, &domain)? == *of_author) {
            return Ok(Some(selector));
        }
    }
    Ok(None)
}

/// The selector of the one `BIMI-Selector` field, if it is one.
fn asked_for(digest: &Digest) -> Option<String> {
    let header = digest.header();
    let mut fields = digest.fields().iter().filter(|field| field.is(header, "BIMI-Selector"));
    // Of several, who knows which is signed.
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let tags = tags(field.value(header)).ok()?;
    if tags.first() != Some(&(b"v", b"BIMI1")) {
        return None;
    }
    let selector = str::from_utf8(value_of(&tags, b"s")?).ok()?;
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_one = selector.len() <= SELECTOR_LEN_MAX && selector.split('.').all(label);
    is_one.then(|| selector.to_ascii_lowercase())
}

/// Whether a certificate with these names is for a record (draft-fetch-validation-vmc-wchuang §4.2).
pub fn covers<'a>(names: impl IntoIterator<Item = &'a str>, asserted: &Asserted) -> bool {
    let place = format!("{}._bimi.{}", asserted.selector, asserted.domain);
    names
        .into_iter()
        .any(|name| name.eq_ignore_ascii_case(asserted.domain.as_str()) || name.eq_ignore_ascii_case(&place))
}

/// Appends the fields that tell readers of a picture (§6.2 to §6.4). The place of its certificate is told where that counts.
pub fn bimi_fields(
    out: &mut Vec<u8>,
    asserted: &Asserted,
    evidence: Option<&BimiPlace>,
    indicator: Option<&str>,
) {
    let record = &asserted.record;
    out.extend_from_slice(b"BIMI-Location: v=BIMI1;");
    for (tag, place) in [("l", record.location.as_ref()), ("a", evidence)] {
        if let Some(place) = place {
            out.extend_from_slice(format!("\r\n\t{tag}={place};").as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    if let Some(indicator) = indicator {
        out.extend_from_slice(indicator.as_bytes());
    }
    if let Some(preference) = record.preference {
        out.extend_from_slice(format!("BIMI-Logo-Preference: avp={};\r\n", preference.as_str()).as_bytes());
    }
}

#[cfg(test)]
#[path = "assertion_test.rs"]
mod test;
