//! One message on its way in, from its first octet to its place in the journal, whichever way it comes.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use bytes::Bytes;
use config::BulkMark;
use journal::Draft;
use mail::{Address, BodyType, Envelope, QueueId, Source, TenantId, Timestamp, TlsDemand, Upstream, Utf8};
use message::{EightBit, HeaderLimits, HeaderSummary};
use policy::{Listing, Standing};
use smtp::{Refusal, Session};
use watch::{Counted as _, UnsubscribeWay, events::Accepted};

use crate::{
    authenticity::{self, Examined, Inquiry, Results},
    bulk,
    consent::{self, Marks, Passage},
    facts,
    intake::{Intake, field_text},
    reputation::Taken,
    screening::Mark,
    settings::{Door, to_usize},
    shard::{Arrived, Hold, Keep, Shard},
    trace::{self, Arrival, By},
};

/// A message being received.
pub(crate) struct Receiving {
    id: QueueId,
    pub(crate) intake: Intake,
    began: Timestamp,
    /// The fields that stand before the content, from when they are made until they are written.
    prefix: Option<Bytes>,
    /// What is written out already.
    draft: Option<Draft>,
    /// Why the message will be refused.
    failed: Option<Refusal>,
    /// What its header section asks of TLS.
    tls: TlsDemand,
    header: Header,
    /// The client, where a route hands that on.
    upstream: Option<Box<Upstream>>,
    /// What is to be found out of it.
    inquiry: Option<Box<Inquiry>>,
    /// What its header section says to the tenant.
    marks: Marks,
    standing: Standing,
    /// What says that it is bulk mail, where that matters.
    bulk: Option<BulkMark>,
    /// And of which campaign it is.
    campaign: Option<Box<str>>,
    /// What was found out about who brings it.
    warning: Option<Box<Mark>>,
}

/// Whether header fields need SMTPUTF8, "at any level within its MIME structure" (RFC 6531 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// They do not.
    Plain,
    /// Nobody looks into the parts of a message: where there are some, all of it must be US-ASCII to be sure.
    Doubtful,
}

/// From whom a message comes, and how.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) shard: &'a Rc<Shard>,
    pub(crate) door: &'a Door,
    pub(crate) session: &'a Session,
    pub(crate) by: By,
    /// The client's address, for policy and the Received field.
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_port: Option<u16>,
    /// The name of that address, when it leads back to it.
    pub(crate) client_host: Option<&'a str>,
    pub(crate) tls: Option<&'a tls::Session>,
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// What is looked at, for a stranger.
    pub(crate) checks: Option<&'a config::Checks>,
}

/// What was asked of the journal, and its answer.
pub(crate) struct Committed {
    pub(crate) outcome: Result<QueueId, Refusal>,
    id: QueueId,
    envelope: Rc<Envelope>,
    size: u64,
    msgid: Option<String>,
    /// What the client told of where it first came from is for the log.
    told: Told,
    /// Whether it is from whom it says, where that was looked at.
    results: Option<Results>,
    /// The domain of its author, where DMARC passes.
    author: Option<Box<str>>,
    /// How many signatures of ours it has.
    signatures: Option<u64>,
}

/// Whether a client told where a message first came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

/// What the log says of who brought a message.
pub(crate) struct Bringer<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) tls: Option<&'a tls::Session>,
    /// The certificate that was its credential.
    pub(crate) certificate: Option<tls::Fingerprint>,
}

impl Receiving {
    /// Of a client of this standing, and with that said of it by the lists.
    pub(crate) fn begin(
        shard: &Shard,
        door: &Door,
        mut intake: Intake,
        standing: Standing,
        listing: Listing,
    ) -> Self {
        let id = shard.journals.active().next_id();
        let settings = shard.settings();
        let inquiry = Inquiry::of(&settings, door, standing, listing);
        if let Some(inquiry) = &inquiry {
            intake.digest_by(inquiry.digester(&settings, door));
        }
        Self {
            id,
            intake,
            began: facts::now(),
            prefix: None,
            draft: None,
            failed: None,
            tls: TlsDemand::None,
            header: Header::Doubtful,
            upstream: None,
            inquiry: inquiry.map(Box::new),
            marks: Marks::default(),
            standing,
            bulk: None,
            campaign: None,
            warning: None,
        }
    }

    /// It is given this on its way.
    pub(crate) fn mark(&mut self, mark: Option<Mark>) {
        self.warning = mark.map(Box::new);
    }

