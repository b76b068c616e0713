//! The rules for replies, from the configuration: the operator's before those that are built in.

use std::sync::{Arc, OnceLock};

use config::{Config, ReplyAction, ReplyRule, ReplyStage};
use delivery::{Action, At, Classifier, Rule, RulesError};

use crate::settings;

/// Makes the rules of a configuration ready, for all shards.
///
/// # Errors
/// [`RulesError`] when their patterns are too many for one table.
pub fn reply_rules(config: &Config) -> Result<Arc<Classifier>, RulesError> {
    let own = Classifier::new(config.reply_rules.iter().map(rule).collect())?;
    Ok(Arc::new(own.before(built_in())))
}

/// Those that are built in. They are some hundred patterns, and no configuration changes them: they are made ready once.
fn built_in() -> Arc<Classifier> {
    static BUILT_IN: OnceLock<Arc<Classifier>> = OnceLock::new();
    let make = || {
        let rules = ReplyRule::built_in().iter().map(rule).collect();
        Arc::new(Classifier::new(rules).expect("our own patterns"))
    };
    BUILT_IN.get_or_init(make).clone()
}

/// The examples of the operator's rules that other rules take, in words.
///
/// # Errors
/// [`RulesError`], as [`reply_rules`].
pub fn reply_rules_astray(config: &Config) -> Result<Vec<(String, String)>, RulesError> {
    let astray = reply_rules(config)?.astray().into_iter();
    let own = |name: &str| config.reply_rules.iter().any(|rule| rule.name == name);
    let words = astray.map(|astray| {
        let text = match &astray.taken_by {
            Some(other) if own(other) => format!("it is for the rule {other}, which stands before this one"),
            Some(other) if own(&astray.rule) => format!("it does not fit, and is for the rule {other}"),
            Some(other) => format!("the built-in rule {} had it, now {other} has", astray.rule),
            None => "no rule fits it".to_owned(),
        };
        // What is built in has no key: it is the rule before it that one may have to change.
        let key = if own(&astray.rule) { Some(&astray.rule) } else { astray.taken_by.as_ref() };
        let key = key.map_or("", |name| &**name).to_ascii_lowercase();
        (format!("reply-rule.{key}"), text)
    });
    Ok(words.collect())
}

fn rule(rule: &ReplyRule) -> Rule {
    let stage = |stage: &ReplyStage| match stage {
        ReplyStage::Greeting => At::Greeting,
        ReplyStage::Ehlo => At::Ehlo,
        ReplyStage::StartTls => At::StartTls,
        ReplyStage::Mail => At::Mail,
        ReplyStage::Rcpt => At::Rcpt,
        ReplyStage::Data => At::Data,
        ReplyStage::Content => At::Content,
        ReplyStage::Local => At::Local,
    };
    Rule {
        name: rule.name.as_str().into(),
        codes: rule.codes.clone(),
        statuses: rule.statuses.clone(),
        texts: rule.text.iter().map(|text| text.as_str().into()).collect(),
        domains: rule.domains.iter().map(settings::pattern).collect(),
        hosts: rule.hosts.iter().map(settings::pattern).collect(),
        stages: rule.stages.iter().map(stage).collect(),
        owners: settings::owners(&rule.tenants, &rule.campaigns),
        category: rule.category,
        action: match rule.action {
            ReplyAction::None => Action::None,
            ReplyAction::Suspend => Action::Suspend(rule.suspend),
            ReplyAction::Slower => Action::Slower,
            ReplyAction::Temporary => Action::Temporary,
            ReplyAction::Permanent => Action::Permanent,
            ReplyAction::Alarm => Action::Alarm,
        },
        pool: rule.pool.as_deref().map(Into::into),
        example: rule.example.as_str().into(),
    }
}

#[cfg(test)]
#[path = "replies_test.rs"]
mod test;
