//! Single situations, by hand.

use std::time::Duration;

use mail::{Category, JournalShard, QueueId, Status, Timestamp};

use crate::*;

const START: Timestamp = Timestamp::from_secs(1_763_629_500);
const BUSY: Status = Status(4, 3, 2);

struct Desk {
    queue: Queue,
    now: Timestamp,
    orders: Vec<Order>,
}

impl Desk {
    fn new(limits: Limits) -> Self {
        let schedule = Schedule { jitter_percent: 0, ..Schedule::default() };
        Self { queue: Queue::new(limits, schedule, 1, START), now: START, orders: Vec::new() }
    }

    fn accept(&mut self, number: u64, names: &[&str], priority: Priority) {
        let recipients: Vec<_> =
            (0..).zip(names).map(|(place, name)| (place, self.queue.intern(name, self.now))).collect();
        let accepted = Accepted {
            id: id(number),
            received_at: self.now,
            size: 4096,
            priority,
            kind: Kind::Message,
            warning: Warning::Wanted,
            times: Times::default(),
            recipients: &recipients,
        };
        self.queue.on_accepted(&accepted, self.now, &mut self.orders);
    }

    /// The attempts ordered since the last look: message number, recipients.
    fn attempts(&mut self) -> Vec<(AttemptId, u64, Vec<u32>)> {
        let attempt = |order| match order {
            Order::Attempt { attempt, id, recipients, .. } => {
                Some((attempt, id.number(), recipients.to_vec()))
            }
            Order::Note { .. }
            | Order::Return { .. }
            | Order::Warn { .. }
            | Order::Tell { .. }
            | Order::Remove { .. }
            | Order::Locate { .. }
            | Order::Retire { .. } => None,
        };
        self.orders.drain(..).filter_map(attempt).collect()
    }

    fn end(&mut self, attempt: AttemptId, outcomes: &[(u32, Outcome)]) {
        self.queue.on_attempted(attempt, outcomes, self.now, &mut self.orders);
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.saturating_add(duration);
        while let Some(wake) = self.queue.wake_after(self.now).filter(|wake| *wake <= end) {
            self.now = wake;
            self.queue.on_tick(wake, &mut self.orders);
        }
        self.now = end;
    }
}

