//! DMARC: does whoever the message says it is from stand by it? (RFC 9989)
//!
//! mail-auth walks the tree, chooses the record and compares domains. Records reach it as it should read them: of
//! several at a name none counts, a tag with a value it cannot have is as if it were not there, and whether `np=`
//! applies is settled here, for it would ask its resolver for the author's domain (`dmarc/verify.rs`,
//! `domain_exists`), and a cache cannot tell it that a name does not exist.
//!
//! Where RFC 7489 differs: it found the organizational domain with the public suffix list, and had `pct=`, which is
//! not looked at.

use std::sync::Arc;

use dns::{Kind, Name};
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcResult as TheirResult, Error, Parameters, SpfOutput, Txt,
    common::parse::TxtRecordParser,
    dkim::Signature,
    dmarc::{
        Alignment as TheirAlignment, Dmarc as TheirRecord, Policy as TheirPolicy, Psd, URI,
        verify::DmarcParameters,
    },
};
use mail_parser::{Address, HeaderValue, parsers::MessageStream};

use crate::{
    Digest, Dkim, DkimResult, Judge, Reason, Spf, SpfResult,
    facts::{Facts, Lack, TextCache, error},
    fields::Field,
    tags::{Tag, tags_loosely, value_of},
};

/// What DMARC says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmarc {
    /// The verdict.
    pub result: DmarcResult,
    /// Whom the message says it is from.
    pub author: Author,
    /// Whether SPF stands by the author.
    pub spf: Alignment,
    /// Whether a signature stands by the author.
    pub dkim: Alignment,
    /// What the domain's owner asks for mail that fails: subdomains and test mode are taken into account.
    pub policy: DmarcPolicy,
    /// The record that applies.
    pub published: Option<Published>,
}

/// The results of RFC 9989 §9.3, for `Authentication-Results`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcResult {
    /// The domain publishes nothing, or DMARC does not apply.
    None,
    /// SPF or a signature stands by the author.
    Pass,
    /// Neither does.
    Fail,
    /// It cannot be told now.
    TempError,
    /// It will never be told.
    PermError,
}

/// The author's domain (RFC 9989 §4.1), from the `From` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// One domain.
    Domain(Name),
    /// No `From` field, or no address in it that can be read.
    Missing,
    /// Several `From` fields, one of addresses of several domains, or one of more than 16 KiB: DMARC does not apply,
    /// and readers will see one of them. Such mail is not well-formed (RFC 5322 §3.6) or rare.
    Several,
}

/// Whether an identity that passed belongs to the author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Nothing passed.
    None,
    /// What passed is the author's.
    Aligned,
    /// What passed is somebody else's.
    NotAligned,
    /// It cannot be told now.
    Unknown,
}

/// What to do with mail that fails (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmarcPolicy {
    /// Nothing.
    #[default]
    None,
    /// Hold it in doubt.
    Quarantine,
    /// Refuse it.
    Reject,
}

/// The record of a domain's owner, as reports repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it stands, without `_dmarc`.
    pub domain: Name,
    /// `p=`
    pub policy: DmarcPolicy,
    /// `sp=`, or what it defaults to.
    pub subdomains: DmarcPolicy,
    /// `np=`, or what it defaults to.
    pub nonexistent: DmarcPolicy,
    /// `adkim=`
    pub dkim_mode: AlignmentMode,
    /// `aspf=`
    pub spf_mode: AlignmentMode,
    /// `t=`
    pub testing: Testing,
    /// `fo=`, as it is written.
    pub failure_options: String,
    /// `rua=`: where aggregate reports go; addresses of mail only.
    pub aggregate_to: Vec<ReportAddress>,
    /// `ruf=`: where failure reports go, likewise. None where the record is that of a registry (`psd=y`): mail below it is that of others
    /// (RFC 9991 §2).
    pub failures_to: Vec<ReportAddress>,
}

/// Where reports are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportAddress {
    /// An address of mail, as it stands there.
    pub address: String,
    /// Larger ones are not wanted (RFC 7489 §6.2; RFC 9989 has it no more).
    pub size_max: Option<u64>,
}

/// How close domains must be (RFC 9989 §4.10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentMode {
    /// Of the same organization.
    Relaxed,
    /// The same.
    Strict,
}

/// Whether the owner tries the policy out (RFC 9989 §4.7, `t=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testing {
    /// It is meant.
    No,
    /// It is to be applied one step milder.
    Yes,
}

/// A longer `From` field is not read: it would take its time.
const FROM_LEN_MAX: usize = 16 << 10;

