//! A message that the pool brings, taken in as if a client had sent it: a session without a socket.
//!
//! Here are the client's lines and the hands of the server; what happens between them is the session's affair, as it is
//! for `connection`. So what holds for SMTP holds for HTTP, and the answer of success is made of the 250.

use std::rc::Rc;

use bridge::{Cause, Declined, Injected, Injection, Reply as Answer};
use mail::{BodyType, ForwardPath, TenantId, Utf8};
use message::trace::address_literal;
use policy::{Asker, Listing, Standing};
use smtp::{Action, Refusal, Session, Stage, Verdict};
use watch::events::{Refused, SessionPanicked};

use crate::{
    consent,
    facts::{self, Who},
    intake::Intake,
    receiving::{Bringer, Origin, Receiving, header_limits},
    settings::Door,
    shard::{Keep, Shard},
    trace::By,
};

/// Takes the message in while the shard goes on with other things.
pub(crate) fn begin(shard: &Rc<Shard>, injection: Injection, answer: Answer<Injected>) {
    let (metrics, peer) = (shard.metrics.clone(), injection.client);
    let shard = shard.clone();
    let task = async move { answer.send(inject(&shard, &injection).await) };
    // Boxed by what spawns it. Whoever waits hears that the shard would not answer.
    ring::spawn_caught(task, move |panic| {
        metrics.executor.panicked.one();
        SessionPanicked { peer, error: &panic }.emit(ring::clock::unix_micros());
    });
}

async fn inject(shard: &Rc<Shard>, injection: &Injection) -> Injected {
    let door = shard.settings().http_door.clone();
    let (session, greeting) = Session::open(door.options());
    let entry =
        Entry { shard, door: &door, injection, session, receiving: None, progress: Progress::Greeted };
    entry.run(greeting).await
}

/// One message on its way in.
struct Entry<'a> {
    shard: &'a Rc<Shard>,
    door: &'a Door,
    injection: &'a Injection,
    session: Session,
    receiving: Option<Receiving>,
    progress: Progress,
}

/// What has been said to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Greeted,
    Ehlo,
    Mail,
    Rcpt(usize),
    Data,
    /// The journal has been asked.
    Commit,
}

/// The content is looked at in pieces, so that a large message does not keep the shard from everything else.
const PIECE: usize = 256 << 10;