fn id(number: u64) -> QueueId {
    QueueId::new(JournalShard(0), number)
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn a_message_from_acceptance_to_its_end() {
    let mut desk = Desk::new(Limits { recipients_per_attempt_max: 2, ..Limits::default() });
    desk.accept(1, &["a", "b", "a", "a"], Priority::Normal);
    let attempts = desk.attempts();
    let recipients: Vec<_> = attempts.iter().map(|(_, _, recipients)| recipients.as_slice()).collect();
    assert_eq!(recipients, [&[0, 2][..], &[1], &[3]]);
    desk.end(attempts[0].0, &[(0, Outcome::Delivered), (2, Outcome::Deferred(BUSY.into()))]);
    let due = START.saturating_add(minutes(5));
    let destination = desk.queue.find_all("a")[0];
    let note = Order::Note {
        id: id(1),
        recipients: Recipients::One(2),
        destination,
        state: State::Deferred,
        attempts: 1,
        due,
        category: None,
    };
    assert_eq!(desk.orders, [note]);
    desk.orders.clear();
    desk.end(attempts[1].0, &[(1, Outcome::Failed)]);
    let reason = ReturnReason::Failed;
    assert_eq!(desk.orders, [Order::Return { id: id(1), recipients: Recipients::One(1), reason }]);
    desk.end(attempts[2].0, &[(3, Outcome::Delivered)]);
    let states = desk.queue.states(id(1)).unwrap();
    assert_eq!((states.len(), states[0].recipient, states[0].status), (1, 2, Some(BUSY)));
    desk.orders.clear();
    desk.pass(minutes(5));
    let attempts = desk.attempts();
    assert_eq!((attempts[0].1, &*attempts[0].2, desk.now), (1, &[2][..], due));
    desk.end(attempts[0].0, &[(2, Outcome::Delivered)]);
    assert_eq!(desk.orders, [Order::Retire { id: id(1) }]);
}

#[test]
fn another_way_keeps_the_count_and_is_tried_at_once() {
    let mut desk = Desk::new(Limits::default());
    desk.accept(1, &["old", "old", "same"], Priority::Normal);
    for (attempt, _, recipients) in desk.attempts() {
        let outcomes: Vec<_> =
            recipients.iter().map(|place| (*place, Outcome::Deferred(BUSY.into()))).collect();
        desk.end(attempt, &outcomes);
    }
    desk.orders.clear();
    let redirects = |desk: &mut Desk, name: &str, onward| {
        let [destination, same] = [name, "same"].map(|name| desk.queue.intern(name, desk.now));
        let to = |recipient, destination| Redirect { recipient, destination, onward };
        let redirects = [to(0, destination), to(1, destination), to(2, same)];
        desk.queue.redirect(id(1), &redirects, desk.now, &mut desk.orders)
    };
    assert_eq!(redirects(&mut desk, "new", Onward::Send), 2);
    let [Order::Attempt { attempt, destination, recipients, number, .. }] = &desk.orders[..] else {
        panic!("{:?}", desk.orders)
    };
    assert_eq!(
        (desk.queue.name(*destination), recipients.as_slice(), *number),
        (Some("new"), &[0, 1][..], 2)
    );
    let attempt = *attempt;
    // In an attempt they are left alone; at its end they wait as long as after any second one.
    assert_eq!(redirects(&mut desk, "other", Onward::Hold), 0);
    desk.orders.clear();
    desk.end(attempt, &[(0, Outcome::Deferred(BUSY.into())), (1, Outcome::Deferred(BUSY.into()))]);
    let due = START.saturating_add(minutes(15));
    let places = Recipients::from(&[0, 1][..]);
    let note = |desk: &Desk, to: &str, state, due| Order::Note {
        id: id(1),
        recipients: places.clone(),
        destination: desk.queue.find_all(to)[0],
        state,
        attempts: 2,
        due,
        category: None,
    };
    assert_eq!(desk.orders, [note(&desk, "new", State::Deferred, due)]);
    desk.orders.clear();
    // A way that holds, one that does not, and an operator's hold, which stays.
    assert_eq!(redirects(&mut desk, "hold", Onward::Hold), 2);
    let orders = std::mem::take(&mut desk.orders);
    assert_eq!(orders, [note(&desk, "hold", State::Held, due)]);
    assert_eq!(redirects(&mut desk, "b", Onward::Send), 2);
    assert_eq!(desk.orders, []);
    assert_eq!(desk.queue.counts().held, 2);
    assert_eq!(redirects(&mut desk, "c", Onward::Release), 2);
    assert_eq!(desk.orders[0], note(&desk, "c", State::Ready, START));
    assert!(matches!(desk.orders[1], Order::Attempt { number: 3, .. }), "{:?}", desk.orders);
    // Whoever had a way already was not touched.
    let waits = desk.queue.states(id(1)).unwrap().into_iter().find(|state| state.recipient == 2).unwrap();
    assert_eq!((waits.state, waits.attempts), (State::Deferred, 1));
    assert_eq!(waits.due, START.saturating_add(minutes(5)));
    desk.queue.check();
}

#[test]
fn an_attempt_that_was_not_made_goes_another_way() {
    let mut desk = Desk::new(Limits { site_attempts_max: 1, ..Limits::default() });
    desk.accept(1, &["old"], Priority::Normal);
    desk.accept(2, &["old"], Priority::Normal);
    let attempts = desk.attempts();
    assert_eq!(attempts.len(), 1);
    let destination = desk.queue.intern("new", desk.now);
    let redirect = Redirect { recipient: 0, destination, onward: Onward::Send };
    assert_eq!(desk.queue.on_diverted(attempts[0].0, &[redirect], desk.now, &mut desk.orders), 1);
    // Not once more the old way: its place there is the next one's.
    let ordered = [&desk.orders[0], &desk.orders[1]].map(|order| {
        let Order::Attempt { id, destination, number, .. } = order else { panic!("{order:?}") };
        (id.number(), desk.queue.name(*destination).unwrap().to_owned(), *number)
    });
    assert_eq!(ordered, [(2, "old".to_owned(), 1), (1, "new".to_owned(), 1)]);
    assert_eq!(desk.queue.redirect(id(3), &[redirect], desk.now, &mut desk.orders), 0, "it is not queued");
}

#[test]
fn warned_after_four_hours_and_given_up_after_five_days() {
    let mut desk = Desk::new(Limits::default());
    desk.accept(1, &["a"], Priority::Normal);
    let mut seen = Vec::new();
    for _ in 0..5 * 24 * 60 + 60 {
        desk.pass(minutes(1));
        let age = desk.now.saturating_since(START);
        for order in std::mem::take(&mut desk.orders) {
            match order {
                Order::Attempt { attempt, .. } => desk.end(attempt, &[(0, Outcome::Deferred(BUSY.into()))]),
                Order::Note { .. } => {}
                Order::Warn { .. }
                | Order::Tell { .. }
                | Order::Return { .. }
                | Order::Remove { .. }
                | Order::Locate { .. }
                | Order::Retire { .. } => {
                    seen.push((age.as_secs() / 3600, std::mem::discriminant(&order)));
                }
            }
        }
    }
    let recipients = Recipients::One(0);
    let expected = [
        (4, Order::Warn { id: id(1), recipients: recipients.clone() }),
        (120, Order::Return { id: id(1), recipients, reason: ReturnReason::GaveUp }),
        (120, Order::Retire { id: id(1) }),
    ];
    assert_eq!(seen, expected.map(|(hour, order)| (hour, std::mem::discriminant(&order))));
}

#[test]
fn destinations_take_turns_and_bulk_waits_but_not_for_ever() {
    let limits = Limits { attempts_max: 1, ..Limits::default() };
    let mut desk = Desk::new(limits);
    desk.accept(0, &["a"], Priority::Normal);
    for number in 1..7 {
        desk.accept(number, &["a"], Priority::Normal);
    }
    desk.accept(7, &["b"], Priority::Normal);
    desk.accept(8, &["a"], Priority::Bulk);
    let mut order = Vec::new();
    loop {
        let attempts = desk.attempts();
        let [(attempt, number, _)] = &attempts[..] else { break };
        order.push(*number);
        desk.end(*attempt, &[(0, Outcome::Delivered)]);
    }
    assert_eq!(order, [0, 1, 7, 2, 8, 3, 4, 5, 6]);
}

#[test]
fn a_dead_destination_is_probed_by_one() {
    let mut desk = Desk::new(Limits { site_attempts_max: 2, ..Limits::default() });
    for number in 0..10 {
        desk.accept(number, &["a"], Priority::Normal);
    }
    let destination = desk.queue.intern("a", desk.now);
    let site = desk.queue.site_of(destination).unwrap();
    let failures = |desk: &Desk| desk.queue.destination(destination).unwrap().site.unwrap().failures;
    let fail = |desk: &mut Desk, attempts: Vec<(AttemptId, u64, Vec<u32>)>| {
        for (attempt, ..) in attempts {
            desk.queue.on_site_failed(site, desk.now);
            desk.end(attempt, &[(0, Outcome::Deferred(BUSY.into()))]);
        }
    };
    let attempts = desk.attempts();
    assert_eq!(attempts.len(), 2);
    fail(&mut desk, attempts);
    assert_eq!(desk.attempts(), []);
    // Both failed in the same breath: that counts once.
    assert_eq!(failures(&desk), 1);
    desk.pass(Duration::from_secs(59));
    assert_eq!(desk.attempts(), []);
    desk.pass(Duration::from_secs(1));
    let probe = desk.attempts();
    assert_eq!(probe.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(), [2]);
    fail(&mut desk, probe);
    desk.pass(minutes(2));
    let probe = desk.attempts();
    assert_eq!(probe.len(), 1);
    // Greylisted is not dead: the others may go.
    desk.end(probe[0].0, &[(0, Outcome::Deferred(BUSY.into()))]);
    assert_eq!(desk.attempts().len(), 2);
    assert_eq!(failures(&desk), 0);
}

#[test]
fn a_crowd_of_due_recipients_is_taken_in_steps() {
    let mut desk = Desk::new(Limits { attempts_max: 0, ..Limits::default() });
    let destination = desk.queue.intern("a", desk.now);
    let restored = |number| MessageState {
        id: id(number),
        received_at: START,
        size: 1,
        priority: Priority::Normal,
        kind: Kind::Message,
        warning: Warning::Sent,
        give_up_at: None,
        times: Times::default(),
    };
    for number in 0..10_000 {
        let state = RecipientState {
            recipient: 0,
            destination,
            state: State::Deferred,
            attempts: 3,
            due: START,
            status: None,
            category: None,
        };
        let restored = Restored { message: restored(number), recipients: &[state] };
        desk.queue.restore(&restored, desk.now);
    }
    let mut ticks = 0;
    while desk.queue.counts().deferred > 0 {
        assert_eq!(desk.queue.wake_after(desk.now), Some(desk.now));
        desk.queue.on_tick(desk.now, &mut desk.orders);
        ticks += 1;
    }
    assert_eq!(ticks, 3);
    for (command, counts) in [
        (Command::Hold, Counts { held: 10_000, ..Counts::default() }),
        (Command::Release, Counts { ready: 10_000, ..Counts::default() }),
    ] {
        let (mut cursor, mut changed) = (Some(Cursor::default()), Vec::new());
        while let Some(from) = cursor {
            let progress = desk.queue.on_command(command, Selector::All, from, desk.now, &mut desk.orders);
            changed.push(progress.changed);
            cursor = progress.next;
        }
        assert_eq!(changed, [512; 19].into_iter().chain([272]).collect::<Vec<_>>());
        assert_eq!(desk.queue.counts(), counts);
    }
    desk.queue.set_limits(Limits::default(), desk.now, &mut desk.orders);
    assert_eq!(desk.attempts().len(), Limits::default().site_attempts_max as usize);
    // A message whose last recipient had ended when the server went down.
    let message = restored(20_000);
    desk.queue.restore(&Restored { message, recipients: &[] }, desk.now);
    desk.queue.on_tick(desk.now, &mut desk.orders);
    assert_eq!(desk.orders, [Order::Retire { id: id(20_000) }]);
}

#[test]
fn what_lay_still_is_tried_before_it_is_given_up() {
    let mut desk = Desk::new(Limits::default());
    let destination = desk.queue.intern("a", desk.now);
    let message = MessageState {
        id: id(1),
        received_at: Timestamp::from_secs(START.secs() - 10 * 86_400),
        size: 1,
        priority: Priority::Normal,
        kind: Kind::Message,
        warning: Warning::Wanted,
        give_up_at: None,
        times: Times::default(),
    };
    let state = State::Held;
    let recipient = RecipientState {
        recipient: 0,
        destination,
        state,
        attempts: 9,
        due: START,
        status: None,
        category: None,
    };
    desk.queue.restore(&Restored { message, recipients: &[recipient] }, desk.now);
    desk.pass(minutes(60 * 24));
    assert_eq!(desk.orders, [], "held is held");
    let selector = Selector::Message(id(1));
    let progress =
        desk.queue.on_command(Command::Release, selector, Cursor::default(), desk.now, &mut desk.orders);
    assert_eq!(progress, Progress { matched: 1, changed: 1, next: None });
    let attempts = desk.attempts();
    assert_eq!(attempts.len(), 1);
    desk.end(attempts[0].0, &[(0, Outcome::Deferred(BUSY.into()))]);
    desk.pass(minutes(59));
    assert!(desk.orders.iter().all(|order| matches!(order, Order::Note { .. })), "{:?}", desk.orders);
    desk.pass(minutes(1));
    assert_eq!(desk.orders.last(), Some(&Order::Retire { id: id(1) }));
}

#[test]
fn the_books_say_how_much_memory_there_is() {
    let mut desk = Desk::new(Limits { attempts_max: 0, ..Limits::default() });
    desk.queue.intern("a", desk.now);
    let empty = desk.queue.memory();
    // One recipient: a message and a group; three that stand alike: a node for each as well. 256 places at a time.
    for number in 0..1000 {
        desk.accept(number, if number < 500 { &["a"] } else { &["a", "a", "a"] }, Priority::Normal);
    }
    let full = desk.queue.memory();
    let slabs = 1024 * 40 + 1024 * 40 + 1536 * 8;
    // Each of the 256 tables of ids has at least the four that fall to it, at five octets, and room for three times more.
    let tables = 256 * (4 * 5 * 4 + 24);
    assert!((slabs..slabs + tables).contains(&(full - empty)), "{empty} octets, then {full}");
    // A name counts with its length.
    let long = "mx:".to_owned() + &"x".repeat(250) + ".example";
    desk.queue.intern(&long, desk.now);
    assert_eq!(desk.queue.memory() - full, 2 * long.len(), "its own and that of its site");
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let command = Command::Remove;
        next = desk.queue.on_command(command, Selector::All, cursor, desk.now, &mut desk.orders).next;
    }
    assert_eq!(desk.queue.messages(), 0);
    desk.queue.set_limits(Limits::default(), desk.now, &mut desk.orders);
    desk.pass(minutes(5));
    assert_eq!(desk.queue.destinations(), 0);
    assert_eq!(desk.queue.memory(), full - 2 * "a".len(), "slabs keep what they have had, names go");
}

