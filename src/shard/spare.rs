//! A journal shard given up with the mail in it, so that another process may have it.
//!
//! Its messages leave the queue as if they had never been there, and nothing is written of that: whoever reads the journal
//! finds them as they were. For that the queue stands still, since an attempt that is under way would end with nobody to
//! write down how, and be made again. The index is told before the first message goes, and hears nothing after that: a
//! checkpoint without them would be one of a journal shard in which they have ended.

use std::{collections::HashSet, rc::Rc, time::Duration};

use mail::{JournalShard, QueueId};
use queue::{Cursor, Filter, State};
use tokio::sync::mpsc;

use crate::{
    facts,
    journals::Committer,
    recover::Slice,
    shard::Shard,
    upkeep::{self, IndexOrder},
};

/// How long the end of attempts is waited for, and the journal.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries of the queue that are looked at between two looks at the clock.
const STEP: usize = 256;

/// Gives up the journal shard that takes no new mail and holds the least; says which, and how many messages it holds. None
/// when each has an attempt under way, or its queue is not back yet.
pub(crate) async fn spare(
    shard: &Rc<Shard>,
    orders: &mpsc::Sender<IndexOrder>,
) -> Option<(JournalShard, u64)> {
    let is_whole = ring::timeout(PATIENCE, shard.returning.wait(shard)).await;
    if !matches!(is_whole, Ok(true)) || shard.is_stopping() || shard.is_still() {
        return None;
    }
    shard.stand_still();
    let taken = take_out(shard, orders).await;
    shard.go_on();
    let (committer, messages) = taken?;
    let number = committer.number();
    // Its mail is out of sight from here on: there is no way but on, however long the disk takes.
    while !shard.journals.take(&committer).await {
        tracing::error!(%number, "the disk is still at work on a journal shard that is let go: its mail waits for that");
        if shard.is_stopping() {
            return None;
        }
    }
    drop(committer);
    upkeep::close_index(number, orders).await.then_some((number, messages))
}

/// Takes the messages of a journal shard out of the queue.
async fn take_out(shard: &Rc<Shard>, orders: &mpsc::Sender<IndexOrder>) -> Option<(Rc<Committer>, u64)> {
    let committer = choose(shard).await?;
    let settled = ring::timeout(PATIENCE, committer.settle()).await;
    if settled.is_err() || !upkeep::save(shard, &committer, orders).await {
        return None;
    }
    committer.leave();
    let mut messages = 0;
    let (mut slice, mut next) = (Slice::begin(), Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list_messages(cursor, STEP);
        next = page.next;
        for message in page.items.into_iter().filter(|message| message.id.shard() == committer.number()) {
            let forgotten = shard.queue.borrow_mut().forget(message.id, facts::now());
            assert!(forgotten, "an attempt was begun while the queue stands still");
            shard.forget_content(message.id);
            shard.lasts.borrow_mut().remove(&message.id);
            messages += 1;
        }
        if slice.is_over() {
            slice.pause().await;
        }
    }
    // What an operator has changed in the meantime is written as well.
    let _ = ring::timeout(PATIENCE, committer.settle()).await;
    Some((committer, messages))
}

/// The one with the least mail of which no attempt is under way and no report is being written.
async fn choose(shard: &Rc<Shard>) -> Option<Rc<Committer>> {
    const ROUND: Duration = Duration::from_millis(50);
    let until = ring::clock::now() + PATIENCE;
    loop {
        let busy = busy(shard).await;
        let mut spare = shard.journals.spare().into_iter();
        let found = spare.find(|committer| !busy.contains(&committer.number()));
        if found.is_some() || shard.journals.spare().is_empty() || ring::clock::now() >= until {
            return found;
        }
        ring::sleep(ROUND).await;
    }
}

/// Journal shards of whose messages something is under way.
async fn busy(shard: &Shard) -> HashSet<JournalShard> {
    let mut busy = HashSet::new();
    let running = Filter { state: Some(State::Running), ..Filter::default() };
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list(&running, cursor, STEP);
        next = page.next;
        busy.extend(page.items.into_iter().map(|group| group.id.shard()));
        ring::yield_if_needed().await;
    }
    // Who was running before is reported on by now, if at all: this must be the last look.
    busy.extend(shard.reporting.borrow().keys().map(|id: &QueueId| id.shard()));
    busy
}
