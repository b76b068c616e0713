//! The fields that tell what was found: `Authentication-Results` (RFC 8601) and `Received-SPF` (RFC 7208 §9.1).
//!
//! What peers say in them cannot break out of its place, and fields of others that carry our name are found, so that
//! they can be left out (RFC 8601 §5).

use dns::Name;

use crate::{
    Alignment, ArcChain, ArcResult, Author, Bimi, Client, Dkim, Dmarc, DmarcResult, Iprev, KeyUse,
    SignerAligned, Spf, SpfIdentity, SpfResult, Unsubscribe, Verdict, fields::Field,
};

/// The field that says what speaks against a message, after our name.
pub const WARNING: &str = "X-Authentication-Warning";

/// The field that says how a message's list may be left, after our name.
pub const UNSUBSCRIBE_RESULT: &str = "X-Unsubscribe-Result";

/// Where a line is folded if it can be (RFC 5322 §2.1.1).
const LINE_LEN: usize = 78;
/// Longer values of peers are cut.
const VALUE_LEN_MAX: usize = 255;

/// Appends an `Authentication-Results` field.
pub fn authentication_results(out: &mut Vec<u8>, authserv_id: &str, client: &Client, verdict: &Verdict) {
    authentication_results_with(out, authserv_id, (client, verdict), None);
}

/// Likewise, with what was found of the domain's picture, where that was looked for.
pub fn authentication_results_with(
    out: &mut Vec<u8>,
    authserv_id: &str,
    (client, verdict): (&Client, &Verdict),
    bimi: Option<&Bimi>,
) {
    findings(Folded::new("Authentication-Results", authserv_id), out, (client, verdict), bimi);
}

/// Appends the same as a part of the set with this number (RFC 8617 §4.1.1).
pub(crate) fn arc_authentication_results(
    out: &mut Vec<u8>,
    instance: u32,
    authserv_id: &str,
    client: &Client,
    verdict: &Verdict,
) {
    let first = format!("i={instance}; {authserv_id}");
    findings(Folded::new("ARC-Authentication-Results", &first), out, (client, verdict), None);
}

fn findings(
    mut field: Folded,
    out: &mut Vec<u8>,
    (client, verdict): (&Client, &Verdict),
    asserted: Option<&Bimi>,
) {
    iprev(&mut field, &verdict.envelope.iprev);
    spf(&mut field, &verdict.envelope.mail_from, client);
    spf(&mut field, &verdict.envelope.helo, client);
    if verdict.dkim.is_empty() {
        field.result("dkim", "none");
    }
    for signature in &verdict.dkim {
        dkim(&mut field, signature);
    }
    arc(&mut field, &verdict.arc);
    dmarc(&mut field, &verdict.dmarc);
    if let Some(asserted) = asserted {
        bimi(&mut field, asserted);
    }
    field.end(out);
}

/// Appends a `Received-SPF` field about one identity.
pub fn received_spf(out: &mut Vec<u8>, receiver: &str, client: &Client, spf: &Spf) {
    let mut field = Folded::new("Received-SPF", spf.result.as_str());
    if let Ok(domain) = Name::parse(&spf.domain) {
        let address = client.address;
        field.comment(&match spf.result {
            SpfResult::Pass => format!("{receiver}: {domain} permits {address}"),
            SpfResult::Fail => format!("{receiver}: {domain} does not permit {address}"),
            SpfResult::SoftFail => format!("{receiver}: {domain} probably does not permit {address}"),
            SpfResult::Neutral => format!("{receiver}: {domain} does not say whether it permits {address}"),
            SpfResult::None => format!("{receiver}: {domain} has no SPF record"),
            SpfResult::TempError => format!("{receiver}: the SPF record of {domain} is not available"),
            SpfResult::PermError => format!("{receiver}: the SPF record of {domain} makes no sense"),
        });
    }
    let mut pair = |key: &str, value: &str| field.word(&format!("{key}={value};"));
    pair("receiver", receiver);
    pair("client-ip", &value(&client.address.to_string()));
    let envelope_from = client.mail_from.address().map_or("", |address| address.as_str());
    pair("envelope-from", &quoted(envelope_from));
    pair("helo", &value(&client.helo));
    pair("identity", spf.identity.as_str());
    if let Some(mechanism) = &spf.mechanism {
        pair("mechanism", &value(mechanism));
    }
    if let Some(problem) = spf.problem {
        pair("problem", &quoted(&problem.to_string()));
    }
    field.end(out);
}

