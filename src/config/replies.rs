//! What next hops' refusals are about: the rules that we ship, and the operator's before them.

use std::{path::Path, time::Duration};

use mail::{Category, StatusPattern};
use regex::bytes::RegexBuilder;
use toml::de::DeTable;

use crate::{
    DomainPattern,
    notation::{Entries, List, Literal, Maybe, Notation, Spelled, Text, Time, Whole, Word, Words},
    reader::Reader,
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

/// A regular expression for the text of a reply; the case of letters does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TextPattern(Box<str>);

choice! {
    /// What was refused.
    pub enum ReplyStage {
        /// the connection
        Greeting = "greeting",
        /// EHLO, and what else belongs to no message
        Ehlo = "ehlo",
        /// STARTTLS
        StartTls = "starttls",
        /// MAIL: the sender
        Mail = "mail",
        /// RCPT: the recipient
        Rcpt = "rcpt",
        /// DATA, before the content
        Data = "data",
        /// the content
        Content = "content",
        /// nothing: it is we who found that it does not go, such as no connection, no TLS, no answer from the DNS
        Local = "local",
    }
}

choice! {
    /// What is done about a refusal.
    pub enum ReplyAction {
        /// nothing but to name it
        None = "none",
        /// the site is left alone for the time in `suspend`
        Suspend = "suspend",
        /// the site gets fewer connections and messages
        Slower = "slower",
        /// it is tried again, whatever the reply code says
        Temporary = "temporary",
        /// it is not tried again, whatever the reply code says
        Permanent = "permanent",
        /// an event `alarmed` in the log
        Alarm = "alarm",
    }
}

section! {
    /// What a next hop's refusal is about, and what is done about it. The first rule that fits counts; these come before
    /// those that are built in (docs/reply-rules.md), and one that has the name of a built-in rule takes its place. A rule
    /// fits when each of its lists has something that fits; an empty list fits everything.
    pub struct ReplyRule {
        /// In logs, and for later files to find it.
        name: String [Text] = String::new();
        /// Reply codes.
        codes: Vec<u16> [List<Whole<200, 599>>] = Vec::new();
        /// Enhanced status codes.
        statuses: Vec<StatusPattern> [List<Literal>] = Vec::new();
        /// Patterns, one of which is in the text behind the codes. Lines of a reply count as one, with one space between
        /// words; the case of letters does not count.
        text: Vec<TextPattern> [List<Literal>] = Vec::new();
        /// Domains of recipients.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Names of the hosts that spoke, as the MX records have them.
        hosts: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// What was refused.
        stages: Vec<ReplyStage> [List<Word>] = Vec::new();
        /// Tenants whose mail it was.
        tenants: Vec<String> [List<Text>] = Vec::new();
        /// Campaigns whose mail it was, by the names of their `[[campaign]]`. Reports that come back later are told apart by them where the
        /// route has `verp`, and the mail was sent since there is such a rule.
        campaigns: Vec<String> [List<Text>] = Vec::new();
        /// What the refusal is about: in the log, the metrics and the queue.
        category: Category [Word] = Category::Other;
        /// What is done about it.
        action: ReplyAction [Word] = ReplyAction::None;
        /// With action = "suspend": for how long the site is left alone.
        suspend: Duration [Time<{ SECOND }, { 7 * DAY }>] = Duration::from_secs(3_600);
        /// The message's next tries are from the `[[pool]]` of that name, as long as there is one. What is refused for ever is tried
        /// there all the same, but not again when it is refused there. Empty: it stays where it is.
        pool: Option<String> [Maybe<Text>] = None;
        /// A reply that the rule is for, as it comes, codes and all. `ringpost check` warns when another rule takes it.
        example: String [Text] = String::new();
    }
}

impl ReplyRule {
    /// The rules that are built in, in order.
    ///
    /// # Panics
    /// When they are not well written, which a test looks after.
    pub fn built_in() -> Vec<Self> {
        const TEXT: &str = include_str!("reply-rules.toml");
        let table = DeTable::parse(TEXT).unwrap_or_else(|error| panic!("our own text: {}", error.message()));
        let mut reader = Reader::new();
        reader.open(Path::new("reply-rules.toml"), TEXT);
        let mut rules = Vec::new();
        for (_, value) in table.get_ref() {
            <Entries as Notation<Vec<Self>>>::apply(&mut rules, value, &mut reader);
        }
        assert!(reader.errors.is_empty(), "our own text: {:?}", reader.errors);
        rules
    }

    /// Whether it has nothing that a refusal could differ from.
    pub(crate) fn fits_everything(&self) -> bool {
        self.codes.is_empty()
            && self.statuses.is_empty()
            && self.text.is_empty()
            && self.domains.is_empty()
            && self.hosts.is_empty()
            && self.stages.is_empty()
            && self.tenants.is_empty()
            && self.campaigns.is_empty()
    }
}

impl Entry for ReplyRule {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "customer-greylist".into(),
            codes: vec![450, 451],
            text: vec![TextPattern("come back (in|after) [0-9]+ minutes".into())],
            category: Category::Greylisted,
            ..Self::default()
        }
    }
}

impl TextPattern {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Spelled for TextPattern {
    const KIND: &'static str = "regular expression";
    const EXPECTED: &'static str = "a regular expression such as \"too many (connections|messages)\"";