/// New mail is tried while older messages come back. Of these, those that are due wait for the last, and keep their order.
#[test]
fn what_somebody_else_has_is_forgotten() {
    let mut desk = Desk::new(Limits { site_attempts_max: 1, ..Limits::default() });
    desk.accept(1, &["a", "b"], Priority::Normal);
    desk.accept(2, &["a", "c"], Priority::Bulk);
    let attempts = desk.attempts();
    assert!(!desk.queue.forget(id(1), desk.now), "attempts are under way");
    for (attempt, _, places) in &attempts {
        let outcomes: Vec<_> = places.iter().map(|place| (*place, Outcome::Deferred(BUSY.into()))).collect();
        desk.end(*attempt, &outcomes);
    }
    for (attempt, _, places) in desk.attempts() {
        desk.end(attempt, &[(places[0], Outcome::Deferred(BUSY.into()))]);
    }
    let _ = desk.queue.on_command(
        Command::Hold,
        Selector::Recipient(id(1), 1),
        Cursor::default(),
        desk.now,
        &mut desk.orders,
    );
    desk.orders.clear();
    assert!(desk.queue.forget(id(1), desk.now) && desk.queue.forget(id(1), desk.now));
    assert_eq!((desk.queue.messages(), desk.queue.counts().total()), (1, 2));
    assert!(desk.queue.message(id(1)).is_none());
    assert!(desk.queue.forget(id(2), desk.now));
    assert_eq!((desk.queue.messages(), desk.queue.counts().total()), (0, 0));
    desk.pass(minutes(6000));
    assert!(desk.orders.is_empty(), "nothing is left of them: {:?}", desk.orders);
    // They may come back.
    desk.accept(1, &["a"], Priority::Normal);
    assert_eq!(desk.attempts().len(), 1);
}

