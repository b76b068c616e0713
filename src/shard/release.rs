//! Mail for a domain tried now because a client asked for it (RFC 1985), wherever in the queue it lies.

use std::{rc::Rc, time::Duration};

use bridge::{Filter, Pattern, Released};
use delivery::{Demand, Routes};
use mail::{Node, Reach};
use queue::{Command, Cursor};
use smtp::{Refusal, Waiting};

use crate::{operate, shard::Shard};

/// How long the other cores may take to look into their queues.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has all cores try what waits for a node.
pub(crate) async fn everywhere(shard: &Shard, node: &Node) -> Result<Waiting, Refusal> {
    let unavailable = Refusal::NodeUnavailable;
    let asked = ring::timeout(PATIENCE, shard.neighbours.release(node)).await;
    let Released { recipients, searching } = asked.map_err(|_| unavailable)?.ok_or(unavailable)?;
    Ok(match (recipients, searching) {
        (1.., _) => Waiting::Something,
        (0, true) => Waiting::Unknown,
        (0, false) => Waiting::Nothing,
    })
}

/// Tries what waits here for a node; `None` while that is being done for another one, or it is not known yet what waits.
///
/// What has a destination of its own is counted at once. Mail of several domains may share a next hop: there the
/// envelopes tell whom it is for, and nobody waits until they are read.
pub(crate) async fn here(shard: &Rc<Shard>, node: &Node) -> Option<Released> {
    if !shard.returning.is_over() {
        return None;
    }
    let busy = Busy::new(shard)?;
    let shared = shared_keys(shard, node);
    let (mut whole, mut mixed, mut recipients) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        const PAGE: usize = 1000;
        let page = shard.queue.borrow().list_destinations(cursor, PAGE);
        next = page.next;
        for destination in page.items {
            let count = destination.counts.total();
            match Routes::domain_of_key(&destination.name) {
                _ if count == 0 => {}
                Some(domain) if node.covers(&domain) => {
                    recipients += count;
                    whole.push(destination.name.to_string());
                }
                Some(_) => {}
                None if shared
                    .as_ref()
                    .is_none_or(|shared| shared.contains(&destination.name.to_string())) =>
                {
                    mixed.push(destination.name.to_string());
                }
                None => {}
            }
        }
        ring::yield_if_needed().await;
    }
    // Of several tenants, or lots.
    for names in [&mut whole, &mut mixed] {
        names.sort_unstable();
        names.dedup();
    }
    let searching = !mixed.is_empty();
    let (shard, patterns) = (shard.clone(), patterns(node));
    ring::spawn(async move {
        for destination in whole {
            retry(&shard, Filter { destination: Some(destination), ..Filter::default() }).await;
        }
        for destination in mixed {
            for pattern in &patterns {
                let (destination, recipient) = (Some(destination.clone()), Some(pattern.clone()));
                retry(&shard, Filter { destination, recipient, ..Filter::default() }).await;
            }
        }
        drop(busy);
    });
    Some(Released { recipients, searching })
}

/// The destinations that a domain may share with others; `None` for all there are.
fn shared_keys(shard: &Shard, node: &Node) -> Option<Vec<String>> {
    match node.reach {
        Reach::Below => None,
        Reach::Itself => {
            let settings = shard.settings();
            let demands = [Demand::None, Demand::Required, Demand::Preferred, Demand::Waived];
            Some(demands.map(|demand| settings.way(&node.domain, demand).key.to_string()).to_vec())
        }
    }
}

fn patterns(node: &Node) -> Vec<Pattern> {
    let name = node.domain.as_str();
    match node.reach {
        Reach::Itself => vec![Pattern::Domain(name.into())],
        Reach::Below => vec![Pattern::Domain(name.into()), Pattern::Below([".", name].concat().into())],
    }
}

async fn retry(shard: &Rc<Shard>, filter: Filter) {
    let mut next = Some(0);
    while let Some(cursor) = next {
        if shard.is_stopping() {
            return;
        }
        next = operate::command_matching(shard, Command::Hasten, &filter, cursor).await.next;
        ring::yield_if_needed().await;
    }
}

/// While mail is looked for, no other is.
struct Busy(Rc<Shard>);

impl Busy {
    fn new(shard: &Rc<Shard>) -> Option<Self> {
        (!shard.releasing.replace(true)).then(|| Self(shard.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.releasing.set(false);
    }
}
