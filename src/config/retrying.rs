//! When mail is tried again that was refused in one way or another.

use std::time::Duration;

use mail::{Category, StatusPattern};

use crate::{
    DomainPattern,
    notation::{List, Literal, Maybe, Text, Time, Word, YesNo},
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

choice! {
    /// A class of mail (RFC 6710).
    pub enum MailClass {
        /// somebody said that it is urgent: MT-PRIORITY from 1 on
        Urgent = "urgent",
        /// somebody waits for it: MT-PRIORITY from -3 to 0
        Normal = "normal",
        /// nobody waits for it: MT-PRIORITY below -3
        Bulk = "bulk",
    }
}

choice! {
    /// Whose mail a rule is for.
    pub enum RetrySenders {
        /// all mail
        Any = "any",
        /// mail with a sender, who can be told
        Address = "address",
        /// mail with the null reverse-path: reports, which nobody is told about
        Null = "null",
    }
}

section! {
    /// When mail is tried again that was refused in one way, and when it is given up: other than `[queue]` has it. The first
    /// rule that fits counts; it fits when each of its lists has something that fits; an empty list fits everything.
    /// `ringpost queue why` names the rule that has set a time.
    pub struct Retry {
        /// In logs, and for later files to find it.
        name: String [Text] = String::new();
        /// What the refusal is about (docs/reply-rules.md).
        categories: Vec<Category> [List<Word>] = Vec::new();
        /// Enhanced status codes.
        statuses: Vec<StatusPattern> [List<Literal>] = Vec::new();
        /// Rules that know the reply, by name: `[[reply-rule]]`, or those that are built in.
        reply_rules: Vec<String> [List<Text>] = Vec::new();
        /// Sites that have said it: the name of a `[[site]]`, or as `ringpost queue why` calls them.
        sites: Vec<String> [List<Text>] = Vec::new();
        /// Routes by which it was tried, by name.
        routes: Vec<String> [List<Text>] = Vec::new();
        /// Domains of recipients.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Classes of mail.
        priorities: Vec<MailClass> [List<Word>] = Vec::new();
        /// Whose mail.
        senders: RetrySenders [Word] = RetrySenders::Any;
        /// Tenants.
        tenants: Vec<String> [List<Text>] = Vec::new();
        /// Campaigns, by the names of their `[[campaign]]`.
        campaigns: Vec<String> [List<Text>] = Vec::new();
        /// How long to wait after the first attempt, at least: `queue.jitter` makes it longer alone. Empty: as `retry`.
        first: Option<Duration> [Maybe<Time<{ SECOND }, { 7 * DAY }>>] = None;
        /// Wait as long as the reply says where it says so ("try again in 5 minutes"), from half a minute to 4 hours.
        hint: bool [YesNo] = false;
        /// How long to wait after the first, the second, … attempt. After the last, each wait is double the one before. Empty:
        /// `queue.retry`.
        retry: Vec<Duration> [List<Time<{ SECOND }, { 7 * DAY }>>] = Vec::new();
        /// But never longer than this. Empty: `queue.retry-max`.
        retry_max: Option<Duration> [Maybe<Time<{ SECOND }, { 7 * DAY }>>] = None;
        /// After so long a message that is still refused so is tried once more and returned to its sender, where that is sooner
        /// than `queue.give-up`. Empty: as that says.
        give_up: Option<Duration> [Maybe<Time<{ SECOND }, { 90 * DAY }>>] = None;
    }
}

impl Retry {
    /// Whether it says nothing about when.
    pub(crate) fn says_nothing(&self) -> bool {
        self.first.is_none() && !self.hint && self.retry.is_empty() && self.give_up.is_none()
    }
}

impl Entry for Retry {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "full-mailboxes".into(),
            categories: vec![Category::Quota],
            retry: vec![Duration::from_secs(3_600), Duration::from_secs(4 * 3_600)],
            retry_max: Some(Duration::from_secs(12 * 3_600)),
            give_up: Some(Duration::from_secs(2 * 86_400)),
            ..Self::default()
        }
    }
}
