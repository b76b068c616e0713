//! What a refusal is about: a table of rules gives each a [`Category`], and some of them something to do.
//!
//! The first rule that fits is the one that counts, so what says most stands first: a provider's own wording, then
//! what servers of a kind say, then what a status or a code alone says. A rule fits when each of its lists that is not
//! empty has something that fits. What we found ourselves (no connection, no TLS, no answer from the DNS) goes through
//! the same table, at [`At::Local`]: the status that we gave it is what tells it apart.
//!
//! All patterns of a table are one automaton, made once: a text is read once, in a time that grows with its
//! length and with nothing else, whatever it is and however many rules there are.

use std::{sync::Arc, time::Duration};

use mail::{Category, Status, StatusPattern};
use regex::bytes::{RegexSet, RegexSetBuilder};
use smtp::client::Stage;

use crate::{Diagnostic, Outcome, Owner, Owners, Pattern, Report, outcome::cut};

/// The rules, in order, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: Vec<Rule>,
    /// The patterns of all rules, one after the other.
    texts: RegexSet,
    /// Who is asked when none of the rules fits.
    below: Option<Arc<Classifier>>,
}

/// What rules want to know of mail beside what was said about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whose it is.
    pub tenant: bool,
    /// Of which campaign.
    pub campaign: bool,
}

/// What kind of refusal is what. An empty list fits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// In logs, and where somebody asks why.
    pub name: Arc<str>,
    /// Reply codes.
    pub codes: Vec<u16>,
    /// Enhanced status codes.
    pub statuses: Vec<StatusPattern>,
    /// Regular expressions, one of which is found in the text, whatever the case of its letters.
    pub texts: Vec<Box<str>>,
    /// The recipient's domain.
    pub domains: Vec<Pattern>,
    /// The name of the host that spoke.
    pub hosts: Vec<Pattern>,
    /// What was answered.
    pub stages: Vec<At>,
    /// Whose mail it is.
    pub owners: Owners,
    /// What it is about.
    pub category: Category,
    /// What is done about it.
    pub action: Action,
    /// The pool of sources that the message leaves from after that.
    pub pool: Option<Arc<str>>,
    /// A reply that it is for, as it comes; empty when nobody gave one.
    pub example: Box<str>,
}

/// A rule whose example another one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Astray {
    /// The rule.
    pub rule: Arc<str>,
    /// The one that takes it; none when no rule fits, the own one included.
    pub taken_by: Option<Arc<str>>,
}

/// To what the other side said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The connection.
    Greeting,
    /// EHLO, RSET and what else belongs to no message.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// MAIL: the sender.
    Mail,
    /// RCPT: the recipient.
    Rcpt,
    /// DATA, before the content.
    Data,
    /// The content.
    Content,
    /// Nothing: it is we who found that it does not go.
    Local,
}

/// What a rule has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Nothing but to name it.
    #[default]
    None,
    /// The site is left alone for so long.
    Suspend(Duration),
    /// The site gets less.
    Slower,
    /// It is tried again, whatever was said.
    Temporary,
    /// It is not tried again, whatever was said.
    Permanent,
    /// Somebody is told.
    Alarm,
}

/// What is to become of a site after a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Advice {
    /// Nothing on account of a rule.
    #[default]
    None,
    /// It gets less.
    Slower,
    /// It is left alone for so long.
    Suspend(Duration),
}

/// What was made of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What it is about.
    pub category: Category,
    /// The rule that says so; none when there is no such rule.
    pub rule: Option<Arc<str>>,
    /// What that rule has done.
    pub action: Action,
    /// The pool of sources that the message leaves from after that.
    pub pool: Option<Arc<str>>,
}

/// What is known of a refusal.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The reply code; none when we speak.
    pub code: Option<u16>,
    /// The enhanced status code.
    pub status: Option<Status>,
    /// The text without codes.
    pub text: &'a str,
    /// The recipient's domain; empty when it is not at hand.
    pub domain: &'a str,
    /// The host that spoke; empty when none did.
    pub host: &'a str,
    /// What was answered, where that is known.
    pub at: Option<At>,
    /// Whose mail it was said of.
    pub owner: Owner<'a>,
}