#[test]
fn older_messages_come_back_beside_new_ones() {
    let mut desk = Desk::new(Limits { site_attempts_max: 1, ..Limits::default() });
    desk.queue.begin_restore();
    let restore = |desk: &mut Desk, number: u64, states: &[(State, Duration)]| {
        let recipients: Vec<_> = (0..)
            .zip(states)
            .map(|(recipient, (state, wait))| RecipientState {
                recipient,
                destination: desk.queue.intern(["a", "b"][recipient as usize % 2], desk.now),
                state: *state,
                attempts: 1,
                due: START.saturating_add(*wait),
                status: None,
                category: None,
            })
            .collect();
        let message = MessageState {
            id: id(number),
            received_at: START,
            size: 1,
            priority: Priority::Normal,
            kind: Kind::Message,
            warning: Warning::Wanted,
            give_up_at: None,
            times: Times::default(),
        };
        desk.queue.restore_older(&Restored { message, recipients: &recipients }, desk.now);
    };
    let (mut tried, mut retired) = (Vec::new(), Vec::new());
    // Ends what is under way, well, and whatever begins because of that.
    let mut deliver = |desk: &mut Desk| {
        tried.clear();
        for _ in 0..12 {
            desk.queue.on_tick(desk.now, &mut desk.orders);
            retired.extend(desk.orders.iter().filter_map(|order| match order {
                Order::Retire { id } => Some(id.number()),
                Order::Attempt { .. }
                | Order::Note { .. }
                | Order::Return { .. }
                | Order::Tell { .. }
                | Order::Warn { .. }
                | Order::Remove { .. }
                | Order::Locate { .. } => None,
            }));
            for (attempt, number, recipients) in desk.attempts() {
                tried.push((["a", "b"][recipients[0] as usize % 2], number));
                let outcomes: Vec<_> = recipients.iter().map(|place| (*place, Outcome::Delivered)).collect();
                desk.end(attempt, &outcomes);
            }
            desk.queue.check();
        }
        let of =
            |name| tried.iter().filter(|(other, _)| *other == name).map(|(_, it)| *it).collect::<Vec<_>>();
        (of("a"), of("b"))
    };
    let now = Duration::ZERO;
    desk.accept(10, &["a", "b"], Priority::Normal);
    restore(&mut desk, 5, &[(State::Ready, now), (State::Running, now), (State::Ready, now)]);
    desk.accept(11, &["a"], Priority::Normal);
    restore(&mut desk, 4, &[(State::Deferred, now)]);
    restore(&mut desk, 3, &[(State::Ready, now), (State::Held, now)]);
    restore(&mut desk, 2, &[]);
    restore(&mut desk, 1, &[(State::Deferred, minutes(1))]);
    assert_eq!(deliver(&mut desk), (vec![10, 11], vec![10]));
    assert_ne!(desk.queue.wake_after(desk.now), Some(desk.now), "nobody's turn");
    desk.pass(minutes(2));
    assert_eq!(deliver(&mut desk), (vec![1], vec![]));
    desk.accept(12, &["a"], Priority::Normal);
    desk.queue.set_limits(Limits { site_attempts_max: 0, ..desk.queue.limits }, desk.now, &mut desk.orders);
    desk.queue.end_restore();
    desk.queue.set_limits(Limits { site_attempts_max: 1, ..desk.queue.limits }, desk.now, &mut desk.orders);
    assert_eq!(deliver(&mut desk), (vec![12, 3, 4, 5], vec![5]), "12 was under way");
    retired.sort_unstable();
    assert_eq!(retired, [1, 2, 4, 5, 10, 11, 12], "3 is held");
}

