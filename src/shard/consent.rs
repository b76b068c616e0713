//! What the recipients of a tenant want, and what the tenant may send: whom nothing is sent to, what puts somebody on a list,
//! the links by which they leave, quotas, and what came already.
//!
//! ```text
//!  RCPT      recipient()   on a list of the tenant's? is there room in its quotas?
//!  content   Marks::read   which list it is of, the link to leave it, its Message-ID
//!  commit    enter()       takes from the quotas, leaves those out who have the message already
//!  attempt   sift()        whoever has come onto a list since fails without being asked
//!  outcome   failed(), returned()      put people on lists
//! ```

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use bridge::Claimed;
use config::{Config, QuotaExcess, SuppressionUse, UnsubscribeCheck, UnsubscribeUse};
use delivery::{Diagnostic, Outcome, Report};
use mail::{Address, Category, Envelope, ListId, QueueId, Status, TenantId, Timestamp};
use message::HeaderSummary;
use report::{Party, ReturnPaths};
use smtp::{Refusal, Verdict};
use tenancy::{Entry, Excess, Exhausted, Links, QuotaLimits, Reason, Scope, Taken, Warned, Whom};
use watch::events::{Duplicate, QuotaUsedUp, QuotaWarned};

use crate::{bulk, facts, intake::Intake, shard::Shard};

/// What is configured.
#[derive(Debug)]
pub(crate) struct Consent {
    /// Of tenants with any of this.
    terms: BTreeMap<TenantId, Terms>,
    bounce_categories: Vec<Category>,
    bounce_lifetime: Option<Duration>,
    complaint_lifetime: Option<Duration>,
    links: Option<Links>,
    list_field: Box<str>,
    bulk_marks: bulk::Marks,
}

/// What is configured for a tenant.
#[derive(Debug)]
struct Terms {
    name: Box<str>,
    suppression: SuppressionUse,
    unsubscribe: UnsubscribeUse,
    unsubscribe_check: UnsubscribeCheck,
    quotas: Option<QuotaLimits>,
    duplicate_window: Duration,
}

/// What a message says of itself, for tenants who want to know.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Which list it is of.
    pub(crate) list: ListId,
    /// Fields to put before it.
    pub(crate) fields: Vec<u8>,
    /// The Message-ID, where it matters whether that came already.
    message_id: Option<Vec<u8>>,
}

/// A message on its way into the journal. Dropped before it is durable, it is as if it had never come.
#[derive(Default)]
pub(crate) struct Entered {
    quota: Option<(Rc<Shard>, Taken)>,
    claimed: Option<Claimed>,
}

/// What becomes of a message.
pub(crate) enum Passage {
    /// It goes on to those in the envelope.
    New(Entered),
    /// All its recipients have it already: this one came first.
    Known(QueueId),
}

/// Octets of a line (RFC 5322 §2.1.1).
const LINE_MAX: usize = 998;
/// Octets of the name of a list.
const LIST_NAME_MAX: usize = 200;

impl Consent {
    pub(crate) fn new(config: &Config) -> Self {
        let unsubscribe = &config.unsubscribe;
        let secrets = unsubscribe.secrets.iter().map(config::Secret::expose);
        let terms = config.tenants.iter().map(|tenant| (TenantId::of(&tenant.name), Terms::new(tenant)));
        Self {
            terms: terms.filter(|(_, terms)| terms.is_any()).collect(),
            bounce_categories: config.suppression.bounce_categories.clone(),
            bounce_lifetime: config.suppression.bounce_lifetime,
            complaint_lifetime: config.suppression.complaint_lifetime,
            links: unsubscribe.url.as_ref().map(|url| Links::new(url, secrets)),
            list_field: unsubscribe.field.as_str().into(),
            bulk_marks: bulk::Marks::new(config),
        }
    }

