//! What one core owns, and the way of a message from its last byte to its 250.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use bridge::{Deliveries, Failures, Indicators, Neighbours, Strangers, StsPolicies, Tenancy};
use bytes::Bytes;
use delivery::{Via, tally::Tally};
use journal::{Draft, Last, Phase, RecipientState};
use mail::{DeliverByMode, Envelope, Handling, QueueId, Timestamp};
use message::date::DateCache;
use queue::{
    Accepted, Destination, Kind, MessageState, Order, Priority, Queue, Restored, State, Times, Warning,
};
use ring::{Event, Pool, Stream};
use smtp::Refusal;
use trust::Judge;
use watch::ShardMetrics;

use crate::{
    balance::Balance,
    crowd::Crowd,
    egress, facts,
    hops::{self, Hops},
    journals::{Journals, Note},
    leases::Leases,
    locate::{self, Locating},
    lots::Lots,
    operate::Operating,
    reroute::{self, Reroute},
    resolve::Resolve,
    restore::Return,
    schedule,
    settings::Settings,
    signing::Signing,
    verify::Verifier,
};

/// All that the tasks of one core share.
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) shards: usize,
    settings: RefCell<Rc<Settings>>,
    pub(crate) journals: Journals,
    pub(crate) queue: RefCell<Queue>,
    /// The scheduler has something to do.
    pub(crate) due: Event,
    /// Messages whose content is still in memory.
    pub(crate) contents: RefCell<HashMap<QueueId, Rc<Message>>>,
    /// What the last attempt met, for those whom it deferred.
    pub(crate) lasts: RefCell<HashMap<QueueId, Vec<(u32, Last)>>>,
    /// Messages about which a report is being written, and what is to be done with them after that.
    pub(crate) reporting: RefCell<HashMap<QueueId, Reporting>>,
    pub(crate) hops: Hops,
    pub(crate) locating: Locating,
    pub(crate) reroute: Reroute,
    pub(crate) resolve: Rc<Resolve>,
    pub(crate) leases: Leases,
    pub(crate) crowd: Crowd,
    pub(crate) balance: Balance,
    /// The way to all shards.
    pub(crate) neighbours: Neighbours,
    /// What domains say of the TLS of their hosts.
    pub(crate) policies: StsPolicies,
    /// Their pictures.
    pub(crate) indicators: Indicators,
    pub(crate) deliveries: Deliveries,
    pub(crate) failures: Failures,
    /// Whom tenants send nothing to, and how much they have sent.
    pub(crate) tenancy: Tenancy,
    /// What the host knows of strangers.
    pub(crate) strangers: Strangers,
    /// What the host knows of its sources.
    pub(crate) egress: bridge::Egress,
    /// Pools that replies have chosen.
    pub(crate) lots: Lots,
    /// How TLS went with next hops.
    pub(crate) tally: RefCell<Tally>,
    /// What was verified of mail that bore the names of domains.
    pub(crate) dmarc_tally: RefCell<report::dmarc::Tally>,
    /// Whether mail is being looked for that a client asked for.
    pub(crate) releasing: Cell<bool>,
    /// Long changes of the queue that are under way in the background.
    pub(crate) operating: Operating,
    pub(crate) verifier: Verifier,
    pub(crate) signing: Signing,
    /// Judges whether mail is from whom it says.
    pub(crate) judge: Judge,
    pub(crate) pool: Pool,
    pub(crate) metrics: Rc<ShardMetrics>,
    pub(crate) date: RefCell<DateCache>,
    /// Connections from clients, for telling them about a stop.
    pub(crate) sessions: RefCell<HashMap<u64, std::rc::Weak<Stream>>>,
    next_session: Cell<u64>,
    /// A session or an attempt ended, or the core begins to stop.
    pub(crate) changed: Event,
    stopping: Cell<bool>,
    /// All is done that was to be done before the end, and the core ends by itself.
    departed: Cell<bool>,
    /// No attempt is begun.
    paused: Cell<bool>,
    /// Nor is one for now, and nothing is given up either: messages are on their way out of the queue.
    still: Cell<bool>,
    /// The queue of before the start.
    pub(crate) returning: Return,
}

/// A report being written.
#[derive(Debug)]
pub(crate) struct Reporting {
    /// What the queue ordered.
    pub(crate) order: queue::Order,
    /// What is to be done with the message after that.
    pub(crate) waiting: VecDeque<queue::Order>,
}

/// A message in memory: read from the network or from the journal.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) envelope: Rc<Envelope>,
    /// In wire form, the trace fields in front, dots not stuffed.
    pub(crate) content: Vec<Bytes>,
    /// Octets of the content.
    pub(crate) size: u64,
}

