//! What two servers say to each other when one takes over from the other.
//!
//! ```text
//!  old                                   new
//!   hello, its lock ───────────────────▶
//!   listeners, with their sockets ─────▶   reads the configuration, opens what is free of the journal
//!   complete ──────────────────────────▶
//!                         ◀───────────── ready        (or failed: nothing has changed)
//!   takes nobody for a moment; go ─────▶   opens what can go wrong when it is opened
//!                         ◀───────────── serving      (from here on it takes who comes)
//!   left: so many sessions ────────────▶
//!                         ◀───────────── hurry        (the new one is told to stop)
//!   parted: journal shards of a core ──▶   reads them as after a start
//!   released: all that is left ────────▶   and the others
//! ```
//!
//! Until `serving` the old one can go on as if nothing had been: it does when the new one is gone, or does not say it in time.
//! In that case it says `stay`, and nothing is heard any more: so a new one that cannot say `serving` knows whether it is
//! alone.
//!
//! Where too few journal shards are free, the new one says `wait` in place of `ready`: then the old one takes nobody any more, and
//! the next that is heard is `released`, of all of them. An end that is gone is as good as a word: what the old one
//! had is free, what the new one was to get stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use mail::JournalShard;
use ring::{BoundListener, DirectoryLock, MessageSocket};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What is said.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// `format`: segments are written so ([`journal::SEGMENT_VERSION`]).
    Hello {
        version: String,
        pid: u32,
        format: u16,
        journals: BTreeSet<u16>,
    },
    /// Sockets of an address, as the configuration writes it.
    Listener {
        address: String,
    },
    /// Sockets of the pool.
    Http,
    Complete,
    Ready {
        version: String,
        pid: u32,
    },
    Failed {
        reason: String,
    },
    Wait {
        version: String,
        pid: u32,
    },
    Go,
    /// The old one goes on.
    Stay,
    Serving,
    Left {
        sessions: u64,
    },
    Hurry,
    /// Nobody has these any more.
    Parted {
        journals: BTreeSet<u16>,
    },
    /// Nor all others.
    Released,
    /// One that this version does not know.
    #[serde(skip)]
    Unknown,
}

/// What a server gives to the one that takes over.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    /// Sockets of the shards, by address as the configuration writes it.
    pub(crate) listeners: BTreeMap<String, Vec<BoundListener>>,
    /// Sockets of the pool.
    pub(crate) http: Vec<OwnedFd>,
}

/// What the other end says, or that it is gone.
pub(crate) type Words = mpsc::UnboundedReceiver<Word>;

/// One end.
#[derive(Debug)]
pub(crate) struct Link(MessageSocket);

/// How long an end is waited for that does not read what it is told.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

impl Link {
    fn new(socket: MessageSocket) -> io::Result<Self> {
        socket.set_send_patience(Some(SEND_PATIENCE))?;
        Ok(Self(socket))
    }

    fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.send(&serde_json::to_vec(word)?, descriptors)
    }

    /// Says a word; that nobody hears it is learnt by listening.
    pub(crate) fn tell(&self, word: &Word) {
        if let Err(error) = self.say(word, &[]) {
            tracing::debug!(%error, ?word, "not heard by the other server");
        }
    }

    fn hear(&self) -> io::Result<Option<(Word, Vec<OwnedFd>)>> {
        let Some((message, descriptors)) = self.0.recv()? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&message).unwrap_or(Word::Unknown), descriptors)))
    }

    /// Listens in a thread of its own from now on; the words end when the other end is gone.
    fn listen(&self) -> io::Result<Words> {
        let (words, heard) = mpsc::unbounded_channel();
        let ear = Self(self.0.try_clone()?);
        thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            loop {
                match ear.hear() {
                    Ok(Some((word, _))) => {
                        if words.send(word).is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    // That is no end of the other one.
                    Err(error) => {
                        tracing::warn!(%error, "the other server cannot be heard for a moment");
                        thread::sleep(LAST_WRITES);
                    }
                }
            }
        })?;
        Ok(heard)
    }

    /// Nothing more is said or heard.
    pub(crate) fn end(&self) {
        self.0.end();
    }
}

/// A new server that may take over from this one.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) link: Link,
    pub(crate) words: Words,
}