/// The rules cannot be asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the patterns of the reply rules: {0}")]
pub struct RulesError(#[from] regex::Error);

/// Memory for all patterns together: the table that we ship takes a tenth of it.
const PATTERNS_MAX: usize = 32 << 20;

impl Classifier {
    /// These rules, the first first.
    ///
    /// # Errors
    /// [`RulesError`] when a text is no pattern, or all of them together are too large.
    pub fn new(rules: Vec<Rule>) -> Result<Self, RulesError> {
        let texts = rules.iter().flat_map(|rule| &rule.texts);
        // Without Unicode a letter is a letter of ASCII, and what is not is found as it is written: replies in other
        // scripts have no upper case that matters, and the automaton stays small.
        let texts = RegexSetBuilder::new(texts)
            .case_insensitive(true)
            .unicode(false)
            .size_limit(PATTERNS_MAX)
            .build()?;
        Ok(Self { rules, texts, below: None })
    }

    /// These rules before those of another table. Who writes one of the same name wants it in the other's place.
    #[must_use]
    pub fn before(self, below: Arc<Self>) -> Self {
        Self { below: Some(below), ..self }
    }

    /// What is to be made of an outcome of this one's mail for a recipient of that domain; nothing of a success.
    pub fn judge(&self, outcome: &Outcome, domain: &str, owner: Owner<'_>) -> Option<Judgement> {
        match outcome {
            Outcome::Delivered(..) => None,
            Outcome::Deferred(report) | Outcome::Failed(report) => {
                Some(self.classify(&Refused { owner, ..Refused::of(report, domain) }))
            }
        }
    }

    /// What a refusal is about.
    pub fn classify(&self, refused: &Refused<'_>) -> Judgement {
        let text = one_line(refused.text);
        let (mut table, mut above): (&Self, &[Rule]) = (self, &[]);
        loop {
            if let Some(judgement) = table.find(refused, &text, above) {
                return judgement;
            }
            let Some(below) = &table.below else { break };
            (table, above) = (below, &table.rules);
        }
        Judgement { category: Category::Other, rule: None, action: Action::None, pool: None }
    }

    /// What the rules of this table say, without those that the table above has in their place.
    fn find(&self, refused: &Refused<'_>, text: &str, above: &[Rule]) -> Option<Judgement> {
        let found = self.texts.matches(text.as_bytes());
        let mut first = 0;
        for rule in &self.rules {
            let own = first..first + rule.texts.len();
            first = own.end;
            let said = || own.is_empty() || own.clone().any(|text| found.matched(text));
            if rule.fits(refused) && said() && !rule.is_among(above) {
                let Rule { category, action, ref pool, ref name, .. } = *rule;
                return Some(Judgement { category, rule: Some(name.clone()), action, pool: pool.clone() });
            }
        }
        None
    }

    /// Whether one of them asks of which campaign mail is, and whether one asks whose it is.
    pub fn asks_for(&self) -> Asked {
        self.rules().into_iter().fold(Asked::default(), |asked, rule| Asked {
            tenant: asked.tenant || !rule.owners.tenants.is_empty(),
            campaign: asked.campaign || !rule.owners.campaigns.is_empty(),
        })
    }

    /// The rules that are asked, in order.
    pub fn rules(&self) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.rules.iter().collect();
        let below = self.below.iter().flat_map(|below| below.rules());
        rules.extend(below.filter(|rule| !rule.is_among(&self.rules)));
        rules
    }

    /// Every rule whose example is not its own.
    pub fn astray(&self) -> Vec<Astray> {
        let mut astray = Vec::new();
        for rule in self.rules().into_iter().filter(|rule| !rule.example.is_empty()) {
            let name = |patterns: &[Pattern]| patterns.first().map(Pattern::some_name).unwrap_or_default();
            let (host, domain) = (name(&rule.hosts), name(&rule.domains));
            let taken_by = self.classify(&rule.shown(&host, &domain)).rule;
            if taken_by.as_ref() != Some(&rule.name) {
                astray.push(Astray { rule: rule.name.clone(), taken_by });
            }
        }
        astray
    }
}

impl Rule {
    /// Whether one of these has its name.
    fn is_among(&self, rules: &[Self]) -> bool {
        rules.iter().any(|rule| rule.name.eq_ignore_ascii_case(&self.name))
    }

    /// All but the text.
    fn fits(&self, refused: &Refused<'_>) -> bool {
        fn one_of<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(fits)
        }
        one_of(&self.codes, |code| refused.code == Some(*code))
            && one_of(&self.statuses, |pattern| refused.status.is_some_and(|status| pattern.matches(status)))
            && one_of(&self.stages, |at| refused.at == Some(*at))
            && one_of(&self.domains, |pattern| pattern.fits(refused.domain))
            && one_of(&self.hosts, |pattern| pattern.fits(refused.host))
            && self.owners.has(refused.owner)
    }

    /// The example, as if it came from that host, for that domain.
    fn shown<'a>(&'a self, host: &'a str, domain: &'a str) -> Refused<'a> {
        let at = self.stages.first().copied();
        let Owners { tenants, campaigns } = &self.owners;
        let (tenant, campaign) = (tenants.first().map(|name| &**name), campaigns.first().map(|name| &**name));
        let owner = Owner { tenant, campaign };
        if at == Some(At::Local) {
            let (status, text) = self.example.split_once(' ').unwrap_or((&self.example, ""));
            return Refused { code: None, status: status.parse().ok(), text, domain, host, at, owner };
        }
        Refused { at: at.or(Some(At::Content)), owner, ..Refused::said(&self.example, domain, host) }
    }
}

