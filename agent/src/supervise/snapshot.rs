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
    /// How long after the machine's beginning it was taken.
    age: Time,
    state: State,
    deadline: Option<Time>,
    interrupt_lead: Duration,
    stop_grace: Duration,
}

impl Machine {
    /// All that it knows at `now`.
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            age: self.time(now),
            state: self.state.clone(),
            deadline: self.deadline,
            interrupt_lead: self.limits.interrupt_lead,
            stop_grace: self.limits.stop_grace,
        }
    }

    /// The machine again. `taken` is when the snapshot was: the time since then counts. The lead and the
    /// grace are those of the snapshot, since the coordinator set them.
    pub(crate) fn restore(snapshot: Snapshot, limits: Limits, taken: Instant) -> Self {
        Self {
            limits: Limits {
                interrupt_lead: snapshot.interrupt_lead,
                stop_grace: snapshot.stop_grace,
                ..limits
            },
            // A clock that began later than the machine did would give it more time, never less.
            begin: taken.checked_sub(snapshot.age).unwrap_or(taken),
            state: snapshot.state,
            deadline: snapshot.deadline,
        }
    }
}
