//! Hosts that ended otherwise than they should.

use crate::event::Outcome;
use crate::runner::{Runner, Work};

/// In which way a host was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It never came so far that it could take a job.
    Unready,
    /// Its agent fell silent and did not come back in time.
    Silent,
    /// Its instance went by itself, and no notice had said so.
    Gone,
    /// It was taken away after a notice, as Spot instances are, and did not end before.
    Taken,
    /// It hung, outlived a limit, or said what can't be.
    Stuck,
}

impl Loss {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Unready,
        Self::Silent,
        Self::Gone,
        Self::Taken,
        Self::Stuck,
    ];

    /// What kind of loss it is that a runner ends with this outcome now; none if it is no loss of a host.
    pub(crate) fn of(runner: &Runner, outcome: Option<Outcome>) -> Option<Self> {
        let lost = match outcome? {
            Outcome::StartFailed => false,
            Outcome::Lost => true,
            _ => return None,
        };
        Some(if runner.notice.is_some() {
            Self::Taken
        } else if !lost || runner.work == Work::Booting {
            Self::Unready
        } else if runner.instance_is_gone() {
            Self::Gone
        } else if runner.silent_since.is_some() {
            Self::Silent
        } else {
            Self::Stuck
        })
    }
}

#[cfg(test)]
mod tests;