    /// It will not be a message.
    pub(crate) fn drop_draft(self, shard: &Shard) {
        if let Some(draft) = self.draft {
            shard.journals.active().drop_draft(draft);
        }
    }

    /// Whether so much is held that it should be written out.
    pub(crate) fn is_large(&self, shard: &Shard) -> bool {
        self.intake.held() > shard.spill_above() && self.intake.header_done()
    }

    /// Writes what is held to the journal, so that it needs no memory.
    pub(crate) async fn spill(&mut self, origin: Origin<'_>) {
        let failed = self.failed.map_or(Ok(()), Err).and_then(|()| self.complete(origin));
        let mut content = self.intake.take();
        if let Err(refusal) = failed {
            // Refused at the end of the mail data, which is read for the sake of the reply.
            self.failed = Some(refusal);
            return;
        }
        match self.intake.body_start() {
            // What stands before the body is known last, and is written then.
            Some(body_start) if self.draft.is_none() => {
                let head = 0..body_start;
                content = authenticity::without(content, std::slice::from_ref(&head));
            }
            Some(_) => {}
            None => drop(content.splice(..0, self.prefix.take())),
        }
        let journal = origin.shard.journals.active().clone();
        let draft = self.draft.get_or_insert_with(|| journal.begin_draft());
        if let Err(refusal) = journal.append_chunk(draft, &content).await {
            self.failed = Some(refusal);
        }
    }

    /// Judges what was received as a whole.
    pub(crate) fn judge(&mut self, origin: Origin<'_>) -> Result<(), Refusal> {
        let envelope = origin.session.envelope();
        let binary = envelope.is_some_and(|envelope| envelope.body == BodyType::BinaryMime);
        let rules = &origin.door.rules;
        let findings = self.intake.findings();
        let octets = if binary { findings.judge_binary(rules) } else { findings.judge(rules) };
        octets.and(self.failed.map_or(Ok(()), Err)).and_then(|()| self.complete(origin))
    }

    /// Judges the header section and makes the fields that stand before it, once.
    fn complete(&mut self, origin: Origin<'_>) -> Result<(), Refusal> {
        if self.draft.is_some() || self.prefix.is_some() {
            return Ok(());
        }
        let Origin { shard, door, session, by, client, client_host, tls, tenant, checks, client_port: _ } =
            origin;
        let summary = self.intake.summary();
        let envelope = session.envelope().expect("mail data belongs to a transaction");
        let policy = &shard.settings().policy;
        let completion = policy.content(door.role, &summary, envelope.utf8, &door.limits, checks)?;
        self.tls = tls_demand(&self.intake, &summary);
        self.header = Header::of(&self.intake, &summary);
        if shard.settings().forwards && envelope.upstream.is_none() {
            self.upstream = Some(upstream(origin, envelope).into());
        }
        if let Some(inquiry) = &mut self.inquiry {
            let helo = session.client().map_or("", |(_, name)| name);
            inquiry.meet(client, helo, &envelope.reverse_path);
        }
        let arrival =
            Arrival { session, by, envelope, client, client_host, tls, id: self.id, at: self.began };
        self.campaign = shard.settings().campaigns.read(self.standing, &self.intake, &summary);
        self.marks = Marks::read(shard, tenant, envelope, &self.intake, &summary)?;
        self.bulk = bulk::mark(
            shard,
            tenant,
            &envelope.reverse_path,
            &self.intake,
            &summary,
            self.campaign.is_some(),
        );
        let fields = trace::fields(shard, &arrival, completion, &self.marks.fields);
        self.prefix = Some(match &self.warning {
            Some(mark) => [mark.field.as_bytes(), &fields].concat().into(),
            None => fields,
        });
        Ok(())
    }