/// Appends what was found of the fields by which a list is left: the way, why it is not one click, and whose signature covers
/// them. The link itself is in the message, which is in the one field `List-Unsubscribe` where one click is enough.
pub fn unsubscribe_result(out: &mut Vec<u8>, receiver: &str, found: &Unsubscribe) {
    let mut field = Folded::new(UNSUBSCRIBE_RESULT, receiver);
    field.result("way", found.way.as_str());
    if let Some(flaw) = found.flaw {
        field.word(&format!("reason={}", flaw.label()));
    }
    if let Some(signer) = &found.signer {
        field.word(&format!("header.d={}", value(signer)));
        field.word(match found.aligned {
            SignerAligned::Yes => "aligned=yes",
            SignerAligned::No => "aligned=no",
        });
    }
    field.end(out);
}

/// Whether a field claims to be written by us, or says what only a receiver may say.
pub(crate) fn is_ours(header: &[u8], field: &Field, authserv_id: &str) -> bool {
    let text = String::from_utf8_lossy(field.value(header));
    let plain = uncommented(&text);
    let is_us = |name: &str| name.eq_ignore_ascii_case(authserv_id);
    // Who knows what others make of a comment that does not end.
    let or_perhaps = || text.to_ascii_lowercase().contains(&authserv_id.to_ascii_lowercase());
    if field.is(header, "Authentication-Results") || field.is(header, UNSUBSCRIBE_RESULT) {
        plain.map_or_else(or_perhaps, |plain| {
            // The version may follow the name (RFC 8601 §2.2).
            let head = plain.split(';').next().unwrap_or_default();
            head.split_ascii_whitespace().next().is_some_and(|name| is_us(&unquoted(name)))
        })
    } else if field.is(header, "Received-SPF") {
        plain.map_or_else(or_perhaps, |plain| {
            let mut pairs = plain.split([';', ' ', '\t', '\r', '\n']).filter_map(|pair| pair.split_once('='));
            pairs.any(|(key, value)| key.eq_ignore_ascii_case("receiver") && is_us(&unquoted(value)))
        })
    } else if field.is(header, WARNING) {
        text.split_once(':').is_some_and(|(name, _)| is_us(name.trim()))
    } else {
        // Whoever receives a message is the only one to write these, whatever he finds.
        ["BIMI-Location", "BIMI-Indicator", "BIMI-Logo-Preference"].iter().any(|name| field.is(header, name))
    }
}

fn iprev(field: &mut Folded, iprev: &Iprev) {
    field.result("iprev", iprev.result.as_str());
    field.word(&format!("policy.iprev={}", value(&iprev.address.to_string())));
    if let Some(name) = &iprev.name {
        field.comment(name.as_str());
    }
}

fn spf(field: &mut Folded, spf: &Spf, client: &Client) {
    field.result("spf", spf.result.as_str());
    if let Some(problem) = spf.problem {
        field.reason(&problem.to_string());
    }
    match (spf.identity, client.mail_from.address()) {
        (SpfIdentity::MailFrom, Some(address)) => {
            field.word(&format!("smtp.mailfrom={}", value(address.as_str())))
        }
        // The null reverse-path: `postmaster` at the argument of EHLO was checked (RFC 7208 §2.4).
        (SpfIdentity::MailFrom, None) => {
            field.word(&format!("smtp.mailfrom={}", value(&format!("postmaster@{}", client.helo))))
        }
        (SpfIdentity::Helo, _) => field.word(&format!("smtp.helo={}", value(&client.helo))),
    }
}

fn dkim(field: &mut Folded, dkim: &Dkim) {
    field.result("dkim", dkim.result.as_str());
    if let Some(reason) = dkim.reason {
        field.reason(&reason.to_string());
    }
    match dkim.key_use {
        KeyUse::Signing => {}
        KeyUse::Testing => field.comment("testing"),
    }
    if !dkim.domain.is_empty() {
        field.word(&format!("header.d={}", value(&dkim.domain)));
        field.word(&format!("header.s={}", value(&dkim.selector)));
    }
    if !dkim.identity.is_empty() {
        field.word(&format!("header.i={}", value(&dkim.identity)));
    }
    if let Some(algorithm) = dkim.algorithm {
        field.word(&format!("header.a={}", algorithm.as_str()));
    }
    if !dkim.start_of_b.is_empty() {
        field.word(&format!("header.b={}", value(&dkim.start_of_b)));
    }
}

fn arc(field: &mut Folded, chain: &ArcChain) {
    if chain.result == ArcResult::None {
        return;
    }
    field.result("arc", chain.result.as_str());
    if let Some(reason) = chain.reason {
        field.reason(&reason.to_string());
    }
    if let Some(newest) = chain.sets.last() {
        field.comment(&format!("i={}, sealed by {}", chain.instance(), newest.domain));
    }
}

