//! What was found, for people and for programs.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The names of our addresses.
    Ptr,
    /// What we greet as.
    Helo,
    /// Lists of the DNS.
    Dnsbl,
    /// Who may send (RFC 7208).
    Spf,
    /// Signatures (RFC 6376).
    Dkim,
    /// What holds both together (RFC 9989).
    Dmarc,
    /// Where its own mail goes.
    Mx,
    /// The TLS of these hosts.
    Tls,
    /// What its policy says of it (RFC 8461).
    MtaSts,
    /// What its signed zone says of it (RFC 7672).
    Dane,
    /// Where reports about it go (RFC 8460).
    TlsRpt,
    /// Its picture.
    Bimi,
    /// Links to leave lists (RFC 8058).
    Unsubscribe,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Pass,
    /// It could be better, and harms nobody.
    Note,
    /// Some hosts will hold it against the mail, or it could not be found out.
    Warn,
    /// Mail is refused, or taken for spam, for this.
    Fail,
}

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// At which name.
    pub name: String,
    /// Of which type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says; of a text record the text, in one piece.
    pub value: String,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// Of whom: an address, a host, a selector, a domain.
    pub subject: String,
    /// What is so.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The record that says it as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Record>,
}

/// All that was found of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of whom.
    pub domain: String,
    /// When: seconds since 1970.
    pub at: u64,
    /// What.
    pub findings: Vec<Finding>,
}

impl Check {
    /// All, in the order of a report.
    pub const ALL: [Self; 13] = [
        Self::Ptr,
        Self::Helo,
        Self::Dnsbl,
        Self::Spf,
        Self::Dkim,
        Self::Dmarc,
        Self::Mx,
        Self::Tls,
        Self::MtaSts,
        Self::Dane,
        Self::TlsRpt,
        Self::Bimi,
        Self::Unsubscribe,
    ];

    /// In reports, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ptr => "ptr",
            Self::Helo => "helo",
            Self::Dnsbl => "dnsbl",
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
            Self::Mx => "mx",
            Self::Tls => "tls",
            Self::MtaSts => "mta-sts",
            Self::Dane => "dane",
            Self::TlsRpt => "tls-rpt",
            Self::Bimi => "bimi",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

impl Severity {
    /// In reports and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// As a metric has it: the more, the worse.
    pub const fn level(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Note => 1,
            Self::Warn => 2,
            Self::Fail => 3,
        }
    }
}

impl Finding {
    pub(crate) fn new(check: Check, severity: Severity, subject: impl fmt::Display, text: String) -> Self {
        Self { check, severity, subject: subject.to_string(), text, remedy: None, publish: None }
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    pub(crate) fn publish(self, name: impl fmt::Display, kind: &str, value: impl Into<String>) -> Self {
        let record = Record { name: name.to_string(), kind: kind.to_owned(), value: value.into() };
        Self { publish: Some(record), ..self }
    }
}

impl Record {
    /// A text record.
    pub fn text(name: impl fmt::Display, value: impl Into<String>) -> Self {
        Self { name: name.to_string(), kind: "TXT".to_owned(), value: value.into() }
    }
}

impl fmt::Display for Record {
    /// As a zone file has it (RFC 1035 §5.1): a text in strings of 255 octets at most, which are joined without
    /// anything between them
    /// (RFC 6376 §3.6.2.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STRING_MAX: usize = 255;
        let Self { name, kind, value } = self;
        // Whatever else a name has is no part of the syntax: whose it is may be another's to say.
        let name = name.chars().fold(String::with_capacity(name.len()), |mut name, c| {
            if !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | '*' | '/') {
                name.push('\\');
            }
            name.push(c);
            name
        });
        if kind != "TXT" {
            return write!(f, "{name}. IN {kind} {value}");
        }
        let quoted = |string: &[u8]| {
            let mut text = String::new();
            for octet in string {
                match octet {
                    b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
                    b' '..=b'~' => text.push(char::from(*octet)),
                    _ => _ = write!(text, "\\{octet:03}"),
                }
            }
            text
        };
        if value.len() <= STRING_MAX {
            return write!(f, "{name}. IN TXT \"{}\"", quoted(value.as_bytes()));
        }
        write!(f, "{name}. IN TXT (")?;
        for string in value.as_bytes().chunks(STRING_MAX) {
            write!(f, "\n    \"{}\"", quoted(string))?;
        }
        f.write_str("\n)")
    }
}

