//! The last of the console, with the secrets that the agent knows taken out.

use std::collections::VecDeque;

use secrecy::{ExposeSecret as _, SecretString};

/// How much of the console is kept, in bytes.
pub(crate) const TAIL_MAX: usize = 64 * 1024;
/// Secrets and pieces of them shorter than this stay: they would match ordinary words.
const SECRET_MIN: usize = 12;
/// A long secret is recognised by any aligned piece of this length, so that a cut line hides nothing.
const PIECE: usize = 16;
const MASK: &str = "***";

/// Takes secrets out of text.
#[derive(Debug, Default)]
pub(crate) struct Masker(Vec<SecretString>);

impl Masker {
    /// From now on `secret` is taken out. One that is too short to be told from ordinary text is not.
    pub(crate) fn add(&mut self, secret: SecretString) {
        if secret.expose_secret().len() >= SECRET_MIN {
            self.0.push(secret);
        }
    }

    /// `line` with each word that holds a secret, or a good part of one, replaced.
    pub(crate) fn mask(&self, line: &str) -> String {
        let mut masked = String::with_capacity(line.len());
        let mut rest = line;
        while !rest.is_empty() {
            let word_end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word_end);
            masked.push_str(if self.betrays(word) { MASK } else { word });
            let gap_end = after.find(in_word).unwrap_or(after.len());
            let (gap, next) = after.split_at(gap_end);
            masked.push_str(gap);
            rest = next;
        }
        // A secret that isn't one word is found by its whole text only.
        for secret in &self.0 {
            if !secret.expose_secret().chars().all(in_word) {
                masked = masked.replace(secret.expose_secret(), MASK);
            }
        }
        masked
    }

    fn betrays(&self, word: &str) -> bool {
        word.len() >= SECRET_MIN
            && self.0.iter().any(|secret| {
                let secret = secret.expose_secret();
                secret.contains(word)
                    || word.contains(secret)
                    || pieces(secret).any(|piece| word.contains(piece))
            })
    }
}

/// Aligned pieces of a secret, if it is long enough to have several.
fn pieces(secret: &str) -> impl Iterator<Item = &str> {
    let count = if secret.len() >= 2 * PIECE {
        secret.len() / PIECE
    } else {
        0
    };
    // `get` is none inside a character; secrets of this kind are ASCII.
    (0..count).filter_map(move |i| secret.get(i * PIECE..(i + 1) * PIECE))
}

/// The characters of base64, base64url and of tokens.
fn in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=' | '-' | '_' | '.')
}

/// The last lines of the console, at most [`TAIL_MAX`] bytes.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Adds a line, and forgets the oldest ones that no longer fit.
    pub(crate) fn push(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > TAIL_MAX {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len() + 1;
        }
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Masker, PIECE, TAIL_MAX, Tail};

    fn masker(secret: &str) -> Masker {
        let mut masker = Masker::default();
        masker.add(secret.to_owned().into());
        masker
    }

    #[test]
    fn words_that_hold_a_secret_are_replaced_and_others_stay() {
        let masker = masker("s3cret-s3cret-token");
        assert_eq!(
            masker.mask("token: s3cret-s3cret-token, next"),
            "token: ***, next"
        );
        assert_eq!(masker.mask("é {\"a\":1} token"), "é {\"a\":1} token");
        assert_eq!(masker.mask("--t=s3cret-s3cret-token"), "***");
    }

    #[test]
    fn a_secret_with_spaces_is_found_whole() {
        assert_eq!(
            masker("correct horse battery").mask("a correct horse battery"),
            "a ***"
        );
    }

    proptest! {
        #[test]
        fn no_long_part_of_a_secret_gets_through(
            secret in "[A-Za-z0-9+/]{40,200}",
            from in 0_usize..100,
            length in (2 * PIECE)..100,
            before in "[ -~]{0,20}",
        ) {
            let from = from.min(secret.len() - 2 * PIECE);
            let part = &secret[from..(from + length).min(secret.len())];
            let masked = masker(&secret).mask(&format!("{before}{part} end"));
            prop_assert!(!masked.contains(part), "{}", masked);
            prop_assert!(masked.ends_with("*** end"));
        }
    }

    #[test]
    fn the_tail_keeps_the_last_lines_within_its_bound() {
        let mut tail = Tail::default();
        for number in 0..20_000 {
            tail.push(format!("line {number}"));
        }
        let text = tail.text();
        assert!(text.len() <= TAIL_MAX && text.len() > TAIL_MAX - 20);
        assert!(text.ends_with("line 19999\n"));
    }
}
