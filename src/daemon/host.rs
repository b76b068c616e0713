//! What this host allows, and what to do where it allows too little.
//!
//! Every finding names the setting, what it is, what it should be and how to change it. Findings
//! are warnings unless the program cannot run at all.

use std::{fmt, fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use config::{Places, size_text};
use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit},
        statfs::{self, FsType},
        utsname::uname,
    },
    unistd::{AccessFlags, access},
};

/// One thing about the host that an operator should know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) subject: Subject,
    pub(crate) text: String,
}

/// What a finding is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A key of the configuration.
    Key(String),
    /// A limit or setting of the host.
    Host(&'static str),
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
    pub(crate) ring_depth: u32,
    /// What is registered with the rings of a shard, in bytes.
    pub(crate) io_memory: u64,
    /// Whether the limit on locked memory will hold for the server.
    pub(crate) memlock: Memlock,
    /// Connections in and out, files and sockets of our own included.
    pub(crate) files: u64,
    pub(crate) backlog: u64,
    pub(crate) data_directory: &'a Path,
    /// What somebody wrote, not what holds anyway.
    pub(crate) disk_max: Option<u64>,
}

/// Whether the limit on locked memory holds for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memlock {
    Holds,
    /// It may lock what it likes: root, as long as it stays root.
    Ignored,
}

/// Everything about this host that stands against `needs`.
pub(crate) fn findings(needs: &Needs<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(error) = ring::probe() {
        let subject = Subject::Host("io_uring");
        found.push(Finding { severity: Severity::Error, subject, text: error.to_string() });
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_MEMLOCK)
        && needs.memlock == Memlock::Holds
    {
        found.extend(memlock(soft, needs, kernel()));
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        found.extend(open_files(soft, hard, needs));
    }
    if let Some(somaxconn) = number("/proc/sys/net/core/somaxconn") {
        found.extend(accept_queue(somaxconn, needs));
    }
    found.extend(writable(needs.data_directory));
    found.extend(private(needs.data_directory));
    if let Ok(facts) = statfs::statfs(nearest(needs.data_directory)) {
        let bytes = |blocks: u64| blocks.saturating_mul(u64::try_from(facts.block_size()).unwrap_or(0));
        found.extend(file_system(facts.filesystem_type(), needs.data_directory));
        found.extend(free_space(bytes(facts.blocks_available()), needs.data_directory));
        found.extend(whole_space(bytes(facts.blocks()), needs));
    }
    found
}

fn warning(subject: &'static str, text: String) -> Finding {
    Finding { severity: Severity::Warning, subject: Subject::Host(subject), text }
}

fn of_key(severity: Severity, key: &str, text: String) -> Finding {
    Finding { severity, subject: Subject::Key(key.to_owned()), text }
}

/// The directory itself, or the one above it in which it would be made.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

fn writable(path: &Path) -> Option<Finding> {
    let there = nearest(path);
    let shown = path.display();
    let text = if !there.is_dir() {
        format!("{} is not a directory; name another, or move it away", there.display())
    } else {
        let error = access(there, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).err()?;
        let remedy = if error == Errno::EROFS {
            "mount it for writing, or name another"
        } else {
            "see that it belongs to this user"
        };
        if there == path {
            format!("{shown} cannot be written to: {error}; {remedy}")
        } else {
            format!(
                "{shown} is not there, and {} cannot be written to: {error}; \
                 make it, and see that it belongs to this user",
                there.display()
            )
        }
    };
    Some(of_key(Severity::Error, "data-directory", text))
}

/// The addresses that this host has, but for those of the loopback; none where they cannot be had.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let mut found: Vec<_> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .filter(|address| !address.is_loopback())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What is in it counts on its mode.
fn private(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    let text =
        format!("{shown} has mode {mode:03o}: others may enter it, and read mail; `chmod 700 {shown}`");
    (mode & 0o007 != 0).then(|| of_key(Severity::Warning, "data-directory", text))
}

/// The memory that the rings of one shard are in, which the kernel counts as locked: three rings, each with an array
/// of entries (64 bytes each) and one of results and places (36 bytes for each entry), in whole pages.
fn rings(depth: u32) -> u64 {
    const PAGE: u64 = 4096;
    const HEAD: u64 = 320;
    let depth = u64::from(depth);
    3 * ((64 * depth).next_multiple_of(PAGE) + (36 * depth + HEAD).next_multiple_of(PAGE))
}