/// RFC 2645: who is held and called for is tried at once, and held again unless that was the end of it.
#[test]
fn who_is_called_for_is_tried_out_of_turn() {
    let mut desk = Desk::new(Limits { attempts_max: 1, ..Limits::default() });
    let held = desk.queue.intern("hold", desk.now);
    let restore = |desk: &mut Desk, number, release_at| {
        let state = |recipient| RecipientState {
            recipient,
            destination: held,
            state: State::Held,
            attempts: 0,
            due: START,
            status: None,
            category: None,
        };
        let message = MessageState {
            id: id(number),
            received_at: START,
            size: 1,
            priority: Priority::Normal,
            kind: Kind::Message,
            warning: Warning::Wanted,
            give_up_at: None,
            times: Times { release_at, ..Times::default() },
        };
        desk.queue.restore(&Restored { message, recipients: &[state(0), state(1), state(2)] }, START);
    };
    restore(&mut desk, 1, None);
    restore(&mut desk, 2, Some(Timestamp(START.0 + 60_000_000)));
    // The limit is used up by another.
    desk.accept(3, &["mx:a"], Priority::Normal);
    let [(other, 3, _)] = desk.attempts()[..] else { panic!("one is tried") };
    let call = |desk: &mut Desk, number, places: &[u32]| {
        let order = desk.queue.on_called_for(id(number), held, places, desk.now);
        desk.orders.extend(order);
        desk.queue.check();
        desk.attempts()
    };
    let [(attempt, 1, ref places)] = call(&mut desk, 1, &[0, 2])[..] else { panic!("it is tried") };
    assert_eq!(places, &[0, 2]);
    assert_eq!(call(&mut desk, 1, &[0, 2]), []);
    assert_eq!(call(&mut desk, 2, &[0]), [], "its time has not come");
    assert_eq!(call(&mut desk, 4, &[0]), []);
    let counts = desk.queue.counts();
    assert_eq!((counts.running, counts.held), (3, 4));
    // One has it, and the other is to be had again.
    desk.end(attempt, &[(0, Outcome::Delivered), (2, Outcome::Deferred(BUSY.into()))]);
    desk.queue.check();
    assert_eq!(desk.attempts(), []);
    let [(attempt, 1, ref places)] = call(&mut desk, 1, &[1, 2])[..] else { panic!("it is tried") };
    assert_eq!(places, &[2]);
    let [(second, 1, ref places)] = call(&mut desk, 1, &[1, 2])[..] else { panic!("it is tried") };
    assert_eq!(places, &[1]);
    // Neither was tried after all.
    for attempt in [attempt, second] {
        desk.queue.on_postponed(attempt, desk.now, &mut desk.orders);
    }
    desk.queue.check();
    desk.end(other, &[(0, Outcome::Delivered)]);
    desk.queue.check();
    assert_eq!(desk.attempts(), []);
    assert_eq!(desk.queue.counts().held, 5);
    desk.pass(Duration::from_secs(61));
    assert_eq!(call(&mut desk, 2, &[0, 1, 2]).len(), 1);
}

