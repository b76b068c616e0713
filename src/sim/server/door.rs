//! One inbound connection, from greeting to close.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use config::Config;
use journal::{AppendError, Class, Draft, Phase, RecipientState};
use mail::{BodyType, Domain, Envelope, ForwardPath, QueueId, Timestamp, Utf8};
use message::{
    date::date_text,
    trace::{Login, Protocol, Received, received_field},
};
use policy::{Client, Routed, Storage};
use smtp::{ContentRules, Extension, Extensions, Refusal, Stage, Tolerance, Verdict};

use super::{
    Message, SPILL, Server,
    committer::{Stuck, Waiting},
    schedule::{Held, Kept},
};
use crate::{
    names,
    serving::{Asked, Serving},
    world::{LinkId, Party, Side, World},
};

pub(super) struct Door {
    serving: Serving,
    peer: IpAddr,
    receiving: Option<Receiving>,
    /// The spill that waits for the journal: nothing is read before it is done.
    stuck: bool,
    /// Whose mail it has come for.
    asks_for: Vec<Domain>,
}

/// A message on its way in.
struct Receiving {
    id: QueueId,
    began: Timestamp,
    prefix: Option<Bytes>,
    draft: Option<Draft>,
    /// What is in the draft.
    spilled: Vec<u8>,
    failed: Option<Refusal>,
    /// The envelope, once it is to be made durable.
    envelope: Option<Envelope>,
}

/// What our sessions are like.
pub(super) fn options(config: &Config) -> Arc<smtp::Options> {
    let mut options = smtp::Options::new(config.hostname.clone());
    options.extensions = options.extensions.with(Extension::Atrn);
    options.shared()
}

impl Server {
    pub(super) fn open_door(&mut self, world: &mut World, link: LinkId) {
        let Some(peer) = world.peer(link) else { return };
        let (mut serving, asked) = Serving::open(self.options.clone());
        if peer == names::CUSTOMER {
            serving.session.grant(Extensions::NONE.with(Extension::Atrn));
        }
        self.doors.insert(link, Door { serving, peer, receiving: None, stuck: false, asks_for: Vec::new() });
        self.serve(world, link, asked);
    }

    pub(super) fn door_heard(&mut self, world: &mut World, link: LinkId, bytes: &[u8]) {
        let Some(door) = self.doors.get_mut(&link) else { return self.visit_heard(world, link, bytes) };
        door.serving.on_bytes(bytes);
        self.door_goes_on(world, link);
    }

    pub(super) fn door_goes_on(&mut self, world: &mut World, link: LinkId) {
        let Some(door) = self.doors.get_mut(&link) else { return };
        door.stuck = false;
        self.spill(world, link);
        let Some(door) = self.doors.get_mut(&link).filter(|door| !door.stuck) else { return };
        let asked = door.serving.go_on();
        self.serve(world, link, asked);
    }

    pub(super) fn door_closed(&mut self, world: &mut World, link: LinkId) {
        world.leave(link, Side::Answerer);
        self.visit_closed(world, link);
        // What is being committed is committed all the same.
        let waits = self.doors.get(&link).is_some_and(Door::commits);
        if !waits {
            self.drop_door(link);
        }
    }

    pub(super) fn door_timed_out(&mut self, world: &mut World, link: LinkId) {
        let Some(door) = self.doors.get_mut(&link) else { return self.visit_timed_out(world, link) };
        if !door.commits() && !door.stuck {
            let asked = door.serving.on_timeout();
            self.serve(world, link, asked);
        }
    }

    pub(super) fn stop_doors(&mut self, world: &mut World) {
        let idle = self.doors.iter().filter(|(_, door)| !door.serving.in_transaction());
        for link in idle.map(|(link, _)| *link).collect::<Vec<_>>() {
            let asked = self.doors.get_mut(&link).expect("just seen").serving.on_shutdown();
            self.serve(world, link, asked);
        }
    }

