//! How new addresses come into use: so many messages a day, and a pause when they are not liked.
//!
//! A message is booked before it is sent, and given back when it was not tried after all: so a cap holds whatever is
//! under way. Counts are of one day, in UTC.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use mail::Timestamp;

/// A plan for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In logs and in the file.
    pub name: Box<str>,
    /// Whose plan.
    pub source: Box<str>,
    /// For mail to the site that this rule names; none: for all.
    pub site: Option<Box<str>>,
    /// The first day, counted from 1970-01-01.
    pub start: u32,
    /// Messages on each day from the first on. After the last there is no limit.
    pub caps: Vec<u32>,
    /// The pool that has what is too much.
    pub overflow: Option<Box<str>>,
    /// Complaints about a thousand messages.
    pub complaints_max: Option<u32>,
    /// Messages of a hundred that were refused.
    pub refusals_max: Option<u32>,
    /// From so many messages on.
    pub sample: u32,
    /// For how long nothing is sent after that.
    pub pause: Duration,
}

/// What was done by a plan today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The day that is counted.
    pub day: u32,
    /// Messages sent, or on their way.
    pub booked: u32,
    /// Messages answered since the day began, or the last pause.
    pub answered: u32,
    /// Those of them that were refused for what we are.
    pub refused: u32,
    /// Complaints.
    pub complained: u32,
    /// Until when nothing is sent.
    pub paused_until: Option<(Timestamp, Pause)>,
}

/// Why a plan has paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pause {
    /// Recipients have complained.
    Complaints,
    /// Hosts have refused too much.
    Refusals,
}

/// Why a message is not sent by a plan now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The plan.
    pub plan: Box<str>,
    /// Until when.
    pub until: Timestamp,
    /// The pool that has it instead.
    pub overflow: Option<Box<str>>,
    /// The cap of today; none: the plan has paused.
    pub cap: Option<u32>,
}

/// A message is counted by these plans, on that day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booking {
    /// The plans.
    pub plans: Vec<Box<str>>,
    /// The day.
    pub day: u32,
}

/// Whether a message was booked.
pub type Booked = Result<Booking, Held>;

/// What was done by all plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmUps {
    plans: BTreeMap<Box<str>, Progress>,
}

const DAY: u64 = 86_400;
/// What the file begins with.
const HEAD: &str = "ringpost warm-up 1";

impl Pause {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Complaints => "complaints",
            Self::Refusals => "refusals",
        }
    }
}

/// The day of a moment.
pub fn day_of(now: Timestamp) -> u32 {
    u32::try_from(now.secs() / DAY).unwrap_or(u32::MAX)
}

/// When the next day begins.
pub fn next_day(now: Timestamp) -> Timestamp {
    Timestamp::from_secs((now.secs() / DAY + 1) * DAY)
}

impl Plan {
    /// How many messages there may be on that day; none: any number.
    pub fn cap(&self, day: u32) -> Option<u32> {
        match day.checked_sub(self.start) {
            // Nobody is to hear of the address yet.
            None => Some(0),
            Some(place) => self.caps.get(place as usize).copied(),
        }
    }
}

impl WarmUps {
    /// Whether a message may be sent by all these plans, without counting it.
    pub fn may(&mut self, plans: &[&Plan], now: Timestamp) -> Result<(), Held> {
        plans.iter().try_for_each(|plan| self.look(plan, now))
    }

    /// Counts a message, by all these plans or by none.
    pub fn book(&mut self, plans: &[&Plan], now: Timestamp) -> Booked {
        self.may(plans, now)?;
        for plan in plans {
            let progress = self.today(plan, now);
            progress.booked = progress.booked.saturating_add(1);
        }
        let plans = plans.iter().map(|plan| plan.name.clone()).collect();
        Ok(Booking { plans, day: day_of(now) })
    }

    /// A message that was counted has not been tried.
    pub fn give_back(&mut self, booking: &Booking) {
        for name in &booking.plans {
            if let Some(progress) = self.plans.get_mut(name).filter(|progress| progress.day == booking.day) {
                progress.booked = progress.booked.saturating_sub(1);
            }
        }
    }

    /// A message was answered. Says which plans pause from now on, and until when.
    pub fn on_answered(
        &mut self,
        plans: &[&Plan],
        is_refused: bool,
        now: Timestamp,
    ) -> Vec<(Box<str>, Pause, Timestamp)> {
        let mut paused = Vec::new();
        for plan in plans {
            let progress = self.today(plan, now);
            progress.answered = progress.answered.saturating_add(1);
            progress.refused = progress.refused.saturating_add(is_refused.into());
            paused.extend(pause(plan, progress, now));
        }
        paused
    }

    /// Recipients have complained about so many messages. Says which plans pause from now on, and until when.
    pub fn on_complained(
        &mut self,
        plans: &[&Plan],
        count: u32,
        now: Timestamp,
    ) -> Vec<(Box<str>, Pause, Timestamp)> {
        let mut paused = Vec::new();
        for plan in plans {
            let progress = self.today(plan, now);
            progress.complained = progress.complained.saturating_add(count);
            paused.extend(pause(plan, progress, now));
        }
        paused
    }

    /// What was done by a plan today.
    pub fn progress(&mut self, plan: &Plan, now: Timestamp) -> Progress {
        *self.today(plan, now)
    }

