//! The reading of record heads, segment after segment, and the way past damaged places.

use super::{Fate, Mode, Read, Recovery, Scanned, Stage, Stop, WINDOW, WINDOW_SMALL, Walk};
use crate::{
    HEADER_PAGE, Position, SegmentRef,
    format::{Header, HeaderFault, META_CEILING, RECORD_HEADER, find_magic},
    record::Kind,
};

impl Recovery {
    pub(super) fn begin_walk(&mut self) {
        if let Some(checkpoint) = &self.checkpoint {
            let Position(start) = checkpoint.position;
            let told = self.epochs.entry(checkpoint.epoch).or_default();
            (told.start, told.synced_to) = (told.start.max(start), told.synced_to.max(start));
        }
        let mut rest: Vec<usize> = Vec::new();
        for (i, scanned) in self.segments.iter_mut().enumerate() {
            if scanned.fate != Fate::Used {
                continue;
            }
            if let Some(checkpoint) = &self.checkpoint {
                let here = SegmentRef { number: scanned.number, generation: scanned.generation };
                let cursor = checkpoint.cursors.iter().find(|cursor| cursor.segment == here);
                if let Some(cursor) = cursor {
                    // What an older run wrote there does not count any more.
                    scanned.last = Some((checkpoint.position.0.saturating_sub(1), checkpoint.epoch));
                    scanned.from = cursor.offset.max(HEADER_PAGE);
                    scanned.walked = scanned.from;
                } else if scanned.begin < checkpoint.position.0 {
                    (scanned.fate, scanned.walked) = (Fate::Told, scanned.len);
                    continue;
                }
            }
            rest.push(i);
        }
        rest.sort_by_key(|i| std::cmp::Reverse(self.segments[*i].begin));
        self.walk_next(rest);
    }

    fn walk_next(&mut self, mut rest: Vec<usize>) {
        let Some(segment) = rest.pop() else { return self.begin_verify() };
        let offset = self.segments[segment].walked;
        self.continue_walk(Walk { rest, segment, offset, mode: Mode::Follow, window: WINDOW });
    }

    /// Asks for the next window, or ends the segment when nothing more can be in it.
    fn continue_walk(&mut self, walk: Walk) {
        let scanned = &mut self.segments[walk.segment];
        let left = scanned.len.saturating_sub(walk.offset);
        if left < RECORD_HEADER as u64 {
            if walk.mode == Mode::Follow {
                (scanned.stop, scanned.walked) = (Stop::End, walk.offset);
            }
            return self.walk_next(walk.rest);
        }
        let len = usize::try_from(left).map_or(walk.window, |left| left.min(walk.window));
        self.want = Some(Read { segment: scanned.number, offset: walk.offset, len });
        self.phase = Stage::Walk(walk);
    }

    pub(super) fn on_window(&mut self, mut walk: Walk, bytes: &[u8], read: Read) {
        let mut at = 0; // Within `bytes`; `walk.offset` is the same place in the file.
        loop {
            let rest = &bytes[at.min(bytes.len())..];
            let whole = bytes.len() == read.len;
            match walk.mode {
                Mode::Follow => match self.follow(&walk, rest) {
                    Look::Record(header) => {
                        walk.offset += header.len();
                        let big = header.len() > WINDOW as u64 / 2;
                        walk.window = if big { WINDOW_SMALL } else { WINDOW };
                        if Kind::from_number(header.kind) == Some(Kind::End) {
                            let scanned = &mut self.segments[walk.segment];
                            (scanned.stop, scanned.walked) = (Stop::End, walk.offset);
                            return self.walk_next(walk.rest);
                        }
                        match usize::try_from(header.len()) {
                            Ok(len) if len < rest.len() => at += len,
                            Ok(_) | Err(_) => return self.continue_walk(walk),
                        }
                    }
                    Look::More(len) if whole && (at > 0 || len > read.len) => {
                        walk.window = walk.window.max(len);
                        return self.continue_walk(walk);
                    }
                    Look::More(_) => return self.stop(walk, Stop::Garbage),
                    Look::Stop(stop) => return self.stop(walk, stop),
                },
                Mode::Search(from) => match self.search(&walk, rest) {
                    Search::Found(ahead) => {
                        walk.offset += ahead;
                        at += ahead as usize;
                        self.segments[walk.segment].gaps.push((from, walk.offset));
                        walk.mode = Mode::Follow;
                    }
                    Search::More(ahead, len) => {
                        // From the candidate itself, with all of its head; one that was read so is no record.
                        let again = ahead == 0 && at == 0 && len <= read.len;
                        walk.offset += if again || !whole { ahead + 8 } else { ahead };
                        walk.window = if again { WINDOW } else { walk.window.max(len) };
                        return self.continue_walk(walk);
                    }
                    Search::Nothing if whole => {
                        walk.offset += rest.len() as u64 / 8 * 8;
                        walk.window = WINDOW;
                        return self.continue_walk(walk);
                    }
                    Search::Nothing => return self.walk_next(walk.rest),
                },
            }
        }
    }

    /// Looks at the place where the next record must be.
    fn follow(&mut self, walk: &Walk, rest: &[u8]) -> Look {
        let scanned = &self.segments[walk.segment];
        let header = match Header::decode(rest) {
            Ok(header) => header,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER),
            Err(HeaderFault::Blank) => return Look::Stop(Stop::Clean),
            Err(HeaderFault::Magic | HeaderFault::Crc) => return Look::Stop(Stop::Garbage),
        };
        if header.meta_len > META_CEILING || header.len() > scanned.len - walk.offset {
            return Look::Stop(Stop::Garbage);
        }
        let meta = match header.checked_meta(rest) {
            Ok(meta) => meta,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER + header.meta_len as usize),
            Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {
                return Look::Stop(Stop::Garbage);
            }
        };
        let older_run = scanned.last.is_some_and(|(_, epoch)| header.epoch < epoch);
        if header.generation != scanned.generation || older_run {
            return Look::Stop(Stop::Clean);
        }
        let is_begin = Kind::from_number(header.kind) == Some(Kind::Begin);
        if scanned.last.is_some_and(|(last, _)| header.sequence <= last)
            || is_begin != (walk.offset == HEADER_PAGE)
        {
            return Look::Stop(Stop::Garbage);
        }
        self.take(walk.segment, walk.offset, header, meta);
        Look::Record(header)
    }

    /// Looks for a later record of the same use of the segment.
    fn search(&self, walk: &Walk, bytes: &[u8]) -> Search {
        let scanned = &self.segments[walk.segment];
        let mut at = 0;
        while let Some(ahead) = find_magic(&bytes[at..]) {
            at += ahead;
            let left = scanned.len.saturating_sub(walk.offset + at as u64);
            match Header::decode(&bytes[at..]) {
                Err(HeaderFault::Short) => return Search::More(at as u64, RECORD_HEADER),
                Ok(header)
                    if header.generation == scanned.generation
                        && scanned
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
    fn stop(&mut self, mut walk: Walk, stop: Stop) {
        let class = self.segments[walk.segment].class;
        let begin = self.segments[walk.segment].begin;
        let later =
            |s: &Scanned| matches!(s.fate, Fate::Used | Fate::Told) && s.class == class && s.begin > begin;
        let is_last = !self.segments.iter().any(later);
        let scanned = &mut self.segments[walk.segment];
        (scanned.stop, scanned.walked) = (stop, walk.offset);
        if stop == Stop::Clean && is_last {
            return self.walk_next(walk.rest);
        }
        walk.mode = Mode::Search(walk.offset);
        walk.offset += 8;
        walk.window = WINDOW;
        self.continue_walk(walk);
    }
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
