use std::fs;

use muster_proto::v1::ResourceKind;
use tempfile::TempDir;

use super::*;

/// A job's cgroup, and a sampler of the real host that watches it.
fn watched() -> (TempDir, Sampler) {
    let cgroup = tempfile::tempdir().unwrap();
    let mut sampler = Sampler::new("/".into());
    sampler.watch_cgroup(Some(cgroup.path()));
    (cgroup, sampler)
}

fn write(cgroup: &TempDir, memory: u64, kills: u64) {
    let write = |name: &str, text: String| fs::write(cgroup.path().join(name), text).unwrap();
    write("cpu.stat", "usage_usec 1500000\n".into());
    write("memory.current", format!("{memory}\n"));
    write("memory.events", format!("oom 9\noom_kill {kills}\n"));
    write("pids.current", "3\n".into());
}

#[test]
fn readings_of_this_host_are_plausible() {
    let mut sampler = Sampler::new("/".into());
    let sample = sampler.take();
    assert!(sample.cpu_count > 0);
    assert!((0.0..=100.0).contains(&sample.cpu_percent));
    assert!(sample.load_one_minute >= 0.0);
    assert!(sample.memory_used_bytes > 0);
    assert!(sample.memory_used_bytes <= sample.memory_total_bytes);
    assert!(sample.memory_available_bytes <= sample.memory_total_bytes);
    assert!(sample.swap_used_bytes <= sample.swap_total_bytes);
    assert!(sample.disk_total_bytes > 0);
    assert!(sample.disk_free_bytes <= sample.disk_total_bytes);
    assert_eq!(sample.job, None, "nobody named a cgroup");
    let started = kernel_started_at().unwrap();
    assert!(started < Timestamp::now());
}

#[test]
fn peaks_begin_with_the_job_and_only_rise() {
    let (cgroup, mut sampler) = watched();
    assert_eq!(sampler.peaks(), None);
    write(&cgroup, 500, 0);
    sampler.begin_peaks();
    let first = sampler.peaks().unwrap();
    assert!(first.memory_used_bytes > 0 && first.disk_free_bytes_min > 0);
    assert_eq!(first.job.unwrap().memory_peak_bytes, 500);
    write(&cgroup, 900, 1);
    sampler.take();
    write(&cgroup, 100, 1);
    let second = sampler.peaks().unwrap();
    assert!(second.memory_used_bytes >= first.memory_used_bytes);
    assert!(second.disk_free_bytes_min <= first.disk_free_bytes_min);
    let job = second.job.unwrap();
    assert_eq!((job.memory_bytes, job.memory_peak_bytes), (900, 900));
    assert_eq!((job.out_of_memory_kills, job.tasks), (1, 3));
}

#[test]
fn what_a_job_used_is_known_when_its_cgroup_is_gone() {
    let (cgroup, mut sampler) = watched();
    write(&cgroup, 500, 0);
    sampler.begin_peaks();
    sampler.watch_cgroup(Some(Path::new("/nonexistent")));
    assert_eq!(sampler.take().job, None);
    assert_eq!(sampler.peaks().unwrap().job.unwrap().memory_bytes, 500);
}

#[test]
fn a_kill_in_the_cgroup_is_a_warning() {
    let (cgroup, mut sampler) = watched();
    write(&cgroup, 500, 0);
    let kinds = |sampler: &mut Sampler| {
        let sample = sampler.take();
        let warnings = sampler.warnings(&sample).into_iter();
        let kinds: Vec<_> = warnings.map(|warning| warning.kind()).collect();
        // This host may run short of something else meanwhile.
        kinds.contains(&ResourceKind::OutOfMemoryKill)
    };
    assert!(!kinds(&mut sampler));
    write(&cgroup, 500, 1);
    assert!(kinds(&mut sampler));
    assert!(!kinds(&mut sampler));
}

#[test]
fn peaks_of_a_disk_that_can_not_be_read_are_unset() {
    let nowhere = Path::new("/nonexistent");
    let mut sampler = Sampler::rooted(nowhere, nowhere, nowhere.into());
    sampler.begin_peaks();
    assert_eq!(sampler.peaks(), Some(ResourcePeaks::default()));
}
