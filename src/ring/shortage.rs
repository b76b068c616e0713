//! Descriptors and memory that the kernel does not have for the moment.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::timer::sleep;

/// How long to wait before asking again.
pub(crate) const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Whether an error says that the process or the host has no descriptors or memory left. They come back as others end:
/// what failed so may succeed a moment later.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const ERRORS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| ERRORS.iter().any(|errno| errno.raw_os_error() == code))
}

/// Does it again for as long as it fails for lack of descriptors or memory.
pub async fn patiently<T>(mut make: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match make().await {
            Err(error) if is_shortage(&error) => sleep(SHORTAGE_PAUSE).await,
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::process::Command;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::testing::{connect, listen_here, port, run};
    use crate::{ConnectOptions, File, OpenMode, Stream, timeout};

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

    /// Runs a test of this room in a process of its own: it changes what belongs to all.
    fn alone(test: &str, body: impl FnOnce()) {
        const ALONE: &str = "RING_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return body();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", test]).env(ALONE, "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn who_connects_waits_for_a_descriptor() {
        alone("shortage::tests::who_connects_waits_for_a_descriptor", || {
            run(|| async {
                let listener = listen_here();
                let _pair = (connect(&listener).await, listener.accept().await.unwrap());
                let many = getrlimit(Resource::Nofile);
                // All that have a lower number are open.
                setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..many }).unwrap();
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&listener)));
                let impatient = ConnectOptions { timeout: SHORTAGE_PAUSE, ..ConnectOptions::default() };
                assert!(is_shortage(&Stream::connect(to, impatient).await.unwrap_err()));
                let mut connecting = Box::pin(connect(&listener));
                assert!(timeout(3 * SHORTAGE_PAUSE, &mut connecting).await.is_err());
                assert!(is_shortage(&File::open("/dev/null", OpenMode::Read).await.unwrap_err()));
                setrlimit(Resource::Nofile, many).unwrap();
                connecting.await;
                listener.accept().await.unwrap();
            });
        });
    }
}
