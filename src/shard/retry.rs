//! When a refused message is tried again, by the rules of the configuration: for the queue, and for whoever asks why.

use std::{fmt, sync::Arc, time::Duration};

use config::{Config, RetrySenders};
use delivery::{
    Action, Answerable, Judgement, MailClass, Owner, Plan, PlannedWait, RefusedMail, RetryRule, RetryRules,
    Routes,
};
use mail::{QueueId, Span, Status};
use queue::{Kind, Priority, Wait};
use watch::RetryWait;

use crate::{lots::Owned, settings, shard::Shard};

/// The name of the rule that `queue.greylist-retry` makes.
const GREYLISTED: &str = "greylisted";
/// The name of the rule for routes to services.
const RETRY_AFTER: &str = "retry-after";

/// The rules of a configuration, and the one for greylisting behind them.
pub(crate) fn rules(config: &Config) -> RetryRules {
    let mut rules: Vec<_> = config.retries.iter().map(rule).collect();
    // What a service asks for by `Retry-After` is a hint in the reply that is made of its answer.
    let to_services = config.routes.iter().filter(|route| route.via == config::Via::Http);
    let routes: Vec<_> = to_services.map(|route| route.name.as_str().into()).collect();
    if !routes.is_empty() {
        rules.push(RetryRule { name: RETRY_AFTER.into(), routes, hint: true, ..RetryRule::default() });
    }
    if let Some(first) = config.queue.greylist_retry {
        rules.push(RetryRule {
            name: GREYLISTED.into(),
            categories: vec![mail::Category::Greylisted],
            first: Some(first),
            hint: true,
            ..RetryRule::default()
        });
    }
    RetryRules::new(rules, config.queue.retry_max)
}

fn rule(rule: &config::Retry) -> RetryRule {
    let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let class = |class: &config::MailClass| match class {
        config::MailClass::Urgent => MailClass::Urgent,
        config::MailClass::Normal => MailClass::Normal,
        config::MailClass::Bulk => MailClass::Bulk,
    };
    RetryRule {
        name: rule.name.as_str().into(),
        categories: rule.categories.clone(),
        statuses: rule.statuses.clone(),
        reply_rules: texts(&rule.reply_rules),
        sites: texts(&rule.sites),
        routes: texts(&rule.routes),
        domains: rule.domains.iter().map(settings::pattern).collect(),
        classes: rule.priorities.iter().map(class).collect(),
        senders: match rule.senders {
            RetrySenders::Any => None,
            RetrySenders::Address => Some(Answerable::Yes),
            RetrySenders::Null => Some(Answerable::No),
        },
        owners: settings::owners(&rule.tenants, &rule.campaigns),
        first: rule.first,
        hint: rule.hint,
        waits: rule.retry.clone(),
        wait_max: rule.retry_max,
        give_up: rule.give_up,
    }
}

/// A refusal of a recipient.
pub(crate) struct Refused<'a> {
    pub(crate) id: QueueId,
    /// Whose mail it is.
    pub(crate) owner: Owner<'a>,
    /// Where it goes.
    pub(crate) key: &'a str,
    /// Who said it.
    pub(crate) site: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) judgement: &'a Judgement,
    pub(crate) status: Option<Status>,
    pub(crate) text: &'a str,
    /// Attempts that have ended, this one among them.
    pub(crate) attempts: u16,
}

/// When it is tried again.
pub(crate) fn plan(shard: &Shard, refused: &Refused<'_>) -> Plan {
    let settings = shard.settings();
    let message = shard.queue.borrow().message(refused.id);
    let route = settings.routes.route_of_key(refused.key);
    let class = match message.map(|message| message.priority).unwrap_or_default() {
        Priority::Urgent => MailClass::Urgent,
        Priority::Normal => MailClass::Normal,
        Priority::Bulk => MailClass::Bulk,
    };
    let answerable = match message.map(|message| message.kind).unwrap_or_default() {
        Kind::Message => Answerable::Yes,
        Kind::Notification => Answerable::No,
    };
    settings.retry_rules.plan(&RefusedMail {
        category: refused.judgement.category,
        status: refused.status,
        reply_rule: refused.judgement.rule.as_deref(),
        text: refused.text,
        site: &Routes::limit_key(refused.site),
        route: route.and_then(|route| settings.routes.name_of(route)),
        domain: refused.domain,
        class,
        answerable,
        owner: refused.owner,
        attempts: refused.attempts,
    })
}

