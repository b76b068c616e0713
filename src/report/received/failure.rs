//! A report on a single message that failed: a report of RFC 5965 with the fields of RFC 6591 and RFC 9991.

use mail::Timestamp;

use super::{Failure, NAME_MAX, Report, TEXT_MAX, Told, Unread, WORD_MAX, clean, domain};
use crate::parts::{Fields, Part};

/// Octets of the fields that are looked at.
const SIZE_MAX: usize = 64 << 10;

/// Reads a report. When it was received is for others to know, where it does not say when the message came.
pub(super) fn read(part: &Part<'_>, parts: &[Part<'_>], mail: &Fields) -> Result<Report, Unread> {
    let text = part.text(SIZE_MAX);
    let (fields, _) = Fields::read(text.as_bytes());
    let value = |name: &str| fields.get(name).unwrap_or_default();
    // A complaint is not about who the message is from (RFC 5965 §3.2).
    if !value("feedback-type").trim().eq_ignore_ascii_case("auth-failure") {
        return Err(Unread::NoReport);
    }
    let kinds = ["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"];
    let original = parts.iter().find(|part| kinds.contains(&part.kind.as_str())).map(|part| {
        let text = part.text(SIZE_MAX);
        Fields::read(text.as_bytes()).0
    });
    let of_original = |name: &str| original.as_ref().and_then(|fields| fields.get(name)).unwrap_or_default();
    let author = clean(of_original("from"), NAME_MAX);
    let about = domain(value("reported-domain")).or_else(|| domain(domain_of(&author)));
    let about = about
        .or_else(|| domain(value("dkim-domain")))
        .or_else(|| domain(domain_of(value("original-mail-from"))));
    let at = date(value("arrival-date")).unwrap_or(Timestamp(0));
    let failure = Failure {
        auth_failure: word(value("auth-failure")),
        delivery_result: word(value("delivery-result")),
        alignment: word(value("identity-alignment")),
        source: value("source-ip").trim().trim_matches(['[', ']']).parse().ok(),
        incidents: value("incidents").trim().parse().unwrap_or(1),
        dkim_domain: clean(&value("dkim-domain").to_lowercase(), NAME_MAX),
        dkim_selector: clean(value("dkim-selector"), NAME_MAX),
        mail_from: clean(value("original-mail-from").trim_matches(['<', '>', ' ']), NAME_MAX),
        results: clean(value("authentication-results"), TEXT_MAX),
        author,
        subject: clean(of_original("subject"), TEXT_MAX),
        message_id: clean(of_original("message-id"), NAME_MAX),
    };
    let from = mail.get("from").unwrap_or_default();
    let reporting = value("reporting-mta").rsplit(';').next().unwrap_or_default().trim();
    Ok(Report {
        organization: clean(if reporting.is_empty() { domain_of(from) } else { reporting }, NAME_MAX),
        contact: clean(from, NAME_MAX),
        id: clean(mail.get("message-id").unwrap_or_default(), NAME_MAX),
        domain: about.ok_or(Unread::Content("the domain that it is about"))?,
        begin: at,
        end: at,
        told: Told::Failure(Box::new(failure)),
    })
}

fn word(value: &str) -> Box<str> {
    clean(&value.to_ascii_lowercase(), WORD_MAX)
}

/// Behind the last `@` of an address, with a name or without.
fn domain_of(address: &str) -> &str {
    let behind = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    behind.split(['>', ' ', ',', '(']).next().unwrap_or_default()
}

/// A date of RFC 5322 §3.3.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day: u32 = words.next()?.parse().ok()?;
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = words.next()?.to_ascii_lowercase();
    let month = months.iter().position(|name| *name == month)? + 1;
    let year: u32 = words.next()?.parse().ok()?;
    let time = words.next()?;
    let time = if time.len() == 5 { format!("{time}:00") } else { time.to_owned() };
    let zone = words.next().unwrap_or("+0000");
    let zone = match zone.split_at_checked(3) {
        Some((hours, minutes)) if zone.starts_with(['+', '-']) => format!("{hours}:{minutes}"),
        Some(_) | None => "Z".to_owned(),
    };
    Timestamp::from_rfc3339(&format!("{year:04}-{month:02}-{day:02}T{time}{zone}"))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn dates_are_those_of_mail() {
        let say = |text: &str| date(text).map(Timestamp::to_rfc3339);
        assert_eq!(say("Thu, 8 Mar 2012 12:00:01 +0100").as_deref(), Some("2012-03-08T11:00:01Z"));
        assert_eq!(say("08 Mar 2012 12:00 GMT").as_deref(), Some("2012-03-08T12:00:00Z"));
        for odd in [
            "",
            "yesterday",
            "8 Foo 2012 12:00:00 +0000",
            "8 Mar 2012",
            "8 Mar 2012 é +é",
            "9 Mar 99999 1:1 +",
        ] {
            assert_eq!(say(odd), None, "{odd}");
        }
    }
}