/// An operator has released what waits for somebody to come: it was tried, and there was nobody to be sent to. Who comes gets
/// it all the same, and from then on it is held as before.
#[test]
fn who_was_released_is_called_for_as_well() {
    let mut desk = Desk::new(Limits::default());
    desk.accept(1, &["hold", "hold"], Priority::Normal);
    let [(attempt, 1, _)] = desk.attempts()[..] else { panic!("it is tried") };
    let held = desk.queue.intern("hold", desk.now);
    desk.end(attempt, &[(0, Outcome::Deferred(BUSY.into())), (1, Outcome::Deferred(BUSY.into()))]);
    let call = |desk: &mut Desk, places: &[u32]| {
        let order = desk.queue.on_called_for(id(1), held, places, desk.now);
        desk.orders.extend(order);
        desk.queue.check();
        desk.attempts()
    };
    let [(attempt, 1, ref places)] = call(&mut desk, &[1])[..] else { panic!("it is tried") };
    assert_eq!(places, &[1]);
    let counts = desk.queue.counts();
    assert_eq!((counts.running, counts.deferred), (1, 1));
    desk.end(attempt, &[(1, Outcome::Deferred(BUSY.into()))]);
    desk.queue.check();
    let counts = desk.queue.counts();
    assert_eq!((counts.held, counts.deferred), (1, 1), "the other is still tried in its turn");
}

impl Desk {
    /// A message of a tenant to a domain that has to be located.
    fn accept_for(&mut self, number: u64, tenant: Tenant, name: &str) {
        let to = self.queue.intern_for((tenant, Lot(0)), name, Whereabouts::Asked, self.now);
        let accepted = Accepted {
            id: id(number),
            received_at: self.now,
            size: 4096,
            priority: Priority::Normal,
            kind: Kind::Message,
            warning: Warning::Wanted,
            times: Times::default(),
            recipients: &[(0, to)],
        };
        self.queue.on_accepted(&accepted, self.now, &mut self.orders);
    }

    /// Whatever is sought is at this site; says how many were.
    fn locate(&mut self, site: &str, good_for: Duration) -> usize {
        let sought: Vec<_> =
            self.orders.extract_if(.., |order| matches!(order, Order::Locate { .. })).collect();
        for order in &sought {
            let Order::Locate { destination } = order else { unreachable!("see above") };
            self.queue.on_located(*destination, site, good_for, self.now, &mut self.orders);
        }
        sought.len()
    }

