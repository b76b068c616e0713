//! Connecting: to one host, and to others beside it that are as good when it takes its time (RFC 8305).
//!
//! `delivery` says who is as good. Here is who is there first; the others are let go, so that nothing is open which counts nowhere.

use std::{
    cell::Cell, future::poll_fn, net::IpAddr, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Duration,
};

use delivery::{Attempt, ConnectFailure, Endpoint, Family, Hop, Step, egress::Trouble};
use dns::{Answer, Question};
use ring::{ConnectOptions, Stream};

use crate::{
    egress::Outlet,
    outlet::{self, Unconnected},
    settings::Settings,
    shard::Shard,
};

/// Kinds of addresses that have led nowhere: no way from this host leads there, whatever the next hop.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Until when it is not tried first.
    v4: Cell<Duration>,
    v6: Cell<Duration>,
}

/// What became of a race.
pub(crate) enum Finish {
    /// This host is there.
    Connected(Hop, Stream),
    /// None is; this is next.
    Nobody(Step),
    /// The source that connections were to come from cannot be used.
    NoSource(Trouble),
}

/// What the site is charged with.
pub(crate) enum Told<'a> {
    /// A connection is begun beside another.
    Rival,
    /// There is none to one of its hosts.
    Failed(&'a ConnectFailure),
    /// None was tried to one of its hosts, whose family the source does not have.
    Beyond(IpAddr),
}

/// Why a host is not there.
enum Failed {
    /// It is not.
    Hop(ConnectFailure),
    /// No way leads from this host to addresses of its kind.
    NoWay(ConnectFailure),
    /// Our source has no address of its kind.
    Family,
    /// Our source cannot be used.
    Source(Trouble),
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

enum Event {
    Done(usize, Result<Stream, Failed>),
    Answers(Vec<Arc<Answer>>),
    Time,
}

/// A kind of addresses that leads nowhere is not tried first for so long: somebody may plug in a cable.
const NO_WAY: Duration = Duration::from_secs(600);
/// Whoever was slower is told so in order, if that takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Ways {
    fn of(&self, address: IpAddr) -> &Cell<Duration> {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// Which kind is to be tried first, where that is not what the route says.
    pub(crate) fn preferred(&self, family: Family, now: Duration) -> Family {
        let (no_v4, no_v6) = (now < self.v4.get(), now < self.v6.get());
        match (family, no_v4, no_v6) {
            (Family::PreferIpv6, false, true) => Family::PreferIpv4,
            (Family::PreferIpv4, true, false) => Family::PreferIpv6,
            (family, ..) => family,
        }
    }
}

/// Connects to a host, or to others beside it. What a site is to know of that is told on the way.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    (settings, outlet): (&Rc<Settings>, Option<&Rc<Outlet>>),
    attempt: &mut Attempt,
    first: Hop,
    tell: impl Fn(Told<'_>),
) -> Finish {
    let mut racers = vec![(first.clone(), connect(settings, outlet, first))];
    let mut asking: Option<Boxed<'_, Vec<Arc<Answer>>>> = None;
    let wait = || settings.attempt_delay.map(|delay| Box::pin(ring::sleep(delay)));
    let mut timer = wait();
    loop {
        let event = poll_fn(|context| {
            for (place, (_, connecting)) in racers.iter_mut().enumerate() {
                if let Poll::Ready(result) = connecting.as_mut().poll(context) {
                    return Poll::Ready(Event::Done(place, result));
                }
            }
            if let Some(Poll::Ready(answers)) = asking.as_mut().map(|asking| asking.as_mut().poll(context)) {
                return Poll::Ready(Event::Answers(answers));
            }
            match timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
                Some(Poll::Ready(())) => Poll::Ready(Event::Time),
                Some(Poll::Pending) | None => Poll::Pending,
            }
        })
        .await;
        let step = match event {
            Event::Done(place, result) => {
                let (hop, _) = racers.swap_remove(place);
                let ways = &shard.hops.ways;
                match result {
                    Ok(stream) => {
                        if let Some(address) = hop.remote.address() {
                            ways.of(address).set(Duration::ZERO);
                        }
                        attempt.on_connected(&hop);
                        racers.into_iter().for_each(|(_, connecting)| let_go(connecting));
                        return Finish::Connected(hop, stream);
                    }
                    Err(failed) => {
                        shard.metrics.outbound.failed.one();
                        let failure = match failed {
                            Failed::Hop(failure) => {
                                tell(Told::Failed(&failure));
                                failure
                            }
                            Failed::NoWay(failure) => {
                                if let Some(address) = hop.remote.address() {
                                    ways.of(address).set(ring::clock::now() + NO_WAY);
                                }
                                failure
                            }
                            Failed::Family => {
                                if let Some(address) = hop.remote.address() {
                                    tell(Told::Beyond(address));
                                }
                                ConnectFailure::Other("the source has no address of its family".into())
                            }
                            Failed::Source(trouble) => {
                                racers.into_iter().for_each(|(_, connecting)| let_go(connecting));
                                return Finish::NoSource(trouble);
                            }
                        };
                        attempt.on_connect_failed(&hop, &failure)
                    }
                }
            }
            Event::Answers(answers) => {
                asking = None;
                attempt.on_answers(&answers)
            }
            Event::Time => attempt.rival(),
        };
        timer = None;
        match step {
            Step::Await => {}
            // Whoever is next when nobody is left is looked at as the first one was.
            step @ (Step::Connect(_) | Step::Ask(_) | Step::AskPolicy(..) | Step::End(_))
                if racers.is_empty() =>
            {
                return Finish::Nobody(step);
            }
            Step::Connect(hop) => {
                shard.metrics.outbound.rivals.one();
                tell(Told::Rival);
                racers.push((hop.clone(), connect(settings, outlet, hop)));
                timer = wait();
            }
            Step::Ask(questions) => asking = Some(Box::pin(ask(shard, questions))),
            step @ (Step::AskPolicy(..) | Step::End(_)) => {
                unreachable!("connections are on their way, and not {step:?}")
            }
        }
    }
}

