//! What must be true: each message that is ours, each recipient's fate, and what the world saw of it.
//!
//! The log of the journal is a row of records, and where each thing ended in it is kept here. So it is known
//! exactly what must live after a crash, as soon as recovery has said where the log ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use journal::{Entry, Phase, Position};
use mail::{Envelope, QueueId, ReversePath};

use crate::names;

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages that clients had.
    pub submitted: u64,
    /// Messages that became ours, reports included.
    pub accepted: u64,
    /// Recipients of these.
    pub recipients: u64,
    /// Attempts that were ordered.
    pub attempts: u64,
    /// Recipients who got the message.
    pub delivered: u64,
    /// How often somebody got it once more.
    pub duplicates: u64,
    /// Recipients who got it although a report says that they did not.
    pub contradictions: u64,
    /// Recipients told of as failed.
    pub reported: u64,
    /// Recipients told of as delayed.
    pub warned: u64,
    /// Recipients taken out by the operator.
    pub removed: u64,
    /// Recipients that other routes gave another destination.
    pub rerouted: u64,
    /// Recipients nobody wanted to hear of.
    pub silent: u64,
    /// Attempts that were made for clients that had come for their mail.
    pub called_for: u64,
    /// Recipients who were delivered to by these.
    pub fetched: u64,
    /// Visits that began while another was under way.
    pub visits_at_once: u64,
    /// Times the server was started.
    pub starts: u64,
    /// Starts from an index.
    pub starts_from_index: u64,
    /// Starts after which all came back before the end of the run.
    pub returned: u64,
    /// Messages that were taken while those from before the start were on their way back.
    pub taken_meanwhile: u64,
    /// Attempts that were ordered in such a time.
    pub tried_meanwhile: u64,
    /// Syncs and writes that failed.
    pub disk_failures: u64,
    /// Times a client heard 452 or 451 for want of storage.
    pub storage_refusals: u64,
    /// Messages moved out of the way of recycling.
    pub rescued: u64,
    /// Segments used again.
    pub recycled: u64,
    /// Things that happened in all.
    pub events: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        self.recipients += other.recipients;
        self.attempts += other.attempts;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.contradictions += other.contradictions;
        self.reported += other.reported;
        self.warned += other.warned;
        self.removed += other.removed;
        self.rerouted += other.rerouted;
        self.silent += other.silent;
        self.called_for += other.called_for;
        self.fetched += other.fetched;
        self.visits_at_once += other.visits_at_once;
        self.starts += other.starts;
        self.starts_from_index += other.starts_from_index;
        self.returned += other.returned;
        self.taken_meanwhile += other.taken_meanwhile;
        self.tried_meanwhile += other.tried_meanwhile;
        self.disk_failures += other.disk_failures;
        self.storage_refusals += other.storage_refusals;
        self.rescued += other.rescued;
        self.recycled += other.recycled;
        self.events += other.events;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submitted, accepted, recipients, attempts, delivered, duplicates, .. } = self;
        writeln!(
            f,
            "  {submitted} messages submitted; {accepted} taken, reports among them; {recipients} recipients"
        )?;
        writeln!(
            f,
            "  {attempts} attempts, {delivered} delivered, {duplicates} of these again, {} reported too",
            self.contradictions
        )?;
        writeln!(
            f,
            "  {} reported, {} warned, {} removed, {} silent, {} rerouted",
            self.reported, self.warned, self.removed, self.silent, self.rerouted
        )?;
        writeln!(
            f,
            "  {} messages called for, {} delivered so; {} visits during another",
            self.called_for, self.fetched, self.visits_at_once
        )?;
        writeln!(
            f,
            "  {} starts, {} of them from an index; {} failures of the disk",
            self.starts, self.starts_from_index, self.disk_failures
        )?;
        writeln!(
            f,
            "  {} times all came back, with {} messages taken and {} attempts meanwhile",
            self.returned, self.taken_meanwhile, self.tried_meanwhile
        )?;
        writeln!(
            f,
            "  {} refusals for want of storage, {} messages moved, {} segments recycled",
            self.storage_refusals, self.rescued, self.recycled
        )?;
        write!(f, "  {} events", self.events)
    }
}