impl Entry<'_> {
    async fn run(mut self, greeting: Action) -> Injected {
        if self.shard.is_stopping() {
            return Err(self.declined(Refusal::ShuttingDown));
        }
        if let Err(turned) = self.shard.settings().policy.bring(self.injection.client.ip()) {
            return Err(self.declined(turned.refusal()));
        }
        let mut action = greeting;
        loop {
            action = match action {
                Action::Reply(reply) | Action::Close(reply) => {
                    if let Some(refusal) = reply.refusal() {
                        return Err(self.declined(refusal));
                    }
                    let line = self.next_line();
                    self.session.on_line(&line)
                }
                Action::Judge(stage) => self.judge(stage).await,
                Action::Receive(_) => {
                    let verdict = self.receive().await;
                    self.session.on_data_end(verdict)
                }
                Action::Commit(mut envelope) => {
                    envelope.handling.tenant = self.tenant();
                    self.progress = Progress::Commit;
                    let receiving = self.receiving.take().expect("mail data was received");
                    let committed = receiving.commit(self.shard, envelope, Keep::Not).await;
                    committed.note(
                        self.shard,
                        &Bringer {
                            address: self.injection.client,
                            name: &self.injection.bringer,
                            protocol: "HTTP",
                            tls: None,
                            certificate: None,
                        },
                    );
                    let reply = self.session.on_commit(committed.outcome);
                    return committed.outcome.map_err(|refusal| self.declined(refusal)).inspect(|_| {
                        let success = matches!(reply, Action::Reply(reply) if reply.code() == 250);
                        assert!(success, "a success without a 250");
                    });
                }
                Action::Read
                | Action::ReceiveChunk { .. }
                | Action::DiscardChunk { .. }
                | Action::Release(_)
                | Action::Fetch(_)
                | Action::Reverse(_)
                | Action::Impersonate(_)
                | Action::StartTls(_) => {
                    unreachable!("nobody has asked the session for that")
                }
            };
        }
    }

    /// What a client would say next.
    fn next_line(&mut self) -> Vec<u8> {
        let Injection { client, reverse_path, recipients, content, body, utf8, .. } = self.injection;
        let rcpt = |place: usize| format!("RCPT TO:<{}>", recipients[place]).into_bytes();
        let (progress, line) = match self.progress {
            Progress::Greeted => {
                let mut line = b"EHLO ".to_vec();
                address_literal(&mut line, client.ip());
                (Progress::Ehlo, line)
            }
            Progress::Ehlo => {
                let mut line = format!("MAIL FROM:{reverse_path} SIZE={}", content.len());
                line += match body {
                    BodyType::SevenBit => "",
                    BodyType::EightBitMime => " BODY=8BITMIME",
                    BodyType::BinaryMime => " BODY=BINARYMIME",
                };
                line += match utf8 {
                    Utf8::NotNeeded => "",
                    Utf8::Needed => " SMTPUTF8",
                };
                (Progress::Mail, line.into_bytes())
            }
            Progress::Mail if !recipients.is_empty() => (Progress::Rcpt(0), rcpt(0)),
            Progress::Rcpt(place) if place + 1 < recipients.len() => {
                (Progress::Rcpt(place + 1), rcpt(place + 1))
            }
            Progress::Mail | Progress::Rcpt(_) => (Progress::Data, b"DATA".to_vec()),
            Progress::Data | Progress::Commit => unreachable!("after DATA there is nothing left to say"),
        };
        self.progress = progress;
        line
    }

    async fn judge(&mut self, stage: Stage) -> Action {
        // A key of the configuration is as good as a network of ours: whose it is was found out by the pool.
        let mut verdict = facts::judge(self.shard, self.door, Who::OWN, &self.session, &stage);
        if let (Ok(()), Stage::Rcpt { forward_path: ForwardPath::Address(address), .. }) = (verdict, &stage) {
            let before = self.session.envelope().map_or(0, |envelope| envelope.recipients.len());
            verdict = consent::recipient(self.shard, self.tenant(), address, before);
        }
        if verdict.is_ok()
            && let Some(query) = facts::query(self.shard, &stage)
        {
            verdict = facts::verify(self.shard, query).await;
        }
        self.session.on_verdict(stage, verdict)
    }

    async fn receive(&mut self) -> Verdict {
        let intake = Intake::chunks(header_limits(self.door), self.door.limits.message_size_max);
        let mut receiving = Receiving::begin(self.shard, self.door, intake, Standing::Own, Listing::Spared);
        let content = &self.injection.content;
        let mut at = 0;
        while at < content.len() {
            let end = content.len().min(at + PIECE);
            receiving.intake.receive_slice(content.slice(at..end));
            at = end;
            if receiving.is_large(self.shard) {
                receiving.spill(self.origin()).await;
            } else if at < content.len() {
                ring::yield_now().await;
            }
        }
        let verdict = receiving.judge(self.origin());
        match verdict {
            Ok(()) => self.receiving = Some(receiving),
            Err(_) => receiving.drop_draft(self.shard),
        }
        verdict
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            shard: self.shard,
            door: self.door,
            session: &self.session,
            by: By::Http,
            client: Some(self.injection.client.ip()),
            client_port: Some(self.injection.client.port()),
            client_host: None,
            tls: None,
            tenant: self.tenant(),
            checks: None,
        }
    }

    /// Whose the message is.
    fn tenant(&self) -> TenantId {
        let asker = Asker { address: None, certificate: None };
        let Injection { bringer, reverse_path, .. } = self.injection;
        self.shard.settings().policy.tenant(asker, Some(bringer), reverse_path)
    }

    /// Counts and logs the refusal as `connection` does, and says it to the pool.
    fn declined(&self, refusal: Refusal) -> Declined {
        self.shard.metrics.inbound.refusal(refusal.label()).one();
        let (stage, recipient) = match self.progress {
            Progress::Greeted | Progress::Ehlo => ("ehlo", None),
            Progress::Mail => ("mail", None),
            Progress::Rcpt(place) => ("rcpt", Some(place)),
            Progress::Data | Progress::Commit => ("data", None),
        };
        let status = refusal.status();
        if Refused::enabled() {
            let Injection { bringer, client, reverse_path, recipients, .. } = self.injection;
            let from = reverse_path.to_string();
            let to = recipient.map(|place| format!("<{}>", recipients[place]));
            Refused {
                client: *client,
                helo: Some(bringer),
                orig_client: None,
                orig_helo: None,
                orig_id: None,
                stage,
                from: Some(&from),
                to: to.as_deref(),
                code: refusal.code(),
                status: Some(&status),
                reason: refusal.label(),
            }
            .emit(ring::clock::unix_micros());
        }
        let cause = self.cause(refusal);
        let recipient = recipient.filter(|_| cause == Cause::Message);
        let (code, label, text) = (refusal.code(), refusal.label(), refusal.when());
        Declined { cause, recipient, code, status, label, text }
    }

    fn cause(&self, refusal: Refusal) -> Cause {
        if refusal == Refusal::QuotaUsedUp {
            Cause::UsedUp
        } else if refusal == Refusal::Busy || refusal == Refusal::RateLimited {
            Cause::Busy
        } else if refusal == Refusal::StorageFull {
            Cause::Full
        } else if refusal == Refusal::StorageFailed {
            if self.progress == Progress::Commit { Cause::Lost } else { Cause::Failed }
        } else if refusal == Refusal::ShuttingDown {
            Cause::Stopping
        } else if refusal == Refusal::ConnectionRefused {
            Cause::Denied
        } else if refusal == Refusal::MessageTooBig {
            Cause::TooLarge
        } else if refusal == Refusal::TooManyRecipients || refusal.code() >= 500 {
            // More recipients than a transaction may have is no matter of time here: there is one transaction.
            Cause::Message
        } else {
            Cause::Later
        }
    }
}
