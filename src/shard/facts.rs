//! What policy wants to know: who the client is, where the recipient's mail goes, how full we are.

use std::net::IpAddr;

use config::UnsignedReports;
use mail::{Envelope, ForwardPath, Node, OriginalRecipient, Timestamp, TransferPriority};
use policy::{Addressee, Client, Introduction, Listing, Query, Reverse, Routed, Standing, Storage};
use report::{Recognised, SrsAddress};
use smtp::{Extension, Extensions, Refusal, Session, Stage, Verdict};
use watch::Verb;

use crate::{
    caller::Caller,
    crowd::{Bucket, Place, UsedUp},
    reports_in::ReportsIn,
    settings::Door,
    shard::Shard,
};

/// Who a client is, as far as that is found out once for a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) standing: Standing,
    pub(crate) listing: Listing,
    pub(crate) address: Option<IpAddr>,
    /// What the DNS says of the address.
    pub(crate) reverse: Reverse,
}

impl Who {
    /// One of our own, whatever its address.
    pub(crate) const OWN: Self =
        Self { standing: Standing::Own, listing: Listing::Spared, address: None, reverse: Reverse::Unasked };
}

/// Gathers the facts of a stage and asks policy.
pub(crate) fn judge(shard: &Shard, door: &Door, who: Who, session: &Session, stage: &Stage) -> Verdict {
    let settings = shard.settings();
    let policy = &settings.policy;
    let Who { standing, listing, address, reverse } = who;
    let client = Client { standing, role: session.role() };
    match stage {
        Stage::Ehlo { name, .. } => policy.ehlo(Introduction { listing, address, name }, &door.checks),
        Stage::Mail { reverse_path, .. } => {
            policy.mail(client, reverse_path).and_then(|()| policy.reverse(reverse, door.checks.reverse_name))
        }
        Stage::Rcpt { forward_path, .. } => {
            if let ForwardPath::Address(address) = forward_path {
                if settings.reports_in.is_for(address) {
                    return Ok(());
                }
                if ReportsIn::is_within(address) {
                    return Err(Refusal::NoSuchRecipient);
                }
            }
            let domain = match forward_path {
                ForwardPath::Postmaster => settings.hostname.clone(),
                ForwardPath::Address(address) => address.domain(),
            };
            let routed =
                if settings.routes.destination(&domain).is_some() { Routed::Yes } else { Routed::No };
            if let (Some(returns), ForwardPath::Address(address)) = (&settings.returns, forward_path) {
                let recognised = returns.paths.recognise(address, now());
                if recognised != Recognised::Elsewhere {
                    return report_address(recognised, returns.unsigned);
                }
            }
            if let (Some(srs), ForwardPath::Address(address)) = (&settings.srs, forward_path) {
                match srs.recognise(address, now()) {
                    SrsAddress::Elsewhere => {}
                    SrsAddress::Returns(to) if settings.routes.destination(&to.domain()).is_some() => {
                        return Ok(());
                    }
                    SrsAddress::Returns(_) | SrsAddress::Expired | SrsAddress::Unknown => {
                        return Err(Refusal::NoSuchRecipient);
                    }
                }
            }
            policy.rcpt(client, forward_path, routed)?;
            let envelope = session.envelope().expect("a recipient belongs to a transaction");
            let (reverse_path, before) = (&envelope.reverse_path, envelope.recipients.len());
            policy.recipient(Addressee { forward_path, reverse_path, before }, door.checks_of(listing))
        }
        Stage::Data { .. } => policy.data(storage(shard, door, session)),
    }
}

/// Does mail go to an address for reports? Whether the rest of policy likes it does not matter: nobody else sees it.
///
/// Against RFC 5321 §4.5.1, postmaster is no recipient here: a domain for reports has nobody who could read mail.
fn report_address(recognised: Recognised, unsigned: UnsignedReports) -> Verdict {
    match (recognised, unsigned) {
        (Recognised::Signed(_) | Recognised::Complaints, _) => Ok(()),
        (_, UnsignedReports::Ignore) => Ok(()),
        (Recognised::Elsewhere | Recognised::Expired(_) | Recognised::Unsigned, UnsignedReports::Refuse) => {
            Err(Refusal::NoSuchRecipient)
        }
    }
}

/// Recipients whose addresses lead back to somebody become that somebody. That is known from the reply to RCPT on.
pub(crate) fn lead_back(shard: &Shard, envelope: &mut Envelope) {
    let settings = shard.settings();
    let Some(srs) = &settings.srs else { return };
    for recipient in &mut envelope.recipients {
        if let SrsAddress::Returns(to) = srs.recognise(&recipient.address, now()) {
            // Whoever is told of it knows the address that he has written to (RFC 3461 §4.2).
            recipient.original.get_or_insert_with(|| OriginalRecipient {
                address_type: "rfc822".into(),
                address: recipient.address.as_str().into(),
            });
            recipient.address = to;
            shard.metrics.inbound.led_back.one();
        }
    }
}

