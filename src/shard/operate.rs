//! What operators list and change, in slices of the queue: a core looks at ten million recipients beside its mail.
//!
//! What the queue knows by itself (destination, site, tenant, class, state, age, status, category) it is asked for first. A
//! message is read from the journal where a filter asks for what stands in it, and for a listing.
//!
//! A change that is long is asked for [`Pace::Aside`]: after each slice the core looks whether anybody else had something to
//! do, or there was mail a moment ago. If so, it rests for so long that the change takes its share of the time (`queue.task-share`); else it goes on at once.

use std::{cell::Cell, rc::Rc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bridge::{Action, Change, Class, Entry, Filter, Listing, Pace, Page, Progress, Recipient, Selector};
use delivery::Routes;
use mail::{Category, QueueId, TenantId, Timestamp};
use queue::{Command, Cursor, Place};
use watch::{QueueAction, ShardMetrics, events::Operated};

use crate::{
    facts, locate,
    lots::{self, Owned},
    recover::Slice,
    reroute, schedule,
    shard::{Shard, priority},
    throttles, why,
};

/// Messages that one step of a listing or a change reads.
const STEP: usize = 100;
/// What is left of a message's header section when so much of it is read.
const HEADER_MAX: u64 = 32 << 10;
/// Percent of a core that has other work, for a listing or a change that somebody waits for.
const SOON_SHARE: u32 = 25;
/// Who was away for longer than this has left the core to others.
const ALONE_MAX: Duration = Duration::from_micros(200);
/// Where no message has come or gone for so long, there is no mail.
const MAIL_MIN: Duration = Duration::from_secs(1);
/// What reading a message costs of a core, about.
const MESSAGE_COST: Duration = Duration::from_micros(40);
/// The longest rest: who waits is shown that it goes on.
const REST_MAX: Duration = Duration::from_millis(500);
/// With so much that is still to be written down, nothing is added to it.
const UNWRITTEN_MAX: usize = 8192;

/// The message that alone is meant.
pub(crate) fn meant(selector: &Selector) -> Option<QueueId> {
    match selector {
        Selector::Matching(filter) => filter.id,
        Selector::All => None,
    }
}

/// A page of the queue.
pub(crate) async fn list(shard: &Rc<Shard>, listing: &Listing) -> Page {
    let filter = &listing.filter;
    if let Some(id) = filter.id {
        let entries = show(shard, id, Some(&Meant::now(filter))).await.into_iter().collect();
        return Page { entries, next: None };
    }
    let Some(cursor) = cursor(listing.cursor) else { return Page::default() };
    let limit = listing.limit.clamp(1, STEP);
    let began = ring::clock::now();
    let meant = Meant::now(filter);
    let page = meant.with_filter(shard, |filter| shard.queue.borrow().list(filter, cursor, limit));
    let looked = ring::clock::now().saturating_sub(began);
    let (mut entries, mut messages) = (Vec::new(), 0);
    for id in ids(&page.items) {
        entries.extend(show(shard, id, Some(&meant)).await);
        messages += 1;
    }
    rest(shard, looked + MESSAGE_COST * messages, SOON_SHARE).await;
    Page { entries, next: page.next.map(|next| u64::from(next.0)) }
}

/// The messages of groups, in their order.
fn ids(groups: &[queue::GroupView]) -> Vec<QueueId> {
    let mut ids: Vec<_> = groups.iter().map(|group| group.id).collect();
    // Groups of one message stand beside each other as long as they were accepted together.
    ids.dedup();
    ids
}

/// All that is known of a message, with those of its recipients that are meant; nothing when none is.
pub(crate) async fn show(shard: &Rc<Shard>, id: QueueId, meant: Option<&Meant<'_>>) -> Option<Entry> {
    shard.queue.borrow().message(id)?;
    let envelope = shard.envelope(id).await.ok()?;
    let (mut entry, categories) = entry(shard, id, &envelope)?;
    let Some(meant) = meant else { return Some(entry) };
    let filter = meant.filter;
    let matches =
        filter.sender.as_ref().is_none_or(|pattern| pattern.matches_reverse_path(&envelope.reverse_path))
            && filter.priority.is_none_or(|class| class == entry.priority)
            && tenant(filter).is_none_or(|tenant| tenant == locate::tenant(envelope.handling.tenant))
            && campaign_matches(shard, filter, &envelope.handling)
            && meant.age_matches(entry.received_at);
    if !matches {
        return None;
    }
    let mut categories = categories.into_iter();
    entry.recipients.retain(|recipient| {
        let category = categories.next().flatten();
        category_matches(filter, category) && recipient_matches(filter, recipient)
    });
    if entry.recipients.is_empty() {
        return None;
    }
    let is_meant = (filter.subject.is_none() && filter.subject_hash.is_none())
        || subject_matches(shard, id, filter).await;
    is_meant.then_some(entry)
}

/// A message, and what the last refusal of each of its recipients was about, by the rules at that time.
fn entry(
    shard: &Rc<Shard>,
    id: QueueId,
    envelope: &mail::Envelope,
) -> Option<(Entry, Vec<Option<Category>>)> {
    let settings = shard.settings();
    let queue = shard.queue.borrow();
    let message = queue.message(id)?;
    let states = queue.states(id)?;
    let categories = states.iter().map(|state| state.category).collect();
    let view = |state: queue::RecipientState| {
        let address = envelope.recipients.get(state.recipient as usize);
        let due = matches!(state.state, queue::State::Deferred).then_some(state.due);
        let last = shard.last(id, state.recipient);
        let domain = address.map_or("", |recipient| recipient.address.domain_str());
        let category = last.as_ref().map(|last| {
            let owned = Owned::of(shard, &settings, state.destination);
            let refused = delivery::Refused::kept(&last.text, last.status, &last.host, domain);
            let refused = delivery::Refused { owner: owned.owner(), ..refused };
            settings.reply_rules.classify(&refused).category
        });
        let destination = queue.name(state.destination).unwrap_or_default();
        let site = queue.site_of(state.destination).and_then(|site| queue.site_name(site));
        Recipient {
            index: state.recipient,
            address: address.map(|recipient| recipient.address.to_string()).unwrap_or_default(),
            state: state.state.into(),
            site: site
                .map(|site| Routes::limit_key(site).into_owned())
                .filter(|site| *site != *Routes::limit_key(destination)),
            destination: destination.to_owned(),
            attempts: state.attempts.into(),
            due,
            status: state.status,
            reply: last.map(|last| last.text.into()),
            category: category.or(state.category).map(|category| category.to_string()),
        }
    };
    let recipients: Vec<_> = states.into_iter().map(view).collect();
    let tenant = settings.tenants.get(&envelope.handling.tenant).map(|name| name.to_string());
    let entry = Entry {
        id,
        received_at: message.received_at,
        size: message.size,
        priority: Class::from(priority(&envelope.handling)),
        tenant,
        campaign: envelope.handling.campaign.as_deref().map(ToOwned::to_owned),
        sender: envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        recipients_total: recipients.len().try_into().unwrap_or(u32::MAX),
        recipients,
    };
    Some((entry, categories))
}

fn category_matches(filter: &Filter, category: Option<Category>) -> bool {
    filter.category.is_none_or(|wanted| category == Some(wanted))
}

/// Whether a recipient is meant, by all but what its refusal was about.
fn recipient_matches(filter: &Filter, recipient: &Recipient) -> bool {
    let of = |name: &str, site: Option<&str>| why::is_called(site.unwrap_or(&recipient.destination), name);
    filter.destination.as_ref().is_none_or(|name| *name == recipient.destination)
        && filter.site.as_ref().is_none_or(|name| of(name, recipient.site.as_deref()))
        && filter.state.is_none_or(|state| state == recipient.state)
        && filter.status.is_none_or(|wanted| recipient.status.is_some_and(|status| wanted.matches(status)))
        && filter.reply.as_ref().is_none_or(|wanted| {
            recipient.reply.as_ref().is_some_and(|reply| contains(reply.as_bytes(), wanted.as_bytes()))
        })
        && filter.recipient.as_ref().is_none_or(|pattern| {
            recipient.address.parse().is_ok_and(|address: mail::Address| pattern.matches(&address))
        })
}

/// Whether octets stand in others, whatever the case of ASCII letters.
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
}

