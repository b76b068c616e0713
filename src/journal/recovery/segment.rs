//! What is known of each segment: its header page, where its records end, whether it is used again.

use std::{cmp::Reverse, collections::BTreeSet};

use mail::JournalShard;

use super::{
    Damage, Epochs, RecoveryError, Report, SegmentFile, Torn,
    walk::{Place, Stop, Walked},
};
use crate::{
    Class, HEADER_PAGE, SegmentHeader, SegmentHeaderError, Witness,
    format::{Header, HeaderFault, RECORD_HEADER},
    record::Payload,
    segments::{Remake, Segment, Segments, State},
};

/// A segment file, as far as it is known.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) number: u32,
    pub(super) len: u64,
    pub(super) generation: u32,
    pub(super) fate: Fate,
    pub(super) class: Class,
    /// Sequence and epoch of its first record.
    pub(super) begin: u64,
    epoch: u64,
    /// What reading it found, if it was read to find the end of the log.
    pub(super) walked: Option<Walked>,
    /// Where the first record lies that does not count.
    pub(super) void: Option<u64>,
    /// It holds records that were not known to be durable.
    pub(super) in_tail: bool,
    /// No record in it has this sequence or a higher one, once no more is written to it.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of worth is in it.
    Remake(Remake),
    /// A header page and nothing else.
    Empty,
    /// It has a first record.
    Used,
}

/// What a segment's first bytes say of the log.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of two runs at most: epoch, start, synced_to.
    pub(super) epochs: [Option<(u64, u64, u64)>; 2],
    pub(super) next_number: u64,
    pub(super) is_damaged: bool,
}

/// The header page and the first record.
pub(super) const FIRST_READ: usize = 8 << 10;

impl Scanned {
    pub(super) const fn new(file: SegmentFile) -> Self {
        Self {
            number: file.number,
            len: file.len,
            generation: 0,
            fate: Fate::Remake(Remake::Create),
            class: Class::Hot,
            begin: 0,
            epoch: 0,
            walked: None,
            void: None,
            in_tail: false,
            end: 0,
        }
    }

    /// Takes the first bytes of the file.
    pub(super) fn on_header(&mut self, shard: JournalShard, bytes: &[u8]) -> Result<Told, RecoveryError> {
        let (segment, mut told) = (self.number, Told::default());
        let first = bytes.get(HEADER_PAGE as usize..).and_then(read_begin);
        match SegmentHeader::decode(bytes) {
            Ok(header) if header.shard == shard && header.number == segment => {
                (self.generation, self.fate) = (header.generation, Fate::Empty);
                let Witness { synced_to, epoch, epoch_start, next_number } = header.witness;
                told.epochs[0] = Some((epoch, epoch_start, synced_to));
                told.next_number = next_number;
                if self.len < header.size {
                    self.fate = Fate::Remake(Remake::Create);
                }
            }
            Ok(SegmentHeader { number, shard, .. }) => {
                return Err(RecoveryError::Foreign { segment, number, shard });
            }
            Err(SegmentHeaderError::Version(version)) => {
                return Err(RecoveryError::Version { segment, version });
            }
            Err(SegmentHeaderError::Blank) if first.is_none() => {}
            Err(SegmentHeaderError::Blank | SegmentHeaderError::Damaged) => {
                // The first record tells the generation as well.
                if let Some((header, _, _)) = &first {
                    (self.generation, self.fate) = (header.generation, Fate::Empty);
                }
                told.is_damaged = true;
            }
        }
        if let Some((header, class, next_number)) = first
            && header.generation == self.generation
            && self.fate != Fate::Remake(Remake::Create)
        {
            (self.fate, self.class, self.begin, self.epoch) =
                (Fate::Used, class, header.sequence, header.epoch);
            told.epochs[1] = Some((header.epoch, header.epoch_start, header.synced_to));
            told.next_number = told.next_number.max(next_number);
        } else if bytes.get(HEADER_PAGE as usize..).is_some_and(|rest| is_dirty(rest, self.generation))
            && self.fate == Fate::Empty
        {
            self.fate = Fate::Remake(Remake::Recycle);
        }
        Ok(told)
    }

    /// Whether it holds records that count, as far as is known.
    pub(super) fn is_of_use(&self, epochs: &Epochs) -> bool {
        self.fate == Fate::Used && !epochs.is_void(self.epoch, self.begin)
    }

    /// Where the records end that count; the end of the file when it was not read.
    pub(super) fn record_end(&self) -> u64 {
        let end = self.walked.as_ref().map_or(self.len, |walked| walked.end);
        self.void.map_or(end, |void| void.min(end))
    }