/// A message that was received to its end and is not ours yet.
pub(crate) struct Arrived {
    pub(crate) id: QueueId,
    pub(crate) envelope: Rc<Envelope>,
    /// Octets of content, the trace fields included.
    pub(crate) size: u64,
    /// What is written to the journal already.
    pub(crate) draft: Option<Draft>,
    /// What is not.
    pub(crate) content: Vec<Bytes>,
    /// Whether it may stay in memory for its first attempt.
    pub(crate) keep: Keep,
    /// Whether it waits for a release.
    pub(crate) hold: Hold,
}

/// Whether a message is held, whatever its routes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It goes its way.
    #[default]
    No,
    /// An operator has to release it.
    Yes,
}

/// What becomes of a message's content in memory once the journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It waits for its first attempt, when there is room: it lies in buffers that are counted.
    WhileRoom,
    /// It goes: nobody here counts the memory it lies in.
    Not,
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) number: usize,
    pub(crate) shards: usize,
    pub(crate) settings: Settings,
    pub(crate) journals: Journals,
    pub(crate) queue: Queue,
    pub(crate) resolve: Rc<Resolve>,
    pub(crate) leases: Leases,
    pub(crate) crowd: Crowd,
    pub(crate) balance: Balance,
    pub(crate) neighbours: Neighbours,
    pub(crate) policies: StsPolicies,
    pub(crate) indicators: Indicators,
    pub(crate) deliveries: Deliveries,
    pub(crate) failures: Failures,
    pub(crate) tenancy: Tenancy,
    pub(crate) strangers: Strangers,
    pub(crate) egress: bridge::Egress,
    pub(crate) pool: Pool,
    pub(crate) metrics: Rc<ShardMetrics>,
}

/// Messages of which the words of the last reply are kept in memory. Of others the status is known.
const LASTS_MAX: usize = 100_000;
/// With so little memory left, mail is written out in small pieces.
const SPILL_PRESSED: u64 = 64 << 10;

impl Shard {
    pub(crate) fn new(parts: Parts) -> Rc<Self> {
        let Parts {
            number,
            shards,
            settings,
            journals,
            queue,
            resolve,
            leases,
            crowd,
            balance,
            neighbours,
            policies,
            indicators,
            deliveries,
            failures,
            tenancy,
            strangers,
            egress,
            pool,
            metrics,
        } = parts;
        Rc::new(Self {
            number,
            shards,
            settings: RefCell::new(Rc::new(settings)),
            journals,
            queue: RefCell::new(queue),
            due: Event::new(),
            contents: RefCell::default(),
            lasts: RefCell::default(),
            operating: Operating::default(),
            reporting: RefCell::default(),
            hops: Hops::default(),
            locating: Locating::default(),
            reroute: Reroute::default(),
            resolve,
            leases,
            crowd,
            balance,
            neighbours,
            policies,
            indicators,
            deliveries,
            failures,
            tenancy,
            strangers,
            egress,
            lots: Lots::default(),
            tally: RefCell::default(),
            dmarc_tally: RefCell::default(),
            releasing: Cell::new(false),
            verifier: Verifier::new(metrics.clone()),
            signing: Signing::new(),
            judge: Judge::new(),
            pool,
            metrics,
            date: RefCell::default(),
            sessions: RefCell::default(),
            next_session: Cell::new(0),
            changed: Event::new(),
            stopping: Cell::new(false),
            departed: Cell::new(false),
            paused: Cell::new(false),
            still: Cell::new(false),
            returning: Return::new(),
        })
    }