async fn subject_matches(shard: &Rc<Shard>, id: QueueId, filter: &Filter) -> bool {
    let Some(committer) = shard.journals.of(id) else { return false };
    let Ok(bytes) = committer.read_beginning(id, HEADER_MAX).await else { return false };
    let Some(subject) = subject(&bytes) else { return false };
    filter.subject.as_ref().is_none_or(|wanted| contains(&subject, wanted.as_bytes()))
        && filter
            .subject_hash
            .as_ref()
            .is_none_or(|wanted| wanted.matches(digest(&SHA256, &subject).as_ref()))
}

/// The Subject field in the beginning of a message, its lines made one (RFC 5322 §2.2.3).
fn subject(beginning: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"subject:";
    let mut lines =
        beginning.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value)
    })?;
    let folded = lines.take_while(|line| matches!(line.first(), Some(b' ' | b'\t')));
    let mut subject = first.trim_ascii().to_vec();
    for line in folded {
        subject.push(b' ');
        subject.extend(line.trim_ascii());
    }
    Some(subject)
}

/// The tenant that is meant.
fn tenant(filter: &Filter) -> Option<queue::Tenant> {
    let name = filter.tenant.as_deref()?;
    Some(locate::tenant(if name.is_empty() { TenantId::NOBODY } else { TenantId::of(name) }))
}