impl Successor {
    /// Offers all that this server has, over the old end of the link.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(crate) fn offer(
        link: MessageSocket,
        version: &str,
        journals: &BTreeSet<JournalShard>,
        lock: &DirectoryLock,
        estate: &Estate,
    ) -> io::Result<Self> {
        let link = Link::new(link)?;
        let journals = journals.iter().map(|shard| shard.0).collect();
        let (version, pid) = (version.to_owned(), std::process::id());
        let hello = Word::Hello { version, pid, format: journal::SEGMENT_VERSION, journals };
        link.say(&hello, &[lock.as_fd()])?;
        for (address, sockets) in &estate.listeners {
            for sockets in sockets.chunks(MessageSocket::DESCRIPTORS_MAX) {
                let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
                link.say(&Word::Listener { address: address.clone() }, &sockets)?;
            }
        }
        for sockets in estate.http.chunks(MessageSocket::DESCRIPTORS_MAX) {
            let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
            link.say(&Word::Http, &sockets)?;
        }
        link.say(&Word::Complete, &[])?;
        let words = link.listen()?;
        Ok(Self { link, words })
    }
}

/// The server that this one takes over from.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// The journal shards that it has.
    pub(crate) journals: BTreeSet<JournalShard>,
    link: Link,
}

/// How long a server that has ended by itself is left alone: what it has asked the kernel to write may be under way.
pub(crate) const LAST_WRITES: Duration = Duration::from_secs(1);

impl Predecessor {
    /// Takes what is offered on the standard input.
    ///
    /// # Errors
    /// When that is no offer.
    pub(crate) fn meet() -> anyhow::Result<(Self, DirectoryLock, Estate)> {
        let meeting = || {
            let input = io::stdin().as_fd().try_clone_to_owned()?;
            // Nobody else is to read from it, and programs that we start are not to have it.
            let nothing = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
            let link = Link::new(MessageSocket::adopt(input)?)?;
            rustix::stdio::dup2_stdin(&nothing)?;
            link.hear().map(|word| (link, word))
        };
        let (link, word) =
            meeting().context("--take-over is said by a running server; see `ringpost upgrade`")?;
        let Some((Word::Hello { version, pid, format, journals }, mut descriptors)) = word else {
            bail!("the running server is of a version that this one cannot take over from: stop and start");
        };
        if format > journal::SEGMENT_VERSION {
            let reason = format!("it cannot read what ringpost {version} writes: take a later version");
            link.tell(&Word::Failed { reason: reason.clone() });
            bail!("{reason}");
        }
        let lock = DirectoryLock::adopt(descriptors.pop().context("no lock")?);
        let mut estate = Estate::default();
        loop {
            match link.hear()? {
                Some((Word::Listener { address }, descriptors)) => {
                    let sockets = descriptors.into_iter().map(BoundListener::adopt);
                    let sockets: Vec<_> = sockets.collect::<Result<_, _>>()?;
                    estate.listeners.entry(address).or_default().extend(sockets);
                }
                Some((Word::Http, descriptors)) => estate.http.extend(descriptors),
                Some((Word::Complete, _)) => break,
                Some((word, _)) => bail!("the running server says {word:?} too early"),
                None => bail!("the running server has ended"),
            }
        }
        let journals = journals.into_iter().map(JournalShard).collect();
        Ok((Self { version, pid, journals, link }, lock, estate))
    }

    /// Has it end before this one begins; `on_go` is called when it is sure to.
    ///
    /// # Errors
    /// When it does not want to any more.
    pub(crate) fn outwait(&mut self, version: &str, on_go: impl Fn()) -> anyhow::Result<()> {
        let (version, pid) = (version.to_owned(), std::process::id());
        self.link.say(&Word::Wait { version, pid }, &[])?;
        let mut has_gone = false;
        loop {
            match self.link.hear()? {
                Some((Word::Go, _)) => {
                    has_gone = true;
                    on_go();
                }
                Some((Word::Left { .. }, _)) => {}
                Some((Word::Released, _)) => break,
                Some((word, _)) => bail!("the running server says {word:?} out of turn"),
                None if has_gone => {
                    thread::sleep(LAST_WRITES);
                    break;
                }
                None => bail!("the running server did not wait for this one"),
            }
        }
        self.journals.clear();
        Ok(())
    }

    /// Says that this one can serve, and waits for the word.
    ///
    /// # Errors
    /// When the other one stays.
    pub(crate) fn ready(&self, version: &str) -> anyhow::Result<()> {
        let (version, pid) = (version.to_owned(), std::process::id());
        self.link.say(&Word::Ready { version, pid }, &[])?;
        tracing::debug!("this server can serve, and waits for the word");
        match self.link.hear()? {
            Some((Word::Go, _)) => Ok(()),
            Some((word, _)) => bail!("the running server says {word:?} in place of go"),
            None => bail!("the running server did not wait for this one"),
        }
    }