    pub(crate) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Takes a new configuration. Sessions and connections that are open keep theirs.
    pub(crate) fn reload(self: &Rc<Self>, settings: Settings) {
        let mut orders = Vec::new();
        {
            let mut queue = self.queue.borrow_mut();
            queue.set_schedule(settings.schedule.clone());
            queue.set_limits(self.limits(&settings), facts::now(), &mut orders);
            queue.set_weights(settings.weights.iter().copied());
            // Rules and routes have a part in what sites are called.
            queue.forget_whereabouts();
        }
        self.resolve.configure(&settings.resolving);
        self.verifier.forget();
        settings.egress.prune(&self.egress);
        let before = self.settings.replace(Rc::new(settings));
        schedule::follow(self, orders);
        self.hops.configure(&self.settings(), &self.leases);
        reroute::begin(self, &before);
        // The next checkpoint may be due sooner, and the next attempt.
        self.changed.notify_all();
        self.due.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Begins no attempt any more.
    pub(crate) fn pause(&self) {
        self.paused.set(true);
        let limits = self.limits(&self.settings());
        self.queue.borrow_mut().set_limits(limits, facts::now(), &mut Vec::new());
    }

    /// Lets the queue stand still: no attempt is begun, whoever comes for mail, and no time is up.
    pub(crate) fn stand_still(self: &Rc<Self>) {
        self.still.set(true);
        self.set_limits();
        // What waits for a connection has not begun.
        for job in self.hops.take_jobs(|_| true) {
            hops::postpone(self, job);
        }
    }

    pub(crate) fn go_on(self: &Rc<Self>) {
        self.still.set(false);
        self.set_limits();
        self.due.notify_all();
    }

    pub(crate) fn is_still(&self) -> bool {
        self.still.get()
    }

    fn set_limits(self: &Rc<Self>) {
        let mut orders = Vec::new();
        let limits = self.limits(&self.settings());
        self.queue.borrow_mut().set_limits(limits, facts::now(), &mut orders);
        schedule::follow(self, orders);
    }

    /// What the queue may do. A reload does not end a pause.
    fn limits(&self, settings: &Settings) -> queue::Limits {
        if self.paused.get() || self.still.get() {
            queue::Limits { attempts_max: 0, ..settings.queue_limits }
        } else {
            settings.queue_limits
        }
    }

    /// Begins to stop: idle sessions are told, no attempt is begun any more.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.pause();
        self.hops.stop();
        for stream in self.sessions.borrow().values().filter_map(std::rc::Weak::upgrade) {
            // Wakes the session, which sees that we are stopping.
            stream.deadline().set_after(std::time::Duration::ZERO);
        }
        self.changed.notify_all();
        self.due.notify_all();
        self.returning.on_stop();
    }

    /// Nothing is under way any more: the core ends, though others go on.
    pub(crate) fn depart(&self) {
        self.departed.set(true);
        self.changed.notify_all();
    }

    /// Waits for [`Shard::depart`].
    pub(crate) async fn departure(&self) {
        loop {
            let changed = self.changed.wait();
            if self.departed.get() {
                return;
            }
            changed.await;
        }
    }

    /// Keeps a session reachable for [`Shard::stop`] until [`Shard::leave_session`].
    pub(crate) fn enter_session(&self, stream: &Rc<Stream>) -> u64 {
        let number = self.next_session.get();
        self.next_session.set(number + 1);
        self.sessions.borrow_mut().insert(number, Rc::downgrade(stream));
        number
    }

    /// A stop does not wake this session any more: it sees by itself that we are stopping.
    pub(crate) fn leave_alone(&self, number: u64) {
        self.sessions.borrow_mut().insert(number, std::rc::Weak::new());
    }

    pub(crate) fn leave_session(&self, number: u64) {
        self.sessions.borrow_mut().remove(&number);
        if self.is_stopping() {
            self.changed.notify_all();
        }
    }

    /// From how many octets on mail data is written out before its end.
    pub(crate) fn spill_above(&self) -> u64 {
        let spill = self.settings.borrow().spill;
        if self.is_memory_half_used() { spill.min(SPILL_PRESSED) } else { spill }
    }

    fn is_memory_half_used(&self) -> bool {
        self.pool.stats().in_use > self.pool.options().budget / 2
    }

