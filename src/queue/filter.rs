//! Which groups a listing, a count or a command is about: by all that the queue knows without asking anybody.

use std::fmt;

use mail::{Category, StatusPattern, Timestamp};

use crate::{
    Cursor, Destination, Lot, Priority, Queue, State, Tenant,
    group::{self, Group},
};

/// Which groups; a field that is `None` lets everything pass.
#[derive(Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only these destinations.
    pub destinations: Option<&'a [Destination]>,
    /// Only this state.
    pub state: Option<State>,
    /// Only deferred recipients that are due by then.
    pub due_by: Option<Timestamp>,
    /// Only this class.
    pub priority: Option<Priority>,
    /// Only what was received then or later.
    pub received_from: Option<Timestamp>,
    /// Only what was received before.
    pub received_before: Option<Timestamp>,
    /// Only what was deferred so the last time.
    pub status: Option<StatusPattern>,
    /// Only what the last refusal of was about this.
    pub category: Option<Category>,
    /// Only what goes to a place that this says yes to.
    pub place: Option<&'a dyn Fn(&Place<'_>) -> bool>,
}

/// Where a group goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The name of its destination.
    pub destination: &'a str,
    /// Whose mail it is.
    pub tenant: Tenant,
    /// Which part of that.
    pub lot: Lot,
    /// The name of its site, once that is known.
    pub site: Option<&'a str>,
}

/// What a count has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Survey {
    /// Recipients that are meant.
    pub recipients: u64,
    /// Where to go on, unless this was the last step.
    pub next: Option<Cursor>,
}

impl fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Groups that one step of a walk looks at: some hundred microseconds, whatever is done with them.
pub(crate) const STEP_MAX: u32 = 512;

impl Queue {
    /// The end of all walks over groups: no cursor is as high.
    pub const fn end(&self) -> Cursor {
        Cursor(self.groups.end())
    }

    /// Counts one step's recipients that are meant; call again with `next` until there is none.
    pub fn count(&self, filter: &Filter<'_>, Cursor(start): Cursor) -> Survey {
        let end = self.groups.end().min(start.saturating_add(STEP_MAX));
        let meant = |group: &&Group| self.meets(filter, group);
        let groups = (start..end).filter_map(|index| self.groups.get(index)).filter(meant);
        let recipients =
            groups.map(|group| group::recipients(&self.nodes, group.recipients).count() as u64).sum();
        Survey { recipients, next: (end < self.groups.end()).then_some(Cursor(end)) }
    }

    /// Whether a group is meant.
    pub(crate) fn meets(&self, filter: &Filter<'_>, group: &Group) -> bool {
        let Filter {
            destinations,
            state,
            due_by,
            priority,
            received_from,
            received_before,
            status,
            category,
            place,
        } = *filter;
        let of_the_group = destinations.is_none_or(|meant| meant.contains(&Destination(group.destination)))
            && state.is_none_or(|meant| meant == group.state)
            && due_by.is_none_or(|by| group.state == State::Deferred && group.due <= self.clock.at(by))
            && status.is_none_or(|meant| group.status.get().is_some_and(|status| meant.matches(status)))
            && category.is_none_or(|meant| group.status.category() == Some(meant));
        if !of_the_group {
            return false;
        }
        // What lies elsewhere in memory is looked at where somebody asks.
        if priority.is_some() || received_from.is_some() || received_before.is_some() {
            let message = &self.messages[group.message];
            let of_the_message = priority.is_none_or(|meant| meant == message.priority)
                && received_from.is_none_or(|from| message.received_at() >= from)
                && received_before.is_none_or(|before| message.received_at() < before);
            if !of_the_message {
                return false;
            }
        }
        place.is_none_or(|meant| {
            let record = &self.destinations.slab[group.destination];
            let site = self.destinations.sites.get(record.site).map(|site| &*site.name);
            meant(&Place { destination: &record.name, tenant: record.tenant, lot: record.lot, site })
        })
    }
}
