//! Reports on mail of ours, come back to an address that tells which: read, and told to the log and the metrics.
//!
//! What the address says is signed and believed; what the report says is somebody's word. So an unsigned address proves
//! nothing but that somebody wrote, and what came to it is not read. A complaint comes to an address that providers know,
//! and tells its message by the reverse-path that it quotes: where that is ours and signed, the message is.

use std::rc::Rc;

use delivery::{Diagnostic, Outcome, Owner, Refused, Report, Teller};
use mail::{Address, Envelope, Status};
use report::{
    Bounce, CampaignMark, Complaint, Form, Incoming, IncomingLimits, Recognised, Returned, ReturnedAction,
    Sent,
};
use watch::{
    ReportRead,
    events::{Bounced, Complained, ReportIgnored},
};

use crate::{
    consent, egress, facts,
    hops::Job,
    outcomes,
    settings::{Returns, Settings},
    shard::{Message, Shard},
};

/// Reads a message that has come for some of these addresses, and ends it.
pub(crate) fn take(shard: &Rc<Shard>, job: Job) {
    let shard = shard.clone();
    ring::spawn(async move {
        let outcome = match shard.message(job.id).await {
            Ok(message) => {
                read(&shard, &job, &message);
                done()
            }
            Err(error) => {
                let text = format!("the message cannot be read: {error}");
                outcomes::deferred(Status(4, 3, 0), &text)
            }
        };
        outcomes::end_unattempted(&shard, job, &outcome);
    });
}

fn done() -> Outcome {
    let report = Report {
        status: Status(2, 0, 0),
        remote: None,
        diagnostic: Diagnostic::Text("read as a report".into()),
        stage: None,
    };
    Outcome::Delivered(report, Teller::We)
}

fn read(shard: &Shard, job: &Job, message: &Message) {
    let settings = shard.settings();
    // A reload took the domain away since the route was asked.
    let Some(returns) = &settings.returns else { return };
    let mut incoming = None;
    for address in addresses(job, &message.envelope) {
        let sent = match returns.paths.recognise(address, facts::now()) {
            Recognised::Signed(sent) => Some(sent),
            Recognised::Complaints => None,
            Recognised::Expired(_) => {
                ignore(shard, job, address, ReportRead::Unsigned, "expired");
                continue;
            }
            Recognised::Unsigned | Recognised::Elsewhere => {
                ignore(shard, job, address, ReportRead::Unsigned, "unsigned");
                continue;
            }
        };
        let limits = IncomingLimits::default();
        let incoming = incoming.get_or_insert_with(|| report::read(&message.content, &limits));
        match (incoming, sent) {
            (Incoming::Bounce(bounce), Some(sent)) => bounced(shard, (&settings, returns), job, sent, bounce),
            // Nobody signed that it is about our mail.
            (Incoming::Bounce(_), None) => ignore(shard, job, address, ReportRead::Unsigned, "unproven"),
            (Incoming::Complaint(complaint), sent) => complained(shard, returns, job, sent, complaint),
            (Incoming::AutoReply, _) => ignore(shard, job, address, ReportRead::AutoReply, "auto-reply"),
            (Incoming::Other, _) => ignore(shard, job, address, ReportRead::Other, "other"),
        }
    }
}

fn addresses<'a>(job: &'a Job, envelope: &'a Envelope) -> impl Iterator<Item = &'a Address> {
    let recipients = job.recipients.iter().filter_map(|place| envelope.recipients.get(*place as usize));
    recipients.map(|recipient| &recipient.address)
}

