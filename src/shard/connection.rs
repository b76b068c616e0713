//! One inbound connection, from greeting to close: the whole inbound data path.

mod strangers;

use std::{collections::VecDeque, fmt::Display, io, mem, rc::Rc, time::Duration};

use bridge::{Call, Parcel};
use dns::Name;
use mail::{Domain, Envelope, ForwardPath, Node, ReversePath, TenantId, Upstream};
use policy::{Listing, Query, Reverse, Standing};
use ring::{Peer, Task};
use smtp::{Action, Claim, Claims, Line, LineScanner, Owed, Refusal, Reply, Session, Stage, Verdict};
use tls::Fingerprint;
use tokio::sync::mpsc;
use watch::{
    ConnectionRefusal,
    events::{Asked, Called, Connected, Disconnected, Fetched, Impersonated, Refused},
};

use crate::{
    accept::{client_address, secure},
    admission::note_refused,
    admission::{Admitted, note_turned},
    consent,
    crowd::Place,
    facts::{self, Who},
    fetch,
    intake::{Found, Intake},
    receiving::{Bringer, Committed, Origin, Receiving, header_limits},
    release,
    reverse::{self, AddressName},
    screening::Screened,
    settings::{Door, TlsStart, to_usize},
    shard::{Keep, Shard},
    socket::{Socket, Unread},
    trace::By,
};

/// Does what the session asks until one side hangs up.
///
/// Thousands of connections do nothing, and each keeps what this holds meanwhile: so the connection is made before the
/// future, which then has it once, and whatever takes more than a line to wait for is boxed.
pub(crate) fn serve<'a>(
    shard: &'a Rc<Shard>,
    door: &'a Rc<Door>,
    socket: Box<Socket>,
    admitted: &'a Admitted,
    place: Place,
) -> impl Future<Output = ()> + 'a {
    let (mut session, greeting) = Session::open(door.options());
    session.grant(facts::granted(shard, door, socket.caller()));
    let began = ring::clock::now();
    let client = client_address(socket.peer());
    let proxy = door.proxies.is_some().then(|| client_address(socket.stream().peer()));
    Connected { client, listener: &door.name, proxy }.emit(ring::clock::unix_micros());
    let mut connection = Connection {
        shard,
        door,
        admitted,
        place,
        session,
        lines: LineScanner::new(to_usize(door.limits.command_line_max)),
        until: began + door.timeouts.session,
        output_max: shard.settings().send_max,
        socket,
        receiving: None,
        pending: VecDeque::new(),
        messages: 0,
        refusals: 0,
        reverse: AddressName::UNASKED,
        screened: None,
        parcels: None,
    };
    let greeting = Box::new(greeting);
    // Another one than that of the connection has to be kept.
    let told = proxy.map(|_| Box::new(client));
    async move {
        let mut stop = if connection.place.is_stranger() {
            match Box::pin(connection.before_greeting(*greeting)).await {
                Ok(action) => connection.advance(action),
                Err(ending) => Stop::End(ending),
            }
        } else {
            connection.advance(*greeting)
        };
        let ending = loop {
            let next = match stop {
                Stop::Line => connection.next_line().await,
                Stop::Slow(slow) => Box::pin(connection.perform(slow)).await,
                Stop::End(ending) => break ending,
            };
            stop = match next {
                Ok(action) => connection.advance(action),
                Err(ending) => break ending,
            };
        };
        // What was begun is ours, whether anybody hears of it or not.
        Box::pin(connection.finish()).await;
        connection.drop_receiving();
        let Connection { socket, messages, until, .. } = connection;
        let client = told.map_or_else(|| client_address(socket.stream().peer()), |client| *client);
        let time = (ring::clock::now() + door.timeouts.session).saturating_sub(until);
        Disconnected { client, reason: ending.label(), messages, time }.emit(ring::clock::unix_micros());
        match ending {
            Ending::Quit | Ending::Dismissed | Ending::Reversed => Box::pin(socket.close()).await,
            Ending::Closed | Ending::TimedOut | Ending::Failed => {}
        }
    }
}

struct Connection<'a> {
    shard: &'a Rc<Shard>,
    door: &'a Rc<Door>,
    admitted: &'a Admitted,
    /// Its place in the counts of the host.
    place: Place,
    session: Session,
    socket: Box<Socket>,
    lines: LineScanner,
    /// When the session ends, however busy it is.
    until: Duration,
    /// So much may wait to be sent before no more is made.
    output_max: usize,
    /// The mail data being received.
    receiving: Option<Box<Receiving>>,
    /// Messages that are being made durable while what the client sent behind them is read, in order.
    pending: VecDeque<Pending>,
    messages: u64,
    /// The name of the client's address.
    reverse: AddressName,
    /// What was found out about it for the transaction that is open.
    screened: Option<Box<Screened>>,
    /// What it has come for, until it is the server.
    parcels: Option<mpsc::Receiver<Parcel>>,
    /// Replies that refused something since the last message.
    refusals: u32,
}

