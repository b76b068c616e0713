//! What this host allows, and what to do where it allows too little.
//!
//! Every finding names the setting, what it is, what it should be and how to change it. Findings
//! are warnings unless the program cannot run at all.

use std::{fmt, fs, path::Path};

use nix::sys::{
    resource::{Resource, getrlimit},
    statfs::{self, FsType},
};

/// One thing about the host that an operator should know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) subject: &'static str,
    pub(crate) text: String,
}

/// Whether the program can run all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It runs, worse than it could.
    Warning,
    /// It does not run.
    Error,
}

/// What the configuration asks of the host.
#[derive(Debug)]
pub(crate) struct Needs<'a> {
    pub(crate) shards: usize,
    /// Locked memory per shard in bytes: what glommio registers with the ring.
    pub(crate) io_memory: u64,
    /// Connections in and out, files and sockets of our own included.
    pub(crate) files: u64,
    pub(crate) backlog: u64,
    pub(crate) data_directory: &'a Path,
}

/// Everything about this host that stands against `needs`.
pub(crate) fn findings(needs: &Needs<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(error) = ring::probe() {
        found.push(Finding { severity: Severity::Error, subject: "io_uring", text: error.to_string() });
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        found.extend(memlock(soft, needs));
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        found.extend(open_files(soft, hard, needs));
    }
    if let Some(somaxconn) = number("/proc/sys/net/core/somaxconn") {
        found.extend(accept_queue(somaxconn, needs));
    }
    found.extend(access(needs.data_directory));
    if let Ok(facts) = statfs::statfs(needs.data_directory) {
        found.extend(file_system(facts.filesystem_type(), needs.data_directory));
        let free = facts.blocks_available() * u64::try_from(facts.block_size()).unwrap_or(0);
        found.extend(free_space(free, needs.data_directory));
    }
    found
}

fn warning(subject: &'static str, text: String) -> Finding {
    Finding { severity: Severity::Warning, subject, text }
}

/// One that is not there yet is made at start.
fn access(path: &Path) -> Option<Finding> {
    use nix::unistd::{AccessFlags, access};

    let error = access(path, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    (error != nix::errno::Errno::ENOENT).then(|| Finding {
        severity: Severity::Error,
        subject: "data directory",
        text: format!(
            "{} cannot be written to: {error}; see that it belongs to this user and is not mounted read-only",
            path.display()
        ),
    })
}

fn memlock(soft: u64, needs: &Needs<'_>) -> Option<Finding> {
    let wanted = needs.io_memory.saturating_mul(needs.shards as u64);
    (soft < wanted).then(|| {
        warning(
            "memlock",
            format!(
                "{} KiB of memory may be locked, {} shards ask for {} KiB; raise it with \
                 `LimitMEMLOCK=infinity` in the systemd unit or `ulimit -l unlimited`, or lower `ring.io-memory`",
                soft / 1024,
                needs.shards,
                wanted / 1024
            ),
        )
    })
}

fn open_files(soft: u64, hard: u64, needs: &Needs<'_>) -> Option<Finding> {
    // The soft limit is raised at start; only the hard one stands in the way.
    let limit = soft.max(hard);
    (limit < needs.files).then(|| {
        warning(
            "open files",
            format!(
                "{limit} files may be open, the configured limits need {}; raise it with \
                 `LimitNOFILE={}` in the systemd unit, or lower `limits.connections-max`",
                needs.files,
                needs.files.next_power_of_two()
            ),
        )
    })
}

fn accept_queue(somaxconn: u64, needs: &Needs<'_>) -> Option<Finding> {
    (somaxconn < needs.backlog).then(|| {
        warning(
            "somaxconn",
            format!(
                "the kernel cuts the accept queue to {somaxconn}, the listeners ask for {}; \
                 run `sysctl -w net.core.somaxconn={}`",
                needs.backlog, needs.backlog
            ),
        )
    })
}

fn file_system(kind: FsType, path: &Path) -> Option<Finding> {
    // linux/magic.h; nix has no name for fuse, smb2 and 9p.
    const FUSE: i64 = 0x6573_5546;
    const SMB2: i64 = 0xFE53_4D42;
    const V9FS: i64 = 0x0102_1997;
    let path = path.display();
    let lost = "mail in it is lost when the machine stops";
    #[expect(clippy::unnecessary_cast, reason = "the field's type differs between C libraries")]
    let text = match kind {
        statfs::TMPFS_MAGIC => format!("{path} is on tmpfs: {lost}; use a disk"),
        statfs::OVERLAYFS_SUPER_MAGIC => {
            format!("{path} is on overlayfs: {lost} with its container; mount a volume there")
        }
        statfs::NFS_SUPER_MAGIC | statfs::SMB_SUPER_MAGIC => network(&path),
        FsType(FUSE) => {
            format!("{path} is on a FUSE file system: whether it keeps what was synced is unknown")
        }
        FsType(other) if [SMB2, V9FS].contains(&(other as i64)) => network(&path),
        FsType(_) => return None,
    };
    Some(warning("data directory", text))
}

fn network(path: &impl fmt::Display) -> String {
    format!("{path} is on a network file system: syncs are slow and may not be durable; use a local disk")
}

fn free_space(free: u64, path: &Path) -> Option<Finding> {
    const FREE_MIN: u64 = 1 << 30;
    (free < FREE_MIN).then(|| {
        let text =
            format!("{} has {} MiB free; mail is refused (452) when it is full", path.display(), free >> 20);
        warning("data directory", text)
    })
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}: {}", self.subject, self.text)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn needs() -> Needs<'static> {
        let data_directory = Path::new("/var/lib/ringpost");
        Needs { shards: 2, io_memory: 1 << 20, files: 10_000, backlog: 4096, data_directory }
    }

    #[test]
    fn enough_is_no_finding() {
        assert_eq!(memlock(2 << 20, &needs()), None);
        assert_eq!(open_files(1024, 10_000, &needs()), None);
        assert_eq!(accept_queue(4096, &needs()), None);
        assert_eq!(file_system(statfs::EXT4_SUPER_MAGIC, needs().data_directory), None);
        assert_eq!(free_space(1 << 30, needs().data_directory), None);
    }

    #[test]
    fn too_little_names_the_remedy() {
        let texts = [
            (memlock(1 << 20, &needs()), "LimitMEMLOCK"),
            (open_files(1024, 4096, &needs()), "LimitNOFILE=16384"),
            (accept_queue(128, &needs()), "net.core.somaxconn=4096"),
            (file_system(statfs::TMPFS_MAGIC, needs().data_directory), "use a disk"),
            (file_system(statfs::NFS_SUPER_MAGIC, needs().data_directory), "local disk"),
            (free_space(1 << 20, needs().data_directory), "452"),
        ];
        for (finding, remedy) in texts {
            let text = finding.expect(remedy).to_string();
            assert!(text.starts_with("warning: ") && text.contains(remedy), "{text}");
        }
    }
}
