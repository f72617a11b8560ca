//! Rate limits: the hourly budgets and the points a minute.
//!
//! <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

const CORE_AN_HOUR: u64 = 5_000;
const REGISTRATIONS_AN_HOUR: u64 = 10_000;
const POINTS_A_MINUTE: u64 = 900;

/// What each installation has used.
#[derive(Default)]
pub(super) struct Budgets {
    hours: HashMap<(u64, Bucket), Hour>,
    minutes: HashMap<(u64, String), VecDeque<(Timestamp, u64)>>,
}

/// A budget that a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    Core,
    Registration,
}

struct Hour {
    reset: Timestamp,
    used: u64,
}

/// Where a budget stands after a call.
pub(super) struct Standing {
    pub(super) bucket: Bucket,
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) reset: Timestamp,
}

/// Whether a call goes through.
pub(super) enum Verdict {
    Pass(Standing),
    /// The hourly budget is used up.
    Exhausted(Standing),
    /// Too many points in a minute for one endpoint.
    Secondary {
        retry_after_secs: i64,
    },
}

impl Bucket {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Registration => "actions_runner_registration",
        }
    }

    /// The budget of a call, by its template.
    pub(super) fn of(template: &str) -> Self {
        if template.ends_with("/generate-jitconfig") {
            Self::Registration
        } else {
            Self::Core
        }
    }

    fn limit(self) -> u64 {
        match self {
            Self::Core => CORE_AN_HOUR,
            Self::Registration => REGISTRATIONS_AN_HOUR,
        }
    }
}

impl Budgets {
    /// Where a budget stands, without counting.
    pub(super) fn standing(
        &mut self,
        installation: u64,
        bucket: Bucket,
        now: Timestamp,
    ) -> Standing {
        let hour = self.hour(installation, bucket, now);
        Standing {
            bucket,
            limit: bucket.limit(),
            used: hour.used,
            reset: hour.reset,
        }
    }

    /// Counts one call.
    pub(super) fn spend(
        &mut self,
        installation: u64,
        method: &str,
        template: &str,
        now: Timestamp,
    ) -> Verdict {
        let bucket = Bucket::of(template);
        let hour = self.hour(installation, bucket, now);
        if hour.used >= bucket.limit() {
            return Verdict::Exhausted(self.standing(installation, bucket, now));
        }
        hour.used += 1;
        let minute = self
            .minutes
            .entry((installation, template.to_owned()))
            .or_default();
        while minute
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= SignedDuration::from_mins(1))
        {
            minute.pop_front();
        }
        let points = if method == "GET" { 1 } else { 5 };
        let spent: u64 = minute.iter().map(|(_, points)| points).sum();
        if spent + points > POINTS_A_MINUTE {
            let oldest = minute.front().map_or(now, |(at, _)| *at);
            let wait = 60 - now.duration_since(oldest).as_secs();
            return Verdict::Secondary {
                retry_after_secs: wait.max(1),
            };
        }
        minute.push_back((now, points));
        Verdict::Pass(self.standing(installation, bucket, now))
    }

    /// Takes back what a call counted against its hour: an unchanged answer is free
    /// (<https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>).
    pub(super) fn give_back(
        &mut self,
        installation: u64,
        spent: &Standing,
        now: Timestamp,
    ) -> Standing {
        let hour = self.hour(installation, spent.bucket, now);
        hour.used = hour.used.saturating_sub(1);
        self.standing(installation, spent.bucket, now)
    }

    fn hour(&mut self, installation: u64, bucket: Bucket, now: Timestamp) -> &mut Hour {
        let reset = super::moves::after(now, std::time::Duration::from_hours(1));
        let hour = self
            .hours
            .entry((installation, bucket))
            .or_insert(Hour { reset, used: 0 });
        if hour.reset <= now {
            *hour = Hour { reset, used: 0 };
        }
        hour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_answer_is_free() {
        let mut budgets = Budgets::default();
        let now = Timestamp::UNIX_EPOCH;
        let Verdict::Pass(spent) = budgets.spend(1, "GET", "/repos", now) else {
            panic!("the budget is new");
        };
        assert_eq!((spent.used, budgets.give_back(1, &spent, now).used), (1, 0));
    }

    #[test]
    fn a_minute_admits_180_jit_configs() {
        let mut budgets = Budgets::default();
        let template = "/orgs/{org}/actions/runners/generate-jitconfig";
        let now = Timestamp::UNIX_EPOCH;
        for _ in 0..180 {
            assert!(matches!(
                budgets.spend(1, "POST", template, now),
                Verdict::Pass(_)
            ));
        }
        assert!(matches!(
            budgets.spend(1, "POST", template, now),
            Verdict::Secondary {
                retry_after_secs: 60
            }
        ));
        let later = now + SignedDuration::from_mins(1);
        assert!(matches!(
            budgets.spend(1, "POST", template, later),
            Verdict::Pass(_)
        ));
    }
}