fn bounced(
    shard: &Shard,
    (settings, returns): (&Settings, &Returns),
    job: &Job,
    sent: Sent,
    bounce: &Bounce,
) {
    let metrics = &shard.metrics.delivery;
    metrics.reports_read.of(ReportRead::Bounce).one();
    let owner = owner(settings, sent);
    for returned in &bounce.recipients {
        let address = returned.original.as_ref().or(returned.recipient.as_ref());
        let domain = address.map_or("", |address| address.domain_str());
        let refused = matches!(returned.action, ReturnedAction::Failed | ReturnedAction::Delayed);
        let judge = || settings.reply_rules.classify(&Refused { owner, ..refusal(returned, domain) });
        let judgement = refused.then(judge);
        if let (Some(judgement), ReturnedAction::Failed) = (&judgement, returned.action) {
            metrics.bounces.of(outcomes::counted(judgement.category)).one();
            let named = returned.original.iter().chain(&returned.recipient).chain(&bounce.original.to);
            let why = consent::Returned::Failed(judgement.category);
            consent::returned(shard, &returns.paths, (sent.id, sent.party), named, why);
        }
        let status: Option<&dyn std::fmt::Display> = returned.status.as_ref().map(|status| status as _);
        Bounced {
            id: &sent.id,
            to: address.map(Address::as_str),
            place: sent.place,
            result: match returned.action {
                ReturnedAction::Failed => "failed",
                ReturnedAction::Delayed => "delayed",
                ReturnedAction::Delivered => "delivered",
                ReturnedAction::Relayed => "relayed",
                ReturnedAction::Expanded => "expanded",
            },
            category: judgement.as_ref().map(|judgement| judgement.category.word()),
            rule: judgement.as_ref().and_then(|judgement| judgement.rule.as_deref()),
            status,
            reply: returned.diagnostic.as_deref(),
            host: bounce.reporting_mta.as_deref(),
            msgid: bounce.original.message_id.as_deref(),
            form: match bounce.form {
                Form::Standard => "standard",
                Form::Guessed => "guessed",
            },
            report: &job.id,
        }
        .emit(ring::clock::unix_micros());
    }
}

/// Whose mail it was, as far as the address tells. What is called otherwise by now is nobody's in particular.
fn owner(settings: &Settings, sent: Sent) -> Owner<'_> {
    let tenant =
        sent.party.and_then(|party| settings.tenants.iter().find(|(tenant, _)| party.is_of(**tenant)));
    let campaign =
        sent.campaign.and_then(|mark| settings.campaigns.names().find(|name| CampaignMark::of(name) == mark));
    Owner { tenant: tenant.map(|(_, name)| &**name), campaign }
}

/// What the host that reports was told, as far as it tells.
fn refusal<'a>(returned: &'a Returned, domain: &'a str) -> Refused<'a> {
    let said = returned.diagnostic.as_deref().unwrap_or_default();
    // Whoever spoke has a name, known or not: so that what begins with a code is a reply.
    let host = returned.remote_mta.as_deref().unwrap_or("unknown");
    let refused = Refused::kept(said, returned.status, host, domain);
    // It was not we who found it, whatever there is in the place of a reply.
    Refused { status: refused.status.or(returned.status), at: None, ..refused }
}

fn complained(shard: &Shard, returns: &Returns, job: &Job, sent: Option<Sent>, complaint: &Complaint) {
    shard.metrics.delivery.reports_read.of(ReportRead::Complaint).one();
    let quoted = [complaint.mail_from.as_ref(), complaint.original.return_path.as_ref()];
    let about = quoted.into_iter().flatten().find_map(|address| {
        match returns.paths.recognise(address, facts::now()) {
            // Whoever complains late complains about our mail all the same.
            Recognised::Signed(sent) | Recognised::Expired(sent) => Some(sent),
            Recognised::Elsewhere | Recognised::Complaints | Recognised::Unsigned => None,
        }
    });
    let sent = sent.or(about);
    if let Some(sent) = &sent {
        let named = complaint.recipients.iter().chain(&complaint.original.to);
        let why = consent::Returned::Complaint;
        consent::returned(shard, &returns.paths, (sent.id, sent.party), named, why);
    }
    let to = complaint.recipients.first().or(complaint.original.to.as_ref());
    let id: Option<&dyn std::fmt::Display> = sent.as_ref().map(|sent| &sent.id as _);
    Complained {
        id,
        to: to.map(Address::as_str),
        kind: &complaint.feedback_type,
        incidents: complaint.incidents,
        source: complaint.source_ip.as_deref(),
        msgid: complaint.original.message_id.as_deref(),
        agent: complaint.user_agent.as_deref(),
        report: &job.id,
    }
    .emit(ring::clock::unix_micros());
    // Anybody can write a report; who has our signature has had our message.
    let from = complaint.source_ip.as_deref().filter(|_| sent.is_some());
    if let Some(address) = from.and_then(|text| text.trim().parse().ok()) {
        egress::on_complained(shard, address);
    }
}

fn ignore(shard: &Shard, job: &Job, address: &Address, kind: ReportRead, reason: &str) {
    shard.metrics.delivery.reports_read.of(kind).one();
    ReportIgnored { report: &job.id, to: address.as_str(), reason }.emit(ring::clock::unix_micros());
}
