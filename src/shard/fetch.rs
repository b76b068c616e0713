//! Mail fetched by a host that has come for it and is the server now, on the connection that it has made (RFC 2645).
//!
//! The mail waits behind routes that hold it, on any core. Each core looks through what it holds and hands one message after
//! the other to the core that has the connection: by value, with a way back for what became of it. Until that has come
//! the message is in an attempt of its own core. Whoever has not got it when the attempt ends, however it ends, is held
//! again; the journal has never said anything else. So nothing is lost whichever moment the connection dies, or the server.

use std::{cell::RefCell, collections::HashSet, mem, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bridge::{Call, Parcel, Receipt, Reply};
use bytes::Bytes;
use delivery::{
    Demand, EightBitContent, Fate, Outcome, Remote, RouteOptions, Routes, Teller, TlsLevel, fates,
};
use mail::{Envelope, QueueId, Status, TlsDemand};
use queue::{Cursor, Destination, Filter, Order, State};
use smtp::{
    Refusal,
    client::{Action, Channel, Chunking, Client, Offers, Stage, Transaction, TransactionOutcome},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    accept::client_address,
    consent, conversions, facts,
    hops::{self, Job},
    outcomes::{self, Ended},
    shard::Shard,
    socket::Socket,
    talk::{OpenConnection, Talk, transaction},
};

/// How long the cores may take to look whether something waits: a client waits for "at least 10 minutes" (RFC 2645
/// §5.2.1).
const PATIENCE: Duration = Duration::from_secs(120);

/// Has all cores look for what waits.
///
/// # Errors
/// Why there is nothing to be had.
pub(crate) async fn everywhere(shard: &Shard, call: &Call) -> Result<mpsc::Receiver<Parcel>, Refusal> {
    let unavailable = Refusal::FetchUnavailable;
    let found = ring::timeout(PATIENCE, shard.neighbours.collect(call)).await;
    match found.map_err(|_| unavailable)?.ok_or(unavailable)? {
        (true, parcels) => Ok(parcels),
        (false, _) => Err(Refusal::NothingToFetch),
    }
}

/// Hands out what waits here, one message at a time, until whoever takes it has gone. The answer says whether there is
/// any; `None` when that is not known yet.
pub(crate) async fn here(
    shard: &Rc<Shard>,
    call: &Call,
    parcels: mpsc::Sender<Parcel>,
    answer: Reply<Option<bool>>,
) {
    // What a core that ends has to say is not waited for.
    if shard.is_stopping() {
        return drop(answer);
    }
    if !shard.returning.is_over() || hands_out_nothing(shard) {
        return answer.send(None);
    }
    let _working = Working::begin(shard);
    let answer = RefCell::new(Some(answer));
    let say = |found| {
        if let Some(answer) = answer.take() {
            answer.send(Some(found));
        }
    };
    for destination in holding(shard) {
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            let page = held(shard, destination, cursor);
            next = page.1;
            for id in page.0 {
                let Ok(envelope) = shard.envelope(id).await else { continue };
                let meant = meant(shard, call, id, destination, &envelope);
                let meant = sift(shard, id, destination, &envelope, meant);
                if meant.is_empty() {
                    continue;
                }
                say(true);
                // Room first: content that nobody has asked for yet takes no memory.
                let Ok(room) = parcels.reserve().await else { return };
                if hands_out_nothing(shard) {
                    return;
                }
                hand_out(shard, id, destination, meant, room).await;
            }
            ring::yield_if_needed().await;
        }
    }
    say(false);
}

/// Whether it is too late to hand out: the core stops, or its journal has failed, and what is taken could not be written down.
fn hands_out_nothing(shard: &Shard) -> bool {
    shard.is_stopping() || shard.journals.has_failed()
}

