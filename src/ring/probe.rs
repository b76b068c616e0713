//! Can io_uring be used here? If not: in words, with the remedy.

use std::fs;
use std::io;

use rustix::process::{Resource, getrlimit};

/// Why io_uring cannot be used on this host, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// `kernel.io_uring_disabled` forbids it.
    #[error(
        "io_uring is disabled on this host (kernel.io_uring_disabled = {setting}); \
         set it to 0: sysctl -w kernel.io_uring_disabled=0, and in /etc/sysctl.d to keep it"
    )]
    Disabled {
        /// 1: unprivileged processes may not; 2: nobody may.
        setting: u32,
    },
    /// A filter refuses the system call.
    #[error(
        "io_uring_setup is refused ({0}), probably by a seccomp filter; a container needs a profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register (Docker: --security-opt seccomp=...)"
    )]
    Refused(io::Error),
    /// The kernel has no io_uring.
    #[error("this kernel has no io_uring; Linux 5.15 or later is needed")]
    Missing,
    /// Too little memory may be locked.
    #[error(
        "only {have} bytes may be locked in memory, {need} are needed; \
         raise it: LimitMEMLOCK=64M in the systemd unit, or ulimit -l 65536"
    )]
    Memlock {
        /// The limit now.
        have: u64,
        /// The least that works.
        need: u64,
    },
    /// Something else.
    #[error("io_uring_setup failed: {0}")]
    Failed(io::Error),
}

/// What the runtime insists on.
const MEMLOCK_MIN: u64 = 512 << 10;

/// Tries to make a ring, and looks at what the runtime needs besides.
pub fn probe() -> Result<(), ProbeError> {
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    judge(setting.as_deref().and_then(|text| text.trim().parse().ok()).unwrap_or(0), setup(), memlock())
}

fn judge(setting: u32, setup: io::Result<()>, memlock: Option<u64>) -> Result<(), ProbeError> {
    if let Err(error) = setup {
        return Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => ProbeError::Missing,
            Some(libc::EPERM) if setting > 0 => ProbeError::Disabled { setting },
            Some(libc::EPERM | libc::EACCES) => ProbeError::Refused(error),
            Some(libc::ENOMEM) => {
                ProbeError::Memlock { have: memlock.unwrap_or(u64::MAX), need: MEMLOCK_MIN }
            }
            Some(_) | None => ProbeError::Failed(error),
        });
    }
    match memlock {
        Some(have) if have < MEMLOCK_MIN => Err(ProbeError::Memlock { have, need: MEMLOCK_MIN }),
        Some(_) | None => Ok(()),
    }
}

fn memlock() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// A ring of one entry, closed at once.
#[expect(unsafe_code, reason = "there is no safe call for it")]
fn setup() -> io::Result<()> {
    use std::os::fd::{FromRawFd as _, OwnedFd};

    // Larger than `struct io_uring_params` (120 bytes), zeroed as the kernel demands, aligned as it expects.
    let mut parameters = [0_u64; 32];
    // SAFETY: the kernel writes at most the struct to the pointer, which is larger and lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, parameters.as_mut_ptr()) };
    match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => {
            // SAFETY: the call just returned it, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
            Ok(())
        }
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn every_reason_has_its_words() {
        let check = |setting, setup, memlock, words: &str| {
            let error = judge(setting, setup, memlock).unwrap_err().to_string();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
        };
        check(2, failed(libc::EPERM), None, "kernel.io_uring_disabled=0");
        check(0, failed(libc::EPERM), None, "seccomp");
        check(0, failed(libc::ENOSYS), None, "5.15");
        check(0, failed(libc::ENOMEM), Some(65536), "LimitMEMLOCK");
        check(0, failed(libc::EINVAL), None, "failed");
        check(0, Ok(()), Some(65536), "ulimit -l");
        assert!(judge(1, Ok(()), None).is_ok(), "a privileged process may");
    }

    #[test]
    fn works_here() {
        probe().unwrap();
    }
}