impl DmarcResult {
    /// As in `Authentication-Results`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl DmarcPolicy {
    /// As in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    const fn of(policy: TheirPolicy) -> Self {
        match policy {
            TheirPolicy::None | TheirPolicy::Unspecified => Self::None,
            TheirPolicy::Quarantine => Self::Quarantine,
            TheirPolicy::Reject => Self::Reject,
        }
    }
}

impl Alignment {
    fn of(result: &TheirResult) -> Self {
        match result {
            TheirResult::Pass => Self::Aligned,
            TheirResult::Fail(_) | TheirResult::PermError(_) => Self::NotAligned,
            TheirResult::TempError(_) => Self::Unknown,
            TheirResult::None => Self::None,
        }
    }
}

/// Whom a message says it is from.
pub(crate) fn author(header: &[u8], fields: &[Field]) -> Author {
    let mut fields = fields.iter().filter(|field| field.is(header, "From"));
    let from = match (fields.next(), fields.next()) {
        (Some(from), None) => from,
        (Some(_), Some(_)) => return Author::Several,
        (None, _) => return Author::Missing,
    };
    if from.value(header).len() > FROM_LEN_MAX {
        return Author::Several;
    }
    let value = MessageStream::new(from.value(header)).parse_address();
    let addresses: Vec<&str> = match &value {
        HeaderValue::Address(Address::List(list)) => {
            list.iter().filter_map(mail_parser::Addr::address).collect()
        }
        HeaderValue::Address(Address::Group(groups)) => {
            groups.iter().flat_map(|group| &group.addresses).filter_map(mail_parser::Addr::address).collect()
        }
        HeaderValue::Text(_)
        | HeaderValue::TextList(_)
        | HeaderValue::DateTime(_)
        | HeaderValue::ContentType(_)
        | HeaderValue::Received(_)
        | HeaderValue::Empty => Vec::new(),
    };
    let mut author = Author::Missing;
    for address in addresses {
        // What has no domain that could be asked for is nobody's; it must not hide behind one that has.
        let name = address.rsplit_once('@').and_then(|(_, domain)| Name::parse(domain).ok());
        author = match (author, name) {
            (Author::Missing, Some(name)) => Author::Domain(name),
            (Author::Domain(known), Some(name)) if known == name => Author::Domain(known),
            (Author::Missing, None) => Author::Missing,
            (Author::Domain(_) | Author::Several, _) => return Author::Several,
        };
    }
    author
}

/// Has looked up what [`check`] will need in any case (RFC 9989 §4.10).
pub(crate) fn look_ahead(facts: &Facts, author: &Author) {
    let Author::Domain(domain) = author else { return };
    for step in walk(domain) {
        if let Some(name) = place(&step) {
            facts.note(&name, Kind::Txt);
        }
    }
}

/// The names that may have a record for a domain, itself first (RFC 9989 §4.10).
pub(crate) fn walk(domain: &Name) -> impl Iterator<Item = Name> {
    let labels: Vec<&str> = domain.as_str().split('.').collect();
    // A walk longer than eight steps goes from the name itself to its last seven labels.
    let (all, last) = (labels.len(), labels.len().min(7));
    let counts = std::iter::once(all).chain((1..=last).rev().filter(move |count| *count < all));
    counts.filter_map(move |count| Name::parse(&labels[all - count..].join(".")).ok())
}

/// Where the record of a domain stands; none where no name can be so long.
pub(crate) fn place(domain: &Name) -> Option<Name> {
    Name::parse(&format!("_dmarc.{domain}")).ok()
}