/// The lot of the campaign that is meant, where it is one that the queue knows, by the name of its `[[campaign]]`; of one that no mail is
/// of, no lot.
fn campaign(shard: &Shard, filter: &Filter) -> Option<Option<queue::Lot>> {
    let settings = shard.settings();
    let name = settings.campaigns.called(filter.campaign.as_deref()?)?;
    Some(shard.lots.known_campaign(name))
}

/// Whether a message is of the campaign that is meant: by the name of its `[[campaign]]`, or as it says itself where no campaign is called so.
fn campaign_matches(shard: &Shard, filter: &Filter, handling: &mail::Handling) -> bool {
    let Some(wanted) = &filter.campaign else { return true };
    let settings = shard.settings();
    match settings.campaigns.called(wanted) {
        Some(name) => settings.campaigns.of(handling) == Some(name),
        None => handling.campaign.as_deref().is_some_and(|said| said.eq_ignore_ascii_case(wanted)),
    }
}

/// Who is meant, and as of when.
#[derive(Clone, Copy)]
pub(crate) struct Meant<'a> {
    filter: &'a Filter,
    /// Ages are told as they were then.
    at: Timestamp,
    /// What came later is not meant.
    came_by: Option<Timestamp>,
}

impl<'a> Meant<'a> {
    fn now(filter: &'a Filter) -> Self {
        Self { filter, at: facts::now(), came_by: None }
    }

    fn as_of(filter: &'a Filter, moment: Option<Timestamp>) -> Self {
        moment.map_or_else(|| Self::now(filter), |at| Self { filter, at, came_by: Some(at) })
    }

    /// Whether a message of this moment is.
    fn age_matches(&self, received_at: Timestamp) -> bool {
        let (Filter { older_than, younger_than, .. }, age) =
            (self.filter, self.at.saturating_since(received_at));
        older_than.is_none_or(|than| age >= than.0)
            && younger_than.is_none_or(|than| age < than.0)
            && self.came_by.is_none_or(|by| received_at <= by)
    }

    /// Does something with what the queue can select by itself.
    fn with_filter<T>(&self, shard: &Shard, action: impl FnOnce(&queue::Filter<'_>) -> T) -> T {
        let filter = self.filter;
        let (tenant, campaign) = (tenant(filter), campaign(shard, filter));
        let of = |name: &str, place: &Place<'_>| place.site.is_some_and(|site| why::is_called(site, name));
        let place = |place: &Place<'_>| {
            filter.destination.as_ref().is_none_or(|name| **name == *place.destination)
                && tenant.is_none_or(|tenant| tenant == place.tenant)
                && campaign.is_none_or(|lot| lot == Some(lots::campaign_of(place.lot)))
                && filter.site.as_ref().is_none_or(|name| of(name, place))
                // Mail that goes by the DNS goes to a domain, so that most of it need not be read.
                && filter.recipient.as_ref().is_none_or(|pattern| {
                    Routes::domain_of_key(place.destination)
                        .is_none_or(|domain| pattern.may_match_in(domain.as_str()))
                })
        };
        let asks = filter.destination.is_some()
            || tenant.is_some()
            || campaign.is_some()
            || filter.site.is_some()
            || filter.recipient.is_some();
        // A moment that is as long ago, to the second that the queue keeps.
        let ago = |age: bridge::Age| {
            Timestamp(self.at.0.saturating_sub(age.0.as_micros().try_into().unwrap_or(u64::MAX)))
        };
        let latest = [filter.older_than.map(ago), self.came_by].into_iter().flatten().min();
        action(&queue::Filter {
            state: filter.state.map(Into::into),
            priority: filter.priority.map(Into::into),
            received_from: filter.younger_than.map(ago),
            received_before: latest.map(|latest| Timestamp(latest.0.saturating_add(1))),
            status: filter.status,
            category: filter.category,
            place: asks.then_some(&place),
            ..queue::Filter::default()
        })
    }
}