    /// Delivers one after the other; says who was tried in which order.
    fn deliver_all(&mut self) -> Vec<u64> {
        let mut order = Vec::new();
        let mut under_way = self.attempts();
        while !under_way.is_empty() {
            let (attempt, number, _) = under_way.remove(0);
            order.push(number);
            self.end(attempt, &[(0, Outcome::Delivered)]);
            under_way.extend(self.attempts());
        }
        order
    }
}

const A: Tenant = Tenant(1);
const B: Tenant = Tenant(2);

#[test]
fn domains_with_the_same_hosts_share_the_limit_of_their_site() {
    let mut desk = Desk::new(Limits { site_attempts_max: 2, ..Limits::default() });
    for (number, name) in (0..).zip(["a", "b", "c", "a", "b", "c"]) {
        desk.accept_for(number, A, name);
    }
    // Nothing is tried before it is known where; each is asked for once.
    assert_eq!(desk.locate("site", minutes(10)), 3);
    assert_eq!(desk.queue.sites(), 1);
    let first = desk.attempts();
    assert_eq!(first.len(), 2);
    let site = desk.queue.site("site").unwrap();
    desk.queue.on_site_failed(site, desk.now);
    for (attempt, ..) in first {
        desk.end(attempt, &[(0, Outcome::Deferred(BUSY.into()))]);
    }
    // What is out of reach is so for all of them, and probed by one.
    assert_eq!(desk.attempts(), []);
    desk.pass(minutes(1));
    assert_eq!(desk.attempts().len(), 1);
    desk.queue.check();
}

#[test]
fn where_a_domain_is_is_asked_again_after_a_while_and_it_moves_with_all_it_has() {
    let mut desk = Desk::new(Limits { site_attempts_max: 1, ..Limits::default() });
    desk.accept_for(1, A, "a");
    desk.locate("old", minutes(1));
    let attempts = desk.attempts();
    desk.pass(minutes(2));
    desk.accept_for(2, A, "a");
    // One is under way; the next one waits for its place, and only then it is asked.
    assert_eq!(desk.locate("new", minutes(60)), 0);
    desk.end(attempts[0].0, &[(0, Outcome::Deferred(BUSY.into()))]);
    assert_eq!(desk.locate("new", minutes(60)), 1);
    assert_eq!((desk.queue.site("old"), desk.queue.sites()), (None, 1));
    let attempts = desk.attempts();
    let [(attempt, 2, _)] = &attempts[..] else { panic!("{attempts:?}") };
    // An attempt under way counts where its destination is now.
    desk.queue.forget_whereabouts();
    desk.accept_for(3, A, "a");
    desk.queue.set_attempts_max(desk.queue.site("new").unwrap(), 2, desk.now, &mut desk.orders);
    assert_eq!(desk.locate("newest", minutes(60)), 1);
    let newest = desk.queue.site("newest").unwrap();
    assert_eq!(desk.queue.attempts(newest), 1);
    assert_eq!(desk.attempts(), [], "its place is taken");
    desk.end(*attempt, &[(0, Outcome::Delivered)]);
    assert_eq!(desk.attempts().len(), 1);
    desk.queue.check();
}

#[test]
fn a_crowd_of_one_tenant_is_no_concern_of_another() {
    let mut desk = Desk::new(Limits { site_attempts_max: 1, ..Limits::default() });
    // A newsletter to many domains of one provider.
    for number in 0..1000 {
        desk.accept_for(number, A, &format!("domain{}", number % 100));
    }
    desk.locate("provider", minutes(600));
    let under_way = desk.attempts();
    desk.accept_for(5000, B, "domain0");
    desk.locate("provider", minutes(600));
    desk.end(under_way[0].0, &[(0, Outcome::Delivered)]);
    let order: Vec<_> = desk.deliver_all();
    let place = order.iter().position(|number| *number == 5000).unwrap();
    assert!(place <= 1, "after {place} of the crowd");
    assert_eq!(order.len(), 1000);
}

#[test]
fn tenants_share_places_among_all_sites_and_at_each_by_weight() {
    for (attempts_max, site_attempts_max) in [(1, 20), (100, 1)] {
        let mut desk = Desk::new(Limits { attempts_max: 0, site_attempts_max, ..Limits::default() });
        desk.queue.set_weights([(B, 3)]);
        for number in 0..400 {
            // One has many domains, the other one.
            desk.accept_for(number, A, &format!("domain{number}"));
            desk.accept_for(1000 + number, B, "domain0");
        }
        assert_eq!(desk.locate("provider", minutes(600)), 0, "who stands still does not look");
        let limits = Limits { attempts_max, site_attempts_max, ..Limits::default() };
        desk.queue.set_limits(limits, desk.now, &mut desk.orders);
        assert_eq!(desk.locate("provider", minutes(600)), 401);
        let order = desk.deliver_all();
        let of_b = order[..200].iter().filter(|number| **number >= 1000).count();
        assert!((145..=155).contains(&of_b), "{of_b} of 200, where three of four are due");
    }
}

