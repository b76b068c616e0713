//! When a refusal is worth another try: rules by what it is about, by whom and for which mail; arithmetic without state.
//!
//! The queue's own schedule holds unless a rule says otherwise. A rule may name the first wait, all waits, or leave it to
//! the site, which often says in its reply when to come again; and after how long mail that is refused so is given up.

use std::{sync::Arc, time::Duration};

use mail::{Category, Status, StatusPattern};

use crate::{Owner, Owners, Pattern, rule_of_site};

/// The rules, the first first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRules {
    rules: Vec<RetryRule>,
    /// The longest wait of a rule that names none.
    wait_max: Duration,
}

/// When mail that is refused in one way is tried again. An empty list fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRule {
    /// In logs, and where somebody asks why.
    pub name: Arc<str>,
    /// What the refusal is about.
    pub categories: Vec<Category>,
    /// Its enhanced status code.
    pub statuses: Vec<StatusPattern>,
    /// The rules for replies that knew it, by name.
    pub reply_rules: Vec<Box<str>>,
    /// The sites that said it: by the name of their rule, or their own.
    pub sites: Vec<Box<str>>,
    /// The routes by which it was tried, by name.
    pub routes: Vec<Box<str>>,
    /// The recipient's domain.
    pub domains: Vec<Pattern>,
    /// The classes of the mail.
    pub classes: Vec<MailClass>,
    /// Whether its sender can be told of a failure; none: either.
    pub senders: Option<Answerable>,
    /// Whose mail it is.
    pub owners: Owners,
    /// How long to wait after the first attempt.
    pub first: Option<Duration>,
    /// Whether a time that the reply names is waited.
    pub hint: bool,
    /// How long to wait after the first attempt, the second, and so on; then each wait is twice the one before. None: as the
    /// queue has it.
    pub waits: Vec<Duration>,
    /// But never longer than this.
    pub wait_max: Option<Duration>,
    /// How long after its reception mail is given up that is still refused so; none: as the queue has it.
    pub give_up: Option<Duration>,
}

/// How urgent mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailClass {
    /// Somebody said that it is urgent.
    Urgent,
    /// Somebody waits for it.
    Normal,
    /// Nobody waits for it.
    Bulk,
}

/// Whether anybody can be told that mail did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerable {
    /// It has a sender.
    Yes,
    /// It has the null reverse-path.
    No,
}

/// A refusal, and of what.
#[derive(Clone, Copy, Debug)]
pub struct RefusedMail<'a> {
    /// What it is about.
    pub category: Category,
    /// Its status.
    pub status: Option<Status>,
    /// The rule for replies that knew it.
    pub reply_rule: Option<&'a str>,
    /// Its text.
    pub text: &'a str,
    /// The site that said it.
    pub site: &'a str,
    /// The route by which it was tried.
    pub route: Option<&'a str>,
    /// The recipient's domain.
    pub domain: &'a str,
    /// How urgent the mail is.
    pub class: MailClass,
    /// Whether its sender can be told.
    pub answerable: Answerable,
    /// Whose it is.
    pub owner: Owner<'a>,
    /// How many attempts have ended, this one among them.
    pub attempts: u16,
}

/// What is made of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The rule that says so; none: the queue's schedule.
    pub rule: Option<Arc<str>>,
    /// How long to wait.
    pub wait: PlannedWait,
    /// After how long it is given up, where the rule says so.
    pub give_up: Option<Duration>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlannedWait {
    /// As the queue's schedule says.
    #[default]
    Scheduled,
    /// As the rule's schedule says, about.
    Listed(Duration),
    /// The rule's first wait, not shorter: whoever greylists counts.
    First(Duration),
    /// As the site asked, not shorter.
    Asked(Duration),
}

/// What a site asks for is not believed below this: nobody is to make us come again and again.
const HINT_MIN: Duration = Duration::from_secs(30);
/// Nor above this: the rule knows better.
const HINT_MAX: Duration = Duration::from_secs(4 * 3600);

impl RetryRules {
    /// These rules, the first first; waits of those that say nothing else are at most so long.
    pub const fn new(rules: Vec<RetryRule>, wait_max: Duration) -> Self {
        Self { rules, wait_max }
    }

