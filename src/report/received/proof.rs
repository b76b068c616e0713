//! Who has sent a report: by what our own server has found when the mail came, which stands in its first field.

use std::fmt;

use mail::Domain;
use serde::{Deserialize, Serialize};

use crate::parts::Fields;

/// By what it is proven whose mail it is; the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// By nothing.
    #[default]
    None,
    /// The reverse-path, by SPF.
    Spf,
    /// A signature, by DKIM.
    Dkim,
    /// The author, by DMARC.
    Dmarc,
}

impl Proof {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The domain whose mail it is, and by what that is proven: from the `Authentication-Results` that stand before the
/// first `Received` and bear our name. What a client has brought stands behind ours.
pub fn proven(header: &[u8], authserv_id: &str) -> (Box<str>, Proof) {
    let (fields, _) = Fields::read(header);
    for (name, value) in fields.in_order() {
        match name {
            "received" => break,
            "authentication-results" => {
                let (id, results) = value.split_once(';').unwrap_or((value, ""));
                if id.trim().eq_ignore_ascii_case(authserv_id) {
                    return best(results);
                }
            }
            _ => {}
        }
    }
    ("".into(), Proof::None)
}

fn best(results: &str) -> (Box<str>, Proof) {
    let kinds = [
        (Proof::Dmarc, "dmarc=pass", "header.from="),
        (Proof::Dkim, "dkim=pass", "header.d="),
        (Proof::Spf, "spf=pass", "smtp.mailfrom="),
    ];
    for (proof, pass, of) in kinds {
        for words in words_of(results) {
            let mut words = words.iter().map(String::as_str);
            if words.next() != Some(pass) {
                continue;
            }
            let named = words.find_map(|word| word.strip_prefix(of));
            let named = named.map(|value| value.rsplit_once('@').map_or(value, |(_, domain)| domain));
            if let Some(domain) = named.and_then(|domain| Domain::parse(domain).ok()) {
                return (domain.as_str().to_lowercase().into(), proof);
            }
        }
    }
    ("".into(), Proof::None)
}

/// The words of each result, without comments and quotes: what is within quotes is of one word (RFC 8601 §2.2).
fn words_of(results: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut depth, mut escaped) = (false, 0_u32, false);
    for c in results.chars() {
        let is_said = depth == 0;
        match c {
            _ if escaped => {
                escaped = false;
                word.extend(is_said.then_some(c));
            }
            '\\' => escaped = true,
            '"' if is_said => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ';' if !quoted && is_said => {
                words.push(std::mem::take(&mut word));
                all.push(std::mem::take(&mut words));
            }
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.extend(is_said.then_some(c)),
        }
    }
    words.push(word);
    all.push(words);
    for words in &mut all {
        words.retain(|word| !word.is_empty());
    }
    all
}

#[cfg(test)]
mod test {
    use super::*;

    const OURS: &str = "Authentication-Results: mx.example;\r\n\tiprev=pass policy.iprev=192.0.2.1;\r\n\
        \tspf=pass smtp.mailfrom=\"a;b\"@Bounce.example.org;\r\n\tdkim=fail reason=\"; dkim=pass header.d=evil.example\"\r\n\
        \theader.d=x.example;\r\n\tdkim=pass header.d=example.org header.s=s1;\r\n\
        \tdmarc=pass (spf aligned; dmarc=pass header.from=evil.example) header.from=example.net\r\nReceived: from x\r\n";

    #[test]
    fn the_strongest_proof_counts() {
        let of = |text: &str| proven(text.as_bytes(), "MX.example");
        assert_eq!(of(OURS), ("example.net".into(), Proof::Dmarc));
        let weaker = OURS.replace("dmarc=pass (spf", "dmarc=fail (spf");
        assert_eq!(of(&weaker), ("example.org".into(), Proof::Dkim));
        let weaker = weaker.replace("dkim=pass header.d=example.org", "dkim=neutral header.d=example.org");
        assert_eq!(of(&weaker), ("bounce.example.org".into(), Proof::Spf));
    }

    #[test]
    fn what_a_client_has_written_proves_nothing() {
        let none = ("".into(), Proof::None);
        let forged = "Authentication-Results: mx.example; dmarc=pass header.from=google.com\r\n";
        assert_eq!(proven(format!("Received: from x\r\n{forged}").as_bytes(), "mx.example"), none);
        assert_eq!(proven(forged.as_bytes(), "other.example"), none);
        assert_eq!(
            proven(b"Authentication-Results: mx.example; dmarc=pass header.from=(\"x", "mx.example"),
            none
        );
        assert_eq!(proven(b"", "mx.example"), none);
    }

    /// A field of ours that is longer than what is read of it: were its long lines left out alone, the first half of one result stood
    /// beside the second half of another, and whoever signs as himself were proven to be somebody else.
    #[test]
    fn halves_of_two_results_prove_nothing() {
        let failed = format!("\tdkim=fail reason=\"no key\"\r\n\theader.d={}.example;\r\n", "x".repeat(60));
        let (mut ours, at) = ("Authentication-Results: mx.example;\r\n".to_owned(), 4040);
        while ours.len() < at - failed.len() {
            ours.push_str(&failed);
        }
        for pad in 0..120 {
            let padding = format!("\tdkim=none ({});\r\n", "p".repeat(pad));
            let own = format!("\tdkim=pass\r\n\theader.d={}.evil.example;\r\n", "y".repeat(200));
            let other =
                "\tdkim=fail reason=\"the key is not there, or revoked\"\r\n\theader.d=google.com\r\n";
            let (domain, _) = proven(format!("{ours}{padding}{own}{other}").as_bytes(), "mx.example");
            assert_ne!(&*domain, "google.com", "{pad}");
        }
    }
}
