//! Looking into the queue: counts, pages, single messages. Every step is bounded.

use mail::{Category, QueueId, Status, Timestamp};

use crate::{
    Destination, Filter, Lot, MessageState, Priority, Queue, RecipientState, Site, State, Tenant,
    destination::DestinationRecord,
    group::{self, Group, Message, Tagged},
    site::{Phase, SiteRecord},
    slab::{Entry, NIL, Slab},
};

/// Recipients by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// May be tried.
    pub ready: u64,
    /// Being tried.
    pub running: u64,
    /// Waiting for their next try.
    pub deferred: u64,
    /// Kept back by an operator.
    pub held: u64,
}

/// Where a page begins; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u32);

/// Part of a listing. It may be empty and yet not the last: a step looks at a bounded number of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Where to go on, unless this was the last page.
    pub next: Option<Cursor>,
}

/// One group in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The message.
    pub id: QueueId,
    /// When it was received.
    pub received_at: Timestamp,
    /// The length of its content.
    pub size: u64,
    /// Where the group goes.
    pub destination: Destination,
    /// Where it stands.
    pub state: State,
    /// How many attempts have ended.
    pub attempts: u16,
    /// When it is tried next.
    pub due: Timestamp,
    /// Why it was deferred last.
    pub status: Option<Status>,
    /// What that was about.
    pub category: Option<Category>,
    /// In which class it is.
    pub priority: Priority,
    /// How many recipients it has.
    pub recipients: u32,
}

/// One destination in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its number.
    pub destination: Destination,
    /// Its name.
    pub name: Box<str>,
    /// Whose mail it is.
    pub tenant: Tenant,
    /// And which part of it.
    pub lot: Lot,
    /// Its recipients by state.
    pub counts: Counts,
    /// Attempts under way.
    pub attempts: u32,
    /// Its site, once it is located.
    pub site: Option<SiteView>,
}

/// One site in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteView {
    /// Its number.
    pub site: Site,
    /// Its name.
    pub name: Box<str>,
    /// Destinations that belong to it.
    pub destinations: u32,
    /// Attempts under way.
    pub attempts: u32,
    /// How many may be under way at once.
    pub attempts_max: u32,
    /// How often in a row it could not be reached.
    pub failures: u16,
    /// Until when it is left alone.
    pub blocked_until: Option<Timestamp>,
}

impl Counts {
    /// All recipients.
    pub const fn total(&self) -> u64 {
        self.ready + self.running + self.deferred + self.held
    }
}

/// Entries that one page looks at.
const PAGE_WORK_MAX: u32 = 8192;

impl Queue {
    /// Recipients by state.
    pub const fn counts(&self) -> Counts {
        let [ready, running, deferred, held] = self.counts;
        Counts { ready, running, deferred, held }
    }

    /// Queued messages.
    pub const fn messages(&self) -> u32 {
        self.messages.len()
    }

    /// Known destinations.
    pub const fn destinations(&self) -> u32 {
        self.destinations.slab.len()
    }

    /// Known sites.
    pub const fn sites(&self) -> u32 {
        self.destinations.sites.len()
    }

    /// Octets of memory that all this takes, counted in the queue's own books: what the allocator adds is its affair.
    /// Slabs keep what they have had, so it does not shrink when messages end.
    pub fn memory(&self) -> usize {
        let slabs = self.messages.memory() + self.groups.memory() + self.nodes.memory();
        let times = self.times.allocation_size();
        size_of::<Self>()
            + slabs
            + self.destinations.memory()
            + self.ids.memory()
            + self.ages.memory()
            + times
    }

