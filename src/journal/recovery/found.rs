//! What the records say of one message.

use crate::{
    Entry, Facts, Placement,
    codec::Malformed,
    format::Header,
    record::{Kind, MessageFacts, RecipientState, decode_message_facts, decode_transition},
};

/// What a record means for what lives.
#[derive(Debug)]
pub(super) enum Note {
    Nothing,
    Message(Box<MessageFacts>),
    Transition(Vec<(u32, RecipientState)>),
    Retired,
    Malformed(Malformed),
    Unknown,
}

/// A message as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Building {
    pub(super) message: Option<Found>,
    pub(super) states: Vec<FoundState>,
}

/// A copy of a message.
#[derive(Debug)]
pub(super) struct Found {
    /// 0 when an entry tells it.
    pub(super) sequence: u64,
    pub(super) placement: Placement,
    pub(super) facts: Facts,
}

/// The state of a recipient.
#[derive(Debug)]
pub(super) struct FoundState {
    pub(super) index: u32,
    pub(super) sequence: u64,
    /// The segment of the transition; none when the message's own record or an entry tells the state.
    pub(super) segment: Option<u32>,
    pub(super) state: RecipientState,
}

impl Note {
    /// Decodes a record. `Nothing` for what is of no matter to messages.
    pub(super) fn of(header: &Header, meta: &[u8]) -> Self {
        let note = match Kind::from_number(header.kind) {
            None => return Self::Unknown,
            Some(Kind::Begin | Kind::End | Kind::Chunk) => return Self::Nothing,
            Some(Kind::Message) => decode_message_facts(meta).map(|facts| Self::Message(Box::new(facts))),
            Some(Kind::Transition) => decode_transition(meta).map(Self::Transition),
            Some(Kind::Retired) => Ok(Self::Retired),
        };
        note.unwrap_or_else(Self::Malformed)
    }
}

impl Building {
    /// Begins with what an entry tells; any record behind its checkpoint counts more.
    pub(super) fn add_entry(&mut self, entry: Entry) {
        let Entry { placement, states, facts } = entry;
        if self.message.is_none() {
            self.message = Some(Found { sequence: 0, placement, facts });
            for (index, state) in states {
                self.set(FoundState { index, sequence: 0, segment: None, state });
            }
        }
    }

    /// Answers whether there was another copy.
    pub(super) fn set_message(&mut self, found: Found, states: Vec<(u32, RecipientState)>) -> bool {
        let sequence = found.sequence;
        let before = self.message.as_ref().map(|message| message.sequence);
        if before.is_some_and(|before| before > sequence) {
            return true;
        }
        self.message = Some(found);
        self.states.retain(|state| state.sequence > sequence);
        for (index, state) in states {
            self.set(FoundState { index, sequence, segment: None, state });
        }
        before.is_some()
    }

    pub(super) fn set(&mut self, found: FoundState) {
        if self.message.as_ref().is_some_and(|message| message.sequence > found.sequence) {
            return;
        }
        match self.states.iter_mut().find(|state| state.index == found.index) {
            Some(state) if state.sequence > found.sequence => {}
            Some(state) => *state = found,
            None => self.states.push(found),
        }
    }
}
