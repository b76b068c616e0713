//! Mail that leaves by no connection of ours: the pool runs the program, or asks the service.
//!
//! A message is handed over for some of its recipients at a time, as many as the program or the service takes at once. What comes
//! back is an outcome as of any next hop.

use std::{collections::VecDeque, mem, net::IpAddr, sync::Arc};

use bridge::{Authorization, Delivered, Delivery, Hidden, PoolErrand};
use delivery::{Demand, Means, Outcome, Place, Remote, Service};
use dns::{Answer, Kind, Outcome as Dns, Question, Records};
use mail::{DeliverByMode, Status};
use tokio::sync::oneshot;

use super::{Flight, Ticket, Worker};
use crate::{facts, logins, outcomes::deferred, throttles};

/// What a service is asked with.
#[derive(Clone, Default)]
struct Prepared {
    addresses: Vec<IpAddr>,
    authorization: Option<Authorization>,
    secret: Option<Hidden>,
}

/// What became of a message for some of its recipients.
enum Handed {
    /// This, for each of them.
    Ended(Delivered),
    /// Nobody knows: the pool ends.
    Lost,
}

impl Worker<'_> {
    /// Has the pool deliver what was taken on.
    pub(super) async fn dispatch(&mut self, means: &Arc<Means>) {
        let remote = means.remote();
        while let Some(mut flight) = self.flights.pop_front() {
            let prepared = self.prepare(means, &flight).await;
            let at_once = means.recipients_max().min(self.recipients_max).max(1);
            while !flight.remaining.is_empty() {
                let others = flight.remaining.split_off(flight.remaining.len().min(at_once));
                let places = mem::replace(&mut flight.remaining, others);
                let handed = match &prepared {
                    Ok(prepared) => self.hand_over(means, &remote, &flight, &places, prepared).await,
                    Err(outcome) => Handed::Ended(Delivered { outcome: outcome.clone(), is_answer: false }),
                };
                self.count(means, &handed);
                match handed {
                    Handed::Lost => {
                        flight.remaining.extend(places);
                        return self.give_back(VecDeque::from([flight]));
                    }
                    Handed::Ended(Delivered { outcome, is_answer: true }) => {
                        self.connected = true;
                        self.lane.on_answered();
                        flight.job.ticket.iter_mut().for_each(Ticket::keep);
                        flight.ended.extend(places.into_iter().map(|place| (place, outcome.clone())));
                    }
                    // Others of the message would fare the same, and so would the next message.
                    Handed::Ended(Delivered { outcome, is_answer: false }) => {
                        flight.remaining.extend(places);
                        throttles::on_unconnected(
                            self.shard,
                            self.lane,
                            &outcome.report().diagnostic.to_string(),
                        );
                        self.flights.push_front(flight);
                        return self.give_up(&outcome);
                    }
                }
            }
            let judgements = self.end(flight);
            throttles::on_ended(self.shard, self.lane, &judgements);
        }
    }

    fn count(&self, means: &Means, handed: &Handed) {
        let metrics = &self.shard.metrics.outbound;
        let metrics = match means {
            Means::Program(_) => &metrics.programs,
            Means::Service(_) => &metrics.services,
            Means::Reports => &metrics.reports,
        };
        match handed {
            Handed::Lost | Handed::Ended(Delivered { is_answer: false, .. }) => metrics.unreached.one(),
            Handed::Ended(Delivered { outcome: Outcome::Delivered(..), .. }) => metrics.delivered.one(),
            Handed::Ended(Delivered { outcome: Outcome::Deferred(_), .. }) => metrics.deferred.one(),
            Handed::Ended(Delivered { outcome: Outcome::Failed(_), .. }) => metrics.failed.one(),
        }
    }

    /// What a request needs besides the message.
    async fn prepare(&self, means: &Means, flight: &Flight) -> Result<Prepared, Outcome> {
        // Delivered is delivered; but not what was to be there before now (RFC 2852 §4.1.3).
        let by = flight.message.envelope.handling.deliver_by;
        if by.is_some_and(|by| by.mode == DeliverByMode::Return && by.deadline <= facts::now()) {
            let text = "the time by which the message was to be delivered has passed";
            return Err(Outcome::failed(Status(5, 4, 7), text));
        }
        let service = match means {
            // It does not leave the host.
            Means::Program(_) | Means::Reports => return Ok(Prepared::default()),
            Means::Service(service) => service,
        };
        let addresses = self.addresses(service).await?;
        let is_local = addresses.iter().all(IpAddr::is_loopback);
        if self.demand == Demand::Required && !service.url.secure && !is_local {
            // "REQUIRETLS support required" (RFC 8689 §4.2.1).
            let text = "REQUIRETLS: the service is asked in clear";
            return Err(Outcome::failed(Status(5, 7, 30), text));
        }
        let authorization = match &service.login {
            Some(name) => {
                let credential = self.settings.credentials.get(name);
                let credential =
                    credential.ok_or_else(|| deferred(Status(4, 7, 8), "its credential is gone"))?;
                let told = logins::authorization(self.shard, credential).await;
                Some(told.map_err(|why| deferred(Status(4, 7, 8), &why))?)
            }
            None => None,
        };
        let secret = match &service.secret {
            Some(file) => {
                let line = logins::secret_line(file.clone()).await;
                Some(line.map_err(|why| deferred(Status(4, 7, 8), &why))?)
            }
            None => None,
        };
        Ok(Prepared { addresses, authorization, secret })
    }

    async fn addresses(&self, service: &Service) -> Result<Vec<IpAddr>, Outcome> {
        let name = match &service.url.host {
            Place::Address(address) => return Ok(vec![*address]),
            Place::Name(name) => name,
            Place::Unix(_) => return Ok(Vec::new()),
        };
        let question = |kind| Question { name: name.clone(), kind };
        let asked = [Kind::Aaaa, Kind::A].map(|kind| self.shard.resolve.ask(&question(kind)));
        let (mut addresses, mut failure) = (Vec::new(), None);
        for answer in asked {
            let answer: Arc<Answer> = answer.await;
            match &answer.outcome {
                Dns::Found(Records::Addresses(found)) => addresses.extend(found),
                Dns::TempFail(why) => failure = Some(why.to_string()),
                Dns::NoData | Dns::NxDomain | Dns::Found(_) => {}
            }
        }
        match (addresses.is_empty(), failure) {
            (false, _) => Ok(addresses),
            (true, Some(why)) => {
                Err(deferred(Status(4, 4, 3), &format!("looking up the addresses of {name}: {why}")))
            }
            (true, None) => Err(deferred(Status(4, 4, 4), &format!("the service {name} has no address"))),
        }
    }

    async fn hand_over(
        &self,
        means: &Arc<Means>,
        remote: &Arc<Remote>,
        flight: &Flight,
        places: &[u32],
        prepared: &Prepared,
    ) -> Handed {
        let message = &flight.message;
        let mut envelope = mail::Envelope::clone(&message.envelope);
        envelope.reverse_path = self.reverse_path(flight);
        let (outcome, came) = oneshot::channel();
        let Prepared { addresses, authorization, secret } = prepared.clone();
        let delivery = Delivery {
            id: flight.job.id,
            means: means.clone(),
            remote: remote.clone(),
            envelope,
            recipients: places.to_vec(),
            content: message.content.clone(),
            addresses,
            authorization,
            secret,
            now: facts::now(),
            outcome,
        };
        self.shard.metrics.outbound.bytes.add(message.size);
        if self.shard.deliveries.send(PoolErrand::Deliver(Box::new(delivery))).await.is_err() {
            return Handed::Lost;
        }
        came.await.map_or(Handed::Lost, Handed::Ended)
    }
}
