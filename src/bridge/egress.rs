//! What the whole host knows of its sources: whether they are fit for use, how many connections they have, and what was sent by
//! their warm-up plans. One table behind a lock that is held for a look, touched for mail that leaves from a source alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use delivery::egress::{Booking, Change, Found, Health, Held, Pause, Plan, Progress, Standing, WarmUps};
use mail::Timestamp;
use tokio::sync::{Notify, watch};

/// The table. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Egress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// How many sources are not as they should be: mostly none, and then nobody has to look who.
    unfit: AtomicUsize,
    /// Counts how often a source came to stand otherwise.
    changes: watch::Sender<u64>,
    /// There is something new to be written down.
    unwritten: Notify,
}

#[derive(Debug, Default)]
struct Known {
    sources: BTreeMap<Box<str>, Health>,
    open: BTreeMap<Box<str>, Open>,
    warm_ups: WarmUps,
    /// What there was when this process began to count beside another one, which keeps the file as long.
    beside: Option<WarmUps>,
    /// When something is looked at again.
    due: BTreeMap<Box<str>, Timestamp>,
    /// Pools of which all sources are out.
    dry: BTreeSet<Box<str>>,
}

/// Connections from a source.
#[derive(Debug, Default)]
struct Open {
    count: u32,
    /// Who would like one, the one that came first in front, and when each asked last.
    line: VecDeque<(Box<str>, Timestamp)>,
    /// Whether somebody has asked since one was given up.
    wanted: Arc<AtomicBool>,
}

/// One connection's place among those of a source; dropped, it is somebody else's.
#[derive(Debug)]
pub struct Seat {
    egress: Egress,
    source: Box<str>,
    wanted: Arc<AtomicBool>,
}

/// A message that is counted by warm-up plans; dropped before it was tried, it is not.
#[derive(Debug)]
pub struct Ticket {
    egress: Egress,
    booking: Option<Booking>,
}

/// How long a lane stands in line that does not ask again.
const LINE_FOR: Duration = Duration::from_secs(2);
/// Lanes that stand in line for one source; others come by luck.
const LINE_MAX: usize = 1000;

/// Plans that pause from now on.
pub type Paused = Vec<(Box<str>, Pause, Timestamp)>;

impl Egress {
    /// Whether a source is fit for use. One that nobody has told of is.
    pub fn standing(&self, source: &str) -> Standing {
        // Relaxed: who sees it late tries what others have tried.
        if self.0.unfit.load(Relaxed) == 0 {
            return Standing::In;
        }
        self.known().sources.get(source).map(Health::standing).unwrap_or_default()
    }

    /// Why it is not, or has less, and since when.
    pub fn why(&self, source: &str) -> Option<(String, Timestamp)> {
        self.known().sources.get(source)?.why()
    }

    /// The lists that its addresses are on, in words.
    pub fn listings(&self, source: &str) -> Vec<String> {
        let known = self.known();
        let listings = known.sources.get(source).into_iter().flat_map(Health::listings);
        listings.map(ToString::to_string).collect()
    }

    /// Takes in what was found about a source.
    pub fn found(&self, source: &str, finding: Found, now: Timestamp) -> Change {
        let change = {
            let mut known = self.known();
            match known.sources.get_mut(source) {
                Some(health) => health.on_found(finding, now),
                None => known.sources.entry(source.into()).or_default().on_found(finding, now),
            }
        };
        if change.standing.is_some() {
            self.count_unfit();
            self.tell();
        }
        change
    }

    /// After a reload: sources, lists and plans that are not there any more are forgotten.
    pub fn retain(
        &self,
        is_source: impl Fn(&str) -> bool,
        is_asked: impl Fn(&str, IpAddr, &str) -> bool,
        is_plan: impl Fn(&str) -> bool,
    ) {
        let is_changed = {
            let mut known = self.known();
            known.sources.retain(|source, _| is_source(source));
            let mut is_changed = false;
            for (source, health) in &mut known.sources {
                is_changed |= health.retain(|address, list| is_asked(source, address, list)).is_some();
            }
            // All is looked at soon.
            known.due.clear();
            if known.warm_ups.retain(is_plan) {
                self.0.unwritten.notify_one();
            }
            is_changed
        };
        self.count_unfit();
        if is_changed {
            self.tell();
        }
    }