#[test]
fn who_is_deferred_for_different_reasons_waits_differently() {
    let mut desk = Desk::new(Limits::default());
    desk.accept(1, &["a", "a", "a"], Priority::Normal);
    let (attempt, ..) = desk.attempts().remove(0);
    let greylisted = Deferral {
        category: Some(Category::Greylisted),
        wait: Wait::AtLeast(minutes(7)),
        ..Deferral::from(Status(4, 7, 1))
    };
    let full = Deferral {
        category: Some(Category::Quota),
        wait: Wait::About(minutes(60)),
        give_up: Some(minutes(90)),
        ..Deferral::from(Status(4, 2, 2))
    };
    let outcomes = [greylisted.into(), full.into(), Deferral::from(BUSY).into()];
    let outcomes: Vec<(u32, Outcome)> = (0..).zip(outcomes).collect();
    desk.end(attempt, &outcomes);
    let mut states = desk.queue.states(id(1)).unwrap();
    states.sort_by_key(|state| state.recipient);
    let after: Vec<_> = states.iter().map(|state| state.due.saturating_since(START)).collect();
    assert_eq!(after, [7, 60, 5].map(minutes));
    assert_eq!(states[1].category, Some(Category::Quota));
    // All that a filter can see of them.
    let count = |filter: Filter<'_>| desk.queue.count(&filter, Cursor::default()).recipients;
    assert_eq!(count(Filter { category: Some(Category::Greylisted), ..Filter::default() }), 1);
    assert_eq!(count(Filter { status: "4.2.*".parse().ok(), ..Filter::default() }), 1);
    assert_eq!(count(Filter { priority: Some(Priority::Bulk), ..Filter::default() }), 0);
    assert_eq!(count(Filter { received_from: Some(START), ..Filter::default() }), 3);
    assert_eq!(count(Filter { received_before: Some(START), ..Filter::default() }), 0);
    let place = |place: &Place<'_>| place.destination == "a" && place.site == Some("a");
    assert_eq!(count(Filter { place: Some(&place), ..Filter::default() }), 3);
    assert_eq!(count(Filter { place: Some(&|_| false), ..Filter::default() }), 0);
    // Who has a full mailbox is tried once more at the end of its time, and then no more.
    desk.orders.clear();
    desk.pass(minutes(60));
    for (attempt, number, places) in desk.attempts() {
        let outcome = if *places == [1] { full.into() } else { Outcome::Delivered };
        assert!(*places != [1] || number == 1, "{number}");
        let outcomes: Vec<_> = places.iter().map(|place| (*place, outcome)).collect();
        desk.end(attempt, &outcomes);
    }
    let state = desk.queue.states(id(1)).unwrap().remove(0);
    assert_eq!(state.due.saturating_since(START), minutes(90));
    desk.orders.clear();
    desk.pass(minutes(30));
    let (attempt, ..) = desk.attempts().remove(0);
    desk.end(attempt, &[(1, full.into())]);
    let (recipients, reason) = (Recipients::One(1), ReturnReason::GaveUp);
    assert_eq!(desk.orders, [Order::Return { id: id(1), recipients, reason }, Order::Retire { id: id(1) }]);
    desk.queue.check();
}

#[test]
fn a_command_for_all_takes_many_small_steps() {
    let mut desk = Desk::new(Limits { attempts_max: 0, ..Limits::default() });
    for number in 0..2000 {
        desk.accept(number, &[["a", "b"][number as usize % 2]], Priority::Normal);
    }
    let place = |place: &Place<'_>| place.destination == "b";
    let filter = Filter { place: Some(&place), ..Filter::default() };
    let (mut next, mut steps, mut matched, mut changed) = (Some(Cursor::default()), 0, 0, 0);
    while let Some(cursor) = next {
        let selector = Selector::Matching(&filter);
        let progress = desk.queue.on_command(Command::Hold, selector, cursor, desk.now, &mut desk.orders);
        (matched, changed, steps) = (matched + progress.matched, changed + progress.changed, steps + 1);
        assert!(progress.changed <= 512);
        next = progress.next;
    }
    assert_eq!((matched, changed, desk.queue.counts().held, steps), (1000, 1000, 1000, 4));
    assert_eq!(desk.queue.end(), Cursor(2048));
    desk.queue.check();
}