/// Judges a message, given what SPF and DKIM say of it.
pub fn check(facts: &Facts, judge: &Judge, digest: &Digest, spf: &Spf, dkim: &[Dkim]) -> Dmarc {
    let mut dmarc = Dmarc {
        result: DmarcResult::None,
        author: digest.author().clone(),
        spf: Alignment::None,
        dkim: Alignment::None,
        policy: DmarcPolicy::None,
        published: None,
    };
    if let Some(Reason::HeaderTooLong) = digest.flaw() {
        dmarc.result = DmarcResult::PermError;
        return dmarc;
    }
    let Author::Domain(author) = &dmarc.author else { return dmarc };
    let records = TextCache::new(facts, |name, texts| read_record(facts, author, name, texts));
    let message =
        AuthenticatedMessage { from: vec![format!("author@{author}")], ..AuthenticatedMessage::default() };
    let signatures: Vec<Signature> =
        dkim.iter().map(|dkim| Signature { d: dkim.domain.clone(), ..Signature::default() }).collect();
    let outputs: Vec<DkimOutput<'_>> = dkim
        .iter()
        .zip(&signatures)
        .map(|(dkim, signature)| their_dkim(dkim).with_signature(signature))
        .collect();
    let their_spf = SpfOutput::new(spf.domain.clone()).with_result(their_spf(spf.result));
    let parameters = DmarcParameters::new(&message, &outputs, &spf.domain, &their_spf);
    let Some(output) = judge.verify_dmarc(Parameters::new(parameters).with_txt_cache(&records)) else {
        dmarc.result = DmarcResult::TempError;
        return dmarc;
    };
    dmarc.result = match output.result() {
        TheirResult::Pass => DmarcResult::Pass,
        TheirResult::Fail(_) => DmarcResult::Fail,
        TheirResult::TempError(_) => DmarcResult::TempError,
        TheirResult::PermError(_) => DmarcResult::PermError,
        TheirResult::None => DmarcResult::None,
    };
    dmarc.spf = Alignment::of(output.spf_result());
    dmarc.dkim = Alignment::of(output.dkim_result());
    dmarc.policy = DmarcPolicy::of(output.policy());
    // The record that was applied is known by its place.
    let applied = output.dmarc_record_cloned();
    let texts = records.into_texts();
    let found = texts.iter().find(|(_, text)| match (text, &applied) {
        (Txt::Dmarc(record), Some(applied)) => Arc::ptr_eq(record, applied),
        _ => false,
    });
    dmarc.published = found.and_then(|(name, _)| published(facts, name));
    dmarc
}

fn their_dkim(dkim: &Dkim) -> DkimOutput<'static> {
    match dkim.result {
        DkimResult::Pass => DkimOutput::pass(),
        DkimResult::TempError => DkimOutput::temp_err(error(Lack::Unknown)),
        DkimResult::Fail | DkimResult::Neutral | DkimResult::Policy | DkimResult::PermError => {
            DkimOutput::perm_err(Error::NotAligned)
        }
    }
}

const fn their_spf(result: SpfResult) -> mail_auth::SpfResult {
    match result {
        SpfResult::None => mail_auth::SpfResult::None,
        SpfResult::Neutral => mail_auth::SpfResult::Neutral,
        SpfResult::Pass => mail_auth::SpfResult::Pass,
        SpfResult::Fail => mail_auth::SpfResult::Fail,
        SpfResult::SoftFail => mail_auth::SpfResult::SoftFail,
        SpfResult::TempError => mail_auth::SpfResult::TempError,
        SpfResult::PermError => mail_auth::SpfResult::PermError,
    }
}

/// The record at a name, for the tree walk, with `sp=` and `np=` both as they apply to this author.
fn read_record(facts: &Facts, author: &Name, name: &Name, texts: &[Box<[u8]>]) -> Txt {
    let Some((_, mut record)) = record(texts) else { return Txt::Error(error(Lack::NoData)) };
    let at_author = name.as_str().strip_prefix("_dmarc.") == Some(author.as_str());
    if !at_author && record.np != record.sp {
        // "non-existent": NXDOMAIN, whatever was asked for (RFC 8020 §2).
        match facts.addresses(author, Kind::A) {
            Err(Lack::NxDomain) => record.sp = record.np,
            // What is not known exists.
            Ok(_) | Err(Lack::NoData | Lack::Unknown) => record.np = record.sp,
        }
    }
    Txt::Dmarc(Arc::new(record))
}

/// `rua=`
pub(crate) fn addresses(record: &TheirRecord) -> Vec<ReportAddress> {
    places(record.rua())
}

fn places(uris: &[URI]) -> Vec<ReportAddress> {
    let address = |uri: &URI| ReportAddress {
        address: uri.uri().to_owned(),
        size_max: Some(uri.max_size() as u64).filter(|size| *size > 0),
    };
    uris.iter().map(address).collect()
}

fn published(facts: &Facts, name: &Name) -> Option<Published> {
    let (failure_options, record) = record(facts.texts(name).ok()?)?;
    let mode = |mode| match mode {
        TheirAlignment::Relaxed => AlignmentMode::Relaxed,
        TheirAlignment::Strict => AlignmentMode::Strict,
    };
    Some(Published {
        domain: Name::parse(name.as_str().strip_prefix("_dmarc.")?).ok()?,
        policy: DmarcPolicy::of(record.p),
        subdomains: DmarcPolicy::of(record.sp),
        nonexistent: DmarcPolicy::of(record.np),
        dkim_mode: mode(record.adkim),
        spf_mode: mode(record.aspf),
        testing: if record.t { Testing::Yes } else { Testing::No },
        failure_options,
        aggregate_to: addresses(&record),
        failures_to: match record.psd {
            Psd::Yes => Vec::new(),
            Psd::No | Psd::Default => places(record.ruf()),
        },
    })
}