    /// Told when a source has come to stand otherwise.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn count_unfit(&self) {
        let known = self.known();
        let unfit = known.sources.values().filter(|health| health.standing() != Standing::In).count();
        // With the lock held, so that of two counts the later one stays.
        self.0.unfit.store(unfit, Relaxed);
    }

    fn tell(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Whether it is for the caller to look at something, which is looked at so often by whoever comes first.
    pub fn claim(&self, what: &str, every: Duration, now: Timestamp) -> bool {
        let mut known = self.known();
        let next = now.saturating_add(every);
        match known.due.get_mut(what) {
            // After the clock was set back, it is not waited for.
            Some(due) if now < *due && *due <= next => false,
            Some(due) => {
                *due = next;
                true
            }
            None => {
                known.due.insert(what.into(), next);
                true
            }
        }
    }

    /// Of how many sources that are not fit for use, and of how many that have less.
    pub fn unfit(&self) -> (u64, u64) {
        let known = self.known();
        let count =
            |wanted| known.sources.values().filter(|health| health.standing() == wanted).count() as u64;
        (count(Standing::Out), count(Standing::Lowered))
    }

    /// A pool has no source that could be used, or has one; says whether that is news.
    pub fn dry(&self, pool: &str, is_dry: bool) -> bool {
        let mut known = self.known();
        if is_dry { known.dry.insert(pool.into()) } else { known.dry.remove(pool) }
    }

    /// A place for a connection from a source, which may have so many; none when it has. Then the lane of that name stands in line, as
    /// long as it asks again in time.
    pub fn seat(&self, source: &str, max: u32, lane: &str, now: Timestamp) -> Option<Seat> {
        let mut known = self.known();
        let open = known.open.entry(source.into()).or_default();
        let is_there = |asked: Timestamp| {
            now.saturating_since(asked) < LINE_FOR && asked.saturating_since(now) < LINE_FOR
        };
        open.line.retain(|(_, asked)| is_there(*asked));
        let place = open.line.iter().position(|(name, _)| **name == *lane);
        let before = place.unwrap_or(open.line.len());
        let free = max.saturating_sub(open.count) as usize;
        if before >= free {
            match place {
                Some(place) => open.line[place].1 = now,
                None if open.line.len() < LINE_MAX => open.line.push_back((lane.into(), now)),
                None => {}
            }
            // Relaxed: it guards nothing, and who sees it late goes a message later.
            open.wanted.store(true, Relaxed);
            return None;
        }
        if let Some(place) = place {
            open.line.remove(place);
        }
        open.count += 1;
        let wanted = open.wanted.clone();
        Some(Seat { egress: self.clone(), source: source.into(), wanted })
    }

    /// Connections from a source that were given a place.
    pub fn seats(&self, source: &str) -> u32 {
        self.known().open.get(source).map_or(0, |open| open.count)
    }

    /// Whether a message may be sent by these plans, without counting it.
    ///
    /// # Errors
    /// [`Held`]: not now.
    pub fn may(&self, plans: &[&Plan], now: Timestamp) -> Result<(), Held> {
        self.known().warm_ups.may(plans, now)
    }

    /// Counts a message by these plans.
    ///
    /// # Errors
    /// [`Held`]: not now.
    pub fn book(&self, plans: &[&Plan], now: Timestamp) -> Result<Ticket, Held> {
        let booking = self.known().warm_ups.book(plans, now)?;
        self.0.unwritten.notify_one();
        Ok(Ticket { egress: self.clone(), booking: Some(booking) })
    }

    /// A message that was counted has been answered.
    pub fn answered(&self, plans: &[&Plan], is_refused: bool, now: Timestamp) -> Paused {
        let paused = self.known().warm_ups.on_answered(plans, is_refused, now);
        self.0.unwritten.notify_one();
        paused
    }

    /// There are complaints about so many messages.
    pub fn complained(&self, plans: &[&Plan], count: u32, now: Timestamp) -> Paused {
        let paused = self.known().warm_ups.on_complained(plans, count, now);
        self.0.unwritten.notify_one();
        paused
    }

    /// What was done by a plan today.
    pub fn progress(&self, plan: &Plan, now: Timestamp) -> Progress {
        self.known().warm_ups.progress(plan, now)
    }

    /// Waits until something was counted that is not written down.
    pub async fn unwritten(&self) {
        self.0.unwritten.notified().await;
    }

    /// Whether there is a plan by which something was counted.
    pub fn has_counted(&self) -> bool {
        self.known().warm_ups.has_counted()
    }

    /// What is to be kept over a restart.
    pub fn to_text(&self) -> String {
        self.known().warm_ups.to_text()
    }

    /// Another process counts as well, and keeps the file.
    pub fn begin_beside(&self) {
        let mut known = self.known();
        known.beside = Some(known.warm_ups.clone());
    }

    /// Whether one does.
    pub fn is_beside(&self) -> bool {
        self.known().beside.is_some()
    }

    /// It has ended, and has kept this. Answers how many lines of the text are none.
    pub fn end_beside(&self, text: &str) -> usize {
        let strange = {
            let mut known = self.known();
            let Some(base) = known.beside.take() else { return 0 };
            known.warm_ups.join(&base, text)
        };
        self.0.unwritten.notify_one();
        strange
    }

    /// What an earlier process has kept. Answers how many lines of the text are none.
    pub fn take_text(&self, text: &str) -> usize {
        self.known().warm_ups.take_text(text)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What a panic has left is whole: each step is one call.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether somebody waits for one.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(open) = self.egress.known().open.get_mut(&self.source) {
            open.count = open.count.saturating_sub(1);
        }
        // Who still waits says so again.
        self.wanted.store(false, Relaxed);
    }
}

