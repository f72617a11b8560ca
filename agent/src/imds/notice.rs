//! What the service says of an interruption, turned into notices.

use jiff::Timestamp;
use muster_proto::v1::InterruptionKind;
use serde::Deserialize;

use super::maintenance;

/// Longest `detail`, in bytes.
const DETAIL_MAX: usize = 256;
/// Longest name that is taken from the service, such as an event's id.
const NAME_MAX: usize = 64;
/// How much of a body that is not understood is shown.
const EXCERPT_MAX: usize = 120;

/// Somebody takes this instance away, or means to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) kind: InterruptionKind,
    /// When, if it is known. Maintenance may be weeks away.
    pub(crate) deadline: Option<Timestamp>,
    /// The notice in the words of its source, on one line of at most 256 bytes.
    pub(crate) detail: String,
}

/// A place in the service where notices appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
    Spot,
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html>
    Rebalance,
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instances-status-check_sched.html>
    Maintenance,
    /// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html>
    Lifecycle,
}

/// A notice, and what makes it the same as one that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) notice: Notice,
}

/// What one body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) found: Vec<Found>,
    /// What was not understood, if anything.
    pub(super) problem: Option<String>,
}

impl Source {
    /// All but Spot.
    pub(super) const OTHERS: [Self; 3] = [Self::Rebalance, Self::Maintenance, Self::Lifecycle];

    /// Below `/latest`.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Spot => "meta-data/spot/instance-action",
            Self::Rebalance => "meta-data/events/recommendations/rebalance",
            Self::Maintenance => "meta-data/events/maintenance/scheduled",
            Self::Lifecycle => "meta-data/autoscaling/target-lifecycle-state",
        }
    }

    /// Reads what was found at [`Self::path`].
    pub(super) fn read(self, body: &[u8]) -> Reading {
        match self {
            Self::Spot => read_spot(body),
            Self::Rebalance => read_rebalance(body),
            Self::Maintenance => maintenance::read(body),
            Self::Lifecycle => read_lifecycle(body),
        }
    }
}

impl Reading {
    pub(super) fn not_understood(why: impl std::fmt::Display, body: &[u8]) -> Self {
        let mut reading = Self::default();
        reading.note(why, body);
        reading
    }

    /// Keeps the first problem only.
    pub(super) fn note(&mut self, why: impl std::fmt::Display, body: &[u8]) {
        self.problem
            .get_or_insert_with(|| format!("{why}: {:?}", excerpt(body)));
    }

    /// Adds a notice of which nothing but its text tells it from others.
    fn push(&mut self, kind: InterruptionKind, deadline: Option<Timestamp>, detail: &str) {
        self.push_as(detail.to_owned(), kind, deadline, detail);
    }

    pub(super) fn push_as(
        &mut self,
        key: String,
        kind: InterruptionKind,
        deadline: Option<Timestamp>,
        detail: &str,
    ) {
        self.found.push(Found {
            key,
            notice: Notice {
                kind,
                deadline,
                detail: one_line(detail, DETAIL_MAX),
            },
        });
    }
}

#[derive(Deserialize)]
struct SpotAction {
    /// "terminate", "stop" or "hibernate"; one that comes later is no less an interruption.
    action: String,
    #[serde(default)]
    time: String,
}

fn read_spot(body: &[u8]) -> Reading {
    let SpotAction { action, time } = match serde_json::from_slice(body) {
        Ok(action) => action,
        Err(error) => return Reading::not_understood(error, body),
    };
    let deadline = time.parse::<Timestamp>().ok();
    let known = matches!(action.as_str(), "terminate" | "stop" | "hibernate");
    let mut reading = Reading::default();
    match deadline {
        Some(time) if is_name(&action) => {
            reading.push(
                InterruptionKind::Spot,
                deadline,
                &format!("{action} at {time}"),
            );
        }
        // It happens, at a time that isn't known.
        None if known => {
            reading.note("no time", body);
            reading.push(InterruptionKind::Spot, None, &action);
        }
        _ => reading.note("no action and time", body),
    }
    reading
}

#[derive(Deserialize)]
struct Rebalance {
    #[serde(rename = "noticeTime")]
    notice_time: Timestamp,
}

fn read_rebalance(body: &[u8]) -> Reading {
    match serde_json::from_slice(body) {
        Ok(Rebalance { notice_time }) => {
            let mut reading = Reading::default();
            // The time is when it was said, not when anything happens.
            let detail = format!("recommended at {notice_time}");
            reading.push(InterruptionKind::Rebalance, None, &detail);
            reading
        }
        Err(error) => Reading::not_understood(error, body),
    }
}

/// The state that Auto Scaling moves the instance to. In three of them, it ends or stops the instance.
fn read_lifecycle(body: &[u8]) -> Reading {
    let mut reading = Reading::default();
    match std::str::from_utf8(body).unwrap_or_default().trim() {
        state @ ("Terminated" | "Warmed:Terminated" | "Warmed:Stopped" | "Warmed:Hibernated") => {
            let detail = format!("target lifecycle state {state}");
            reading.push(InterruptionKind::Lifecycle, None, &detail);
        }
        "InService" | "Standby" | "Detached" | "Warmed:Running" => {}
        _ => reading.note("not a lifecycle state", body),
    }
    reading
}