    /// Makes the message durable; only then is there a 250.
    pub(crate) async fn commit(mut self, shard: &Rc<Shard>, mut envelope: Envelope, keep: Keep) -> Committed {
        let began = ring::clock::now();
        envelope.received_at = facts::now();
        facts::lead_back(shard, &mut envelope);
        shard.settings().reports_in.take(&mut envelope);
        let plain = !self.intake.findings().eight_bit || self.header == Header::Plain;
        if plain && envelope.reverse_path.address().is_none_or(Address::is_ascii) {
            // The client asked for SMTPUTF8 without need, or for the sake of some addresses: without it the message reaches
            // more hops (RFC 6531 §3.4), or more of its recipients.
            envelope.utf8 = Utf8::NotNeeded;
        }
        // REQUIRETLS is the stronger word (RFC 8689 §4.1).
        if envelope.handling.tls == TlsDemand::None {
            envelope.handling.tls = self.tls;
        }
        let told = if envelope.upstream.is_some() { Told::Yes } else { Told::No };
        envelope.upstream = envelope.upstream.or_else(|| self.upstream.take());
        let msgid = self.message_id();
        if envelope.body != BodyType::BinaryMime {
            self.intake.close_last_line();
        }
        envelope.handling.list = self.marks.list;
        envelope.handling.campaign = self.campaign.take();
        let (id, size) = (self.id, self.intake.size());
        let entered = match consent::enter(shard, &mut envelope, &self.marks).await {
            Ok(Passage::New(entered)) => Ok(entered),
            Ok(Passage::Known(first)) => Err(Ok(first)),
            Err(refusal) => Err(Err(refusal)),
        };
        let envelope = Rc::new(envelope);
        let mut committed = Committed {
            outcome: Ok(id),
            id,
            envelope,
            size,
            msgid,
            told,
            results: None,
            author: None,
            signatures: None,
        };
        let entered = match entered {
            Ok(entered) => entered,
            Err(outcome) => {
                self.drop_draft(shard);
                return Committed { outcome, ..committed };
            }
        };
        if let Err(refusal) = self.store(shard, &mut committed, keep).await {
            committed.outcome = Err(refusal);
        } else {
            entered.durable(id);
            shard.metrics.journal.commit.record_duration(ring::clock::now().saturating_sub(began));
        }
        committed
    }

    /// Finds out what is to be found out, and has the message made durable with that before it.
    async fn store(
        mut self,
        shard: &Rc<Shard>,
        committed: &mut Committed,
        keep: Keep,
    ) -> Result<(), Refusal> {
        let (mut draft, prefix) = (self.draft.take(), self.prefix.take().unwrap_or_default());
        let (mut examined, mut head) = (Examined::default(), None);
        let inquiry = self.inquiry.take().zip(self.intake.digest());
        let journal = shard.journals.active().clone();
        if let Some((inquiry, digest)) = inquiry {
            match inquiry.end(shard, self.id, (&committed.envelope, self.bulk), &digest, &prefix).await {
                Ok(found) => examined = found,
                Err(refusal) => {
                    draft.into_iter().for_each(|draft| journal.drop_draft(draft));
                    return Err(refusal);
                }
            }
            head = draft.is_some().then(|| digest.head().map(Bytes::copy_from_slice).collect());
        }
        let Examined { fields, cut, hold, results, author, signatures } = examined;
        let hold =
            self.warning.take().map_or(hold, |mark| if mark.hold == Hold::Yes { mark.hold } else { hold });
        (committed.results, committed.author, committed.signatures) = (results, author, signatures);
        let mut front = vec![Bytes::from(fields), prefix];
        front.retain(|part| !part.is_empty());
        committed.size += front.iter().map(|part| part.len() as u64).sum::<u64>();
        committed.size -= cut.iter().map(|place| place.len() as u64).sum::<u64>();
        let mut content = self.intake.take();
        match (&draft, head) {
            (Some(begun), Some(head)) => {
                front.append(&mut authenticity::without(head, &cut));
                if let Err(refusal) = journal.prepend_chunk(begun, &front).await {
                    draft.take().into_iter().for_each(|draft| journal.drop_draft(draft));
                    return Err(refusal);
                }
            }
            (_, _) => {
                content = authenticity::without(content, &cut);
                content.splice(..0, front);
            }
        }
        let (id, envelope, size) = (self.id, committed.envelope.clone(), committed.size);
        shard.take_over(Arrived { id, envelope, size, draft, content, keep, hold }).await
    }

    /// The Message-ID, for the log; large mail is written out by the time it is asked for.
    fn message_id(&self) -> Option<String> {
        const LENGTH_MAX: usize = 250;
        if !Accepted::enabled() || self.draft.is_some() {
            return None;
        }
        let range = self.intake.summary().message_id?;
        Some(field_text(self.intake.content(), range, LENGTH_MAX))
    }
}

/// The client itself, as it is handed on.
fn upstream(origin: Origin<'_>, envelope: &Envelope) -> Upstream {
    let Origin { session, by, client, client_port, client_host, .. } = origin;
    let is_near = client.is_none_or(|address| address.is_loopback());
    let protocol = match by {
        By::Smtp => session.protocol(envelope.utf8),
        By::Http => "HTTP",
    };
    Upstream {
        name: client_host.map(Into::into),
        address: client,
        port: client_port,
        protocol: Some(protocol.into()),
        helo: session.client().map(|(_, name)| name.into()),
        ident: None,
        source: Some(if is_near { Source::Local } else { Source::Remote }),
    }
}