/// How far a session went without waiting for anybody.
enum Stop {
    /// To the end of what the client has sent.
    Line,
    /// Something takes time. Boxed: an idle connection should not carry the room for it.
    Slow(Box<Slow>),
    /// To the end of the connection.
    End(Ending),
}

/// What takes time.
enum Slow {
    Do(Action),
    /// Somebody is asked whether there is the recipient.
    Verify(Stage, Query),
    /// Something is found out about the client first.
    Screen(Stage, Option<Query>),
}

/// A message that the session does not wait for.
struct Pending {
    owed: Owed,
    commit: Commit,
    /// The replies to what came after it.
    behind: Vec<u8>,
}

/// A commit under way. It runs to its end even when nobody waits for it any more.
struct Commit(Option<Task<Committed>>);

impl Commit {
    async fn end(mut self) -> Committed {
        self.0.take().expect("it is awaited once").await
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

/// So many messages of one client are made durable at a time.
const PENDING_MAX: usize = 64;

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The client said goodbye.
    Quit,
    /// We did.
    Dismissed,
    /// The client went away.
    Closed,
    /// It took too long, even to take our last reply.
    TimedOut,
    /// The client was the server, and has its mail.
    Reversed,
    /// The connection broke, or what came was not TLS.
    Failed,
}

impl Ending {
    const fn label(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Dismissed => "dismissed",
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::Reversed => "reversed",
            Self::Failed => "error",
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        if kind == io::ErrorKind::TimedOut {
            Self::TimedOut
        } else if gone.contains(&kind) {
            Self::Closed
        } else {
            Self::Failed
        }
    }
}

impl Connection<'_> {
    /// Goes on for as long as nothing has to be waited for.
    fn advance(&mut self, mut action: Action) -> Stop {
        loop {
            if self.waits_for_commits(&action) {
                return Stop::Slow(Box::new(Slow::Do(action)));
            }
            action = match action {
                Action::Reply(reply) if reply.refusal().is_some() && self.has_annoyed() => {
                    return Stop::Slow(Box::new(Slow::Do(Action::Reply(reply))));
                }
                Action::Reply(reply) => {
                    self.reply(&reply);
                    match self.line_at_hand() {
                        Some(action) => action,
                        None => return Stop::Line,
                    }
                }
                Action::Read => match self.line_at_hand() {
                    Some(action) => action,
                    None => return Stop::Line,
                },
                Action::Judge(stage) => match self.judge(stage) {
                    Ok(action) => action,
                    Err(slow) => return Stop::Slow(slow),
                },
                Action::Commit(envelope) if !self.is_alone() => self.begin_commit(envelope),
                Action::Close(reply) => {
                    self.reply(&reply);
                    let quit = reply.code() == 221;
                    return Stop::End(if quit { Ending::Quit } else { Ending::Dismissed });
                }
                Action::Receive(_)
                | Action::ReceiveChunk { .. }
                | Action::DiscardChunk { .. }
                | Action::Commit(_)
                | Action::Impersonate(_)
                | Action::Release(_)
                | Action::Fetch(_)
                | Action::Reverse(_)
                | Action::StartTls(_) => return Stop::Slow(Box::new(Slow::Do(action))),
            };
        }
    }

    /// Whether there is nothing else to do for the client while its message is made durable.
    fn is_alone(&mut self) -> bool {
        self.socket.input().is_empty() && self.pending.is_empty()
    }

