//! Domains that we send for are looked at as mail testers do: what is missing is looked up, fetched and connected to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use admin::{CheckRequest, Deliverability};
use arc_swap::ArcSwap;
use bridge::{Door, Evidence, IndicatorSource};
use deliverability::{
    Check, Checkup, Errands, Finding, Gathered, PictureErrand, PictureSeen, Plan, Report, Severity,
};
use delivery::sts::Policy;
use dns::{Answer, Failure, Name, Question};
use mail::Timestamp;
use tls::{ClientConfig, Judge};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use trust::{BimiPlace, Judged};
use watch::{Registry, events::DeliverabilityChanged};

use crate::{
    Stub,
    https::{self, Target},
    indicators::{self, IndicatorFetching},
    mail_host::{self, Looking},
};

/// How domains are looked at: exchanged at a reload.
#[derive(Clone)]
pub struct Checking {
    /// What there is to say of any domain.
    pub plans: Arc<dyn Fn(&Name) -> Plan + Send + Sync>,
    /// Those that are looked at by and by.
    pub domains: Vec<Name>,
    /// How often.
    pub interval: Duration,
    /// How long a host may take.
    pub patience: Duration,
    /// The port where policies are.
    pub policy_port: u16,
    /// As what we greet.
    pub ehlo: String,
    /// By which policies are fetched.
    pub verified: Arc<ClientConfig>,
    /// How its picture is.
    pub indicators: IndicatorFetching,
    /// By which hosts are looked at, whatever their certificate,
    pub lenient: Arc<ClientConfig>,
    /// and what that is worth.
    pub judge: Judge,
}

/// Whoever answers questions.
#[derive(Debug)]
pub enum Asking {
    /// A shard.
    Door(Door),
    /// Ourselves.
    Own(Box<Stub>),
}

/// Questions to a shard at once.
const QUESTIONS_MAX: usize = 64;
/// Domains that are looked at at once, of those that operators ask for.
const CHECKS_MAX: usize = 4;
/// A host has no more addresses that are tried.
const ADDRESSES_MAX: usize = 4;
/// Hosts that are connected to at once.
const HOSTS_MAX: usize = 4;
/// Whether the configuration is another is seen so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is found out when all begin at once is found out by and by.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at one domain.
pub async fn check_domain(checking: &Checking, domain: &Name, mut asking: Asking, at: Timestamp) -> Report {
    let began = Instant::now();
    let plan = (checking.plans)(domain);
    let port = plan.port;
    let mut checkup = Checkup::open(plan, at, Duration::ZERO);
    let errands = loop {
        match checkup.errands(began.elapsed()) {
            Judged::Known(errands) => break errands,
            Judged::Missing(questions) => learn(&mut checkup, &mut asking, questions, began).await,
        }
    };
    checkup.bring(gather(checking, errands, port, at).await);
    loop {
        match checkup.judge(began.elapsed()) {
            Judged::Known(report) => return report,
            Judged::Missing(questions) => learn(&mut checkup, &mut asking, questions, began).await,
        }
    }
}

/// Asks all of these; those that have no answer when the time is over have none.
async fn learn(checkup: &mut Checkup, asking: &mut Asking, questions: Vec<Question>, began: Instant) {
    let deadline = began + checkup.deadline();
    let answers = tokio::time::timeout_at(deadline, asking.ask_all(questions)).await;
    for (question, answer) in answers.unwrap_or_default() {
        checkup.learn(question, answer);
    }
}

impl Asking {
    async fn ask_all(&mut self, questions: Vec<Question>) -> Vec<(Question, Arc<Answer>)> {
        let door = match self {
            Self::Own(stub) => return stub.ask_all(questions).await,
            Self::Door(door) => door.clone(),
        };
        let (places, mut tasks) = (Arc::new(Semaphore::new(QUESTIONS_MAX)), JoinSet::new());
        for question in questions {
            let (door, places) = (door.clone(), places.clone());
            tasks.spawn(async move {
                let _place = places.acquire().await;
                let answer = door.resolve(question.clone()).await;
                // Nobody answers any more.
                let answer =
                    answer.unwrap_or_else(|_| Arc::new(Answer::failed(Failure::Unusable, Duration::ZERO)));
                (question, answer)
            });
        }
        let mut answers = Vec::with_capacity(tasks.len());
        while let Some(answer) = tasks.join_next().await {
            answers.extend(answer.ok());
        }
        answers
    }
}