    /// Does what the session asks until it waits for the client, or for the disk.
    fn serve(&mut self, world: &mut World, link: LinkId, mut asked: Asked) {
        loop {
            let Some(door) = self.doors.get_mut(&link) else { return };
            asked = match asked {
                Asked::Bytes => break,
                Asked::Judge(stage) => {
                    let verdict = self.judge(link, &stage);
                    let Some(door) = self.doors.get_mut(&link) else { return };
                    door.serving.on_verdict(stage, verdict)
                }
                Asked::Fetch(domains) => {
                    let outcome = self.called_for(world, &domains);
                    let Some(door) = self.doors.get_mut(&link) else { return };
                    door.asks_for = domains;
                    door.serving.on_called_for(outcome)
                }
                Asked::Reverse => {
                    self.reply(world, link);
                    let domains = self.doors.remove(&link).map(|door| door.asks_for).unwrap_or_default();
                    return self.begin_visit(world, link, domains);
                }
                Asked::Content => {
                    let outcome = self.judge_content(world, link);
                    let Some(door) = self.doors.get_mut(&link) else { return };
                    door.serving.on_content(outcome)
                }
                Asked::Commit(mut envelope) => {
                    envelope.received_at = world.wall();
                    let ascii = envelope.reverse_path.address().is_none_or(mail::Address::is_ascii)
                        && envelope.recipients.iter().all(|recipient| recipient.address.is_ascii());
                    if !door.serving.intake.findings().eight_bit && ascii {
                        envelope.utf8 = Utf8::NotNeeded;
                    }
                    door.receiving.as_mut().expect("content was judged").envelope = Some(*envelope);
                    return self.append_from_door(world, link);
                }
                Asked::Close => {
                    self.reply(world, link);
                    self.drop_door(link);
                    return world.close(link, Side::Answerer);
                }
            };
        }
        self.reply(world, link);
        self.spill(world, link);
    }

    fn reply(&mut self, world: &mut World, link: LinkId) {
        let Some(door) = self.doors.get_mut(&link) else { return };
        let out = std::mem::take(&mut door.serving.out);
        world.send(link, Side::Answerer, out);
        let timeouts = &self.config.timeouts.inbound;
        world.set_patience(link, Side::Answerer, timeouts.command);
    }

    fn judge(&mut self, link: LinkId, stage: &Stage) -> Verdict {
        let session = &self.doors[&link].serving.session;
        let standing = self.policy.standing(Some(self.doors[&link].peer));
        let client = Client { standing, role: session.role() };
        match stage {
            // What is looked at of strangers is off by default.
            Stage::Ehlo { .. } => Ok(()),
            Stage::Mail { reverse_path, .. } => self.policy.mail(client, reverse_path),
            Stage::Rcpt { forward_path, .. } => {
                let domain = match forward_path {
                    ForwardPath::Postmaster => self.config.hostname.clone(),
                    ForwardPath::Address(address) => address.domain(),
                };
                let routed =
                    if self.routes.destination(&domain).is_some() { Routed::Yes } else { Routed::No };
                self.policy.rcpt(client, forward_path, routed)
            }
            Stage::Data { .. } => {
                let recipients = session.envelope().map_or(0, |envelope| envelope.recipients.len() as u64);
                let storage = match self.journal.accepts_mail() {
                    Ok(()) if self.queue.room() < recipients => Storage::Full,
                    Ok(()) => Storage::Room,
                    Err(AppendError::StorageFull) => Storage::Full,
                    Err(
                        AppendError::Failed
                        | AppendError::NotReady
                        | AppendError::TooLarge
                        | AppendError::UnknownMessage
                        | AppendError::UnknownDraft,
                    ) => Storage::Failed,
                };
                self.policy.data(storage)
            }
        }
    }

