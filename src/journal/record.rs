//! What records say: typed payloads and their bytes.
//!
//! A record is a header ([`crate::RECORD_HEADER`] bytes), its meta (the types here) and, for messages and chunks,
//! content bytes that are never copied on their way.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use mail::{
    Address, BodyType, CAMPAIGN_MAX, Category, DeliverBy, DeliverByMode, DeliverByTrace, Envelope, Handling,
    HoldFor, ListId, Notify, OriginalRecipient, QueueId, Recipient, Ret, ReversePath, Source, Status,
    TenantId, Timestamp, TlsDemand, TransferPriority, Upstream, Utf8,
};

use crate::{
    Class, Facts, ReturnPath,
    codec::{Malformed, Reader, put_text},
    format::{Header, RECORD_HEADER},
};

/// Longest text of a next hop's last reply that is kept: as much as RFC 5321 §4.5.3.1.5 lets a reply line have.
pub const TEXT_MAX: usize = 512;
/// Longest name of a host that is kept.
const HOST_MAX: usize = 255;
const ENVELOPE_ID_MAX: usize = 1024;

/// What a record is. Numbers are for ever: a kind that goes out of use keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First record of a segment: its class, and the next message number at that time.
    Begin,
    /// Last record of a segment.
    End,
    /// A message: envelope, states that differ from the first, and content or where it lies.
    Message,
    /// A part of the content of a large message, written before its end was received.
    Chunk,
    /// New states of some recipients of a message.
    Transition,
    /// All recipients have ended: the message is forgotten.
    Retired,
}

/// Where a recipient is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// To be tried as soon as it is its turn: how every recipient begins, and what a release makes of it.
    #[default]
    Queued,
    /// To be tried again at its due time.
    Deferred,
    /// Not to be tried until somebody releases it.
    Held,
    /// Ended: the next hop took it.
    Delivered,
    /// The next hop took it, and the sender is still to be told (RFC 3461 §4.1). Without a host in its [`Last`],
    /// there was no next hop.
    Untold,
    /// Ended: refused for good, or given up.
    Failed,
    /// Ended: taken out by the operator.
    Removed,
}

/// Whether the sender was told of the delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelayNotice {
    /// Not yet, or not wanted.
    #[default]
    Unsent,
    /// Once is enough.
    Sent,
}

/// What the last attempt met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// The enhanced status, if the reply had one or we have one for what happened.
    pub status: Option<Status>,
    /// The host that answered; empty when none did.
    pub host: Box<str>,
    /// The reply or what happened instead, cut to [`TEXT_MAX`] octets.
    pub text: Box<str>,
}

/// The whole latest state of one recipient: the last one written is the one that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientState {
    /// Where it is in its life.
    pub phase: Phase,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next.
    pub due: Timestamp,
    /// Whether the sender was told of the delay.
    pub delay_notice: DelayNotice,
    /// What the last attempt met.
    pub last: Option<Last>,
    /// What that was about, by the rules as they were then.
    pub category: Option<Category>,
    /// The name of the route by which an operator sends it, whatever the routes say of its domain.
    pub route: Option<Box<str>>,
    /// The name of the pool of sources that a reply has sent it to.
    pub pool: Option<Box<str>>,
}

/// A run of content bytes in a segment, with their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The segment's number.
    pub segment: u32,
    /// The segment's generation when the bytes were written; another one there now means they are gone.
    pub generation: u32,
    /// Where they begin, from the start of the file.
    pub offset: u64,
    /// How many.
    pub len: u32,
    /// CRC32C of the bytes.
    pub crc: u32,
}

/// A message as read back from its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its id.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: Envelope,
    /// States that this record carries; a recipient that is not listed is as it began. Later transitions count more.
    pub states: Vec<(u32, RecipientState)>,
    /// Where the content lies, in order.
    pub content: Vec<Extent>,
}

/// Any record's payload, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "they are read one by one, and most of what is read is messages"
)]
pub enum Payload {
    /// See [`Kind::Begin`].
    Begin {
        /// The segment's class.
        class: Class,
        /// No message had this number or a higher one before.
        next_number: u64,
    },
    /// See [`Kind::End`].
    End,
    /// See [`Kind::Message`].
    Message(StoredMessage),
    /// See [`Kind::Chunk`].
    Chunk {
        /// Which draft it belongs to; unique within one run of the machine.
        draft: u64,
    },
    /// See [`Kind::Transition`].
    Transition {
        /// The message.
        id: QueueId,
        /// Places in the envelope and their new states.
        states: Vec<(u32, RecipientState)>,
    },
    /// See [`Kind::Retired`].
    Retired(QueueId),
}