    /// Does what takes time.
    async fn perform(&mut self, slow: Box<Slow>) -> Result<Action, Ending> {
        let action = match *slow {
            Slow::Do(action) => action,
            Slow::Verify(stage, query) => {
                let verdict = Box::pin(facts::verify(self.shard, query)).await;
                return Ok(self.conclude(stage, verdict));
            }
            Slow::Screen(stage, query) => {
                let verdict = Box::pin(self.screen(&stage, query)).await;
                return Ok(self.conclude(stage, verdict));
            }
        };
        if self.waits_for_commits(&action) {
            Box::pin(self.settle()).await?;
        }
        match action {
            Action::Reply(reply) if reply.refusal().is_some() && self.has_annoyed() => {
                Box::pin(self.hold_back()).await;
                self.reply(&reply);
                Ok(Action::Read)
            }
            Action::Receive(reply) => self.receive_data(&reply).await,
            Action::ReceiveChunk { size, first, last } => self.receive_chunk(size, first, last).await,
            Action::DiscardChunk { size } => self.discard_chunk(size).await,
            Action::Commit(envelope) if self.is_alone() => Ok(Box::pin(self.commit(envelope)).await),
            Action::Impersonate(claims) => Ok(Box::pin(self.impersonate(&claims)).await),
            Action::Release(node) => Ok(Box::pin(self.release(&node)).await),
            Action::Fetch(domains) => Ok(Box::pin(self.fetch(domains)).await),
            Action::Reverse(reply) => {
                self.reply(&reply);
                Err(Box::pin(self.reverse_roles()).await)
            }
            Action::StartTls(reply) => Box::pin(self.start_tls(&reply)).await,
            // It waited for commits alone.
            Action::Reply(_) | Action::Read | Action::Judge(_) | Action::Commit(_) | Action::Close(_) => {
                Ok(action)
            }
        }
    }

    /// Waits before a stranger is greeted for as long as is configured; answers what comes in place of the greeting when
    /// the client did not.
    async fn before_greeting(&mut self, greeting: Action) -> Result<Action, Ending> {
        self.look_ahead(None);
        self.reverse = reverse::look_up(self.shard, self.door, self.socket.peer().ip()).await;
        let delay = self.door.timeouts.greeting_delay;
        if delay.is_zero() {
            return Ok(greeting);
        }
        self.socket.stream().deadline().set(after(delay));
        // It may have come in one piece with what a proxy or the handshake needs.
        let has_talked = !self.socket.input().is_empty();
        match if has_talked { Ok(1) } else { self.socket.fill().await } {
            Ok(0) => Err(Ending::Closed),
            Ok(_) => {
                let peer = self.socket.peer();
                note_refused(self.shard, peer, Refusal::EarlyTalker, ConnectionRefusal::Protocol);
                Ok(self.session.on_early_talk())
            }
            // As it should be; or we are woken to stop, which is told behind the greeting.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(greeting),
            Err(error) => Err(error.into()),
        }
    }

    /// What the lists said of the client when it came.
    const fn listing(&self) -> Listing {
        if self.place.is_stranger() { Listing::Unlisted } else { Listing::Spared }
    }

    /// Whether so much was refused that the next refusal has to be waited for.
    fn has_annoyed(&self) -> bool {
        self.refusals >= self.door.limits.tarpit_after && self.place.is_stranger()
    }

    /// Lets time pass, in short sleeps: a stop does not wait for it.
    async fn hold_back(&self) {
        const SLEEP_MAX: Duration = Duration::from_secs(1);
        let until = after(self.door.timeouts.tarpit);
        if !self.door.timeouts.tarpit.is_zero() {
            self.shard.metrics.inbound.tarpitted.one();
        }
        loop {
            let left = until.saturating_sub(ring::clock::now());
            if left.is_zero() || self.shard.is_stopping() {
                return;
            }
            ring::sleep(left.min(SLEEP_MAX)).await;
        }
    }

    fn reply(&mut self, reply: &Reply) {
        if let Some(refusal) = reply.refusal() {
            self.shard.metrics.inbound.refusal(refusal.label()).one();
            // Who comes for the first time has done nothing wrong.
            self.refusals = self.refusals.saturating_add(u32::from(refusal != Refusal::Greylisted));
        }
        match self.pending.back_mut() {
            Some(pending) => reply.write_to(&mut pending.behind),
            None => self.socket.send(|output| reply.write_to(output)),
        }
    }

    /// Reads one command line and tells the session.
    async fn next_line(&mut self) -> Result<Action, Ending> {
        if self.socket.output_len() > self.output_max {
            self.flush().await?;
        }
        // For the command as a whole: a byte now and then is not patience.
        let until = after(self.door.timeouts.command);
        loop {
            if let Some(action) = self.scan_line() {
                return Ok(action);
            }
            if let Some(action) = self.fill_or(until, Session::on_timeout).await? {
                return Ok(action);
            }
        }
    }

    /// The next command, if it is here already and there is room for the reply to it.
    fn line_at_hand(&mut self) -> Option<Action> {
        if self.socket.output_len() > self.output_max { None } else { self.scan_line() }
    }

