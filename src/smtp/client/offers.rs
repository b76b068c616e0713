//! What the next hop offers: its reply to EHLO (RFC 5321 §4.1.1.1).

use sasl::{Mechanism, Mechanisms};

use super::{Attributes, Reply};

/// The extensions of one session. Without `EHLO` there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// `PIPELINING` (RFC 2920).
    pub pipelining: bool,
    /// `8BITMIME` (RFC 6152).
    pub eight_bit_mime: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `CHUNKING` (RFC 3030).
    pub chunking: bool,
    /// `BINARYMIME` (RFC 3030).
    pub binary_mime: bool,
    /// `DSN` (RFC 3461).
    pub dsn: bool,
    /// `DELIVERBY`, with the least number of seconds that mode `R` may give (RFC 2852 §3).
    pub deliver_by: Option<u32>,
    /// `MT-PRIORITY` (RFC 6710).
    pub mt_priority: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// What `XFORWARD` may say.
    pub xforward: Attributes,
    /// `STARTTLS` (RFC 3207).
    pub starttls: bool,
    /// The mechanisms of `AUTH` that we know (RFC 4954).
    pub auth: Mechanisms,
    /// Whether we have logged in, so that `AUTH=` may stand behind `MAIL` (RFC 4954 §5).
    pub logged_in: bool,
    /// `SIZE`, with or without a bound (RFC 1870).
    pub size: Size,
    /// `LIMITS MAILMAX=`: transactions in a session (RFC 9422 §4.1).
    pub transactions_max: Option<u32>,
    /// `LIMITS RCPTMAX=`: recipients in a transaction (RFC 9422 §4.2).
    pub recipients_max: Option<u32>,
    /// `LIMITS RCPTDOMAINMAX=`: recipients' domains in a session (RFC 9422 §4.3).
    pub domains_max: Option<u32>,
}

/// What is known about the message sizes that the next hop takes (RFC 1870 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// The extension is not offered.
    #[default]
    NotOffered,
    /// Offered, no fixed bound.
    Unbounded,
    /// At most so many octets.
    AtMost(u64),
}

impl Offers {
    /// Reads the lines of a reply to `EHLO`. What is unknown or malformed is passed over.
    pub fn parse(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.text().split('\n').skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit_mime = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "CHUNKING" => offers.chunking = true,
                "BINARYMIME" => offers.binary_mime = true,
                "DSN" => offers.dsn = true,
                "DELIVERBY" => {
                    // "a comma separated list of options", the first of which is the number (RFC 2852 §2).
                    let option = words.next().and_then(|options| options.split(',').next());
                    offers.deliver_by = Some(option.and_then(|option| option.parse().ok()).unwrap_or(0));
                }
                "MT-PRIORITY" => offers.mt_priority = true,
                "REQUIRETLS" => offers.require_tls = true,
                "STARTTLS" => offers.starttls = true,
                "AUTH" => offers.log_in_by(words),
                "XFORWARD" => offers.xforward = Attributes::parse(words),
                "SIZE" => {
                    // "SIZE 0" means that there is no fixed maximum (RFC 1870 §4).
                    let bound = words.next().and_then(|word| word.parse().ok()).filter(|bound| *bound > 0);
                    offers.size = bound.map_or(Size::Unbounded, Size::AtMost);
                }
                // An error in the syntax of one spoils all (RFC 9422 §3.7).
                "LIMITS" if words.clone().all(is_limit) => words.for_each(|limit| offers.limit(limit)),
                // Looser than RFC 4954 §3: as servers wrote it before there was an RFC.
                keyword if keyword.starts_with("AUTH=") => {
                    let first = keyword.split_once('=').map(|(_, first)| first);
                    offers.log_in_by(first.into_iter().chain(words));
                }
                _ => {}
            }
        }
        offers
    }

    fn log_in_by<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for mechanism in names.filter_map(Mechanism::named) {
            self.auth = self.auth.with(mechanism);
        }
    }

    fn limit(&mut self, limit: &str) {
        let Some((name, value)) = limit.split_once('=') else { return };
        let value = number(value);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.transactions_max = value,
            "RCPTMAX" => self.recipients_max = value,
            "RCPTDOMAINMAX" => self.domains_max = value,
            _ => {}
        }
    }
}

