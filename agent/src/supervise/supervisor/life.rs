//! How long this host may live. What is baked into an image knows nothing of the pools that use it, so the
//! coordinator says how long the pool gives its instances, and the host's own limits stay behind that.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Supervisor;
use crate::boot::since_boot;
use crate::config::Mode;

/// How much longer the host lives than its pool allows. The coordinator counts from the launch and ends in
/// order what is too old; this is for when it doesn't.
const MARGIN: Duration = Duration::from_secs(15 * 60);
/// How much longer `muster-lifetime.service` waits than the supervisor, which ends a job in order.
const UNIT_MARGIN: Duration = Duration::from_secs(15 * 60);
/// Name of the file that tells that unit until when: seconds since the boot. It is not there while what is
/// baked into the image holds.
const FILE: &str = "lives-until";

/// The life of this host.
#[derive(Debug)]
pub(super) struct Life {
    /// When this process looked at the age.
    looked_at: Instant,
    age: Duration,
    ends: Instant,
    /// Whether those who end the host otherwise know of it.
    is_told: bool,
}

impl Life {
    /// Of a host that is of this age, and may get as old as `limit`.
    pub(super) fn new(limit: Duration, age: Duration, now: Instant) -> Self {
        Self {
            looked_at: now,
            age,
            ends: now + limit.saturating_sub(age),
            is_told: true,
        }
    }

    /// When it is over.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// Lets the host get as old as `limit`. False if it may already.
    fn extend(&mut self, limit: Duration) -> bool {
        let ends = self.looked_at + limit.saturating_sub(self.age);
        let longer = ends > self.ends;
        self.ends = self.ends.max(ends);
        longer
    }

    /// Whether it is over. Once only: from then on somebody else sees to it, and is looked after in a while.
    pub(super) fn is_over(&mut self, now: Instant, again: Duration) -> bool {
        let over = self.ends <= now;
        if over {
            self.ends = now + again;
        }
        over
    }
}

impl Supervisor {
    /// The pool gives its instances this long. What is shorter than the host's own limit changes nothing: the
    /// coordinator sees to that.
    pub(super) fn extend_life(&mut self, lifetime: Duration) {
        if self.life.extend(lifetime + MARGIN) {
            self.known.lifetime = Some(lifetime);
            self.life.is_told = false;
            tracing::info!(
                ?lifetime,
                "the pool's instances live longer than the image says"
            );
        }
        // What could not be written is tried again each time that the coordinator says it.
        if self.life.is_told {
            return;
        }
        if matches!(self.config.mode, Mode::Unit(_)) {
            let left = self.life.ends().saturating_duration_since(Instant::now());
            let until = since_boot() + left + UNIT_MARGIN;
            if let Err(error) = write(&self.config.work_dir, until) {
                tracing::warn!(%error, "the host will be off when the image says");
                return;
            }
        }
        self.life.is_told = true;
    }
}

fn write(dir: &Path, until: Duration) -> io::Result<()> {
    let fresh = dir.join(format!("{FILE}.new"));
    std::fs::write(&fresh, format!("{}\n", until.as_secs()))?;
    std::fs::rename(fresh, dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{FILE, Life, write};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_life_counts_from_the_boot_and_gets_longer_only() {
        let now = Instant::now();
        let mut life = Life::new(6 * HOUR, HOUR, now);
        assert_eq!(life.ends(), now + 5 * HOUR);
        assert!(!life.extend(2 * HOUR) && !life.extend(6 * HOUR));
        assert_eq!(life.ends(), now + 5 * HOUR);
        assert!(life.extend(12 * HOUR) && !life.extend(12 * HOUR));
        assert_eq!(life.ends(), now + 11 * HOUR);

        // One that was found older than the image allows.
        let mut life = Life::new(6 * HOUR, 7 * HOUR, now);
        assert!(life.extend(12 * HOUR) && !life.is_over(now, HOUR));
        let later = now + 5 * HOUR;
        assert!(life.is_over(later, HOUR) && !life.is_over(later, HOUR));
        assert!(life.is_over(later + HOUR, HOUR));
    }

    #[test]
    fn the_unit_reads_whole_seconds() {
        let dir = tempfile::tempdir().unwrap();
        for until in [HOUR, 2 * HOUR + Duration::from_millis(1)] {
            write(dir.path(), until).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, "7200\n");
    }
}
