//! Cuts a stream of bytes into lines of bounded length.

/// Collects bytes until a line is whole. What exceeds the bound is dropped up to the line's end.
#[derive(Debug)]
pub(crate) struct Lines {
    bound: usize,
    pending: Vec<u8>,
    /// True while the rest of an over-long line, whose beginning was given out, passes by.
    skipping: bool,
}

impl Lines {
    /// Lines of at most `bound` bytes.
    pub(crate) const fn new(bound: usize) -> Self {
        Self {
            bound,
            pending: Vec::new(),
            skipping: false,
        }
    }

    /// Takes in `bytes` and gives out the lines that they complete, without line ends. Bytes that
    /// aren't UTF-8 are replaced.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if !self.skipping {
                let room = self.bound.saturating_sub(self.pending.len());
                self.pending
                    .extend_from_slice(&text[..text.len().min(room)]);
                if text.len() > room {
                    lines.push(self.take());
                    self.skipping = true;
                } else if ended {
                    lines.push(self.take());
                }
            }
            if ended {
                self.skipping = false;
            }
        }
        lines
    }

    /// The last line, if it has no end.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.pending)
            .trim_end_matches('\r')
            .to_owned();
        self.pending.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Lines;

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.push(b"abcdef"), ["abcd"]);
        assert!(lines.push(b"ghi").is_empty());
        assert_eq!(lines.push(b"jk\nnext\r\n"), ["next"]);
        assert_eq!(lines.finish(), None);
        assert!(lines.push(b"end").is_empty());
        assert_eq!(lines.finish().as_deref(), Some("end"));
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n\xff".to_vec()), 0..64),
            cut in 0_usize..64,
        ) {
            let whole = Lines::new(5).push(&bytes);
            let mut lines = Lines::new(5);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut parts = lines.push(first);
            parts.extend(lines.push(second));
            prop_assert_eq!(&parts, &whole);
            // A byte that isn't UTF-8 becomes a character of three bytes.
            prop_assert!(whole.iter().all(|line| line.chars().count() <= 5));
        }
    }
}
