//! The list of log events: each is a struct with its fields, and [`emit`](Accepted::emit).
//!
//! By default there is one line per accepted message and one per outcome of a recipient; both carry the
//! queue id, and so does everything between them.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use crate::log::{self, Level};

/// One event of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// As it stands in the line.
    pub name: &'static str,
    /// The room whose level decides whether it is written.
    pub room: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What happened, in a sentence.
    pub help: &'static str,
    /// Its fields in order, and what each says.
    pub fields: &'static [(&'static str, &'static str)],
}

macro_rules! events {
    ($(
        #[doc = $help:literal]
        $level:ident $room:ident $event:ident = $name:ident $(<$life:lifetime>)? {
            $(#[doc = $field_help:literal] $field:ident: $type:ty,)*
        }
    )*) => {
        #[expect(non_camel_case_types, reason = "spelled as the line spells them")]
        enum Place { $($event,)* }

        /// Every event, in the order of the path of a message.
        pub const ALL: &[Event] = &[$(Event {
            name: stringify!($event),
            room: stringify!($room),
            level: Level::$level,
            help: $help.trim_ascii(),
            fields: &[$((stringify!($field), $field_help.trim_ascii())),*],
        }),*];

        $(
            #[doc = $help]
            #[derive(Clone, Copy)]
            pub struct $name $(<$life>)? {
                $(#[doc = $field_help] pub $field: $type,)*
            }

            impl $(<$life>)? $name $(<$life>)? {
                /// Writes the line, with the time it happened in microseconds since 1970.
                pub fn emit(&self, at: u64) {
                    log::write(Place::$event as usize, at, |line| {
                        $(line.field(stringify!($field), &self.$field);)*
                    });
                }

                /// Whether the line would be written: for fields that cost something to know.
                pub fn enabled() -> bool {
                    log::enabled(Place::$event as usize)
                }
            }
        )*
    };
}

events! {
    /// A client connected.
    Debug smtp connected = Connected<'a> {
        /// Who.
        client: SocketAddr,
        /// To which of our listeners.
        listener: &'a str,
        /// The proxy it came by, when it came by one.
        proxy: Option<SocketAddr>,
    }
    /// A client was turned away before its first command.
    Info smtp connection_refused = ConnectionRefused<'a> {
        /// Who.
        client: SocketAddr,
        /// The label of the refusal, as in replies.md.
        reason: &'a str,
        /// What stood against it, as in `ringpost_connections_refused_total`.
        cause: &'a str,
    }
    /// A connection to a listener behind a proxy was closed, since it is not known for whom it is.
    Info smtp proxy_refused = ProxyRefused<'a> {
        /// The other end: a proxy, or somebody who is none.
        peer: SocketAddr,
        /// The listener.
        listener: &'a str,
        /// What is wrong.
        error: &'a str,
    }
    /// Connections wait to be taken: no descriptors or memory are left for them.
    Warn smtp accept_paused = AcceptPaused<'a> {
        /// The shard.
        shard: usize,
        /// The listener.
        listener: &'a str,
        /// What the system said.
        error: &'a str,
    }
    /// Connections are taken again, and none waits.
    Info smtp accept_resumed = AcceptResumed<'a> {
        /// The shard.
        shard: usize,
        /// The listener.
        listener: &'a str,
        /// Since when some waited, in seconds.
        time: Duration,
    }
    /// A TLS handshake failed.
    Info smtp tls_failed = TlsFailed<'a> {
        /// The client, or the next hop.
        peer: SocketAddr,
        /// `in` or `out`.
        side: &'a str,
        /// Why.
        error: &'a str,
    }
    /// A next hop does not let us log in; mail for it waits.
    Warn smtp login_failed = LoginFailed<'a> {
        /// The next hop.
        host: &'a str,
        /// By which credentials.
        credential: &'a str,
        /// Why.
        error: &'a str,
    }
    /// A client has shown a certificate.
    Debug smtp certificate_shown = CertificateShown<'a> {
        /// Who.
        client: SocketAddr,
        /// The listener.
        listener: &'a str,
        /// Its SHA-256, as `relay.certificates` lists it.
        cert: &'a dyn Display,
        /// Whether its holder may relay: yes or no.
        trusted: &'a str,
    }
    /// A command was refused.
    Info smtp refused = Refused<'a> {
        /// Who asked.
        client: SocketAddr,
        /// As what it introduced itself.
        helo: Option<&'a str>,
        /// The client it first came from, as this one says (XFORWARD): name, address, port.
        orig_client: Option<&'a dyn Display>,
        /// As what that one introduced itself.
        orig_helo: Option<&'a str>,
        /// The id that the message had where this client took it.
        orig_id: Option<&'a str>,
        /// The stage: ehlo, mail, rcpt, data, or session when it ends with the refusal.
        stage: &'a str,
        /// The reverse-path, when it was known.
        from: Option<&'a str>,
        /// The forward-path, when it was about one.
        to: Option<&'a str>,
        /// The reply code.
        code: u16,
        /// The enhanced status code.
        status: Option<&'a dyn Display>,
        /// The label of the refusal, as in the metrics.
        reason: &'a str,
    }
    /// A message is ours: it is durable, and its 250 goes out.
    Info smtp accepted = Accepted<'a> {
        /// Its queue id.
        id: &'a dyn Display,
        /// The reverse-path, empty for the null reverse-path.
        from: &'a str,
        /// How many recipients it has.
        nrcpt: usize,
        /// Octets of content.
        size: u64,
        /// Who sent it.
        client: SocketAddr,
        /// As what the client introduced itself.
        helo: &'a str,
        /// The client it first came from, as this one says (XFORWARD): name, address, port.
        orig_client: Option<&'a dyn Display>,
        /// As what that one introduced itself.
        orig_helo: Option<&'a str>,
        /// The id that the message had where this client took it.
        orig_id: Option<&'a str>,
        /// The protocol, as in the Received field (RFC 3848).
        proto: &'a str,
        /// TLS version and cipher, when there was TLS.
        tls: Option<&'a str>,
        /// The SHA-256 of the certificate that the client may relay by, when it has shown one.
        cert: Option<&'a dyn Display>,
        /// The Message-ID, when one was read.
        msgid: Option<&'a str>,
        /// Whose it is, when it is a tenant's.
        tenant: Option<&'a str>,
        /// What it says which campaign it is of, where the operator has named a field for that (`queue.campaign-header`).
        campaign: Option<&'a str>,
        /// Whether its client may send for the reverse-path, where that was looked at: the result of SPF.
        spf: Option<&'a str>,
        /// The best of its signatures, where they were looked at: the result of DKIM.
        dkim: Option<&'a str>,
        /// Whether it is from its author's domain, where that was looked at: the result of DMARC.
        dmarc: Option<&'a str>,
        /// How its list may be left, where that was looked at and it says something of that: one-click, link, mail, unusable.
        unsubscribe: Option<&'a str>,
        /// Signatures that we made.
        signatures: Option<u64>,
    }
    /// Bulk mail of a tenant cannot be left as providers want it (RFC 8058), and is refused, or taken all the same (`tenant.unsubscribe-check`).
    Info smtp unsubscribe_flawed = UnsubscribeFlawed<'a> {
        /// Its queue id.
        id: &'a dyn Display,
        /// Whose it is.
        tenant: &'a str,
        /// The reverse-path, empty for the null reverse-path.
        from: &'a str,
        /// What says that it is bulk mail: list-id, precedence, feedback-id, campaign.
        mark: &'a str,
        /// What is wrong: missing, repeated, too-long, syntax, space, insecure, no-link, several-links, host, example, no-post, post-repeated, post-value, unsigned.
        flaw: &'a str,
        /// What is done: log, refuse.
        action: &'a str,
    }
    /// Something speaks against a message, and more is done than to tell so.
    Info trust doubted = Doubted<'a> {
        /// Its queue id.
        id: &'a dyn Display,
        /// Who brought it.
        client: &'a dyn Display,
        /// Its reverse-path.
        from: &'a str,
        /// The domain of its author, when it has one.
        author: Option<&'a str>,
        /// What speaks against it: spf-fail, spf-softfail, spf-permerror, dkim-fail, dmarc-reject, dmarc-quarantine, author-rule, no-author, deceptive-author, deceptive-name, deceptive-domain, deceptive-fields, irregular-fields, unknown.
        against: &'a str,
        /// What may deceive, where that is what speaks against it.
        tricks: Option<&'a str>,
        /// What is done: tag, quarantine, defer, refuse.
        action: &'a str,
        /// Whether that is only said (`authentication.dry-run`): yes or no.
        dry_run: &'a str,
        /// The result of SPF for the reverse-path.
        spf: &'a str,
        /// The best of its signatures.
        dkim: &'a str,
        /// The result of DMARC.
        dmarc: &'a str,
    }
    /// Lists of the DNS know a stranger, or what it did before weighs something: once for each transaction that comes to a recipient.
    Info trust stranger_listed = StrangerListed<'a> {
        /// Its address, where that is known.
        client: Option<&'a dyn Display>,
        /// The argument of EHLO or HELO.
        helo: Option<&'a str>,
        /// The reverse-path.
        from: &'a str,
        /// What the weights come to.
        score: &'a dyn Display,
        /// Each list with its codes and its weight; and whose reputation weighs how much.
        lists: &'a str,
        /// What is done: accept, tag, quarantine, defer, refuse.
        action: &'a str,
        /// Whether that is only said (`strangers.dry-run`): yes or no.
        dry_run: &'a str,
    }
    /// A stranger who brings mail of a sender to a recipient for the first time, or too soon again, is to come later.
    Info trust greylisted = Greylisted<'a> {
        /// Its address.
        client: &'a dyn Display,
        /// The reverse-path.
        from: &'a str,
        /// The forward-path.
        to: &'a str,
        /// How long it is to wait.
        wait: Duration,
        /// Whether that is only said (`greylist.dry-run`): yes or no.
        dry_run: &'a str,
    }
    /// One that was to come again has come.
    Info trust greylist_passed = GreylistPassed<'a> {
        /// Its address.
        client: &'a dyn Display,
        /// The reverse-path.
        from: &'a str,
        /// The forward-path.
        to: &'a str,
        /// After so long.
        after: Duration,
    }
    /// A list of the DNS is not asked for now, and counts nothing.
    Warn trust list_set_aside = ListSetAside<'a> {
        /// Its name in the configuration.
        list: &'a str,
        /// Why.
        reason: &'a str,
    }
    /// A list of the DNS that was set aside is asked again.
    Info trust list_back = ListBack<'a> {
        /// Its name in the configuration.
        list: &'a str,
    }
    /// A message of ours goes without a signature that it was to have.
    Warn trust unsigned = Unsigned<'a> {
        /// Its queue id.
        id: &'a dyn Display,
        /// The name of the key.
        key: &'a str,
        /// Why.
        error: &'a dyn Display,
    }
    /// A key that the server renews by itself has come further.
    Info trust dkim_key = DkimKey<'a> {
        /// The name of its entry in the configuration.
        key: &'a str,
        /// Whose key it is.
        domain: &'a str,
        /// Where under that domain it is published.
        selector: &'a str,
        /// begun, made, published, shown, signing, retiring, revoking, revoked, leaving or forgotten.
        state: &'a str,
    }
    /// A record of a key is to be published, or taken away, by hand. Told once a day.
    Warn trust dkim_by_hand = DkimByHand<'a> {
        /// The name of the entry of the key.
        key: &'a str,
        /// What is to be done: publish or remove.
        task: &'a str,
        /// Where.
        name: &'a str,
        /// The text, in one string; in a zone it is written in strings of 255 octets.
        record: &'a str,
    }
    /// Mail is signed, or was until now, with a key that the DNS does not show: it fails at those who verify it. Told once a day.
    Error trust dkim_key_unpublished = DkimKeyUnpublished<'a> {
        /// The name of the entry of the key.
        key: &'a str,
        /// Where its record is missing.
        name: &'a str,
        /// What is there; nothing without it.
        found: Option<&'a str>,
        /// What is to be there.
        record: &'a str,
    }
    /// A record of a new key was to be published, and the DNS has not shown it for `dkim-rotation.overdue`; mail is signed as before. Told once a day.
    Error trust dkim_record_overdue = DkimRecordOverdue<'a> {
        /// The name of the entry of the key.
        key: &'a str,
        /// Where it is missing.
        name: &'a str,
        /// The provider that says that it has published it; without it, it is published by hand.
        by: Option<&'a str>,
        /// For how long it has been missing.
        seconds: u64,
        /// What is there; nothing without it.
        found: Option<&'a str>,
        /// What is to be there.
        record: &'a str,
        /// What to look at.
        remedy: &'a str,
    }
    /// Where a new key is to be published there is something else, and is left there. Told once a day.
    Warn trust dkim_in_the_way = DkimInTheWay<'a> {
        /// The name of the entry of the key.
        key: &'a str,
        /// Where.
        name: &'a str,
        /// What is there, if it is told.
        found: Option<&'a str>,
    }
    /// The renewal of a key could not go on; it is tried again, at last once an hour. Told once a day, and when the reason is another.
    Warn trust dkim_rotation_failed = DkimRotationFailed<'a> {
        /// The name of the entry of the key.
        key: &'a str,
        /// Where it is published.
        name: &'a str,
        /// What was to be done: look, make, publish, revoke, remove, erase or sign.
        task: &'a str,
        /// Why it could not be.
        error: &'a str,
    }
    /// Somebody is on a suppression list from now on.
    Info tenancy suppressed = Suppressed<'a> {
        /// Whose list: the name of a tenant, or `*` for all.
        tenant: &'a str,
        /// One of its lists, when it is not about all of the tenant's mail.
        list: Option<&'a str>,
        /// Who.
        to: &'a str,
        /// Why: bounce, complaint, unsubscribe or manual.
        reason: &'a str,
        /// Until when; for ever without it.
        until: Option<&'a str>,
        /// What is known beside: a queue id, a word of the operator.
        note: Option<&'a str>,
    }
    /// Somebody was taken from a suppression list.
    Info tenancy unsuppressed = Unsuppressed<'a> {
        /// Whose list.
        tenant: &'a str,
        /// One of its lists, when it was not about all of the tenant's mail.
        list: Option<&'a str>,
        /// Who.
        to: &'a str,
    }
    /// A suppression list could not be written: what was to be put on it is not.
    Error tenancy suppression_failed = SuppressionFailed<'a> {
        /// How many changes are lost, unless whoever asked for them asks again.
        entries: u64,
        /// What the system said.
        error: &'a str,
    }
    /// The suppression lists were read at the start.
    Info tenancy suppression_opened = SuppressionOpened {
        /// Entries on all lists.
        entries: u64,
        /// How long it took, in seconds.
        took: Duration,
    }
    /// A tenant has used as much of a quota as somebody should know of.
    Warn tenancy quota_warned = QuotaWarned<'a> {
        /// The tenant.
        tenant: &'a str,
        /// hour, day or month.
        period: &'a str,
        /// Recipients accepted.
        used: u64,
        /// Of so many.
        max: u64,
    }
    /// A tenant has used up a quota, for the first time in the period: until its end more is refused, or taken all the same.
    Warn tenancy quota_used_up = QuotaUsedUp<'a> {
        /// The tenant.
        tenant: &'a str,
        /// hour, day or month.
        period: &'a str,
        /// Recipients accepted.
        max: u64,
        /// When it ends.
        until: &'a str,
    }
    /// A recipient has this message already: it was taken, and nothing more was done with it.
    Info tenancy duplicate = Duplicate<'a> {
        /// The message that came first.
        id: &'a dyn Display,
        /// The tenant.
        tenant: &'a str,
        /// The recipient.
        to: &'a str,
        /// The Message-ID.
        msgid: &'a str,
    }
    /// A request about mail by HTTP was refused, whole or in part.
    Info inject request_refused = RequestRefused<'a> {
        /// Who asked.
        client: SocketAddr,
        /// The name of its key, when it had one.
        key: Option<&'a str>,
        /// The status of the answer.
        code: u16,
        /// The type of the problem, as in the answer.
        reason: &'a str,
        /// What was said of it.
        error: &'a str,
    }
    /// A client is gone.
    Debug smtp disconnected = Disconnected<'a> {
        /// Who.
        client: SocketAddr,
        /// quit, dismissed, closed, timeout, reversed, error.
        reason: &'a str,
        /// Messages it gave us.
        messages: u64,
        /// How long it stayed, in seconds.
        time: Duration,
    }
    /// A session ended by a fault of ours.
    Error shard session_panicked = SessionPanicked<'a> {
        /// The peer.
        peer: SocketAddr,
        /// What the panic said.
        error: &'a str,
    }
    /// Content was encoded, since the next hop does not take it as it is.
    Debug delivery converted = Converted<'a> {
        /// Which message.
        id: &'a dyn Display,
        /// Its octets.
        from: u64,
        /// How many are sent.
        to: u64,
    }
    /// An attempt for a recipient ended.
    Info delivery outcome = Outcome<'a> {
        /// The queue id.
        id: &'a dyn Display,
        /// The recipient.
        to: &'a str,
        /// delivered, deferred, failed.
        result: &'a str,
        /// Where the route led: a next hop or a domain's MX hosts.
        destination: &'a str,
        /// The site that this is of, where that has another name: the hosts, or the rule that knows them.
        site: Option<&'a str>,
        /// The source of ours that it left from, or was to, where a pool has one.
        source: Option<&'a str>,
        /// What the message says which campaign it is of, where the operator has named a field for that.
        campaign: Option<&'a str>,
        /// The host that answered last.
        host: Option<&'a str>,
        /// Its address.
        address: Option<SocketAddr>,
        /// The enhanced status code.
        status: Option<&'a dyn Display>,
        /// The last reply, or what happened in its place.
        reply: &'a str,
        /// What that is about, as in reply-rules.md; none of a delivery.
        category: Option<&'a str>,
        /// The rule that says so.
        rule: Option<&'a str>,
        /// The rule for retries that has set the next try, where it is not `queue.retry` that has.
        retry: Option<&'a str>,
        /// TLS version and cipher, when there was TLS.
        tls: Option<&'a str>,
        /// What decided about its TLS: dane, dane-unusable, sts, sts-testing; or the route: none, opportunistic, required, verified.
        policy: Option<&'a str>,
        /// Which attempt this was.
        attempt: u32,
        /// How long the attempt took, in seconds.
        took: Duration,
        /// Seconds since the message was accepted.
        delay: Duration,
        /// Seconds until the next attempt, when there will be one.
        next: Option<Duration>,
    }
    /// A next hop said what a rule has an alarm for (`reply-rule.action`).
    Warn delivery alarmed = Alarmed<'a> {
        /// The queue id.
        id: &'a dyn Display,
        /// The recipient.
        to: &'a str,
        /// Where the route led.
        destination: &'a str,
        /// The host that said it.
        host: Option<&'a str>,
        /// The rule.
        rule: &'a str,
        /// What it is about.
        category: &'a str,
        /// The reply.
        reply: &'a str,
    }
    /// A report came in about a recipient of mail that we sent (`[bounces]`).
    Info delivery bounced = Bounced<'a> {
        /// The queue id of the message it is about.
        id: &'a dyn Display,
        /// The recipient as the sender gave it, or as the report has it; none when it tells of none.
        to: Option<&'a str>,
        /// The recipient's place in the envelope of the message, when the address tells it.
        place: Option<u32>,
        /// failed, delayed, delivered, relayed, expanded.
        result: &'a str,
        /// What it is about, as in reply-rules.md; none of a success.
        category: Option<&'a str>,
        /// The rule that says so.
        rule: Option<&'a str>,
        /// The enhanced status code.
        status: Option<&'a dyn Display>,
        /// What the host that refused it said.
        reply: Option<&'a str>,
        /// The host that reports.
        host: Option<&'a str>,
        /// The Message-ID of the message, when it came back.
        msgid: Option<&'a str>,
        /// standard, or guessed when the report is by no standard.
        form: &'a str,
        /// The queue id of the report.
        report: &'a dyn Display,
    }
    /// Somebody complained about mail (RFC 5965, `[bounces]`).
    Info delivery complained = Complained<'a> {
        /// The queue id of the message, when an address of ours in the complaint tells it.
        id: Option<&'a dyn Display>,
        /// The recipient, when it is told.
        to: Option<&'a str>,
        /// abuse, fraud, not-spam, …
        kind: &'a str,
        /// How many such messages it is about.
        incidents: u32,
        /// The address that the message came from.
        source: Option<&'a str>,
        /// The Message-ID of the message, when it came back.
        msgid: Option<&'a str>,
        /// The program that reports.
        agent: Option<&'a str>,
        /// The queue id of the complaint.
        report: &'a dyn Display,
    }
    /// Mail to an address for reports that is none, or not for us to believe.
    Debug delivery report_ignored = ReportIgnored<'a> {
        /// The queue id.
        report: &'a dyn Display,
        /// The address.
        to: &'a str,
        /// unsigned, expired, unproven, auto-reply, other.
        reason: &'a str,
    }
    /// A notification was written for a recipient.
    Info queue returned = Returned<'a> {
        /// The queue id of the message it is about.
        id: &'a dyn Display,
        /// The recipient.
        to: &'a str,
        /// failed, delayed, delivered.
        kind: &'a str,
        /// The queue id of the notification; none when there is nobody to tell.
        report: Option<&'a dyn Display>,
    }
    /// Every recipient of a message has ended.
    Debug queue retired = Retired<'a> {
        /// The queue id.
        id: &'a dyn Display,
        /// Seconds since it was accepted, while it was still in memory.
        delay: Option<Duration>,
    }
    /// A client speaks for another one from now on (XCLIENT).
    Info smtp impersonated = Impersonated<'a> {
        /// Its own address and port.
        client: SocketAddr,
        /// Those of the other one; all events that follow have these.
        other: SocketAddr,
        /// The name of that address.
        name: Option<&'a str>,
        /// How the other one called itself.
        helo: Option<&'a str>,
    }
    /// A client asked for mail that waits for it (ETRN).
    Info smtp asked = Asked<'a> {
        /// Its address and port.
        client: SocketAddr,
        /// The SHA-256 of its certificate, when it has shown one.
        cert: Option<&'a dyn Display>,
        /// The domain whose mail it asked for.
        node: &'a dyn Display,
        /// The reply code: from 250 on it is tried, 458 and 459 it is not.
        code: u16,
    }
    /// A client has come for its mail (ATRN).
    Info smtp called = Called<'a> {
        /// Its address and port.
        client: SocketAddr,
        /// The SHA-256 of its certificate.
        cert: Option<&'a dyn Display>,
        /// The domains whose mail it asked for, or all that it may have.
        domains: &'a str,
        /// The reply code: after 250 it is the server.
        code: u16,
    }
    /// A client that came for its mail has been sent it.
    Info smtp fetched = Fetched {
        /// Its address and port.
        client: SocketAddr,
        /// Messages that it was asked to take.
        messages: u64,
        /// Recipients that it took them for.
        nrcpt: u64,
    }
    /// An operator began a long change of the queue, or a count of whom it would change.
    Info queue task_began = TaskBegan<'a> {
        /// Its number.
        task: u64,
        /// retry, hold, release, remove, reroute, count.
        action: &'a str,
        /// dry-run when nothing is changed.
        mode: Option<&'a str>,
        /// The route by which mail is to go.
        to: Option<&'a str>,
        /// Whom it is about, in JSON.
        selector: &'a str,
        /// Who asked for it, and from where.
        by: &'a str,
        /// How often it was begun anew, when a process was stopped that was at it.
        resumed: Option<u64>,
    }
    /// A long change of the queue has ended.
    Info queue task_ended = TaskEnded<'a> {
        /// Its number.
        task: u64,
        /// As above.
        action: &'a str,
        /// done, cancelled, failed.
        state: &'a str,
        /// How many recipients were meant.
        matched: u64,
        /// How many of them were changed.
        nrcpt: u64,
        /// How long it took.
        took: Duration,
        /// Why it failed.
        error: Option<&'a str>,
    }
    /// An operator changed what will become of recipients.
    Info queue operated = Operated<'a> {
        /// retry, hold, release, remove, reroute.
        action: &'a str,
        /// The queue id, when it was one message.
        id: Option<&'a dyn Display>,
        /// How many recipients.
        nrcpt: u64,
    }
    /// A site complains, or cannot be reached: it gets less from here on, or nothing for a while.
    Warn delivery throttled = Throttled<'a> {
        /// The site.
        site: &'a str,
        /// Connections open at once, from all cores.
        connections: u32,
        /// Messages a minute, when they are limited.
        rate: Option<u32>,
        /// For how long it is left alone, when it is.
        suspended: Option<Duration>,
        /// What the refusal was about that set it.
        category: &'a str,
        /// The rule that said so.
        rule: Option<&'a str>,
        /// What the site said, or what happened in its place.
        reply: &'a str,
    }
    /// A site gets all again.
    Info delivery unthrottled = Unthrottled<'a> {
        /// The site.
        site: &'a str,
    }
    /// A source of ours is out of use: its mail leaves from others of its pools, or waits.
    Warn delivery source_out = SourceOut<'a> {
        /// The source.
        source: &'a str,
        /// Why.
        reason: &'a str,
    }
    /// A source of ours has a quarter of its part, since an address of it is on a list.
    Warn delivery source_lowered = SourceLowered<'a> {
        /// The source.
        source: &'a str,
        /// Why.
        reason: &'a str,
    }
    /// A source of ours has its part again.
    Info delivery source_used = SourceUsed<'a> {
        /// The source.
        source: &'a str,
    }
    /// An address of ours is on a list of the DNS, and was not when it was looked last.
    Warn delivery source_listed = SourceListed<'a> {
        /// The source.
        source: &'a str,
        /// The address.
        address: &'a dyn Display,
        /// The list.
        list: &'a str,
        /// What it answered.
        answer: &'a str,
    }
    /// An address of ours is on a list of the DNS no more.
    Info delivery source_unlisted = SourceUnlisted<'a> {
        /// The source.
        source: &'a str,
        /// The address.
        address: &'a dyn Display,
        /// The list.
        list: &'a str,
    }
    /// All sources of a pool are out of use: its mail waits.
    Error delivery pool_dry = PoolDry<'a> {
        /// The pool.
        pool: &'a str,
    }
    /// A pool has a source that can be used again.
    Info delivery pool_served = PoolServed<'a> {
        /// The pool.
        pool: &'a str,
    }
    /// A warm-up plan pauses: nothing leaves by it for a while, but from the pool that has what is too much.
    Warn delivery warm_up_paused = WarmUpPaused<'a> {
        /// The plan.
        plan: &'a str,
        /// The source.
        source: &'a str,
        /// complaints, refusals.
        reason: &'a str,
        /// For how long, in seconds.
        time: Duration,
    }
    /// A reload has changed the routes: who was queued goes by the new ones.
    Info queue rerouted = Rerouted<'a> {
        /// The core.
        shard: usize,
        /// The queue id, when it was one message that was about to be tried the old way.
        id: Option<&'a dyn Display>,
        /// How many recipients go elsewhere now.
        nrcpt: u64,
        /// Seconds that it took to look at the whole queue.
        took: Option<Duration>,
    }
    /// The policy of a domain about the TLS of its hosts was fetched (MTA-STS).
    Info delivery policy_fetched = PolicyFetched<'a> {
        /// Whose.
        domain: &'a str,
        /// enforce, testing, none.
        mode: &'a str,
        /// How long it holds, in seconds.
        max_age: Duration,
    }
    /// The policy that a domain announces could not be had. One that was known before holds.
    Warn delivery policy_failed = PolicyFailed<'a> {
        /// Whose.
        domain: &'a str,
        /// Why.
        error: &'a str,
    }
    /// The picture of a domain was fetched, and is as it should be (BIMI).
    Info trust indicator_fetched = IndicatorFetched<'a> {
        /// Where it is; none where it is in its certificate alone.
        location: Option<&'a str>,
        /// Where its certificate is, where that was looked at.
        evidence: Option<&'a str>,
        /// Its octets, unpacked.
        size: usize,
        /// How long it is kept, in seconds.
        keep: Duration,
    }
    /// The picture of a domain, or its certificate, could not be had or is not as it should be.
    Info trust indicator_failed = IndicatorFailed<'a> {
        /// Where it is; none where it is in its certificate alone.
        location: Option<&'a str>,
        /// Where its certificate is, where that was looked at.
        evidence: Option<&'a str>,
        /// What of it: indicator, certificate, or unavailable.
        what: &'a str,
        /// Why.
        error: &'a str,
    }
    /// A report came to us: others count mail that bears the name of a domain (DMARC), TLS with its hosts, or tell of a message.
    Info report report_in = ReportIn<'a> {
        /// dmarc, tls, failure.
        kind: &'a str,
        /// Who says that he has written it.
        org: &'a str,
        /// What he knows it by.
        report: &'a str,
        /// The domain whose mail it came by, as far as that was proven.
        reporter: Option<&'a str>,
        /// By what that was: dmarc, dkim, spf, none.
        proof: &'a str,
        /// Which domain it is about.
        domain: &'a str,
        /// The first moment that it is about.
        begin: &'a str,
        /// The last.
        end: &'a str,
        /// Messages that it is about; of TLS, sessions.
        messages: u64,
        /// Those that did not pass.
        failed: u64,
        /// Whether it was there already: yes or no. Then nothing is counted of it.
        known: &'a str,
        /// The queue id that it came by; none where it came by HTTPS.
        id: Option<&'a str>,
        /// Who posted it, where it came by HTTPS.
        client: Option<&'a str>,
    }
    /// What came as a report was none, or was not wanted. Mail is kept as it is (`ringpost reports list --kind unread`); a post is not.
    Warn report report_refused = ReportRefused<'a> {
        /// Its queue id; none where it came by HTTPS.
        id: Option<&'a str>,
        /// The reverse-path; none where it came by HTTPS.
        from: Option<&'a str>,
        /// Who posted it, where it came by HTTPS.
        client: Option<&'a str>,
        /// The domain whose mail it is, as far as that was proven.
        reporter: Option<&'a str>,
        /// no-report, too-large, archive, syntax, entities, content, foreign, period.
        reason: &'a str,
        /// In words.
        error: &'a str,
    }
    /// A domain was told how TLS went with its hosts (RFC 8460): the report is in the queue, or its host has taken it.
    Info report tls_report_sent = TlsReportSent<'a> {
        /// Which domain.
        domain: &'a str,
        /// Where it wants its reports.
        to: &'a str,
    }
    /// A domain could not be told how TLS went with its hosts. It is not tried again.
    Warn report tls_report_failed = TlsReportFailed<'a> {
        /// Which domain.
        domain: &'a str,
        /// Where it wants its reports.
        to: &'a str,
        /// Why it cannot have one.
        error: &'a str,
    }
    /// A domain was told what mail bore its name (DMARC, RFC 9990): the report is in the queue.
    Info report dmarc_report_sent = DmarcReportSent<'a> {
        /// Which domain.
        domain: &'a str,
        /// Where the report goes.
        to: &'a str,
    }
    /// A domain could not be told what mail bore its name. It is not tried again.
    Warn report dmarc_report_failed = DmarcReportFailed<'a> {
        /// Which domain.
        domain: &'a str,
        /// Where it wants its reports.
        to: &'a str,
        /// Why none goes there.
        error: &'a str,
    }
    /// The database of autonomous systems has changed and is in force.
    Info strangers asn_database_read = AsnDatabaseRead<'a> {
        /// The file.
        file: &'a str,
        /// How many networks it knows.
        networks: u64,
    }
    /// The database of autonomous systems has changed and is none, or a damaged one: the old one stays in force.
    Warn strangers asn_database_refused = AsnDatabaseRefused<'a> {
        /// The file.
        file: &'a str,
        /// What is wrong with it.
        error: &'a str,
    }
    /// A domain was told of a message that bore its name and failed (DMARC, RFC 9991): the report is in the queue.
    Info report dmarc_failure_sent = DmarcFailureSent<'a> {
        /// That of the message's author.
        domain: &'a str,
        /// Where the report goes.
        to: &'a str,
        /// How many such messages it is about.
        incidents: u64,
    }
    /// A domain could not be told of a message that bore its name and failed. It is not tried again.
    Info report dmarc_failure_unsent = DmarcFailureUnsent<'a> {
        /// That of the message's author.
        domain: &'a str,
        /// Where it wants its reports.
        to: &'a str,
        /// Why none goes there.
        error: &'a str,
    }
    /// What is found of a domain that is looked at (`deliverability.domains`) is another than before, or is bad from the first.
    Warn deliverability deliverability_changed = DeliverabilityChanged<'a> {
        /// Which domain.
        domain: &'a str,
        /// What was looked at: ptr, helo, dnsbl, spf, dkim, dmarc, mx, tls, mta-sts, dane, tls-rpt, bimi, unsubscribe.
        check: &'a str,
        /// The worst of it: pass, note, warn, fail.
        result: &'a str,
        /// What it was before, when it was looked at before.
        before: Option<&'a str>,
        /// Of whom that is said.
        subject: &'a str,
        /// What is said.
        finding: &'a str,
    }
    /// A question of ours to the DNS had no usable answer.
    Debug dns dns_failed = DnsFailed<'a> {
        /// The name asked for.
        name: &'a str,
        /// The record type.
        kind: &'a str,
        /// Why.
        error: &'a str,
    }
    /// A group could not be made durable: its messages were refused, and no more are taken.
    Error journal commit_failed = CommitFailed<'a> {
        /// The shard.
        shard: usize,
        /// How many records were in the group.
        records: u64,
        /// What the system said.
        error: &'a str,
    }
    /// A journal shard of another process was to be taken over, and cannot be read: it is left as it is, and a start tells more.
    Error journal journal_unread = JournalUnread<'a> {
        /// The shard that was to have it.
        shard: usize,
        /// Its number.
        journal: u64,
        /// What is wrong.
        error: &'a str,
    }
    /// The medium is full but for the reserve: mail is refused for now.
    Error journal journal_full = JournalFull<'a> {
        /// The shard.
        shard: usize,
        /// What the system said.
        error: &'a str,
    }
    /// The file system cannot be written past the page cache, so the journal goes through it: durable, but slower.
    Info journal journal_cached = JournalCached<'a> {
        /// The shard.
        shard: usize,
        /// The directory of the segments.
        path: &'a str,
        /// What the system said, if anything.
        error: &'a str,
    }
    /// Mail is accepted again.
    Info journal journal_healthy = JournalHealthy {
        /// The shard.
        shard: usize,
    }
    /// A shard knows where its journal ends, and takes mail; what was queued before comes back meanwhile.
    Info journal opened = JournalOpened {
        /// The shard.
        shard: usize,
        /// Segment files.
        segments: u64,
        /// How long it took, in seconds.
        took: Duration,
    }
    /// What was queued before the start is on its way back. New mail is taken and delivered meanwhile.
    Info journal returning = Returns {
        /// The shard.
        shard: usize,
        /// Messages that are back.
        messages: u64,
        /// How many there are, about.
        of: u64,
    }
    /// All that was queued before the start is back.
    Info journal recovered = Recovered {
        /// The shard.
        shard: usize,
        /// Messages that are back in the queue.
        messages: u64,
        /// Their recipients.
        recipients: u64,
        /// Records read.
        records: u64,
        /// Bytes at the end that no commit covered, and no 250 was sent for.
        torn: u64,
        /// How long it took, in seconds.
        took: Duration,
    }
    /// A record in the midst of the journal is damaged.
    Error journal damaged = Damaged<'a> {
        /// The shard.
        shard: usize,
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What is wrong with it.
        error: &'a str,
    }
    /// A task kept its shard from everything else.
    Warn shard stalled = Stalled {
        /// The shard.
        shard: usize,
        /// For so many seconds.
        time: Duration,
    }
    /// The server starts.
    Info daemon started = Started<'a> {
        /// Which version.
        version: &'a str,
        /// Its process id.
        pid: u32,
        /// How many shards.
        shards: usize,
        /// The data directory.
        data: &'a str,
        /// The configuration file.
        config: &'a str,
    }
    /// What the process gave up after its ports were open (`hardening`): full, partial, none, or off.
    Info daemon hardened = Hardened<'a> {
        /// How far it is kept from files that are not its own.
        files: &'a str,
        /// How far it is kept from system calls that it has no use for.
        calls: &'a str,
    }
    /// A listener takes connections.
    Info daemon listening = Listening<'a> {
        /// Its name in the configuration.
        listener: &'a str,
        /// Where.
        address: &'a str,
    }
    /// A new configuration is in force.
    Info daemon reloaded = Reloaded<'a> {
        /// The configuration file.
        config: &'a str,
        /// What stays as it was until a restart, when something does.
        pending: Option<&'a str>,
        /// Queued mail that no route is for any more: it waits for one.
        stranded: Option<&'a str>,
    }
    /// Files of certificates have changed, and what is in them is in force.
    Info daemon certificates_renewed = CertificatesRenewed<'a> {
        /// The names that there is a certificate for.
        names: &'a str,
    }
    /// Files of certificates have changed, and cannot be used together; what was in force stays.
    Error daemon certificates_refused = CertificatesRefused<'a> {
        /// Why.
        error: &'a str,
    }
    /// A new configuration was not taken; the old one stays.
    Error daemon reload_refused = ReloadRefused<'a> {
        /// The configuration file.
        config: &'a str,
        /// Why.
        error: &'a str,
    }
    /// A new program is started, which is to take over from this one.
    Info daemon upgrade_begun = UpgradeBegun<'a> {
        /// The program.
        program: &'a str,
    }
    /// A journal shard is let go with the mail in it, so that each core of the new program has one for new mail.
    Info daemon journal_spared = JournalSpared {
        /// Its number.
        journal: u64,
        /// Messages in it.
        messages: u64,
    }
    /// The new program did not come so far as to serve; this one stays.
    Error daemon upgrade_refused = UpgradeRefused<'a> {
        /// Why.
        error: &'a str,
    }
    /// The new program was given the word and ended before it served; this one takes connections again.
    Error daemon went_on = WentOn<'a> {
        /// The new program's version.
        version: &'a str,
        /// Its process.
        pid: u32,
        /// How long connections waited, in seconds.
        paused: Duration,
    }
    /// The new program serves. This one takes no more connections, and ends when its sessions have.
    Info daemon handing_over = HandingOver<'a> {
        /// The new program's version.
        version: &'a str,
        /// Its process.
        pid: u32,
    }
    /// A core that has no session left has ended: its mail is the new program's.
    Info daemon core_ended = CoreEnded {
        /// Which.
        shard: usize,
        /// Journal shards that it had.
        journals: u64,
    }
    /// All that this process had is the new one's.
    Info daemon handed_over = HandedOver {
        /// How long that took, in seconds.
        took: Duration,
        /// Sessions that were cut off at the end of the grace.
        cut: u64,
    }
    /// This program serves in the place of another, which still has sessions and mail of its own.
    Info daemon taking_over = TakingOver<'a> {
        /// The other program's version.
        version: &'a str,
        /// Its process.
        pid: u32,
    }
    /// Mail of the program before this one is here now, while that one still serves.
    Info daemon took_part = TookPart {
        /// Journal shards that are here.
        journals: u64,
        /// Journal shards that are still to come.
        left: u64,
    }
    /// The mail of the program before this one is here now.
    Info daemon took_over = TookOver {
        /// Journal shards that it had.
        journals: u64,
        /// How long it went on beside this one, in seconds.
        took: Duration,
    }
    /// The program before this one has ended without handing its journals over; they are read as after a crash.
    Warn daemon predecessor_lost = PredecessorLost {
        /// Its process.
        pid: u32,
    }
    /// The server takes no more connections and ends the transactions in flight.
    Info daemon stopping = Stopping<'a> {
        /// The signal or command.
        reason: &'a str,
        /// Seconds that transactions in flight have.
        grace: Duration,
    }
    /// The server is still stopping; told each second.
    Info daemon draining = Draining {
        /// Sessions that have not ended.
        sessions: u64,
        /// Connections to next hops that have not ended.
        outbound: u64,
        /// Seconds that they still have.
        left: Duration,
    }
    /// The server has stopped.
    Info daemon stopped = Stopped {
        /// How long stopping took, in seconds.
        took: Duration,
        /// Sessions that were cut off at the end of the grace.
        cut: u64,
    }
    /// Log lines were lost: the writer could not keep up, or could not write.
    Warn watch lines_dropped = LinesDropped {
        /// How many since the last such line.
        lines: u64,
    }
}
