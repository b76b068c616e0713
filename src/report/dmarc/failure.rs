//! What a domain is told of one message that bore its name and failed: a failure report (RFC 9991, RFC 6591), in the Abuse Reporting Format
//! (RFC 5965), with persons left out ([`crate::Redactor`]) and without the body.

use std::{fmt::Write as _, net::IpAddr};

use aws_lc_rs::digest::{SHA256, digest};
use mail::{Address, Timestamp};

use super::{Destination, feedback::ascii};
use crate::{
    Redactor,
    redact::{Shown, folded},
};

/// A message that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The domain whose record applies.
    pub domain: Box<str>,
    /// That of its author.
    pub author: Box<str>,
    /// `ruf=`: addresses of mail, in order.
    pub to: Vec<Destination>,
    /// What is reported.
    pub kind: FailureKind,
    /// What stands by the author, and should.
    pub unaligned: Unaligned,
    /// What became of it.
    pub delivery: DeliveryResult,
    /// Who brought it.
    pub source: IpAddr,
    /// The reverse-path.
    pub mail_from: Box<str>,
    /// When it came.
    pub arrival: Timestamp,
    /// The signature that failed, where one did that should stand by the author.
    pub signature: Option<FailedSignature>,
    /// The domain whose SPF record speaks against it, where one does that should stand by the author.
    pub spf: Option<Box<str>>,
    /// What was found, as the value of an `Authentication-Results` field; folded as it is.
    pub results: Vec<u8>,
    /// Its header section, cut if it is long.
    pub header: Vec<u8>,
}

/// What kind of failure it is (RFC 6591 §3.3, RFC 9991 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// What should stand by the author does not.
    Dmarc,
    /// A signature is wrong.
    Signature,
    /// The body is not what was signed.
    BodyHash,
    /// The key of a signature is revoked.
    Revoked,
    /// SPF.
    Spf,
}

/// Which of the two do not stand by the author.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unaligned {
    /// No signature does.
    pub dkim: bool,
    /// SPF does not.
    pub spf: bool,
}

/// What became of a message (RFC 6591 §3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// It was taken.
    Delivered,
    /// It was taken, and something was done about it.
    Policy,
    /// It was refused.
    Reject,
}

/// A signature that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedSignature {
    /// `d=`
    pub domain: Box<str>,
    /// `i=`; empty where there is none.
    pub identity: Box<str>,
    /// `s=`
    pub selector: Box<str>,
}

/// Who reports, and what is told.
#[derive(Clone, Copy, Debug)]
pub struct FailureReport<'a> {
    /// On what.
    pub failure: &'a Failure,
    /// Our name: that of the host.
    pub submitter: &'a str,
    /// What made the report, as a product and its version: `ringpost/1.0`.
    pub generator: &'a str,
    /// Puts other words in the place of persons.
    pub redactor: &'a Redactor,
    /// What is shown of the message.
    pub shown: Shown,
    /// The SPF record of [`Failure::spf`], if it is known.
    pub spf_record: Option<&'a str>,
    /// How many messages like this one it is about.
    pub incidents: u32,
}

/// Octets of a value that a stranger has chosen.
const VALUE_MAX: usize = 255;
/// Octets of an SPF record that are shown.
const RECORD_MAX: usize = 450;

impl FailureKind {
    /// As `Auth-Failure` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc",
            Self::Signature => "signature",
            Self::BodyHash => "bodyhash",
            Self::Revoked => "revoked",
            Self::Spf => "spf",
        }
    }
}

impl DeliveryResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Policy => "policy",
            Self::Reject => "reject",
        }
    }
}

impl Unaligned {
    /// "A comma-separated list of authentication mechanism names that failed to authenticate an aligned identity, or the keyword
    /// "none" if none did" (RFC 9991 §4).
    const fn as_str(self) -> &'static str {
        match (self.dkim, self.spf) {
            (true, true) => "dkim, spf",
            (true, false) => "dkim",
            (false, true) => "spf",
            (false, false) => "none",
        }
    }
}

