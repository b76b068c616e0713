//! The door with scripted shards behind it.

use mail::{JournalShard, Status, Timestamp};

use super::*;
use crate::{
    Action, Call, Class, Counts, Destination, JournalHealth, Pace, Parcel, Pattern, Receipt, Recipient,
    Released, Selector, Stage, State,
};

const LIMITS: Limits = Limits {
    requests_max: 4,
    answer_max: Duration::from_millis(200),
    steps_max: 100,
    inject_max: Duration::from_millis(200),
};

/// A shard with so many entries, which answers at most two a step.
async fn shard(number: usize, entries: u64, mut hatch: Hatch) {
    while let Some(request) = hatch.recv().await {
        match request {
            Request::List(listing, reply) => {
                let end = entries.min(listing.cursor + listing.limit.min(2) as u64);
                let page = (listing.cursor..end).map(|n| entry(number, n)).collect();
                reply.send(Page { entries: page, next: Some(end).filter(|end| *end < entries) });
            }
            Request::Show(id, reply) => {
                let mine = usize::from(id.shard().0) == number && id.number() < entries;
                reply.send(mine.then(|| entry(number, id.number())));
            }
            Request::Change { cursor, reply, .. } => {
                let next = cursor + 1;
                let next = Some(next).filter(|next| *next < entries);
                reply.send(Some(Progress { matched: 2, changed: 1, looked: 10, of: 50, next }));
            }
            // The second shard is busy with the like; mail lies at the others.
            Request::Release(node, reply) => reply.send(
                (number != 1)
                    .then(|| Released { recipients: entries, searching: node.reach == mail::Reach::Below }),
            ),
            // A shard hands out as many empty messages as it has entries; the third cannot tell yet.
            Request::Collect(call, parcels, reply) => {
                reply.send((number != 2).then_some(entries > 0));
                for n in 0..entries {
                    let (receipt, came) = tokio::sync::oneshot::channel();
                    let parcel = parcel(number, n, &call, receipt);
                    if parcels.send(parcel).await.is_err() || came.await.is_err() {
                        break;
                    }
                }
            }
            Request::Inject(injection, reply) => reply.send(injected(number, &injection)),
            Request::Summary(_, reply) => reply.send(summary(number, entries)),
            Request::Health(reply) => reply.send(ShardHealth {
                shard: number,
                stage: Stage::Serving,
                journal: JournalHealth::Healthy,
                journal_error: None,
                inbound: 0,
                outbound: 0,
                messages: entries,
                returning: None,
            }),
            Request::Reload(_, reply) => reply.send(vec![
                Stranded { destination: "mx:one.example".into(), recipients: 2 },
                Stranded { destination: format!("mx:{number}.example"), recipients: 3 },
            ]),
            Request::Explain(subject, reply) => {
                let explained = Explained { subject, shard: number, reasons: Vec::new() };
                reply.send(if number == 1 { Vec::new() } else { vec![explained] });
            }
            Request::LetGo(reply) => reply.send(vec![JournalShard(number as u16)]),
            Request::Spare(reply) => reply.send(Some((JournalShard(number as u16 + 2), entries))),
            Request::Depart(_) => return,
            // The counts of the shards are put together.
            Request::TlsResults(reply) => {
                let (mut tally, domain) = (Tally::default(), dns::Name::parse("a.test").unwrap());
                tally.succeeded(&domain, delivery::tally::Reported::NotFound(domain.clone()));
                reply.send(tally);
            }
            Request::DmarcResults(reply) => {
                let mut tally = report::dmarc::Tally::default();
                tally.untold = number as u64;
                reply.send(tally);
            }
            Request::Ask(..) => panic!("nobody asks for that here"),
            Request::Drain(_, reply) => return reply.send(number as u64),
        }
    }
}

fn parcel(number: usize, n: u64, call: &Call, receipt: oneshot::Sender<Receipt>) -> Parcel {
    let id = entry(number, n).id;
    let envelope = mail::Envelope {
        received_at: Timestamp::EPOCH,
        reverse_path: mail::ReversePath::Null,
        recipients: call
            .domains
            .iter()
            .map(|domain| mail::Recipient::new(mail::Address::new("bob", domain).unwrap()))
            .collect(),
        body: mail::BodyType::SevenBit,
        utf8: mail::Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        handling: mail::Handling::default(),
        upstream: None,
    };
    Parcel { id, envelope, recipients: vec![0], content: Vec::new(), size: 0, receipt }
}

