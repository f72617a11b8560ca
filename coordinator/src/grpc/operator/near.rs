//! "There is no such thing; did you mean …"

use tonic::Status;

/// Most names that an error offers.
const OFFERED: usize = 10;
/// Names longer than this are not compared letter by letter.
const MAX_COMPARED: usize = 128;

/// An error for a name that doesn't exist, with the names that are most like it.
pub(super) fn not_found(kind: &str, name: &str, known: Vec<String>) -> Status {
    let name: String = name.chars().take(MAX_COMPARED).collect();
    let offered = nearest(&name, known);
    Status::not_found(if offered.is_empty() {
        format!("there is no {kind} {name:?}, nor any other {kind}")
    } else {
        format!(
            "there is no {kind} {name:?}; near it: {}",
            offered.join(", ")
        )
    })
}

/// An error for a call that must name what it changes, with the names that it may mean.
pub(super) fn name_needed(kind: &str, known: &[String]) -> Status {
    let offered = &known[..known.len().min(OFFERED)];
    Status::invalid_argument(if offered.is_empty() {
        format!("name: which {kind}? There is none at present")
    } else {
        format!("name: which {kind}? For example: {}", offered.join(", "))
    })
}

/// Those most like a name: first those that contain it, then by the number of changes.
fn nearest(name: &str, mut known: Vec<String>) -> Vec<String> {
    known.sort_by_cached_key(|candidate| {
        let contained = !name.is_empty() && candidate.contains(name);
        (!contained, distance(name, candidate))
    });
    known.truncate(OFFERED);
    known
}

/// Number of letters to insert, delete or replace to get from one text to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(MAX_COMPARED).collect();
    let to: Vec<char> = to.chars().take(MAX_COMPARED).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "", 0)]
    #[case("linux", "linux", 0)]
    #[case("linux", "", 5)]
    #[case("", "gpu", 3)]
    #[case("kitten", "sitting", 3)]
    #[case("lniux", "linux", 2)]
    fn distances(#[case] from: &str, #[case] to: &str, #[case] expected: usize) {
        assert_eq!(distance(from, to), expected);
    }

    #[test]
    fn the_nearest_names_come_first_and_not_too_many() {
        let known = ["windows", "linux-large", "linux", "gpu"].map(str::to_owned);
        let status = not_found("pool", "linx", known.to_vec());
        let text = status.message();
        assert!(
            text.starts_with(r#"there is no pool "linx"; near it: linux, "#),
            "{text}"
        );
        let many = (0..50).map(|number| format!("runner-{number}")).collect();
        assert_eq!(nearest("runner-4", many).len(), OFFERED);
    }

    #[test]
    fn without_any_the_error_says_so() {
        let status = not_found("runner", "a", Vec::new());
        assert_eq!(
            status.message(),
            r#"there is no runner "a", nor any other runner"#
        );
        assert!(name_needed("runner", &[]).message().contains("none"));
    }
}