    /// Whether another message should not begin now.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        let budget = self.pool.options().budget;
        self.pool.stats().in_use > budget - budget / 8
    }

    /// Makes a message durable and gives it to the queue: when this is `Ok`, it is ours.
    ///
    /// # Errors
    /// Why the client must keep it.
    pub(crate) async fn take_over(self: &Rc<Self>, arrived: Arrived) -> Result<(), Refusal> {
        let Arrived { id, envelope, size, draft, content, keep, hold } = arrived;
        let committer = self.journals.active().clone();
        let (ways, routes) = (self.settings().ways(&envelope), self.reroute.generation());
        let held: Vec<_> = (0..)
            .zip(&ways)
            .filter(|(_, way)| way.via == Held::Yes || hold == Hold::Yes)
            .map(|(place, _)| (place, RecipientState { phase: Phase::Held, ..RecipientState::default() }))
            .collect();
        let appended = committer.append(id, &envelope, &held, draft.as_ref(), &content).await;
        let end = match (appended, draft) {
            (Ok(end), _) => end,
            (Err(refusal), draft) => {
                draft.into_iter().for_each(|draft| committer.drop_draft(draft));
                return Err(refusal);
            }
        };
        committer.durable(end).await?;
        let whole = keep == Keep::WhileRoom && content.iter().map(Bytes::len).sum::<usize>() as u64 == size;
        if whole && held.len() < ways.len() && !self.is_memory_half_used() {
            let message = Message { envelope: envelope.clone(), content, size };
            self.contents.borrow_mut().insert(id, Rc::new(message));
        }
        if routes == self.reroute.generation() {
            self.enqueue(id, &envelope, size, &ways, hold);
        } else {
            // The routes have changed while it was written. A restart finds who is held by asking them again.
            let ways = self.settings().ways(&envelope);
            self.enqueue(id, &envelope, size, &ways, hold);
            let released =
                held.iter().filter(|(place, _)| ways[*place as usize].via == Held::No && hold == Hold::No);
            let released: Vec<_> = released.map(|(place, _)| (*place, RecipientState::default())).collect();
            if !released.is_empty() {
                self.note(id, Note::Transition(id, released));
            }
        }
        Ok(())
    }

    fn enqueue(self: &Rc<Self>, id: QueueId, envelope: &Envelope, size: u64, ways: &[Way], hold: Hold) {
        let now = facts::now();
        let mut orders = Vec::new();
        let (settings, tenant) = (self.settings(), locate::tenant(envelope.handling.tenant));
        let campaign = self.lots.of_campaign(settings.campaigns.of(&envelope.handling));
        let mut queue = self.queue.borrow_mut();
        let destinations: Vec<(u32, Destination)> = (0..)
            .zip(ways)
            .map(|(place, way)| {
                let lot = egress::lot(self, &settings, (tenant, campaign), id, &way.key);
                (place, locate::intern(&mut queue, (tenant, lot), &way.key, now))
            })
            .collect();
        let (kind, warning) = kind(envelope);
        let priority = priority(&envelope.handling);
        let times = times(&envelope.handling, envelope.received_at);
        let received_at = envelope.received_at;
        let is_held = |way: &Way| way.via == Held::Yes || hold == Hold::Yes;
        if ways.iter().any(is_held) {
            let recipients: Vec<_> = destinations
                .iter()
                .zip(ways)
                .map(|((recipient, destination), way)| queue::RecipientState {
                    recipient: *recipient,
                    destination: *destination,
                    state: if is_held(way) { State::Held } else { State::Ready },
                    attempts: 0,
                    due: now,
                    status: None,
                    category: None,
                })
                .collect();
            let message =
                MessageState { id, received_at, size, priority, kind, warning, give_up_at: None, times };
            queue.restore(&Restored { message, recipients: &recipients }, now);
            queue.on_tick(now, &mut orders);
        } else {
            let accepted =
                Accepted { id, received_at, size, priority, kind, warning, times, recipients: &destinations };
            queue.on_accepted(&accepted, now, &mut orders);
        }
        let is_ordered =
            |order: &Order| matches!(order, Order::Attempt { id: ordered, .. } if *ordered == id);
        if !orders.iter().any(is_ordered) {
            // It waits behind others. Where nobody answers for those it waits long, and its content need not lie in memory.
            let mut sites = destinations.iter().map(|(_, destination)| queue.site_of(*destination));
            let is_silent = |site| queue.site_name(site).is_some_and(|name| self.hops.is_silent(name));
            if sites.all(|site| site.is_some_and(is_silent)) {
                self.forget_content(id);
            }
        }
        drop(queue);
        schedule::follow(self, orders);
        self.due.notify_all();
    }

    /// The message, from memory or from the journal.
    pub(crate) async fn message(&self, id: QueueId) -> Result<Rc<Message>, crate::journals::ReadError> {
        if let Some(message) = self.contents.borrow().get(&id) {
            return Ok(message.clone());
        }
        let committer = self.journals.of(id).ok_or(crate::journals::ReadError::Gone)?;
        let stored = committer.read(id).await?;
        let size = stored.content.iter().map(Bytes::len).sum::<usize>() as u64;
        Ok(Rc::new(Message { envelope: Rc::new(stored.envelope), content: stored.content, size }))
    }

    /// The envelope alone.
    pub(crate) async fn envelope(&self, id: QueueId) -> Result<Rc<Envelope>, crate::journals::ReadError> {
        if let Some(message) = self.contents.borrow().get(&id) {
            return Ok(message.envelope.clone());
        }
        let committer = self.journals.of(id).ok_or(crate::journals::ReadError::Gone)?;
        Ok(Rc::new(committer.read_envelope(id).await?))
    }

    /// Writes down what became of recipients.
    pub(crate) fn note(&self, id: QueueId, note: Note) {
        if let Some(committer) = self.journals.of(id) {
            committer.note(note);
        }
    }

    /// Keeps what an attempt met, for whoever asks.
    pub(crate) fn remember_last(&self, id: QueueId, recipient: u32, last: Last) {
        let mut lasts = self.lasts.borrow_mut();
        if lasts.len() >= LASTS_MAX && !lasts.contains_key(&id) {
            return;
        }
        let list = lasts.entry(id).or_default();
        match list.iter_mut().find(|(place, _)| *place == recipient) {
            Some((_, old)) => *old = last,
            None => list.push((recipient, last)),
        }
    }

    /// What the last attempt met, if it is still known.
    pub(crate) fn last(&self, id: QueueId, recipient: u32) -> Option<Last> {
        let lasts = self.lasts.borrow();
        lasts.get(&id)?.iter().find(|(place, _)| *place == recipient).map(|(_, last)| last.clone())
    }

    /// Recipients whom the queue has forgotten and whose report is not safe yet: a restart must find them.
    pub(crate) fn returning(&self, id: QueueId) -> Vec<u32> {
        self.reported(id, schedule::returned)
    }

    /// Recipients whom the queue has forgotten because they have got the message, and whose sender is still to be told.
    pub(crate) fn untold(&self, id: QueueId) -> Vec<u32> {
        self.reported(id, schedule::told)
    }

    fn reported(&self, id: QueueId, of: impl Fn(&queue::Order) -> &[u32]) -> Vec<u32> {
        let reporting = self.reporting.borrow();
        let Some(Reporting { order, waiting }) = reporting.get(&id) else { return Vec::new() };
        std::iter::once(order).chain(waiting).flat_map(of).copied().collect()
    }

    /// Lets go of a message that will not be tried again soon.
    pub(crate) fn forget_content(&self, id: QueueId) {
        self.contents.borrow_mut().remove(&id);
    }
}