    /// Looks for a command in what was received.
    fn scan_line(&mut self) -> Option<Action> {
        loop {
            let input = self.socket.input();
            match self.lines.find(input.bytes()) {
                Line::Complete { len } => {
                    let line = &input.bytes()[..len - 2];
                    self.shard.metrics.inbound.commands.of(facts::verb(line)).one();
                    let action = self.session.on_line(line);
                    input.consume(len);
                    self.note_limit(&action);
                    return Some(action);
                }
                Line::Excess { len } => input.consume(len),
                Line::TooLong { len } => {
                    input.consume(len);
                    let action = self.session.on_line_too_long();
                    self.note_limit(&action);
                    return Some(action);
                }
                Line::Endless => {
                    let action = self.session.on_line_endless();
                    self.note_limit(&action);
                    return Some(action);
                }
                Line::Partial => return None,
            }
        }
    }

    /// Waits for more input. What comes of waiting in vain is an action of the session: a 421.
    async fn fill(&mut self, until: Duration) -> Result<Option<Action>, Ending> {
        self.fill_or(until, Session::on_timeout).await
    }

    /// As [`Self::fill`], with what is late.
    #[expect(clippy::manual_async_fn, reason = "an async function keeps its arguments twice")]
    fn fill_or(
        &mut self,
        until: Duration,
        late: fn(&mut Session) -> Action,
    ) -> impl Future<Output = Result<Option<Action>, Ending>> {
        async move {
            if self.shard.is_stopping() && !self.in_transaction() {
                return Ok(Some(self.session.on_shutdown()));
            }
            if !self.pending.is_empty() {
                Box::pin(self.settle()).await?;
            }
            self.flush().await?;
            let until = until.min(self.until);
            self.socket.stream().deadline().set(until);
            match self.socket.fill().await {
                Ok(0) => Err(Ending::Closed),
                Ok(_) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if self.shard.is_stopping() && ring::clock::now() < until {
                        // We were woken to look; a transaction in flight may go on for as long as the grace lasts.
                        return if self.in_transaction() {
                            Ok(None)
                        } else {
                            Ok(Some(self.session.on_shutdown()))
                        };
                    }
                    // Room for the last reply to leave.
                    self.socket.stream().deadline().set_after(self.door.timeouts.send);
                    let action = late(&mut self.session);
                    self.note_limit(&action);
                    Ok(Some(action))
                }
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Sends the replies that have gathered. Who does not take them gets no more.
    async fn flush(&mut self) -> Result<(), Ending> {
        if self.socket.output_len() > 0 {
            self.socket.stream().deadline().set(after(self.door.timeouts.send).min(self.until));
            self.socket.flush().await?;
        }
        Ok(())
    }

    fn in_transaction(&self) -> bool {
        self.session.envelope().is_some() || self.receiving.is_some()
    }

    /// Judges a stage, unless somebody has to be asked first.
    fn judge(&mut self, mut stage: Stage) -> Result<Action, Box<Slow>> {
        // Whoever always has more to say is told between two transactions, as everybody is.
        if matches!(stage, Stage::Mail { .. }) && self.shard.is_stopping() {
            return Ok(self.session.on_shutdown());
        }
        let standing = self.socket.caller().standing(&self.shard.settings().policy);
        self.session.on_time(facts::now());
        facts::limit(standing, &mut stage);
        let listing = self.listing();
        let (address, reverse) = (self.socket.peer().ip(), self.reverse.found);
        let who = Who { standing, listing, address, reverse };
        let verdict = facts::judge(self.shard, self.door, who, &self.session, &stage);
        let verdict = verdict.and_then(|()| self.consent(&stage)).and_then(|()| self.screening(&stage));
        let query = verdict.ok().and_then(|()| facts::query(self.shard, &stage));
        let is_screened = verdict.is_ok() && matches!(stage, Stage::Rcpt { .. }) && self.wants_screening();
        // The lists have been asked for the recipient before: what else is there may take no time.
        let is_known = self.screened.is_some() && self.door.grey.is_none();
        match query {
            query if is_screened && !is_known => Err(Box::new(Slow::Screen(stage, query))),
            None => Ok(self.conclude(stage, verdict)),
            Some(query) => Err(Box::new(Slow::Verify(stage, query))),
        }
    }

    /// Tells the session what became of a stage.
    fn conclude(&mut self, stage: Stage, verdict: Verdict) -> Action {
        let verdict = verdict.and_then(|()| facts::pace(self.door, &self.place, &stage));
        if let Err(refusal) = verdict {
            let (name, forward_path) = match &stage {
                Stage::Ehlo { .. } => ("ehlo", None),
                Stage::Mail { .. } => ("mail", None),
                Stage::Rcpt { forward_path, .. } => ("rcpt", Some(forward_path)),
                Stage::Data { .. } => ("data", None),
            };
            self.note_refusal(name, refusal, forward_path);
            self.learn_refusal(refusal);
        } else if let Stage::Mail { reverse_path, .. } = &stage {
            self.screened = None;
            self.look_ahead(Some(reverse_path));
        }
        let action = self.session.on_verdict(stage, verdict);
        if let Action::Close(_) = &action {
            self.note_limit(&action);
        }
        match (action, &self.screened) {
            (Action::Reply(reply), Some(screened)) => Action::Reply(screened.explain(reply)),
            (action, _) => action,
        }
    }

    async fn receive_data(&mut self, reply: &Reply) -> Result<Action, Ending> {
        self.reply(reply);
        let intake = Intake::data(header_limits(self.door), self.door.limits.message_size_max);
        self.begin(intake);
        if let Some(action) = self.receive().await? {
            return Ok(action);
        }
        let outcome = self.judge_content();
        Ok(self.session.on_data_end(outcome))
    }

    async fn receive_chunk(&mut self, size: u64, first: bool, last: bool) -> Result<Action, Ending> {
        if first || self.receiving.is_none() {
            let intake = Intake::chunks(header_limits(self.door), self.door.limits.message_size_max);
            self.begin(intake);
        }
        self.receiving.as_mut().expect(RECEIVING).intake.begin_chunk(size);
        if size > 0
            && let Some(action) = self.receive().await?
        {
            return Ok(action);
        }
        let outcome = if last { self.judge_content() } else { Ok(()) };
        Ok(self.session.on_chunk_end(outcome))
    }

    async fn discard_chunk(&mut self, mut size: u64) -> Result<Action, Ending> {
        self.drop_receiving();
        let (began, whole) = (ring::clock::now(), size);
        while size > 0 {
            let input = self.socket.input();
            let len = usize::try_from(size).map_or(input.len(), |size| size.min(input.len()));
            input.consume(len);
            size -= len as u64;
            if size > 0
                && let Some(action) = self.fill_with_data(began, whole - size).await?
            {
                return Ok(action);
            }
        }
        let action = self.session.on_chunk_end(Ok(()));
        self.note_limit(&action);
        Ok(action)
    }

    /// Reads mail data to its end, or to the end of its chunk; an action when there was none.
    async fn receive(&mut self) -> Result<Option<Action>, Ending> {
        let began = ring::clock::now();
        let before = self.octets();
        loop {
            if self.socket.input().is_empty()
                && let Some(action) = self.fill_with_data(began, self.octets() - before).await?
            {
                self.drop_receiving();
                return Ok(Some(action));
            }
            let receiving = self.receiving.as_mut().expect(RECEIVING);
            if receiving.intake.receive(self.socket.input()) == Found::End {
                return Ok(None);
            }
            if receiving.is_large(self.shard) {
                Box::pin(self.spill()).await;
            }
        }
    }

    /// Octets of mail data so far.
    fn octets(&self) -> u64 {
        self.receiving.as_ref().expect(RECEIVING).intake.size()
    }

    /// Waits for more mail data, of which so much has come since then.
    async fn fill_with_data(&mut self, began: Duration, octets: u64) -> Result<Option<Action>, Ending> {
        let until = after(self.door.timeouts.data_block);
        match self.door.too_slow_at(began, octets) {
            Some(too_slow) if too_slow < until.min(self.until) => {
                self.fill_or(too_slow, Session::on_too_slow).await
            }
            Some(_) | None => self.fill(until).await,
        }
    }

    fn begin(&mut self, intake: Intake) {
        self.drop_receiving();
        let standing = self.socket.caller().standing(&self.shard.settings().policy);
        let mut receiving = Receiving::begin(self.shard, self.door, intake, standing, self.listing());
        if let Some(screened) = &self.screened {
            receiving.mark(screened.mark(self.shard.settings().hostname.as_str()));
        }
        self.receiving = Some(Box::new(receiving));
    }

    fn drop_receiving(&mut self) {
        if let Some(receiving) = self.receiving.take() {
            receiving.drop_draft(self.shard);
        }
    }

    /// Writes what is held to the journal, so that it needs no memory.
    async fn spill(&mut self) {
        let tls = self.socket.tls_session();
        let client_port = port(self.socket.peer());
        let (door, listing) = (self.door, self.listing());
        let checks = door.checks_of(listing);
        let tenant =
            self.session.envelope().map_or(TenantId::NOBODY, |envelope| self.tenant(&envelope.reverse_path));
        let receiving = self.receiving.as_mut().expect(RECEIVING);
        let origin = Origin {
            shard: self.shard,
            door: self.door,
            session: &self.session,
            by: By::Smtp,
            client: self.socket.peer().ip(),
            client_port,
            client_host: self.reverse.name.as_ref().map(Name::as_str),
            tls: tls.as_ref(),
            tenant,
            checks,
        };
        receiving.spill(origin).await;
    }

    /// Judges what was received as a whole.
    fn judge_content(&mut self) -> Result<(), Refusal> {
        let tls = self.socket.tls_session();
        let client_port = port(self.socket.peer());
        let (door, listing) = (self.door, self.listing());
        let checks = door.checks_of(listing);
        let tenant =
            self.session.envelope().map_or(TenantId::NOBODY, |envelope| self.tenant(&envelope.reverse_path));
        let receiving = self.receiving.as_mut().expect(RECEIVING);
        let verdict = receiving.judge(Origin {
            shard: self.shard,
            door: self.door,
            session: &self.session,
            by: By::Smtp,
            client: self.socket.peer().ip(),
            client_port,
            client_host: self.reverse.name.as_ref().map(Name::as_str),
            tls: tls.as_ref(),
            tenant,
            checks,
        });
        if let Err(refusal) = verdict {
            self.note_refusal("data", refusal, None);
            self.drop_receiving();
        }
        verdict
    }

    /// Makes the message durable; only then is there a 250.
    async fn commit(&mut self, mut envelope: Envelope) -> Action {
        self.assign(&mut envelope);
        let receiving = self.receiving.take().expect("mail data was received");
        let committed = receiving.commit(self.shard, envelope, Keep::WhileRoom).await;
        self.note(&committed);
        self.session.on_commit(committed.outcome)
    }

    /// Whose a client's mail is.
    fn tenant(&self, reverse_path: &ReversePath) -> TenantId {
        let (caller, settings) = (self.socket.caller(), self.shard.settings());
        match caller.standing(&settings.policy) {
            Standing::Own => settings.policy.tenant(caller.asker(), None, reverse_path),
            Standing::Stranger => TenantId::NOBODY,
        }
    }

    /// Says whose mail it is, or of which stranger.
    fn assign(&self, envelope: &mut Envelope) {
        envelope.handling.tenant = self.tenant(&envelope.reverse_path);
        envelope.handling.origin = self.learned_of();
    }

    /// Whether the tenant may send to a recipient.
    fn consent(&self, stage: &Stage) -> Verdict {
        let Stage::Rcpt { forward_path: ForwardPath::Address(address), .. } = stage else { return Ok(()) };
        match self.session.envelope() {
            Some(envelope) if !self.shard.settings().consent.is_idle() => {
                let tenant = self.tenant(&envelope.reverse_path);
                consent::recipient(self.shard, tenant, address, envelope.recipients.len())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Begins to make the message durable. The client has sent more already, and what it sent is read meanwhile: so
    /// the messages of one client share a group as well.
    fn begin_commit(&mut self, mut envelope: Envelope) -> Action {
        self.assign(&mut envelope);
        let receiving = self.receiving.take().expect("mail data was received");
        let shard = self.shard.clone();
        let commit = async move { receiving.commit(&shard, envelope, Keep::WhileRoom).await };
        let (owed, action) = self.session.on_commit_begun();
        let commit = Commit(Some(ring::spawn_task(commit)));
        self.pending.push_back(Pending { owed, commit, behind: Vec::new() });
        action
    }

    /// Whether what the session wants now is for after the commits that are under way.
    fn waits_for_commits(&self, action: &Action) -> bool {
        let Some(last) = self.pending.back() else { return false };
        match action {
            // The client gets another name, another channel, or none.
            Action::Judge(Stage::Ehlo { .. })
            | Action::Release(_)
            | Action::Fetch(_)
            | Action::Reverse(_)
            | Action::Impersonate(_)
            | Action::StartTls(_)
            | Action::Close(_) => true,
            Action::Commit(_) => self.pending.len() >= PENDING_MAX,
            Action::Reply(reply) => {
                last.behind.len() > self.output_max || reply.refusal().is_some() && self.has_annoyed()
            }
            Action::Read
            | Action::Judge(_)
            | Action::Receive(_)
            | Action::ReceiveChunk { .. }
            | Action::DiscardChunk { .. } => false,
        }
    }

    /// Waits for the commits that are under way, and has the replies ready to be sent.
    async fn settle(&mut self) -> Result<(), Ending> {
        while let Some(Pending { owed, commit, behind }) = self.pending.pop_front() {
            let committed = commit.end().await;
            self.note(&committed);
            let (reply, ending) = match self.session.on_owed(owed, committed.outcome) {
                Action::Reply(reply) => (Some(reply), None),
                Action::Read => (None, None),
                Action::Close(reply) => (Some(reply), Some(Ending::Dismissed)),
                Action::Judge(_)
                | Action::Receive(_)
                | Action::ReceiveChunk { .. }
                | Action::DiscardChunk { .. }
                | Action::Commit(_)
                | Action::Release(_)
                | Action::Fetch(_)
                | Action::Reverse(_)
                | Action::Impersonate(_)
                | Action::StartTls(_) => unreachable!("a commit is answered"),
            };
            // In its place, before what was said behind it.
            let others = mem::take(&mut self.pending);
            reply.iter().for_each(|reply| self.reply(reply));
            self.pending = others;
            if let Some(ending) = ending {
                return Err(ending);
            }
            self.socket.send(|output| output.extend_from_slice(&behind));
        }
        Ok(())
    }

    /// Waits for the commits that are under way, whose client is gone.
    async fn finish(&mut self) {
        while let Some(pending) = self.pending.pop_front() {
            let committed = pending.commit.end().await;
            self.note(&committed);
        }
    }

    /// Counts and logs a message whose commit has ended.
    fn note(&mut self, committed: &Committed) {
        match committed.outcome {
            Ok(_) => {
                self.messages += 1;
                self.refusals = 0;
            }
            Err(refusal) => self.note_refusal("data", refusal, None),
        }
        self.learn(committed);
        let tls = self.socket.tls_session();
        committed.note(
            self.shard,
            &Bringer {
                address: client_address(self.socket.peer()),
                name: self.session.client().map_or("", |(_, name)| name),
                protocol: self.session.protocol(committed.utf8()),
                tls: tls.as_ref(),
                certificate: self.socket.caller().certificate,
            },
        );
    }

    /// Takes the client for another one, who has to be let in as if it had connected itself.
    async fn impersonate(&mut self, claims: &Claims) -> Action {
        let own = self.socket.peer();
        self.socket.set_caller(self.socket.caller().speaking_for(claims));
        let caller = self.socket.caller();
        let name = |name: &str| Name::parse(name).ok();
        self.reverse = match (&claims.name, &claims.address) {
            (Claim::Known(known), _) => AddressName { found: Reverse::Confirmed, name: name(known) },
            (Claim::Unavailable, _) => AddressName { found: Reverse::Nameless, name: None },
            (Claim::Unknown, _) => AddressName { found: Reverse::Unknown, name: None },
            (Claim::Kept, Claim::Known(_)) => reverse::look_up(self.shard, self.door, caller.peer.ip()).await,
            (Claim::Kept, Claim::Kept | Claim::Unavailable | Claim::Unknown) => {
                mem::replace(&mut self.reverse, AddressName::UNASKED)
            }
        };
        let helo = match &claims.helo {
            Claim::Known(helo) => Some(&**helo),
            Claim::Kept | Claim::Unavailable | Claim::Unknown => None,
        };
        Impersonated {
            client: client_address(own),
            other: client_address(caller.peer),
            name: self.reverse.name.as_ref().map(Name::as_str),
            helo,
        }
        .emit(ring::clock::unix_micros());
        let (place, verdict) = self.admitted.judge(self.door, caller);
        (self.place, self.screened) = (place, None);
        if let Err(turned) = verdict {
            note_turned(self.shard, caller.peer, turned);
        }
        let granted = facts::granted(self.shard, self.door, caller);
        self.session.on_impersonated(claims, granted, verdict.map_err(|turned| turned.refusal()))
    }

    /// Has waiting mail tried, if it is the client's.
    async fn release(&mut self, node: &Node) -> Action {
        let outcome = match facts::may_release(self.shard, self.socket.caller(), node) {
            Ok(()) => release::everywhere(self.shard, node).await,
            Err(refusal) => Err(refusal),
        };
        let action = self.session.on_released(node, outcome);
        if let Action::Reply(reply) = &action {
            let client = client_address(self.socket.peer());
            let shown = self.socket.caller().shown;
            let cert = shown.as_ref().map(|shown| shown as &dyn Display);
            Asked { client, cert, node, code: reply.code() }.emit(ring::clock::unix_micros());
        }
        action
    }

    /// Looks for mail that the client has come for, if it is the client's.
    async fn fetch(&mut self, domains: Vec<Domain>) -> Action {
        let shown = self.socket.caller().shown;
        let outcome = match shown {
            None => Err(Refusal::AuthenticationRequired),
            Some(Fingerprint(certificate)) => {
                match self.shard.settings().policy.atrn(certificate, &domains) {
                    Ok(()) => {
                        fetch::everywhere(self.shard, &Call { certificate, domains: domains.clone() }).await
                    }
                    Err(refusal) => Err(refusal),
                }
            }
        };
        let (outcome, parcels) = match outcome {
            Ok(parcels) => (Ok(()), Some(parcels)),
            Err(refusal) => (Err(refusal), None),
        };
        self.parcels = parcels;
        let action = self.session.on_called_for(outcome);
        if let Action::Reply(reply) | Action::Reverse(reply) | Action::Close(reply) = &action {
            let domains: Vec<_> = domains.iter().map(Domain::as_str).collect();
            let domains = if domains.is_empty() { "all".to_owned() } else { domains.join(",") };
            let cert = shown.as_ref().map(|shown| shown as &dyn Display);
            let client = client_address(self.socket.peer());
            Called { client, cert, domains: &domains, code: reply.code() }.emit(ring::clock::unix_micros());
        }
        action
    }

    /// The client is the server from here on.
    async fn reverse_roles(&mut self) -> Ending {
        if let Err(ending) = self.flush().await {
            return ending;
        }
        let Some(parcels) = self.parcels.take() else { return Ending::Dismissed };
        // What is under way when we are to stop is sent to its end, as on other connections on which we are the client.
        self.admitted.leave_alone();
        let fetched = fetch::carry(self.shard, &mut self.socket, parcels).await;
        let (client, messages, nrcpt) =
            (client_address(self.socket.peer()), fetched.messages, fetched.delivered);
        Fetched { client, messages, nrcpt }.emit(ring::clock::unix_micros());
        Ending::Reversed
    }

    async fn start_tls(&mut self, reply: &Reply) -> Result<Action, Ending> {
        self.reply(reply);
        let TlsStart::OnRequest(config) = &self.door.tls else {
            unreachable!("STARTTLS is not offered here")
        };
        let outcome = secure(self.shard, self.door, &mut self.socket, config, Unread::Clear).await;
        // What was scanned of the clear text is gone with it.
        self.lines = LineScanner::new(to_usize(self.door.limits.command_line_max));
        if outcome.is_err() {
            return Err(Ending::Failed);
        }
        // It may have shown a certificate.
        self.session.grant(facts::granted(self.shard, self.door, self.socket.caller()));
        Ok(self.session.on_tls())
    }

    /// Logs that a limit of the session stands against a command.
    fn note_limit(&self, action: &Action) {
        const LIMITS: [(Refusal, &str); 11] = [
            (Refusal::TooManyRecipients, "rcpt"),
            (Refusal::MessageTooBig, "mail"),
            (Refusal::TooSlow, "data"),
            (Refusal::Timeout, "session"),
            (Refusal::LineTooLong, "session"),
            (Refusal::TlsRequired, "session"),
            (Refusal::ForwardingNotAllowed, "session"),
            (Refusal::TooManyErrors, "session"),
            (Refusal::TooManyCommands, "session"),
            (Refusal::TooManyTransactions, "session"),
            (Refusal::LineEndless, "session"),
        ];
        let (Action::Reply(reply) | Action::Close(reply)) = action else { return };
        let Some(refusal) = reply.refusal() else { return };
        if let Some((_, stage)) = LIMITS.iter().find(|(limit, _)| *limit == refusal) {
            self.note_refusal(stage, refusal, None);
        }
    }

    /// Logs a refusal of policy; those of syntax are counted alone.
    fn note_refusal(&self, stage: &'static str, refusal: Refusal, forward_path: Option<&ForwardPath>) {
        if !Refused::enabled() {
            return;
        }
        let envelope = self.session.envelope();
        let from = envelope.map(|envelope| envelope.reverse_path.to_string());
        let to = forward_path.map(ToString::to_string);
        let status = refusal.status();
        let upstream = self.session.upstream();
        let upstream_client = upstream.and_then(Upstream::client);
        Refused {
            client: client_address(self.socket.peer()),
            helo: self.session.client().map(|(_, name)| name),
            orig_client: upstream_client.as_ref().map(|client| client as &dyn Display),
            orig_helo: upstream.and_then(|upstream| upstream.helo.as_deref()),
            orig_id: upstream.and_then(|upstream| upstream.ident.as_deref()),
            stage,
            from: from.as_deref(),
            to: to.as_deref(),
            code: refusal.code(),
            status: Some(&status),
            reason: refusal.label(),
        }
        .emit(ring::clock::unix_micros());
    }
}

/// The port of the client, where it is known.
fn port(peer: Peer) -> Option<u16> {
    match peer {
        Peer::Tcp(address) => Some(address.port()).filter(|port| *port != 0),
        Peer::Unix => None,
    }
}

fn after(patience: Duration) -> Duration {
    ring::clock::now() + patience
}

const RECEIVING: &str = "mail data is received into something";