/// Whether a word from the service can stand in a line as it is.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The start of a body, for a log.
pub(super) fn excerpt(body: &[u8]) -> String {
    let start = &body[..body.len().min(EXCERPT_MAX)];
    one_line(&String::from_utf8_lossy(start), EXCERPT_MAX)
}

/// `text` without control characters, cut to `max` bytes.
fn one_line(text: &str, max: usize) -> String {
    let cut = &text[..text.floor_char_boundary(max)];
    let line = cut.trim().chars();
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::InterruptionKind;
    use rstest::rstest;

    use super::{DETAIL_MAX, Source, one_line};

    #[rstest]
    #[case(
        r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#,
        "terminate at 2017-09-18T08:22:00Z"
    )]
    #[case(
        r#"{"time":"2017-09-18T08:22:00Z","action":"stop","new":1}"#,
        "stop at 2017-09-18T08:22:00Z"
    )]
    #[case(
        r#"{"action":"migrate","time":"2017-09-18T08:22:00Z"}"#,
        "migrate at 2017-09-18T08:22:00Z"
    )]
    fn a_spot_notice_has_an_action_and_a_time(#[case] body: &str, #[case] detail: &str) {
        let reading = Source::Spot.read(body.as_bytes());
        assert_eq!(reading.problem, None);
        let notice = &reading.found[0].notice;
        assert_eq!(notice.kind, InterruptionKind::Spot);
        assert_eq!(notice.deadline.unwrap().to_string(), "2017-09-18T08:22:00Z");
        assert_eq!(notice.detail, detail);
    }

    #[rstest]
    #[case(r#"{"action":"hibernate"}"#)]
    #[case(r#"{"action":"hibernate","time":"soon"}"#)]
    fn a_spot_notice_without_a_good_time_is_still_one(#[case] body: &str) {
        let reading = Source::Spot.read(body.as_bytes());
        assert_eq!(reading.found[0].notice.deadline, None);
        assert!(reading.problem.unwrap().starts_with("no time: "));
    }

    #[test]
    fn a_recommendation_has_no_deadline() {
        let reading = Source::Rebalance.read(br#"{"noticeTime":"2020-11-05T08:22:00Z"}"#);
        let notice = &reading.found[0].notice;
        assert_eq!(notice.kind, InterruptionKind::Rebalance);
        assert_eq!(notice.deadline, None);
        assert_eq!(notice.detail, "recommended at 2020-11-05T08:22:00Z");
    }

    #[rstest]
    #[case("Terminated", true)]
    #[case("Terminated\n", true)]
    #[case("Warmed:Terminated", true)]
    #[case("Warmed:Stopped", true)]
    #[case("Warmed:Hibernated", true)]
    #[case("InService", false)]
    #[case("Standby", false)]
    #[case("Detached", false)]
    #[case("Warmed:Running", false)]
    fn a_lifecycle_state_is_a_notice_if_the_instance_ends(#[case] state: &str, #[case] ends: bool) {
        let reading = Source::Lifecycle.read(state.as_bytes());
        assert_eq!(reading.problem, None);
        assert_eq!(!reading.found.is_empty(), ends);
        for found in reading.found {
            assert_eq!(found.notice.kind, InterruptionKind::Lifecycle);
            assert_eq!(found.notice.deadline, None);
        }
    }

    #[rstest]
    #[case(Source::Spot, "")]
    #[case(Source::Spot, "<html>")]
    #[case(Source::Spot, "[]")]
    #[case(Source::Spot, r#"{"action":"","time":"2017-09-18T08:22:00Z"}"#)]
    #[case(Source::Spot, r#"{"action":"run away","time":"2017-09-18T08:22:00Z"}"#)]
    #[case(Source::Spot, r#"{"action":"migrate"}"#)]
    #[case(Source::Spot, r#"{"action":"terminate","time":7}"#)]
    #[case(Source::Rebalance, r#"{"noticeTime":"now"}"#)]
    #[case(Source::Rebalance, "{}")]
    #[case(Source::Maintenance, "{}")]
    #[case(Source::Lifecycle, "")]
    #[case(Source::Lifecycle, "terminated")]
    fn what_is_not_a_notice_is_a_problem_that_shows_it(#[case] source: Source, #[case] body: &str) {
        let reading = source.read(body.as_bytes());
        assert_eq!(reading.found, []);
        let problem = reading.problem.unwrap();
        assert!(problem.ends_with(&format!("{body:?}")), "{problem}");
    }

    #[test]
    fn a_detail_is_one_line_of_bounded_length() {
        let long = "a\u{fc}\n\u{1b}[2J".repeat(100);
        let line = one_line(&long, DETAIL_MAX);
        assert!(line.len() <= DETAIL_MAX && line.len() > DETAIL_MAX - 4);
        assert!(!line.chars().any(char::is_control));
    }
}