/// Reads a message record from the bytes that [`crate::Location::head`] names; checks their checksum.
///
/// # Errors
/// [`Malformed`] when the bytes are not the head of a message record of that segment's generation.
pub fn read_message(bytes: &[u8], segment: u32, offset: u64) -> Result<StoredMessage, Malformed> {
    let header = Header::decode(bytes).map_err(|_| Malformed("not a record header"))?;
    let meta = header.checked_meta(bytes).map_err(|_| Malformed("the record head is damaged"))?;
    if Kind::from_number(header.kind) != Some(Kind::Message) {
        return Err(Malformed("not a message record"));
    }
    decode_message(&header, meta, segment, offset)
}

impl Kind {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::End => 2,
            Self::Message => 3,
            Self::Chunk => 4,
            Self::Transition => 5,
            Self::Retired => 6,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Begin,
            2 => Self::End,
            3 => Self::Message,
            4 => Self::Chunk,
            5 => Self::Transition,
            6 => Self::Retired,
            _ => return None,
        })
    }
}

impl Kind {
    /// Whether the record's id is that of a message.
    pub(crate) const fn names_message(self) -> bool {
        match self {
            Self::Message | Self::Transition | Self::Retired => true,
            Self::Begin | Self::End | Self::Chunk => false,
        }
    }
}

impl Phase {
    /// Whether nothing will be tried any more.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Deferred | Self::Held | Self::Untold => false,
            Self::Delivered | Self::Failed | Self::Removed => true,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Deferred => 1,
            Self::Held => 2,
            Self::Delivered => 3,
            Self::Failed => 4,
            Self::Removed => 5,
            Self::Untold => 6,
        }
    }
}

impl Extent {
    /// Whether `bytes` are the bytes that were written here.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len as usize && crc32c::crc32c(bytes) == self.crc
    }
}

impl Payload {
    /// Decodes a record whose header and meta have passed their checksum; `None` when the kind is not known here.
    pub(crate) fn decode(
        header: &Header,
        meta: &[u8],
        segment: u32,
        offset: u64,
    ) -> Option<Result<Self, Malformed>> {
        let kind = Kind::from_number(header.kind)?;
        let id = QueueId::from_bits(header.id);
        Some(match kind {
            Kind::Begin => decode_begin(meta),
            Kind::End => Ok(Self::End),
            Kind::Message => decode_message(header, meta, segment, offset).map(Self::Message),
            Kind::Chunk => Ok(Self::Chunk { draft: header.id }),
            Kind::Transition => decode_transition(meta).map(|states| Self::Transition { id, states }),
            Kind::Retired => Ok(Self::Retired(id)),
        })
    }
}

pub(crate) fn encode_begin(buffer: &mut BytesMut, class: Class, next_number: u64) {
    buffer.put_u8(class.number());
    buffer.put_u64_le(next_number);
}

fn decode_begin(meta: &[u8]) -> Result<Payload, Malformed> {
    let mut reader = Reader::new(meta);
    let class = Class::from_number(reader.u8()?).ok_or(Malformed("unknown class"))?;
    let next_number = reader.u64()?;
    reader.end()?;
    Ok(Payload::Begin { class, next_number })
}

// Meta of a message: size, extents, envelope, states. What recovery needs comes first.
pub(crate) fn encode_message(
    buffer: &mut BytesMut,
    envelope: &Envelope,
    states: &[(u32, RecipientState)],
    size: u64,
    extents: &[Extent],
) {
    buffer.put_u64_le(size);
    buffer.put_u32_le(extents.len() as u32);
    for extent in extents {
        put_extent(buffer, extent);
    }
    buffer.put_u64_le(envelope.received_at.0);
    buffer.put_u8(envelope_flags(envelope));
    put_text(buffer, envelope.reverse_path.address().map_or("", Address::as_str), usize::MAX);
    if let Some(id) = &envelope.envelope_id {
        put_text(buffer, id, ENVELOPE_ID_MAX);
    }
    put_handling(buffer, &envelope.handling);
    if let Some(upstream) = &envelope.upstream {
        put_upstream(buffer, upstream);
    }
    buffer.put_u32_le(envelope.recipients.len() as u32);
    for recipient in &envelope.recipients {
        put_recipient(buffer, recipient);
    }
    encode_states(buffer, states);
}

fn decode_message(
    header: &Header,
    meta: &[u8],
    segment: u32,
    offset: u64,
) -> Result<StoredMessage, Malformed> {
    let mut reader = Reader::new(meta);
    let size = reader.u64()?;
    let mut content = decode_extents(&mut reader)?;
    let envelope = take_envelope(&mut reader)?;
    let states = decode_states(&mut reader)?;
    reader.end()?;
    if header.content_len > 0 {
        content.push(header.content_extent(segment, offset));
    }
    if content.iter().map(|extent| u64::from(extent.len)).sum::<u64>() != size {
        return Err(Malformed("the parts of the content are not its size"));
    }
    Ok(StoredMessage { id: QueueId::from_bits(header.id), envelope, states, content })
}

