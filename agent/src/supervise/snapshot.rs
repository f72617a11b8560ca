//! The machine outlives the process that holds it: all that it knows as plain data, and back.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::alive::Time;
use super::machine::{Machine, State};
use super::watchdog::Limits;

/// What a machine knows. It holds no secret beyond what the console showed, and no clock's reading:
/// every time in it is counted from the machine's beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    state: State,
    deadline: Option<Time>,
    interrupt_lead: Duration,
    stop_grace: Duration,
}

impl Machine {
    /// All that it knows. The same as before, if it has learned nothing since.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state.clone(),
            deadline: self.deadline,
            interrupt_lead: self.limits.interrupt_lead,
            stop_grace: self.limits.stop_grace,
        }
    }

    /// How long ago it began.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.time(now)
    }

    /// The machine again, `age` after it began. The lead and the grace are those of the snapshot, since
    /// the coordinator set them.
    pub(crate) fn restore(snapshot: Snapshot, limits: Limits, age: Duration, now: Instant) -> Self {
        Self {
            limits: Limits {
                interrupt_lead: snapshot.interrupt_lead,
                stop_grace: snapshot.stop_grace,
                ..limits
            },
            // A clock that began later than the machine did would give it more time, never less.
            begin: now.checked_sub(age).unwrap_or(now),
            state: snapshot.state,
            deadline: snapshot.deadline,
        }
    }
}