#[tokio::test]
async fn what_is_collected_comes_from_all_shards() {
    let call = Call { certificate: [1; 32], domains: vec![mail::Domain::parse("x.example").unwrap()] };
    let shards = |entries: &[u64]| {
        let (door, hatches) = Door::new(entries.len(), LIMITS);
        for (number, (hatch, entries)) in hatches.into_iter().zip(entries).enumerate() {
            tokio::spawn(shard(number, *entries, hatch));
        }
        door
    };
    let (any, mut coming) = shards(&[2, 3]).neighbours().collect(&call).await.unwrap();
    assert!(any);
    let mut seen = Vec::new();
    while let Some(parcel) = coming.recv().await {
        assert_eq!(parcel.envelope.recipients[0].address.as_str(), "bob@x.example");
        seen.push(parcel.id);
        parcel.receipt.send(Receipt { outcomes: Vec::new(), took: Duration::ZERO, tls: None }).unwrap();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5, "{seen:?}");
    let (any, mut coming) = shards(&[0, 0]).neighbours().collect(&call).await.unwrap();
    assert!(!any && coming.recv().await.is_none());
    assert!(shards(&[1, 1, 1]).neighbours().collect(&call).await.is_none(), "one of them cannot tell");
}

/// What one that has ended had is another process's by now: those that are left are asked, and nobody is told that there
/// is nothing.
#[tokio::test]
async fn a_shard_that_has_departed_is_passed_over() {
    let call = Call { certificate: [1; 32], domains: vec![mail::Domain::parse("x.example").unwrap()] };
    let node = mail::Node::parse("x.example").unwrap();
    let departed = async |entries: &[u64]| {
        let (door, hatches) = Door::new(entries.len(), LIMITS);
        let mut shards = Vec::new();
        for (number, (hatch, entries)) in hatches.into_iter().zip(entries).enumerate() {
            shards.push(tokio::spawn(shard(number, *entries, hatch)));
        }
        door.depart(1, Duration::ZERO).await.unwrap();
        shards.remove(1).await.unwrap();
        door
    };
    let door = departed(&[3, 2]).await;
    let (any, mut coming) = door.neighbours().collect(&call).await.unwrap();
    assert!(any);
    for _ in 0..3 {
        let parcel = coming.recv().await.unwrap();
        parcel.receipt.send(Receipt { outcomes: Vec::new(), took: Duration::ZERO, tls: None }).unwrap();
    }
    assert!(coming.recv().await.is_none());
    let found = Released { recipients: 3, searching: true };
    assert_eq!(door.neighbours().release(&node).await, Some(found));
    for turn in 0..4 {
        assert_eq!(door.inject(injection("ann")).await.unwrap().unwrap().shard().0, 0, "turn {turn}");
    }
    assert_eq!(door.drain(Duration::ZERO).await, [Ok(0), Err(AskError::Gone(1))]);
    assert!(departed(&[0, 2]).await.neighbours().collect(&call).await.is_none());
}

#[tokio::test]
async fn every_shard_says_why() {
    let explained = house(&[1, 1, 1]).explain("mx:a.test").await.unwrap();
    assert_eq!(explained.iter().map(|one| one.shard).collect::<Vec<_>>(), [0, 2]);
}

#[tokio::test]
async fn every_shard_is_asked_what_it_lets_go() {
    let door = house(&[1, 1]);
    assert_eq!(door.let_go(1).await.unwrap().await, [JournalShard(1)]);
    assert_eq!(door.spare(1).await.unwrap().await, Some((JournalShard(3), 1)));
}

#[tokio::test]
async fn stranded_mail_is_counted_over_all_shards() {
    let door = house(&[1, 1, 1]);
    let stranded: Vec<_> =
        door.reload(1).await.unwrap().into_iter().map(|one| (one.destination, one.recipients)).collect();
    let expected = [("mx:one.example", 6), ("mx:0.example", 3), ("mx:1.example", 3), ("mx:2.example", 3)];
    assert_eq!(stranded, expected.map(|(name, recipients)| (name.to_owned(), recipients)));
}

/// The name of the bringer says what becomes of it: `busy` at the shards whose numbers follow.
fn injected(shard: usize, injection: &Injection) -> Injected {
    let declined = |cause| Declined {
        cause,
        recipient: None,
        code: 452,
        status: Status(4, 3, 1),
        label: "busy",
        text: "",
    };
    match injection.bringer.split_once(' ') {
        Some(("busy", shards)) if shards.contains(&shard.to_string()) => Err(declined(Cause::Busy)),
        Some(("full", shards)) if shards.contains(&shard.to_string()) => Err(declined(Cause::Full)),
        Some(("never", _)) => Err(declined(Cause::Message)),
        Some(_) | None => Ok(QueueId::new(JournalShard(shard as u16), 1)),
    }
}