/// A message in the journal, as it must be.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) envelope: Envelope,
    content: Vec<u8>,
    /// Where its record ends.
    end: Position,
    /// Durable: it is ours.
    ours: bool,
    /// Where it was retired, and whether that is durable.
    retired: Option<Position>,
    gone: bool,
    /// Starts of the server since it was accepted.
    starts: u64,
    places: Vec<Place>,
}

/// One recipient.
#[derive(Clone, Debug, Default)]
struct Place {
    /// How often a next hop took it.
    taken: u64,
    /// How often the server learned that.
    known: u64,
    reported: u64,
    warned: u64,
    removed: u64,
    /// Ended without anybody to tell, or by a route that discards.
    silent: u64,
    /// How it ended, as far as this run of the server knows.
    settled: Option<Fate>,
    /// Where its end is written, and whether that is durable.
    written: Option<Position>,
    over: bool,
}

/// How it ended for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Discarded,
    Reported,
    /// It failed, and nobody is to be told.
    Unwanted,
    Removed,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    copies: BTreeMap<QueueId, Copy>,
    by_content: HashMap<Vec<u8>, QueueId>,
    /// Domains whose next hops have said 5yz to somebody they know.
    refused: BTreeSet<&'static str>,
    pub(crate) figures: Figures,
}

impl Ledger {
    /// A message was appended; it is not ours yet.
    pub(crate) fn appended(&mut self, id: QueueId, envelope: &Envelope, content: Vec<u8>, end: Position) {
        if let Some(old) = self.copies.get(&id) {
            // A number may be used again when a crash took the message that had it.
            assert!(!old.ours, "the id {id} was given twice");
            self.by_content.remove(&old.content);
        }
        assert!(self.by_content.insert(content.clone(), id).is_none(), "two messages are the same");
        let places = vec![Place::default(); envelope.recipients.len()];
        let envelope = envelope.clone();
        let copy =
            Copy { envelope, content, end, ours: false, retired: None, gone: false, starts: 0, places };
        self.copies.insert(id, copy);
    }

    /// Everything before `end` is durable.
    pub(crate) fn durable(&mut self, end: Position) {
        for copy in self.copies.values_mut() {
            if copy.end <= end && !std::mem::replace(&mut copy.ours, true) {
                self.figures.accepted += 1;
                self.figures.recipients += copy.places.len() as u64;
            }
            if copy.retired.is_some_and(|at| at <= end) {
                copy.gone = true;
            }
            for place in &mut copy.places {
                if place.written.is_some_and(|at| at <= end) {
                    place.over = true;
                }
            }
        }
    }

    /// The client is told that the message is ours.
    pub(crate) fn acknowledged(&self, id: QueueId) {
        assert!(self.copies[&id].ours, "{id}: a 250 before the message was durable");
    }

    /// A client heard the 250.
    pub(crate) fn heard(&self, id: QueueId, content: &[u8]) {
        let copy = self.copies.get(&id).unwrap_or_else(|| panic!("{id} was acknowledged and is unknown"));
        assert!(copy.content.ends_with(content), "{id} is another message than the client sent");
    }

    /// An attempt begins.
    pub(crate) fn attempted(&mut self, id: QueueId, places: &[u32]) {
        self.figures.attempts += 1;
        let copy = &self.copies[&id];
        // What recovery has found is tried at once, durable or not: nobody was told anything about it.
        assert!(copy.ours || copy.starts > 0, "{id} is tried and is not durable");
        assert!(!copy.gone, "{id} is tried after it was retired for good");
        for place in places {
            let known = &copy.places[*place as usize];
            assert!(!known.over, "{id} {place} is tried after its end was durable: {known:?}");
            assert!(known.settled.is_none(), "{id} {place} is tried after its end: {known:?}");
        }
    }

    /// A next hop has said 5yz, and there was no reason in the address.
    pub(crate) fn refused_for_good(&mut self, domain: &'static str) {
        self.refused.insert(domain);
    }

