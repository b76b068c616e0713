//! The reading of one segment's record heads, and the way past damaged places.

use super::{Read, Scanned, Step};
use crate::{
    HEADER_PAGE,
    format::{Header, HeaderFault, META_CEILING, RECORD_HEADER, find_magic},
    record::Kind,
};

/// A segment being read, from head to head.
#[derive(Debug)]
pub(super) struct Walk {
    segment: usize,
    number: u32,
    generation: u32,
    offset: u64,
    /// Nothing from here on is looked at.
    limit: u64,
    place: Place,
    mode: Mode,
    window: usize,
    /// Sequence and epoch of the last record met.
    last: Option<(u64, u64)>,
    walked: Walked,
    want: Option<Read>,
}

/// What the reading of a segment found, besides records.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    /// Where the records end.
    pub(super) end: u64,
    pub(super) stop: Stop,
    /// From where to where nothing can be read, though records lie behind it.
    pub(super) gaps: Vec<(u64, u64)>,
}

/// Where a segment stands in its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Last,
    Before,
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A last record, or the end of the file.
    End,
    /// Zeros, or what the file held before.
    Clean,
    /// Something else.
    Garbage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Follow,
    /// Looks for a record behind the bad place at this offset.
    Search(u64),
}

enum Look {
    Record(Header),
    /// As many bytes are needed.
    More(usize),
    Stop(Stop),
}

enum Search {
    /// So far ahead is a record.
    Found(u64),
    /// So far ahead may be one; as many bytes are needed to tell.
    More(u64, usize),
    Nothing,
}

const WINDOW: usize = 128 << 10;
const WINDOW_SMALL: usize = 4 << 10;

impl Walk {
    /// Reads all of a segment.
    pub(super) fn new(segment: usize, scanned: &Scanned, place: Place) -> Self {
        Self::part(segment, scanned, place, (HEADER_PAGE, None), scanned.len)
    }

    /// Reads a segment from an offset on, up to another one. Before the first came the record of that sequence and
    /// epoch.
    pub(super) fn part(
        segment: usize,
        scanned: &Scanned,
        place: Place,
        (from, last): (u64, Option<(u64, u64)>),
        limit: u64,
    ) -> Self {
        let walked = Walked { end: from, stop: Stop::End, gaps: Vec::new() };
        let mut walk = Self {
            segment,
            number: scanned.number,
            generation: scanned.generation,
            offset: from,
            limit,
            place,
            mode: Mode::Follow,
            window: WINDOW,
            last,
            walked,
            want: None,
        };
        walk.go_on();
        walk
    }

    /// Which one is read.
    pub(super) const fn segment(&self) -> usize {
        self.segment
    }

    pub(super) fn step(&self) -> Step {
        self.want.map_or(Step::Done, Step::Read)
    }

    pub(super) fn finish(self) -> (usize, Walked) {
        (self.segment, self.walked)
    }

    /// The bytes that were asked for; each record whose head is whole is shown with its offset and its meta.
    pub(super) fn on_read(&mut self, bytes: &[u8], mut on_record: impl FnMut(u64, &Header, &[u8])) {
        let read = self.want.take().expect("a read was asked for");
        let whole = bytes.len() == read.len;
        let mut at = 0; // Within `bytes`; `offset` is the same place in the file.
        loop {
            let rest = &bytes[at.min(bytes.len())..];
            match self.mode {
                Mode::Follow => match self.follow(rest, &mut on_record) {
                    Look::Record(header) => {
                        self.offset += header.len();
                        let big = header.len() > WINDOW as u64 / 2;
                        self.window = if big { WINDOW_SMALL } else { WINDOW };
                        if Kind::from_number(header.kind) == Some(Kind::End) {
                            self.walked.end = self.offset;
                            return;
                        }
                        match usize::try_from(header.len()) {
                            Ok(len) if len < rest.len() => at += len,
                            Ok(_) | Err(_) => return self.go_on(),
                        }
                    }
                    Look::More(len) if whole && (at > 0 || len > read.len) => {
                        self.window = self.window.max(len);
                        return self.go_on();
                    }
                    Look::More(_) => return self.stop(Stop::Garbage),
                    Look::Stop(stop) => return self.stop(stop),
                },
                Mode::Search(from) => match self.search(rest) {
                    Search::Found(ahead) => {
                        self.offset += ahead;
                        at += ahead as usize;
                        self.walked.gaps.push((from, self.offset));
                        self.mode = Mode::Follow;
                    }
                    Search::More(ahead, len) => {
                        // From the candidate itself, with all of its head; one that was read so is no record.
                        let again = ahead == 0 && at == 0 && len <= read.len;
                        self.offset += if again || !whole { ahead + 8 } else { ahead };
                        self.window = if again { WINDOW } else { self.window.max(len) };
                        return self.go_on();
                    }
                    Search::Nothing if whole => {
                        self.offset += rest.len() as u64 / 8 * 8;
                        self.window = WINDOW;
                        return self.go_on();
                    }
                    Search::Nothing => return,
                },
            }
        }
    }