    /// When a refusal is to be tried again. The first rule that fits says.
    pub fn plan(&self, refused: &RefusedMail<'_>) -> Plan {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(refused)) else { return Plan::default() };
        let asked = if rule.hint { hint(refused.text) } else { None };
        let wait = match (asked, rule.first) {
            (Some(asked), _) => PlannedWait::Asked(asked),
            (None, Some(first)) if refused.attempts <= 1 => PlannedWait::First(first),
            (None, _) => match rule.listed(refused.attempts) {
                Some(wait) => PlannedWait::Listed(wait.min(rule.wait_max.unwrap_or(self.wait_max))),
                None => PlannedWait::Scheduled,
            },
        };
        Plan { rule: Some(rule.name.clone()), wait, give_up: rule.give_up }
    }
}

impl RetryRule {
    fn fits(&self, refused: &RefusedMail<'_>) -> bool {
        fn one_of<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(fits)
        }
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let named = |name: Option<&str>, wanted: &str| name.is_some_and(|name| same(name, wanted));
        one_of(&self.categories, |category| *category == refused.category)
            && one_of(&self.statuses, |wanted| refused.status.is_some_and(|status| wanted.matches(status)))
            && one_of(&self.reply_rules, |name| named(refused.reply_rule, name))
            && one_of(&self.sites, |name| same(refused.site, name) || named(rule_of_site(refused.site), name))
            && one_of(&self.routes, |name| named(refused.route, name))
            && one_of(&self.domains, |pattern| pattern.fits(refused.domain))
            && one_of(&self.classes, |class| *class == refused.class)
            && self.senders.is_none_or(|senders| senders == refused.answerable)
            && self.owners.has(refused.owner)
    }

    /// The wait of its own schedule.
    fn listed(&self, attempts: u16) -> Option<Duration> {
        let place = usize::from(attempts.saturating_sub(1));
        let last = self.waits.last()?;
        Some(self.waits.get(place).copied().unwrap_or_else(|| {
            let doublings = (place + 1 - self.waits.len()).min(30);
            last.saturating_mul(1 << doublings)
        }))
    }
}

/// When a reply says to come again: "try again in 5 minutes", "wait 300 seconds", "come back in 00:05:00". None where it
/// says nothing of the kind, or nothing that is to be believed.
pub fn hint(text: &str) -> Option<Duration> {
    /// So much of a text is looked at.
    const LEN_MAX: usize = 1024;
    let text = &text[..text.floor_char_boundary(LEN_MAX)];
    let words: Vec<&str> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .filter(|word| !word.is_empty())
        .collect();
    let found = (1..words.len()).find_map(|place| {
        // "in 5 minutes", "for 5 minutes", "wait 5 minutes", and the same with "at least", "another" or the like between.
        let before = &words[place.saturating_sub(3)..place];
        let leads =
            |word: &&str| ["in", "after", "for", "wait"].iter().any(|lead| word.eq_ignore_ascii_case(lead));
        if !before.iter().any(leads) {
            return None;
        }
        time_of(words[place], words.get(place + 1).copied())
    });
    found.filter(|time| *time <= HINT_MAX).map(|time| time.max(HINT_MIN))
}

/// A length of time in one word ("00:05:00", "300s") or two ("300 seconds").
fn time_of(word: &str, next: Option<&str>) -> Option<Duration> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    let parts: Vec<_> = word.split(':').collect();
    if let [hours, minutes, seconds] = parts[..] {
        let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
        return Some(Duration::from_secs(hours * 3600 + minutes * 60 + seconds));
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = word.split_at(digits);
    let unit = if unit.is_empty() { next? } else { unit };
    const UNITS: [(&[&str], u64); 3] = [
        (&["s", "sec", "secs", "second", "seconds"], 1),
        (&["m", "min", "mins", "minute", "minutes"], 60),
        (&["h", "hour", "hours"], 3600),
    ];
    let seconds = UNITS
        .iter()
        .find(|(words, _)| words.iter().any(|word| word.eq_ignore_ascii_case(unit)))
        .map(|(_, seconds)| *seconds)?;
    Some(Duration::from_secs(number(count)? * seconds))
}