/// Where routes hold mail.
fn holding(shard: &Shard) -> Vec<Destination> {
    const PAGE: usize = 1000;
    let (mut found, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list_destinations(cursor, PAGE);
        next = page.next;
        let held = page
            .items
            .into_iter()
            .filter(|view| view.counts.held + view.counts.deferred > 0 && Routes::is_hold_key(&view.name));
        found.extend(held.map(|view| view.destination));
    }
    found
}

/// Whoever waits: those who have been released are deferred, for there is nobody else to be sent to.
const fn waits(state: State) -> bool {
    matches!(state, State::Held | State::Deferred)
}

/// Messages of a page that somebody waits of.
fn held(shard: &Shard, destination: Destination, cursor: Cursor) -> (Vec<QueueId>, Option<Cursor>) {
    const PAGE: usize = 256;
    let destinations = [destination];
    let filter = Filter { destinations: Some(&destinations), ..Filter::default() };
    let page = shard.queue.borrow().list(&filter, cursor, PAGE);
    let mut seen = HashSet::new();
    let waiting = page.items.into_iter().filter(|group| waits(group.state)).map(|group| group.id);
    let ids = waiting.filter(|id| seen.insert(*id)).collect();
    (ids, page.next)
}

/// Who of a message's recipients waits, and is whose mail is asked for.
fn meant(shard: &Shard, call: &Call, id: QueueId, destination: Destination, envelope: &Envelope) -> Vec<u32> {
    let settings = shard.settings();
    let states = shard.queue.borrow().states(id).unwrap_or_default();
    let held = states.into_iter().filter(|state| waits(state.state) && state.destination == destination);
    held.map(|state| state.recipient)
        .filter(|place| {
            envelope.recipients.get(*place as usize).is_some_and(|recipient| {
                let domain = recipient.address.domain();
                (call.domains.is_empty() || call.domains.contains(&domain))
                    && settings.policy.may_fetch(call.certificate, &domain)
            })
        })
        .collect()
}

async fn hand_out(
    shard: &Rc<Shard>,
    id: QueueId,
    destination: Destination,
    meant: Vec<u32>,
    room: mpsc::Permit<'_, Parcel>,
) {
    let Ok(message) = shard.message(id).await else { return };
    // There may have been a long wait for room.
    let meant = sift(shard, id, destination, &message.envelope, meant);
    let Some(job) = call_for(shard, id, destination, &meant) else { return };
    let (receipt, came) = oneshot::channel();
    let recipients = job.recipients.to_vec();
    let (envelope, content, size) =
        (Envelope::clone(&message.envelope), message.content.clone(), message.size);
    room.send(Parcel { id, envelope, recipients, content, size, receipt });
    match came.await {
        Ok(Receipt { outcomes, took, tls }) if !outcomes.is_empty() => {
            let key = name(shard, destination);
            let ended = Ended {
                outcomes: &outcomes,
                envelope: Some(&message.envelope),
                took,
                tls: tls.as_deref(),
                policy: None,
            };
            outcomes::end(shard, &job, &key, &ended);
        }
        Ok(_) | Err(_) => hops::postpone(shard, job),
    }
}

/// Ends those of them who have come onto a list since: they are sent nothing, whoever comes for it. Answers who is left.
fn sift(
    shard: &Rc<Shard>,
    id: QueueId,
    destination: Destination,
    envelope: &Envelope,
    mut meant: Vec<u32>,
) -> Vec<u32> {
    let mut sifted = consent::sift(shard, envelope, &meant);
    meant.retain(|place| sifted.iter().all(|(other, _)| other != place));
    while !sifted.is_empty() {
        let places: Vec<_> = sifted.iter().map(|(place, _)| *place).collect();
        let Some(job) = call_for(shard, id, destination, &places) else { break };
        let outcomes: Vec<_> = sifted.extract_if(.., |(place, _)| job.recipients.contains(place)).collect();
        shard.metrics.delivery.suppressed.add(outcomes.len() as u64);
        let key = name(shard, destination);
        let took = Duration::ZERO;
        let ended = Ended { outcomes: &outcomes, envelope: Some(envelope), took, tls: None, policy: None };
        outcomes::end(shard, &job, &key, &ended);
    }
    meant
}