    /// Asks for the next window, or ends when nothing more can be in the segment.
    fn go_on(&mut self) {
        let left = self.limit.saturating_sub(self.offset);
        if left < RECORD_HEADER as u64 {
            if self.mode == Mode::Follow {
                (self.walked.stop, self.walked.end) = (Stop::End, self.offset);
            }
            return;
        }
        let len = usize::try_from(left).map_or(self.window, |left| left.min(self.window));
        self.want = Some(Read { segment: self.number, offset: self.offset, len });
    }

    /// Looks at the place where the next record must be.
    fn follow(&mut self, rest: &[u8], on_record: &mut impl FnMut(u64, &Header, &[u8])) -> Look {
        let header = match Header::decode(rest) {
            Ok(header) => header,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER),
            Err(HeaderFault::Blank) => return Look::Stop(Stop::Clean),
            Err(HeaderFault::Magic | HeaderFault::Crc) => return Look::Stop(Stop::Garbage),
        };
        if header.meta_len > META_CEILING || header.len() > self.limit - self.offset {
            return Look::Stop(Stop::Garbage);
        }
        let meta = match header.checked_meta(rest) {
            Ok(meta) => meta,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER + header.meta_len as usize),
            Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {
                return Look::Stop(Stop::Garbage);
            }
        };
        let older_run = self.last.is_some_and(|(_, epoch)| header.epoch < epoch);
        if header.generation != self.generation || older_run {
            return Look::Stop(Stop::Clean);
        }
        let is_begin = Kind::from_number(header.kind) == Some(Kind::Begin);
        if self.last.is_some_and(|(last, _)| header.sequence <= last)
            || is_begin != (self.offset == HEADER_PAGE)
        {
            return Look::Stop(Stop::Garbage);
        }
        self.last = Some((header.sequence, header.epoch));
        self.walked.end = self.offset + header.len();
        on_record(self.offset, &header, meta);
        Look::Record(header)
    }

    /// Looks for a later record of the same use of the segment.
    fn search(&self, bytes: &[u8]) -> Search {
        let mut at = 0;
        while let Some(ahead) = find_magic(&bytes[at..]) {
            at += ahead;
            let left = self.limit.saturating_sub(self.offset + at as u64);
            match Header::decode(&bytes[at..]) {
                Err(HeaderFault::Short) => return Search::More(at as u64, RECORD_HEADER),
                Ok(header)
                    if header.generation == self.generation
                        && self
                            .last
                            .is_none_or(|(last, epoch)| header.sequence > last && header.epoch >= epoch)
                        && header.meta_len <= META_CEILING
                        && header.len() <= left =>
                {
                    match header.checked_meta(&bytes[at..]) {
                        Ok(_) => return Search::Found(at as u64),
                        Err(HeaderFault::Short) => {
                            return Search::More(at as u64, RECORD_HEADER + header.meta_len as usize);
                        }
                        Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {}
                    }
                }
                Ok(_) | Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {}
            }
            at += 8;
            if at >= bytes.len() {
                break;
            }
        }
        Search::Nothing
    }

    /// The records of a segment end here. In the last segment of its class, zeros are how that looks.
    fn stop(&mut self, stop: Stop) {
        (self.walked.stop, self.walked.end) = (stop, self.offset);
        if stop == Stop::Clean && self.place == Place::Last {
            return;
        }
        self.mode = Mode::Search(self.offset);
        self.offset += 8;
        self.window = WINDOW;
        self.go_on();
    }
}
