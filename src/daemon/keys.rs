//! Keys that are renewed: told to the metrics.

use std::collections::BTreeMap;

use admin::{RotationView, Rotations};
use trust::KeyPhase;
use watch::Registry;

/// Tells the metrics how it is now.
pub(crate) fn tell(rotations: &Rotations, registry: &Registry) {
    let views = rotations.views();
    let mut entries: BTreeMap<&str, Vec<&RotationView>> = BTreeMap::new();
    for view in &views {
        entries.entry(&view.key).or_default().push(view);
    }
    for (entry, views) in entries {
        let keys = || views.iter().flat_map(|view| &view.keys);
        let states = KeyPhase::ALL
            .map(|phase| (phase.as_str(), keys().filter(|key| key.state == phase.as_str()).count()));
        // What nobody could tell is as it was.
        let signing = keys().filter(|key| key.state == KeyPhase::Signing.as_str() && key.shows != "unknown");
        let published = signing.map(|key| key.shows == "right").reduce(|all, one| all && one);
        let by_hand = keys().filter(|key| key.by_hand.is_some()).count();
        let overdue = keys().filter(|key| key.overdue).count();
        // All rotations of an entry count together.
        let updates = views.first().map_or((0, 0), |view| (view.updates_done, view.updates_failed));
        registry.set_dkim(entry, &states, published, (by_hand, overdue), updates);
    }
}
