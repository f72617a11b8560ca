//! The clock of this boot: it starts with the kernel, and nobody can set it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// How long the kernel has run, sleep included.
pub(crate) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