/// Begins an attempt for some of them; none when another has taken them meanwhile, or their time has not come.
fn call_for(shard: &Shard, id: QueueId, destination: Destination, meant: &[u32]) -> Option<Job> {
    if meant.is_empty() || shard.is_still() || hands_out_nothing(shard) {
        return None;
    }
    let order = shard.queue.borrow_mut().on_called_for(id, destination, meant, facts::now());
    let Some(Order::Attempt { attempt, id, destination, recipients, number }) = order else { return None };
    Some(Job::new(shard, attempt, id, destination, recipients, number))
}

fn name(shard: &Shard, destination: Destination) -> Box<str> {
    shard.queue.borrow().name(destination).map_or_else(Box::default, Into::into)
}

/// A stop waits for what is under way.
struct Working<'a>(&'a Shard);

impl<'a> Working<'a> {
    fn begin(shard: &'a Shard) -> Self {
        shard.hops.workers.set(shard.hops.workers.get() + 1);
        Self(shard)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let shard = self.0;
        shard.hops.workers.set(shard.hops.workers.get() - 1);
        if shard.is_stopping() {
            shard.changed.notify_all();
        }
    }
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Messages that the client was asked to take.
    pub(crate) messages: u64,
    /// Recipients that it took them for.
    pub(crate) delivered: u64,
}

/// Sends over this connection, whose client is the server now, what comes; until nothing comes any more.
pub(crate) async fn carry(
    shard: &Rc<Shard>,
    socket: &mut Socket,
    parcels: mpsc::Receiver<Parcel>,
) -> Fetched {
    let open = OpenConnection::new(shard);
    let settings = shard.settings();
    let channel = if socket.tls_session().is_some() { Channel::Tls } else { Channel::Clear };
    // Whoever has come under TLS stays there; it is not for us to begin it now.
    let options = RouteOptions {
        chunking: Chunking::WhenOffered,
        transactions_max: u32::MAX,
        ..RouteOptions::default()
    };
    let mut client = Client::new(options.client(settings.hostname.as_str(), TlsLevel::None));
    let peer = client_address(socket.peer());
    let mut carrier = Carrier {
        shard,
        remote: Arc::new(Remote::relay(name_of(peer), peer.ip(), peer.port())),
        parcels,
        errand: None,
        fetched: Fetched::default(),
    };
    let mut talk = Talk::new();
    let timeout = |stage| settings.client_timeouts.of(stage);
    let mut action = client.on_connected(channel);
    loop {
        action = match action {
            Action::Read(stage) => talk.read(&mut client, socket, timeout(stage)).await,
            Action::StartTls => unreachable!("TLS is not asked for"),
            Action::Derive(_) => unreachable!("nobody logs in"),
            Action::SendContent(framing) => {
                let slices = talk.frame(framing, carrier.content(socket));
                let next = client.on_content_sent(&mut talk.out);
                talk.send(&mut client, socket, slices, next, timeout(Stage::Content)).await
            }
            Action::Finished(outcome) => {
                let offers = client.offers().copied().unwrap_or_default();
                let teller = |envelope: &Envelope| Teller::of(&offers, &envelope.handling, facts::now());
                carrier.finished(&outcome, teller);
                client.on_finished(&mut talk.out)
            }
            Action::Ready => match carrier.next(&client.offers().copied().unwrap_or_default()).await {
                Some(transaction) => client.on_transaction(transaction, &mut talk.out),
                None => client.on_quit(&mut talk.out),
            },
            Action::Close(_) => break,
        };
    }
    carrier.give_back();
    talk.end(socket, timeout(Stage::Quit)).await;
    drop(open);
    carrier.fetched
}

fn name_of(peer: SocketAddr) -> Box<str> {
    match peer.ip() {
        std::net::IpAddr::V4(v4) => format!("[{v4}]").into(),
        std::net::IpAddr::V6(v6) => format!("[IPv6:{v6}]").into(),
    }
}

