//! The clock of this boot: it starts with the kernel, and nobody can set it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Ticks of a second in `/proc`: the same on every architecture that Linux runs on today.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
const TICKS: u64 = 100;
/// The place of the start time in `/proc/<pid>/stat`, counted from after the name.
const START_TIME: usize = 19;

/// How long the kernel has run, sleep included.
pub(crate) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// How long this system has run: since its first process was started. In a container that is later than
/// the kernel's start.
pub(crate) fn since_init() -> Duration {
    let started = std::fs::read_to_string("/proc/1/stat")
        .ok()
        .and_then(|stat| start_time(&stat))
        .unwrap_or_default();
    since_boot().saturating_sub(started)
}

fn start_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(START_TIME)?.parse().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{since_boot, since_init, start_time};

    #[test]
    fn a_process_starts_after_its_kernel() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 5 6";
        assert_eq!(start_time(stat), Some(Duration::from_millis(12_340)));
        assert_eq!(start_time("1 (init) S 0"), None);
        assert_eq!(start_time(""), None);
        let init = since_init();
        assert!(init > Duration::ZERO && init <= since_boot());
    }
}
