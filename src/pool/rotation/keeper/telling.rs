//! What the keeper tells of keys, and shows to whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use admin::{KeyView, RotationView, left};
use deliverability::Record;
use mail::Timestamp;
use trust::{Concern, KeyPhase, REVOKED, RotatedKey, RotationId, RotationRules, Seen};
use watch::events::{
    DkimByHand, DkimInTheWay, DkimKey, DkimKeyUnpublished, DkimRecordOverdue, DkimRotationFailed,
};

use super::{Keeper, Plan, RotationSettings, publishes, publishing, rules};

/// What to look at when a provider has published a record that is not seen.
const OVERDUE_BY_PROVIDER: &str = "ask each name server of the zone for it (dig TXT NAME @SERVER): one that does not get the zone from the \
    primary, or a primary whose zone is not the one that is served, does not have it";
/// What to look at when nobody says what is there.
const UNKNOWN: &str = "the DNS has not said for long what is there, and no key is begun: ask the servers of `dns.servers` for it (dig TXT \
    NAME @SERVER)";
/// What to look at when it is published by hand.
const OVERDUE_BY_HAND: &str = "publish it; if that was done, look whether it stands at another name (with the zone in it twice), and ask \
    each name server of the zone for it (dig TXT NAME @SERVER)";

impl Keeper {
    /// Tells how far keys have come, and what is wrong.
    pub(super) fn tell(
        &mut self,
        settings: &RotationSettings,
        before: &BTreeMap<(RotationId, Box<str>), KeyPhase>,
    ) {
        let (at, after) = ((self.inner.clock)().0, self.phases());
        for ((id, selector), phase) in &after {
            if before.get(&(id.clone(), selector.clone())) != Some(phase) {
                let (key, domain, state) = (&*id.entry, &*id.domain, phase.as_str());
                DkimKey { key, domain, selector, state }.emit(at);
            }
        }
        for (id, selector) in before.keys().filter(|key| !after.contains_key(*key)) {
            let (key, domain) = (&*id.entry, &*id.domain);
            DkimKey { key, domain, selector, state: "forgotten" }.emit(at);
        }
        self.troubles.retain(|id, selector, _| after.contains_key(&(id.clone(), selector.into())));
        let mut right = BTreeSet::new();
        let mut news = Vec::new();
        for (id, rotation) in &self.rotations.0 {
            let concerns = rotation.concerns(publishing(settings, rotation));
            for concern in concerns {
                let (word, selector) = words_of(&concern);
                // Where a wildcard has a key, that is so with one name after the other.
                let of_many = matches!(concern, Concern::Taken(_) | Concern::Unknown(_));
                let about = if of_many { &id.entry } else { selector };
                news.push((format!("{word} {about} {}", id.domain), id.clone(), selector.to_owned(), word));
            }
            for key in rotation.keys().iter().filter(|key| key.seen == Seen::Right) {
                right.insert(format!("unpublished {} {}", key.selector, id.domain));
                right.insert(format!("overdue {} {}", key.selector, id.domain));
            }
        }
        // Of what was right meanwhile it is told at once when it is wrong again.
        self.told.retain(|what, _| !right.contains(what));
        for (what, id, selector, word) in news {
            if !self.is_news(&what) {
                continue;
            }
            let name = format!("{selector}._domainkey.{}", id.domain);
            let key = self
                .rotations
                .0
                .get(&id)
                .and_then(|rotation| rotation.keys().iter().find(|key| *key.selector == *selector));
            let found = key.and_then(|key| match &key.seen {
                Seen::Other(text) => Some(&**text),
                Seen::Unknown | Seen::Right | Seen::Absent => None,
            });
            let record = key.map_or("", |key| &key.record);
            let (entry, name) = (&*id.entry, name.as_str());
            match word {
                "unpublished" => DkimKeyUnpublished { key: entry, name, found, record }.emit(at),
                "overdue" => {
                    let by = self.publisher(&id);
                    let by = by.as_deref().filter(|_| publishes(settings, by.as_deref()));
                    let seconds = key.map_or(0, |key| key.unseen.as_secs());
                    let remedy = if by.is_some() { OVERDUE_BY_PROVIDER } else { OVERDUE_BY_HAND };
                    DkimRecordOverdue { key: entry, name, by, seconds, found, record, remedy }.emit(at);
                }
                "unknown" => DkimRotationFailed { key: entry, name, task: "look", error: UNKNOWN }.emit(at),
                "in-the-way" => DkimInTheWay { key: entry, name, found }.emit(at),
                "revoke" => DkimByHand { key: entry, task: "publish", name, record: REVOKED }.emit(at),
                task => DkimByHand { key: entry, task, name, record }.emit(at),
            }
        }
    }

