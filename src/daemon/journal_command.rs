//! `ringpost journal`: what lies in the segments, and whether it is whole.
//!
//! It only reads. Beside a running server it works too, but the end of an active segment may look torn.

use std::{
    fs,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use journal::inspect::{Finding, Image, Summary, inspect};
use mail::JournalShard;
use rustix::fs::{Mode, OFlags};

use crate::{ConfigArgument, open};

#[derive(Args)]
pub(crate) struct JournalArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Subcommand)]
enum JournalCommand {
    /// One line for each segment: records, messages, bytes, damaged places.
    #[command(after_help = "Example:\n  ringpost journal list --config run/ringpost.toml")]
    List,
    /// Every record of one segment.
    #[command(after_help = "Example:\n  ringpost journal show 0 3 --config run/ringpost.toml")]
    Show {
        /// The journal shard.
        shard: u16,
        /// The segment's number.
        segment: u32,
    },
    /// Read everything and check every checksum; ends with 1 when something is damaged.
    #[command(after_help = "Example:\n  ringpost journal verify --config run/ringpost.toml")]
    Verify,
}

/// A segment file, read as it is asked for.
struct SegmentImage {
    file: OwnedFd,
    len: u64,
}

impl SegmentImage {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        let len = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        Ok(Self { file, len })
    }
}

impl Image for SegmentImage {
    type Error = io::Error;

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, io::Error> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match rustix::io::pread(&self.file, &mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

pub(crate) fn run(arguments: &JournalArguments) -> anyhow::Result<ExitCode> {
    let config = open::config(&arguments.config.config)?;
    let mut out = io::stdout().lock();
    match arguments.command {
        JournalCommand::List => survey(&config, &mut out, |_, _| Ok(())).map(|_| ExitCode::SUCCESS),
        JournalCommand::Show { shard, segment } => {
            let directory = open::segments(&config.data_directory, JournalShard(shard));
            let mut image = SegmentImage::open(&shard::segment_path(&directory, segment))?;
            let mut told = Ok(());
            inspect(&mut image, |finding| {
                if told.is_ok() {
                    told = writeln!(out, "{finding}");
                }
            })?;
            told?;
            Ok(ExitCode::SUCCESS)
        }
        JournalCommand::Verify => {
            let bad = survey(&config, &mut out, |out, finding| match finding {
                Finding::Bad { .. } | Finding::Garbage { .. } => writeln!(out, "    {finding}"),
                Finding::Header(Err(_)) => writeln!(out, "    {finding}"),
                Finding::Header(Ok(_))
                | Finding::Record(_)
                | Finding::Blank { .. }
                | Finding::Stale { .. } => Ok(()),
            })?;
            if bad == 0 {
                writeln!(out, "every checksum is right")?;
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(
                out,
                "{bad} damaged places; the next start reports what of them counts, and serves the rest"
            )?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Goes through all segments of all journal shards; says how many places are damaged.
fn survey(
    config: &config::Config,
    out: &mut impl Write,
    tell: impl Fn(&mut Vec<u8>, &Finding) -> io::Result<()>,
) -> anyhow::Result<u64> {
    let (mut bad, mut any) = (0, false);
    writeln!(
        out,
        "{:<7} {:>9} {:>10} {:>10} {:>14} {:>8}",
        "shard", "segment", "records", "messages", "bytes", "damaged"
    )?;
    for shard in (0..config.journal.shards).map(JournalShard) {
        for (number, path) in segments(&open::segments(&config.data_directory, shard))? {
            any = true;
            let mut image = SegmentImage::open(&path)?;
            // The line with the numbers comes first; what stands below it is little.
            let mut below = Vec::new();
            let mut told = Ok(());
            let found = inspect(&mut image, |finding| {
                if told.is_ok() {
                    told = tell(&mut below, finding);
                }
            });
            let Summary { records, messages, bytes, bad: damaged } =
                found.with_context(|| format!("cannot read {}", path.display()))?;
            writeln!(out, "{shard:<7} {number:>9} {records:>10} {messages:>10} {bytes:>14} {damaged:>8}")?;
            told?;
            out.write_all(&below)?;
            bad += damaged;
        }
    }
    if !any {
        bail!("there are no segments under {}", config.data_directory.display());
    }
    Ok(bad)
}

/// The segment files of a directory, by number; none when there is no such directory.
fn segments(directory: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".segment")?.parse().ok());
        found.extend(number.map(|number| (number, path.clone())));
    }
    found.sort();
    Ok(found)
}
