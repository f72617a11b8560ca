//! Scheduled maintenance: a list of events, most of them history.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::Offset;
use muster_proto::v1::InterruptionKind;
use serde::Deserialize;
use serde_json::Value;

use super::notice::{Reading, is_name};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_id: String,
    /// Such as "system-reboot" or "instance-retirement".
    code: String,
    /// "active", "completed" or "canceled".
    state: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    not_before: String,
}

/// Reads the list. A bad event doesn't hide a good one.
pub(super) fn read(body: &[u8]) -> Reading {
    let events: Vec<Value> = match serde_json::from_slice(body) {
        Ok(events) => events,
        Err(error) => return Reading::not_understood(error, body),
    };
    let mut reading = Reading::default();
    for event in events {
        match Event::deserialize(&event) {
            Ok(event) if !is_name(&event.event_id) => reading.note("no usable EventId", body),
            Ok(event) if !event.state.eq_ignore_ascii_case("active") => {}
            Ok(event) => push(event, body, &mut reading),
            Err(error) => reading.note(error, body),
        }
    }
    reading
}

fn push(event: Event, body: &[u8], reading: &mut Reading) {
    let deadline = parse_time(&event.not_before);
    if deadline.is_none() {
        reading.note("no usable NotBefore", body);
    }
    let Event {
        event_id,
        code,
        description,
        not_before,
        ..
    } = event;
    // The id first: it tells two events apart however long the rest is.
    let detail = format!("{event_id}: {code} from {not_before}: {description}");
    reading.push_as(event_id, InterruptionKind::Maintenance, deadline, &detail);
}

/// A time such as `21 Jan 2019 09:00:43 GMT`, which this list has in place of RFC 3339. That is read too.
fn parse_time(text: &str) -> Option<Timestamp> {
    parse_dated(text).or_else(|| text.parse().ok())
}

fn parse_dated(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let day = digits(words.next()?)?;
    let month = words.next()?;
    let year = words.next()?;
    let mut clock = words.next()?.splitn(3, ':');
    let zone = words.next()?;
    if zone != "GMT" || year.len() != 4 || words.next().is_some() {
        return None;
    }
    let month = (1_i8..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    // The year's first two digits and last two, each of which fits.
    let (century, year) = year.split_at_checked(2)?;
    let year = i16::from(digits(century)?) * 100 + i16::from(digits(year)?);
    let mut next = || digits(clock.next()?);
    let time = civil::DateTime::new(year, month, day, next()?, next()?, next()?, 0).ok()?;
    Offset::UTC.to_timestamp(time).ok()
}

/// One or two decimal digits.
fn digits(text: &str) -> Option<i8> {
    let plain = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::fmt::strtime;
    use muster_proto::v1::InterruptionKind;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use rstest::rstest;

    use super::{parse_dated, parse_time, read};

    const FORMAT: &str = "%d %b %Y %H:%M:%S GMT";

    fn event(id: &str, state: &str, not_before: &str) -> String {
        format!(
            r#"{{"NotBefore":"{not_before}","Code":"system-reboot","Description":"scheduled reboot",
                "EventId":"{id}","NotAfter":"21 Jan 2019 09:17:23 GMT","State":"{state}"}}"#
        )
    }

    const TIME: &str = "21 Jan 2019 09:00:43 GMT";

    #[test]
    fn an_active_event_is_a_notice_for_its_earliest_time() {
        let body = format!(
            "[{}]",
            event("instance-event-0d59937288b749b32", "active", TIME)
        );
        let reading = read(body.as_bytes());
        assert_eq!(reading.problem, None);
        let found = &reading.found[0];
        assert_eq!(found.key, "instance-event-0d59937288b749b32");
        assert_eq!(found.notice.kind, InterruptionKind::Maintenance);
        assert_eq!(
            found.notice.deadline.unwrap().to_string(),
            "2019-01-21T09:00:43Z"
        );
        assert_eq!(
            found.notice.detail,
            "instance-event-0d59937288b749b32: system-reboot from 21 Jan 2019 09:00:43 GMT: \
             scheduled reboot"
        );
    }

    #[rstest]
    #[case("[]")]
    #[case(&format!("[{}]", event("e-1", "completed", TIME)))]
    #[case(&format!("[{},{}]", event("e-1", "canceled", TIME), event("e-2", "completed", "x")))]
    fn what_is_over_is_not_reported(#[case] body: &str) {
        let reading = read(body.as_bytes());
        assert_eq!((reading.found, reading.problem), (vec![], None));
    }

    #[test]
    fn a_bad_event_hides_no_good_one() {
        let good = event("e-1", "active", TIME);
        let timeless = event("e-2", "active", "tomorrow");
        let nameless = event("", "active", TIME);
        let body = format!("[7,{{}},{nameless},{timeless},{good}]");
        let reading = read(body.as_bytes());
        let found: Vec<_> = reading
            .found
            .iter()
            .map(|found| (found.key.as_str(), found.notice.deadline.is_some()))
            .collect();
        assert_eq!(found, [("e-2", false), ("e-1", true)]);
        assert!(reading.problem.unwrap().starts_with("invalid type: "));
    }

    #[rstest]
    #[case("1 Feb 2026 00:00:00 GMT", "2026-02-01T00:00:00Z")]
    #[case("29 Feb 2028 23:59:59 GMT", "2028-02-29T23:59:59Z")]
    #[case("2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z")]
    fn times_are_read(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse_time(text).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("")]
    #[case("29 Feb 2026 00:00:00 GMT")]
    #[case("21 Jan 2019 09:00:43")]
    #[case("21 Jan 2019 09:00:43 CET")]
    #[case("21 Jan 2019 09:00:43 GMT GMT")]
    #[case("21 jan 2019 09:00:43 GMT")]
    #[case("21 Jan 19 09:00:43 GMT")]
    #[case("21 Jan 2019 09:00 GMT")]
    #[case("21 Jan 2019 09:00:43:00 GMT")]
    #[case("+1 Jan 2019 09:00:43 GMT")]
    #[case("0 Jan 2019 09:00:43 GMT")]
    #[case("21 Jan 2019 24:00:00 GMT")]
    #[case("21 Jan \u{662}\u{660} 09:00:43 GMT")]
    fn what_is_not_a_time_is_none(#[case] text: &str) {
        assert_eq!(parse_time(text), None);
    }

    proptest! {
        /// What another implementation writes in this form is read as the same moment.
        #[test]
        fn every_moment_is_read_back(second in 0_i64..253_402_300_799) {
            let moment = Timestamp::from_second(second).unwrap();
            let text = moment.strftime(FORMAT).to_string();
            prop_assert_eq!(parse_dated(&text), Some(moment));
        }

        /// No text panics, and what is read agrees with another implementation of the same form.
        #[test]
        fn any_text_is_read_as_another_parser_does(
            text in r"[0-9]{1,3} (Jan|Feb|Apr|Dec|Juni|[A-Za-z]{3}) [0-9]{3,5} [0-9]{1,2}:[0-9]{2}:[0-5][0-9] (GMT|UTC)"
        ) {
            if let Some(read) = parse_dated(&text) {
                let other = strtime::parse(FORMAT, &text).unwrap().to_datetime().unwrap();
                prop_assert_eq!(read.strftime("%F %T").to_string(), other.strftime("%F %T").to_string());
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let _time = parse_time(&text);
            let _reading = read(&bytes);
            let _event = read(format!("[{}]", event("e-1", "active", "x").replace('x', &text)).as_bytes());
        }
    }
}