/// A message's extents, facts and states, with none of its addresses kept.
pub(crate) fn decode_message_facts(meta: &[u8]) -> Result<MessageFacts, Malformed> {
    let mut reader = Reader::new(meta);
    let size = reader.u64()?;
    let extents = decode_extents(&mut reader)?;
    let received_at = Timestamp(reader.u64()?);
    let flags = reader.u8()?;
    let return_path = if reader.text()?.is_empty() { ReturnPath::Null } else { ReturnPath::Address };
    if flags & FLAG_ENVELOPE_ID != 0 {
        reader.text()?;
    }
    let handling = if flags & FLAG_HANDLING == 0 { Handling::default() } else { take_handling(&mut reader)? };
    if flags & FLAG_UPSTREAM != 0 {
        let len = reader.u16()?;
        reader.take(usize::from(len))?;
    }
    let count = reader.count(RECIPIENT_MIN)?;
    let mut domains = String::new();
    for i in 0..count {
        let address = reader.text()?;
        let (_, domain) = address.rsplit_once('@').ok_or(Malformed("an address without a domain"))?;
        if i > 0 {
            domains.push('\n');
        }
        domains.push_str(domain);
        if reader.u8()? & NOTIFY_ORIGINAL != 0 {
            reader.text()?;
            reader.text()?;
        }
    }
    let states = decode_states(&mut reader)?;
    reader.end()?;
    let facts = Facts { received_at, size, return_path, domains: domains.into(), handling };
    Ok(MessageFacts { extents, facts, states, recipients: count as u32 })
}

/// What recovery takes from a message record.
#[derive(Debug)]
pub(crate) struct MessageFacts {
    pub(crate) extents: Vec<Extent>,
    pub(crate) facts: Facts,
    pub(crate) states: Vec<(u32, RecipientState)>,
    pub(crate) recipients: u32,
}

pub(crate) fn encode_states(buffer: &mut BytesMut, states: &[(u32, RecipientState)]) {
    buffer.put_u32_le(states.len() as u32);
    for (index, state) in states {
        buffer.put_u32_le(*index);
        put_state(buffer, state);
    }
}

pub(crate) fn decode_states(reader: &mut Reader<'_>) -> Result<Vec<(u32, RecipientState)>, Malformed> {
    let count = reader.count(STATE_MIN)?;
    (0..count).map(|_| Ok((reader.u32()?, take_state(reader)?))).collect()
}

pub(crate) fn decode_transition(meta: &[u8]) -> Result<Vec<(u32, RecipientState)>, Malformed> {
    let mut reader = Reader::new(meta);
    let states = decode_states(&mut reader)?;
    reader.end()?;
    Ok(states)
}

pub(crate) fn put_extent(buffer: &mut BytesMut, extent: &Extent) {
    buffer.put_u32_le(extent.segment);
    buffer.put_u32_le(extent.generation);
    buffer.put_u64_le(extent.offset);
    buffer.put_u32_le(extent.len);
    buffer.put_u32_le(extent.crc);
}

pub(crate) fn decode_extents(reader: &mut Reader<'_>) -> Result<Vec<Extent>, Malformed> {
    let count = reader.count(EXTENT_LEN)?;
    (0..count)
        .map(|_| {
            Ok(Extent {
                segment: reader.u32()?,
                generation: reader.u32()?,
                offset: reader.u64()?,
                len: reader.u32()?,
                crc: reader.u32()?,
            })
        })
        .collect()
}

const EXTENT_LEN: usize = 24;
const RECIPIENT_MIN: usize = 3;
const STATE_MIN: usize = 4 + 14;

const FLAG_EIGHT_BIT: u8 = 1;
const FLAG_BINARY: u8 = 2;
const FLAG_UTF8: u8 = 4;
const FLAG_RET_FULL: u8 = 8;
const FLAG_RET_HEADERS: u8 = 16;
const FLAG_ENVELOPE_ID: u8 = 32;
const FLAG_HANDLING: u8 = 64;
const FLAG_UPSTREAM: u8 = 128;

// Fields of the handling: number, length, value. Numbers are for ever; one that is not known is passed over.
const HANDLING_PRIORITY: u8 = 1;
const HANDLING_DELIVER_BY: u8 = 2;
const HANDLING_HOLD_UNTIL: u8 = 3;
const HANDLING_TLS: u8 = 4;
const HANDLING_HOLD_FOR: u8 = 5;
const HANDLING_TENANT: u8 = 6;
const HANDLING_LIST: u8 = 7;
const HANDLING_CAMPAIGN: u8 = 8;
const HANDLING_ORIGIN: u8 = 9;