    /// Gives it to the journal that goes on.
    pub(super) fn hand_over(&self, segments: &mut Segments, tails: &BTreeSet<u32>) {
        let state = match self.fate {
            Fate::Remake(remake) => return segments.adopt_blank(self.number, remake, self.len),
            Fate::Empty => State::Ready,
            Fate::Used if tails.contains(&self.number) => State::Active,
            Fate::Used => State::Sealed,
        };
        let segment = Segment {
            generation: self.generation,
            size: self.len,
            state,
            class: self.class,
            begin: self.begin,
            end: if state == State::Sealed { self.end } else { 0 },
            live: 0,
            live_bytes: 0,
            waste: 0,
        };
        segments.adopt(self.number, segment);
        if self.fate == Fate::Used {
            // Until it is known what lives in it.
            segments.hold(self.number, 0);
        }
    }

    /// A gap before a record that does not count is where writing was cut off, and not a loss.
    fn void_torn_gaps(&mut self) {
        if let (Some(void), Some(walked)) = (self.void, &mut self.walked) {
            let torn = walked.gaps.iter().filter(|(_, to)| *to >= void).map(|(from, _)| *from).min();
            self.void = Some(torn.map_or(void, |torn| torn.min(void)));
        }
    }
}

/// The next segment to be read to find the end of the log, and where it stands: from the last one of each class back to
/// one that begins with what is known to be durable.
pub(super) fn next_to_read(segments: &[Scanned], epochs: &Epochs) -> Option<(usize, Place)> {
    [Class::Hot, Class::Cold].into_iter().find_map(|class| {
        let of_class = |i: &usize| segments[*i].class == class && segments[*i].is_of_use(epochs);
        let mut newest_first: Vec<_> = (0..segments.len()).filter(of_class).collect();
        newest_first.sort_by_key(|i| Reverse(segments[*i].begin));
        let unread = newest_first.iter().position(|i| segments[*i].walked.is_none())?;
        // One that begins with a record in doubt may turn out to hold nothing: the one before it is the last one then.
        let is_enough = newest_first[..unread].iter().any(|i| segments[*i].begin < epochs.durable());
        let place = if unread == 0 { Place::Last } else { Place::Before };
        (!is_enough).then_some((newest_first[unread], place))
    })
}

/// Says which segments are of worth and where the log is torn; answers the segments to go on in.
pub(super) fn settle(
    segments: &mut [Scanned],
    epochs: &Epochs,
    end: u64,
    report: &mut Report,
) -> BTreeSet<u32> {
    for scanned in &mut *segments {
        scanned.void_torn_gaps();
        let is_void = scanned.void == Some(HEADER_PAGE) || !scanned.is_of_use(epochs);
        if scanned.fate == Fate::Used && is_void {
            scanned.fate = Fate::Remake(Remake::Recycle);
        }
    }
    segments.sort_by_key(|scanned| scanned.begin);
    let mut tails = BTreeSet::new();
    for class in [Class::Hot, Class::Cold] {
        let of_class = |s: &&Scanned| s.fate == Fate::Used && s.class == class;
        let last = segments.iter().rfind(of_class).map(|scanned| scanned.number);
        for scanned in segments.iter().filter(of_class) {
            // What was not read is before one that begins with what was durable: it is whole, as far as is known.
            let Some(walked) = &scanned.walked else { continue };
            let number = scanned.number;
            let open = scanned.void.is_some() || matches!(walked.stop, Stop::Clean | Stop::Garbage);
            if scanned.void.is_some() || (walked.stop == Stop::Garbage && last == Some(number)) {
                report.torn.push(Torn { segment: number, offset: scanned.record_end() });
            } else if open && last != Some(number) {
                report.damage(number, walked.end, Damage::Rest);
            }
            // Without room for the record that ends it, it is as good as ended: damage may leave that behind.
            let has_room = scanned.record_end() + RECORD_HEADER as u64 <= scanned.len;
            if last == Some(number) && open && has_room {
                tails.insert(number);
            }
        }
    }
    // A sealed segment's end is at most where the next one of its class begins.
    let mut next = [end; 2];
    for scanned in segments.iter_mut().rev().filter(|scanned| scanned.fate == Fate::Used) {
        let next = &mut next[usize::from(scanned.class.number())];
        scanned.end = std::mem::replace(next, scanned.begin);
    }
    tails
}

fn read_begin(bytes: &[u8]) -> Option<(Header, Class, u64)> {
    let header = Header::decode(bytes).ok()?;
    let meta = header.checked_meta(bytes).ok()?;
    match Payload::decode(&header, meta, 0, 0)? {
        Ok(Payload::Begin { class, next_number }) => Some((header, class, next_number)),
        Ok(_) | Err(_) => None,
    }
}

/// Whether something was begun to be written into this use of the segment.
fn is_dirty(bytes: &[u8], generation: u32) -> bool {
    match Header::decode(bytes) {
        Ok(header) => header.generation == generation,
        Err(HeaderFault::Magic | HeaderFault::Crc) => true,
        Err(HeaderFault::Blank | HeaderFault::Short) => false,
    }
}
