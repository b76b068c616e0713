//! What the process gives up once its ports are open: files that are not its own, calls that it never makes, privileges,
//! core files. All of it before the first thread is started, since each thread keeps what its parent had.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use anyhow::Context;
use caps::{CapSet, Capability, CapsHashSet};
use config::{Config, ListenAddress, Output};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::Uid,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use watch::events::Hardened;

use crate::say::say;

/// How far the process is held to what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confined {
    Fully,
    /// The kernel knows a part of it.
    Partly,
    /// The kernel cannot, or does not let us.
    NotAtAll,
    /// The configuration says no.
    Unasked,
}

impl Confined {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fully => "full",
            Self::Partly => "partial",
            Self::NotAtAll => "none",
            Self::Unasked => "off",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    pub(crate) files: Confined,
    pub(crate) calls: Confined,
}

impl Confinement {
    /// Says in the log what came of it, and what to do where nothing did.
    pub(crate) fn tell(self) {
        Hardened { files: self.files.as_str(), calls: self.calls.as_str() }.emit(ring::clock::unix_micros());
        if self.files == Confined::NotAtAll {
            tracing::warn!(
                "hardening.files: nothing came of it: it takes Linux 5.13 with landlock among the modules of \
                 /sys/kernel/security/lsm, and where calls are filtered (a unit, a container), that landlock_create_ruleset, \
                 landlock_add_rule and landlock_restrict_self are allowed"
            );
        }
        if self.calls == Confined::NotAtAll {
            tracing::warn!(
                "hardening.calls: nothing came of it: it takes a kernel with seccomp filters, and where calls are filtered (a \
                 unit, a container), that seccomp and prctl are allowed"
            );
        }
    }
}

/// Read whoever we are: programs and libraries for the names in a backtrace, resolv.conf and trust anchors, our own
/// figures, and what the runtime asks about disks.
const SYSTEM: &[&str] = &["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys"];
/// The rights that this program knows how to ask for.
const KNOWN: ABI = ABI::V6;

/// Gives up what the configuration says.
///
/// # Errors
/// When the process may not change itself. That the kernel lacks a means is no error.
pub(crate) fn confine(config: &Config, file: &Path) -> anyhow::Result<Confinement> {
    let hardening = &config.hardening;
    if !hardening.core_dumps {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core files")?;
        // A core file that goes to a program is not bound by the limit.
        prctl::set_dumpable(false).context("cannot forbid core files")?;
    }
    if let Err(error) = give_up_capabilities() {
        say(&format!(
            "ringpost: warning: capabilities are kept that are not needed any more ({error}): allow capset(2), in a unit \
             by `SystemCallFilter=capset`"
        ));
    }
    let files = match hardening.files {
        true => confine_files(config, file).unwrap_or(Confined::NotAtAll),
        false => Confined::Unasked,
    };
    let calls = match hardening.calls {
        true => forbid_calls().map_or(Confined::NotAtAll, |()| Confined::Fully),
        false => Confined::Unasked,
    };
    Ok(Confinement { files, calls })
}

/// The ports are open. What else there was is not needed, but for a little.
fn give_up_capabilities() -> Result<(), caps::errors::CapsError> {
    // Locked memory is counted as long as the rings live.
    let mut needed = vec![Capability::CAP_IPC_LOCK];
    if Uid::effective().is_root() {
        // Root that stays root reads keys and writes a data directory that are not its own.
        needed.push(Capability::CAP_DAC_OVERRIDE);
    }
    empty_bounding_set()?;
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = had.iter().copied().filter(|capability| needed.contains(capability)).collect();
    let inherited = caps::read(None, CapSet::Inheritable)?;
    if kept == had && inherited.is_empty() {
        // A filter may forbid the call to those who have nothing.
        return Ok(());
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Nothing that is started from here on can have a capability again, whoever owns the file. It takes a right that goes with
/// the first of them, so it comes before.
pub(crate) fn empty_bounding_set() -> Result<(), caps::errors::CapsError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    Ok(())
}

/// Which folders may be used, and how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reach {
    read: Vec<PathBuf>,
    /// Files are made, appended to, renamed and removed here.
    write: Vec<PathBuf>,
}

impl Reach {
    fn of(config: &Config, file: &Path) -> Self {
        let mut reach = Self { read: SYSTEM.iter().map(PathBuf::from).collect(), write: Vec::new() };
        reach.write.push(config.data_directory.clone());
        let log = match &config.log.output {
            Output::Stdout | Output::Stderr => None,
            Output::File(path) => Some(path),
        };
        // Log files are moved aside and made anew, sockets unlinked at the end.
        let sockets =
            config.listeners.iter().flat_map(|listener| &listener.address).filter_map(
                |address| match address {
                    ListenAddress::Unix(path) => Some(path),
                    ListenAddress::Tcp(_) | ListenAddress::Systemd(_) => None,
                },
            );
        reach.write.extend(config.dkim_rotation.directory.clone());
        reach.write.extend(log.into_iter().chain(sockets).filter_map(|path| folder(path)));
        // A file may be a link to where its next version will be, and is replaced as a whole: so it is folders.
        let named = config.paths().into_iter().chain([file.to_owned()]);
        for path in named.filter(|path| *path != config.data_directory && Some(path) != log) {
            reach.read.extend(folder(&path));
            reach.read.extend(path.canonicalize().ok().as_deref().and_then(folder));
        }
        reach.read.extend(env::current_exe());
        for paths in [&mut reach.read, &mut reach.write] {
            paths.sort();
            paths.dedup();
        }
        reach
    }
}

/// The folder that a file is in; the file itself where that would be everything.
fn folder(path: &Path) -> Option<PathBuf> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(".".into()),
        Some(parent) if parent.parent().is_some() => Some(parent.to_owned()),
        Some(_) | None => Some(path.to_owned()),
    }
}

fn confine_files(config: &Config, file: &Path) -> anyhow::Result<Confined> {
    let reach = Reach::of(config, file);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        // No signals to others, and no talk with those who listen without a file.
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::NotAtAll,
    })
}

/// Calls that no mail server makes; whoever makes them here is not ours. They fail with EPERM.
const FORBIDDEN: &[i64] = &[
    // Programs and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Who we are.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Where we are.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // The host.
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_personality,
    // Doors into the kernel that others have come through.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
];

fn forbid_calls() -> anyhow::Result<()> {
    let rules: BTreeMap<_, _> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_may_be_reached() {
        let config = Config {
            data_directory: "/srv/mail".into(),
            log: config::Log { output: Output::File("/var/log/mail/log".into()), ..config::Log::default() },
            listeners: vec![config::Listener {
                address: vec![ListenAddress::Unix("/run/mail/lmtp".into())],
                ..config::Listener::default()
            }],
            certificates: vec![config::Certificate {
                certificate: "/srv/certs/own.pem".into(),
                key: "/key.pem".into(),
                ..config::Certificate::default()
            }],
            ..Config::default()
        };
        let reach = Reach::of(&config, Path::new("/srv/etc/ringpost.toml"));
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(reach.write, paths(&["/run/mail", "/srv/mail", "/var/log/mail"]));
        for path in ["/srv/certs", "/srv/etc", "/key.pem"] {
            assert!(reach.read.contains(&path.into()), "{path}");
        }
        for path in ["/", "/srv", "/srv/mail", "/var/log/mail", "/run/mail"] {
            assert!(!reach.read.contains(&path.into()), "{path}");
        }
    }
}
