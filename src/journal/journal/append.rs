//! Appending: messages, their parts, their states, their end.

use bytes::Bytes;
use mail::QueueId;

use super::{
    AppendError, AppendMessage, Appended, Content, Draft, Journal, Position,
    live::{Live, More, NOWHERE, TRANSITION_WEIGHT, chunk_len},
    tail::Tail,
};
use crate::{
    Class,
    format::{RECORD_HEADER, record_len},
    record::{Extent, Kind, RecipientState, encode_message, encode_states},
    segments::Purpose,
};

#[derive(Debug)]
pub(super) struct DraftParts {
    pub(super) class: Class,
    pub(super) extents: Vec<Extent>,
    pub(super) size: u64,
}

impl Journal {
    /// Appends new mail and gives it its id.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_message(&mut self, message: &AppendMessage<'_>) -> Result<Appended, AppendError> {
        let id = self.reserve_id();
        let end = self.append_reserved(id, message)?;
        Ok(Appended { id, end })
    }

    /// The id of a message that is to be appended: its trace fields name it before its end is received. An id that
    /// is never appended is not given out again, unless a crash comes before the next append.
    ///
    /// # Panics
    /// When the 2^52 numbers of the journal shard are used up.
    pub fn reserve_id(&mut self) -> QueueId {
        let number = self.next_number;
        assert!(number <= QueueId::NUMBER_MAX, "message numbers are used up");
        self.next_number = number + 1;
        QueueId::new(self.shard, number)
    }

    /// Appends new mail under an id of [`Self::reserve_id`].
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended, and the id may be used for another try.
    ///
    /// # Panics
    /// When the id was not reserved, or is in use.
    pub fn append_reserved(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
    ) -> Result<Position, AppendError> {
        if self.failure.is_some() {
            // Whoever tries again may have appended it before the failure.
            return Err(AppendError::Failed);
        }
        assert!(id.shard() == self.shard && id.number() < self.next_number, "the id was not reserved");
        assert!(!self.live.contains_key(&id.number()), "the id is in use");
        self.put_message(id, message, Class::Hot, Purpose::Mail)?;
        Ok(Position(self.sequence))
    }

    /// Appends a live message once more, among the survivors; this copy takes the place of the one before it.
    ///
    /// `states` are the current states of all its recipients that are not as they began.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_rescued(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
    ) -> Result<Position, AppendError> {
        if !self.live.contains_key(&id.number()) {
            return Err(AppendError::UnknownMessage);
        }
        self.put_message(id, message, Class::Cold, Purpose::Rescue)?;
        self.rescue.pending.remove(&id.number());
        Ok(Position(self.sequence))
    }

    /// Appends the new states of some recipients; each is the whole state.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_transition(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<Position, AppendError> {
        self.put_transition(id, states, Class::Hot)
    }

    /// Appends the states of all recipients among the survivors: answers [`crate::Order::Rescue`].
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_states(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<Position, AppendError> {
        let end = self.put_transition(id, states, Class::Cold)?;
        self.supersede_transitions(id.number(), Class::Cold);
        self.rescue.pending.remove(&id.number());
        Ok(end)
    }

    /// Appends that all recipients have ended. The message is gone at once, its bytes when this is durable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_retired(&mut self, id: QueueId) -> Result<Position, AppendError> {
        let live = self.live.get(&id.number()).ok_or(AppendError::UnknownMessage)?;
        // In the class of its message, so that it outlives it: see `segments`.
        let class = self.segments.get(live.segment).map_or(Class::Hot, |segment| segment.class);
        self.scratch.clear();
        self.put(class, Kind::Retired, id.to_bits(), &[], Purpose::Retire)?;
        let live = self.live.remove(&id.number()).expect("seen above");
        self.release_all(&live);
        self.rescue.pending.remove(&id.number());
        self.rescue.stuck.remove(&id.number());
        Ok(Position(self.sequence))
    }

    /// Begins a message whose content comes in parts. `Class::Hot` for new mail, `Class::Cold` for a rescue.
    pub fn begin_draft(&mut self, class: Class) -> Draft {
        let draft = self.next_draft;
        self.next_draft += 1;
        self.drafts.insert(draft, DraftParts { class, extents: Vec::new(), size: 0 });
        Draft(draft)
    }

    /// Appends a part of a draft's content. Parts of 256 KiB and more are best.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_chunk(&mut self, draft: &Draft, content: &[Bytes]) -> Result<(), AppendError> {
        let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
        let (class, kept) = (parts.class, parts.extents.len());
        let purpose = match class {
            Class::Hot => Purpose::Mail,
            Class::Cold => Purpose::Rescue,
        };
        let appended = self.put_chunks(draft, content, class, purpose);
        if appended.is_err() {
            let parts = self.drafts.get_mut(&draft.0).expect("seen above");
            for extent in parts.extents.drain(kept..) {
                parts.size -= u64::from(extent.len);
                self.segments.release(extent.segment, chunk_len(&extent));
            }
        }
        appended
    }

    /// As [`Self::append_chunk`], of what stands before all that was appended so far: a header section that is known last.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn prepend_chunk(&mut self, draft: &Draft, content: &[Bytes]) -> Result<(), AppendError> {
        let behind = self.drafts.get(&draft.0).map_or(0, |parts| parts.extents.len());
        self.append_chunk(draft, content)?;
        let parts = self.drafts.get_mut(&draft.0).expect("it was just appended to");
        let added = parts.extents.len() - behind;
        parts.extents.rotate_right(added);
        Ok(())
    }

    /// Forgets a draft; what was written of it is garbage. A draft that is used up already may be dropped too.
    pub fn drop_draft(&mut self, draft: Draft) {
        self.release_draft(draft.0);
    }

    fn put_message(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let (draft, rest) = match message.content {
            Content::Whole(content) => (None, content),
            Content::Draft(draft, rest) => (Some(draft), rest),
        };
        let (mut extents, mut size) = (Vec::new(), content_len(rest));
        if let Some(draft) = draft {
            let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
            (extents, size) = (parts.extents.clone(), size + parts.size);
        }
        self.scratch.clear();
        encode_message(&mut self.scratch, message.envelope, message.states, size, &extents);
        let inline_len = content_len(rest);
        let fits = record_len(self.scratch.len() as u64, inline_len) <= self.capacity();
        if inline_len > u64::from(self.limits.inline_max) || (!fits && inline_len > 0) {
            return self.put_spilled(id, message, draft, rest, class, purpose);
        }
        let meta_len = self.scratch.len() as u32;
        let (segment, offset, _) = self.put(class, Kind::Message, id.to_bits(), rest, purpose)?;
        self.segments.hold(segment, record_len(u64::from(meta_len), inline_len));
        if let Some(draft) = draft {
            self.drafts.remove(&draft.0); // What it held is held by the message now.
            self.rescue.arriving.push_back((self.sequence - 1, id.number()));
        }
        let live = Live {
            segment,
            offset: (offset / 8) as u32,
            meta_len,
            inline_len: inline_len as u32,
            recipients: message.envelope.recipients.len() as u32,
            transition: NOWHERE,
            more: More::new(extents.into(), Vec::new()),
        };
        if let Some(before) = self.live.insert(id.number(), live) {
            self.release_all(&before);
        }
        Ok(())
    }

    /// Writes content that is too long for one record into chunks first.
    fn put_spilled(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
        draft: Option<&Draft>,
        rest: &[Bytes],
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let spill = self.begin_draft(class);
        if let Some(draft) = draft {
            let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
            let (extents, size) = (parts.extents.clone(), parts.size);
            extents.iter().for_each(|extent| self.segments.hold(extent.segment, chunk_len(extent)));
            let spilled = self.drafts.get_mut(&spill.0).expect("just begun");
            (spilled.extents, spilled.size) = (extents, size);
        }
        let whole = self.append_chunk(&spill, rest).and_then(|()| {
            let content = Content::Draft(&spill, &[]);
            self.put_message(id, &AppendMessage { content, ..*message }, class, purpose)
        });
        self.drop_draft(spill);
        whole?;
        if let Some(draft) = draft {
            self.release_draft(draft.0);
        }
        Ok(())
    }

    fn release_draft(&mut self, draft: u64) {
        for extent in self.drafts.remove(&draft).map(|parts| parts.extents).unwrap_or_default() {
            self.segments.release(extent.segment, chunk_len(&extent));
        }
    }

    fn put_chunks(
        &mut self,
        draft: &Draft,
        content: &[Bytes],
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let mut cutter = Cutter { slices: content, skip: 0 };
        let mut left = content_len(content);
        let longest = self
            .capacity()
            .saturating_sub(RECORD_HEADER as u64)
            .clamp(8, u64::from(self.limits.inline_max.max(8)));
        while left > 0 {
            let whole = left.min(longest);
            let room = self.tails[class as usize].as_ref().map_or(0, Tail::room);
            let fitting = room.saturating_sub(RECORD_HEADER as u64) / 8 * 8;
            // A short end of a segment is filled, a very short one is left.
            let len =
                if fitting < whole && fitting >= whole.min(longest / 8).max(8) { fitting } else { whole };
            let piece = cutter.cut(len as usize);
            self.scratch.clear();
            let (segment, offset, crc) = self.put(class, Kind::Chunk, draft.0, &piece, purpose)?;
            let generation = self.segments.get(segment).map_or(0, |segment| segment.generation);
            let offset = offset + RECORD_HEADER as u64;
            let extent = Extent { segment, generation, offset, len: len as u32, crc };
            self.segments.hold(segment, chunk_len(&extent));
            let parts = self.drafts.get_mut(&draft.0).expect("the caller saw it");
            parts.extents.push(extent);
            parts.size += len;
            left -= len;
        }
        Ok(())
    }

    fn put_transition(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
        class: Class,
    ) -> Result<Position, AppendError> {
        let live = self.live.get(&id.number()).ok_or(AppendError::UnknownMessage)?;
        assert!(states.iter().all(|(index, _)| *index < live.recipients), "a state of nobody");
        let covers_all = states.len() as u64 == u64::from(live.recipients);
        self.scratch.clear();
        encode_states(&mut self.scratch, states);
        let purpose = match class {
            Class::Hot => Purpose::Transition,
            Class::Cold => Purpose::Rescue,
        };
        let (segment, _, _) = self.put(class, Kind::Transition, id.to_bits(), &[], purpose)?;
        let live = self.live.get_mut(&id.number()).expect("seen above");
        if !live.transitions().any(|held| held == segment) {
            self.segments.hold(segment, TRANSITION_WEIGHT);
            live.add_transition(segment);
        }
        if covers_all {
            self.supersede_transitions(id.number(), class);
        }
        Ok(Position(self.sequence))
    }

    /// The transition just written tells all: those before it stop to count.
    fn supersede_transitions(&mut self, number: u64, class: Class) {
        let newest = self.tails[class as usize].as_ref().map_or(NOWHERE, |tail| tail.segment);
        let Some(live) = self.live.get_mut(&number) else { return };
        for segment in live.transitions().filter(|segment| *segment != newest) {
            self.releases.push_back((self.sequence - 1, segment, TRANSITION_WEIGHT));
        }
        live.transition = newest;
        if let Some(more) = &mut live.more {
            more.transitions.clear();
        }
    }

    fn release_all(&mut self, live: &Live) {
        let at = self.sequence - 1;
        live.for_each_hold(|segment, bytes| self.releases.push_back((at, segment, bytes)));
    }
}

/// Cuts a list of slices into pieces without copying a byte.
struct Cutter<'a> {
    slices: &'a [Bytes],
    skip: usize,
}

impl Cutter<'_> {
    fn cut(&mut self, mut len: usize) -> Vec<Bytes> {
        let mut piece = Vec::new();
        while len > 0 {
            let (first, rest) = self.slices.split_first().expect("no more is cut than there is");
            let part = first.slice(self.skip..first.len().min(self.skip + len));
            len -= part.len();
            self.skip += part.len();
            if self.skip == first.len() {
                (self.slices, self.skip) = (rest, 0);
            }
            piece.push(part);
        }
        piece
    }
}

pub(super) fn content_len(content: &[Bytes]) -> u64 {
    content.iter().map(|slice| slice.len() as u64).sum()
}
