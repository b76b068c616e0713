//! Descriptors and memory that the kernel does not have for the moment.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// How long to wait before asking again.
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Whether an error says that the process or the host has no descriptors or memory left. They come back as others end:
/// what failed so may succeed a moment later.
pub fn is_shortage(error: &io::Error) -> bool {
    const ERRORS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| ERRORS.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS] {
            assert!(is_shortage(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ENOSPC, libc::EACCES, libc::EAGAIN, libc::EIO] {
            assert!(!is_shortage(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_shortage(&io::ErrorKind::TimedOut.into()));
    }
}
