//! Campaigns: mail that says itself what it belongs to, in a field that the operator names; and rules for some mail alone.

use std::fmt;

use mail::CAMPAIGN_MAX;

use crate::{
    Config,
    egress::is_word,
    notation::{List, Literal, Maybe, Spelled, Text},
    reader::Reader,
    schema::{Entry, section},
};

/// What a message says which campaign it is of: the text itself, whatever the case of its letters, in which `*` stands for any
/// characters, or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CampaignValue(Box<str>);

section! {
    /// A campaign: mail of our own clients whose field `queue.campaign-header` says one of these values. The first campaign counts whose
    /// values and tenants a message has. `[[site]]`, `[[retry]]` and `[[reply-rule]]` may be for campaigns alone, by these names.
    pub struct Campaign {
        /// In rules, in names of sites, and for later files to find it: letters, digits, - and _.
        name: String [Text] = String::new();
        /// What the field says, whatever the case of letters; `*` stands for any characters: "receipt", "news-*".
        values: Vec<CampaignValue> [List<Literal>] = Vec::new();
        /// Only mail of these tenants: others may write what they like. Empty: of all our clients.
        tenants: Vec<String> [List<Text>] = Vec::new();
        /// The `[[pool]]` of sources that its mail leaves from, whatever its tenant and its site have. Empty: theirs.
        pool: Option<String> [Maybe<Text>] = None;
    }
}

impl CampaignValue {
    /// Whether a message that says this is meant.
    pub fn fits(&self, said: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = strip_prefix(said, first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The first place will do: what stands behind it is found behind a later one as well, if it is.
            let found = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
            let Some(after) = found.map(|at| &rest[at..]).find_map(|rest| strip_prefix(rest, part)) else {
                return false;
            };
            rest = after;
        }
        let at = rest.len().checked_sub(last.len()).filter(|at| rest.is_char_boundary(*at));
        at.is_some_and(|at| rest[at..].eq_ignore_ascii_case(last))
    }
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

impl Spelled for CampaignValue {
    const KIND: &'static str = "value of a field";
    const EXPECTED: &'static str =
        "what a message says, such as \"receipt\", or \"news-*\" for all that begins so";

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > CAMPAIGN_MAX {
            return Err(format!("of what a message says {CAMPAIGN_MAX} octets are kept"));
        }
        let sound = !text.trim().is_empty() && text.trim() == text && !text.chars().any(char::is_control);
        if sound { Ok(Self(text.into())) } else { Err(String::new()) }
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for CampaignValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Entry for Campaign {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let values = CampaignValue::parse("news-*").into_iter().collect();
        Self { name: "newsletters".into(), values, ..Self::default() }
    }
}

impl Config {
    /// What is wrong about campaigns, and about rules that are for some mail alone.
    pub(crate) fn check_campaigns(&self, reader: &mut Reader<'_>) {
        if let Some(field) = &self.queue.campaign_header {
            let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
            if field.is_empty() || field.len() > 76 || !field.bytes().all(is_name) {
                let problem = format!("\"{field}\" is no name of a header field of up to 76 characters");
                let remedy = "write one such as \"X-Campaign\"";
                reader.conflict(&["queue.campaign-header"], problem, remedy);
            }
        }
        for campaign in &self.campaigns {
            let key = format!("campaign.{}", campaign.name.to_ascii_lowercase());
            if !is_word(&campaign.name) {
                let problem = "a campaign's name is of letters, digits, - and _ alone".into();
                reader.conflict(&[&format!("{key}.name")], problem, "name it by one word of at most 40");
            }
            if campaign.values.is_empty() {
                reader.missing(&key, "values = [\"news-*\"]", "say what its mail says in the field");
            }
            self.check_owners(reader, &key, (&campaign.tenants, &[]));
        }
        for site in &self.sites {
            let key = format!("site.{}", site.name.to_ascii_lowercase());
            self.check_owners(reader, &key, (&site.tenants, &site.campaigns));
            // It is in the name of what is counted for it.
            for name in site.tenants.iter().filter(|name| !is_word(name)) {
                let problem = format!("the name of the tenant \"{name}\" cannot be in that of a site");
                let remedy = "name the tenant by letters, digits, - and _, at most 40";
                reader.conflict(&[&format!("{key}.tenants")], problem, remedy);
            }
        }
        for rule in &self.retries {
            let key = format!("retry.{}", rule.name.to_ascii_lowercase());
            self.check_owners(reader, &key, (&rule.tenants, &rule.campaigns));
        }
        for rule in &self.reply_rules {
            let key = format!("reply-rule.{}", rule.name.to_ascii_lowercase());
            self.check_owners(reader, &key, (&rule.tenants, &rule.campaigns));
        }
    }

