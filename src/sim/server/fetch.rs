//! Visits: a client has come for held mail, and is the server now.

use std::{collections::HashSet, mem, rc::Rc, sync::Arc};

use delivery::{Fate, Outcome, Remote, RouteOptions, Routes, Teller, TlsLevel, fates};
use mail::{Domain, QueueId, Status};
use queue::{Cursor, Destination, Filter, Order, State};
use smtp::{
    Refusal,
    client::{Timeouts, Transaction, TransactionOutcome},
};

use super::{
    By, Message, Running, Server,
    outbound::{Job, deferred},
};
use crate::{
    calling::{Calling, Want},
    names,
    world::{LinkId, Side, World},
};

pub(super) struct Visit {
    calling: Calling,
    /// What it is for; none stands for all that it may have.
    domains: Vec<Domain>,
    /// What it was asked to take: nothing is given to it twice.
    seen: HashSet<QueueId>,
    errand: Option<Errand>,
}

/// The message that is being sent.
struct Errand {
    job: Job,
    message: Rc<Message>,
    /// Who has no outcome yet.
    remaining: Vec<u32>,
    ended: Vec<(u32, Outcome)>,
}

impl Server {
    /// Whether there is anything to be had.
    pub(super) fn called_for(&self, world: &World, domains: &[Domain]) -> Result<(), Refusal> {
        let theirs = |domain: &Domain| names::CUSTOMERS.contains(&domain.as_str());
        if !domains.iter().all(theirs) {
            return Err(Refusal::FetchNotAllowed);
        }
        if self.missing.is_some() || self.hands_out_nothing() {
            return Err(Refusal::FetchUnavailable);
        }
        self.held_for(world, domains, &HashSet::new()).map(drop).ok_or(Refusal::NothingToFetch)
    }

    fn hands_out_nothing(&self) -> bool {
        self.stopping || self.has_failed()
    }

    pub(super) fn begin_visit(&mut self, world: &mut World, link: LinkId, domains: Vec<Domain>) {
        let options = RouteOptions { transactions_max: u32::MAX, ..RouteOptions::default() };
        let calling = Calling::new(options.client(self.config.hostname.as_str(), TlsLevel::None));
        world.ledger.figures.visits_at_once += u64::from(!self.visits.is_empty());
        self.visits.insert(link, Visit { calling, domains, seen: HashSet::new(), errand: None });
        self.visit_goes_on(world, link);
    }