impl Ticket {
    /// The message was tried: it stays counted.
    pub fn keep(&mut self) {
        self.booking = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(booking) = self.booking.take() {
            self.egress.known().warm_ups.give_back(&booking);
            self.egress.0.unwritten.notify_one();
        }
    }
}

#[cfg(test)]
mod test {
    use delivery::egress::Trouble;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn all_hear_of_a_source_that_is_out() {
        let egress = Egress::default();
        let mut changes = egress.changes();
        let dead = || Found::Unfit(Trouble::NotPlumbed("no such address".into()));
        assert_eq!(egress.clone().found("a", dead(), at(1)).standing, Some(Standing::Out));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        egress.found("a", dead(), at(2));
        assert!(!changes.has_changed().unwrap());
        assert_eq!((egress.standing("a"), egress.unfit()), (Standing::Out, (1, 0)));
        egress.found("a", Found::Fit, at(3));
        assert!(changes.has_changed().unwrap() && egress.standing("a") == Standing::In);
        assert!(egress.dry("p", true) && !egress.dry("p", true) && egress.dry("p", false));
    }

    #[test]
    fn one_looks_for_all() {
        let egress = Egress::default();
        let every = Duration::from_secs(30);
        let claims = [100, 101, 130, 131, 40].map(|secs| egress.claim("a", every, at(secs)));
        assert_eq!(claims, [true, false, true, false, true]);
        assert!(egress.claim("b", every, at(40)));
    }

    #[test]
    fn places_are_as_many_as_there_may_be() {
        let egress = Egress::default();
        let seat = |source: &str, lane: &str, secs: u64| egress.seat(source, 2, lane, at(secs));
        let one = seat("a", "x", 1).unwrap();
        let two = seat("a", "x", 1).unwrap();
        assert!(!one.is_wanted());
        assert!(seat("a", "y", 1).is_none() && one.is_wanted() && seat("b", "y", 1).is_some());
        drop(two);
        assert!(!one.is_wanted());
        // Who has waited comes before who has just given one up, and no place is kept for who does not come.
        assert!(seat("a", "x", 1).is_none());
        let two = seat("a", "y", 2).unwrap();
        assert!(seat("a", "z", 2).is_none());
        assert_eq!(egress.seats("a"), 2);
        drop(two);
        assert!(seat("a", "w", 3).is_none() && seat("a", "w", 5).is_some());
    }

    #[test]
    fn what_was_not_tried_is_not_counted() {
        let plan = Plan {
            name: "p".into(),
            source: "a".into(),
            site: None,
            start: 0,
            caps: vec![1],
            overflow: None,
            complaints_max: None,
            refusals_max: None,
            sample: 1,
            pause: Duration::from_secs(1),
        };
        let egress = Egress::default();
        drop(egress.book(&[&plan], at(1)).unwrap());
        let mut ticket = egress.book(&[&plan], at(1)).unwrap();
        assert!(egress.may(&[&plan], at(1)).is_err());
        ticket.keep();
        drop(ticket);
        assert!(egress.book(&[&plan], at(1)).is_err());
        let again = Egress::default();
        assert_eq!(again.take_text(&egress.to_text()), 0);
        assert!(again.may(&[&plan], at(1)).is_err());
        again.retain(|_| true, |_, _, _| true, |_| false);
        assert!(again.may(&[&plan], at(1)).is_ok());
    }
}
