//! A TLS report: the JSON of RFC 8460 §4.4.
//!
//! Some write numbers as text, and one line where the RFC has a list: both are read.

use std::{fmt, marker::PhantomData};

use mail::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};

use super::{
    FailureDetails, Limits, NAME_MAX, PolicyResults, Report, TEXT_MAX, Told, Unread, WORD_MAX, clean, domain,
    period,
};

/// Lines of a policy, and hosts of one, that are kept.
const LINES_MAX: usize = 50;
/// Policies of a report, and details of one. Who writes a long list of nothing gets no more memory than that.
const POLICIES_MAX: usize = 1000;
const DETAILS_MAX: usize = 500;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    organization_name: Text,
    date_range: Option<DateRange>,
    #[serde(default)]
    contact_info: Text,
    #[serde(default)]
    report_id: Text,
    #[serde(default)]
    policies: Few<Policy, POLICIES_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    #[serde(default)]
    start_datetime: Text,
    #[serde(default)]
    end_datetime: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Policy {
    policy: Option<Published>,
    summary: Option<Counts>,
    #[serde(default)]
    failure_details: Few<Details, DETAILS_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Published {
    #[serde(default)]
    policy_type: Text,
    #[serde(default)]
    policy_string: Few<Text, LINES_MAX>,
    #[serde(default)]
    policy_domain: Text,
    #[serde(default)]
    mx_host: Few<Text, LINES_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Counts {
    #[serde(default)]
    total_successful_session_count: Text,
    #[serde(default)]
    total_failure_session_count: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Details {
    #[serde(default)]
    result_type: Text,
    #[serde(default)]
    sending_mta_ip: Text,
    #[serde(default)]
    receiving_mx_hostname: Text,
    #[serde(default)]
    receiving_mx_helo: Text,
    #[serde(default)]
    receiving_ip: Text,
    #[serde(default)]
    failed_session_count: Text,
    #[serde(default)]
    additional_information: Text,
    #[serde(default)]
    failure_reason_code: Text,
}

/// Reads a report; one on several domains is one for each.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Vec<Report>, Unread> {
    let document: Document = serde_json::from_str(text)
        .map_err(|error| Unread::Syntax(clean(&error.to_string(), TEXT_MAX).into()))?;
    let Document { organization_name, date_range, contact_info, report_id, policies } = document;
    if policies.0.is_empty() && date_range.is_none() {
        return Err(Unread::NoReport);
    }
    let range = date_range.ok_or(Unread::Content("its period"))?;
    let time = |text: &Text| time(&text.0).ok_or(Unread::Content("its period"));
    let (begin, end) = period(time(&range.start_datetime)?.secs(), time(&range.end_datetime)?.secs())?;
    let organization = clean(&organization_name.0, NAME_MAX);
    if organization.is_empty() {
        return Err(Unread::Content("who has written it"));
    }
    let mut domains: Vec<(Box<str>, Vec<PolicyResults>)> = Vec::new();
    let mut details_left = limits.rows_max;
    for policy in policies.0 {
        let Some(published) = policy.policy else { continue };
        let Some(domain) = domain(&published.policy_domain.0) else { continue };
        let count = |count: Option<&Text>| count.map_or(0, |count| count.0.trim().parse().unwrap_or(0));
        let details: Vec<_> = policy.failure_details.0.iter().take(details_left).map(Details::kept).collect();
        details_left -= details.len();
        let results = PolicyResults {
            kind: clean(&published.policy_type.0.to_ascii_lowercase(), WORD_MAX),
            policy: lines(&published.policy_string),
            mx: lines(&published.mx_host),
            successes: count(policy.summary.as_ref().map(|summary| &summary.total_successful_session_count)),
            failures: count(policy.summary.as_ref().map(|summary| &summary.total_failure_session_count)),
            details,
        };
        match domains.iter().position(|(known, _)| *known == domain) {
            Some(place) => domains[place].1.push(results),
            None if domains.len() < super::REPORTS_MAX => domains.push((domain, vec![results])),
            None => {}
        }
    }
    if domains.is_empty() {
        return Err(Unread::Content("its policies"));
    }
    let report = |(domain, policies)| Report {
        organization: organization.clone(),
        contact: clean(&contact_info.0, NAME_MAX),
        id: clean(&report_id.0, NAME_MAX),
        domain,
        begin,
        end,
        told: Told::Tls(policies),
    };
    Ok(domains.into_iter().map(report).collect())
}

impl Details {
    fn kept(&self) -> FailureDetails {
        FailureDetails {
            result: clean(&self.result_type.0.to_ascii_lowercase(), WORD_MAX),
            from: clean(&self.sending_mta_ip.0, WORD_MAX),
            host: clean(&self.receiving_mx_hostname.0.to_ascii_lowercase(), NAME_MAX),
            helo: clean(&self.receiving_mx_helo.0, NAME_MAX),
            to: clean(&self.receiving_ip.0, WORD_MAX),
            count: self.failed_session_count.0.trim().parse().unwrap_or(0),
            information: clean(&self.additional_information.0, TEXT_MAX),
            reason: clean(&self.failure_reason_code.0, TEXT_MAX),
        }
    }
}

fn lines(lines: &Few<Text, LINES_MAX>) -> Vec<Box<str>> {
    lines.0.iter().map(|line| clean(&line.0, NAME_MAX)).collect()
}

/// "in Internet date-time format" (RFC 8460 §4.4); some leave the zone out, which then is UTC.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    Timestamp::from_rfc3339(text).or_else(|| Timestamp::from_rfc3339(&format!("{text}Z")))
}

/// A text, or a number as text. Anything else is none.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::default())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Text, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::default())
    }
}

/// A list, of which so many are kept; what is beyond is read and forgotten. One that stands alone is a list of one,
/// and nothing is an empty one.
struct Few<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for FewVisitor<T, MAX> {
    type Value = Few<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Few<T, MAX>, E> {
        Ok(Few::default())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Few<T, MAX>, E> {
        T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| Few(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Few<T, MAX>, A::Error> {
        let mut few = Vec::new();
        while few.len() < MAX {
            match items.next_element_seed(PhantomData::<T>)? {
                Some(item) => few.push(item),
                None => return Ok(Few(few)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Few(few))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, entries: A) -> Result<Few<T, MAX>, A::Error> {
        let one = PhantomData::<T>.deserialize(serde::de::value::MapAccessDeserializer::new(entries))?;
        Ok(Few(vec![one]))
    }
}