/// By which way a recipient's mail leaves.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) key: Arc<str>,
    pub(crate) via: Held,
}

/// Whether a route keeps mail back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    No,
}

impl From<&Via> for Held {
    fn from(via: &Via) -> Self {
        match via {
            Via::Hold => Self::Yes,
            Via::Mx(_) | Via::NextHop(_) | Via::Pool(_) | Via::Discard | Via::Reports => Self::No,
        }
    }
}

/// What the queue wants to know of an envelope.
pub(crate) fn kind(envelope: &Envelope) -> (Kind, Warning) {
    match envelope.reverse_path {
        mail::ReversePath::Null => (Kind::Notification, Warning::Unwanted),
        mail::ReversePath::Address(_) if envelope.recipients.iter().any(|r| r.notify.delay) => {
            (Kind::Message, Warning::Wanted)
        }
        mail::ReversePath::Address(_) => (Kind::Message, Warning::Unwanted),
    }
}

/// The class that a message is in: the three levels of the policy that holds where none is told (RFC 6710 appendix B). A
/// priority between two of them is rounded up (§5).
pub(crate) fn priority(handling: &Handling) -> Priority {
    match handling.priority.get() {
        1.. => Priority::Urgent,
        -3..=0 => Priority::Normal,
        ..=-4 => Priority::Bulk,
    }
}

/// The times that hold for a message alone.
pub(crate) fn times(handling: &Handling, received_at: Timestamp) -> Times {
    let by = handling.deliver_by;
    let at = |mode| by.filter(|by| by.mode == mode).map(|by| by.deadline);
    Times {
        release_at: handling.hold_until,
        // Whoever had it when its time was up has told the sender (RFC 2852 §4.1.3).
        warn_at: at(DeliverByMode::Notify).filter(|deadline| *deadline > received_at),
        return_at: at(DeliverByMode::Return),
    }
}

/// How long ago.
pub(crate) fn since(at: Timestamp) -> std::time::Duration {
    facts::now().saturating_since(at)
}

#[cfg(test)]
mod test {
    use mail::TransferPriority;

    use super::*;

    /// RFC 6710 §5 and appendix B.
    #[test]
    fn priorities_are_rounded_up_to_a_level() {
        for (number, expected) in [
            (-9, Priority::Bulk),
            (-4, Priority::Bulk),
            (-3, Priority::Normal),
            (0, Priority::Normal),
            (1, Priority::Urgent),
            (9, Priority::Urgent),
        ] {
            let priority = TransferPriority::new(number).unwrap();
            assert_eq!(super::priority(&Handling { priority, ..Handling::default() }), expected, "{number}");
        }
    }
}
