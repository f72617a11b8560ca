//! A pool's second image, its canary: it takes a share of the launches until it fails more often than the
//! pool's own.
//!
//! The share is counted, not drawn: of 100 launches exactly so many take the canary. What counts as a failure is the
//! image's doing, or can be: that a host never enrols, that its runner never listens, that the host is lost without
//! a notice. How a job ends says nothing of the image.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Outcome;
use crate::ids::ImageId;
use crate::rerun::Cause;
use crate::runner::{Runner, Work};

/// What makes one launch, in the unit that shares are given in.
const WHOLE: u32 = 100;

/// How much a pool trusts its canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryRules {
    /// Launches of 100 that take the canary: at most 50, so that one that fails is followed by one that takes the
    /// pool's own image.
    pub share: u32,
    /// Launches of the canary of which something is known before it is judged.
    pub least: u32,
    /// Failures of 100 launches by which it may exceed the pool's own image.
    pub margin: u32,
}

/// How a canary does beside its pool's own image. Stored with the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The canary.
    pub image: ImageId,
    /// The pool's own image; none if the launch template has it.
    pub own_image: Option<ImageId>,
    /// Hundredths of a launch that the canary has coming.
    pub owed: u32,
    /// Launches of the canary.
    pub canary: Tally,
    /// Those of the pool's own image.
    pub own: Tally,
    /// Set once it takes no launch any more.
    pub stopped: Option<Stopped>,
}

/// What became of the launches of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Which of the pool's tallies it is: launches count in the one that they were decided under.
    pub number: u32,
    /// Launches that were decided.
    pub launches: u32,
    /// Of these, those whose runner listened, and that did not fail since.
    pub good: u32,
    /// Of these, those that failed.
    pub failed: u32,
}

/// The end of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A launch's part in a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trialed {
    /// Whether it took the canary.
    pub canary: bool,
    /// The tally that it counts in.
    pub tally: u32,
    /// What it has said of its image so far.
    pub sign: Option<Sign>,
}

/// What a launch says of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// Its runner listened.
    Good,
    /// It failed, perhaps after its runner had listened.
    Failed,
}

impl Tally {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// Launches of which something is known.
    #[must_use]
    pub fn known(self) -> u32 {
        self.good.saturating_add(self.failed)
    }

    fn of(&mut self, sign: Sign) -> &mut u32 {
        match sign {
            Sign::Good => &mut self.good,
            Sign::Failed => &mut self.failed,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.failed, self.known())
    }
}

impl Trial {
    /// A trial whose tallies have the numbers after this one.
    pub(crate) fn new(image: ImageId, own_image: Option<ImageId>, after: u32) -> Self {
        Self {
            image,
            own_image,
            owed: 0,
            canary: Tally::new(after.wrapping_add(1)),
            own: Tally::new(after.wrapping_add(2)),
            stopped: None,
        }
    }

    /// Counts a launch, and says which part it has.
    pub(crate) fn take(&mut self, rules: CanaryRules) -> Trialed {
        let canary = self.stopped.is_none() && {
            self.owed = self.owed.saturating_add(rules.share);
            self.owed >= WHOLE
        };
        if canary {
            self.owed -= WHOLE;
        }
        let tally = self.tally(canary);
        tally.launches = tally.launches.saturating_add(1);
        Trialed {
            canary,
            tally: tally.number,
            sign: None,
        }
    }

    /// Counts what a launch says of its image, in place of what it said before.
    pub(crate) fn note(&mut self, part: &Trialed, sign: Sign) {
        let tally = self.tally(part.canary);
        if tally.number != part.tally {
            return;
        }
        if let Some(before) = part.sign {
            let count = tally.of(before);
            *count = count.saturating_sub(1);
        }
        let count = tally.of(sign);
        *count = count.saturating_add(1);
    }

    /// Why the canary is to be stopped, if it is.
    pub(crate) fn verdict(&self, rules: CanaryRules) -> Option<String> {
        let (canary, own) = (self.canary, self.own);
        if self.stopped.is_some() || canary.known() < rules.least.max(1) {
            return None;
        }
        // What fails on both, as after an outage, must not count against the canary alone; but one of which nothing
        // ever works needs no measure.
        if canary.good > 0 && own.known() < rules.least {
            return None;
        }
        let (known, own_known) = (u64::from(canary.known()), u64::from(own.known().max(1)));
        // Both rates over the same denominator.
        let failed = u64::from(canary.failed) * own_known * u64::from(WHOLE);
        let own_failed = u64::from(own.failed) * known * u64::from(WHOLE);
        let margin = u64::from(rules.margin) * known * own_known;
        (failed > own_failed + margin).then(|| {
            format!(
                "{canary} launches of {} failed, and {own} of the pool's own image: more than {} in 100 more",
                self.image, rules.margin
            )
        })
    }

    fn tally(&mut self, canary: bool) -> &mut Tally {
        if canary {
            &mut self.canary
        } else {
            &mut self.own
        }
    }
}

impl Runner {
    /// What it says of its image by now.
    pub(crate) fn sign(&self) -> Option<Sign> {
        let outcome = match &self.work {
            Work::Idle | Work::Busy => return Some(Sign::Good),
            Work::Over { outcome, .. } => (*outcome)?,
            Work::Booting | Work::Enrolled | Work::Assigning | Work::Starting | Work::Found => {
                return None;
            }
        };
        // What is announced, and what was never launched, is not the image's doing.
        if self.notice.is_some() || self.marks.launched_at.is_none() {
            return None;
        }
        // Between its enrolment and its registration it waits for GitHub.
        let waited = self.marks.enrolled_at.is_some() && self.marks.registered_at.is_none();
        let failed = match outcome {
            Outcome::StartFailed => !waited,
            Outcome::Lost if self.marks.busy_at.is_some() => matches!(
                self.cut_short,
                Some(Cause::InstanceGone | Cause::AgentSilent)
            ),
            Outcome::VersionRefused | Outcome::StaleVersion | Outcome::Lost => true,
            Outcome::Succeeded
            | Outcome::Failed
            | Outcome::Canceled
            | Outcome::Interrupted
            | Outcome::Abandoned
            | Outcome::Unused
            | Outcome::Conflict => false,
        };
        failed.then_some(Sign::Failed)
    }

    /// Whether it was launched from its pool's canary.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.trialed.as_ref().is_some_and(|part| part.canary)
    }
}

#[cfg(test)]
mod tests;
