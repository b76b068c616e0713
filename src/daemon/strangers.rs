//! What is remembered of strangers: told of reloads, told to the metrics.

use std::{fs, path::Path, sync::Arc, time::Duration};

use admin::ReputationRules;
use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use bridge::{ListResult, Strangers, Systems};
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

/// A database of autonomous systems, as it stands in a file.
///
/// # Errors
/// When it cannot be read, or is none.
pub(crate) fn read_systems(file: &Path) -> anyhow::Result<Systems> {
    let read = || -> anyhow::Result<Systems> {
        let size = fs::metadata(file)?.len();
        ensure!(size <= DATABASE_MAX, "it has {size} octets, and {DATABASE_MAX} are read at most");
        Ok(Systems::parse(fs::read(file)?)?)
    };
    read().with_context(|| file.display().to_string())
}

/// The largest of them that are known have a tenth of it.
const DATABASE_MAX: u64 = 512 << 20;

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
        let config = snapshot.load().config.clone();
        let config::Reputation { mode, sample, weight_max, asn_weight_max, .. } = config.reputation;
        ReputationRules { mode, sample, weight_max, asn_weight_max }
    };
    (strangers.clone(), Arc::new(rules))
}
