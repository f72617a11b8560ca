//! What was reported before, so that each notice is reported once and each nuisance logged once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use super::notice::{Notice, Source};

/// Most notices of one source that are reported. The real service has one or two; one that invents
/// them must not flood the coordinator.
const NOTICES_MAX: usize = 64;

/// The notices and nuisances so far.
#[derive(Debug, Default)]
pub(super) struct Reported {
    hasher: RandomState,
    sources: HashMap<Source, Before>,
}

/// What one source brought so far.
#[derive(Debug, Default)]
struct Before {
    /// Hashes of the keys of its notices.
    notices: Vec<u64>,
    misunderstood: bool,
    flooded: bool,
}

impl Reported {
    /// The notices in a body that were not there before.
    pub(super) fn news(&mut self, source: Source, body: &[u8]) -> Vec<Notice> {
        let reading = source.read(body);
        let before = self.sources.entry(source).or_default();
        if let Some(problem) = reading.problem
            && !std::mem::replace(&mut before.misunderstood, true)
        {
            tracing::warn!(path = source.path(), problem, "not understood");
        }
        let mut news = Vec::new();
        for found in reading.found {
            let hash = self.hasher.hash_one(&found.key);
            if before.notices.contains(&hash) {
                continue;
            }
            if before.notices.len() == NOTICES_MAX {
                if !std::mem::replace(&mut before.flooded, true) {
                    tracing::error!(
                        path = source.path(),
                        "too many notices; no more are reported"
                    );
                }
                break;
            }
            before.notices.push(hash);
            news.push(found.notice);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
    use rstest::rstest;

    use super::super::notice::{Notice, Source};
    use super::{NOTICES_MAX, Reported};

    fn spot(minute: u32) -> String {
        format!(r#"{{"action":"terminate","time":"2026-01-01T00:{minute:02}:00Z"}}"#)
    }

    fn event(id: u32, state: &str, second: u32) -> String {
        format!(
            r#"{{"EventId":"e-{id}","Code":"system-reboot","State":"{state}",
                "NotBefore":"21 Jan 2026 09:00:{second:02} GMT"}}"#
        )
    }

    fn news(reported: &mut Reported, source: Source, body: &str) -> Vec<String> {
        let news = reported.news(source, body.as_bytes());
        news.into_iter().map(|notice| notice.detail).collect()
    }

    #[test]
    fn a_spot_notice_is_new_again_when_its_time_changes() {
        let mut reported = Reported::default();
        let mut count = |body: &str| news(&mut reported, Source::Spot, body).len();
        assert_eq!(count(&spot(1)), 1);
        assert_eq!(count(&spot(1)), 0);
        assert_eq!(count(&format!(" {} ", spot(1))), 0, "written otherwise");
        assert_eq!(count(&spot(2)), 1);
        assert_eq!(count(&spot(1)), 0);
    }

    #[test]
    fn maintenance_is_told_apart_by_its_id_alone() {
        let mut reported = Reported::default();
        let mut count = |events: &[String]| {
            let body = format!("[{}]", events.join(","));
            news(&mut reported, Source::Maintenance, &body).len()
        };
        assert_eq!(count(&[event(1, "canceled", 0)]), 0);
        assert_eq!(count(&[event(1, "active", 0), event(1, "active", 0)]), 1);
        assert_eq!(count(&[event(2, "active", 0), event(1, "active", 5)]), 1);
        assert_eq!(count(&[event(2, "completed", 0), event(1, "active", 0)]), 0);
    }

    #[test]
    fn sources_do_not_hide_each_other() {
        let mut reported = Reported::default();
        assert_eq!(
            news(&mut reported, Source::Lifecycle, "Terminated").len(),
            1
        );
        assert_eq!(news(&mut reported, Source::Lifecycle, "InService").len(), 0);
        assert_eq!(
            news(&mut reported, Source::Lifecycle, "Terminated").len(),
            0
        );
        let rebalance = r#"{"noticeTime":"2020-11-05T08:22:00Z"}"#;
        assert_eq!(news(&mut reported, Source::Rebalance, rebalance).len(), 1);
        assert_eq!(news(&mut reported, Source::Rebalance, rebalance).len(), 0);
    }

    #[rstest]
    #[case(Source::Spot)]
    #[case(Source::Maintenance)]
    fn a_service_that_invents_notices_is_cut_short(#[case] source: Source) {
        let mut reported = Reported::default();
        let mut count = 0;
        for n in 0..200 {
            let body = match source {
                Source::Spot => format!(r#"{{"action":"a{n}","time":"2026-01-01T00:00:00Z"}}"#),
                _ => format!(
                    "[{},{}]",
                    event(2 * n, "active", 0),
                    event(2 * n + 1, "active", 0)
                ),
            };
            count += news(&mut reported, source, &body).len();
        }
        assert_eq!(count, NOTICES_MAX);
        assert_eq!(
            news(&mut reported, Source::Lifecycle, "Terminated").len(),
            1
        );
    }

    fn any_source() -> impl Strategy<Value = Source> {
        prop_oneof![
            Just(Source::Spot),
            Just(Source::Rebalance),
            Just(Source::Maintenance),
            Just(Source::Lifecycle)
        ]
    }

    /// From real bodies, by way of damaged ones, to any bytes.
    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        let real = prop_oneof![
            (0_u32..4).prop_map(spot),
            (0_u32..4, 0_u32..2).prop_map(|(id, second)| {
                format!(
                    "[{},{}]",
                    event(id, "active", second),
                    event(id + 1, "active", 0)
                )
            }),
            Just(r#"{"noticeTime":"2020-11-05T08:22:00Z"}"#.to_owned()),
            Just("Terminated".to_owned()),
            Just("Warmed:Stopped".to_owned()),
        ]
        .prop_map(String::into_bytes);
        let damaged = (real.clone(), any::<(usize, u8)>()).prop_map(|(mut body, (at, byte))| {
            let at = at % body.len();
            body[at] = byte;
            body
        });
        prop_oneof![4 => real, 2 => damaged, 1 => any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_are_reported_twice(
            bodies in proptest::collection::vec((any_source(), any_body()), 0..40)
        ) {
            let mut reported = Reported::default();
            let mut all: HashSet<(Source, String)> = HashSet::new();
            for (source, body) in bodies {
                for Notice { detail, .. } in reported.news(source, &body) {
                    prop_assert!(detail.len() <= 256, "{detail}");
                    prop_assert!(all.insert((source, detail.clone())), "twice: {detail}");
                }
                prop_assert!(reported.news(source, &body).is_empty(), "again: {body:?}");
            }
        }
    }
}
