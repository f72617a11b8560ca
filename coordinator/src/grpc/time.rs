//! Times and durations of the wire.

use std::time::Duration;

use jiff::Timestamp;

/// A time as the wire has it.
pub(crate) fn to_wire(at: Timestamp) -> prost_types::Timestamp {
    // jiff's parts have the sign of the whole; protobuf's nanoseconds count forward.
    let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// A time from the wire; none if it is out of range.
pub(crate) fn from_wire(at: &prost_types::Timestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&at.nanos) {
        return None;
    }
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// A duration as the wire has it.
pub(super) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// From `now` to `then`; zero if that has passed.
pub(super) fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_the_wire(
            seconds in -60_000_000_000_i64..200_000_000_000,
            nanos in 0..1_000_000_000,
        ) {
            let at = Timestamp::new(seconds, nanos).unwrap();
            let wire = to_wire(at);
            prop_assert!((0..1_000_000_000).contains(&wire.nanos));
            prop_assert_eq!(from_wire(&wire), Some(at));
        }
    }

    #[rstest]
    #[case(i64::MAX, 0)]
    #[case(i64::MIN, 0)]
    #[case(0, -1)]
    #[case(0, 1_000_000_000)]
    fn a_time_out_of_range_is_none(#[case] seconds: i64, #[case] nanos: i32) {
        assert_eq!(from_wire(&prost_types::Timestamp { seconds, nanos }), None);
    }

    #[test]
    fn a_time_that_has_passed_is_no_wait() {
        let now = Timestamp::from_second(100).unwrap();
        let then = Timestamp::from_second(70).unwrap();
        assert_eq!(until(then, now), Duration::ZERO);
        assert_eq!(until(now, then), Duration::from_secs(30));
    }
}