/// What is wrong with what a domain itself publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcFlaw {
    /// There are several records, and none of them counts (RFC 9989 §4.10).
    Several,
    /// It has no `p=`, or one that is none, or an `sp=` or `np=` that is none.
    Policy,
    /// It looks like a record, and does not begin as one: with `v=DMARC1`.
    Version,
}

/// What is wrong with the text records at `_dmarc.<domain>`.
pub fn dmarc_flaw(texts: &[Box<[u8]>]) -> Option<DmarcFlaw> {
    let mut records = texts.iter().filter(|text| is_record(text));
    match (records.next(), records.next()) {
        (Some(_), Some(_)) => Some(DmarcFlaw::Several),
        (Some(text), None) => (!has_policy(&tags_loosely(text))).then_some(DmarcFlaw::Policy),
        (None, _) => {
            let seems = |text: &[u8]| {
                let text = text.trim_ascii().to_ascii_lowercase();
                text.starts_with(b"v=dmarc") || value_of(&tags_loosely(&text), b"p").is_some()
            };
            texts.iter().any(|text| seems(text)).then_some(DmarcFlaw::Version)
        }
    }
}

/// Whether there is a `p=`, and all policies are such.
fn has_policy(tags: &[Tag<'_>]) -> bool {
    let policies = [b"none".as_slice(), b"quarantine", b"reject"];
    let is_policy = |value: &[u8]| policies.iter().any(|policy| value.eq_ignore_ascii_case(policy));
    let or_none = |name: &[u8]| value_of(tags, name).is_none_or(is_policy);
    value_of(tags, b"p").is_some_and(is_policy) && or_none(b"sp") && or_none(b"np")
}

/// Whether a text is a DMARC record: whether its first tag says so.
pub(crate) fn is_record(text: &[u8]) -> bool {
    let (first, _) = text.split_at(text.iter().position(|b| *b == b';').unwrap_or(text.len()));
    value_of(&tags_loosely(first), b"v") == Some(b"DMARC1")
}

/// The one DMARC record among the text records of a name, and its `fo=`.
///
/// "If multiple DMARC Policy Records are returned, they are all discarded" (RFC 9989 §4.10).
pub(crate) fn record(texts: &[Box<[u8]>]) -> Option<(String, TheirRecord)> {
    let mut records = texts.iter().filter(|text| is_record(text));
    let (Some(text), None) = (records.next(), records.next()) else { return None };
    let tags = tags_loosely(text);
    let tag = |name: &str| value_of(&tags, name.as_bytes());
    let is_one_of =
        |value: &[u8], values: &[&str]| values.iter().any(|v| value.eq_ignore_ascii_case(v.as_bytes()));
    let mut sound = b"v=DMARC1".to_vec();
    let mut add = |name: &str, value: &[u8]| {
        sound.extend_from_slice(b";");
        sound.extend_from_slice(name.as_bytes());
        sound.extend_from_slice(b"=");
        sound.extend_from_slice(value);
    };
    // Whatever is wrong in the rest is ignored in favour of the default (RFC 9989 §4.7).
    for name in ["adkim", "aspf"] {
        tag(name).filter(|value| is_one_of(value, &["r", "s"])).inspect(|value| add(name, value));
    }
    tag("t").filter(|value| is_one_of(value, &["y", "n"])).inspect(|value| add("t", value));
    tag("psd").filter(|value| is_one_of(value, &["y", "n", "u"])).inspect(|value| add("psd", value));
    let fo = tag("fo").filter(|value| {
        value.split(|b| *b == b':').all(|option| is_one_of(option.trim_ascii(), &["0", "1", "d", "s"]))
    });
    fo.inspect(|value| add("fo", value));
    for name in ["rua", "ruf"] {
        let uris = |value: &&[u8]| TheirRecord::parse(&[b"v=DMARC1;rua=", *value].concat()).is_ok();
        tag(name).filter(uris).inspect(|value| add(name, value));
    }
    // "does not contain a valid "p" tag, or contains an "sp" or "np" tag that is not valid": then the record counts
    // as `p=none` if it names somewhere to report to, and otherwise says nothing (RFC 9989 §4.10.1). That is what
    // mail-auth makes of a record without these tags.
    if has_policy(&tags) {
        for name in ["p", "sp", "np"] {
            tag(name).inspect(|value| add(name, value));
        }
    }
    let failure_options = fo.map_or_else(|| "0".to_owned(), |fo| String::from_utf8_lossy(fo).into_owned());
    Some((failure_options, TheirRecord::parse(&sound).ok()?))
}

#[cfg(test)]
#[path = "dmarc_test.rs"]
mod test;