/// What is registered, in three rings: where it lies in huge pages, they are counted whole, and it may begin in the
/// middle of one.
fn registered(io_memory: u64) -> u64 {
    const HUGE_PAGE: u64 = 2 << 20;
    3 * (io_memory.next_multiple_of(HUGE_PAGE) + HUGE_PAGE)
}

fn memlock(soft: u64, needs: &Needs<'_>, kernel: (u32, u32)) -> Option<Finding> {
    // Before that, the kernel counted the rings as memory of the process.
    const RINGS_COUNT_SINCE: (u32, u32) = (6, 14);
    let shards = needs.shards as u64;
    let rings = if kernel >= RINGS_COUNT_SINCE { rings(needs.ring_depth).saturating_mul(shards) } else { 0 };
    let all = rings.saturating_add(registered(needs.io_memory).saturating_mul(shards));
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let (severity, outcome) = match soft {
        soft if soft < rings => (Severity::Error, "the server does not start"),
        soft if soft < all => {
            (Severity::Warning, "with less the server may not start, or does without registered memory")
        }
        _ => return None,
    };
    let s = if shards == 1 { "" } else { "s" };
    let text = format!(
        "{} KiB may be locked; {shards} shard{s} need{} {} KiB for rings (ring.depth = {}) and up to {} KiB for \
         what is registered with them (ring.io-memory = \"{}\"), over all processes of the user: {outcome}; \
         raise it with `LimitMEMLOCK={}K` or `LimitMEMLOCK=infinity` in the systemd unit, or `ulimit -l {}`, or \
         lower `ring.depth` and `ring.io-memory`",
        kib(soft),
        if shards == 1 { "s" } else { "" },
        kib(rings),
        needs.ring_depth,
        kib(all - rings),
        size_text(needs.io_memory),
        kib(all),
        kib(all),
    );
    Some(Finding { severity, subject: Subject::Host("memlock"), text })
}

