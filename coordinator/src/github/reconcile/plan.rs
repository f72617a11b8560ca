//! Which deliveries are asked for again, and when. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::github::deliveries::Attempt;

/// How often a delivery is asked for that we refused: it is what it is.
const MAX_ASKS: u32 = 5;

/// Wait after the first time; it doubles with each.
const FIRST_GAP: Duration = Duration::from_secs(60);

/// The longest wait: what has not arrived may do so once an outage is over, however long that lasts.
const LONGEST_GAP: Duration = Duration::from_secs(30 * 60);

/// Deliveries that are asked for in one round. GitHub counts such a call as 5 of 900 points a minute.
const PER_ROUND: usize = 100;

/// Deliveries that are remembered; beyond, the longest unasked are forgotten.
const MAX_REMEMBERED: usize = 20_000;

/// What was asked for already.
#[derive(Debug, Default)]
pub(super) struct Memory {
    asked: HashMap<String, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    times: u32,
    last: Timestamp,
}

/// What to do about some deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Failed deliveries to ask for now, oldest first: guid, and the id of its latest attempt.
    pub(super) ask: Vec<(String, i64)>,
    /// The oldest failed delivery on which something may still be done, now or later.
    pub(super) unsettled_since: Option<Timestamp>,
    /// Deliveries that were refused often enough.
    pub(super) given_up: usize,
}

/// Decides which deliveries to ask for: those of `workflow_job` of which no attempt succeeded, each with growing
/// gaps, and at most five times if it was refused.
pub(super) fn plan(attempts: &[Attempt], memory: &Memory, now: Timestamp) -> Plan {
    let mut deliveries: BTreeMap<&str, Failed> = BTreeMap::new();
    for attempt in attempts.iter().filter(|a| a.event == "workflow_job") {
        let failed = deliveries
            .entry(&attempt.guid)
            .or_insert_with(|| Failed::at(attempt));
        failed.add(attempt);
    }
    let mut failed: Vec<_> = deliveries.into_iter().filter(|(_, d)| !d.arrived).collect();
    failed.sort_by_key(|(guid, delivery)| (delivery.first, *guid));
    let mut plan = Plan::default();
    for (guid, delivery) in failed {
        let asked = memory.asked.get(guid);
        if delivery.refused && asked.is_some_and(|asked| asked.times >= MAX_ASKS) {
            plan.given_up += 1;
            continue;
        }
        plan.unsettled_since.get_or_insert(delivery.first);
        if asked.is_none_or(|asked| asked.again_at() <= now) && plan.ask.len() < PER_ROUND {
            plan.ask.push((guid.to_owned(), delivery.latest));
        }
    }
    plan
}

/// The attempts of one delivery.
struct Failed {
    first: Timestamp,
    last: Timestamp,
    latest: i64,
    arrived: bool,
    /// Whether the latest attempt was answered with 4xx.
    refused: bool,
}

impl Failed {
    fn at(attempt: &Attempt) -> Self {
        Self {
            first: attempt.delivered_at,
            last: attempt.delivered_at,
            latest: attempt.id,
            arrived: false,
            refused: attempt.refused(),
        }
    }

    fn add(&mut self, attempt: &Attempt) {
        self.first = self.first.min(attempt.delivered_at);
        if attempt.delivered_at > self.last {
            self.last = attempt.delivered_at;
            self.latest = attempt.id;
            self.refused = attempt.refused();
        }
        self.arrived |= attempt.succeeded();
    }
}

impl Asked {
    fn again_at(&self) -> Timestamp {
        let gap = FIRST_GAP * 2_u32.saturating_pow(self.times.saturating_sub(1));
        let again = self.last.saturating_add(gap.min(LONGEST_GAP));
        again.unwrap_or(Timestamp::MAX)
    }
}