/// One step of a change; none when there is no such route.
pub(crate) async fn change(shard: &Rc<Shard>, change: &Change, at: u64) -> Option<Progress> {
    let everything = Filter::default();
    let filter = match &change.selector {
        Selector::All => &everything,
        Selector::Matching(filter) => filter,
    };
    let meant = Meant::as_of(filter, change.as_of);
    let to = change.to.as_deref();
    let deed = match change.action {
        Action::Retry => Deed::Command(Command::Retry),
        Action::Hold => Deed::Command(Command::Hold),
        Action::Release => Deed::Command(Command::Release),
        Action::Remove => Deed::Command(Command::Remove),
        Action::Count => Deed::Count,
        Action::Reroute if to.is_some_and(|name| !shard.settings().routes.has_name(name)) => return None,
        Action::Reroute => Deed::Reroute(to),
    };
    if change.action == Action::Retry && at == 0 {
        reset_throttles(shard, filter);
    }
    let _under_way = UnderWay::begin(shard, change.pace);
    let began = ring::clock::now();
    let (progress, messages) = match simple(shard, filter, deed) {
        Some(Simple::Message(id)) => (command_message(shard, deed, id), 1),
        Some(Simple::Groups) => (slice(shard, deed, &meant, at), 0),
        None => read_slice(shard, deed, &meant, at).await,
    };
    let took = ring::clock::now().saturating_sub(began);
    let id = self::meant(&change.selector);
    let id: Option<&dyn std::fmt::Display> = id.as_ref().map(|id| id as _);
    count(shard, change.action, progress.changed);
    // What was read took time, and little of the core.
    let used = if messages > 0 { took.min(MESSAGE_COST * messages) } else { took };
    match change.pace {
        Pace::Soon => {
            if progress.changed > 0 {
                let action = change.action.as_str();
                Operated { action, id, nrcpt: progress.changed }.emit(ring::clock::unix_micros());
            }
            if progress.next.is_some() {
                rest(shard, used, SOON_SHARE).await;
            }
        }
        Pace::Aside => {
            shard.metrics.queue.looked.add(progress.looked);
            // All that are under way have one share together.
            let share = shard.settings().task_share.clamp(1, 100);
            rest(shard, used * shard.operating.count.get().max(1), share).await;
        }
    }
    written(shard).await;
    Some(progress)
}

fn count(shard: &Shard, action: Action, changed: u64) {
    let action = match action {
        Action::Retry => QueueAction::Retry,
        Action::Hold => QueueAction::Hold,
        Action::Release => QueueAction::Release,
        Action::Remove => QueueAction::Remove,
        Action::Reroute => QueueAction::Reroute,
        Action::Count => return,
    };
    shard.metrics.queue.changed.of(action).add(changed);
}

/// What is done with those that are meant.
#[derive(Clone, Copy)]
enum Deed<'a> {
    Command(Command),
    Reroute(Option<&'a str>),
    Count,
}

/// What the queue can select by itself.
enum Simple {
    Message(QueueId),
    Groups,
}

