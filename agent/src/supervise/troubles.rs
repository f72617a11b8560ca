//! What a runner is in trouble with while it goes on: each kind is said once per streak.
//!
//! Most of it can be forged by the job, so it ends nothing, and there is a bound to how often it is
//! said.

use std::collections::VecDeque;
use std::time::Duration;

use muster_proto::v1::TroubleKind;
use serde::{Deserialize, Serialize};

use super::alive::Time;
use super::messages::Action;

/// How often one kind is said over a runner's life.
const SAID_MAX: u8 = 8;
/// So many cancellations are a storm (<https://github.com/actions/runner/issues/4076> has several a
/// second; a job that is cancelled once hears of it once or twice).
const STORM: usize = 10;
/// In which time they are counted, and after which without one the storm is over.
const STORM_WINDOW: Duration = Duration::from_secs(60);

/// The streaks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Troubles {
    pub(super) connection: Streak,
    pub(super) conflict: Streak,
    pub(super) renewal: Streak,
    storm: Streak,
    setup: Streak,
    /// The latest cancellations, at most [`STORM`] of them.
    cancellations: VecDeque<Time>,
}

/// One kind of trouble.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Streak {
    on: bool,
    said: u8,
}

impl Streak {
    /// It goes on. Says so if it is new.
    pub(super) fn on(&mut self, kind: TroubleKind, detail: String, actions: &mut Vec<Action>) {
        if !self.on && self.said < SAID_MAX {
            self.said += 1;
            actions.push(Action::Trouble { kind, detail });
        }
        self.on = true;
    }

    /// It is over.
    pub(super) fn over(&mut self) {
        self.on = false;
    }
}

impl Troubles {
    /// GitHub cancelled the job, perhaps not for the first time.
    pub(super) fn cancelled(&mut self, now: Time, actions: &mut Vec<Action>) {
        let old = |at: &Time| now.saturating_sub(*at) >= STORM_WINDOW;
        if self.cancellations.back().is_none_or(old) {
            self.storm.over();
        }
        while self.cancellations.front().is_some_and(old) || self.cancellations.len() >= STORM {
            self.cancellations.pop_front();
        }
        self.cancellations.push_back(now);
        if self.cancellations.len() >= STORM {
            let detail = format!(
                "GitHub cancelled the job {STORM} times within {} s",
                STORM_WINDOW.as_secs()
            );
            self.storm
                .on(TroubleKind::CancellationStorm, detail, actions);
        }
    }

    /// Whether a slow set-up is still to be said.
    pub(super) fn setup_unsaid(&self) -> bool {
        !self.setup.on
    }

    /// The set-up takes longer than `limit`.
    pub(super) fn slow_setup(&mut self, limit: Duration, actions: &mut Vec<Action>) {
        let detail = format!(
            "the job's setup takes longer than {} min; it downloads its actions then",
            limit.as_secs().div_ceil(60)
        );
        self.setup.on(TroubleKind::SlowSetup, detail, actions);
    }
}
