//! What a swarm is to do.

use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What a swarm is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Agents that wait for jobs: the idle runners of all pools.
    pub agents: u32,
    /// Agents that enrol at a time. On a few cores more of them measure themselves: real hosts boot over tens
    /// of seconds, and have their own processors.
    pub enrolling: usize,
    /// What habits, waits and samples are drawn from. Scheduling, ports and keys are the machine's, so
    /// that a seed makes a like swarm, not the same.
    pub seed: u64,
    /// Time between two heartbeats of an agent.
    pub heartbeat: Duration,
    /// How long agents hold their streams and have their habits before anything else is done.
    pub steady: Duration,
    /// How often all agents drop their connections at once, and come back at once.
    pub storms: u32,
    /// How often the coordinator is killed with `SIGKILL` and started again.
    pub kills: u32,
    /// Jobs that are queued before the first kill and are ended after the last; at most as many as the
    /// first pool has runners.
    pub jobs: u32,
    /// How long jobs last at most; none is until all are ended at once.
    pub job_lasts: Option<Duration>,
    /// How many of the agents have which habit.
    pub habits: Habits,
    /// How long agents' certificates live; they are renewed at a quarter of it.
    pub certificate_ttl: Duration,
    /// How long anything may take that is waited for.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            agents: 100,
            enrolling: 100,
            seed: 1,
            heartbeat: Duration::from_secs(5),
            steady: Duration::from_secs(30),
            storms: 1,
            kills: 1,
            jobs: 0,
            job_lasts: None,
            habits: Habits::default(),
            certificate_ttl: Duration::from_hours(1),
            patience: Duration::from_mins(15),
        }
    }
}

/// What an agent does beside its work, while the season is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Steady,
    /// Stops reading for some heartbeats, and goes on talking.
    Stalls,
    /// Its connection is reset without a word; it comes back by its rules.
    Vanishes,
    /// Its connection stays open and carries nothing any more; it opens another.
    HalfOpen,
    /// Closes its stream and comes back at once, several times in a row.
    Storms,
}

/// How the habits are spread over the agents: shares of their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Of [`Habit::Steady`].
    pub steady: u32,
    /// Of [`Habit::Stalls`].
    pub stalls: u32,
    /// Of [`Habit::Vanishes`].
    pub vanishes: u32,
    /// Of [`Habit::HalfOpen`].
    pub half_open: u32,
    /// Of [`Habit::Storms`].
    pub storms: u32,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            steady: 80,
            stalls: 5,
            vanishes: 5,
            half_open: 5,
            storms: 5,
        }
    }
}

/// A text names no habits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected weights such as steady=80,stalls=5,vanishes=5,half-open=5,storms=5, with a sum above 0"
)]
pub struct NotHabits;

impl FromStr for Habits {
    type Err = NotHabits;

    /// Reads weights by name; those that are not named are 0.
    fn from_str(text: &str) -> Result<Self, NotHabits> {
        let mut habits = Self {
            steady: 0,
            stalls: 0,
            vanishes: 0,
            half_open: 0,
            storms: 0,
        };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or(NotHabits)?;
            let place = match name {
                "steady" => &mut habits.steady,
                "stalls" => &mut habits.stalls,
                "vanishes" => &mut habits.vanishes,
                "half-open" => &mut habits.half_open,
                "storms" => &mut habits.storms,
                _ => return Err(NotHabits),
            };
            *place = weight.parse().map_err(|_| NotHabits)?;
        }
        if habits.weights().iter().all(|(weight, _)| *weight == 0) {
            return Err(NotHabits);
        }
        Ok(habits)
    }
}

impl Habits {
    fn weights(&self) -> [(u32, Habit); 5] {
        [
            (self.steady, Habit::Steady),
            (self.stalls, Habit::Stalls),
            (self.vanishes, Habit::Vanishes),
            (self.half_open, Habit::HalfOpen),
            (self.storms, Habit::Storms),
        ]
    }

    /// Draws one.
    pub(super) fn draw(&self, random: &mut StdRng) -> Habit {
        let weights = self.weights();
        let sum: u64 = weights.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut at = random.random_range(0..sum.max(1));
        for (weight, habit) in weights {
            let weight = u64::from(weight);
            if at < weight {
                return habit;
            }
            at -= weight;
        }
        Habit::Steady
    }
}

/// What the agent of this number draws from.
pub(super) fn random_of(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number)
}

/// A random time from nothing to `ceiling`.
pub(super) fn up_to(random: &mut StdRng, ceiling: Duration) -> Duration {
    random.random_range(Duration::ZERO..=ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_by_name_and_what_is_not_named_is_none() {
        let habits: Habits = "vanishes=3,half-open=1".parse().unwrap();
        assert_eq!(
            (habits.steady, habits.vanishes, habits.half_open),
            (0, 3, 1)
        );
        for wrong in [
            "",
            "steady",
            "steady=x",
            "sleepy=1",
            "steady=0",
            "steady=-1",
        ] {
            assert_eq!(wrong.parse::<Habits>(), Err(NotHabits), "{wrong}");
        }
    }

    #[test]
    fn habits_are_drawn_by_their_weights() {
        let habits: Habits = "stalls=1,vanishes=3".parse().unwrap();
        let mut random = random_of(1, 1);
        let drawn: Vec<Habit> = (0..4_000).map(|_| habits.draw(&mut random)).collect();
        let vanish = drawn
            .iter()
            .filter(|habit| **habit == Habit::Vanishes)
            .count();
        assert!(
            drawn
                .iter()
                .all(|habit| matches!(habit, Habit::Stalls | Habit::Vanishes))
        );
        assert!((2_800..3_200).contains(&vanish), "{vanish}");
    }
}