impl FailureReport<'_> {
    /// In no other report.
    pub fn id(&self) -> String {
        let Failure { domain, source, arrival, header, .. } = self.failure;
        let all =
            [format!("{} {domain} {source} {} ", self.submitter, arrival.0).as_bytes(), header].concat();
        let mut id = String::new();
        for octet in &digest(&SHA256, &all).as_ref()[..12] {
            let _ = write!(id, "{octet:02x}");
        }
        id
    }

    /// The mail that brings it.
    pub fn to_mail(&self, id: &str, from: &Address, to: &Address, date: &str) -> Vec<u8> {
        let Failure { author, source, arrival, header, .. } = self.failure;
        let submitter = self.submitter;
        let boundary = format!("=_failure_{id}");
        let author = ascii(author);
        let came = String::from_utf8_lossy(message::date::date_text(*arrival).as_ref()).into_owned();
        let (feedback, header) = (self.feedback(&came), self.redactor.header(header, self.shown));
        format!(
            "From: <{from}>\r\n\
             To: <{to}>\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{submitter}>\r\n\
             Subject: Authentication failure of mail from\r\n {author}\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=feedback-report;\r\n boundary=\"{boundary}\"\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             This is a report (RFC 9991) of a message that says that it is from\r\n\
             {author},\r\n\
             and does not prove it. It came from {source} on\r\n\
             {came}. In what follows, names of persons\r\n\
             are replaced by hashes or left out, as is all that was written.\r\n\
             --{boundary}\r\n\
             Content-Type: message/feedback-report\r\n\
             \r\n\
             {feedback}\r\n\
             --{boundary}\r\n\
             Content-Type: text/rfc822-headers; charset=us-ascii\r\n\
             \r\n\
             {header}\
             --{boundary}--\r\n"
        )
        .into_bytes()
    }

    /// The part that programs read.
    fn feedback(&self, came: &str) -> String {
        let Failure { domain: _, author, to: _, kind, unaligned, delivery, source, mail_from, .. } =
            self.failure;
        let mut out = String::with_capacity(1024);
        let mut field = |name: &str, value: &str| folded(&mut out, name, value);
        let private = |value: &str| {
            let mut text = self.redactor.text(value.as_bytes());
            text.truncate(VALUE_MAX);
            text
        };
        field("Feedback-Type", "auth-failure");
        field("Version", "1");
        field("User-Agent", &ascii(self.generator));
        field("Auth-Failure", kind.as_str());
        field("Delivery-Result", delivery.as_str());
        let mut results = self.redactor.text(&self.failure.results);
        // Some hundred octets for each signature, of which there are as many as are looked at.
        results.truncate(4096);
        field("Authentication-Results", &results);
        field("Identity-Alignment", unaligned.as_str());
        if let Some(FailedSignature { domain, identity, selector }) = &self.failure.signature {
            field("DKIM-Domain", &private(domain));
            // "required" as it is, the default of `i=` is told (RFC 6376 §3.5).
            let identity = if identity.is_empty() { format!("@{domain}") } else { identity.to_string() };
            field("DKIM-Identity", &private(&identity));
            field("DKIM-Selector", &private(selector));
        }
        if let (Some(domain), Some(record)) = (&self.failure.spf, self.spf_record) {
            let record = self.redactor.text(record.as_bytes()).replace(['\\', '"'], "?");
            let record = &record[..record.len().min(RECORD_MAX)];
            field("SPF-DNS", &format!("txt : {} : \"{record}\"", private(domain)));
        }
        field("Reporting-MTA", &format!("dns; {}", self.submitter));
        field("Original-Mail-From", &format!("<{}>", private(mail_from)));
        field("Arrival-Date", came);
        field("Source-IP", &source.to_string());
        field("Reported-Domain", &ascii(author));
        if self.incidents > 1 {
            field("Incidents", &self.incidents.to_string());
        }
        out
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{Incoming, IncomingLimits};

    fn failure() -> Failure {
        Failure {
            domain: "example.org".into(),
            author: "news.example.org".into(),
            to: Vec::new(),
            kind: FailureKind::Dmarc,
            unaligned: Unaligned { dkim: true, spf: true },
            delivery: DeliveryResult::Reject,
            source: [192, 0, 2, 1].into(),
            mail_from: "secret.person@bounce.example".into(),
            arrival: Timestamp(1_795_953_600_000_000),
            signature: Some(FailedSignature {
                domain: "example.org".into(),
                identity: "secret.person@example.org".into(),
                selector: "s1".into(),
            }),
            spf: Some("bounce.example".into()),
            results: b"mx.example.net;\r\n\tspf=fail smtp.mailfrom=secret.person@bounce.example;\r\n\tdmarc=fail".to_vec(),
            header: b"From: Secret Person <secret.person@news.example.org>\r\nMessage-ID: <7@example.org>\r\n\
                      Return-Path: <secret.person@bounce.example>\r\nTo: bob@example.net\r\nX-Secret: secret\r\n"
                .to_vec(),
        }
    }

    fn report<'a>(failure: &'a Failure, redactor: &'a Redactor) -> FailureReport<'a> {
        FailureReport {
            failure,
            submitter: "mx.example.net",
            generator: "ringpost/1.0",
            redactor,
            shown: Shown { subject: false, size_max: 16 << 10 },
            spf_record: Some("v=spf1 exp=\"x\" -all"),
            incidents: 3,
        }
    }

    fn mail(report: &FailureReport<'_>) -> String {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let (from, to) = (address("dmarc@example.net"), address("ruf@example.org"));
        String::from_utf8(report.to_mail("1f", &from, &to, "today")).unwrap()
    }

    #[test]
    fn our_reader_reads_what_we_write() {
        let (failure, redactor) = (failure(), Redactor::new(Some("0123456789abcdef")));
        let mail = mail(&report(&failure, &redactor));
        let Incoming::Complaint(told) = crate::read(&[mail.clone().into()], &IncomingLimits::default())
        else {
            panic!("{mail}");
        };
        let hash = redactor.local_part(b"secret.person");
        assert_eq!(
            (&*told.feedback_type, told.user_agent.as_deref()),
            ("auth-failure", Some("ringpost/1.0"))
        );
        assert_eq!(told.mail_from.unwrap().as_str(), format!("{hash}@bounce.example"));
        assert_eq!((told.source_ip.as_deref(), told.incidents), (Some("192.0.2.1"), 3));
        assert_eq!(told.domains, ["news.example.org".into()]);
        assert_eq!(told.original.message_id.as_deref(), Some("<7@example.org>"));
        assert_eq!(told.original.return_path.unwrap().as_str(), format!("{hash}@bounce.example"));
    }

    #[test]
    fn all_that_is_required_is_told_and_no_persons_are() {
        let (failure, redactor) = (failure(), Redactor::new(None));
        let mail = mail(&report(&failure, &redactor));
        assert!(!mail.to_ascii_lowercase().contains("secret"), "{mail}");
        let hash = redactor.local_part(b"secret.person");
        for line in [
            "Auth-Failure: dmarc",
            "Delivery-Result: reject",
            "Identity-Alignment: dkim, spf",
            "DKIM-Domain: example.org",
            &format!("DKIM-Identity: {hash}@example.org"),
            "DKIM-Selector: s1",
            "SPF-DNS: txt : bounce.example : \"v=spf1 exp=?x? -all\"",
            "Reporting-MTA: dns; mx.example.net",
            "Source-IP: 192.0.2.1",
            "Incidents: 3",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(mail.contains(&format!("\r\n{line}\r\n")), "{line}\n{mail}");
        }
        assert!(mail.is_ascii() && mail.split("\r\n").all(|line| line.len() < 998), "{mail}");
        let plain =
            Failure { signature: None, spf: None, unaligned: Unaligned::default(), ..failure.clone() };
        let single = FailureReport { incidents: 1, spf_record: None, ..report(&plain, &redactor) };
        let mail = self::mail(&single);
        assert!(mail.contains("Identity-Alignment: none\r\n"));
        assert!(!["DKIM-", "SPF-DNS", "Incidents"].iter().any(|name| mail.contains(&format!("\r\n{name}"))));
        let later = Failure { arrival: Timestamp(failure.arrival.0 + 1), ..plain.clone() };
        assert_ne!(report(&plain, &redactor).id(), report(&later, &redactor).id());
    }

    #[test]
    fn strangers_cannot_write_into_it() {
        let evil = "a\r\nInjected: yes\r\n\r\n--=_failure_1f--\r\n\u{202e}\0";
        let failure = Failure {
            author: evil.into(),
            mail_from: evil.into(),
            signature: Some(FailedSignature {
                domain: evil.into(),
                identity: evil.repeat(100).into(),
                selector: evil.into(),
            }),
            spf: Some(evil.into()),
            results: evil.repeat(1000).into_bytes(),
            header: format!("From: {evil}@x\r\nReceived: x\r\n --=_failure_1f--\r\nTo:{evil}\r\n")
                .into_bytes(),
            ..failure()
        };
        let redactor = Redactor::new(None);
        let report = FailureReport { spf_record: Some(evil), ..report(&failure, &redactor) };
        let mail = mail(&report);
        assert!(!mail.contains("\nInjected") && mail.matches("\r\n--=_failure_1f").count() == 4, "{mail}");
        assert!(
            mail.bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\r' | b'\n')) && mail.len() < 16 << 10
        );
    }
}