impl Memory {
    /// Remembers that a delivery was asked for.
    pub(super) fn asked(&mut self, guid: String, now: Timestamp) {
        let asked = self.asked.entry(guid).or_insert(Asked {
            times: 0,
            last: now,
        });
        asked.times = asked.times.saturating_add(1);
        asked.last = now;
        if self.asked.len() > MAX_REMEMBERED {
            let mut times: Vec<_> = self.asked.values().map(|asked| asked.last).collect();
            let (_, &mut median, _) = times.select_nth_unstable(MAX_REMEMBERED / 2);
            self.asked.retain(|_, asked| asked.last > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn attempt(id: i64, guid: &str, second: i64, status_code: i64) -> Attempt {
        Attempt {
            id,
            guid: guid.to_owned(),
            delivered_at: at(second),
            event: "workflow_job".to_owned(),
            status_code,
        }
    }

    fn asks(plan: &Plan) -> Vec<i64> {
        plan.ask.iter().map(|(_, id)| *id).collect()
    }

    #[test]
    fn only_deliveries_that_never_arrived_are_asked_for_oldest_first() {
        let mut other = attempt(9, "other", 50, 500);
        other.event = "push".to_owned();
        let attempts = [
            attempt(8, "healed", 80, 202),
            attempt(7, "twice", 70, 0),
            attempt(6, "fine", 60, 200),
            other,
            attempt(5, "twice", 20, 503),
            attempt(4, "healed", 40, 502),
            attempt(3, "once", 30, 504),
        ];
        let plan = plan(&attempts, &Memory::default(), at(100));
        assert_eq!(asks(&plan), [7, 3], "the latest attempt of each");
        assert_eq!(plan.unsettled_since, Some(at(20)));
    }

    #[test]
    fn a_delivery_that_is_refused_is_asked_for_five_times_with_growing_gaps_then_given_up() {
        let attempts = [attempt(1, "odd", 0, 401)];
        let mut memory = Memory::default();
        let mut asked_at = Vec::new();
        for second in 0..5_000 {
            let plan = plan(&attempts, &memory, at(second));
            for (guid, _) in plan.ask {
                asked_at.push(second);
                memory.asked(guid, at(second));
            }
        }
        assert_eq!(asked_at, [0, 60, 180, 420, 900]);
        let plan = plan(&attempts, &memory, at(5_000));
        assert_eq!((plan.given_up, plan.unsettled_since), (1, None));
    }

    #[test]
    fn a_delivery_that_does_not_arrive_is_asked_for_until_an_outage_is_over() {
        let mut attempts = vec![attempt(1, "lost", 0, 400), attempt(2, "lost", 1, 503)];
        let (mut memory, mut asked_at) = (Memory::default(), vec![0]);
        memory.asked("lost".to_owned(), at(0));
        for second in 0..200_000 {
            let plan = plan(&attempts, &memory, at(second));
            assert_eq!(plan.unsettled_since, Some(at(0)));
            for (guid, _) in plan.ask {
                asked_at.push(second);
                memory.asked(guid, at(second));
            }
        }
        let gaps: Vec<_> = asked_at.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(gaps[..7], [60, 120, 240, 480, 960, 1_800, 1_800]);
        assert!(asked_at.last().unwrap() + 1_800 >= 200_000, "still");
        attempts.push(attempt(3, "lost", 200_000, 202));
        assert_eq!(plan(&attempts, &memory, at(999_999)), Plan::default());
    }

    #[test]
    fn a_round_is_bounded_and_the_rest_stays_unsettled() {
        let attempts: Vec<_> = (0..1_000)
            .map(|n| attempt(n, &format!("lost {n}"), n, 500))
            .collect();
        let mut memory = Memory::default();
        let first = plan(&attempts, &memory, at(2_000));
        assert_eq!(asks(&first), (0..100).collect::<Vec<_>>());
        for (guid, _) in first.ask {
            memory.asked(guid, at(2_000));
        }
        let second = plan(&attempts, &memory, at(2_001));
        assert_eq!(asks(&second), (100..200).collect::<Vec<_>>());
        assert_eq!(second.unsettled_since, Some(at(0)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..50_000 {
            memory.asked(n.to_string(), at(n));
        }
        assert!(memory.asked.len() <= MAX_REMEMBERED);
        assert!(memory.asked.contains_key("49999"), "the latest is kept");
    }

    proptest! {
        #[test]
        fn nothing_that_arrived_is_asked_for_and_nothing_lost_is_forgotten(
            list in proptest::collection::vec((0..8_i64, 0..1_000_i64, prop::bool::ANY), 0..40)
        ) {
            let attempts: Vec<_> = list
                .iter()
                .zip(0..)
                .map(|((guid, second, good), id)| {
                    attempt(id, &guid.to_string(), *second, if *good { 200 } else { 500 })
                })
                .collect();
            let plan = plan(&attempts, &Memory::default(), at(2_000));
            for (guid, _, _) in &list {
                let arrived = list.iter().any(|(other, _, good)| other == guid && *good);
                let asked = plan.ask.iter().filter(|(id, _)| *id == guid.to_string()).count();
                prop_assert_eq!(asked, usize::from(!arrived));
            }
        }
    }
}