// Fields of where it first came from: the same.
const UPSTREAM_NAME: u8 = 1;
const UPSTREAM_ADDRESS: u8 = 2;
const UPSTREAM_PORT: u8 = 3;
const UPSTREAM_PROTOCOL: u8 = 4;
const UPSTREAM_HELO: u8 = 5;
const UPSTREAM_IDENT: u8 = 6;
const UPSTREAM_SOURCE: u8 = 7;
/// So long is a value at most.
const UPSTREAM_MAX: usize = 255;

const DELIVER_BY_NOTIFY: u8 = 1;
const DELIVER_BY_TRACE: u8 = 2;

const NOTIFY_SUCCESS: u8 = 1;
const NOTIFY_FAILURE: u8 = 2;
const NOTIFY_DELAY: u8 = 4;
const NOTIFY_ORIGINAL: u8 = 8;
const NOTIFY_GIVEN: u8 = 16;

const STATE_NOTICE_SENT: u8 = 1;
const STATE_LAST: u8 = 2;
const STATE_FIELDS: u8 = 4;

// Fields of a state: number, length, value. Numbers are for ever; one that is not known is passed over.
const STATE_CATEGORY: u8 = 1;
const STATE_ROUTE: u8 = 2;
const STATE_POOL: u8 = 3;
/// Longest name of a route that is kept.
pub const ROUTE_MAX: usize = 128;
/// Longest name of a pool that is kept.
pub const POOL_MAX: usize = 100;

fn envelope_flags(envelope: &Envelope) -> u8 {
    let body = match envelope.body {
        BodyType::SevenBit => 0,
        BodyType::EightBitMime => FLAG_EIGHT_BIT,
        BodyType::BinaryMime => FLAG_BINARY,
    };
    let utf8 = match envelope.utf8 {
        Utf8::NotNeeded => 0,
        Utf8::Needed => FLAG_UTF8,
    };
    let ret = match envelope.ret {
        None => 0,
        Some(Ret::Full) => FLAG_RET_FULL,
        Some(Ret::Headers) => FLAG_RET_HEADERS,
    };
    let handling = if envelope.handling == Handling::default() { 0 } else { FLAG_HANDLING };
    let upstream = if envelope.upstream.is_some() { FLAG_UPSTREAM } else { 0 };
    let envelope_id = if envelope.envelope_id.is_some() { FLAG_ENVELOPE_ID } else { 0 };
    body | utf8 | ret | handling | upstream | envelope_id
}

/// What was asked for a message, if it is anything: the length of the fields, then each of them.
pub(crate) fn put_handling(buffer: &mut BytesMut, handling: &Handling) {
    if *handling == Handling::default() {
        return;
    }
    let Handling { priority, deliver_by, hold_until, hold_for, tls, tenant, list, campaign, origin } =
        handling;
    let mut fields = BytesMut::with_capacity(32);
    if *priority != TransferPriority::default() {
        fields.put_slice(&[HANDLING_PRIORITY, 1]);
        fields.put_i8(priority.get());
    }
    if let Some(DeliverBy { deadline, mode, trace }) = deliver_by {
        let mode = match mode {
            DeliverByMode::Return => 0,
            DeliverByMode::Notify => DELIVER_BY_NOTIFY,
        };
        let trace = match trace {
            DeliverByTrace::No => 0,
            DeliverByTrace::Yes => DELIVER_BY_TRACE,
        };
        fields.put_slice(&[HANDLING_DELIVER_BY, 9]);
        fields.put_u64_le(deadline.0);
        fields.put_u8(mode | trace);
    }
    if let Some(time) = hold_until {
        fields.put_slice(&[HANDLING_HOLD_UNTIL, 8]);
        fields.put_u64_le(time.0);
    }
    if let Some(HoldFor(seconds)) = hold_for {
        fields.put_slice(&[HANDLING_HOLD_FOR, 4]);
        fields.put_u32_le(*seconds);
    }
    match tls {
        TlsDemand::None => {}
        TlsDemand::Required => fields.put_slice(&[HANDLING_TLS, 1, 1]),
        TlsDemand::Waived => fields.put_slice(&[HANDLING_TLS, 1, 2]),
    }
    if *tenant != TenantId::NOBODY {
        fields.put_slice(&[HANDLING_TENANT, 8]);
        fields.put_u64_le(tenant.0);
    }
    if *list != ListId::NONE {
        fields.put_slice(&[HANDLING_LIST, 8]);
        fields.put_u64_le(list.0);
    }
    if let Some(campaign) = campaign {
        let campaign = &campaign[..campaign.floor_char_boundary(CAMPAIGN_MAX)];
        fields.put_slice(&[HANDLING_CAMPAIGN, campaign.len() as u8]);
        fields.put_slice(campaign.as_bytes());
    }
    match origin {
        Some(IpAddr::V4(address)) => {
            fields.put_slice(&[HANDLING_ORIGIN, 4]);
            fields.put_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            fields.put_slice(&[HANDLING_ORIGIN, 16]);
            fields.put_slice(&address.octets());
        }
        None => {}
    }
    buffer.put_u8(fields.len() as u8);
    buffer.put_slice(&fields);
}