    pub(super) fn visit_heard(&mut self, world: &mut World, link: LinkId, bytes: &[u8]) {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.calling.on_bytes(bytes);
            self.visit_goes_on(world, link);
        }
    }

    pub(super) fn visit_closed(&mut self, world: &mut World, link: LinkId) {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.calling.on_closed();
            self.visit_goes_on(world, link);
        }
    }

    pub(super) fn visit_timed_out(&mut self, world: &mut World, link: LinkId) {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.calling.on_timeout();
            self.visit_goes_on(world, link);
        }
    }

    fn visit_goes_on(&mut self, world: &mut World, link: LinkId) {
        let Some(mut visit) = self.visits.remove(&link) else { return };
        loop {
            match visit.calling.want() {
                Want::Bytes(stage) => {
                    world.send(link, Side::Answerer, mem::take(&mut visit.calling.out));
                    world.set_patience(link, Side::Answerer, Timeouts::default().of(stage));
                    self.visits.insert(link, visit);
                    return;
                }
                Want::Content(framing) => {
                    let errand = visit.errand.as_ref().expect("its content is asked for");
                    visit.calling.send_content(framing, &errand.message.content);
                }
                Want::Finished(outcome) => {
                    visit.calling.on_finished();
                    self.errand_finished(world, &mut visit, &outcome);
                }
                Want::Transaction => match self.next_errand(world, &mut visit) {
                    Some(transaction) => visit.calling.give(transaction),
                    None => visit.calling.quit(),
                },
                Want::Close(_) => {
                    world.send(link, Side::Answerer, mem::take(&mut visit.calling.out));
                    world.close(link, Side::Answerer);
                    return self.give_back(world, &mut visit);
                }
            }
        }
    }

    /// What is to be sent next; who was left out of the last transaction comes first.
    fn next_errand(&mut self, world: &mut World, visit: &mut Visit) -> Option<Transaction> {
        while visit.errand.is_none() {
            if self.hands_out_nothing() {
                return None;
            }
            let (id, destination, meant) = self.held_for(world, &visit.domains, &visit.seen)?;
            visit.seen.insert(id);
            let message = self.message(world, id).expect("it is queued");
            let order = self.queue.on_called_for(id, destination, &meant, world.wall());
            let Some(Order::Attempt { attempt, id, destination, recipients, number }) = order else {
                continue;
            };
            world.ledger.attempted(id, &recipients);
            world.ledger.figures.called_for += 1;
            self.begin_attempt(
                attempt,
                Running { id, destination, places: recipients.clone(), by: By::Client },
            );
            let remaining = recipients.to_vec();
            let job = Job { attempt, id, destination, recipients, number };
            visit.errand = Some(Errand { job, message, remaining, ended: Vec::new() });
        }
        let errand = visit.errand.as_ref()?;
        let envelope = &errand.message.envelope;
        Some(Transaction {
            reverse_path: envelope.reverse_path.clone(),
            recipients: errand.remaining.iter().map(|at| envelope.recipients[*at as usize].clone()).collect(),
            size: errand.message.size,
            body: envelope.body,
            unconverted: None,
            utf8: envelope.utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.clone(),
            by: None,
            priority: envelope.handling.priority,
            tls: mail::TlsDemand::None,
            upstream: None,
        })
    }

    fn errand_finished(&mut self, world: &mut World, visit: &mut Visit, outcome: &TransactionOutcome) {
        let errand = visit.errand.as_mut().expect("the client was given it");
        let remote = Arc::new(Remote::relay("[192.0.2.77]".into(), names::CUSTOMER, 40_000));
        let places = mem::take(&mut errand.remaining);
        for (place, fate) in places.into_iter().zip(fates(outcome, &remote, Teller::NextHop)) {
            match fate {
                Fate::Ended(outcome) => {
                    let delivered = matches!(outcome, Outcome::Delivered(..));
                    world.ledger.figures.fetched += u64::from(delivered);
                    errand.ended.push((place, outcome));
                }
                Fate::Remains => errand.remaining.push(place),
            }
        }
        if errand.remaining.is_empty() {
            self.give_back(world, visit);
        }
    }

    /// Whoever has no outcome when the visit ends was not tried; a message of which nobody was tried is as before.
    fn give_back(&mut self, world: &mut World, visit: &mut Visit) {
        let Some(Errand { job, remaining, mut ended, .. }) = visit.errand.take() else { return };
        if ended.is_empty() {
            return self.postpone(world, job);
        }
        let outcome = deferred(Status(4, 4, 2), "the connection ended before it was their turn");
        ended.extend(remaining.into_iter().map(|place| (place, outcome.clone())));
        self.end(world, &job, &ended);
    }

    /// A message that waits behind a route that holds it, and who of its recipients is meant.
    fn held_for(
        &self,
        world: &World,
        domains: &[Domain],
        seen: &HashSet<QueueId>,
    ) -> Option<(QueueId, Destination, Vec<u32>)> {
        let theirs = |domain: &Domain| {
            names::CUSTOMERS.contains(&domain.as_str()) && (domains.is_empty() || domains.contains(domain))
        };
        let sites = self.queue.list_destinations(Cursor::default(), 100).items;
        let holding = sites
            .into_iter()
            .filter(|site| site.counts.held + site.counts.deferred > 0 && Routes::is_hold_key(&site.name));
        for destination in holding.map(|site| site.destination) {
            let destinations = [destination];
            let filter = Filter { destinations: Some(&destinations), ..Filter::default() };
            let mut next = Some(Cursor::default());
            while let Some(cursor) = next {
                let page = self.queue.list(&filter, cursor, 100);
                next = page.next;
                for id in page.items.into_iter().map(|group| group.id).filter(|id| !seen.contains(id)) {
                    let envelope = &self.message(world, id).expect("it is queued").envelope;
                    let states = self.queue.states(id).unwrap_or_default();
                    let held = states
                        .into_iter()
                        .filter(|state| matches!(state.state, State::Held | State::Deferred))
                        .filter(|state| state.destination == destination);
                    let meant: Vec<_> = held
                        .map(|state| state.recipient)
                        .filter(|place| theirs(&envelope.recipients[*place as usize].address.domain()))
                        .collect();
                    if !meant.is_empty() {
                        return Some((id, destination, meant));
                    }
                }
            }
        }
        None
    }
}