/// What is to be asked of a recipient, when nothing else stands against it.
pub(crate) fn query(shard: &Shard, stage: &Stage) -> Option<Query> {
    match stage {
        Stage::Rcpt { forward_path, .. } => {
            let settings = shard.settings();
            match forward_path {
                ForwardPath::Address(address) if settings.reports_in.is_for(address) => None,
                ForwardPath::Address(_) | ForwardPath::Postmaster => settings.policy.query(forward_path),
            }
        }
        Stage::Ehlo { .. } | Stage::Mail { .. } | Stage::Data { .. } => None,
    }
}

/// Asks it, and policy what follows.
pub(crate) async fn verify(shard: &Shard, query: Query) -> Verdict {
    let settings = shard.settings();
    let mailbox = shard.verifier.ask(query, &settings.verify).await;
    settings.policy.answered(mailbox, settings.verify.on_failure)
}

/// Takes a message or a recipient out of the rates of the client, once nothing else stands against it.
///
/// # Errors
/// [`Refusal::RateLimited`] when they are used up.
pub(crate) fn pace(door: &Door, place: &Place, stage: &Stage) -> Verdict {
    let (bucket, rates) = match stage {
        Stage::Mail { .. } => (Bucket::Messages, door.message_rates()),
        Stage::Rcpt { .. } => (Bucket::Recipients, door.recipient_rates()),
        Stage::Ehlo { .. } | Stage::Data { .. } => return Ok(()),
    };
    place.spend(bucket, rates, ring::clock::now()).map_err(|used_up| match used_up {
        UsedUp::Client | UsedUp::Network => Refusal::RateLimited,
    })
}

/// Takes from what a client asks for what is not for him to say: only our own may make a message more urgent than
/// others (RFC 6710 §4.1).
pub(crate) fn limit(standing: Standing, stage: &mut Stage) {
    match stage {
        Stage::Mail { parameters, .. } => {
            if parameters.priority > TransferPriority::default() && standing == Standing::Stranger {
                parameters.priority = TransferPriority::default();
            }
        }
        Stage::Ehlo { .. } | Stage::Rcpt { .. } | Stage::Data { .. } => {}
    }
}

/// What this client may use of what not every client may.
pub(crate) fn granted(shard: &Shard, door: &Door, caller: Caller) -> Extensions {
    let policy = &shard.settings().policy;
    let mut granted = Extensions::NONE;
    if policy.offers_etrn(caller.asker()) {
        granted = granted.with(Extension::Etrn);
    }
    if policy.offers_atrn(caller.asker().certificate) {
        granted = granted.with(Extension::Atrn);
    }
    if caller.address().is_some_and(|address| door.spokesmen.contains(address)) {
        granted = granted.with(Extension::Xclient);
    }
    if caller.address().is_some_and(|address| door.forwarders.contains(address)) {
        granted = granted.with(Extension::Xforward);
    }
    granted
}

/// May this client ask for that mail?
pub(crate) fn may_release(shard: &Shard, caller: Caller, node: &Node) -> Verdict {
    shard.settings().policy.etrn(caller.asker(), node)
}

/// Whether there is room for another message, on disk, in the queue and in memory.
fn storage(shard: &Shard, _door: &Door, session: &Session) -> Storage {
    match shard.journals.active().accepts_mail() {
        Ok(()) => {}
        Err(Refusal::StorageFull) => return Storage::Full,
        Err(_) => return Storage::Failed,
    }
    let recipients = session.envelope().map_or(0, |envelope| envelope.recipients.len() as u64);
    if shard.queue.borrow().room() < recipients {
        return Storage::Full;
    }
    if shard.is_short_of_memory() { Storage::Busy } else { Storage::Room }
}

/// Wall-clock time.
pub(crate) fn now() -> Timestamp {
    Timestamp(ring::clock::unix_micros())
}

/// Which command a line is, for the metrics.
pub(crate) fn verb(line: &[u8]) -> Verb {
    const VERBS: [(&[u8], Verb); 19] = [
        (b"RCPT", Verb::Rcpt),
        (b"MAIL", Verb::Mail),
        (b"DATA", Verb::Data),
        (b"BDAT", Verb::Bdat),
        (b"QUIT", Verb::Quit),
        (b"EHLO", Verb::Ehlo),
        (b"RSET", Verb::Rset),
        (b"NOOP", Verb::Noop),
        (b"HELO", Verb::Helo),
        (b"LHLO", Verb::Lhlo),
        (b"HELP", Verb::Help),
        (b"VRFY", Verb::Vrfy),
        (b"EXPN", Verb::Expn),
        (b"STARTTLS", Verb::StartTls),
        (b"AUTH", Verb::Auth),
        (b"ETRN", Verb::Etrn),
        (b"ATRN", Verb::Atrn),
        (b"XCLIENT", Verb::Xclient),
        (b"XFORWARD", Verb::Xforward),
    ];
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map_or(Verb::Other, |(_, verb)| *verb)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn lines_are_counted_by_their_verb() {
        for (line, verb) in [
            ("MAIL FROM:<a@b.example>", Verb::Mail),
            ("quit", Verb::Quit),
            ("StartTLS", Verb::StartTls),
            ("BDAT 5 LAST", Verb::Bdat),
            ("", Verb::Other),
            ("MAILX", Verb::Other),
        ] {
            assert_eq!(super::verb(line.as_bytes()), verb, "{line}");
        }
    }
}
