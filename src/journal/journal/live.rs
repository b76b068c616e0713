//! What is kept in memory of a live message.

use super::Span;
use crate::{format::record_len, record::Extent};

/// No segment.
pub(super) const NOWHERE: u32 = u32::MAX;
/// What a transition is taken to weigh when the share that lives is reckoned.
pub(super) const TRANSITION_WEIGHT: u64 = 128;

/// What is kept in memory of a live message: 32 bytes, and more only for those with chunks or scattered states.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) segment: u32,
    /// In units of 8 bytes.
    pub(super) offset: u32,
    pub(super) meta_len: u32,
    pub(super) inline_len: u32,
    pub(super) recipients: u32,
    /// The segment of the transition that counts; `NOWHERE` when there is none.
    pub(super) transition: u32,
    pub(super) more: Option<Box<More>>,
}

#[derive(Debug, Default)]
pub(super) struct More {
    pub(super) extents: Box<[Extent]>,
    /// Further segments with transitions that count.
    pub(super) transitions: Vec<u32>,
}

impl Live {
    pub(super) fn extents(&self) -> &[Extent] {
        self.more.as_ref().map_or(&[], |more| &more.extents)
    }

    pub(super) fn transitions(&self) -> impl Iterator<Item = u32> {
        let others = self.more.as_ref().map_or(&[][..], |more| &more.transitions);
        (self.transition != NOWHERE).then_some(self.transition).into_iter().chain(others.iter().copied())
    }

    pub(super) fn add_transition(&mut self, segment: u32) {
        if self.transition == NOWHERE {
            self.transition = segment;
        } else {
            self.more.get_or_insert_default().transitions.push(segment);
        }
    }

    pub(super) fn for_each_hold(&self, mut hold: impl FnMut(u32, u64)) {
        hold(self.segment, record_len(u64::from(self.meta_len), u64::from(self.inline_len)));
        self.extents().iter().for_each(|extent| hold(extent.segment, chunk_len(extent)));
        self.transitions().for_each(|segment| hold(segment, TRANSITION_WEIGHT));
    }
}

impl More {
    pub(super) fn new(extents: Box<[Extent]>, transitions: Vec<u32>) -> Option<Box<Self>> {
        let some = !extents.is_empty() || !transitions.is_empty();
        some.then(|| Box::new(Self { extents, transitions }))
    }
}

impl Extent {
    /// Where to read it.
    pub const fn span(&self) -> Span {
        Span { segment: self.segment, offset: self.offset, len: self.len as u64 }
    }
}

pub(super) const fn chunk_len(extent: &Extent) -> u64 {
    record_len(0, extent.len as u64)
}