fn simple(shard: &Shard, filter: &Filter, deed: Deed<'_>) -> Option<Simple> {
    match (filter.id, deed) {
        // Where mail goes then, its recipients' domains say.
        (_, Deed::Reroute(_)) => None,
        (Some(id), Deed::Command(_)) => {
            let only = Filter { id: Some(id), ..Filter::default() };
            (*filter == only).then_some(Simple::Message(id))
        }
        (Some(_), Deed::Count) => None,
        (None, Deed::Command(_) | Deed::Count) => {
            let is_said = filter.campaign.is_some() && campaign(shard, filter).is_none();
            (!filter.reads_messages() && !is_said).then_some(Simple::Groups)
        }
    }
}

/// Who wants it tried now wants it tried as often as may be.
fn reset_throttles(shard: &Rc<Shard>, filter: &Filter) {
    let sites: Vec<Box<str>> = match (&filter.destination, &filter.site) {
        (Some(name), _) => {
            let queue = shard.queue.borrow();
            let found = queue.find_all(name).into_iter();
            found.filter_map(|found| Some(queue.site_name(queue.site_of(found)?)?.into())).collect()
        }
        (None, Some(site)) => vec![site.as_str().into()],
        (None, None) => return,
    };
    sites.iter().for_each(|site| throttles::reset(shard, site));
}

/// Lets everybody else have their turn, and more than that when there is somebody.
async fn rest(shard: &Shard, used: Duration, share: u32) {
    let before = ring::clock::now();
    ring::yield_now().await;
    let now = ring::clock::now();
    if now.saturating_sub(before) > ALONE_MAX || shard.operating.has_mail(&shard.metrics, now) {
        ring::sleep((used * (100 - share) / share).min(REST_MAX)).await;
    }
}

/// What a core knows of its long changes.
#[derive(Debug, Default)]
pub(crate) struct Operating {
    /// How many are under way in the background.
    count: Cell<u32>,
    /// How much mail has gone, and when that was found to be more than before.
    mail: Cell<(u64, Duration)>,
}

impl Operating {
    /// Whether mail has come or gone a moment ago: on a small machine whoever sends it needs this core as well.
    fn has_mail(&self, metrics: &ShardMetrics, now: Duration) -> bool {
        let count = metrics.inbound.messages.value() + metrics.outbound.messages.value();
        let (before, since) = self.mail.get();
        if count != before {
            self.mail.set((count, now));
        }
        count != before || now.saturating_sub(since) < MAIL_MIN
    }
}

/// Counts the long changes that are under way on a core.
struct UnderWay<'a>(&'a Shard, u32);

