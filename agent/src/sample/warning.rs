//! When a resource runs short enough to say so: early, once, and again only after a recovery.

use muster_proto::v1::{ResourceKind, Sample};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Least free disk space, unless a twentieth of the disk is more.
const DISK_FREE: u64 = GIB;
/// Least memory that must be available, unless a twentieth of it is more.
const MEMORY_AVAILABLE: u64 = 200 * MIB;
/// However large the instance: with this much available, memory is not short.
const MEMORY_ENOUGH: u64 = 2 * GIB;
/// Share of the last 10 s, in percent, in which all tasks waited for memory: the job hardly proceeds.
const MEMORY_STALLED: f64 = 20.0;
/// Below this it proceeds again.
const MEMORY_FLOWS: f64 = 10.0;

/// What was said and is not over.
#[derive(Debug, Default)]
pub(super) struct Watch {
    disk_is_low: bool,
    memory_is_low: bool,
    /// Kills in the job's cgroup that are known.
    kills: u64,
}

/// What began, and the sentence for it.
pub(super) type Warning = (ResourceKind, String);

impl Watch {
    /// Another cgroup will be counted.
    pub(super) fn new_job(&mut self) {
        self.kills = 0;
    }

    /// What began with this sample. A figure that could not be read changes nothing.
    pub(super) fn judge(&mut self, sample: &Sample) -> [Option<Warning>; 3] {
        [
            self.disk(sample).map(|detail| (ResourceKind::Disk, detail)),
            self.memory(sample)
                .map(|detail| (ResourceKind::Memory, detail)),
            self.kills(sample)
                .map(|detail| (ResourceKind::OutOfMemoryKill, detail)),
        ]
    }

    fn disk(&mut self, sample: &Sample) -> Option<String> {
        let (free, total) = (sample.disk_free_bytes, sample.disk_total_bytes);
        if total == 0 {
            return None;
        }
        // A quarter of a disk is not little, however small it is.
        let low = (total / 20).max(DISK_FREE.min(total / 4));
        let state = judge(&mut self.disk_is_low, free < low, free >= well_above(low));
        state.then(|| {
            let (free, total) = (amount(free), amount(total));
            format!("the runner's disk has {free} of {total} left")
        })
    }

    fn memory(&mut self, sample: &Sample) -> Option<String> {
        let (available, total) = (sample.memory_available_bytes, sample.memory_total_bytes);
        if total == 0 {
            return None;
        }
        let low = (total / 20)
            .max(MEMORY_AVAILABLE.min(total / 10))
            .min(MEMORY_ENOUGH);
        let stalled = sample.pressure.map_or(0.0, |pressure| pressure.memory_full);
        let is_short = available < low;
        let began = judge(
            &mut self.memory_is_low,
            is_short || stalled > MEMORY_STALLED,
            available >= well_above(low) && stalled < MEMORY_FLOWS,
        );
        began.then(|| {
            let (available, total) = (amount(available), amount(total));
            let mut detail = format!("{available} of {total} of memory are available");
            if stalled > MEMORY_STALLED {
                detail += &format!(", and all tasks waited for memory {stalled:.0} % of the time");
            }
            detail
        })
    }

    fn kills(&mut self, sample: &Sample) -> Option<String> {
        let job = sample.job?;
        // A count that went back is that of another cgroup under the same path.
        let before = if job.out_of_memory_kills < self.kills {
            0
        } else {
            self.kills
        };
        self.kills = job.out_of_memory_kills;
        let new = self.kills - before;
        (new > 0).then(|| {
            let processes = if new == 1 { "process" } else { "processes" };
            let most = amount(job.memory_peak_bytes);
            format!(
                "the kernel killed {new} {processes} of the job for want of memory, {} so far; the \
                 job used up to {most}",
                self.kills
            )
        })
    }
}

/// True if a shortage begins now. One that is neither here nor over leaves things as they are.
fn judge(is_low: &mut bool, begins: bool, ends: bool) -> bool {
    let was_low = *is_low;
    *is_low = if was_low { !ends } else { begins };
    *is_low && !was_low
}