/// Fetches and connects.
async fn gather(checking: &Checking, errands: Errands, port: u16, at: Timestamp) -> Gathered {
    let since_1970 = Duration::from_secs(at.secs());
    let policy = async {
        let errand = errands.policy?;
        let place = |address: &std::net::IpAddr| SocketAddr::new(*address, checking.policy_port);
        let target = Target {
            host: errand.host.to_string(),
            addresses: errand.addresses.iter().take(ADDRESSES_MAX).map(place).collect(),
            tls: checking.verified.clone(),
            patience: checking.patience,
            body_max: Policy::SIZE_MAX,
        };
        let body = https::get_text(&target, "/.well-known/mta-sts.txt").await;
        Some(body.map_err(|error| error.to_string()))
    };
    let hosts = async {
        let (places, mut tasks) = (Arc::new(Semaphore::new(HOSTS_MAX)), JoinSet::new());
        for (name, addresses) in errands.hosts {
            let looking = Looking {
                lenient: checking.lenient.clone(),
                judge: checking.judge.clone(),
                patience: checking.patience,
                ehlo: checking.ehlo.clone(),
            };
            let places = places.clone();
            tasks.spawn(async move {
                let _place = places.acquire().await;
                let addresses: Vec<_> = addresses
                    .into_iter()
                    .take(ADDRESSES_MAX)
                    .map(|address| SocketAddr::new(address, port))
                    .collect();
                let probe = mail_host::look(&looking, name.as_str(), &addresses, since_1970).await;
                (name, probe)
            });
        }
        let mut probes = BTreeMap::new();
        while let Some(probe) = tasks.join_next().await {
            probes.extend(probe.ok());
        }
        probes
    };
    let picture = async {
        let PictureErrand { location, evidence } = errands.picture?;
        let source = |(place, addresses): (BimiPlace, Vec<std::net::IpAddr>)| {
            let source = IndicatorSource::new(place.host().clone(), place.port(), place.target().into());
            IndicatorSource { addresses, ..source }
        };
        let indicators = &checking.indicators;
        let evidence = evidence.filter(|_| indicators.marks.believes_somebody());
        let (location, evidence) = (location.map(source), evidence.map(source));
        if (&location, &evidence) == (&None, &None) {
            return None;
        }
        let found = indicators::look(indicators, location.as_ref(), evidence.as_ref(), at).await;
        let names = |evidence| match evidence {
            Evidence::Unnamed => None,
            Evidence::Good(names) => Some(names.into_iter().map(Into::into).collect()),
        };
        let seen = found.map(|(found, _)| PictureSeen { names: names(found.evidence) });
        Some(seen.map_err(|failure| failure.reason.into()))
    };
    let (policy, hosts, picture) = tokio::join!(policy, hosts, picture);
    Gathered { policy, hosts, picture }
}

/// Looks at the domains of the configuration by and by, and at once at those that operators ask for.
pub(crate) async fn run(
    door: Door,
    checking: Arc<ArcSwap<Checking>>,
    known: Deliverability,
    mut requests: mpsc::Receiver<CheckRequest>,
    registry: Arc<Registry>,
    clock: fn() -> Timestamp,
) {
    let places = Arc::new(Semaphore::new(CHECKS_MAX));
    let by_and_by =
        tokio::spawn(regularly(door.clone(), checking.clone(), known.clone(), registry.clone(), clock));
    while let Some(CheckRequest { domain, reply }) = requests.recv().await {
        // Whoever asks for what is no name of the DNS gets no answer.
        let Ok(domain) = Name::parse(domain.as_str()) else { continue };
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (door, checking, known, registry) =
            (door.clone(), checking.load_full(), known.clone(), registry.clone());
        tokio::spawn(async move {
            let report = check_domain(&checking, &domain, Asking::Door(door), clock()).await;
            drop(place);
            if checking.domains.contains(&domain) {
                keep(&known, &registry, report.clone(), clock());
            }
            // Who asked may be gone.
            let _ = reply.send(report);
        });
    }
    // The server stops.
    by_and_by.abort();
}

async fn regularly(
    door: Door,
    checking: Arc<ArcSwap<Checking>>,
    known: Deliverability,
    registry: Arc<Registry>,
    clock: fn() -> Timestamp,
) {
    let mut due: BTreeMap<Name, Instant> = BTreeMap::new();
    loop {
        let settings = checking.load_full();
        let wanted: BTreeSet<&Name> = settings.domains.iter().collect();
        for gone in known.retain(|domain| wanted.iter().any(|name| name.as_str() == domain)) {
            for (check, _) in gone.by_check() {
                registry.set_deliverability(&gone.domain, check.as_str(), None);
            }
        }
        due.retain(|name, _| wanted.contains(name));
        for domain in wanted {
            let now = Instant::now();
            let at = due.entry(domain.clone()).or_insert(now);
            if *at > now && *at <= now + settings.interval {
                continue;
            }
            *at = now + settings.interval;
            let (settings, domain, asking) = (settings.clone(), domain.clone(), Asking::Door(door.clone()));
            // A fault of ours costs one look, and not all that come after it.
            let looked =
                tokio::spawn(async move { check_domain(&settings, &domain, asking, clock()).await }).await;
            if let Ok(report) = looked {
                keep(&known, &registry, report, clock());
            }
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What was found holds from now on: for operators, for the metrics, and what is another than before for the log.
fn keep(known: &Deliverability, registry: &Registry, report: Report, now: Timestamp) {
    let report = Arc::new(report);
    let before = known.put(report.clone());
    let domain = report.domain.as_str();
    let found: BTreeMap<Check, Severity> = report.by_check().collect();
    let before: BTreeMap<Check, Severity> = before.iter().flat_map(|before| before.by_check()).collect();
    for check in before.keys().filter(|check| !found.contains_key(check)) {
        registry.set_deliverability(domain, check.as_str(), None);
    }
    for (check, severity) in &found {
        registry.set_deliverability(domain, check.as_str(), Some(severity.level()));
    }
    for (check, severity) in &found {
        let was = before.get(check);
        // What is as it should be from the first is no news.
        let is_news = was.map_or(*severity > Severity::Note, |was| was != severity);
        let Some(Finding { subject, text, .. }) = report.worst_of(*check).filter(|_| is_news) else {
            continue;
        };
        DeliverabilityChanged {
            domain,
            check: check.as_str(),
            result: severity.as_str(),
            before: was.map(|was| was.as_str()),
            subject,
            finding: text,
        }
        .emit(now.0);
    }
}