impl<'a> UnderWay<'a> {
    fn begin(shard: &'a Shard, pace: Pace) -> Self {
        let count = u32::from(pace == Pace::Aside);
        shard.operating.count.set(shard.operating.count.get() + count);
        Self(shard, count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Operating { count, .. } = &self.0.operating;
        count.set(count.get() - self.1);
    }
}

/// What is done has to be written down, and mail waits behind it there.
async fn written(shard: &Rc<Shard>) {
    while shard.journals.all().iter().any(|committer| committer.unwritten() > UNWRITTEN_MAX)
        && !shard.is_stopping()
        && !shard.journals.has_failed()
    {
        ring::sleep(Duration::from_millis(2)).await;
    }
}

/// A slice of the queue, of which nothing has to be read.
fn slice(shard: &Rc<Shard>, deed: Deed<'_>, meant: &Meant<'_>, at: u64) -> Progress {
    let slice = Slice::begin();
    let mut all = Progress { next: Some(at), ..Progress::default() };
    while let Some(cursor) = all.next.and_then(cursor) {
        let (matched, changed, next) = meant.with_filter(shard, |filter| match deed {
            Deed::Command(command) => {
                let progress = step(shard, command, queue::Selector::Matching(filter), cursor);
                (progress.matched, progress.changed, progress.next)
            }
            Deed::Count | Deed::Reroute(_) => {
                let survey = shard.queue.borrow().count(filter, cursor);
                (survey.recipients, 0, survey.next)
            }
        });
        let end = shard.queue.borrow().end();
        all.matched += matched;
        all.changed += changed;
        all.looked += u64::from(next.unwrap_or(end).0.saturating_sub(cursor.0));
        all.of = end.0.into();
        all.next = next.map(|next| next.0.into());
        if slice.is_over() {
            break;
        }
    }
    all
}

fn step(
    shard: &Rc<Shard>,
    command: Command,
    selector: queue::Selector<'_>,
    cursor: Cursor,
) -> queue::Progress {
    let mut orders = Vec::new();
    let progress = shard.queue.borrow_mut().on_command(command, selector, cursor, facts::now(), &mut orders);
    schedule::follow(shard, orders);
    shard.due.notify_all();
    progress
}

fn command_message(shard: &Rc<Shard>, deed: Deed<'_>, id: QueueId) -> Progress {
    let Deed::Command(command) = deed else { return Progress::default() };
    let queue::Progress { matched, changed, .. } =
        step(shard, command, queue::Selector::Message(id), Cursor::default());
    Progress { matched, changed, ..Progress::default() }
}

/// A slice of the queue, of which each message has to be read; and how many were.
async fn read_slice(shard: &Rc<Shard>, deed: Deed<'_>, meant: &Meant<'_>, at: u64) -> (Progress, u32) {
    let (found, mut progress) = match meant.filter.id {
        Some(id) => (vec![id], Progress::default()),
        None => {
            let Some(from) = cursor(at) else { return (Progress::default(), 0) };
            let queue = shard.queue.borrow();
            let page = meant.with_filter(shard, |filter| queue.list(filter, from, STEP));
            let (of, next) = (queue.end(), page.next);
            let looked = next.unwrap_or(of).0.saturating_sub(from.0).into();
            let next = next.map(|next| next.0.into());
            (ids(&page.items), Progress { looked, of: of.0.into(), next, ..Progress::default() })
        }
    };
    let messages = found.len().try_into().unwrap_or(u32::MAX);
    let mut slice = Slice::begin();
    for id in found {
        let Some(entry) = show(shard, id, Some(meant)).await else { continue };
        progress.matched += entry.recipients.len() as u64;
        progress.changed += match deed {
            Deed::Count => 0,
            Deed::Reroute(to) => reroute::by_choice(shard, &entry, to),
            Deed::Command(command) => {
                let of = |recipient: &Recipient| queue::Selector::Recipient(id, recipient.index);
                let changed = |recipient| step(shard, command, of(recipient), Cursor::default()).changed;
                entry.recipients.iter().map(changed).sum()
            }
        };
        if slice.is_over() {
            slice.pause().await;
        }
    }
    (progress, messages)
}

/// One step of a command for those that match, for whoever has come for them.
pub(crate) async fn command_matching(
    shard: &Rc<Shard>,
    command: Command,
    filter: &Filter,
    at: u64,
) -> Progress {
    match simple(shard, filter, Deed::Command(command)) {
        Some(Simple::Message(id)) => command_message(shard, Deed::Command(command), id),
        Some(Simple::Groups) => slice(shard, Deed::Command(command), &Meant::now(filter), at),
        None => read_slice(shard, Deed::Command(command), &Meant::now(filter), at).await.0,
    }
}

fn cursor(cursor: u64) -> Option<Cursor> {
    u32::try_from(cursor).ok().map(Cursor)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_subject_is_found_among_other_fields() {
        for (text, expected) in [
            ("From: a\r\nSUBJECT: one\r\n two\r\n\tthree \r\nTo: b\r\n\r\n", Some("one two three")),
            ("Subject:\r\n\r\n", Some("")),
            ("Subject: cut short", Some("cut short")),
            ("X-Subject: no\r\n\r\nSubject: in the body\r\n", None),
            ("Subj", None),
            ("", None),
        ] {
            assert_eq!(subject(text.as_bytes()).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
        assert!(contains(b"Mailbox FULL", b"full") && contains(b"x", b"") && !contains(b"ful", b"full"));
    }

    #[test]
    fn mail_of_a_moment_ago_is_mail() {
        let metrics = watch::Registry::new().shard(0, &[]);
        let operating = Operating::default();
        let at = |millis| Duration::from_secs(100) + Duration::from_millis(millis);
        assert!(!operating.has_mail(&metrics, at(0)));
        metrics.outbound.messages.one();
        assert!(operating.has_mail(&metrics, at(10)) && operating.has_mail(&metrics, at(1009)));
        assert!(!operating.has_mail(&metrics, at(1010)));
        metrics.inbound.messages.one();
        assert!(operating.has_mail(&metrics, at(1020)));
    }
}
