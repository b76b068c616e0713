//! What the process uses of the host, as the kernel counts it.

use std::fs;

use rustix::{
    param,
    process::{Resource, getrlimit},
};
use watch::ProcessUsage;

/// How it is now. What cannot be read counts as zero.
pub(crate) fn now() -> ProcessUsage {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| resident_pages(&text));
    let ticks = fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_ticks(&text));
    ProcessUsage {
        // The directory being read is open too.
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1) as u64),
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        resident_bytes: pages.unwrap_or_default().saturating_mul(param::page_size() as u64),
        cpu_seconds: ticks.unwrap_or_default() / param::clock_ticks_per_second().max(1),
    }
}

/// The second number (proc_pid_statm(5)).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// Fields 14 and 15 (proc_pid_stat(5)); the name before them may have spaces and parentheses of its own.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        assert_eq!(resident_pages("5120 1024 800 2 0 300 0\n"), Some(1024));
        assert_eq!(cpu_ticks("7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0\n"), Some(300));
        for broken in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(cpu_ticks(broken), None);
            assert_eq!(resident_pages(broken), None);
        }
    }

    #[test]
    fn this_process_uses_something() {
        let usage = now();
        assert!(usage.open_fds >= 3 && usage.max_fds >= usage.open_fds && usage.resident_bytes > 100_000);
    }
}
