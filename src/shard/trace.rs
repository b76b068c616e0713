//! The fields that we put before a message: Received, and what a user's program left out.

use std::net::IpAddr;

use bytes::Bytes;
use mail::{Envelope, QueueId, Timestamp, Utf8};
use message::trace::{Login, Protocol, Received, Tls, date_field, message_id_field, received_field};
use policy::{Completion, Presence};
use smtp::{Hello, Session};

use crate::shard::Shard;

/// By which protocol a message came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Smtp,
    Http,
}

/// How a message came to us.
pub(crate) struct Arrival<'a> {
    pub(crate) session: &'a Session,
    pub(crate) by: By,
    pub(crate) envelope: &'a Envelope,
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_host: Option<&'a str>,
    pub(crate) tls: Option<&'a tls::Session>,
    pub(crate) id: QueueId,
    pub(crate) at: Timestamp,
}

/// The Received field (RFC 5321 §4.4), and behind it what the header section lacks (RFC 6409 §8), and more.
pub(crate) fn fields(shard: &Shard, arrival: &Arrival<'_>, completion: Completion, more: &[u8]) -> Bytes {
    let Arrival { session, by, envelope, client, client_host, tls, id, at } = *arrival;
    let settings = shard.settings();
    let host = settings.hostname.as_str();
    let version = tls.map(|tls| tls.version.to_string());
    let only = if let [only] = &envelope.recipients[..] { Some(&only.address) } else { None };
    let mut out = Vec::with_capacity(320);
    received_field(
        &mut out,
        &Received {
            client_name: session.client().map_or("unknown", |(_, name)| name),
            client_host,
            client_address: client,
            host,
            protocol: match by {
                By::Smtp => protocol(session, envelope.utf8),
                By::Http => Protocol::Http,
            },
            tls: tls
                .zip(version.as_deref())
                .map(|(tls, version)| Tls { version, cipher_suite: tls.cipher_suite }),
            login: Login::None,
            id,
            recipient: only,
            priority: envelope.handling.priority,
            date: shard.date.borrow_mut().text(at),
        },
    );
    if completion.date == Presence::Absent {
        date_field(&mut out, at);
    }
    if completion.message_id == Presence::Absent {
        message_id_field(&mut out, id, at, host);
    }
    out.extend_from_slice(more);
    out.into()
}

fn protocol(session: &Session, utf8: Utf8) -> Protocol {
    match (session.client(), utf8) {
        (Some((Hello::Helo, _)) | None, _) => Protocol::Smtp,
        (Some((Hello::Ehlo, _)), Utf8::NotNeeded) => Protocol::Esmtp,
        (Some((Hello::Ehlo, _)), Utf8::Needed) => Protocol::Utf8Smtp,
        (Some((Hello::Lhlo, _)), Utf8::NotNeeded) => Protocol::Lmtp,
        (Some((Hello::Lhlo, _)), Utf8::Needed) => Protocol::Utf8Lmtp,
    }
}