    /// Shows how far keys are to whoever asks.
    pub(super) fn show(&self, settings: &RotationSettings) {
        let now = (self.inner.clock)();
        let ids: BTreeMap<_, _> = settings
            .dkim
            .iter()
            .flat_map(|dkim| {
                RotationSettings::ids(dkim).map(move |(id, algorithm)| (id, Plan { dkim, algorithm }))
            })
            .collect();
        let views = self.rotations.0.iter().map(|(id, rotation)| {
            let plan = ids.get(id);
            let rules = rules(settings, rotation, plan);
            let publishing = publishing(settings, rotation);
            let concerns = rotation.concerns(publishing);
            let by_hand = |selector: &str| {
                concerns
                    .iter()
                    .map(words_of)
                    .find(|(word, of)| *of == selector && is_by_hand(word))
                    .map(|(word, _)| word)
            };
            let signs_for = rotation.signing().map(|key| key.age(now));
            let (updates_done, updates_failed) = self.updates.get(&id.entry).copied().unwrap_or_default();
            RotationView {
                key: id.entry.to_string(),
                domain: id.domain.to_string(),
                algorithm: id.kind.as_str().to_owned(),
                publisher: rotation.publisher.as_deref().map(str::to_owned),
                next_in: plan.map(|_| signs_for.map_or(0, |age| rules.every.saturating_sub(age).as_secs())),
                wished: rotation.is_wished(),
                updates_done,
                updates_failed,
                keys: rotation
                    .keys()
                    .iter()
                    .map(|key| KeyView {
                        trouble: self.troubles.words(id, &key.selector),
                        ..key_view(id, key, &rules, now, by_hand(&key.selector))
                    })
                    .collect(),
            }
        });
        self.inner.shown.show(views.collect());
    }
}

/// What a concern is called, and the selector it is about.
fn words_of<'a>(concern: &Concern<'a>) -> (&'static str, &'a str) {
    match concern {
        Concern::Publish(key) => ("publish", &key.selector),
        Concern::Revoke(key) => ("revoke", &key.selector),
        Concern::Withdraw(key) => ("remove", &key.selector),
        Concern::Unpublished(key) => ("unpublished", &key.selector),
        Concern::Overdue(key) => ("overdue", &key.selector),
        Concern::InTheWay(key) => ("in-the-way", &key.selector),
        Concern::Taken(selector) => ("in-the-way", selector),
        Concern::Unknown(selector) => ("unknown", selector),
    }
}

fn is_by_hand(word: &str) -> bool {
    matches!(word, "publish" | "revoke" | "remove")
}

fn key_view(
    id: &RotationId,
    key: &RotatedKey,
    rules: &RotationRules,
    now: Timestamp,
    by_hand: Option<&'static str>,
) -> KeyView {
    let still = key.wait(rules).map(|wait| left(wait.saturating_sub(key.waited)));
    let still = still.unwrap_or_default();
    let waits_for = match key.phase {
        KeyPhase::Begun => "its private key is to be made".to_owned(),
        KeyPhase::Made => "its record is to be published".to_owned(),
        KeyPhase::Published | KeyPhase::Shown if key.overdue => {
            format!("overdue: the DNS has not shown it for {}", left(key.unseen))
        }
        KeyPhase::Published => "waits until the DNS shows it".to_owned(),
        KeyPhase::Shown => format!("signs when the DNS has shown it for another {still}"),
        KeyPhase::Signing => "signs".to_owned(),
        KeyPhase::Retiring => format!("its record stays for another {still}"),
        KeyPhase::Revoking => "its record is to say that it is revoked".to_owned(),
        KeyPhase::Revoked => format!("its record says so for another {still}"),
        KeyPhase::Leaving => "its record is to go".to_owned(),
    };
    let name = format!("{}._domainkey.{}", key.selector, id.domain);
    let record = if by_hand == Some("revoke") { REVOKED } else { &*key.record };
    KeyView {
        zone_line: format!("{}\n", Record::text(&name, record)),
        name,
        selector: key.selector.to_string(),
        state: key.phase.as_str().to_owned(),
        seconds: key.age(now).as_secs(),
        shows: match &key.seen {
            Seen::Unknown => "unknown".to_owned(),
            Seen::Right => "right".to_owned(),
            Seen::Absent => "nothing".to_owned(),
            Seen::Other(text) => text.to_string(),
        },
        waits_for,
        record: record.to_owned(),
        overdue: key.overdue,
        trouble: None,
        by_hand: by_hand.map(|word| if word == "remove" { "remove" } else { "publish" }.to_owned()),
    }
}