fn dmarc(field: &mut Folded, dmarc: &Dmarc) {
    field.result("dmarc", dmarc.result.as_str());
    match dmarc.result {
        DmarcResult::None => {}
        DmarcResult::Pass | DmarcResult::Fail | DmarcResult::TempError | DmarcResult::PermError => {
            let aligned = |alignment| match alignment {
                Alignment::Aligned => "aligned",
                Alignment::NotAligned => "not aligned",
                Alignment::None => "none",
                Alignment::Unknown => "unknown",
            };
            field.comment(&format!("spf {}, dkim {}", aligned(dmarc.spf), aligned(dmarc.dkim)));
        }
    }
    match &dmarc.author {
        Author::Domain(domain) => field.word(&format!("header.from={}", value(domain.as_str()))),
        Author::Missing => field.comment("no author"),
        Author::Several => field.comment("several authors"),
    }
    if dmarc.published.is_some() {
        field.word(&format!("policy.dmarc={}", dmarc.policy.as_str()));
    }
}

fn bimi(field: &mut Folded, bimi: &Bimi) {
    field.result("bimi", bimi.result.as_str());
    if let Some(reason) = &bimi.reason {
        field.reason(reason);
    }
    if let Some((domain, selector)) = &bimi.at {
        field.word(&format!("header.d={}", value(domain.as_str())));
        field.word(&format!("header.selector={}", value(selector)));
    }
    if let Some(authority) = bimi.authority {
        field.word(&format!("policy.authority={}", authority.as_str()));
    }
    if let Some(hash) = &bimi.hash {
        field.word(&format!("policy.indicator-hash={}", value(hash)));
    }
}

/// A field that is written word by word and folded between them.
struct Folded {
    text: String,
    column: usize,
}

impl Folded {
    fn new(name: &str, first: &str) -> Self {
        let text = format!("{name}: {first}");
        Self { column: text.len(), text }
    }

    fn word(&mut self, word: &str) {
        if self.column + 1 + word.len() > LINE_LEN {
            self.text.push_str("\r\n\t");
            self.column = 0;
        } else {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.column += 1 + word.len();
    }

    /// A new method, on a line of its own.
    fn result(&mut self, method: &str, result: &str) {
        self.text.push(';');
        self.column = LINE_LEN;
        self.word(&format!("{method}={result}"));
    }

    fn reason(&mut self, reason: &str) {
        self.word(&format!("reason={}", quoted(reason)));
    }

    /// The words are our own, or those of names.
    fn comment(&mut self, comment: &str) {
        let plain = |c: char| if matches!(c, ' '..='~') && !matches!(c, '(' | ')' | '\\') { c } else { '?' };
        let comment: String = comment.chars().map(plain).collect();
        let mut words = comment.split(' ').peekable();
        let mut open = "(";
        while let Some(word) = words.next() {
            let close = if words.peek().is_none() { ")" } else { "" };
            self.word(&format!("{open}{word}{close}"));
            open = "";
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A value as RFC 8601 §2.2 has it: a token, an address of plain characters, or a quoted string.
fn value(text: &str) -> String {
    let (local_part, domain) = text.rsplit_once('@').unwrap_or(("", text));
    // Neither a tspecial of RFC 2045 §5.1 nor a special of RFC 5322 §3.2.3.
    let plain = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'_' | b'.' | b'+' | b'!' | b'#' | b'$' | b'&' | b'*' | b'~')
    };
    let plain = local_part.bytes().chain(domain.bytes()).all(plain) && !domain.is_empty();
    if plain && text.len() <= VALUE_LEN_MAX { text.to_owned() } else { quoted(text) }
}

/// A quoted string; control characters are left out, and what is too long is cut.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars().filter(|c| !c.is_control()).take(VALUE_LEN_MAX) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// What a token or a quoted string says.
fn unquoted(text: &str) -> String {
    match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"').unwrap_or(text).replace('\\', ""),
        None => text.to_owned(),
    }
}

/// The text with a space for each comment (RFC 5322 §3.2.2); none when one does not end.
pub(crate) fn uncommented(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let (mut depth, mut in_quotes) = (0_usize, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if depth > 0 => drop(characters.next()),
            '\\' if in_quotes => {
                plain.push(character);
                plain.extend(characters.next());
            }
            '"' if depth == 0 => {
                in_quotes = !in_quotes;
                plain.push(character);
            }
            '(' if !in_quotes => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                plain.push(' ');
            }
            _ if depth > 0 => {}
            character => plain.push(character),
        }
    }
    (depth == 0 && !in_quotes).then_some(plain)
}

#[cfg(test)]
#[path = "results_test.rs"]
mod test;