/// The version of the kernel, as far as it counts here.
fn kernel() -> (u32, u32) {
    let name = uname().ok();
    let release = name.as_ref().and_then(|name| name.release().to_str()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether this process may lock more than its limit (capabilities(7): CAP_IPC_LOCK).
pub(crate) fn may_lock() -> bool {
    const CAP_IPC_LOCK: u64 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

fn open_files(soft: u64, hard: u64, needs: &Needs<'_>) -> Option<Finding> {
    // The soft limit is raised at start; only the hard one stands in the way.
    let limit = soft.max(hard);
    (limit < needs.files).then(|| {
        warning(
            "open files",
            format!(
                "{limit} files may be open, the configured limits need {} (connections in and out, segments); \
                 raise it with `LimitNOFILE={}` in the systemd unit, or lower `limits.connections-max`",
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
    const CIFS: i64 = 0xFF53_4D42;
    const CEPH: i64 = 0x00C3_6400;
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
            format!(
                "{path} is on a FUSE file system: whether it keeps what was synced is unknown; use a local disk"
            )
        }
        FsType(other) if [SMB2, V9FS, CIFS, CEPH].contains(&(other as i64)) => network(&path),
        FsType(_) => return None,
    };
    Some(of_key(Severity::Warning, "data-directory", text))
}

fn network(path: &impl fmt::Display) -> String {
    format!("{path} is on a network file system: syncs are slow and may not be durable; use a local disk")
}

fn free_space(free: u64, path: &Path) -> Option<Finding> {
    const FREE_MIN: u64 = 1 << 30;
    (free < FREE_MIN).then(|| {
        let text = format!(
            "{} has {} MiB free; mail is refused (452) when it is full: make room, or use another disk",
            path.display(),
            free >> 20
        );
        of_key(Severity::Warning, "data-directory", text)
    })
}

fn whole_space(size: u64, needs: &Needs<'_>) -> Option<Finding> {
    let disk_max = needs.disk_max.filter(|max| *max > size)?;
    let text = format!(
        "{}, but the file system of {} has {} MiB in all: it is full before, for others on it as well; \
         less than what it has",
        size_text(disk_max),
        needs.data_directory.display(),
        size >> 20
    );
    Some(of_key(Severity::Warning, "journal.disk-max", text))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Finding {
    /// The finding, with the place of the key it is about.
    pub(crate) fn place(&self, places: &Places) -> String {
        match &self.subject {
            Subject::Key(key) => format!("{}: {}", places.name(key), self.text),
            Subject::Host(subject) => format!("{subject}: {}", self.text),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn needs() -> Needs<'static> {
        Needs {
            shards: 2,
            ring_depth: 1024,
            io_memory: 1 << 20,
            memlock: Memlock::Holds,
            files: 10_000,
            backlog: 4096,
            data_directory: Path::new("/var/lib/ringpost"),
            disk_max: Some(1 << 40),
        }
    }

    const NEW: (u32, u32) = (6, 18);

    /// Whether the kernel knows how is for the room to test; here it counts that it is asked.
    #[test]
    fn the_program_is_linked_so_that_rings_cooperate() {
        ring::start(ring::Options::new("test"), || async {}).unwrap().join().unwrap();
        assert!(ring::cooperates().is_some(), "rings are made by the runtime alone");
    }

    #[test]
    fn enough_is_no_finding() {
        assert_eq!(memlock(u64::MAX, &needs(), NEW), None);
        assert_eq!(memlock(26 << 20, &needs(), NEW), None);
        assert_eq!(open_files(1024, 10_000, &needs()), None);
        assert_eq!(accept_queue(4096, &needs()), None);
        assert_eq!(file_system(statfs::EXT4_SUPER_MAGIC, needs().data_directory), None);
        assert_eq!(free_space(1 << 30, needs().data_directory), None);
        assert_eq!(whole_space(1 << 40, &needs()), None);
        assert_eq!(whole_space(1, &Needs { disk_max: None, ..needs() }), None);
    }

    #[test]
    fn too_little_names_the_remedy() {
        let texts = [
            (memlock(8 << 20, &needs(), NEW), "LimitMEMLOCK=25200K"),
            (memlock(8 << 20, &needs(), (5, 15)), "LimitMEMLOCK=24576K"),
            (open_files(1024, 4096, &needs()), "LimitNOFILE=16384"),
            (accept_queue(128, &needs()), "net.core.somaxconn=4096"),
            (file_system(statfs::TMPFS_MAGIC, needs().data_directory), "use a disk"),
            (file_system(statfs::NFS_SUPER_MAGIC, needs().data_directory), "local disk"),
            (free_space(1 << 20, needs().data_directory), "452"),
            (whole_space(1 << 39, &needs()), "1TiB, but the file system of /var/lib/ringpost has 524288 MiB"),
        ];
        for (finding, remedy) in texts {
            let finding = finding.expect(remedy);
            let text = finding.place(&Places::default());
            assert!(finding.severity == Severity::Warning && text.contains(remedy), "{text}");
        }
    }

    /// What was measured: the limit that a number of shards of a depth starts with, and one that it does not (KiB).
    #[test]
    fn locked_memory_is_counted_as_the_kernel_does() {
        for (shards, ring_depth, starts, fails) in
            [(1, 1024, 568, 0), (2, 1024, 688, 512), (3, 1024, 988, 928), (1, 4096, 1228, 1168)]
        {
            let needs = Needs { shards, ring_depth, ..needs() };
            let severity = |kib: u64| memlock(kib << 10, &needs, NEW).map(|finding| finding.severity);
            assert_eq!(severity(starts), Some(Severity::Warning), "{shards} {ring_depth}");
            assert_eq!(severity(fails), Some(Severity::Error), "{shards} {ring_depth}");
        }
        // This starts or not, as the order will have it.
        let two = Needs { ring_depth: 4096, ..needs() };
        let text = memlock(8 << 20, &two, NEW).expect("too little").text;
        for part in [
            "8192 KiB may be locked",
            "2 shards need 2424 KiB",
            "24576 KiB",
            "may not start",
            "ulimit -l 27000",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_data_directory_that_others_may_enter_is_told() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, told) in [(0o700, false), (0o750, false), (0o755, true), (0o701, true)] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let found = private(directory.path());
            assert_eq!(found.is_some(), told, "{mode:o}");
            assert!(found.is_none_or(|found| found.text.contains(&format!("has mode {mode:o}: "))));
        }
        assert_eq!(private(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_data_directory_is_looked_at_where_it_would_be_made() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(writable(directory.path()), None);
        assert_eq!(writable(&directory.path().join("a/b")), None);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("data")] {
            let text = writable(&path).expect("it is no directory").text;
            assert!(text.contains("file is not a directory"), "{text}");
        }
    }

    #[test]
    fn the_kernel_says_which_it_is() {
        assert!(kernel() >= (5, 15), "{:?}", kernel());
    }
}