    /// Whether no tenant has any of this, so that nobody has to be asked whose a message is.
    pub(crate) fn is_idle(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether bulk mail of some tenant is looked at for how its list is left.
    pub(crate) fn checks_bulk(&self) -> bool {
        self.terms.values().any(|terms| terms.unsubscribe_check != UnsubscribeCheck::None)
    }

    /// What becomes of bulk mail of a tenant whose list is not left as it should be, and what the tenant is called; none
    /// where that is not looked at.
    pub(crate) fn unsubscribe_check(&self, tenant: TenantId) -> Option<(&str, UnsubscribeCheck)> {
        let terms = self.terms.get(&tenant)?;
        (terms.unsubscribe_check != UnsubscribeCheck::None).then_some((&*terms.name, terms.unsubscribe_check))
    }

    pub(crate) const fn bulk_marks(&self) -> &bulk::Marks {
        &self.bulk_marks
    }

    /// Whether a tenant's recipients are kept off its lists.
    fn suppressing(&self, tenant: TenantId) -> Option<&Terms> {
        self.terms.get(&tenant).filter(|terms| terms.suppression != SuppressionUse::None)
    }

    /// What the address that reports come back to is to say of a recipient.
    pub(crate) fn party(&self, paths: &ReturnPaths, tenant: TenantId, recipient: &Address) -> Option<Party> {
        self.suppressing(tenant).and_then(|_| paths.party(tenant, recipient))
    }
}

impl Terms {
    fn new(tenant: &config::Tenant) -> Self {
        let max = [tenant.hourly_max, tenant.daily_max, tenant.monthly_max];
        let excess = match tenant.quota_excess {
            QuotaExcess::Refuse => Excess::Refused,
            QuotaExcess::Report => Excess::Told,
        };
        let limits = QuotaLimits { max, warn_percent: tenant.quota_warning, excess };
        Self {
            name: tenant.name.as_str().into(),
            suppression: tenant.suppression,
            unsubscribe: tenant.unsubscribe,
            unsubscribe_check: tenant.unsubscribe_check,
            quotas: max.iter().any(Option::is_some).then_some(limits),
            duplicate_window: tenant.duplicate_window,
        }
    }