/// `limit-name ["=" limit-value]` (RFC 9422 §3).
fn is_limit(word: &str) -> bool {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let named =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    named && value.is_none_or(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_graphic() && b != b';'))
}

/// Six digits at most, and no zero in front: a limit of none would forbid all mail (RFC 9422 §4). Anything else is
/// passed over, as if there were no limit (§3.7).
fn number(value: &str) -> Option<u32> {
    let valid = value.len() <= 6 && !value.starts_with('0') && value.bytes().all(|b| b.is_ascii_digit());
    if valid { value.parse().ok() } else { None }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(lines: &str, expected: Offers) {
        assert_eq!(Offers::parse(&Reply::new(250, None, lines)), expected, "{lines:?}");
    }

    #[test]
    fn keywords_are_read() {
        let none = Offers::default();
        check("", none);
        check("PIPELINING", none);
        check("mx\nPIPELINING", Offers { pipelining: true, ..none });
        check("mx\npipelining\n\nX-ODD y\nSIZE", Offers { pipelining: true, size: Size::Unbounded, ..none });
        check("mx\nSIZE 0", Offers { size: Size::Unbounded, ..none });
        check("mx\nSIZE 99999999999999999999", Offers { size: Size::Unbounded, ..none });
        check("mx\nSIZE 1000\nDSN", Offers { size: Size::AtMost(1000), dsn: true, ..none });
        check(
            "mx\n8BITMIME\nSMTPUTF8\nCHUNKING\nBINARYMIME\nSTARTTLS",
            Offers {
                eight_bit_mime: true,
                smtputf8: true,
                chunking: true,
                binary_mime: true,
                starttls: true,
                ..none
            },
        );
        check(
            "mx\nLIMITS RCPTMAX=20 MAILMAX=5 X=y z",
            Offers { recipients_max: Some(20), transactions_max: Some(5), ..none },
        );
        check("mx\nDELIVERBY\nMT-PRIORITY MIXER", Offers { deliver_by: Some(0), mt_priority: true, ..none });
        // RFC 2852 §2: other options may stand behind the number.
        check("mx\nDELIVERBY 240,x=y,z", Offers { deliver_by: Some(240), ..none });
        check("mx\nDELIVERBY ,x=y", Offers { deliver_by: Some(0), ..none });
        check("mx\ndeliverby 240\nREQUIRETLS", Offers { deliver_by: Some(240), require_tls: true, ..none });
        check("mx\nlimits rcptdomainmax=999999", Offers { domains_max: Some(999_999), ..none });
        let xforward = Attributes::parse(["ADDR", "NAME"].into_iter());
        check("mx\nxforward name addr odd\nXFORWARDS", Offers { xforward, ..none });
        let auth = Mechanisms::from_iter([Mechanism::Plain, Mechanism::ScramSha256]);
        check("mx\nAUTH plain CRAM-MD5 SCRAM-SHA-256", Offers { auth, ..none });
        check("mx\nAUTH PLAIN\nAUTH=SCRAM-SHA-256 X", Offers { auth, ..none });
        check("mx\nAUTH\nAUTH=\nAUTHOR PLAIN", none);
        // RFC 9422 §3.7: a limit that is no limit spoils itself; what is none in form spoils all.
        check("mx\nLIMITS RCPTMAX=20 MAILMAX=many", Offers { recipients_max: Some(20), ..none });
        check("mx\nLIMITS RCPTMAX=20 =5", none);
        check("mx\nLIMITS RCPTMAX=20 MAILMAX=5;X", none);
        for odd in
            ["MAILMAX=0", "MAILMAX=05", "MAILMAX=+5", "MAILMAX=1000000", "MAILMAX=", "MAILMAX", "=5", "="]
        {
            check(&format!("mx\nLIMITS {odd}"), none);
        }
    }
}
