//! How rings are made: so that the kernel does not interrupt us to say that something has come.
//!
//! A completion is put into the ring by the thread that owns it, when it enters the kernel. By default the kernel does not wait for
//! that: when bytes come for a connection while the thread computes, it interrupts the thread, on a virtual machine by way of the
//! host, once for each wait of each connection. With `IORING_SETUP_COOP_TASKRUN` it is done at the next system call, of which
//! there are several for each message, and at the latest with the next tick of the clock. Nothing here depends on seeing a
//! completion sooner: rings are looked at between tasks, and who goes on for long asks the kernel ([`crate::yield_now`]).
//!
//! The runtime has no option for it. But its rings are made by one function of C, whose place the linker gives to the one here
//! (`link.rs`, in the manifests of the programs). Where it does not, rings are made as ever.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use libc::{c_int, c_long, c_uint};

/// The beginning of `struct io_uring_params` (io_uring_setup(2)).
#[repr(C)]
struct Parameters {
    submissions: u32,
    completions: u32,
    flags: u32,
}

/// Completions wait for the thread to enter the kernel.
const COOP_TASKRUN: u32 = 1 << 8;

/// 0: nobody has asked the kernel. Else 1 + whether it knew how.
static COOPERATES: AtomicU8 = AtomicU8::new(0);

/// Whether rings are made so: kernels before 5.19 do not know how. None when no ring was made here: there is no executor, or the program is
/// not linked so.
pub fn cooperates() -> Option<bool> {
    COOPERATES.load(Relaxed).checked_sub(1).map(|knows| knows > 0)
}

/// In the place of `__sys_io_uring_setup` of the runtime's own C library: makes a ring, answers its descriptor, or -1 and `errno`.
///
/// # Safety
/// As for io_uring_setup(2): the parameters are a whole `struct io_uring_params`.
#[expect(unsafe_code, reason = "called by C, calls the kernel")]
#[unsafe(export_name = "__wrap___sys_io_uring_setup")]
unsafe extern "C" fn set_up(entries: c_uint, parameters: *mut Parameters) -> c_int {
    // SAFETY: the caller gives a whole struct, which begins so, and nobody else looks at it meanwhile.
    let flags = unsafe { &raw mut (*parameters).flags };
    // SAFETY: it points into that struct. With any flag of its own the runtime means something else: polling, for one.
    if unsafe { *flags } == 0 {
        // SAFETY: as above.
        unsafe { *flags = COOP_TASKRUN };
        // SAFETY: the kernel reads and writes the struct and no more.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters) };
        if ring >= 0 {
            COOPERATES.store(2, Relaxed);
            return descriptor(ring);
        }
        // An older kernel, or whatever it is: the second answer is the one that counts.
        let _ = COOPERATES.compare_exchange(0, 1, Relaxed, Relaxed);
        // SAFETY: as above. On failure the kernel has written nothing.
        unsafe { *flags = 0 };
    }
    // SAFETY: the kernel reads and writes the struct and no more.
    descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters) })
}

/// What the kernel answers is a descriptor or -1.
fn descriptor(answer: c_long) -> c_int {
    c_int::try_from(answer).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    /// Whatever the kernel does not take is tried as the runtime asked for it, and that answer is the one it has.
    #[test]
    #[expect(unsafe_code, reason = "it stands for the runtime's C")]
    fn what_the_kernel_refuses_is_refused_as_ever() {
        // Larger than `struct io_uring_params`, zeroed as the kernel demands.
        let mut parameters = [0_u64; 32];
        // SAFETY: the kernel writes at most the struct to the pointer, which is larger and lives until the call returns.
        let answer = unsafe { set_up(0, parameters.as_mut_ptr().cast()) };
        assert_eq!(answer, -1, "a ring without entries");
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(parameters, [0; 32], "the flag is taken back");
    }

    #[test]
    fn rings_are_made_so_where_the_kernel_knows_how() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers =
            release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse().ok());
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        run(|| async {});
        assert_eq!(cooperates(), Some(version >= (5, 19)), "Linux {release}");
    }
}
