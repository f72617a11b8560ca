//! What the kernel's texts are made of. No input is trusted to have a form: what doesn't fit is none.

/// The lines of a text.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// A whole number.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A number with two decimals, as the kernel writes averages; in hundredths.
pub(super) fn hundredths(word: &[u8]) -> Option<u32> {
    let (whole, decimals) = word.split_at_checked(word.len().checked_sub(3)?)?;
    let decimals = number(decimals.strip_prefix(b".")?)?;
    let sum = number(whole)?.checked_mul(100)?.checked_add(decimals)?;
    u32::try_from(sum).ok()
}

/// The number behind a name in a text whose lines are a name and a number each.
pub(super) fn named(text: &[u8], name: &[u8]) -> Option<u64> {
    lines(text).find_map(|line| {
        let mut words = words(line);
        (words.next()? == name).then(|| number(words.next()?))?
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case("18446744073709551615", Some(u64::MAX))]
    #[case("18446744073709551616", None)]
    #[case("", None)]
    #[case("-1", None)]
    #[case("+1", None)]
    #[case("1 ", None)]
    fn numbers(#[case] word: &str, #[case] expected: Option<u64>) {
        assert_eq!(number(word.as_bytes()), expected);
    }

    #[rstest]
    #[case("0.00", Some(0))]
    #[case("12.34", Some(1234))]
    #[case("100.00", Some(10_000))]
    #[case("12.3", None)]
    #[case(".34", None)]
    #[case("1234", None)]
    #[case("99999999999.00", None)]
    fn averages(#[case] word: &str, #[case] expected: Option<u32>) {
        assert_eq!(hundredths(word.as_bytes()), expected);
    }

    #[test]
    fn a_name_is_the_whole_first_word() {
        let text = b"oom_kill_disable 0\nunder_oom 0\noom_kill 7\noom_group_kill 1\n";
        assert_eq!(named(text, b"oom_kill"), Some(7));
        assert_eq!(named(text, b"oom"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (number(&bytes), hundredths(&bytes), named(&bytes, b"a"));
            for line in lines(&bytes) {
                prop_assert!(words(line).all(|word| !word.is_empty()));
            }
        }

        #[test]
        fn what_is_written_is_read(value: u64, average in 0..1_000_000_u32) {
            prop_assert_eq!(number(value.to_string().as_bytes()), Some(value));
            let text = format!("{}.{:02}", average / 100, average % 100);
            prop_assert_eq!(hundredths(text.as_bytes()), Some(average));
        }
    }
}
