//! The files of suppression lists, as they are read: lines one after the other, one line at its place, a page of them.
//!
//! ```text
//!  0000000000000007.list    all that held when it was made; files with a lower number have nothing more to say
//!  0000000000000007.log     changes since then, by one process; it has the file locked as long as it lives
//!  0000000000000008.log     changes by another: during an upgrade, or before the last start
//!  0000000000000008.used    what that process has counted of quotas, and
//!  0000000000000008.live    what it has locked as long as it counts
//! ```

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use bridge::{Known, ListEntries, ListError, ListPage};
use mail::Timestamp;
use tenancy::{Change, LogLine, Place};

use crate::disk::read_at;

/// A file that is open, by what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) number: u64,
    pub(super) kind: Kind,
}

/// What a file has. The order is that in which files of one number are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    List,
    Log,
    Used,
    Live,
}

/// A file of entries.
#[derive(Debug)]
pub(super) struct Paper {
    pub(super) name: Name,
    pub(super) file: OwnedFd,
}

/// All files of entries that are open, by the numbers that [`Place`] has for them.
#[derive(Debug)]
pub(super) struct Shelf {
    papers: RwLock<Vec<Option<Arc<Paper>>>>,
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines {
    paper: Arc<Paper>,
    /// Where `buffer` begins in the file, and where in it the next line does.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

/// A line of a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    /// None: it is none of ours, or torn.
    pub(super) change: Option<Change>,
}

/// Files that are open at once; as many as [`Place`] has numbers for.
pub(super) const PAPERS_MAX: usize = 256;
const CHUNK: usize = 256 << 10;
/// Lines that one page looks at.
const PAGE_LINES: usize = 50_000;

impl Name {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (number, kind) = name.split_once('.')?;
        let kind = [Kind::List, Kind::Log, Kind::Used, Kind::Live]
            .into_iter()
            .find(|other| other.as_str() == kind)?;
        let digits = number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { number: number.parse().ok().filter(|_| digits)?, kind })
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Log => "log",
            Self::Used => "used",
            Self::Live => "live",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}.{}", self.number, self.kind.as_str())
    }
}

/// All files of the directory, in order.
pub(super) fn names(directory: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().to_str().and_then(Name::parse));
    }
    names.sort_unstable();
    Ok(names)
}

impl Lines {
    pub(super) fn of(paper: Arc<Paper>, offset: u64) -> Self {
        Self { paper, offset, buffer: Vec::new(), at: 0 }
    }

    /// Where the next line begins.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// The next line that has its end; none when there is none (yet).
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(len) = rest.iter().position(|byte| *byte == b'\n') {
                let offset = self.position();
                let change = LogLine::parse(&rest[..len]).ok().map(|LogLine(change)| change);
                self.at += len + 1;
                return Ok(Some(Found { offset, change }));
            }
            if rest.len() > LogLine::LEN_MAX {
                // No line is so long: what a disk has left, and somewhere behind it a line begins.
                let offset = self.position();
                self.at = self.buffer.len();
                return Ok(Some(Found { offset, change: None }));
            }
            self.offset += self.at as u64;
            self.buffer.drain(..self.at);
            self.at = 0;
            let end = self.offset + self.buffer.len() as u64;
            if read_at(&self.paper.file, &mut self.buffer, CHUNK, end)? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self { papers: RwLock::default() }
    }

    /// Gives a file the lowest number that is free; none when there is none.
    pub(super) fn add(&self, paper: Paper) -> Option<(u8, Arc<Paper>)> {
        let mut papers = self.papers.write().unwrap_or_else(PoisonError::into_inner);
        let free = papers.iter().position(Option::is_none).unwrap_or(papers.len());
        if free >= PAPERS_MAX {
            return None;
        }
        let paper = Arc::new(paper);
        if free == papers.len() {
            papers.push(None);
        }
        papers[free] = Some(paper.clone());
        Some((free as u8, paper))
    }

    /// Nothing of it counts any more.
    pub(super) fn drop_paper(&self, number: u8) {
        self.papers.write().unwrap_or_else(PoisonError::into_inner)[usize::from(number)] = None;
    }

    pub(super) fn len(&self) -> usize {
        self.papers.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().count()
    }

    fn paper(&self, number: u8) -> Option<Arc<Paper>> {
        self.papers.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(number))?.clone()
    }

    /// All of them in the order of their names.
    pub(super) fn all(&self) -> Vec<(u8, Arc<Paper>)> {
        let papers = self.papers.read().unwrap_or_else(PoisonError::into_inner);
        let numbered = papers.iter().enumerate();
        let mut all: Vec<_> =
            numbered.filter_map(|(number, paper)| Some((number as u8, paper.clone()?))).collect();
        all.sort_unstable_by_key(|(_, paper)| paper.name);
        all
    }

    /// The line at a place.
    pub(super) fn read(&self, place: Place) -> io::Result<Change> {
        let gone = || io::Error::new(io::ErrorKind::InvalidData, "the entry is not where it was");
        let paper = self.paper(place.file).ok_or_else(gone)?;
        Lines::of(paper, place.offset).next()?.and_then(|found| found.change).ok_or_else(gone)
    }

    /// A page of the entries that hold. A cursor is a file's name and an octet in it: once files are put together it is of no use.
    pub(super) fn page(
        &self,
        known: &Known,
        page: &ListPage,
        now: Timestamp,
    ) -> Result<ListEntries, ListError> {
        let papers = self.all();
        let (mut place, mut offset) = match &page.cursor {
            None => (0, 0),
            Some(cursor) => {
                let (name, offset) = cursor.split_once('-').ok_or(ListError::Cursor)?;
                let name = Name::parse(name).ok_or(ListError::Cursor)?;
                let place = papers.iter().position(|(_, paper)| paper.name == name);
                (place.ok_or(ListError::Cursor)?, offset.parse().map_err(|_| ListError::Cursor)?)
            }
        };
        let (mut entries, mut left) = (Vec::new(), PAGE_LINES);
        while let Some((number, paper)) = papers.get(place) {
            let mut lines = Lines::of(paper.clone(), offset);
            loop {
                if entries.len() >= page.limit || left == 0 {
                    let next = Some(format!("{}-{}", paper.name, lines.position()));
                    return Ok(ListEntries { entries, next });
                }
                left -= 1;
                let found = lines.next().map_err(|error| ListError::Read(error.to_string()))?;
                let Some(Found { offset, change }) = found else { break };
                let Some(Change::Add(entry)) = change else { continue };
                let place = Place { file: *number, offset };
                let is_chosen = page
                    .tenant
                    .as_ref()
                    .is_none_or(|t| t.eq_ignore_ascii_case(&entry.scope.tenant))
                    && page.list.as_ref().is_none_or(|l| l.eq_ignore_ascii_case(&entry.scope.list))
                    && page.reason.is_none_or(|reason| reason == entry.reason)
                    && page.domain.as_ref().is_none_or(|d| d.eq_ignore_ascii_case(entry.whom.domain_str()));
                let holds = || {
                    let scope = &entry.scope;
                    let key = known.keys.of(scope.tenant_id(), scope.list_id(), &entry.whom);
                    known.table.find(key).is_some_and(|found| found.place == place && found.holds(now))
                };
                if is_chosen && holds() {
                    entries.push(entry);
                }
            }
            (place, offset) = (place + 1, 0);
        }
        Ok(ListEntries { entries, next: None })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in [Kind::List, Kind::Log, Kind::Used, Kind::Live] {
            let name = Name { number: 7, kind };
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for text in ["7.log", "0000000000000007.new", "lock", "+000000000000007.log", "0000000000000007log"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