    fn parse(text: &str) -> Result<Self, String> {
        const LEN_MAX: usize = 1024;
        const SIZE_MAX: usize = 256 << 10;
        if text.is_empty() || text.len() > LEN_MAX {
            return Err(format!("it has 1 to {LEN_MAX} characters"));
        }
        let pattern =
            RegexBuilder::new(text).case_insensitive(true).unicode(false).size_limit(SIZE_MAX).build();
        match pattern {
            Ok(_) => Ok(Self(text.into())),
            Err(regex::Error::CompiledTooBig(_)) => Err("it is too large: repeat less".into()),
            // The last line of several says what is wrong.
            Err(error) => {
                Err(error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").into())
            }
        }
    }

    fn spell(&self) -> String {
        self.0.clone().into()
    }
}

impl Spelled for StatusPattern {
    const KIND: &'static str = "status pattern";
    const EXPECTED: &'static str = "a status such as \"5.1.1\", \"4.7.*\" or \"*.1.1\"";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }

    fn spell(&self) -> String {
        self.to_string()
    }
}

impl Words for Category {
    const WORDS: &'static [(&'static str, &'static str)] = &[
        (Self::BadMailbox.word(), "there is no such mailbox"),
        (Self::InactiveMailbox.word(), "there is one, and nobody uses it"),
        (Self::Quota.word(), "the mailbox is full"),
        (Self::BadDomain.word(), "there is no such domain, or it takes no mail"),
        (Self::Dns.word(), "the DNS did not say, or not what is needed"),
        (Self::Connection.word(), "no connection, or a lost one"),
        (Self::Tls.word(), "no TLS, or none that is good enough"),
        (Self::SpamContent.word(), "the message looks like spam, or harmful"),
        (Self::SpamReputation.word(), "our address, our domain or a link has a bad name"),
        (Self::Authentication.word(), "SPF, DKIM or DMARC did not prove who we are"),
        (Self::Policy.word(), "the site does not want this mail for a reason of its own"),
        (Self::Rate.word(), "too much, too fast, or too many connections"),
        (Self::Greylisted.word(), "who comes for the first time is to come again"),
        (Self::TooLarge.word(), "the message is too large"),
        (Self::Protocol.word(), "one side did not speak SMTP as the other understands it"),
        (Self::MessageFormat.word(), "the message is not made as the site wants it"),
        (Self::Relaying.word(), "the site does not relay for us"),
        (Self::Loop.word(), "the message goes in circles"),
        (Self::Expired.word(), "its time was up"),
        (Self::AutoReply.word(), "an answer by a program, and no refusal"),
        (Self::System.word(), "the site has trouble of its own"),
        (Self::Other.word(), "nothing that a rule knows"),
        (Self::Suppressed.word(), "the recipient is on a suppression list of ours"),
    ];
    const VALUES: &'static [Self] = &Self::ALL;
}

#[cfg(test)]
mod test {
    use std::{fmt::Write as _, fs};

    use super::*;

    const HEAD: &str = "\
# Reply rules

What a next hop's refusal is about. The first rule that fits is the one that counts: those of `[[reply-rule]]` in the
configuration ([configuration.md](configuration.md)), then these, which are built in (`src/config/reply-rules.toml`). A
rule of the configuration that has the name of one of these takes its place. The category stands in the event `outcome`
([logs.md](logs.md)), in `ringpost_outbound_refusals_total` ([metrics.md](metrics.md)) and in `ringpost queue show`;
`rule` in the event names the rule.

What we find ourselves (no connection, no TLS, no answer from the DNS) is judged by the same rules, at the stage `local`.
What becomes of the recipient is decided by the reply code as before, unless the rule's action says otherwise. A success is not
looked at. To try a rule, give it an `example` and run `ringpost check`.

This page is printed from the rules; `UPDATE_GOLDEN=1` prints it anew.

## Categories

| category | means |
|---|---|
";

    /// As a cell of a table in Markdown.
    fn cell(text: &str) -> String {
        text.replace('|', "\\|").replace('<', "&lt;")
    }

    #[test]
    fn the_page_of_rules_is_up_to_date() {
        let mut page = HEAD.to_owned();
        for (word, meaning) in Category::WORDS {
            writeln!(page, "| `{word}` | {meaning} |").unwrap();
        }
        page += "\n## Built-in rules\n\n| rule | category | action | an example |\n|---|---|---|---|\n";
        for rule in ReplyRule::built_in() {
            let action = match rule.action {
                ReplyAction::None => String::new(),
                ReplyAction::Suspend => format!("suspend for {}", mail::Span(rule.suspend)),
                action @ (ReplyAction::Slower
                | ReplyAction::Temporary
                | ReplyAction::Permanent
                | ReplyAction::Alarm) => action.to_string(),
            };
            let (name, category, example) = (&rule.name, rule.category, cell(&rule.example));
            writeln!(page, "| `{name}` | `{category}` | {action} | {example} |").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reply-rules.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(path, &page).unwrap();
        }
        let kept = fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page, "docs/reply-rules.md is old: run with UPDATE_GOLDEN=1");
    }

    #[test]
    fn built_in_rules_are_well_written() {
        let rules = ReplyRule::built_in();
        let mut names: Vec<_> = rules.iter().map(|rule| rule.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rules.len());
        for rule in &rules {
            assert!(!rule.fits_everything() && !rule.example.is_empty(), "{}", rule.name);
        }
    }

    #[test]
    fn categories_have_their_words_in_order() {
        for (value, (word, _)) in Category::VALUES.iter().zip(Category::WORDS) {
            assert_eq!(value.word(), *word);
        }
        assert_eq!(Category::VALUES.len(), Category::WORDS.len());
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(<TextPattern as Spelled>::parse("blocked using [a-z.]+").is_ok());
        assert!(<TextPattern as Spelled>::parse("不存在").is_ok());
        for bad in ["", "(", "a{1000}{1000}", "x{99999}"] {
            assert!(<TextPattern as Spelled>::parse(bad).is_err(), "{bad}");
        }
    }
}
