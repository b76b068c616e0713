//! Who comes for the first time is asked to come again (RFC 6647): the facts, and what becomes of a recipient.

use std::{rc::Rc, time::Duration};

use mail::{Address, ReversePath};
use policy::{Excuses, Newcomer, Treat};
use smtp::{Refusal, Verdict};
use strangers::{GreyRules, Met, Origin};
use trust::{Case, Client, EnvelopeVerdict, IprevResult, Judged, Limits};
use watch::{
    Greylisting,
    events::{GreylistPassed, Greylisted},
};

use crate::{
    authenticity, facts,
    screening::{Screened, Stranger},
    settings::Door,
    shard::Shard,
};

/// What holds for greylisting at a listener.
#[derive(Debug)]
pub(crate) struct Grey {
    rules: GreyRules,
    excuses: Excuses,
    score_min: Option<i32>,
    dry_run: bool,
}

/// How it stands with a transaction.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// What the DNS says of the sender, once it was needed.
    envelope: Option<EnvelopeVerdict>,
    /// How long the client is to wait, for the reply.
    wait: Option<Duration>,
    /// The null reverse-path: it is put off at DATA.
    at_data: bool,
}

impl Grey {
    /// As the configuration has it; none: nobody is greylisted.
    pub(crate) fn new(config: &config::Greylist) -> Option<Self> {
        let config::Greylist { delay, window, lifetime, clients_after, score_min, dry_run, .. } = *config;
        config.enabled.then(|| Self {
            rules: GreyRules { delay, window, lifetime, client_after: clients_after },
            excuses: Excuses::new(config),
            score_min,
            dry_run,
        })
    }
}

impl Waiting {
    /// May the mail data come? With the null reverse-path it is asked here: whoever looks whether there is an address does not come
    /// so far, and gets an answer.
    pub(crate) const fn at_data(&self) -> Verdict {
        if self.at_data { Err(Refusal::Greylisted) } else { Ok(()) }
    }

    /// What there is to say beside a refusal: our own words for it are those that we understand ourselves.
    pub(crate) fn when(&self) -> String {
        self.wait.map_or_else(String::new, |wait| format!("in {} seconds", wait.as_secs().max(1)))
    }
}

/// Whether mail of a stranger goes to a recipient now.
pub(crate) async fn greylist(
    shard: &Rc<Shard>,
    door: &Door,
    stranger: Stranger<'_>,
    screened: &mut Screened,
    recipient: &Address,
) -> Verdict {
    let (Some(grey), Some(address), Some(sender)) = (&door.grey, stranger.address, stranger.sender) else {
        return Ok(());
    };
    if grey.score_min.is_some_and(|min| screened.score() < min) {
        return Ok(());
    }
    let counted = &shard.metrics.inbound.greylisted;
    if screened.is_vouched_for() {
        counted.of(Greylisting::Excused).one();
        return Ok(());
    }
    let greylist = shard.strangers.greylist();
    let network = shard.strangers.origin(address);
    let keys = |origin: Origin<'_>| (greylist.triplet(origin, sender, recipient), greylist.client(origin));
    let (triplet, client) = keys(network);
    let met = match greylist.known(triplet, client, &grey.rules, facts::now()) {
        Some(met) => met,
        None => match treat(shard, door, grey, stranger, &mut screened.waiting).await {
            Treat::Excused => {
                counted.of(Greylisting::Excused).one();
                return Ok(());
            }
            Treat::ByDomain => {
                let (triplet, client) = keys(Origin::Domain(domain_of(stranger)));
                greylist.meet(triplet, client, &grey.rules, facts::now())
            }
            Treat::ByNetwork => greylist.meet(triplet, client, &grey.rules, facts::now()),
        },
    };
    counted
        .of(match met {
            Met::New(_) => Greylisting::New,
            Met::Early(_) => Greylisting::Early,
            Met::Passed(_) => Greylisting::Passed,
            Met::Known => Greylisting::Known,
            Met::KnownClient => Greylisting::Client,
        })
        .one();
    let from = sender.address().map_or("", |address| address.as_str());
    let (at, to) = (ring::clock::unix_micros(), recipient.as_str());
    if let Met::Passed(after) = met {
        GreylistPassed { client: &address, from, to, after }.emit(at);
    }
    let Some(wait) = met.wait() else { return Ok(()) };
    Greylisted { client: &address, from, to, wait, dry_run: if grey.dry_run { "yes" } else { "no" } }
        .emit(at);
    if grey.dry_run {
        return Ok(());
    }
    screened.waiting.wait = Some(wait);
    match sender {
        ReversePath::Null => {
            screened.waiting.at_data = true;
            Ok(())
        }
        ReversePath::Address(_) => Err(Refusal::Greylisted),
    }
}

/// How somebody is treated whom nobody has seen.
async fn treat(
    shard: &Rc<Shard>,
    door: &Door,
    grey: &Grey,
    stranger: Stranger<'_>,
    waiting: &mut Waiting,
) -> Treat {
    if !grey.excuses.want_facts() {
        return Treat::ByNetwork;
    }
    let Some(EnvelopeVerdict { iprev, mail_from, .. }) = envelope(shard, door, stranger, waiting).await
    else {
        return Treat::ByNetwork;
    };
    let name = iprev.name.as_ref().filter(|_| iprev.result == IprevResult::Pass);
    let name = name.or(stranger.name).map(dns::Name::as_str);
    grey.excuses.of(Newcomer { domain: domain_of(stranger), spf: mail_from.result, name })
}

/// What SPF and the names of its address say of a client, found out once for a transaction.
pub(crate) async fn envelope<'a>(
    shard: &Rc<Shard>,
    door: &Door,
    stranger: Stranger<'_>,
    waiting: &'a mut Waiting,
) -> Option<&'a EnvelopeVerdict> {
    if waiting.envelope.is_none() {
        waiting.envelope = judge(shard, door, stranger).await;
    }
    waiting.envelope.as_ref()
}

/// Finds it out. What is not known in time is a temporary failure, which is good for
/// nothing here.
async fn judge(shard: &Rc<Shard>, door: &Door, stranger: Stranger<'_>) -> Option<EnvelopeVerdict> {
    let client = Client {
        address: stranger.address?,
        helo: stranger.ehlo.unwrap_or_default().to_owned(),
        mail_from: stranger.sender?.clone(),
    };
    let settings = shard.settings();
    let time_max = door.strangers.lookup_time_max;
    let limits = Limits { time_max, ..authenticity::limits(&door.authentication, door) };
    let mut case = Case::open(client, settings.hostname.as_str(), limits, facts::now(), ring::clock::now());
    loop {
        match case.judge_envelope(ring::clock::now()) {
            Judged::Known(verdict) => return Some(verdict),
            Judged::Missing(questions) => {
                let deadline = case.deadline();
                shard
                    .resolve
                    .ask_all(questions, deadline, |question, answer| case.learn(question, answer))
                    .await;
            }
        }
    }
}

/// The domain that SPF speaks of: of the null reverse-path, the name in EHLO (RFC 7208 §2.4).
fn domain_of(stranger: Stranger<'_>) -> &str {
    let sender = stranger.sender.and_then(ReversePath::address).map(Address::domain_str);
    sender.or(stranger.ehlo).unwrap_or_default()
}