fn injection(bringer: &str) -> Injection {
    Injection {
        bringer: bringer.into(),
        client: ([192, 0, 2, 1], 1).into(),
        reverse_path: mail::ReversePath::Null,
        recipients: Vec::new(),
        content: bytes::Bytes::new(),
        body: mail::BodyType::SevenBit,
        utf8: mail::Utf8::NotNeeded,
    }
}

#[tokio::test]
async fn messages_go_to_the_shards_in_turn() {
    let door = house(&[0, 0, 0]);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(door.inject(injection("ann")).await.unwrap().unwrap().shard().0);
    }
    assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn a_shard_that_cannot_take_a_message_is_passed_over() {
    let door = house(&[0, 0, 0]);
    for _ in 0..6 {
        let id = door.inject(injection("busy 0 1")).await.unwrap().unwrap();
        assert_eq!(id.shard().0, 2);
    }
    let cause = async |bringer| door.inject(injection(bringer)).await.unwrap().unwrap_err().cause;
    assert_eq!(cause("full 012").await, Cause::Full);
    assert_eq!(cause("busy 012").await, Cause::Busy);
    assert_eq!(cause("never at all").await, Cause::Message);
    let (alone, hatches) = Door::new(2, LIMITS);
    drop(hatches);
    assert_eq!(alone.inject(injection("ann")).await, Err(AskError::Gone(1)));
    let (crowded, _hatches) = Door::new(2, Limits { requests_max: 1, ..LIMITS });
    // The answers never come; that fills what can be noted down.
    for shard in [0, 1] {
        assert_eq!(crowded.inject(injection("ann")).await, Err(AskError::Late(shard)));
    }
    assert_eq!(crowded.inject(injection("ann")).await, Err(AskError::Crowded));
}

fn entry(shard: usize, number: u64) -> Entry {
    let recipient = Recipient {
        index: 0,
        address: "bob@example.org".into(),
        state: State::Deferred,
        destination: "mx:example.org".into(),
        site: None,
        attempts: 2,
        due: Some(Timestamp::from_secs(1_800_000_000)),
        status: Some(Status(4, 2, 2)),
        reply: Some("452 4.2.2 mailbox full".into()),
        category: Some("quota".into()),
    };
    Entry {
        id: QueueId::new(JournalShard(shard as u16), number),
        received_at: Timestamp(1_795_179_771_500_000),
        size: 4096,
        priority: Class::Normal,
        tenant: None,
        campaign: None,
        sender: "ann@example.org".into(),
        recipients_total: 1,
        recipients: vec![recipient],
    }
}

fn summary(shard: usize, entries: u64) -> Summary {
    let recipients = Counts { deferred: entries, ..Counts::default() };
    let destination = |name: &str, recipients| Destination {
        name: name.into(),
        recipients,
        attempts: 1,
        site: None,
        failures: shard as u32,
        blocked_until: None,
    };
    Summary {
        messages: entries,
        recipients,
        oldest: Some(Timestamp::from_secs(100 - shard as u64)),
        destinations: vec![
            destination("mx:both.example", recipients),
            destination(&format!("mx:{shard}.example"), Counts::default()),
        ],
    }
}

fn house(entries: &[u64]) -> Door {
    let (door, hatches) = Door::new(entries.len(), LIMITS);
    for (number, hatch) in hatches.into_iter().enumerate() {
        tokio::spawn(shard(number, entries[number], hatch));
    }
    door
}

#[tokio::test]
async fn pages_lead_through_all_shards_and_meet_every_entry_once() {
    let door = house(&[5, 0, 3]);
    for limit in [1, 2, 3, 100] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = door.list(&Filter::default(), cursor, limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries.iter().map(|entry| (entry.id.shard().0, entry.id.number())));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (2, 0), (2, 1), (2, 2)]);
    }
    assert_eq!(door.list(&Filter::default(), Some(u64::MAX), 1).await, Err(AskError::Cursor));
}

#[tokio::test]
async fn a_change_goes_on_until_it_is_done() {
    let door = house(&[3, 2]);
    let progress = door.change(&change(Action::Hold, Selector::All), None).await.unwrap();
    assert_eq!(progress, Progress { matched: 10, changed: 5, looked: 50, of: 50, next: None });
}

