//! Resource use of the instance, and its peaks over the job's life.

use std::path::PathBuf;

use jiff::Timestamp;
use muster_proto::v1::{ResourcePeaks, Sample};
use nix::sys::statvfs::statvfs;
use sysinfo::{Networks, System};

use crate::wire;

/// Takes samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// None if the system can't be read, which is logged once.
    system: Option<System>,
    networks: Option<Networks>,
    disk: PathBuf,
    peaks: Option<ResourcePeaks>,
}

impl Sampler {
    /// Samples the host, and the file system that holds `disk`.
    pub(crate) fn new(disk: PathBuf) -> Self {
        let system = System::new()
            .inspect_err(|error| tracing::warn!(%error, "no readings of cpu and memory"))
            .ok();
        let networks = Networks::new_with_refreshed_list()
            .inspect_err(|error| tracing::warn!(%error, "no readings of the network"))
            .ok();
        let mut sampler = Self {
            system,
            networks,
            disk,
            peaks: None,
        };
        // The first reading of the cpu has nothing to compare with.
        sampler.take();
        sampler
    }

    /// From now on peaks are kept. The job has begun.
    pub(crate) fn begin_peaks(&mut self) {
        self.peaks.get_or_insert(ResourcePeaks {
            cpu_percent: 0.0,
            memory_used_bytes: 0,
            disk_free_bytes_min: u64::MAX,
            ..ResourcePeaks::default()
        });
        self.take();
    }

    /// The peaks so far, if a job has begun.
    pub(crate) fn peaks(&self) -> Option<ResourcePeaks> {
        self.peaks
    }

    /// Reads everything.
    pub(crate) fn take(&mut self) -> Sample {
        let mut sample = Sample {
            taken_at: Some(wire::timestamp(Timestamp::now())),
            ..Sample::default()
        };
        self.read_system(&mut sample);
        self.read_networks(&mut sample);
        self.read_disk(&mut sample);
        if let Some(peaks) = &mut self.peaks {
            peaks.cpu_percent = peaks.cpu_percent.max(sample.cpu_percent);
            peaks.memory_used_bytes = peaks.memory_used_bytes.max(sample.memory_used_bytes);
            peaks.disk_free_bytes_min = peaks.disk_free_bytes_min.min(sample.disk_free_bytes);
        }
        sample
    }

    fn read_system(&mut self, sample: &mut Sample) {
        let Some(system) = &mut self.system else {
            return;
        };
        system.refresh_cpu_usage();
        system.refresh_memory();
        // The first reading can be no number.
        let cpu = f64::from(system.global_cpu_usage());
        sample.cpu_percent = if cpu.is_finite() {
            cpu.clamp(0.0, 100.0)
        } else {
            0.0
        };
        sample.cpu_count = u32::try_from(system.cpus().len()).unwrap_or(u32::MAX);
        sample.load_one_minute = System::load_average().map_or(0.0, |load| load.one);
        sample.memory_used_bytes = system.used_memory();
        sample.memory_total_bytes = system.total_memory();
        sample.swap_used_bytes = system.used_swap();
    }

    fn read_networks(&mut self, sample: &mut Sample) {
        let Some(networks) = &mut self.networks else {
            return;
        };
        networks.refresh(true);
        for (_, network) in networks.iter().filter(|(name, _)| *name != "lo") {
            sample.network_received_bytes += network.received();
            sample.network_sent_bytes += network.transmitted();
        }
    }

    fn read_disk(&self, sample: &mut Sample) {
        // One call for the one file system that matters: listing all of them would touch dead mounts.
        match statvfs(&self.disk) {
            Ok(disk) => {
                sample.disk_free_bytes = disk.blocks_available() * disk.fragment_size();
                sample.disk_total_bytes = disk.blocks() * disk.fragment_size();
            }
            Err(error) => tracing::debug!(%error, "no reading of the disk"),
        }
    }
}

/// When the kernel started, if it says so.
pub(crate) fn kernel_started_at() -> Option<Timestamp> {
    let seconds = System::boot_time().ok()?;
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn readings_are_plausible_and_peaks_only_rise() {
        let mut sampler = Sampler::new("/".into());
        let sample = sampler.take();
        assert!(sample.cpu_count > 0);
        assert!(sample.memory_used_bytes > 0);
        assert!(sample.memory_used_bytes <= sample.memory_total_bytes);
        assert!(sample.disk_free_bytes <= sample.disk_total_bytes);
        assert!((0.0..=100.0).contains(&sample.cpu_percent));
        assert!(sampler.peaks().is_none());
        sampler.begin_peaks();
        let first = sampler.peaks().unwrap();
        sampler.take();
        let second = sampler.peaks().unwrap();
        assert!(second.memory_used_bytes >= first.memory_used_bytes);
        assert!(second.disk_free_bytes_min <= first.disk_free_bytes_min);
    }
}