/// The bound at which a shortage is over.
fn well_above(low: u64) -> u64 {
    low.saturating_add(low / 2)
}

/// Bytes for people.
fn amount(bytes: u64) -> String {
    let (unit, name) = match bytes {
        GIB.. => (GIB, "GiB"),
        MIB.. => (MIB, "MiB"),
        _ => (KIB, "KiB"),
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{JobUse, Pressure};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn disk(free: u64, total: u64) -> Sample {
        Sample {
            disk_free_bytes: free,
            disk_total_bytes: total,
            ..Sample::default()
        }
    }

    fn memory(available: u64, total: u64, stalled: f64) -> Sample {
        Sample {
            memory_available_bytes: available,
            memory_total_bytes: total,
            pressure: Some(Pressure {
                memory_full: stalled,
                ..Pressure::default()
            }),
            ..Sample::default()
        }
    }

    fn kills(count: u64) -> Sample {
        Sample {
            job: Some(JobUse {
                out_of_memory_kills: count,
                memory_peak_bytes: 3 * GIB,
                ..JobUse::default()
            }),
            ..Sample::default()
        }
    }

    fn details(watch: &mut Watch, sample: &Sample) -> Vec<String> {
        let found = watch.judge(sample).into_iter().flatten();
        found.map(|(_, detail)| detail).collect()
    }

    #[rstest]
    #[case::a_twentieth_counts_on_a_large_disk(90 * GIB, 2_000 * GIB, true)]
    #[case::more_than_that_is_enough(110 * GIB, 2_000 * GIB, false)]
    #[case::a_gigabyte_counts_on_a_small_one(GIB - 1, 8 * GIB, true)]
    #[case::more_than_a_gigabyte_is_enough(GIB, 8 * GIB, false)]
    #[case::a_tiny_one_may_be_all_free(300 * MIB, 512 * MIB, false)]
    #[case::a_tiny_one_may_be_full(100 * MIB, 512 * MIB, true)]
    #[case::a_full_one(0, 8 * GIB, true)]
    #[case::one_that_could_not_be_read(0, 0, false)]
    fn low_disks(#[case] free: u64, #[case] total: u64, #[case] is_low: bool) {
        let said = details(&mut Watch::default(), &disk(free, total));
        assert_eq!(!said.is_empty(), is_low, "{said:?}");
    }

    #[rstest]
    #[case::a_host_of_half_a_gigabyte(60 * MIB, 512 * MIB, 0.0, false)]
    #[case::the_same_with_less(50 * MIB, 512 * MIB, 0.0, true)]
    #[case::a_host_of_two_gigabytes(190 * MIB, 2 * GIB, 0.0, true)]
    #[case::a_host_of_sixteen(700 * MIB, 16 * GIB, 0.0, true)]
    #[case::a_host_of_many(3 * GIB, 256 * GIB, 0.0, false)]
    #[case::stalls(8 * GIB, 16 * GIB, 20.1, true)]
    #[case::short_stalls(8 * GIB, 16 * GIB, 20.0, false)]
    #[case::no_reading(0, 0, 99.0, false)]
    fn low_memory(
        #[case] available: u64,
        #[case] total: u64,
        #[case] stalled: f64,
        #[case] is_low: bool,
    ) {
        let said = details(&mut Watch::default(), &memory(available, total, stalled));
        assert_eq!(!said.is_empty(), is_low, "{said:?}");
    }

    #[test]
    fn a_shortage_is_said_once_and_again_after_a_clear_recovery() {
        let mut watch = Watch::default();
        let mut said = |free: u64| !details(&mut watch, &disk(free, 10 * GIB)).is_empty();
        assert!(said(GIB - 1));
        assert!(!said(0));
        assert!(!said(GIB + 1), "hardly better");
        assert!(!said(GIB - 1));
        assert!(!said(2 * GIB), "over");
        assert!(said(GIB - 1));
    }

    #[test]
    fn memory_is_well_again_when_it_is_free_and_nothing_stalls() {
        let mut watch = Watch::default();
        let mut said = |available: u64, stalled: f64| {
            !details(&mut watch, &memory(available, 8 * GIB, stalled)).is_empty()
        };
        assert!(said(4 * GIB, 50.0));
        assert!(!said(GIB / 8, 0.0), "another reason for the same shortage");
        assert!(!said(4 * GIB, 15.0));
        assert!(!said(4 * GIB, 30.0));
        assert!(!said(4 * GIB, 1.0));
        assert!(said(GIB / 8, 0.0));
    }

    #[test]
    fn each_rise_of_kills_is_said() {
        let mut watch = Watch::default();
        let said = [0, 1, 1, 4, 4].map(|count| details(&mut watch, &kills(count)).pop());
        begins(
            &said[1],
            "the kernel killed 1 process of the job for want of memory, 1 so far",
        );
        begins(
            &said[3],
            "the kernel killed 3 processes of the job for want of memory, 4 so far",
        );
        assert_eq!([&said[0], &said[2], &said[4]], [&None, &None, &None]);
        assert!(
            details(&mut watch, &Sample::default()).is_empty(),
            "the cgroup is gone"
        );
        assert!(details(&mut watch, &kills(4)).is_empty());
        assert_eq!(details(&mut watch, &kills(2)).len(), 1, "another cgroup");
        watch.new_job();
        assert_eq!(details(&mut watch, &kills(2)).len(), 1);
    }

    fn begins(said: &Option<String>, beginning: &str) {
        let said = said.as_deref().unwrap_or_default();
        assert!(said.starts_with(beginning), "{said}");
    }

    #[test]
    fn sentences_have_figures() {
        let mut watch = Watch::default();
        assert_eq!(
            details(&mut watch, &disk(812 * MIB, 20 * GIB)),
            ["the runner's disk has 812.0 MiB of 20.0 GiB left"]
        );
        assert_eq!(
            details(&mut watch, &memory(100 * MIB, 4 * GIB, 33.3)),
            [
                "100.0 MiB of 4.0 GiB of memory are available, and all tasks waited for memory 33 % of \
              the time"
            ]
        );
        assert_eq!(amount(0), "0.0 KiB");
        assert_eq!(amount(u64::MAX), "17179869183.9 GiB");
    }

    /// Figures that are often at or next to a bound.
    fn bytes() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            0..4 * GIB,
            Just(0),
            Just(u64::MAX),
            Just(GIB),
            Just(200 * MIB)
        ]
    }

    prop_compose! {
        fn sample()(
            figures in prop::array::uniform4(bytes()),
            stalled in prop_oneof![any::<f64>(), 0.0..100.0],
            told in any::<bool>(),
            count in prop::option::of(0..4_u64),
        ) -> Sample {
            let [disk_free_bytes, disk_total_bytes, memory_available_bytes, memory_total_bytes] = figures;
            Sample {
                disk_free_bytes,
                disk_total_bytes,
                memory_available_bytes,
                memory_total_bytes,
                pressure: told.then(|| Pressure { memory_full: stalled, ..Pressure::default() }),
                job: count.map(|out_of_memory_kills| JobUse { out_of_memory_kills, ..JobUse::default() }),
                ..Sample::default()
            }
        }
    }

    proptest! {
        /// Between two warnings of one kind lies a reading that is none on its own, and a warning is
        /// never made of what is none on its own.
        #[test]
        fn no_kind_is_said_twice_without_a_recovery(samples in prop::collection::vec(sample(), 0..40)) {
            let mut watch = Watch::default();
            let mut said = [false; 2];
            let mut known = 0;
            for sample in samples {
                let alone = Watch::default().judge(&sample);
                let [disk, memory, kill] = watch.judge(&sample);
                let totals = [sample.disk_total_bytes, sample.memory_total_bytes];
                for (kind, warning) in [disk, memory].into_iter().enumerate() {
                    if alone[kind].is_none() && totals[kind] > 0 {
                        prop_assert!(warning.is_none());
                        said[kind] = false;
                    }
                    prop_assert!(!(said[kind] && warning.is_some()));
                    said[kind] |= warning.is_some();
                }
                let count = sample.job.map_or(known, |job| job.out_of_memory_kills);
                prop_assert_eq!(kill.is_some(), count > known || (count < known && count > 0));
                known = count;
            }
        }
    }
}