    /// A next hop has taken a message.
    pub(crate) fn taken(&mut self, envelope: &Envelope, content: &[u8]) {
        let id = self.by_content.get(content).copied();
        let id = id.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(content);
            panic!("a next hop got what nobody sent, or not byte for byte:\n{text}")
        });
        let copy = self.copies.get_mut(&id).expect("it is in the list of contents");
        assert_eq!(envelope.reverse_path, copy.envelope.reverse_path, "{id}");
        assert!(copy.ours || copy.starts > 0, "{id} was sent and is not durable");
        for recipient in &envelope.recipients {
            let same = |own: &mail::Recipient| own.address == recipient.address;
            let place = copy.envelope.recipients.iter().position(same);
            let place = place.unwrap_or_else(|| panic!("{id} was sent to {}", recipient.address));
            copy.places[place].taken += 1;
        }
    }

    /// It has ended for a recipient, and the server has taken note.
    pub(crate) fn settle(&mut self, id: QueueId, place: u32, fate: Fate) {
        let copy = self.copies.get_mut(&id).unwrap_or_else(|| panic!("{id} has ended and is unknown"));
        let null = copy.envelope.reverse_path == ReversePath::Null;
        let known = &mut copy.places[place as usize];
        match fate {
            Fate::Delivered => {
                known.known += 1;
                assert!(known.taken >= known.known, "{id} {place} counts as delivered and was not taken");
            }
            Fate::Discarded => known.silent += 1,
            Fate::Reported => {
                assert!(known.reported > 0, "{id} {place} has failed and no report is durable");
                let address = &copy.envelope.recipients[place as usize].address;
                let welcome = address.as_str().starts_with("bob") || address.as_str().starts_with("grey");
                let why = !welcome
                    || !names::is_reachable(address.domain_str())
                    || self.refused.contains(address.domain_str());
                assert!(why, "{id} has failed for {address} without a reason");
            }
            Fate::Unwanted => {
                assert!(null, "{id} {place} has failed and nobody was told");
                known.silent += 1;
            }
            Fate::Removed => known.removed += 1,
        }
        let before = known.settled.replace(fate);
        assert_eq!(before, None, "{id} {place} has ended twice, now {fate:?}");
    }

    /// A report has become ours.
    pub(crate) fn reported(&mut self, about: QueueId, places: &[u32], report: QueueId, kind: Kind) {
        let (about_copy, report_copy) = (&self.copies[&about], &self.copies[&report]);
        let sender = about_copy.envelope.reverse_path.address();
        let sender = sender.unwrap_or_else(|| panic!("{about}: a report to the null reverse-path"));
        assert_eq!(report_copy.envelope.reverse_path, ReversePath::Null, "{report}: a report of a report");
        let to: Vec<_> = report_copy.envelope.recipients.iter().map(|r| &r.address).collect();
        assert_eq!(to, [sender], "{report}: who is told");
        let text = String::from_utf8_lossy(&report_copy.content);
        for place in places {
            let field = format!(
                "Final-Recipient: rfc822; {}",
                about_copy.envelope.recipients[*place as usize].address
            );
            assert!(text.contains(&field), "{report} does not tell of {about} {place}:\n{text}");
        }
        let copy = self.copies.get_mut(&about).expect("looked at above");
        for place in places {
            let place = &mut copy.places[*place as usize];
            match kind {
                Kind::Failure => place.reported += 1,
                Kind::Delay => place.warned += 1,
            }
        }
    }

    /// The end of recipients is written.
    pub(crate) fn written(&mut self, id: QueueId, place: u32, phase: Phase, end: Position) {
        let known = &mut self.copies.get_mut(&id).expect("what is noted is known").places[place as usize];
        let fits = match phase {
            // It may have waited for the disk while the recipient came to its end, but it stands before that end.
            Phase::Queued | Phase::Deferred | Phase::Held => {
                return assert!(
                    known.written.is_none(),
                    "{id} {place} is noted as {phase:?} after its end: {known:?}"
                );
            }
            Phase::Delivered | Phase::Untold => {
                matches!(known.settled, Some(Fate::Delivered | Fate::Discarded))
            }
            Phase::Failed => matches!(known.settled, Some(Fate::Reported | Fate::Unwanted)),
            Phase::Removed => known.settled == Some(Fate::Removed),
        };
        assert!(fits, "{id} {place} is noted as {phase:?}: {known:?}");
        known.written = known.written.or(Some(end));
    }

    /// The message is written off.
    pub(crate) fn retired(&mut self, id: QueueId, end: Position) {
        let copy = self.copies.get_mut(&id).expect("what is retired is known");
        let open = copy.places.iter().position(|place| place.settled.is_none());
        assert_eq!(open, None, "{id} is retired too early");
        copy.retired = Some(end);
    }

    /// The server was started again. Where the log ends decides what must be there.
    pub(crate) fn opened(&mut self, end: Position) {
        let lost: Vec<_> = self.copies.iter().filter(|(_, copy)| copy.end > end).map(|(id, _)| *id).collect();
        for id in lost {
            let copy = self.copies.remove(&id).expect("just seen");
            assert!(!copy.ours, "{id} was ours and is lost: the log ends at {end:?}, {copy:?}");
            self.by_content.remove(&copy.content);
        }
        for copy in self.copies.values_mut() {
            copy.starts += 1;
            copy.retired = copy.retired.filter(|at| *at <= end);
            for place in &mut copy.places {
                place.written = place.written.filter(|at| *at <= end);
            }
        }
    }

    /// This is about to be back in the queue.
    pub(crate) fn came_back(&mut self, id: QueueId, entry: &Entry) {
        let copy = self.copies.get_mut(&id).unwrap_or_else(|| panic!("{id} is there and never was"));
        assert!(copy.retired.is_none(), "{id} was retired and comes back: {copy:?}");
        for (number, place) in copy.places.iter_mut().enumerate() {
            let state = entry.states.iter().find(|(place, _)| *place as usize == number);
            // The index may have been told of an end that a failed journal could not take any more.
            let ended = match state.map(|(_, state)| state.phase) {
                None | Some(Phase::Queued | Phase::Deferred | Phase::Held) => false,
                Some(Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed) => true,
            };
            assert!(!ended || place.settled.is_some(), "{id} {number} is forgotten: {place:?}");
            assert!(ended || place.written.is_none(), "{id} {number} comes back: {place:?}");
            // An end that was not written happens again, and so may another one.
            place.settled = place.settled.filter(|_| ended);
        }
    }

    /// These are all that lived when the log ended there.
    pub(crate) fn all_back(&mut self, end: Position, found: &BTreeSet<QueueId>) {
        for (id, copy) in self.copies.iter().filter(|(id, copy)| copy.end <= end && !found.contains(id)) {
            let open = copy.places.iter().position(|place| place.settled.is_none());
            assert_eq!(open, None, "{id} is forgotten: {copy:?}");
        }
        self.figures.returned += 1;
    }

    /// Whether nothing is left to be done for anybody.
    pub(crate) fn is_settled(&self) -> bool {
        self.copies.values().all(|copy| copy.places.iter().all(|place| place.settled.is_some()))
    }

    /// Those who could have got the message long ago, and have no fate.
    pub(crate) fn overdue(&self) -> Vec<String> {
        let mut overdue = Vec::new();
        for (id, copy) in &self.copies {
            for (recipient, place) in copy.envelope.recipients.iter().zip(&copy.places) {
                let address = recipient.address.as_str();
                let hopeless = address.starts_with("full") || address.ends_with("@held.example");
                if place.settled.is_none() && !hopeless {
                    overdue.push(format!("{id} {address}: {place:?}"));
                }
            }
        }
        overdue
    }

    /// At the end: everybody has a fate.
    pub(crate) fn close(&mut self) {
        for (id, copy) in &self.copies {
            if !copy.ours {
                continue;
            }
            for place in &copy.places {
                let fates = [place.taken, place.reported, place.removed, place.silent];
                assert!(fates.iter().sum::<u64>() > 0, "{id} is lost for somebody: {copy:?}");
                if copy.starts == 0 {
                    let ends = place.known + place.reported + place.removed + place.silent;
                    assert_eq!(ends, 1, "{id}: not one fate, though nothing was forgotten: {place:?}");
                }
                let figures = &mut self.figures;
                figures.delivered += place.taken.min(1);
                figures.duplicates += place.taken.saturating_sub(1);
                figures.contradictions += place.taken.min(place.reported).min(1);
                figures.reported += place.reported;
                figures.warned += place.warned;
                figures.removed += place.removed.min(1);
                figures.silent += place.silent.min(1);
            }
        }
    }
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Failure,
    Delay,
}