    /// Judges the header section and makes the fields that stand before it, once.
    fn complete(&mut self, world: &World, link: LinkId) -> Result<(), Refusal> {
        let door = self.doors.get_mut(&link).expect("its content is judged");
        let receiving = door.receiving.get_or_insert_with(|| Receiving {
            id: self.journal.reserve_id(),
            began: world.wall(),
            prefix: None,
            draft: None,
            spilled: Vec::new(),
            failed: None,
            envelope: None,
        });
        if receiving.draft.is_some() || receiving.prefix.is_some() {
            return Ok(());
        }
        let session = &door.serving.session;
        let envelope = session.envelope().expect("mail data belongs to a transaction");
        let summary = door.serving.intake.summary();
        self.policy.content(session.role(), &summary, envelope.utf8, &self.config.limits, None)?;
        let mut prefix = Vec::new();
        let only = if let [only] = &envelope.recipients[..] { Some(&only.address) } else { None };
        received_field(
            &mut prefix,
            &Received {
                client_name: session.client().map_or("unknown", |(_, name)| name),
                client_host: None,
                client_address: Some(door.peer),
                host: self.config.hostname.as_str(),
                protocol: Protocol::Esmtp,
                tls: None,
                login: Login::None,
                id: receiving.id,
                recipient: only,
                priority: envelope.handling.priority,
                date: &date_text(receiving.began),
            },
        );
        receiving.prefix = Some(prefix.into());
        Ok(())
    }

    fn judge_content(&mut self, world: &World, link: LinkId) -> Result<(), Refusal> {
        self.forget_message_before(link);
        let door = &self.doors[&link];
        let findings = door.serving.intake.findings();
        let rules = ContentRules {
            size_max: self.options.limits.message_size_max,
            bare_line_end: Tolerance::Refuse,
            nul: Tolerance::Refuse,
            long_line: Tolerance::Accept,
        };
        let binary = door.serving.session.envelope().is_some_and(|e| e.body == BodyType::BinaryMime);
        let octets = if binary { findings.judge_binary(&rules) } else { findings.judge(&rules) };
        let failed = door.receiving.as_ref().and_then(|receiving| receiving.failed);
        let verdict = octets.and(failed.map_or(Ok(()), Err)).and_then(|()| self.complete(world, link));
        if verdict.is_err() {
            self.drop_receiving(link);
        }
        verdict
    }

    /// Writes what is held to the journal, so that it needs no memory.
    fn spill(&mut self, world: &mut World, link: LinkId) {
        let Some(door) = self.doors.get(&link) else { return };
        let intake = &door.serving.intake;
        if door.serving.waits_for_owner()
            || !door.serving.session.is_receiving()
            || intake.held() <= SPILL
            || !intake.header_done()
        {
            return;
        }
        self.forget_message_before(link);
        let failed = self.doors[&link].receiving.as_ref().and_then(|receiving| receiving.failed);
        let failed = failed.map_or_else(|| self.complete(world, link).err(), Some);
        let door = self.doors.get_mut(&link).expect("seen above");
        let intake = &mut door.serving.intake;
        let receiving = door.receiving.as_mut().expect("completed above");
        if failed.is_some() {
            receiving.failed = failed;
            intake.content.clear();
            return;
        }
        let mut content = intake.content.clone();
        content.splice(..0, receiving.prefix.clone().filter(|_| receiving.spilled.is_empty()));
        let draft = receiving.draft.get_or_insert_with(|| self.journal.begin_draft(Class::Hot));
        match self.journal.append_chunk(draft, &content) {
            Err(AppendError::NotReady) => {
                door.stuck = true;
                return self.stuck.push_back(Stuck::Spill(link));
            }
            Err(error) => receiving.failed = Some(refusal(error)),
            Ok(()) => receiving.spilled.extend_from_slice(&content.concat()),
        }
        intake.content.clear();
        receiving.prefix = None;
    }