    /// Plans that nobody has any more are forgotten. Says whether there were any.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) -> bool {
        let before = self.plans.len();
        self.plans.retain(|name, _| is_known(name));
        self.plans.len() < before
    }

    /// Whether there is anything to keep.
    pub fn has_counted(&self) -> bool {
        !self.plans.is_empty()
    }

    /// All of it as lines, to be kept over a restart.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (name, progress) in &self.plans {
            let Progress { day, booked, answered, refused, complained, paused_until } = progress;
            let paused = paused_until.map_or_else(
                || "-".to_owned(),
                |(until, pause)| format!("{}:{}", pause.word(), until.secs()),
            );
            let _ = writeln!(text, "{name} {day} {booked} {answered} {refused} {complained} {paused}");
        }
        text
    }

    /// Takes in what an earlier process has kept. Says how many lines are none.
    pub fn take_text(&mut self, text: &str) -> usize {
        let Some(lines) = text.strip_prefix(HEAD).filter(|rest| rest.starts_with('\n')) else {
            return text.lines().count();
        };
        let mut strange = 0;
        for line in lines.lines().filter(|line| !line.is_empty()) {
            match read_line(line) {
                Some((name, progress)) => _ = self.plans.insert(name.into(), progress),
                None => strange += 1,
            }
        }
        strange
    }

    /// Takes in what another process has kept that has counted beside this one, from the same `base` on. Says how many lines are none.
    pub fn join(&mut self, base: &Self, text: &str) -> usize {
        let mut other = Self::default();
        let strange = other.take_text(text);
        let none = Progress::default();
        for (name, theirs) in other.plans {
            let ours = self.plans.entry(name.clone()).or_insert(Progress { day: theirs.day, ..none });
            let base = base.plans.get(&name).filter(|base| base.day == ours.day).unwrap_or(&none);
            let paused_until = ours.paused_until.max(theirs.paused_until);
            if ours.day < theirs.day {
                *ours = theirs;
            } else if ours.day == theirs.day {
                // What was counted since; less, where it began anew after a pause.
                let sum =
                    |theirs: u32, ours: u32, base: u32| theirs.saturating_add(ours.saturating_sub(base));
                ours.booked = sum(theirs.booked, ours.booked, base.booked);
                ours.answered = sum(theirs.answered, ours.answered, base.answered);
                ours.refused = sum(theirs.refused, ours.refused, base.refused);
                ours.complained = sum(theirs.complained, ours.complained, base.complained);
            }
            ours.paused_until = paused_until;
        }
        strange
    }

    fn look(&mut self, plan: &Plan, now: Timestamp) -> Result<(), Held> {
        let progress = *self.today(plan, now);
        let held = |until, cap| Held { plan: plan.name.clone(), until, overflow: plan.overflow.clone(), cap };
        if let Some((until, _)) = progress.paused_until {
            return Err(held(until, None));
        }
        match plan.cap(day_of(now)) {
            Some(cap) if progress.booked >= cap => Err(held(next_day(now), Some(cap))),
            Some(_) | None => Ok(()),
        }
    }

    /// The counts of today.
    fn today(&mut self, plan: &Plan, now: Timestamp) -> &mut Progress {
        let day = day_of(now);
        if !self.plans.contains_key(&plan.name) {
            self.plans.insert(plan.name.clone(), Progress { day, ..Progress::default() });
        }
        let progress = self.plans.get_mut(&plan.name).expect("it is there");
        // A clock that was set back does not give a day twice; one that was far ahead once is not waited for.
        if progress.day < day || progress.day > day.saturating_add(1) {
            *progress = Progress { day, paused_until: progress.paused_until, ..Progress::default() };
        }
        if progress.paused_until.is_some_and(|(until, _)| until <= now) {
            (progress.answered, progress.refused, progress.complained) = (0, 0, 0);
            progress.paused_until = None;
        }
        progress
    }
}

/// Pauses a plan that is to pause.
fn pause(plan: &Plan, progress: &mut Progress, now: Timestamp) -> Option<(Box<str>, Pause, Timestamp)> {
    if progress.paused_until.is_some() || progress.answered < plan.sample {
        return None;
    }
    let is_over = |count: u32, of: u64, max: Option<u32>| {
        max.is_some_and(|max| u64::from(count) * of >= u64::from(max) * u64::from(progress.answered))
    };
    let why = if progress.complained > 0 && is_over(progress.complained, 1000, plan.complaints_max) {
        Pause::Complaints
    } else if progress.refused > 0 && is_over(progress.refused, 100, plan.refusals_max) {
        Pause::Refusals
    } else {
        return None;
    };
    let until = now.saturating_add(plan.pause);
    progress.paused_until = Some((until, why));
    Some((plan.name.clone(), why, until))
}

fn read_line(line: &str) -> Option<(&str, Progress)> {
    let mut words = line.split(' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    let mut number = || words.next()?.parse::<u32>().ok();
    let (day, booked, answered) = (number()?, number()?, number()?);
    let (refused, complained) = (number()?, number()?);
    let paused_until = match words.next()? {
        "-" => None,
        paused => {
            let (why, until) = paused.split_once(':')?;
            let why = [Pause::Complaints, Pause::Refusals].into_iter().find(|pause| pause.word() == why)?;
            Some((Timestamp::from_secs(until.parse().ok()?), why))
        }
    };
    let progress = Progress { day, booked, answered, refused, complained, paused_until };
    words.next().is_none().then_some((name, progress))
}
