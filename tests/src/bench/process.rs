//! What a process uses, as the kernel counts it.

use std::time::Duration;

use anyhow::Context as _;

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) proportional: u64,
    pub(crate) anonymous: u64,
}

/// <https://docs.kernel.org/filesystems/proc.html>, `smaps_rollup`.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.with_context(|| format!("no {name} in smaps_rollup"))?;
        let value = line.split_whitespace().nth(1).context("no value")?;
        Ok(value.parse()?)
    };
    Ok(Memory {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
        anonymous: field("Anonymous:")?,
    })
}

/// Time on processors so far of all threads, in nanoseconds (`schedstat`: ticks of 10 ms are too coarse).
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut total = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanos: u64 = text.split(' ').next().context("no time")?.parse()?;
        total += nanos;
    }
    Ok(Duration::from_nanos(total))
}
