//! Times between our types and the protocol's.

use std::time::Duration;

use jiff::Timestamp;

/// A time as the protocol has it.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A time of the protocol, if it is one.
pub(crate) fn time(timestamp: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(timestamp.seconds, timestamp.nanos).ok()
}

/// A span of the protocol within bounds. None if it is unset, negative or nothing.
pub(crate) fn span(
    value: Option<&prost_types::Duration>,
    least: Duration,
    most: Duration,
) -> Option<Duration> {
    let span = Duration::try_from(*value?).ok().filter(|d| !d.is_zero())?;
    Some(span.clamp(least, most))
}

/// How long from `now` until `time`; nothing if it is past.
pub(crate) fn until(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{span, time, timestamp, until};

    #[test]
    fn odd_values_are_survivable() {
        let second = Duration::from_secs(1);
        let nanos = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(span(None, second, second), None);
        assert_eq!(span(nanos(-1, 0).as_ref(), second, second), None);
        assert_eq!(span(nanos(0, 0).as_ref(), second, second), None);
        assert_eq!(span(nanos(0, 5).as_ref(), second, second), Some(second));
        let far = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert_eq!(time(&far), None);
        let now = jiff::Timestamp::now();
        assert_eq!(time(&timestamp(now)), Some(now));
        let second = Duration::from_secs(1);
        assert_eq!(until(now - second, now), Duration::ZERO);
        assert_eq!(until(now + second, now), second);
    }
}
