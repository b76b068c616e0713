//! What lists of the DNS say of a stranger, and what becomes of its mail for that (docs/strangers.md).
//!
//! They are asked as soon as there is something to ask: about the address when the client comes, about names at MAIL. These
//! questions are asked for the cache alone. What they say is waited for at the first recipient, all of it at once and not for long.

use std::{fmt::Write as _, net::IpAddr, rc::Rc, sync::Arc};

use bridge::ListResult;
use config::AuthAction;
use dns::{Answer, Failure, ListAnswer, Name, Outcome, Question, Records};
use mail::ReversePath;
use smtp::{Refusal, Reply, Role, Session, Verdict};
use strangers::{ListEvent, Turn};
use trust::{DnsList, ListFindings, ListInquiry, ListSubject, ListWord, Sought, list_inquiries};
use watch::{
    Counted as _,
    events::{ListBack, ListSetAside, StrangerListed},
};

use crate::{
    authenticity::treatment_label,
    facts,
    greylist::Waiting,
    reputation::{self, Weighed},
    reverse,
    settings::{Door, List},
    shard::{Hold, Shard},
};

/// Who brings a message, and from whom.
#[derive(Clone, Copy)]
pub(crate) struct Stranger<'a> {
    /// Its address, where that is its own.
    pub(crate) address: Option<IpAddr>,
    pub(crate) ehlo: Option<&'a str>,
    pub(crate) sender: Option<&'a ReversePath>,
    /// The name of its address, where that was looked up.
    pub(crate) name: Option<&'a Name>,
}

/// What was found out for a transaction.
pub(crate) struct Screened {
    action: AuthAction,
    score: i32,
    findings: ListFindings,
    /// What it has done before.
    weighed: Weighed,
    /// What lists say, for the reply.
    why: String,
    /// How it stands with greylisting.
    pub(crate) waiting: Waiting,
}

/// What a message is given on its way for what was found out.
pub(crate) struct Mark {
    /// A field, with its line end.
    pub(crate) field: Box<str>,
    pub(crate) hold: Hold,
}

/// How often it is looked whether a probe is due.
const ROUND: std::time::Duration = std::time::Duration::from_secs(1);

/// Whether anything is to be found out about strangers at a listener.
pub(crate) fn is_wanted(door: &Door) -> bool {
    door.role == Role::Relay && (!door.lists.is_empty() || door.grey.is_some() || door.learns)
}

impl<'a> Stranger<'a> {
    /// Whoever this session is with.
    pub(crate) fn of(
        session: &'a Session,
        sender: Option<&'a ReversePath>,
        address: Option<IpAddr>,
        name: Option<&'a Name>,
    ) -> Self {
        Self { address, ehlo: session.client().map(|(_, name)| name), sender, name }
    }

    fn sought(self) -> Sought<'a> {
        let Self { address, ehlo, sender, name } = self;
        Sought { address, ehlo, sender, client_name: name }
    }
}

/// Asks whatever can be asked already, so that it is there when it is needed.
pub(crate) fn look_ahead(shard: &Rc<Shard>, door: &Door, stranger: Stranger<'_>) {
    for inquiry in inquiries(shard, door, stranger) {
        // The answer goes to the cache, whoever waits for it.
        drop(shard.resolve.ask(&inquiry.question));
    }
}

fn inquiries(shard: &Shard, door: &Door, stranger: Stranger<'_>) -> Vec<ListInquiry> {
    let is_asked = |list: &DnsList| shard.strangers.list(&list.name).is_none_or(|state| !state.is_aside());
    let lists = door.lists.iter().map(|list| &**list).enumerate().filter(|(_, list)| is_asked(list));
    list_inquiries(lists, &stranger.sought())
}

