//! A DMARC aggregate report: the XML of RFC 9990 appendix A, and of RFC 7489 appendix C before it.
//!
//! Names are looked at without their namespace, since most have none. What is not known is passed over, so that
//! either schema can be read, and what programs add to them. Entities are the five of XML and characters by number:
//! nothing is ever expanded.

use quick_xml::{Reader, events::Event};

use super::{
    Aggregate, Limits, NAME_MAX, Reason, Report, Row, Sender, Signature, TEXT_MAX, Told, Unread, WORD_MAX,
    clean, domain, period,
};

/// Elements within each other; the schema has six.
const DEPTH_MAX: usize = 16;
/// Octets of a value that are looked at.
const VALUE_MAX: usize = 2048;
/// Reasons, signatures and results of a row; errors of a report.
const EACH_MAX: usize = 20;

/// Reads a report.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Report, Unread> {
    let mut reader = Reader::from_str(text);
    let (mut draft, mut path, mut value) = (Draft::new(limits), Vec::new(), String::new());
    loop {
        let event = reader
            .read_event()
            .map_err(|error| Unread::Syntax(clean(&error.to_string(), TEXT_MAX).into()))?;
        match event {
            Event::Start(start) => {
                begin(&mut path, start.local_name().into_inner())?;
                draft.begin(&path);
                value.clear();
            }
            Event::Empty(start) => {
                begin(&mut path, start.local_name().into_inner())?;
                draft.begin(&path);
                draft.end(&path, "");
                path.pop();
                value.clear();
            }
            Event::End(_) => {
                draft.end(&path, value.trim());
                path.pop();
                value.clear();
            }
            Event::Text(text) => add(&mut value, &text),
            Event::CData(text) => add(&mut value, &text),
            Event::GeneralRef(reference) => {
                let character = match &*reference {
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "amp" => Some('&'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => reference.resolve_char_ref().ok().flatten(),
                };
                let character = character.ok_or(Unread::Entities)?;
                add(&mut value, character.encode_utf8(&mut [0; 4]));
            }
            Event::DocType(_) => return Err(Unread::Entities),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !path.is_empty() {
        return Err(Unread::Syntax("it ends before its end".to_owned()));
    }
    draft.finish()
}

fn begin(path: &mut Vec<String>, name: &str) -> Result<(), Unread> {
    if path.len() >= DEPTH_MAX {
        return Err(Unread::Syntax("its elements are too deep".to_owned()));
    }
    if path.is_empty() && !name.eq_ignore_ascii_case("feedback") {
        return Err(Unread::NoReport);
    }
    path.push(name.chars().take(WORD_MAX).collect::<String>().to_ascii_lowercase());
    Ok(())
}

fn add(value: &mut String, text: &str) {
    let room = VALUE_MAX.saturating_sub(value.len());
    value.push_str(&text[..text.floor_char_boundary(room)]);
}

/// What is known of a report so far.
struct Draft {
    rows_max: usize,
    organization: Box<str>,
    contact: Box<str>,
    id: Box<str>,
    domain: Box<str>,
    begin: Option<u64>,
    end: Option<u64>,
    aggregate: Aggregate,
    row: RowDraft,
}

#[derive(Default)]
struct RowDraft {
    source: Box<str>,
    count: Option<u64>,
    disposition: Box<str>,
    dkim: bool,
    spf: bool,
    reasons: Vec<Reason>,
    header_from: Box<str>,
    envelope_from: Box<str>,
    envelope_to: Box<str>,
    signatures: Vec<Signature>,
    senders: Vec<Sender>,
    reason: Reason,
    signature: Signature,
    sender: Sender,
}

impl Draft {
    fn new(limits: &Limits) -> Self {
        Self {
            rows_max: limits.rows_max,
            organization: "".into(),
            contact: "".into(),
            id: "".into(),
            domain: "".into(),
            begin: None,
            end: None,
            aggregate: Aggregate::default(),
            row: RowDraft::default(),
        }
    }

    fn begin(&mut self, path: &[String]) {
        match names(path)[..] {
            ["record"] => self.row = RowDraft::default(),
            [.., "policy_evaluated", "reason"] => self.row.reason = Reason::default(),
            [.., "auth_results", "dkim"] => self.row.signature = Signature::default(),
            [.., "auth_results", "spf"] => self.row.sender = Sender::default(),
            _ => {}
        }
    }

    fn end(&mut self, path: &[String], value: &str) {
        let row = &mut self.row;
        match names(path)[..] {
            ["report_metadata", "org_name"] => self.organization = clean(value, NAME_MAX),
            ["report_metadata", "email"] => self.contact = clean(value, NAME_MAX),
            ["report_metadata", "report_id"] => self.id = clean(value, NAME_MAX),
            ["report_metadata", "date_range", "begin"] => self.begin = value.parse().ok(),
            ["report_metadata", "date_range", "end"] => self.end = value.parse().ok(),
            ["report_metadata", "error"] if self.aggregate.errors.len() < EACH_MAX => {
                self.aggregate.errors.push(clean(value, TEXT_MAX));
            }
            ["policy_published", "domain"] => self.domain = clean(value, NAME_MAX),
            ["policy_published", tag] if self.aggregate.policy.len() < EACH_MAX && !value.is_empty() => {
                self.aggregate.policy.push((clean(tag, WORD_MAX), clean(value, WORD_MAX)));
            }
            ["record", "row", "source_ip"] => row.source = clean(value, WORD_MAX),
            ["record", "row", "count"] => row.count = value.parse().ok(),
            ["record", "row", "policy_evaluated", "disposition"] => row.disposition = word(value),
            ["record", "row", "policy_evaluated", "dkim"] => row.dkim = is_pass(value),
            ["record", "row", "policy_evaluated", "spf"] => row.spf = is_pass(value),
            [.., "policy_evaluated", "reason", "type"] => row.reason.kind = word(value),
            [.., "policy_evaluated", "reason", "comment"] => row.reason.comment = clean(value, TEXT_MAX),
            [.., "policy_evaluated", "reason"] if !row.reason.kind.is_empty() => {
                keep(&mut row.reasons, std::mem::take(&mut row.reason));
            }
            ["record", "identifiers" | "identities", which] => match which {
                "header_from" => row.header_from = name(value),
                "envelope_from" => row.envelope_from = name(value),
                "envelope_to" => row.envelope_to = name(value),
                _ => {}
            },
            [.., "auth_results", "dkim", which] => match which {
                "domain" => row.signature.domain = name(value),
                "selector" => row.signature.selector = clean(value, NAME_MAX),
                "result" => row.signature.result = word(value),
                "human_result" => row.signature.reason = clean(value, TEXT_MAX),
                _ => {}
            },
            [.., "auth_results", "dkim"] if !row.signature.result.is_empty() => {
                keep(&mut row.signatures, std::mem::take(&mut row.signature));
            }
            [.., "auth_results", "spf", which] => match which {
                "domain" => row.sender.domain = name(value),
                "scope" => row.sender.scope = word(value),
                "result" => row.sender.result = word(value),
                "human_result" => row.sender.reason = clean(value, TEXT_MAX),
                _ => {}
            },
            [.., "auth_results", "spf"] if !row.sender.result.is_empty() => {
                keep(&mut row.senders, std::mem::take(&mut row.sender));
            }
            ["record"] => self.end_record(),
            _ => {}
        }
    }

    fn end_record(&mut self) {
        let row = std::mem::take(&mut self.row);
        let (Ok(source), Some(count)) = (row.source.parse(), row.count) else {
            self.aggregate.malformed += 1;
            return;
        };
        if self.aggregate.rows.len() >= self.rows_max {
            self.aggregate.more = self.aggregate.more.saturating_add(count);
            return;
        }
        self.aggregate.rows.push(Row {
            source,
            count,
            disposition: if row.disposition.is_empty() { "none".into() } else { row.disposition },
            dkim: row.dkim,
            spf: row.spf,
            reasons: row.reasons,
            header_from: row.header_from,
            envelope_from: row.envelope_from,
            envelope_to: row.envelope_to,
            signatures: row.signatures,
            senders: row.senders,
        });
    }

    fn finish(self) -> Result<Report, Unread> {
        let domain = domain(&self.domain).ok_or(Unread::Content("the domain that it is about"))?;
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return Err(Unread::Content("its period"));
        };
        let (begin, end) = period(begin, end)?;
        if self.organization.is_empty() {
            return Err(Unread::Content("who has written it"));
        }
        if self.aggregate.rows.is_empty() && self.aggregate.malformed > 0 {
            return Err(Unread::Content("its rows"));
        }
        let Self { organization, contact, id, mut aggregate, .. } = self;
        for row in &mut aggregate.rows {
            // By the old schema it may be left out, where it can only be this one.
            if row.header_from.is_empty() {
                row.header_from = domain.clone();
            }
        }
        Ok(Report { organization, contact, id, domain, begin, end, told: Told::Dmarc(aggregate) })
    }
}

/// The names within the root.
fn names(path: &[String]) -> Vec<&str> {
    path.iter().skip(1).map(String::as_str).collect()
}

fn keep<T>(list: &mut Vec<T>, value: T) {
    if list.len() < EACH_MAX {
        list.push(value);
    }
}

fn word(value: &str) -> Box<str> {
    clean(&value.to_ascii_lowercase(), WORD_MAX)
}

fn name(value: &str) -> Box<str> {
    clean(&value.trim_end_matches('.').to_lowercase(), NAME_MAX)
}

fn is_pass(value: &str) -> bool {
    value.eq_ignore_ascii_case("pass")
}
