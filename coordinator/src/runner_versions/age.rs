//! Versions, releases, and how long a version has not been the newest. Pure.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

const DAY: f64 = 86_400.0;
/// From this age on somebody is warned.
const WARN: f64 = 20.0;
/// From this age on the alarm goes off, which looks at the metric (`deploy/cloudformation/pool-alarms.yaml`).
const ALARM: f64 = 25.0;

/// The version of a runner, such as 2.336.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunnerVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl RunnerVersion {
    /// Reads `2.336.0` or `v2.336.0`; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut number = || {
            let digits = parts.next()?;
            let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits_only.then(|| digits.parse().ok()).flatten()
        };
        let version = Self {
            major: number()?,
            minor: number()?,
            patch: number()?,
        };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for RunnerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A release of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: RunnerVersion,
    /// When it was published.
    pub published_at: Timestamp,
}

/// How long there has been a newer runner than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The newest runner.
    pub newest: RunnerVersion,
    /// How long the first newer one has been out; zero if there is none.
    pub behind: Duration,
    /// Whether it may be longer: all releases that are known are newer.
    pub at_least: bool,
}

impl Age {
    /// The age of a version at a time; none if no release is known.
    #[must_use]
    pub fn of(version: RunnerVersion, releases: &[Release], now: Timestamp) -> Option<Self> {
        let newest = releases.iter().map(|release| release.version).max()?;
        let newer = releases.iter().filter(|release| release.version > version);
        // By its date and not by its number: an old line may get a release, too.
        let first = newer.clone().map(|release| release.published_at).min();
        let behind = first.map(|first| now.duration_since(first));
        Some(Self {
            newest,
            behind: Duration::try_from(behind.unwrap_or_default()).unwrap_or_default(),
            at_least: newer.count() == releases.len(),
        })
    }

    /// In days.
    #[must_use]
    pub fn days(self) -> f64 {
        self.behind.as_secs_f64() / DAY
    }

    /// Whether somebody must act.
    #[must_use]
    pub fn is_warning(self) -> bool {
        self.days() >= WARN
    }

    /// Whether there is little time left for that.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        self.days() >= ALARM
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn version(text: &str) -> RunnerVersion {
        RunnerVersion::parse(text).unwrap()
    }

    /// A day of November or December 2026.
    fn day(day: i64) -> Timestamp {
        let first: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        first + jiff::SignedDuration::from_hours(24 * (day - 1))
    }

    fn releases() -> Vec<Release> {
        [("2.337.1", 20), ("2.337.0", 10), ("2.336.0", 1)]
            .map(|(text, at)| Release {
                version: version(text),
                published_at: day(at),
            })
            .into()
    }

    #[rstest]
    #[case::newest("2.337.1", 0.0, false)]
    #[case::newer_than_all("2.338.0", 0.0, false)]
    #[case::one_behind("2.337.0", 10.5, false)]
    #[case::the_first_newer_one_counts("2.336.0", 20.5, false)]
    #[case::older_than_all_that_is_known("2.330.0", 29.5, true)]
    #[case::between("2.336.5", 20.5, false)]
    fn the_age_is_that_of_the_first_newer_release(
        #[case] baked: &str,
        #[case] days: f64,
        #[case] at_least: bool,
    ) {
        let now = day(30) + jiff::SignedDuration::from_hours(12);
        let age = Age::of(version(baked), &releases(), now).unwrap();
        assert!((age.days() - days).abs() < 1e-9, "{age:?}");
        assert_eq!((age.at_least, age.newest), (at_least, version("2.337.1")));
    }

    #[rstest]
    #[case(29, false, false)]
    #[case(30, true, false)]
    #[case(34, true, false)]
    #[case(35, true, true)]
    fn it_warns_from_the_twentieth_day_and_alarms_from_the_twenty_fifth(
        #[case] today: i64,
        #[case] warning: bool,
        #[case] alarm: bool,
    ) {
        // A newer one since the tenth.
        let age = Age::of(version("2.336.0"), &releases(), day(today)).unwrap();
        assert_eq!((age.is_warning(), age.is_alarm()), (warning, alarm));
    }

    #[test]
    fn nothing_is_known_without_releases_and_a_clock_behind_gives_no_age_below_zero() {
        assert_eq!(Age::of(version("2.336.0"), &[], day(1)), None);
        let age = Age::of(version("2.336.0"), &releases(), day(1)).unwrap();
        assert_eq!(age.behind, Duration::ZERO);
    }

    #[rstest]
    #[case("2.336.0", Some("2.336.0"))]
    #[case("v2.9.10", Some("2.9.10"))]
    #[case("2.336", None)]
    #[case("2.336.0.1", None)]
    #[case("2.336.0-beta", None)]
    #[case("2.+3.0", None)]
    #[case("vv2.3.0", None)]
    #[case("", None)]
    #[case("99999999999.0.0", None)]
    fn versions_are_read(#[case] text: &str, #[case] read: Option<&str>) {
        let parsed = RunnerVersion::parse(text).map(|version| version.to_string());
        assert_eq!(parsed.as_deref(), read);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version("2.10.0") > version("2.9.9"));
    }
}
