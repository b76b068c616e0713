//! Reports about TLS towards the hosts of a domain, for whoever answers for it (RFC 8460).

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail::{Address, Timestamp};
use serde_json::{Value, json};

/// Where a domain wants its reports (RFC 8460 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rua {
    /// By mail.
    Mail(Address),
    /// By HTTPS: the host, its port, and the rest from the slash on.
    Https(Box<str>, u16, Box<str>),
}

/// Who reports on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsReport<'a> {
    /// Of which domain.
    pub domain: &'a str,
    /// Our name: that of the host.
    pub submitter: &'a str,
    /// Our name: that of the organization.
    pub organization: &'a str,
    /// Whom to ask.
    pub contact: &'a str,
    /// In no other report.
    pub id: &'a str,
    /// The first moment that it is about.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
    /// How it went, by policy.
    pub policies: Vec<PolicyResults>,
}

/// How it went by one policy (RFC 8460 §4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyResults {
    /// `tlsa`, `sts`, or `no-policy-found`.
    pub kind: &'static str,
    /// The policy, line by line.
    pub lines: Vec<String>,
    /// Whose.
    pub domain: String,
    /// The hosts that it names.
    pub mx: Vec<String>,
    /// Sessions that kept to it.
    pub successes: u64,
    /// Sessions that did not.
    pub failures: u64,
    /// These in detail.
    pub details: Vec<FailureDetails>,
}

/// What went wrong, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureDetails {
    /// The result type (RFC 8460 §4.3).
    pub result: &'static str,
    /// Our address, when it is known.
    pub from: Option<IpAddr>,
    /// The host.
    pub host: Option<String>,
    /// Its address.
    pub to: Option<IpAddr>,
    /// How often.
    pub count: u64,
    /// In our words.
    pub reason: Option<String>,
}

/// Nobody needs more places to send a report to.
const RUA_MAX: usize = 4;

/// Where the TXT records of `_smtp._tls.<domain>` want reports. None: nowhere.
pub fn rua<T: AsRef<[u8]>>(texts: &[T]) -> Vec<Rua> {
    let announced = |text: &&[u8]| {
        text.strip_prefix(b"v=TLSRPTv1").is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
    };
    let mut records = texts.iter().map(AsRef::as_ref).filter(announced);
    // "If the number of resulting records is not one, […] the recipient domain does not implement TLSRPT" (§3).
    let (Some(record), None) = (records.next(), records.next()) else { return Vec::new() };
    let Ok(record) = std::str::from_utf8(record) else { return Vec::new() };
    let fields = record.split(';').map(|field| field.trim_matches([' ', '\t']));
    let Some(places) = fields.skip(1).find_map(|field| field.strip_prefix("rua=")) else { return Vec::new() };
    places.split(',').filter_map(|place| Rua::parse(place.trim_matches([' ', '\t']))).take(RUA_MAX).collect()
}

impl Rua {
    fn parse(uri: &str) -> Option<Self> {
        if let Some((scheme, address)) = uri.split_once(':')
            && scheme.eq_ignore_ascii_case("mailto")
        {
            // Parameters of the URI are for programs that people write mail with (RFC 6068 §2).
            let address = percent_decoded(address.split('?').next()?)?;
            return Address::parse(&address).ok().filter(Address::is_ascii).map(Self::Mail);
        }
        let (scheme, rest) = uri.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("https") || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (place, 443),
        };
        let is_host =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let path = if path.is_empty() { "/" } else { path };
        is_host.then(|| Self::Https(host.into(), port, path.into()))
    }
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let (mut decoded, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        decoded.push(match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    Some(decoded)
}

impl TlsReport<'_> {
    /// The report itself (RFC 8460 §4.4).
    pub fn to_json(&self) -> String {
        let policies: Vec<Value> = self.policies.iter().map(PolicyResults::to_json).collect();
        json!({
            "organization-name": self.organization,
            "date-range": {
                "start-datetime": self.from.to_rfc3339(),
                "end-datetime": self.to.to_rfc3339(),
            },
            "contact-info": self.contact,
            "report-id": self.id,
            "policies": policies,
        })
        .to_string()
    }

    /// The name of the file that it is in (RFC 8460 §5.1).
    pub fn file_name(&self) -> String {
        let secs = |time: Timestamp| time.0 / 1_000_000;
        format!(
            "{}!{}!{}!{}!{}.json.gz",
            self.submitter,
            self.domain,
            secs(self.from),
            secs(self.to),
            self.id
        )
    }

    /// The mail that brings it (RFC 8460 §5.3): the report is compressed already.
    pub fn to_mail(&self, from: &Address, to: &Address, compressed: &[u8], date: &str) -> Vec<u8> {
        let Self { domain, submitter, id, .. } = self;
        let boundary = format!("=_tlsrpt_{id}");
        let file = self.file_name();
        let mut mail = format!(
            "From: <{from}>\r\n\
             To: <{to}>\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{submitter}>\r\n\
             Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}@{submitter}>\r\n\
             TLS-Report-Domain: {domain}\r\n\
             TLS-Report-Submitter: {submitter}\r\n\
             TLS-Required: No\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\"\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             This is a report about TLS towards the mail hosts of {domain},\r\n\
             from {submitter}.\r\n\
             --{boundary}\r\n\
             Content-Type: application/tlsrpt+gzip\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{file}\"\r\n\
             \r\n"
        );
        for line in STANDARD.encode(compressed).as_bytes().chunks(76) {
            mail.extend(line.iter().map(|byte| char::from(*byte)));
            mail.push_str("\r\n");
        }
        mail.push_str(&format!("--{boundary}--\r\n"));
        mail.into_bytes()
    }
}

impl PolicyResults {
    fn to_json(&self) -> Value {
        let mut policy = json!({ "policy-type": self.kind, "policy-domain": self.domain });
        if !self.lines.is_empty() {
            policy["policy-string"] = json!(self.lines);
        }
        if !self.mx.is_empty() {
            policy["mx-host"] = json!(self.mx);
        }
        let mut results = json!({
            "policy": policy,
            "summary": {
                "total-successful-session-count": self.successes,
                "total-failure-session-count": self.failures,
            },
        });
        if !self.details.is_empty() {
            let details: Vec<Value> = self.details.iter().map(FailureDetails::to_json).collect();
            results["failure-details"] = json!(details);
        }
        results
    }
}

impl FailureDetails {
    fn to_json(&self) -> Value {
        let mut details = json!({ "result-type": self.result, "failed-session-count": self.count });
        let texts = [
            ("sending-mta-ip", self.from.map(|address| address.to_string())),
            ("receiving-mx-hostname", self.host.clone()),
            ("receiving-ip", self.to.map(|address| address.to_string())),
            ("failure-reason-code", self.reason.clone()),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                details[key] = json!(text);
            }
        }
        details
    }
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod test;