impl Report {
    /// The worst of it.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Pass)
    }

    /// The worst of what was looked at, for each check that has a finding.
    pub fn by_check(&self) -> impl Iterator<Item = (Check, Severity)> {
        Check::ALL.into_iter().filter_map(|check| {
            let of_check = self.findings.iter().filter(|finding| finding.check == check);
            Some((check, of_check.map(|finding| finding.severity).max()?))
        })
    }

    /// The worst thing that was found in a check.
    pub fn worst_of(&self, check: Check) -> Option<&Finding> {
        let of_check = self.findings.iter().filter(|finding| finding.check == check);
        // Of several the first.
        of_check.rev().max_by_key(|finding| finding.severity)
    }

    /// How many findings of a severity there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl fmt::Display for Report {
    /// For people: what is wrong stands where it is looked for, with what to do below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |severity| self.count(severity);
        writeln!(
            f,
            "{}: {} failed, {} to be warned of, {} to be noted, {} passed\n",
            self.domain,
            count(Severity::Fail),
            count(Severity::Warn),
            count(Severity::Note),
            count(Severity::Pass)
        )?;
        for Finding { check, severity, subject, text, remedy, publish } in &self.findings {
            let severity = match severity {
                Severity::Pass => "pass",
                Severity::Note => "note",
                Severity::Warn => "WARN",
                Severity::Fail => "FAIL",
            };
            writeln!(f, "{severity}  {:<11}  {subject}: {text}", check.as_str())?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:19}to do: {remedy}", "")?;
            }
            if let Some(record) = publish {
                writeln!(f, "{:19}publish:", "")?;
                for line in record.to_string().lines() {
                    writeln!(f, "{:19}    {line}", "")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn records_as_a_zone_file_has_them() {
        let text = |value: &str| Record::text("a.example", value).to_string();
        assert_eq!(text("v=spf1 -all"), "a.example. IN TXT \"v=spf1 -all\"");
        assert_eq!(text("a\"b\\c\u{e9}"), "a.example. IN TXT \"a\\\"b\\\\c\\195\\169\"");
        let long = text(&"x".repeat(300));
        assert_eq!(
            long,
            format!("a.example. IN TXT (\n    \"{}\"\n    \"{}\"\n)", "x".repeat(255), "x".repeat(45))
        );
        let odd = Record::text("$a;(\"@.example", "x").to_string();
        assert_eq!(odd, "\\$a\\;\\(\\\"\\@.example. IN TXT \"x\"");
        let record = Record { name: "a.example".into(), kind: "A".into(), value: "192.0.2.1".into() };
        assert_eq!(record.to_string(), "a.example. IN A 192.0.2.1");
    }

    #[test]
    fn as_people_and_programs_read_it() {
        let pass = Finding::new(Check::Ptr, Severity::Pass, "192.0.2.1", "it is mx.example.org".into());
        let fail = Finding::new(Check::Spf, Severity::Fail, "example.org", "there is no record".into())
            .remedy("publish one")
            .publish("example.org", "TXT", "v=spf1 ip4:192.0.2.1 -all");
        let report = Report { domain: "example.org".into(), at: 7, findings: vec![pass, fail] };
        assert_eq!(
            report.to_string(),
            "example.org: 1 failed, 0 to be warned of, 0 to be noted, 1 passed\n\n\
             pass  ptr          192.0.2.1: it is mx.example.org\n\
             FAIL  spf          example.org: there is no record\n                   to do: publish one\n                   \
             publish:\n                       example.org. IN TXT \"v=spf1 ip4:192.0.2.1 -all\"\n"
        );
        assert_eq!(report.worst(), Severity::Fail);
        let by_check: Vec<_> = report.by_check().collect();
        assert_eq!(by_check, [(Check::Ptr, Severity::Pass), (Check::Spf, Severity::Fail)]);
        assert_eq!(report.worst_of(Check::Spf).unwrap().subject, "example.org");
        assert_eq!(report.worst_of(Check::Bimi), None);
    }
}