async fn ask(shard: &Shard, questions: Vec<Question>) -> Vec<Arc<Answer>> {
    let asked: Vec<_> = questions.iter().map(|question| shard.resolve.ask(question)).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        answers.push(answer.await);
    }
    answers
}

fn connect(
    settings: &Settings,
    outlet: Option<&Rc<Outlet>>,
    hop: Hop,
) -> Boxed<'static, Result<Stream, Failed>> {
    let timeout = settings.client_timeouts.connect;
    let to = match &hop.remote.endpoint {
        Endpoint::Tcp(to) => *to,
        // No source has a part in what does not leave the host.
        Endpoint::Unix(path) => {
            let path = path.clone();
            return Box::pin(async move {
                let connected = Stream::connect_unix(&path, timeout).await;
                connected.map_err(|error| Failed::Hop(outlet::failure(&error)))
            });
        }
        Endpoint::Pool => unreachable!("what the pool delivers needs no connection of ours"),
    };
    if let Some(outlet) = outlet.cloned() {
        return Box::pin(async move {
            outlet::connect(&outlet.source, to, timeout).await.map_err(|error| match error {
                // Which ways there are is for the source to say, and not for this host.
                Unconnected::Hop(failure) => Failed::Hop(failure),
                Unconnected::Family => Failed::Family,
                Unconnected::Source(trouble) => Failed::Source(trouble),
            })
        });
    }
    Box::pin(async move {
        let options = ConnectOptions { local: hop.source, timeout };
        Stream::connect(to, options).await.map_err(|error| {
            let failure = outlet::failure(&error);
            let is_ours = error.kind() == std::io::ErrorKind::NetworkUnreachable;
            if is_ours { Failed::NoWay(failure) } else { Failed::Hop(failure) }
        })
    })
}

/// Whoever is there at the same moment hears that nothing will come (RFC 5321 has no word for that before the greeting); a
/// connection that is still on its way is taken back.
fn let_go(mut connecting: Boxed<'static, Result<Stream, Failed>>) {
    ring::spawn(async move {
        let now = poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context))).await;
        if let Poll::Ready(Ok(stream)) = now {
            stream.close_gently(PATIENCE).await;
        }
    });
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_leads_nowhere_comes_second() {
        let ways = Ways::default();
        let now = Duration::from_secs(5);
        assert_eq!(ways.preferred(Family::PreferIpv6, now), Family::PreferIpv6);
        ways.of("2001:db8::1".parse().unwrap()).set(now + NO_WAY);
        assert_eq!(ways.preferred(Family::PreferIpv6, now), Family::PreferIpv4);
        assert_eq!(ways.preferred(Family::PreferIpv4, now), Family::PreferIpv4);
        assert_eq!(ways.preferred(Family::OnlyIpv6, now), Family::OnlyIpv6);
        assert_eq!(ways.preferred(Family::PreferIpv6, now + NO_WAY), Family::PreferIpv6);
        // Where neither leads anywhere, it is as the route says.
        ways.of("192.0.2.1".parse().unwrap()).set(now + NO_WAY);
        assert_eq!(ways.preferred(Family::PreferIpv6, now), Family::PreferIpv6);
    }
}