/// By which rule a deferred recipient waits, as far as that is known still.
pub(crate) fn remembered(shard: &Shard, id: QueueId, state: &queue::RecipientState, domain: &str) -> Plan {
    let settings = shard.settings();
    let last = shard.last(id, state.recipient);
    let owned = Owned::of(shard, &settings, state.destination);
    let judgement = match (&last, state.category) {
        (Some(last), _) => {
            let refused = delivery::Refused::kept(&last.text, last.status, &last.host, domain);
            let refused = delivery::Refused { owner: owned.owner(), ..refused };
            let judgement = settings.reply_rules.classify(&refused);
            // What was answered, and not only what, was known then.
            Judgement { category: state.category.unwrap_or(judgement.category), ..judgement }
        }
        (None, Some(category)) => Judgement { category, rule: None, action: Action::None, pool: None },
        (None, None) => return Plan::default(),
    };
    let (key, site) = {
        let queue = shard.queue.borrow();
        let key = queue.name(state.destination).unwrap_or_default().to_owned();
        let site = queue.site_of(state.destination).and_then(|site| queue.site_name(site));
        let site = site.unwrap_or(&key).to_owned();
        (key, site)
    };
    plan(
        shard,
        &Refused {
            id,
            owner: owned.owner(),
            key: &key,
            site: &site,
            domain,
            judgement: &judgement,
            status: state.status,
            text: last.as_ref().map_or("", |last| &last.text),
            attempts: state.attempts,
        },
    )
}

/// As the queue takes it.
pub(crate) const fn wait(wait: PlannedWait) -> Wait {
    match wait {
        PlannedWait::Scheduled => Wait::Scheduled,
        PlannedWait::Listed(time) => Wait::About(time),
        PlannedWait::First(time) | PlannedWait::Asked(time) => Wait::AtLeast(time),
    }
}

/// As the metrics tell it.
pub(crate) const fn counted(wait: PlannedWait) -> RetryWait {
    match wait {
        PlannedWait::Scheduled => RetryWait::Scheduled,
        PlannedWait::Listed(_) => RetryWait::Listed,
        PlannedWait::First(_) => RetryWait::First,
        PlannedWait::Asked(_) => RetryWait::Asked,
    }
}

/// What set the time of a next try: keys of the configuration.
pub(crate) fn set_by(plan: &Plan) -> String {
    match (plan.rule.as_deref(), plan.wait, plan.give_up) {
        (Some(GREYLISTED), PlannedWait::First(_) | PlannedWait::Asked(_), _) => "queue.greylist-retry".into(),
        (Some(rule), PlannedWait::Listed(_) | PlannedWait::First(_) | PlannedWait::Asked(_), _)
        | (Some(rule), PlannedWait::Scheduled, Some(_)) => format!("retry.{rule}"),
        (Some(_) | None, PlannedWait::Scheduled, _) | (None, _, _) => "queue.retry".into(),
    }
}

/// How that came, in words; nothing where it is the queue's schedule.
pub(crate) struct Words<'a>(pub(crate) &'a Plan);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.wait {
            PlannedWait::Scheduled => {}
            PlannedWait::Listed(time) => write!(f, "; such a refusal waits {} now", span(time))?,
            PlannedWait::First(time) => write!(f, "; the first time it waits {} at least", span(time))?,
            PlannedWait::Asked(time) => write!(f, "; the site asked for {}", span(time))?,
        }
        match self.0.give_up {
            Some(time) => write!(f, "; what is refused so is given up {} after it came", span(time)),
            None => Ok(()),
        }
    }
}

const fn span(time: Duration) -> Span {
    Span(time)
}

/// The name of the rule, where one has set something.
pub(crate) fn rule_name(plan: &Plan) -> Option<Arc<str>> {
    plan.rule.clone().filter(|_| plan.wait != PlannedWait::Scheduled || plan.give_up.is_some())
}