pub(crate) fn take_handling(reader: &mut Reader<'_>) -> Result<Handling, Malformed> {
    let len = reader.u8()?;
    let mut fields = Reader::new(reader.take(usize::from(len))?);
    let mut handling = Handling::default();
    while fields.end().is_err() {
        let (number, len) = (fields.u8()?, fields.u8()?);
        let mut value = Reader::new(fields.take(usize::from(len))?);
        match number {
            HANDLING_PRIORITY => {
                let priority = TransferPriority::new(value.u8()?.cast_signed());
                handling.priority = priority.ok_or(Malformed("no such priority"))?;
            }
            HANDLING_DELIVER_BY => {
                let (deadline, flags) = (Timestamp(value.u64()?), value.u8()?);
                let has = |flag: u8| flags & flag != 0;
                let mode = if has(DELIVER_BY_NOTIFY) { DeliverByMode::Notify } else { DeliverByMode::Return };
                let trace = if has(DELIVER_BY_TRACE) { DeliverByTrace::Yes } else { DeliverByTrace::No };
                handling.deliver_by = Some(DeliverBy { deadline, mode, trace });
            }
            HANDLING_HOLD_UNTIL => handling.hold_until = Some(Timestamp(value.u64()?)),
            HANDLING_HOLD_FOR => handling.hold_for = Some(HoldFor(value.u32()?)),
            HANDLING_TENANT => handling.tenant = TenantId(value.u64()?),
            HANDLING_LIST => handling.list = ListId(value.u64()?),
            HANDLING_CAMPAIGN => {
                let text = std::str::from_utf8(value.take(usize::from(len))?);
                handling.campaign = Some(text.map_err(|_| Malformed("text is not UTF-8"))?.into());
            }
            HANDLING_ORIGIN => {
                let octets = value.take(usize::from(len))?;
                let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
                handling.origin = Some(address.map_err(|_| Malformed("no address has so many octets"))?);
            }
            HANDLING_TLS => {
                handling.tls = match value.u8()? {
                    1 => TlsDemand::Required,
                    2 => TlsDemand::Waived,
                    _ => return Err(Malformed("unknown demand of TLS")),
                }
            }
            _ => {}
        }
    }
    Ok(handling)
}

/// Where a message first came from: the length of the fields (2), then each of them.
fn put_upstream(buffer: &mut BytesMut, upstream: &Upstream) {
    let Upstream { name, address, port, protocol, helo, ident, source } = upstream;
    let mut fields = BytesMut::with_capacity(128);
    let mut put = |number: u8, value: &[u8]| {
        fields.put_slice(&[number, value.len() as u8]);
        fields.put_slice(value);
    };
    let address = address.map(|address| address.to_string());
    let texts = [
        (UPSTREAM_NAME, name.as_deref()),
        (UPSTREAM_ADDRESS, address.as_deref()),
        (UPSTREAM_PROTOCOL, protocol.as_deref()),
        (UPSTREAM_HELO, helo.as_deref()),
        (UPSTREAM_IDENT, ident.as_deref()),
    ];
    for (number, text) in texts {
        if let Some(text) = text {
            put(number, &text.as_bytes()[..text.floor_char_boundary(UPSTREAM_MAX)]);
        }
    }
    if let Some(port) = port {
        put(UPSTREAM_PORT, &port.to_le_bytes());
    }
    match source {
        None => {}
        Some(Source::Local) => put(UPSTREAM_SOURCE, &[1]),
        Some(Source::Remote) => put(UPSTREAM_SOURCE, &[2]),
    }
    buffer.put_u16_le(fields.len() as u16);
    buffer.put_slice(&fields);
}