    /// When the oldest queued message was received, to the minute.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.ages.oldest().map(|secs| Timestamp::from_secs(u64::from(secs)))
    }

    /// Groups, in no order that means anything. A cursor is below [`Queue::end`].
    pub fn list(&self, filter: &Filter<'_>, cursor: Cursor, limit: usize) -> Page<GroupView> {
        page(&self.groups, cursor, limit, |_, group| {
            self.meets(filter, group).then(|| self.view_group(group))
        })
    }

    /// Queued messages, in no order that means anything: what a checkpoint walks over.
    pub fn list_messages(&self, cursor: Cursor, limit: usize) -> Page<MessageState> {
        page(&self.messages, cursor, limit, |index, message| Some(self.view_message(index, message)))
    }

    /// Destinations that the queue knows, in no order that means anything. For the largest, keep the
    /// best of all pages.
    pub fn list_destinations(&self, cursor: Cursor, limit: usize) -> Page<DestinationView> {
        page(&self.destinations.slab, cursor, limit, |index, found| Some(self.view_destination(index, found)))
    }

    /// Sites that the queue knows, in no order that means anything.
    pub fn list_sites(&self, cursor: Cursor, limit: usize) -> Page<SiteView> {
        page(&self.destinations.sites, cursor, limit, |index, site| Some(self.view_record(index, site)))
    }

    /// What the queue knows of a message as a whole.
    pub fn message(&self, id: QueueId) -> Option<MessageState> {
        let index = self.ids.find(&self.messages, id.to_bits())?;
        Some(self.view_message(index, &self.messages[index]))
    }

    /// Where each recipient of a message stands that has not ended. One that is to be held when its
    /// attempt ends counts as held.
    pub fn states(&self, id: QueueId) -> Option<Vec<RecipientState>> {
        let mut next = self.messages[self.ids.find(&self.messages, id.to_bits())?].groups;
        let mut states = Vec::new();
        while next != NIL {
            let group = &self.groups[next];
            next = group.sibling_after;
            let recipients = group::recipients(&self.nodes, group.recipients);
            states.extend(recipients.map(|tagged| RecipientState {
                recipient: tagged.recipient(),
                destination: Destination(group.destination),
                state: if group.state == State::Running && tagged.has(Tagged::HOLD) {
                    State::Held
                } else {
                    group.state
                },
                attempts: group.attempts,
                due: self.clock.time(group.due),
                status: group.status.get(),
                category: group.status.category(),
            }));
        }
        Some(states)
    }

    /// One destination.
    pub fn destination(&self, destination: Destination) -> Option<DestinationView> {
        let found = self.destinations.slab.get(destination.0)?;
        Some(self.view_destination(destination.0, found))
    }

    fn view_message(&self, index: u32, message: &Message) -> MessageState {
        MessageState {
            id: QueueId::from_bits(message.id),
            received_at: message.received_at(),
            size: u64::from(message.size),
            priority: message.priority,
            kind: message.kind,
            warning: message.warning,
            give_up_at: Some(message.give_up_at()),
            times: self.times.get(&index).copied().unwrap_or_default(),
        }
    }

    fn view_group(&self, group: &Group) -> GroupView {
        let message = &self.messages[group.message];
        GroupView {
            id: QueueId::from_bits(message.id),
            received_at: message.received_at(),
            size: u64::from(message.size),
            destination: Destination(group.destination),
            state: group.state,
            attempts: group.attempts,
            due: self.clock.time(group.due),
            status: group.status.get(),
            category: group.status.category(),
            priority: message.priority,
            recipients: group::recipients(&self.nodes, group.recipients).count() as u32,
        }
    }

    /// One site.
    pub fn view_site(&self, Site(index): Site) -> Option<SiteView> {
        self.destinations.sites.get(index).map(|site| self.view_record(index, site))
    }

    fn view_destination(&self, index: u32, found: &DestinationRecord) -> DestinationView {
        DestinationView {
            destination: Destination(index),
            name: found.name.clone(),
            tenant: found.tenant,
            lot: found.lot,
            counts: found.counts(),
            attempts: found.attempts,
            site: self.destinations.sites.get(found.site).map(|site| self.view_record(found.site, site)),
        }
    }

    fn view_record(&self, index: u32, site: &SiteRecord) -> SiteView {
        SiteView {
            site: Site(index),
            name: site.name.clone(),
            destinations: site.members,
            attempts: site.attempts,
            attempts_max: site.attempts_max,
            failures: site.failures,
            blocked_until: match site.phase {
                Phase::Blocked(until) => Some(self.clock.time(until)),
                Phase::Open | Phase::Probing => None,
            },
        }
    }
}

/// The entries of a slab from the cursor on, until enough are found or looked at.
fn page<T: Entry, V>(
    slab: &Slab<T>,
    Cursor(start): Cursor,
    limit: usize,
    view: impl Fn(u32, &T) -> Option<V>,
) -> Page<V> {
    let mut items = Vec::new();
    let end = slab.end().min(start.saturating_add(PAGE_WORK_MAX));
    for index in start..end {
        if items.len() >= limit.max(1) {
            return Page { items, next: Some(Cursor(index)) };
        }
        items.extend(slab.get(index).and_then(|entry| view(index, entry)));
    }
    Page { items, next: (end < slab.end()).then_some(Cursor(end)) }
}