impl Pattern {
    /// A name that it fits.
    fn some_name(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Exact(domain) => domain.as_str().to_owned(),
            Self::Below(domain) => format!("mx.{domain}"),
        }
    }

    /// Whether a name that is written like a domain is meant.
    pub(crate) fn fits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(domain) => domain.as_str().eq_ignore_ascii_case(name),
            Self::Below(domain) => {
                let suffix = domain.as_str();
                name.len() > suffix.len()
                    && name.is_char_boundary(name.len() - suffix.len())
                    && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
                    && name[..name.len() - suffix.len()].ends_with('.')
            }
        }
    }
}

impl<'a> Refused<'a> {
    /// As an outcome has it.
    fn of(report: &'a Report, domain: &'a str) -> Self {
        let host = report.remote.as_ref().map_or("", |remote| &*remote.name);
        match &report.diagnostic {
            Diagnostic::Reply(reply) => Self {
                code: Some(reply.code()),
                // What the reply did not say is not what it was about: `550` alone is not `5.0.0`.
                status: reply.status(),
                text: reply.text(),
                domain,
                host,
                at: report.stage.map(At::of),
                owner: Owner::default(),
            },
            Diagnostic::Text(text) => Self {
                code: None,
                status: Some(report.status),
                text,
                domain,
                host,
                at: Some(At::Local),
                owner: Owner::default(),
            },
        }
    }

    /// As it was kept in one line ([`Diagnostic`]), with the status that was kept beside it: the stage is forgotten
    /// then, so that rules which ask for one do not fit. Whose mail it was, whoever asks adds.
    pub fn kept(line: &'a str, status: Option<Status>, host: &'a str, domain: &'a str) -> Self {
        let said = Self::said(line, domain, host);
        match said.code {
            Some(_) if !host.is_empty() => said,
            Some(_) | None => Self { code: None, status, text: line, at: Some(At::Local), ..said },
        }
    }

    /// A reply in one line.
    fn said(line: &'a str, domain: &'a str, host: &'a str) -> Self {
        let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let code = code.and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
        let text = line.get(3..).unwrap_or_default().trim_start();
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let owner = Owner::default();
        match first.parse() {
            Ok(status) => Self { code, status: Some(status), text: rest, domain, host, at: None, owner },
            Err(_) => Self { code, status: None, text, domain, host, at: None, owner },
        }
    }
}

impl At {
    const fn of(stage: Stage) -> Self {
        match stage {
            Stage::Connect | Stage::Greeting => Self::Greeting,
            Stage::Ehlo | Stage::Auth | Stage::Rset | Stage::Xforward | Stage::Quit => Self::Ehlo,
            Stage::StartTls | Stage::Handshake => Self::StartTls,
            Stage::Mail => Self::Mail,
            Stage::Rcpt => Self::Rcpt,
            Stage::Data => Self::Data,
            Stage::Content | Stage::End => Self::Content,
        }
    }
}

impl Judgement {
    /// What its site is to expect.
    pub const fn advice(&self) -> Advice {
        match self.action {
            Action::None | Action::Temporary | Action::Permanent | Action::Alarm => Advice::None,
            Action::Slower => Advice::Slower,
            Action::Suspend(time) => Advice::Suspend(time),
        }
    }

    /// The outcome that the rule wants in the place of this one, if it wants another; of a message that left from that pool
    /// already, if a rule has sent it there.
    pub fn instead(&self, outcome: &Outcome, left_from: Option<&str>) -> Option<Outcome> {
        if let (Some(pool), Outcome::Failed(report)) = (&self.pool, outcome)
            && left_from != Some(&**pool)
        {
            return Some(Outcome::Deferred(report.with_class(4)));
        }
        match (self.action, outcome) {
            (Action::Temporary, Outcome::Failed(report)) => Some(Outcome::Deferred(report.with_class(4))),
            (Action::Permanent, Outcome::Deferred(report)) => Some(Outcome::Failed(report.with_class(5))),
            (
                Action::None
                | Action::Suspend(_)
                | Action::Slower
                | Action::Temporary
                | Action::Permanent
                | Action::Alarm,
                Outcome::Delivered(..) | Outcome::Deferred(_) | Outcome::Failed(_),
            ) => None,
        }
    }
}

impl Report {
    /// The same, with a status that does not contradict what is done.
    fn with_class(&self, class: u8) -> Self {
        let Status(_, subject, detail) = self.status;
        Self { status: Status(class, subject, detail), ..self.clone() }
    }
}

/// A text whose lines were broken wherever there was room, as one.
fn one_line(text: &str) -> String {
    cut(text).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "classify_test.rs"]
mod test;
