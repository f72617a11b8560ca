//! The kinds of value that more than one table has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::document::Value;

/// Reads a duration between two bounds.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&Value<'_>) -> Option<Duration> {
    move |value| {
        let parsed = parse_duration(value.text()?);
        let Some(parsed) = parsed else {
            return value.refused("is not a duration such as \"90s\", \"5m\" or \"1h30m\"");
        };
        if (least..=most).contains(&parsed) {
            return Some(parsed);
        }
        let (least, most) = (show_duration(least), show_duration(most));
        value.refused(format_args!("is not between {least} and {most}"))
    }
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A duration such as `1h30m`: whole numbers, each with its unit, larger units first.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let index = units.iter().position(|(name, _)| *name == unit)?;
        let amount = number.parse::<u64>().ok()?.checked_mul(units[index].1)?;
        millis = millis.checked_add(amount)?;
        units = &units[index + 1..];
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// A duration as it may be written in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, size) in UNITS {
        let count = millis / size;
        millis %= size;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

/// Reads whole hundredths between two bounds, such as `"10%"`.
pub(super) fn percent(least: u32, most: u32) -> impl Fn(&Value<'_>) -> Option<u32> {
    move |value| {
        let digits = value.text()?.strip_suffix('%').unwrap_or_default();
        let digits = digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(digits);
        let Some(number) = digits.and_then(|digits| digits.parse().ok()) else {
            return value.refused("is not a part of a hundred such as \"10%\"");
        };
        if (least..=most).contains(&number) {
            return Some(number);
        }
        value.refused(format_args!("is not between {least}% and {most}%"))
    }
}

/// Reads a path. A relative one starts at the directory of the configuration file.
pub(super) fn path(base: &Path) -> impl Fn(&Value<'_>) -> Option<PathBuf> {
    move |value| {
        let text = value.text()?;
        // Whoever pastes a key here must not find it in a log.
        if text.contains('\n') || text.contains("-----BEGIN") {
            value.report("is the content of a file, not its path");
            return None;
        }
        if text.is_empty() {
            return value.refused("is not a path");
        }
        Some(base.join(text))
    }
}

/// Reads the path of a file that holds a secret. Whoever gives the secret itself must not find it in a log, not
/// even once the file can't be read: what looks like a URL, or like a name and a password, is not repeated.
pub(super) fn secret_path(base: &Path) -> impl Fn(&Value<'_>) -> Option<PathBuf> {
    let path = path(base);
    move |value| {
        let text = value.text()?;
        let relative = !text.starts_with('/');
        if text.contains("://") || (relative && text.contains([':', '@'])) {
            value.report("is not the path of a file; what is secret goes into a file, and the file's path here");
            return None;
        }
        path(value)
    }
}

/// Reads an address to listen on.
pub(super) fn address(value: &Value<'_>) -> Option<SocketAddr> {
    value
        .text()?
        .parse()
        .ok()
        .or_else(|| value.refused("is not an IP address with a port, such as \"127.0.0.1:7440\""))
}

/// Reads an `http` or `https` URL that carries no credentials.
pub(super) fn http_url(value: &Value<'_>) -> Option<Url> {
    let text = value.text()?;
    let url = Url::parse(text).ok();
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    else {
        // What doesn't parse may hold a password all the same.
        if text.contains('@') {
            value.report("is not an http:// or https:// URL");
            return None;
        }
        return value.refused("is not an http:// or https:// URL");
    };
    if url.password().is_some() || !url.username().is_empty() {
        value.report("must not carry a user name or password: give them in a file");
        return None;
    }
    Some(url)
}

/// True for a word of these characters and a length between one and `most`.
pub(super) fn is_word(text: &str, most: usize, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().count() <= most && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5m", 300_000)]
    #[case("1h30m", 5_400_000)]
    #[case("0s", 0)]
    #[case("250ms", 250)]
    #[case("1d2h3m4s5ms", 93_784_005)]
    #[case("90m", 5_400_000)]
    fn durations_are_read(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)));
    }

    #[rstest]
    #[case("")]
    #[case("5")]
    #[case("m")]
    #[case("5 m")]
    #[case("-5m")]
    #[case("1.5h")]
    #[case("30m1h")]
    #[case("1m1m")]
    #[case("5M")]
    #[case("18446744073709551616s")]
    #[case("18446744073709551615d")]
    fn what_is_no_duration_is_refused(#[case] text: &str) {
        assert_eq!(parse_duration(text), None);
    }

    proptest::proptest! {
        #[test]
        fn a_shown_duration_reads_as_the_same(millis in 0..10_u64.pow(12)) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}