struct Carrier<'a> {
    shard: &'a Shard,
    remote: Arc<Remote>,
    parcels: mpsc::Receiver<Parcel>,
    errand: Option<Errand>,
    fetched: Fetched,
}

/// The message that is being sent.
struct Errand {
    parcel: Parcel,
    /// Who has no outcome yet.
    remaining: Vec<u32>,
    ended: Vec<(u32, Outcome)>,
    began: Duration,
    tls: Option<String>,
    /// How often it was given to the client.
    given: u32,
    /// What is sent in the place of its content.
    converted: Option<Vec<Bytes>>,
}

impl Carrier<'_> {
    /// What is to be sent next; who was left out of the last transaction comes first.
    async fn next(&mut self, offers: &Offers) -> Option<Transaction> {
        // The client takes fewer recipients at a time than there may be of a message.
        const GIVEN_MAX: u32 = 1000;
        if self.errand.as_ref().is_some_and(|errand| errand.given >= GIVEN_MAX) {
            return None;
        }
        if self.errand.is_none() {
            if self.shard.is_stopping() {
                return None;
            }
            let parcel = self.parcels.recv().await?;
            self.fetched.messages += 1;
            let (remaining, began) = (parcel.recipients.clone(), ring::clock::now());
            self.errand = Some(Errand {
                parcel,
                remaining,
                ended: Vec::new(),
                began,
                tls: None,
                given: 0,
                converted: None,
            });
        }
        let errand = self.errand.as_mut()?;
        errand.given += 1;
        let envelope = &errand.parcel.envelope;
        let tls = match Demand::of(envelope.handling.tls, &envelope.reverse_path) {
            Demand::Required => envelope.handling.tls,
            Demand::None | Demand::Preferred | Demand::Waived => TlsDemand::None,
        };
        let mut transaction = transaction(envelope, &errand.remaining, errand.parcel.size, tls, None);
        let Parcel { id, content, .. } = &errand.parcel;
        let how = EightBitContent::default();
        errand.converted = conversions::fit(self.shard, how, offers, *id, &mut transaction, content).await;
        Some(transaction)
    }

    fn content(&mut self, socket: &Socket) -> &[Bytes] {
        let errand = self.errand.as_mut().expect("its content is asked for");
        errand.tls = socket.tls_session().map(|tls| tls.to_string());
        let content = errand.converted.as_ref().unwrap_or(&errand.parcel.content);
        self.shard.metrics.outbound.bytes.add(message::content::len(content) as u64);
        content
    }

    fn finished(&mut self, outcome: &TransactionOutcome, teller: impl Fn(&Envelope) -> Teller) {
        let errand = self.errand.as_mut().expect("the client was given it");
        let places = mem::take(&mut errand.remaining);
        let teller = teller(&errand.parcel.envelope);
        for (place, fate) in places.into_iter().zip(fates(outcome, &self.remote, teller)) {
            match fate {
                Fate::Ended(outcome) => errand.ended.push((place, outcome)),
                Fate::Remains => errand.remaining.push(place),
            }
        }
        if errand.remaining.is_empty() {
            self.give_back();
        }
    }

    /// Says to the core that keeps the message what became of it.
    fn give_back(&mut self) {
        let Some(Errand { parcel, remaining, mut ended, began, tls, .. }) = self.errand.take() else {
            return;
        };
        let delivered = ended.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Delivered(..)));
        self.fetched.delivered += delivered.count() as u64;
        if !ended.is_empty() {
            let text = "the connection ended before it was their turn";
            ended.extend(
                remaining.into_iter().map(|place| (place, outcomes::deferred(Status(4, 4, 2), text))),
            );
        }
        let took = ring::clock::now().saturating_sub(began);
        // Whoever keeps it is there as long as the server is.
        let _ = parcel.receipt.send(Receipt { outcomes: ended, took, tls });
    }
}