    /// The campaigns that no mail can be of.
    pub(crate) fn campaigns_without_field(&self) -> Option<&Campaign> {
        self.campaigns.first().filter(|_| self.queue.campaign_header.is_none())
    }

    /// Whether there are those whose mail a rule is for.
    fn check_owners(&self, reader: &mut Reader<'_>, key: &str, (tenants, campaigns): (&[String], &[String])) {
        for name in tenants {
            if !self.tenants.iter().any(|tenant| tenant.name.eq_ignore_ascii_case(name)) {
                let problem = format!("there is no `[[tenant]]` with the name {name}");
                reader.conflict(&[&format!("{key}.tenants")], problem, "name one that there is");
            }
        }
        for name in campaigns {
            if !self.campaigns.iter().any(|campaign| campaign.name.eq_ignore_ascii_case(name)) {
                let problem = format!("there is no `[[campaign]]` with the name {name}");
                reader.conflict(&[&format!("{key}.campaigns")], problem, "name one that there is");
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, said, expected) in [
            ("news", "NEWS", true),
            ("news", "newsletter", false),
            ("news*", "news", true),
            ("news-*", "News-2026", true),
            ("news-*", "old-news-2026", false),
            ("*-2026", "news-2026", true),
            ("*-2026", "news-2026-b", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("**", "x", true),
            ("*é*", "caféteria", true),
            ("é*", "e", false),
        ] {
            assert_eq!(CampaignValue::parse(pattern).unwrap().fits(said), expected, "{pattern} {said}");
        }
        for text in ["", " ", " a", "a\r\n", &"x".repeat(CAMPAIGN_MAX + 1)] {
            assert!(CampaignValue::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        const LEAST: &str = "[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\n\
            [[tenant]]\nname = \"a shop\"\nnetworks = [\"192.0.2.0/24\"]\n";
        let check = |lines: &str, expected: &[&str]| {
            let source = crate::Source { file: "c.toml".into(), text: format!("{lines}\n{LEAST}") };
            let errors = crate::Loaded::from_sources(&[source]).map_or_else(|errors| errors, |_| Vec::new());
            let errors: Vec<_> =
                errors.iter().map(|error| error.to_string().replace("c.toml:", "")).collect();
            assert_eq!(errors, expected, "{lines}");
        };
        let header = "[queue]\ncampaign-header = \"X-Campaign\"\n";
        let campaign = "[[campaign]]\nname = \"n\"\nvalues = [\"n\"]\n";
        check(&format!("{header}{campaign}tenants = [\"A Shop\"]"), &[]);
        check(campaign, &[]);
        check(
            "[queue]\ncampaign-header = \"X: y\"",
            &[
                "2:1: queue.campaign-header: \"X: y\" is no name of a header field of up to 76 characters; write one such as \"X-Campaign\"",
            ],
        );
        check(
            &format!("{header}[[campaign]]\nname = \"n n\""),
            &[
                "4:1: campaign.n n.name: a campaign's name is of letters, digits, - and _ alone; name it by one word of at most 40",
                "3:1: campaign.n n: missing, expected `values = [\"news-*\"]`; say what its mail says in the field",
            ],
        );
        for (entry, key) in [
            ("[[site]]\nname = \"n\"\nhosts = [\"*.example\"]", "site.n"),
            ("[[retry]]\nname = \"n\"\nretry = [\"1h\"]", "retry.n"),
            ("[[reply-rule]]\nname = \"n\"\ncodes = [450]", "reply-rule.n"),
        ] {
            let line = entry.lines().count() + 1;
            check(
                &format!("{entry}\ntenants = [\"x\"]\ncampaigns = [\"y\"]"),
                &[
                    &*format!(
                        "{line}:1: {key}.tenants: there is no `[[tenant]]` with the name x; name one that there is"
                    ),
                    &*format!(
                        "{}:1: {key}.campaigns: there is no `[[campaign]]` with the name y; name one that there is",
                        line + 1
                    ),
                ],
            );
        }
        check(
            "[[site]]\nname = \"n\"\nhosts = [\"*.example\"]\ntenants = [\"a shop\"]",
            &[
                "4:1: site.n.tenants: the name of the tenant \"a shop\" cannot be in that of a site; name the tenant by letters, digits, - and _, at most 40",
            ],
        );
        check(
            &format!("{header}{campaign}pool = \"p\""),
            &["6:1: campaign.n.pool: there is no `[[pool]]` with the name p; name one that there is"],
        );
    }
}
