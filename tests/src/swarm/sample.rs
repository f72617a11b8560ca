//! Samples of a machine that is not there: values that wander within sensible bounds.

use jiff::Timestamp;
use muster_proto::v1::{Pressure, Sample};
use rand::RngExt as _;
use rand::rngs::StdRng;

const GIB: u64 = 1 << 30;

/// A machine of eight cores and 32 GiB.
#[derive(Debug, Default)]
pub(super) struct Machine {
    cpu_percent: f64,
    memory_percent: f64,
    disk_used: u64,
}

impl Machine {
    /// The next reading.
    pub(super) fn sample(&mut self, random: &mut StdRng) -> Sample {
        let mut wander =
            |value: f64, step: f64| (value + random.random_range(-step..=step)).clamp(1.0, 99.0);
        self.cpu_percent = wander(self.cpu_percent, 15.0);
        self.memory_percent = wander(self.memory_percent, 3.0);
        self.disk_used = (self.disk_used + random.random_range(0..64 << 20)).min(90 * GIB);
        let total = 32 * GIB;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 99"
        )]
        let used = total / 100 * self.memory_percent as u64;
        let now = Timestamp::now();
        Sample {
            taken_at: Some(wire(now)),
            cpu_percent: self.cpu_percent,
            cpu_count: 8,
            load_one_minute: self.cpu_percent / 12.5,
            memory_used_bytes: used,
            memory_total_bytes: total,
            memory_available_bytes: total - used,
            disk_free_bytes: 100 * GIB - self.disk_used,
            disk_total_bytes: 100 * GIB,
            network_received_bytes: random.random_range(0..4 << 20),
            network_sent_bytes: random.random_range(0..1 << 20),
            disk_read_bytes: random.random_range(0..8 << 20),
            disk_written_bytes: random.random_range(0..8 << 20),
            pressure: Some(Pressure {
                cpu_some: self.cpu_percent / 10.0,
                ..Pressure::default()
            }),
            ..Sample::default()
        }
    }
}

/// A time as the protocol has it.
pub(super) fn wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}