/// `TLS-Required: No`; any other value means nothing (RFC 8689 §3).
fn tls_demand(intake: &Intake, summary: &HeaderSummary) -> TlsDemand {
    const LENGTH_MAX: usize = 100;
    let value = summary.tls_required.clone().map(|range| field_text(intake.content(), range, LENGTH_MAX));
    match value {
        Some(value) if value.eq_ignore_ascii_case("No") => TlsDemand::Waived,
        Some(_) | None => TlsDemand::None,
    }
}

impl Committed {
    /// What reputation is made of, when it came from a stranger at this address.
    pub(crate) fn taken(&self, address: IpAddr) -> Taken<'_> {
        Taken {
            address,
            sender: self.envelope.reverse_path.address(),
            results: self.results.map(|results| (results.spf, results.dmarc)),
            author: self.author.as_deref(),
        }
    }

    pub(crate) fn utf8(&self) -> Utf8 {
        self.envelope.utf8
    }

    /// Counts and logs the message, when it is ours.
    pub(crate) fn note(&self, shard: &Shard, bringer: &Bringer<'_>) {
        // Of what everybody has already nothing is new.
        if self.outcome.is_err() || self.envelope.recipients.is_empty() {
            return;
        }
        let Self { id, envelope, size, msgid, .. } = self;
        let metrics = &shard.metrics.inbound;
        metrics.messages.one();
        metrics.recipients.add(envelope.recipients.len() as u64);
        metrics.bytes.add(*size);
        metrics.message_bytes.record(*size);
        if !Accepted::enabled() {
            return;
        }
        let tls = bringer.tls.map(ToString::to_string);
        let tenants = &shard.settings().tenants;
        let certificate = bringer.certificate.as_ref().map(|certificate| certificate as &dyn Display);
        let upstream = envelope.upstream.as_deref().filter(|_| self.told == Told::Yes);
        let upstream_client = upstream.and_then(Upstream::client);
        Accepted {
            id,
            from: envelope.reverse_path.address().map_or("", |address| address.as_str()),
            nrcpt: envelope.recipients.len(),
            size: *size,
            client: bringer.address,
            helo: bringer.name,
            orig_client: upstream_client.as_ref().map(|client| client as &dyn Display),
            orig_helo: upstream.and_then(|upstream| upstream.helo.as_deref()),
            orig_id: upstream.and_then(|upstream| upstream.ident.as_deref()),
            proto: bringer.protocol,
            tls: tls.as_deref(),
            cert: certificate,
            msgid: msgid.as_deref(),
            tenant: tenants.get(&envelope.handling.tenant).map(|name| &**name),
            campaign: envelope.handling.campaign.as_deref(),
            spf: self.results.map(|results| results.spf.label()),
            dkim: self.results.map(|results| results.dkim.label()),
            dmarc: self.results.map(|results| results.dmarc.label()),
            unsubscribe: self.results.and_then(|results| results.unsubscribe).map(UnsubscribeWay::label),
            signatures: self.signatures,
        }
        .emit(envelope.received_at.0);
    }
}

/// How much of a message is looked at as its header section.
pub(crate) fn header_limits(door: &Door) -> HeaderLimits {
    HeaderLimits { header_size_max: to_usize(door.limits.header_size_max) }
}

impl Header {
    /// Of a message whose header section is in memory.
    fn of(intake: &Intake, summary: &HeaderSummary) -> Self {
        const LENGTH_MAX: usize = 100;
        let kind = summary.content_type.clone().map(|range| field_text(intake.content(), range, LENGTH_MAX));
        let plain = summary.eight_bit == EightBit::None && kind.is_none_or(|kind| is_single(&kind));
        if plain { Self::Plain } else { Self::Doubtful }
    }
}

/// Whether content of this type has no header fields within.
fn is_single(content_type: &str) -> bool {
    let kind = content_type.trim_start().to_ascii_lowercase();
    ["text/", "image/", "audio/", "video/", "application/"].iter().any(|single| kind.starts_with(single))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_has_parts_may_have_header_fields_in_them() {
        for (kind, expected) in [
            (" Text/plain; charset=utf-8", true),
            ("application/pdf", true),
            ("multipart/mixed; boundary=x", false),
            ("message/rfc822", false),
            ("", false),
        ] {
            assert_eq!(is_single(kind), expected, "{kind}");
        }
    }
}