    /// Says that it does. From here on nothing may go wrong.
    ///
    /// # Errors
    /// When nobody hears it.
    pub(crate) fn serving(&self) -> io::Result<()> {
        self.link.say(&Word::Serving, &[])
    }

    /// Says why this one cannot serve.
    pub(crate) fn fail(&self, error: &anyhow::Error) {
        self.link.tell(&Word::Failed { reason: format!("{error:#}") });
    }

    /// What it says from now on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn listen(&self) -> io::Result<Words> {
        self.link.listen()
    }

    /// Asks it to end soon.
    pub(crate) fn hurry(&self) {
        self.link.tell(&Word::Hurry);
    }
}

#[cfg(test)]
mod test {
    use std::path::Path;

    use super::*;

    fn estate(directory: &Path) -> (DirectoryLock, Estate) {
        let options = ring::ListenOptions::default();
        let any = ring::ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let first = BoundListener::bind(&any, &options).unwrap();
        let sockets = (0..100).map(|_| first.try_clone().unwrap()).collect();
        let listeners = BTreeMap::from([("127.0.0.1:0".to_owned(), sockets)]);
        let http = vec![first.as_fd().try_clone_to_owned().unwrap()];
        (DirectoryLock::acquire(directory).unwrap(), Estate { listeners, http })
    }

    /// Both ends after the offer, without the standard input.
    fn link() -> (Successor, Link, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let (lock, estate) = estate(directory.path());
        let (ours, theirs) = MessageSocket::pair().unwrap();
        let journals = BTreeSet::from([JournalShard(0), JournalShard(3)]);
        let successor = Successor::offer(ours, "1", &journals, &lock, &estate).unwrap();
        (successor, Link::new(theirs).unwrap(), directory)
    }

    #[test]
    fn everything_is_offered() {
        let (_successor, link, _directory) = link();
        let (hello, lock) = link.hear().unwrap().unwrap();
        let pid = std::process::id();
        let (version, format) = ("1".into(), journal::SEGMENT_VERSION);
        assert_eq!(hello, Word::Hello { version, pid, format, journals: [0, 3].into() });
        assert_eq!(lock.len(), 1);
        let mut sockets = 0;
        loop {
            match link.hear().unwrap().unwrap() {
                (Word::Listener { address }, descriptors) => {
                    assert_eq!(address, "127.0.0.1:0");
                    sockets += descriptors.len();
                }
                (Word::Http, descriptors) => assert_eq!((descriptors.len(), sockets), (1, 100)),
                (word, _) => break assert_eq!(word, Word::Complete),
            }
        }
    }

    #[test]
    fn an_end_that_is_gone_ends_the_words() {
        let (mut successor, link, _directory) = link();
        link.0.send(b"{\"later\":{}}", &[]).unwrap();
        link.tell(&Word::Failed { reason: "no".into() });
        drop(link);
        assert_eq!(successor.words.blocking_recv(), Some(Word::Unknown));
        assert_eq!(successor.words.blocking_recv(), Some(Word::Failed { reason: "no".into() }));
        assert_eq!(successor.words.blocking_recv(), None);
    }

    /// Whoever is given up knows that it is not alone, and who has spoken before that is heard.
    #[test]
    fn who_is_given_up_learns_it_and_is_heard_to_the_end() {
        let (mut successor, link, _directory) = link();
        link.tell(&Word::Serving);
        successor.link.tell(&Word::Stay);
        successor.link.end();
        assert!(link.say(&Word::Serving, &[]).is_err(), "too late");
        assert_eq!(successor.words.blocking_recv(), Some(Word::Serving));
        assert_eq!(successor.words.blocking_recv(), None);
        let last = std::iter::from_fn(|| link.hear().unwrap()).last();
        assert_eq!(last.map(|(word, _)| word), Some(Word::Stay));
        let (successor, link, _directory) = self::link();
        // As its process does when it ends: nobody has a copy then.
        successor.link.end();
        assert!(link.say(&Word::Serving, &[]).is_err());
        let last = std::iter::from_fn(|| link.hear().unwrap()).last();
        assert_eq!(last.map(|(word, _)| word), Some(Word::Complete), "it is gone, and has said nothing");
    }

    #[test]
    fn a_lock_that_was_handed_over_holds() {
        let (successor, link, directory) = link();
        let (_, mut lock) = link.hear().unwrap().unwrap();
        let lock = DirectoryLock::adopt(lock.pop().unwrap());
        drop((successor, link));
        assert!(DirectoryLock::acquire(directory.path()).is_err());
        drop(lock);
    }
}