    /// Makes the message durable; only then is there a 250.
    pub(super) fn append_from_door(&mut self, world: &mut World, link: LinkId) {
        let Some(door) = self.doors.get_mut(&link) else { return };
        let Some(receiving) = door.receiving.take() else { return };
        let envelope = receiving.envelope.as_ref().expect("it is to be made durable");
        let mut content = door.serving.intake.content.clone();
        content.splice(..0, receiving.prefix.clone());
        let held = self.held(envelope);
        let draft = receiving.draft.as_ref().map(|draft| (draft, &receiving.spilled[..]));
        match self.append(world, receiving.id, envelope, &held, draft, &content) {
            Ok(end) => {
                world.note(format_args!("{} is appended for {}", receiving.id, envelope.reverse_path));
                self.restore_receiving(link, receiving);
                self.wait_durable(world, end, Waiting::Door(link));
            }
            Err(AppendError::NotReady) => {
                self.restore_receiving(link, receiving);
                self.stuck.push_back(Stuck::Commit(link));
            }
            Err(error) => {
                self.restore_receiving(link, receiving);
                self.door_committed(world, link, Err(refusal(error)));
            }
        }
    }

    fn restore_receiving(&mut self, link: LinkId, receiving: Receiving) {
        self.doors.get_mut(&link).expect("it was there before").receiving = Some(receiving);
    }

    /// The message is durable, or it is not ours.
    pub(super) fn door_committed(&mut self, world: &mut World, link: LinkId, outcome: Result<(), Refusal>) {
        let door = self.doors.get_mut(&link).expect("it waits for the disk");
        let mut receiving = door.receiving.take().expect("it was to be made durable");
        if let Some(draft) = receiving.draft.take() {
            self.journal.drop_draft(draft);
        }
        let envelope = receiving.envelope.take().expect("it was to be made durable");
        let id = receiving.id;
        let kept = if receiving.spilled.is_empty() { Kept::InMemory } else { Kept::OnDisk };
        let mut content = std::mem::take(&mut door.serving.intake.content);
        content.splice(..0, receiving.prefix);
        let size =
            content.iter().map(|slice| slice.len() as u64).sum::<u64>() + receiving.spilled.len() as u64;
        if outcome.is_ok() {
            world.ledger.acknowledged(id);
            self.check_durable(world, id);
            self.take_over(world, id, Message { envelope, content, size }, kept);
        }
        let door = self.doors.get_mut(&link).expect("seen above");
        let asked = door.serving.on_commit(outcome.map(|()| id));
        self.serve(world, link, asked);
        // The client may have gone before we could tell it; what it had sent behind is another matter.
        let gone = world.party(link, Side::Answerer) == Party::Nobody;
        if gone && self.doors.get(&link).is_some_and(|door| !door.commits()) {
            self.drop_door(link);
        }
    }

    /// Those whom their route keeps back.
    pub(super) fn held(&self, envelope: &Envelope) -> Vec<(u32, RecipientState)> {
        let state = RecipientState { phase: Phase::Held, ..RecipientState::default() };
        let held = |domain: &Domain| self.way(domain).1 == Held::Yes;
        (0..)
            .zip(&envelope.recipients)
            .filter(|(_, recipient)| held(&recipient.address.domain()))
            .map(|(place, _)| (place, state.clone()))
            .collect()
    }

    /// What an earlier transaction left is dropped when another message begins.
    fn forget_message_before(&mut self, link: LinkId) {
        let door = self.doors.get_mut(&link).expect("it receives");
        if std::mem::take(&mut door.serving.intake.fresh) {
            self.drop_receiving(link);
        }
    }

    fn drop_receiving(&mut self, link: LinkId) {
        let receiving = self.doors.get_mut(&link).and_then(|door| door.receiving.take());
        if let Some(Receiving { draft: Some(draft), .. }) = receiving {
            self.journal.drop_draft(draft);
        }
    }

    fn drop_door(&mut self, link: LinkId) {
        self.drop_receiving(link);
        self.doors.remove(&link);
    }
}

impl Door {
    /// Whether a message is being made durable.
    fn commits(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| receiving.envelope.is_some())
    }
}

pub(super) const fn refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::NotReady => Refusal::Busy,
        AppendError::StorageFull => Refusal::StorageFull,
        AppendError::TooLarge => Refusal::MessageTooBig,
        AppendError::Failed | AppendError::UnknownMessage | AppendError::UnknownDraft => {
            Refusal::StorageFailed
        }
    }
}
