//! What is remembered of strangers: told of reloads, told to the metrics.

use std::{sync::Arc, time::Duration};

use admin::ReputationRules;
use arc_swap::ArcSwap;
use bridge::{ListResult, Strangers};
use config::Config;
use shard::Snapshot;
use watch::Registry;

/// What operators ask by: what is known, and what is made of it.
pub(crate) type StrangersFacts = (Strangers, Arc<dyn Fn() -> ReputationRules + Send + Sync>);

/// What a reload changes of it, beside what the shards take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrangersLimits {
    network_v4: u8,
    network_v6: u8,
    greylisted_max: u64,
    reputations_max: u64,
    half_life: Duration,
    lists: Vec<Box<str>>,
}

impl StrangersLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let config::Clients { network_v4, network_v6, greylisted_max, .. } = config.clients;
        let lists = config.dns_lists.iter().map(|list| list.name.as_str().into()).collect();
        let config::Reputation { entries_max: reputations_max, half_life, .. } = config.reputation;
        Self { network_v4, network_v6, greylisted_max, reputations_max, half_life, lists }
    }

    pub(crate) fn apply(&self, strangers: &Strangers) {
        strangers.configure(self.network_v4, self.network_v6, self.greylisted_max);
        strangers.reputation().configure(self.reputations_max, self.half_life);
        strangers.know_lists(self.lists.iter().map(|list| &**list));
    }
}

/// Tells the metrics how it is now.
pub(crate) fn tell(strangers: &Strangers, registry: &Registry) {
    let greylist = strangers.greylist();
    registry.set_greylist(greylist.len(), greylist.evicted());
    registry.set_reputations(strangers.reputation().len());
    for (name, list) in strangers.lists() {
        let counted = list.counted().map(|(result, count): (ListResult, u64)| (result.label(), count));
        registry.set_list(&name, &counted, list.is_aside());
    }
}

/// What operators ask by.
pub(crate) fn facts(strangers: &Strangers, snapshot: &Arc<ArcSwap<Snapshot>>) -> StrangersFacts {
    let snapshot = snapshot.clone();
    let rules = move || {
        let config::Reputation { mode, sample, weight_max, .. } = snapshot.load().config.reputation;
        ReputationRules { mode, sample, weight_max }
    };
    (strangers.clone(), Arc::new(rules))
}