#[tokio::test]
async fn a_long_change_comes_back_with_a_cursor() {
    let (mut door, hatches) = Door::new(1, LIMITS);
    door.limits.steps_max = 4;
    tokio::spawn(shard(0, 6, hatches.into_iter().next().unwrap()));
    let selector = Selector::Matching(Filter { sender: Some(Pattern::Null), ..Filter::default() }.into());
    let remove = change(Action::Remove, selector);
    let first = door.change(&remove, None).await.unwrap();
    let second = door.change(&remove, first.next).await.unwrap();
    assert_eq!((first.changed, second.changed, second.next), (4, 2, None));
}

#[tokio::test]
async fn answers_are_put_together() {
    let door = house(&[4, 7]);
    let summary = door.summary(2).await.unwrap();
    assert_eq!((summary.messages, summary.recipients.deferred), (11, 11));
    assert_eq!(summary.oldest, Some(Timestamp::from_secs(99)));
    assert_eq!(summary.destinations.len(), 2);
    assert_eq!(summary.destinations[0].recipients.deferred, 11);
    assert_eq!((summary.destinations[0].attempts, summary.destinations[0].failures), (2, 1));
    let id = QueueId::new(JournalShard(1), 6);
    assert_eq!(door.show(id).await.unwrap().map(|entry| entry.id), Some(id));
    assert_eq!(door.show(QueueId::new(JournalShard(1), 7)).await, Ok(None));
    assert_eq!(door.drain(Duration::ZERO).await, [Ok(0), Ok(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_gone_or_stuck_is_named() {
    let (door, mut hatches) = Door::new(3, LIMITS);
    tokio::spawn(shard(0, 1, hatches.remove(0)));
    drop(hatches.remove(0));
    let stuck = hatches.remove(0);
    let health = door.health().await;
    assert!(health[0].is_ok());
    assert_eq!(health[1].as_ref().err(), Some(&AskError::Gone(1)));
    assert_eq!(health[2].as_ref().err(), Some(&AskError::Late(2)));
    drop(stuck);
}

#[test]
fn entries_are_json_and_back() {
    let entry = entry(2, 7);
    let json = serde_json::to_string(&entry).unwrap();
    assert!(json.contains(r#""received_at":"2026-11-20T13:02:51.5Z""#), "{json}");
    assert!(json.contains(r#""status":"4.2.2""#), "{json}");
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
}

#[tokio::test]
async fn shards_ask_one_another() {
    let node = |text: &str| mail::Node::parse(text).unwrap();
    let (door, mut hatches) = Door::new(1, LIMITS);
    tokio::spawn(shard(0, 3, hatches.remove(0)));
    let one = Released { recipients: 3, searching: false };
    assert_eq!(door.neighbours().release(&node("x.example")).await, Some(one));
    let more = Released { searching: true, ..one };
    assert_eq!(door.neighbours().release(&node("@x.example")).await, Some(more));

    let (door, hatches) = Door::new(2, LIMITS);
    for (number, hatch) in hatches.into_iter().enumerate() {
        tokio::spawn(shard(number, 3, hatch));
    }
    assert_eq!(door.neighbours().release(&node("x.example")).await, None, "one of them does not");
    let (door, hatches) = Door::new(1, LIMITS);
    drop(hatches);
    assert_eq!(door.neighbours().release(&node("x.example")).await, None, "nobody is there");
}

#[tokio::test]
async fn what_is_counted_of_tls_is_put_together() {
    let (door, hatches) = Door::new(3, Limits::default());
    for (number, hatch) in hatches.into_iter().enumerate() {
        tokio::spawn(shard(number, 0, hatch));
    }
    let domains = door.tls_results().await.into_domains();
    assert_eq!(domains.len(), 1);
    assert_eq!(domains[0].1[0].successes, 3);
    assert_eq!(door.dmarc_results().await.untold, 1 + 2);
}

#[tokio::test]
async fn a_shard_ends_though_its_neighbours_could_ask_it() {
    let (door, mut hatches) = Door::new(2, Limits::default());
    let neighbours = door.neighbours();
    drop(door);
    for hatch in &mut hatches {
        assert!(hatch.recv().await.is_none());
    }
    assert_eq!(neighbours.release(&mail::Node::parse("x.example").unwrap()).await, None);
}

fn change(action: Action, selector: Selector) -> Change {
    Change { action, to: None, selector, pace: Pace::Soon, as_of: None }
}