#[cfg(test)]
mod test {
    use mail::Domain;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refused(category: Category, attempts: u16) -> RefusedMail<'static> {
        RefusedMail {
            category,
            status: Some(Status(4, 2, 2)),
            reply_rule: Some("gmail-full"),
            text: "later",
            site: "site:google",
            route: Some("default"),
            domain: "example.org",
            class: MailClass::Normal,
            answerable: Answerable::Yes,
            owner: Owner { tenant: Some("shop"), campaign: Some("news") },
            attempts,
        }
    }

    #[test]
    fn replies_say_when_to_come_again() {
        for (text, seconds) in [
            ("4.2.0 <bob@example.org>: Recipient address rejected: Greylisted for 300 seconds", Some(300)),
            ("Greylisted, please try again in 5 minutes", Some(300)),
            ("Greylisting in action, please come back in 00:05:00", Some(300)),
            ("try again in 240s", Some(240)),
            ("Greylisted; wait at least 10 min.", Some(600)),
            ("please retry after 1 Hour", Some(3600)),
            ("come back in 1 second", Some(30)),
            ("come back in 400 days", None),
            ("come back in 99999 hours", None),
            ("try again in 999999999999999999999 seconds", None),
            ("try again later", None),
            ("5 minutes ago there was room", None),
            ("in 5 bananas", None),
            ("in", None),
            ("for ::", None),
            ("für 5 minutes", None),
            ("", None),
        ] {
            assert_eq!(hint(text).map(|time| time.as_secs()), seconds, "{text:?}");
        }
        assert_eq!(hint(&"in 5é ".repeat(1000)), None);
    }

    #[test]
    fn the_first_rule_that_fits_says_when() {
        let grey = RetryRule {
            name: "grey".into(),
            categories: vec![Category::Greylisted],
            first: Some(MINUTE * 5),
            hint: true,
            ..RetryRule::default()
        };
        let full = RetryRule {
            name: "full".into(),
            categories: vec![Category::Quota],
            waits: vec![MINUTE * 60, MINUTE * 120],
            wait_max: Some(MINUTE * 300),
            give_up: Some(MINUTE * 1440),
            ..RetryRule::default()
        };
        let rules = RetryRules::new(vec![grey, full], MINUTE * 180);
        let wait =
            |category, attempts, text| rules.plan(&RefusedMail { text, ..refused(category, attempts) }).wait;
        assert_eq!(wait(Category::Greylisted, 1, "later"), PlannedWait::First(MINUTE * 5));
        assert_eq!(wait(Category::Greylisted, 2, "later"), PlannedWait::Scheduled);
        assert_eq!(wait(Category::Greylisted, 2, "in 10 minutes"), PlannedWait::Asked(MINUTE * 10));
        for (attempts, minutes) in [(1, 60), (2, 120), (3, 240), (4, 300), (u16::MAX, 300)] {
            let expected = PlannedWait::Listed(MINUTE * minutes);
            assert_eq!(wait(Category::Quota, attempts, "in 10 minutes"), expected, "{attempts}");
        }
        let plan = rules.plan(&refused(Category::Quota, 1));
        assert_eq!((plan.rule.as_deref(), plan.give_up), (Some("full"), Some(MINUTE * 1440)));
        assert_eq!(rules.plan(&refused(Category::Rate, 1)), Plan::default());
        assert_eq!(RetryRules::default().plan(&refused(Category::Greylisted, 1)), Plan::default());
    }

    #[test]
    fn each_list_of_a_rule_counts() {
        let fits = |rule: RetryRule, refused: &RefusedMail<'_>| {
            let rule = RetryRule { waits: vec![MINUTE], ..rule };
            RetryRules::new(vec![rule], MINUTE).plan(refused).wait == PlannedWait::Listed(MINUTE)
        };
        let all = RetryRule {
            statuses: vec!["4.2.*".parse().unwrap()],
            reply_rules: vec!["Gmail-Full".into()],
            sites: vec!["google".into()],
            routes: vec!["default".into()],
            domains: vec![Pattern::Exact(Domain::parse("example.org").unwrap())],
            classes: vec![MailClass::Normal],
            senders: Some(Answerable::Yes),
            owners: Owners { tenants: vec!["shop".into()], campaigns: vec!["news".into()] },
            ..RetryRule::default()
        };
        let mail = refused(Category::Quota, 1);
        assert!(fits(all.clone(), &mail) && fits(RetryRule::default(), &mail));
        assert!(fits(RetryRule { sites: vec!["site:google".into()], ..all.clone() }, &mail));
        for other in [
            RefusedMail { status: None, ..mail },
            RefusedMail { status: Some(Status(4, 7, 1)), ..mail },
            RefusedMail { reply_rule: None, ..mail },
            RefusedMail { site: "hosts:google", ..mail },
            RefusedMail { route: None, ..mail },
            RefusedMail { domain: "example.com", ..mail },
            RefusedMail { class: MailClass::Bulk, ..mail },
            RefusedMail { answerable: Answerable::No, ..mail },
            RefusedMail { owner: Owner { tenant: None, ..mail.owner }, ..mail },
            RefusedMail { owner: Owner { campaign: Some("sale"), ..mail.owner }, ..mail },
        ] {
            assert!(!fits(all.clone(), &other), "{other:?}");
        }
    }
}
