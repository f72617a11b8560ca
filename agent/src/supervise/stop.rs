//! A runner that was told to stop: told again, then killed, then no longer waited for.

use serde::{Deserialize, Serialize};

use super::alive::Time;
use super::messages::Action;
use super::outcome::Cause;
use super::watchdog::Limits;

/// The runner was told to stop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) cause: Cause,
    /// When to tell it again.
    repeat_at: Time,
    /// When to kill it, and then again.
    kill_at: Time,
    /// When to stop waiting for its end.
    give_up_at: Time,
}

impl Stop {
    /// Told at `now`.
    pub(super) fn new(cause: Cause, now: Time, limits: &Limits) -> Self {
        let grace = if cause.is_hang() {
            limits.hang_grace
        } else {
            limits.stop_grace
        };
        Self {
            cause,
            repeat_at: now + limits.repeat_interrupt,
            kill_at: now + grace,
            give_up_at: now + grace + limits.give_up,
        }
    }

    /// When to call [`Stop::press`] at the latest.
    pub(super) fn next(&self) -> Time {
        self.repeat_at.min(self.kill_at).min(self.give_up_at)
    }

    /// Repeats the signal, or kills. True once the runner's end is no longer waited for.
    pub(super) fn press(&mut self, now: Time, limits: &Limits, actions: &mut Vec<Action>) -> bool {
        if now >= self.give_up_at {
            actions.push(Action::Kill);
            return true;
        }
        if now >= self.kill_at {
            self.kill_at = now + limits.repeat_interrupt;
            self.repeat_at = self.give_up_at;
            actions.push(Action::Kill);
        } else if now >= self.repeat_at {
            self.repeat_at = now + limits.repeat_interrupt;
            actions.push(Action::Interrupt);
        }
        false
    }
}