fn take_upstream(reader: &mut Reader<'_>) -> Result<Upstream, Malformed> {
    let len = reader.u16()?;
    let mut fields = Reader::new(reader.take(usize::from(len))?);
    let mut upstream = Upstream::default();
    while fields.end().is_err() {
        let (number, len) = (fields.u8()?, fields.u8()?);
        let bytes = fields.take(usize::from(len))?;
        let text = || std::str::from_utf8(bytes).map_err(|_| Malformed("text is not UTF-8"));
        match number {
            UPSTREAM_NAME => upstream.name = Some(text()?.into()),
            UPSTREAM_ADDRESS => {
                let address = text()?.parse().map_err(|_| Malformed("not the address of a client"))?;
                upstream.address = Some(address);
            }
            UPSTREAM_PORT => upstream.port = Some(Reader::new(bytes).u16()?),
            UPSTREAM_PROTOCOL => upstream.protocol = Some(text()?.into()),
            UPSTREAM_HELO => upstream.helo = Some(text()?.into()),
            UPSTREAM_IDENT => upstream.ident = Some(text()?.into()),
            UPSTREAM_SOURCE => {
                upstream.source = match bytes {
                    [1] => Some(Source::Local),
                    [2] => Some(Source::Remote),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    Ok(upstream)
}

fn take_envelope(reader: &mut Reader<'_>) -> Result<Envelope, Malformed> {
    let received_at = Timestamp(reader.u64()?);
    let flags = reader.u8()?;
    let has = |flag: u8| flags & flag != 0;
    let reverse_path = match reader.text()? {
        "" => ReversePath::Null,
        text => ReversePath::Address(address(text)?),
    };
    let envelope_id = if has(FLAG_ENVELOPE_ID) { Some(reader.text()?.into()) } else { None };
    let handling = if has(FLAG_HANDLING) { take_handling(reader)? } else { Handling::default() };
    let upstream = if has(FLAG_UPSTREAM) { Some(take_upstream(reader)?.into()) } else { None };
    let count = reader.count(RECIPIENT_MIN)?;
    let recipients = (0..count).map(|_| take_recipient(reader)).collect::<Result<_, _>>()?;
    let body = match (has(FLAG_EIGHT_BIT), has(FLAG_BINARY)) {
        (false, false) => BodyType::SevenBit,
        (true, false) => BodyType::EightBitMime,
        (false, true) => BodyType::BinaryMime,
        (true, true) => return Err(Malformed("two body types")),
    };
    let ret = match (has(FLAG_RET_FULL), has(FLAG_RET_HEADERS)) {
        (false, false) => None,
        (true, false) => Some(Ret::Full),
        (false, true) => Some(Ret::Headers),
        (true, true) => return Err(Malformed("two values of RET")),
    };
    let utf8 = if has(FLAG_UTF8) { Utf8::Needed } else { Utf8::NotNeeded };
    Ok(Envelope { received_at, reverse_path, recipients, body, utf8, ret, envelope_id, handling, upstream })
}

fn put_recipient(buffer: &mut BytesMut, recipient: &Recipient) {
    let Notify { success, failure, delay, given } = recipient.notify;
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    put_text(buffer, recipient.address.as_str(), usize::MAX);
    buffer.put_u8(
        bit(success, NOTIFY_SUCCESS)
            | bit(failure, NOTIFY_FAILURE)
            | bit(delay, NOTIFY_DELAY)
            | bit(given, NOTIFY_GIVEN)
            | bit(recipient.original.is_some(), NOTIFY_ORIGINAL),
    );
    if let Some(original) = &recipient.original {
        put_text(buffer, &original.address_type, usize::MAX);
        put_text(buffer, &original.address, usize::MAX);
    }
}

fn take_recipient(reader: &mut Reader<'_>) -> Result<Recipient, Malformed> {
    let address = address(reader.text()?)?;
    let flags = reader.u8()?;
    let mut notify = Notify {
        success: flags & NOTIFY_SUCCESS != 0,
        failure: flags & NOTIFY_FAILURE != 0,
        delay: flags & NOTIFY_DELAY != 0,
        given: flags & NOTIFY_GIVEN != 0,
    };
    // Records of format version 1 do not say it; what is not the default was asked for.
    notify.given |= notify != Notify::default();
    let original = if flags & NOTIFY_ORIGINAL == 0 {
        None
    } else {
        Some(OriginalRecipient { address_type: reader.text()?.into(), address: reader.text()?.into() })
    };
    Ok(Recipient { address, notify, original })
}

fn address(text: &str) -> Result<Address, Malformed> {
    Address::parse(text.as_bytes()).map_err(|_| Malformed("not an address"))
}

fn put_state(buffer: &mut BytesMut, state: &RecipientState) {
    let notice = match state.delay_notice {
        DelayNotice::Unsent => 0,
        DelayNotice::Sent => STATE_NOTICE_SENT,
    };
    buffer.put_u8(state.phase.number());
    let has_fields = state.category.is_some() || state.route.is_some() || state.pool.is_some();
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    buffer.put_u8(notice | bit(state.last.is_some(), STATE_LAST) | bit(has_fields, STATE_FIELDS));
    buffer.put_u32_le(state.attempts);
    buffer.put_u64_le(state.due.0);
    if let Some(last) = &state.last {
        let Status(class, subject, detail) = last.status.unwrap_or(Status(0, 0, 0));
        buffer.put_u8(class);
        buffer.put_u16_le(subject);
        buffer.put_u16_le(detail);
        put_text(buffer, &last.host, HOST_MAX);
        put_text(buffer, &last.text, TEXT_MAX);
    }
    if has_fields {
        let route =
            state.route.as_ref().map(|route| &route.as_bytes()[..route.floor_char_boundary(ROUTE_MAX)]);
        let pool = state.pool.as_ref().map(|pool| &pool.as_bytes()[..pool.floor_char_boundary(POOL_MAX)]);
        let text_len = |text: Option<&[u8]>| text.map_or(0, |text| 2 + text.len());
        let len = state.category.map_or(0, |_| 3) + text_len(route) + text_len(pool);
        buffer.put_u8(len as u8);
        if let Some(category) = state.category {
            buffer.put_slice(&[STATE_CATEGORY, 1, category.number()]);
        }
        if let Some(route) = route {
            buffer.put_slice(&[STATE_ROUTE, route.len() as u8]);
            buffer.put_slice(route);
        }
        if let Some(pool) = pool {
            buffer.put_slice(&[STATE_POOL, pool.len() as u8]);
            buffer.put_slice(pool);
        }
    }
}

fn take_state(reader: &mut Reader<'_>) -> Result<RecipientState, Malformed> {
    let phase = match reader.u8()? {
        0 => Phase::Queued,
        1 => Phase::Deferred,
        2 => Phase::Held,
        3 => Phase::Delivered,
        4 => Phase::Failed,
        5 => Phase::Removed,
        6 => Phase::Untold,
        _ => return Err(Malformed("unknown state")),
    };
    let flags = reader.u8()?;
    let delay_notice = if flags & STATE_NOTICE_SENT == 0 { DelayNotice::Unsent } else { DelayNotice::Sent };
    let (attempts, due) = (reader.u32()?, Timestamp(reader.u64()?));
    let last = if flags & STATE_LAST == 0 { None } else { Some(take_last(reader)?) };
    let mut state = RecipientState { phase, attempts, due, delay_notice, last, ..RecipientState::default() };
    if flags & STATE_FIELDS != 0 {
        take_fields(reader, &mut state)?;
    }
    Ok(state)
}

fn take_fields(reader: &mut Reader<'_>, state: &mut RecipientState) -> Result<(), Malformed> {
    let len = reader.u8()?;
    let mut fields = Reader::new(reader.take(usize::from(len))?);
    while fields.end().is_err() {
        let (number, len) = (fields.u8()?, fields.u8()?);
        let bytes = fields.take(usize::from(len))?;
        match number {
            // A category of a later version is one that is not known.
            STATE_CATEGORY => state.category = Category::of_number(Reader::new(bytes).u8()?),
            STATE_ROUTE | STATE_POOL => {
                let text = std::str::from_utf8(bytes).map_err(|_| Malformed("text is not UTF-8"))?;
                let field = if number == STATE_ROUTE { &mut state.route } else { &mut state.pool };
                *field = Some(text.into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn take_last(reader: &mut Reader<'_>) -> Result<Last, Malformed> {
    let status = match (reader.u8()?, reader.u16()?, reader.u16()?) {
        (0, _, _) => None,
        (class, subject, detail) => Some(Status(class, subject, detail)),
    };
    Ok(Last { status, host: reader.text()?.into(), text: reader.text()?.into() })
}

/// The bytes of a record before its content, if its content begins within a `usize`.
pub(crate) const fn head_len(meta_len: u32) -> usize {
    RECORD_HEADER + meta_len as usize
}

#[cfg(test)]
mod test {
    use super::*;

    /// The meta of a message as format version 1 wrote it: without handling, and silent on whether NOTIFY was given.
    const VERSION_1: &str = "05000000000000000000000000401e18240a0600360f00626f62406578616d706c652e6e657408005151333134313539\
        020000000f00416e6e406578616d706c652e6f72670806007266633832320f00416e6e406f6c642e6578616d706c650b\
        006340642e6578616d706c65060100000001000000010307000000630000000000000004040001000c006d782e642e65\
        78616d706c650900343231206c61746572";

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits = |i: usize| u8::from_str_radix(&hexadecimal[i..i + 2], 16).unwrap();
        (0..hexadecimal.len()).step_by(2).map(digits).collect()
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        let meta = bytes(VERSION_1);
        let mut reader = Reader::new(&meta);
        assert_eq!((reader.u64(), decode_extents(&mut reader)), (Ok(5), Ok(Vec::new())));
        let envelope = take_envelope(&mut reader).unwrap();
        let states = decode_states(&mut reader).unwrap();
        reader.end().unwrap();
        assert_eq!(envelope.handling, Handling::default());
        assert_eq!(envelope.envelope_id.as_deref(), Some("QQ314159"));
        let notify: Vec<_> = envelope.recipients.iter().map(|recipient| recipient.notify).collect();
        assert_eq!(notify, [Notify::NEVER, Notify::default()]);
        assert_eq!(states[0].1.last.as_ref().map(|last| &*last.text), Some("421 later"));
        let facts = decode_message_facts(&meta).unwrap();
        assert_eq!(
            (&*facts.facts.domains, facts.facts.handling),
            ("example.org\nd.example", Handling::default())
        );
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_over() {
        let mut buffer = BytesMut::new();
        let handling = Handling { hold_until: Some(Timestamp(5)), ..Handling::default() };
        put_handling(&mut buffer, &handling);
        let mut later = vec![buffer[0] + 5, 99, 3, 1, 2, 3];
        later.extend(&buffer[1..]);
        assert_eq!(take_handling(&mut Reader::new(&later)), Ok(handling));
        later[0] += 1;
        assert!(take_handling(&mut Reader::new(&later)).is_err(), "longer than it is");
    }

    #[test]
    fn a_campaign_is_kept_as_far_as_there_is_room_and_is_text() {
        for (campaign, kept) in [
            ("news", "news".to_owned()),
            (&"é".repeat(100), "é".repeat(CAMPAIGN_MAX / 2)),
            ("", String::new()),
        ] {
            let mut buffer = BytesMut::new();
            put_handling(&mut buffer, &Handling { campaign: Some(campaign.into()), ..Handling::default() });
            let handling = take_handling(&mut Reader::new(&buffer)).unwrap();
            assert_eq!(handling.campaign.as_deref(), Some(&*kept));
        }
        assert!(take_handling(&mut Reader::new(&[3, HANDLING_CAMPAIGN, 1, 0xff])).is_err(), "no text");
    }

    #[test]
    fn an_origin_is_kept_and_all_fields_have_room_together() {
        for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            let handling = Handling { origin: Some(address.parse().unwrap()), ..Handling::default() };
            let mut buffer = BytesMut::new();
            put_handling(&mut buffer, &handling);
            assert_eq!(take_handling(&mut Reader::new(&buffer)), Ok(handling), "{address}");
        }
        assert!(take_handling(&mut Reader::new(&[5, HANDLING_ORIGIN, 3, 1, 2, 3])).is_err());
        let full = Handling {
            priority: TransferPriority::new(9).unwrap(),
            deliver_by: Some(DeliverBy {
                deadline: Timestamp(1),
                mode: DeliverByMode::Notify,
                trace: DeliverByTrace::Yes,
            }),
            hold_until: Some(Timestamp(1)),
            hold_for: Some(HoldFor(1)),
            tls: TlsDemand::Required,
            tenant: TenantId(1),
            list: ListId(1),
            campaign: Some("n".repeat(CAMPAIGN_MAX).into()),
            origin: Some("2001:db8::1".parse().unwrap()),
        };
        let mut buffer = BytesMut::new();
        put_handling(&mut buffer, &full);
        assert_eq!(take_handling(&mut Reader::new(&buffer)), Ok(full));
    }

    #[test]
    fn what_a_refusal_was_about_an_operators_route_and_a_pool_are_kept() {
        for (category, route, pool) in [
            (None, None, None),
            (Some(Category::Greylisted), None, None),
            (None, Some("backup".into()), None),
            (None, None, Some("warm".into())),
            (Some(Category::Other), Some("r".repeat(ROUTE_MAX).into()), Some("p".repeat(POOL_MAX).into())),
        ] {
            let state = RecipientState { attempts: 3, category, route, pool, ..RecipientState::default() };
            let mut buffer = BytesMut::new();
            put_state(&mut buffer, &state);
            assert_eq!(take_state(&mut Reader::new(&buffer)), Ok(state));
        }
        // A field, and a category, of a later version are passed over.
        let mut buffer = BytesMut::new();
        let state = RecipientState { category: Some(Category::Quota), ..RecipientState::default() };
        put_state(&mut buffer, &state);
        let mut later = buffer.to_vec();
        let fields = later.len() - 3;
        later[fields - 1] += 3;
        later[fields + 2] = 200;
        later.extend([99, 1, 0]);
        assert_eq!(take_state(&mut Reader::new(&later)), Ok(RecipientState::default()));
        assert!(take_state(&mut Reader::new(&later[..later.len() - 1])).is_err(), "cut short");
    }

    #[test]
    fn where_a_message_came_from_is_kept() {
        let whole = Upstream {
            name: Some("c.example".into()),
            address: Some("2001:db8::7".parse().unwrap()),
            port: Some(4711),
            protocol: Some("ESMTP".into()),
            helo: Some("a".repeat(UPSTREAM_MAX).into()),
            ident: Some("4C1".into()),
            source: Some(Source::Remote),
        };
        for upstream in [Upstream { source: Some(Source::Local), ..Upstream::default() }, whole] {
            let mut buffer = BytesMut::new();
            put_upstream(&mut buffer, &upstream);
            assert_eq!(take_upstream(&mut Reader::new(&buffer)), Ok(upstream.clone()));
            // A field of a later version is passed over.
            let len = buffer.len() as u16 - 2 + 3;
            let mut later = len.to_le_bytes().to_vec();
            later.extend([99, 1, 0]);
            later.extend(&buffer[2..]);
            assert_eq!(take_upstream(&mut Reader::new(&later)), Ok(upstream));
        }
    }
}