/// Finds out what is to be found out, and what follows from it.
pub(crate) async fn screen(shard: &Rc<Shard>, door: &Door, stranger: Stranger<'_>) -> Screened {
    let rules = &door.strangers;
    let began = ring::clock::now();
    let until = began + rules.lookup_time_max;
    let found = name_of(shard, door, stranger, until).await;
    let stranger = Stranger { name: stranger.name.or(found.as_ref()), ..stranger };
    let inquiries = inquiries(shard, door, stranger);
    let mut answers: Vec<(Question, Arc<Answer>)> = Vec::with_capacity(inquiries.len());
    let questions = inquiries.iter().map(|inquiry| inquiry.question.clone()).collect();
    shard.resolve.ask_all(questions, until, |question, answer| answers.push((question, answer))).await;
    let mut findings = ListFindings::default();
    for inquiry in &inquiries {
        let list = &door.lists[inquiry.list];
        let answer = answers.iter().find(|(question, _)| *question == inquiry.question);
        let word = answer.map_or(ListWord::Failed, |(_, answer)| findings.learn(list, inquiry, answer));
        note(shard, list, &word);
    }
    if findings.hits().iter().any(|hit| hit.weight > 0 && is_of_client(hit.subject)) {
        reputation::on_listed(shard, stranger.address);
    }
    let mut waiting = Waiting::default();
    let weighed = reputation::weigh(shard, door, stranger, &mut waiting).await;
    let score = findings.score().saturating_add(weighed.weight);
    let action = policy::screening(score, rules);
    let metrics = &shard.metrics.inbound;
    if !inquiries.is_empty() || door.learns {
        metrics.screening.record_duration(ring::clock::now().saturating_sub(began));
        metrics.screened.of(treatment_label(action)).one();
    }
    let told = format!("{findings}{weighed}");
    if !told.is_empty() {
        StrangerListed {
            client: stranger.address.as_ref().map(|address| address as &dyn std::fmt::Display),
            helo: stranger.ehlo,
            from: stranger.sender.and_then(ReversePath::address).map_or("", |address| address.as_str()),
            score: &score,
            lists: told.trim_start(),
            action: treatment_label(action).label(),
            dry_run: if rules.dry_run { "yes" } else { "no" },
        }
        .emit(ring::clock::unix_micros());
    }
    let action = if rules.dry_run { AuthAction::Accept } else { action };
    let why = match action {
        AuthAction::Refuse | AuthAction::Defer => reasons(shard, door, &findings).await,
        AuthAction::Accept | AuthAction::Tag | AuthAction::Quarantine => String::new(),
    };
    Screened { action, score, findings, weighed, why, waiting }
}

/// The name of the client's address, where a list wants it and nobody has looked for it.
async fn name_of(
    shard: &Rc<Shard>,
    door: &Door,
    stranger: Stranger<'_>,
    until: std::time::Duration,
) -> Option<Name> {
    let is_wanted = door.lists.iter().any(|list| list.subjects.contains(&ListSubject::ClientName));
    let address = stranger.address.filter(|_| is_wanted && stranger.name.is_none())?;
    let left = until.saturating_sub(ring::clock::now());
    ring::timeout(left, reverse::find(shard, address)).await.ok()?.name
}

/// What the lists themselves say of their entries, as far as clients are to be told. It is asked when it is needed, which is
/// for mail that is not taken anyway.
async fn reasons(shard: &Rc<Shard>, door: &Door, findings: &ListFindings) -> String {
    let told: Vec<_> =
        findings.hits().iter().filter(|hit| hit.weight > 0 && door.lists[hit.list].explains).collect();
    let mut texts = Vec::new();
    let until = ring::clock::now() + door.strangers.lookup_time_max;
    let questions = told.iter().map(|hit| hit.why.clone()).collect();
    shard.resolve.ask_all(questions, until, |question, answer| texts.push((question, answer))).await;
    let mut reasons = String::new();
    for hit in told {
        let between = if reasons.is_empty() { "" } else { "; " };
        // Writing to a String does not fail.
        let _ = write!(reasons, "{between}{}", hit.name);
        let text = texts.iter().find(|(question, _)| *question == hit.why);
        if let Some((_, answer)) = text
            && let Outcome::Found(Records::Texts(texts)) = &answer.outcome
            && let Some(text) = texts.first()
        {
            let _ = write!(reasons, ": {}", String::from_utf8_lossy(text));
        }
    }
    reasons
}

/// Whether a list knows the client itself, and not a name that anybody can give.
const fn is_of_client(subject: ListSubject) -> bool {
    match subject {
        ListSubject::Ipv4 | ListSubject::Ipv6 | ListSubject::ClientName => true,
        ListSubject::EhloName | ListSubject::SenderDomain => false,
    }
}

