//! What a cgroup uses: <https://docs.kernel.org/admin-guide/cgroup-v2.html>. Version 2 only.

use std::path::Path;

use muster_proto::v1::JobUse;
use prost_types::Duration;

use super::file::{Buffer, KeptFile};
use super::text::{named, number, words};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// The files of one cgroup. Their figures include the cgroups below it.
#[derive(Debug)]
pub(super) struct Cgroup {
    memory: KeptFile,
    memory_peak: KeptFile,
    memory_events: KeptFile,
    cpu: KeptFile,
    tasks: KeptFile,
    /// Most memory that was seen: kernels before 5.19 have no `memory.peak`.
    memory_most: u64,
}

impl Cgroup {
    pub(super) fn new(path: &Path) -> Self {
        let file = |name| KeptFile::new(path.join(name));
        Self {
            memory: file("memory.current"),
            memory_peak: file("memory.peak"),
            memory_events: file("memory.events"),
            cpu: file("cpu.stat"),
            tasks: file("pids.current"),
            memory_most: 0,
        }
    }

    /// None if there is no such cgroup (yet, or any more). What a controller that is not switched on
    /// would tell is 0.
    pub(super) fn read(&mut self, buffer: &mut Buffer) -> Option<JobUse> {
        // The one file that every cgroup has, whatever its controllers.
        let micros = named(self.cpu.read(buffer)?, b"usage_usec")?;
        let memory = single(self.memory.read(buffer)).unwrap_or_default();
        let peak = single(self.memory_peak.read(buffer)).unwrap_or_default();
        self.memory_most = self.memory_most.max(memory).max(peak);
        let events = self.memory_events.read(buffer);
        let kills = events.and_then(|text| named(text, b"oom_kill"));
        Some(JobUse {
            memory_bytes: memory,
            memory_peak_bytes: self.memory_most,
            cpu_time: Some(cpu_time(micros)),
            out_of_memory_kills: kills.unwrap_or_default(),
            tasks: single(self.tasks.read(buffer)).unwrap_or_default(),
        })
    }
}

/// The number that is all of a file.
fn single(text: Option<&[u8]>) -> Option<u64> {
    number(words(text?).next()?)
}

fn cpu_time(micros: u64) -> Duration {
    Duration {
        seconds: i64::try_from(micros / MICROS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros % MICROS_PER_SECOND).map_or(0, |micros| micros * 1_000),
    }
}

/// Of each figure the higher one: counters of a job don't go back when its cgroup is gone.
pub(super) fn highest(one: JobUse, other: JobUse) -> JobUse {
    let time = |spent: &JobUse| spent.cpu_time.map(|time| (time.seconds, time.nanos));
    JobUse {
        memory_bytes: one.memory_bytes.max(other.memory_bytes),
        memory_peak_bytes: one.memory_peak_bytes.max(other.memory_peak_bytes),
        cpu_time: if time(&one) < time(&other) {
            other.cpu_time
        } else {
            one.cpu_time
        },
        out_of_memory_kills: one.out_of_memory_kills.max(other.out_of_memory_kills),
        tasks: one.tasks.max(other.tasks),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CPU_STAT: &str = "usage_usec 61500000\nuser_usec 40000000\nsystem_usec 21500000\n\
                            nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n";
    const EVENTS: &str = "low 0\nhigh 0\nmax 120\noom 3\noom_kill 2\noom_group_kill 0\n";

    #[test]
    fn all_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("cpu.stat", CPU_STAT);
        write("memory.current", "1000\n");
        write("memory.peak", "5000\n");
        write("memory.events", EVENTS);
        write("pids.current", "17\n");
        let read = Cgroup::new(folder.path()).read(&mut Buffer::new()).unwrap();
        assert_eq!(
            read,
            JobUse {
                memory_bytes: 1000,
                memory_peak_bytes: 5000,
                cpu_time: Some(Duration {
                    seconds: 61,
                    nanos: 500_000_000
                }),
                out_of_memory_kills: 2,
                tasks: 17,
            }
        );
    }

    #[test]
    fn without_a_peak_of_the_kernel_the_highest_that_was_seen_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (mut cgroup, mut buffer) = (Cgroup::new(folder.path()), Buffer::new());
        assert_eq!(cgroup.read(&mut buffer), None, "there is none yet");
        write("cpu.stat", CPU_STAT);
        for (current, peak) in [(10, 10), (30, 30), (20, 30)] {
            write("memory.current", &format!("{current}\n"));
            let read = cgroup.read(&mut buffer).unwrap();
            assert_eq!((read.memory_bytes, read.memory_peak_bytes), (current, peak));
        }
    }

    #[test]
    fn the_highest_of_each_figure_is_kept() {
        let one = JobUse {
            memory_bytes: 1,
            cpu_time: Some(cpu_time(1_900_000)),
            tasks: 9,
            ..JobUse::default()
        };
        let other = JobUse {
            memory_bytes: 2,
            cpu_time: Some(cpu_time(2_100_000)),
            ..JobUse::default()
        };
        let both = highest(one, other);
        assert_eq!((both.memory_bytes, both.tasks), (2, 9));
        assert_eq!(both.cpu_time, other.cpu_time);
        assert_eq!(highest(other, one), both);
    }
}
