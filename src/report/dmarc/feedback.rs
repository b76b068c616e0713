//! A report as it is sent: the XML of RFC 9990 appendix A, and the mail around it.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail::{Address, Timestamp};

use super::{Published, Row, Signature, Spf};

/// Who reports on what.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// Of which domain: the one whose record applies.
    pub domain: &'a str,
    /// Our name: that of the host.
    pub submitter: &'a str,
    /// Our name: that of the organization.
    pub organization: &'a str,
    /// Whom to ask.
    pub contact: &'a str,
    /// What made the report.
    pub generator: &'a str,
    /// The first second that it is about.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
    /// The record.
    pub published: &'a Published,
    /// What was counted, and how often.
    pub rows: Vec<(&'a Row, u64)>,
    /// Messages that are in none of them.
    pub untold: u64,
}

/// What a name may have in the subject of a mail and in the name of a file.
pub(super) fn is_plain(domain: &str) -> bool {
    !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

impl Feedback<'_> {
    /// In no other report, and the same when the same report is written again: it follows from what is reported
    /// (RFC 9990 §3.5.1, "MUST use the same filename as the original report").
    pub fn id(&self) -> String {
        let mut body = String::new();
        self.write_policy(&mut body);
        self.write_rows(&mut body);
        let all = format!("{} {} {} {body}", self.submitter, self.from.secs(), self.to.secs());
        let mut id = String::new();
        for octet in &digest(&SHA256, all.as_bytes()).as_ref()[..12] {
            let _ = write!(id, "{octet:02x}");
        }
        id
    }

    /// The report itself, under this id.
    pub fn to_xml(&self, id: &str) -> String {
        let mut xml = String::with_capacity(1024 + 1024 * self.rows.len());
        xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        xml.push_str("<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n");
        element(&mut xml, 1, "version", "1.0");
        xml.push_str("  <report_metadata>\n");
        element(&mut xml, 2, "org_name", self.organization);
        element(&mut xml, 2, "email", self.contact);
        element(&mut xml, 2, "report_id", id);
        xml.push_str("    <date_range>\n");
        element(&mut xml, 3, "begin", &self.from.secs().to_string());
        element(&mut xml, 3, "end", &self.to.secs().to_string());
        xml.push_str("    </date_range>\n");
        if self.untold > 0 {
            let words = format!("{} messages are in no record: there were too many that differ", self.untold);
            element(&mut xml, 2, "error", &words);
        }
        element(&mut xml, 2, "generator", self.generator);
        xml.push_str("  </report_metadata>\n");
        self.write_policy(&mut xml);
        self.write_rows(&mut xml);
        xml.push_str("</feedback>\n");
        xml
    }

    fn write_policy(&self, xml: &mut String) {
        let Published {
            policy,
            subdomains,
            nonexistent,
            dkim_mode,
            spf_mode,
            testing,
            failure_options,
            to: _,
        } = self.published;
        xml.push_str("  <policy_published>\n");
        element(xml, 2, "domain", self.domain);
        element(xml, 2, "p", policy.as_str());
        element(xml, 2, "sp", subdomains.as_str());
        element(xml, 2, "np", nonexistent.as_str());
        element(xml, 2, "adkim", dkim_mode.as_str());
        element(xml, 2, "aspf", spf_mode.as_str());
        element(xml, 2, "discovery_method", "treewalk");
        element(xml, 2, "fo", failure_options);
        element(xml, 2, "testing", if *testing { "y" } else { "n" });
        xml.push_str("  </policy_published>\n");
    }

    fn write_rows(&self, xml: &mut String) {
        let aligned = |is_aligned| if is_aligned { "pass" } else { "fail" };
        for (row, count) in &self.rows {
            xml.push_str("  <record>\n    <row>\n");
            element(xml, 3, "source_ip", &row.source.to_string());
            element(xml, 3, "count", &count.to_string());
            xml.push_str("      <policy_evaluated>\n");
            element(xml, 4, "disposition", row.disposition.as_str());
            element(xml, 4, "dkim", aligned(row.dkim_aligned));
            element(xml, 4, "spf", aligned(row.spf_aligned));
            for reason in &row.reasons {
                xml.push_str("        <reason>\n");
                element(xml, 5, "type", reason.kind.as_str());
                element(xml, 5, "comment", &reason.comment);
                xml.push_str("        </reason>\n");
            }
            xml.push_str("      </policy_evaluated>\n    </row>\n    <identifiers>\n");
            element(xml, 3, "header_from", &row.header_from);
            element(xml, 3, "envelope_from", &row.envelope_from);
            xml.push_str("    </identifiers>\n    <auth_results>\n");
            for Signature { domain, selector, result, reason } in &row.dkim {
                xml.push_str("      <dkim>\n");
                element(xml, 4, "domain", domain);
                element(xml, 4, "selector", selector);
                element(xml, 4, "result", result.as_str());
                reason.iter().for_each(|reason| element(xml, 4, "human_result", reason));
                xml.push_str("      </dkim>\n");
            }
            let Spf { domain, result, reason } = &row.spf;
            xml.push_str("      <spf>\n");
            element(xml, 4, "domain", domain);
            element(xml, 4, "scope", "mfrom");
            element(xml, 4, "result", result.as_str());
            reason.iter().for_each(|reason| element(xml, 4, "human_result", reason));
            xml.push_str("      </spf>\n    </auth_results>\n  </record>\n");
        }
    }

    /// The name of the file that it is in (RFC 9990 §3.5.2).
    pub fn file_name(&self, id: &str) -> String {
        let Self { submitter, domain, .. } = self;
        format!("{submitter}!{domain}!{}!{}!{id}.xml.gz", self.from.secs(), self.to.secs())
    }

    /// The mail that brings it (RFC 9990 §3.5.2): the report is compressed already.
    pub fn to_mail(&self, id: &str, from: &Address, to: &Address, compressed: &[u8], date: &str) -> Vec<u8> {
        let Self { domain, submitter, organization, .. } = self;
        let boundary = format!("=_dmarc_{id}");
        let file = self.file_name(id);
        let (begin, end) = (self.from.to_rfc3339(), self.to.to_rfc3339());
        let organization = ascii(organization);
        let mut mail = format!(
            "From: <{from}>\r\n\
             To: <{to}>\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{submitter}>\r\n\
             Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}>\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed;\r\n boundary=\"{boundary}\"\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             This is a DMARC aggregate report (RFC 9990) about mail that bore the name of\r\n\
             {domain}, from {begin} to {end},\r\n\
             from {organization}.\r\n\
             --{boundary}\r\n\
             Content-Type: application/gzip\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{file}\"\r\n\
             \r\n"
        );
        for line in STANDARD.encode(compressed).as_bytes().chunks(76) {
            mail.extend(line.iter().map(|byte| char::from(*byte)));
            mail.push_str("\r\n");
        }
        let _ = write!(mail, "--{boundary}--\r\n");
        mail.into_bytes()
    }
}

/// Text for a part that says it is US-ASCII, in one short line.
pub(super) fn ascii(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).take(200).collect()
}

/// Characters that mean something are written otherwise, and those that XML does not have are left out (XML 1.0 §2.2).
fn element(xml: &mut String, depth: usize, name: &str, text: &str) {
    for _ in 0..depth {
        xml.push_str("  ");
    }
    let _ = write!(xml, "<{name}>");
    for character in text.chars() {
        match character {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            '\'' => xml.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {}
            character if character.is_control() => {}
            character => xml.push(character),
        }
    }
    let _ = writeln!(xml, "</{name}>");
}
