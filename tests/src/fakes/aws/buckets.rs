//! Request buckets: each call of each account and region has its own.
//!
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Place;

/// How full a bucket is and was.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Tokens in it when full.
    pub largest: f64,
    /// Tokens put in a second.
    pub refill: f64,
    /// Tokens in it after the last request.
    pub level: f64,
    /// The fewest there ever were.
    pub lowest: f64,
    /// How many requests found it empty.
    pub refused: u64,
    seen: Timestamp,
}

/// All buckets by place and call.
#[derive(Default)]
pub(super) struct Buckets(BTreeMap<(Place, String), Bucket>);

/// Size and refill of a call's bucket, if it has one.
fn limits(service: &str, call: &str) -> Option<(f64, f64)> {
    Some(match (service, call) {
        ("ec2", "TerminateInstances") => (100.0, 5.0),
        ("ec2", call) if call.ends_with(" unfiltered") => (50.0, 10.0),
        ("ec2", call) if call.starts_with("Describe") => (100.0, 20.0),
        ("ec2", _) => (50.0, 5.0),
        ("ssm", _) => (40.0, 40.0),
        _ => return None,
    })
}

impl Buckets {
    /// Takes a token. `false` if there is none.
    pub(super) fn take(
        &mut self,
        place: &Place,
        service: &str,
        call: &str,
        now: Timestamp,
    ) -> bool {
        let Some((largest, refill)) = limits(service, call) else {
            return true;
        };
        let bucket = self
            .0
            .entry((place.clone(), call.to_owned()))
            .or_insert(Bucket {
                largest,
                refill,
                level: largest,
                lowest: largest,
                refused: 0,
                seen: now,
            });
        let passed = now.duration_since(bucket.seen).as_secs_f64().max(0.0);
        bucket.seen = now;
        bucket.level = (bucket.level + passed * bucket.refill).min(bucket.largest);
        if bucket.level < 1.0 {
            bucket.refused += 1;
            return false;
        }
        bucket.level -= 1.0;
        bucket.lowest = bucket.lowest.min(bucket.level);
        true
    }

    pub(super) fn get(&self, place: &Place, call: &str) -> Option<Bucket> {
        self.0.get(&(place.clone(), call.to_owned())).cloned()
    }

    /// How many requests found their bucket empty, all in all.
    pub(super) fn refused(&self) -> u64 {
        self.0.values().map(|bucket| bucket.refused).sum()
    }
}