    fn is_any(&self) -> bool {
        self.suppression != SuppressionUse::None
            || self.unsubscribe != UnsubscribeUse::None
            || self.unsubscribe_check != UnsubscribeCheck::None
            || self.quotas.is_some()
            || !self.duplicate_window.is_zero()
    }
}

/// Whether a tenant may send to an address, beside so many others of the message.
pub(crate) fn recipient(shard: &Shard, tenant: TenantId, address: &Address, before: usize) -> Verdict {
    let settings = shard.settings();
    let Some(terms) = settings.consent.terms.get(&tenant) else { return Ok(()) };
    let now = facts::now();
    if terms.suppression == SuppressionUse::Refuse
        && shard.tenancy.suppressed(tenant, ListId::NONE, address, now).is_some()
    {
        shard.metrics.inbound.suppressed.one();
        return Err(Refusal::RecipientSuppressed);
    }
    let Some(limits) = &terms.quotas else { return Ok(()) };
    let checked = shard.tenancy.quotas().check(tenant, limits, before as u64 + 1, now);
    checked.map_err(|exhausted| used_up(&terms.name, &exhausted, now))
}

/// Says once in a period that there is no more.
fn used_up(tenant: &str, exhausted: &Exhausted, now: Timestamp) -> Refusal {
    let Exhausted { period, until, max, is_first } = *exhausted;
    if is_first {
        QuotaUsedUp { tenant, period: period.as_str(), max, until: &until.to_rfc3339() }.emit(now.0);
    }
    Refusal::QuotaUsedUp
}

fn warn(tenant: &str, warned: Warned, now: Timestamp) {
    let Warned { period, max, used } = warned;
    if used >= max {
        let until = period.end(now).to_rfc3339();
        QuotaUsedUp { tenant, period: period.as_str(), max, until: &until }.emit(now.0);
    } else {
        QuotaWarned { tenant, period: period.as_str(), used, max }.emit(now.0);
    }
}

impl Marks {
    /// Reads a message whose header section is in memory.
    ///
    /// # Errors
    /// [`Refusal::RecipientSuppressed`] when nobody is left who wants mail of its list.
    pub(crate) fn read(
        shard: &Shard,
        tenant: TenantId,
        envelope: &Envelope,
        intake: &Intake,
        summary: &HeaderSummary,
    ) -> Result<Self, Refusal> {
        let settings = shard.settings();
        let Some(terms) = settings.consent.terms.get(&tenant) else { return Ok(Self::default()) };
        let mut marks = Self::default();
        if !terms.duplicate_window.is_zero()
            && let Some(range) = summary.message_id.clone()
        {
            const LENGTH_MAX: usize = 998;
            let end = range.end.min(range.start.saturating_add(LENGTH_MAX));
            let value = message::content::gather(intake.content(), range.start..end);
            marks.message_id = Some(value.trim_ascii().to_vec()).filter(|id| !id.is_empty());
        }
        if terms.unsubscribe == UnsubscribeUse::None {
            return Ok(marks);
        }
        let header = message::content::gather(intake.content(), 0..summary.len);
        let value = message::field(&header, &settings.consent.list_field);
        let name = value.and_then(|value| message::list_name(value, LIST_NAME_MAX));
        let name = name.unwrap_or_default();
        marks.list = ListId::of(&name);
        if terms.suppression == SuppressionUse::Refuse && marks.list != ListId::NONE {
            let now = facts::now();
            let is_suppressed = |recipient: &mail::Recipient| {
                shard.tenancy.suppressed(tenant, marks.list, &recipient.address, now).is_some()
            };
            if envelope.recipients.iter().all(is_suppressed) {
                shard.metrics.inbound.suppressed.add(envelope.recipients.len() as u64);
                return Err(Refusal::RecipientSuppressed);
            }
        }
        let wants = terms.unsubscribe == UnsubscribeUse::All || marks.list != ListId::NONE;
        let has = |field| message::field(&header, field).is_some();
        if let (true, Some(links), [only]) = (wants, &settings.consent.links, &envelope.recipients[..])
            // What the sender has written is the sender's.
            && !has("List-Unsubscribe") && !has("List-Unsubscribe-Post")
        {
            let scope = Scope { tenant: terms.name.clone(), list: name.into() };
            let link = links.link(&scope, &only.address);
            if let Some(link) = link.filter(|link| link.len() + "List-Unsubscribe: <>".len() <= LINE_MAX) {
                // RFC 2369 §3.2 and RFC 8058 §3.1.
                let fields = format!(
                    "List-Unsubscribe: <{link}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
                );
                marks.fields = fields.into_bytes();
                shard.metrics.inbound.list_links.one();
            }
        }
        Ok(marks)
    }
}

/// Takes a message out of the quotas of its tenant, and its recipients who have it already out of the envelope.
///
/// # Errors
/// [`Refusal::QuotaUsedUp`].
pub(crate) async fn enter(
    shard: &Rc<Shard>,
    envelope: &mut Envelope,
    marks: &Marks,
) -> Result<Passage, Refusal> {
    let settings = shard.settings();
    let tenant = envelope.handling.tenant;
    let Some(terms) = settings.consent.terms.get(&tenant) else {
        return Ok(Passage::New(Entered::default()));
    };
    let mut entered = Entered::default();
    if let Some(message_id) = &marks.message_id {
        let now = facts::now();
        let recipients = envelope.recipients.iter().map(|recipient| &recipient.address);
        let claimed = shard.tenancy.claim(tenant, message_id, recipients, terms.duplicate_window, now).await;
        for (place, first) in &claimed.duplicates {
            shard.metrics.inbound.duplicates.one();
            Duplicate {
                id: first,
                tenant: &terms.name,
                to: envelope.recipients[*place].address.as_str(),
                msgid: &String::from_utf8_lossy(message_id),
            }
            .emit(now.0);
        }
        let mut place = 0;
        envelope.recipients.retain(|_| {
            place += 1;
            claimed.duplicates.iter().all(|(known, _)| *known != place - 1)
        });
        if let (true, Some((_, first))) = (envelope.recipients.is_empty(), claimed.duplicates.first()) {
            return Ok(Passage::Known(*first));
        }
        entered.claimed = Some(claimed);
    }
    if let Some(limits) = &terms.quotas {
        let now = facts::now();
        let count = envelope.recipients.len() as u64;
        let (taken, warned) = shard
            .tenancy
            .quotas()
            .take(tenant, limits, count, now)
            .map_err(|exhausted| used_up(&terms.name, &exhausted, now))?;
        entered.quota = Some((shard.clone(), taken));
        if let Some(warned) = warned {
            warn(&terms.name, warned, now);
        }
    }
    Ok(Passage::New(entered))
}

impl Entered {
    /// The message is ours.
    pub(crate) fn durable(mut self, id: QueueId) {
        self.quota = None;
        if let Some(claimed) = self.claimed.take() {
            claimed.durable(id);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((shard, mut taken)) = self.quota.take() {
            let count = taken.count();
            shard.tenancy.quotas().give_back(&mut taken, count);
        }
    }
}

/// Those of a message's recipients who are on a list, with what becomes of them. Whoever ends them counts them.
pub(crate) fn sift(shard: &Shard, envelope: &Envelope, places: &[u32]) -> Vec<(u32, Outcome)> {
    let settings = shard.settings();
    let (tenant, list) = (envelope.handling.tenant, envelope.handling.list);
    if settings.consent.suppressing(tenant).is_none() {
        return Vec::new();
    }
    let now = facts::now();
    let mut sifted = Vec::new();
    for place in places {
        let Some(recipient) = envelope.recipients.get(*place as usize) else { continue };
        let Some(reason) = shard.tenancy.suppressed(tenant, list, &recipient.address, now) else { continue };
        sifted.push((*place, suppressed(reason)));
    }
    sifted
}

/// "Delivery not authorized, message refused" (RFC 3463 §3.8), by us.
fn suppressed(reason: Reason) -> Outcome {
    let text = format!("the recipient is on the suppression list ({})", reason.as_str());
    let diagnostic = Diagnostic::Text(text.into());
    Outcome::Failed(Report { status: Status(5, 7, 1), remote: None, diagnostic, stage: None })
}

/// A host has refused a recipient for good: puts it on the tenant's list, where that is what such a refusal is for.
pub(crate) fn failed(
    shard: &Shard,
    id: QueueId,
    envelope: &Envelope,
    address: &Address,
    (category, report): (Category, &Report),
) {
    let settings = shard.settings();
    let consent = &settings.consent;
    let Some(terms) = consent.suppressing(envelope.handling.tenant) else { return };
    // What we have found ourselves, as a record that is missing, is not about the mailbox.
    if report.remote.is_none() || !consent.bounce_categories.contains(&category) {
        return;
    }
    let note = format!("{id} {}", report.status);
    put(shard, terms, address, (Reason::Bounce, consent.bounce_lifetime), note);
}

/// Somebody reports that mail has failed, or complains about it. The address that the report came to, or quotes, is signed by
/// us and says whom it is about: whoever else it names is not believed to be.
pub(crate) fn returned<'a>(
    shard: &Shard,
    paths: &ReturnPaths,
    (id, party): (QueueId, Option<Party>),
    named: impl Iterator<Item = &'a Address> + Clone,
    why: Returned,
) {
    let settings = shard.settings();
    let consent = &settings.consent;
    let Some(party) = party else { return };
    let (reason, lifetime) = match why {
        Returned::Failed(category) if consent.bounce_categories.contains(&category) => {
            (Reason::Bounce, consent.bounce_lifetime)
        }
        Returned::Failed(_) => return,
        Returned::Complaint => (Reason::Complaint, consent.complaint_lifetime),
    };
    for (tenant, terms) in consent.terms.iter().filter(|(tenant, _)| party.is_of(**tenant)) {
        if terms.suppression == SuppressionUse::None {
            continue;
        }
        let mut whom = named.clone().filter(|address| paths.party(*tenant, address) == Some(party));
        if let Some(address) = whom.next() {
            return put(shard, terms, address, (reason, lifetime), id.to_string());
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// The message, for good, for this.
    Failed(Category),
    /// A complaint.
    Complaint,
}

fn put(
    shard: &Shard,
    terms: &Terms,
    address: &Address,
    (reason, lifetime): (Reason, Option<Duration>),
    note: String,
) {
    let since = facts::now();
    shard.tenancy.suppress(Entry {
        scope: Scope::tenant(&terms.name),
        whom: Whom::Address(address.clone()),
        reason,
        since,
        until: lifetime.map(|lifetime| since.saturating_add(lifetime)),
        note: note.into(),
    });
}