/// Counts what a list has said, and sets it aside when that is called for.
fn note(shard: &Shard, list: &DnsList, word: &ListWord) {
    let Some(state) = shard.strangers.list(&list.name) else { return };
    let (result, event) = match word {
        ListWord::Listed => (ListResult::Listed, Some(ListEvent::Answered)),
        ListWord::Unlisted => (ListResult::Unlisted, Some(ListEvent::Answered)),
        ListWord::Refused(code) => (ListResult::Failed, Some(ListEvent::Refused(*code))),
        ListWord::Failed => (ListResult::Failed, Some(ListEvent::Missed)),
        // Whoever floods us must not get rid of lists by that.
        ListWord::Unasked => (ListResult::Failed, None),
    };
    state.count(result);
    tell(list, event.and_then(|event| state.on_event(event)));
}

fn tell(list: &DnsList, turn: Option<Turn>) {
    let at = ring::clock::unix_micros();
    match turn {
        Some(Turn::Aside(ailment)) => {
            ListSetAside { list: &list.name, reason: &ailment.to_string() }.emit(at)
        }
        Some(Turn::Back) => ListBack { list: &list.name }.emit(at),
        None => {}
    }
}

/// Looks now and then whether lists still are lists, for as long as the core lives; one core for all.
pub(crate) async fn watch(shard: Rc<Shard>) {
    while !shard.is_stopping() {
        let settings = shard.settings();
        for list in &settings.lists {
            let state = shard.strangers.list(&list.of.name);
            let is_due = |state: Arc<bridge::ListState>| {
                state.claim_probe(list.probe_interval, list.rest, facts::now())
            };
            if state.is_some_and(is_due) {
                ring::spawn(probe(shard.clone(), list.clone()));
            }
        }
        drop(settings);
        ring::sleep(ROUND).await;
    }
}

/// Asks a list about whom no list knows (RFC 5782 §5).
async fn probe(shard: Rc<Shard>, list: List) {
    let by_address = |subject: &ListSubject| matches!(subject, ListSubject::Ipv4 | ListSubject::Ipv6);
    let [address, name] = Name::never_listed(&list.of.zone);
    let asked = [
        (address, list.of.subjects.iter().any(by_address)),
        (name, !list.of.subjects.iter().all(by_address)),
    ];
    let mut event = ListEvent::Sound;
    for name in asked.into_iter().filter_map(|(name, is_asked)| name.ok().filter(|_| is_asked)) {
        let answer = shard.resolve.ask(&Question::a(name)).await;
        event = match ListAnswer::read(&answer) {
            ListAnswer::Refused(code) => ListEvent::Refused(code),
            ListAnswer::Codes(_) => ListEvent::KnowsEverybody,
            // Whoever has bought the name of a list that has gone has some host there.
            ListAnswer::Unlisted if matches!(answer.outcome, Outcome::Found(_)) => ListEvent::KnowsEverybody,
            ListAnswer::Unlisted => continue,
            ListAnswer::Failed(Failure::Overload) => return,
            ListAnswer::Failed(_) => ListEvent::Missed,
        };
        break;
    }
    if let Some(state) = shard.strangers.list(&list.of.name) {
        tell(&list.of, state.on_event(event));
    }
}

impl Screened {
    /// May the mail go to a recipient who is no postmaster?
    pub(crate) fn verdict(&self) -> Verdict {
        policy::screened(self.action)
    }

    /// What the lists come to.
    pub(crate) const fn score(&self) -> i32 {
        self.score
    }

    /// Whether a list speaks for it.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.findings.is_vouched_for()
    }

    /// The reply with what there is to say beside it.
    pub(crate) fn explain(&self, reply: Reply) -> Reply {
        match reply.refusal() {
            Some(Refusal::Listed | Refusal::ListedDeferred) => reply.explained(&self.why),
            Some(Refusal::Greylisted) => reply.explained(&self.waiting.when()),
            Some(_) | None => reply,
        }
    }

    /// What the message is given on its way. One to postmaster is taken all the same, and told of.
    pub(crate) fn mark(&self, hostname: &str) -> Option<Mark> {
        let hold = match self.action {
            AuthAction::Accept => return None,
            AuthAction::Quarantine => Hold::Yes,
            AuthAction::Tag | AuthAction::Defer | AuthAction::Refuse => Hold::No,
        };
        let (score, why) = (self.score, format!("{}{}", self.findings, self.weighed));
        let why = why.trim_start();
        let field = format!("X-Stranger-Warning: {hostname}: score {score};\r\n\t{why}\r\n");
        Some(Mark { field: field.into(), hold })
    }
}
