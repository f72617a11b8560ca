//! Counters of things that come and go: disks and network interfaces.

/// Two counters for each name, and what they rose by since the round before.
#[derive(Debug, Default)]
pub(super) struct Counters {
    known: Vec<Counted>,
    /// Number of names that this round had so far.
    seen: usize,
    rose: [u64; 2],
}

#[derive(Debug)]
struct Counted {
    name: Box<[u8]>,
    /// False for a name that was looked at and is left out.
    counts: bool,
    values: [u64; 2],
}

impl Counters {
    /// Notes the counters of a name. `counts` is asked once for each name whether it is of interest.
    ///
    /// A name that is new, or whose counter is lower than before, has nothing to be compared with and
    /// adds nothing in this round.
    pub(super) fn note(
        &mut self,
        name: &[u8],
        values: [u64; 2],
        counts: impl FnOnce(&[u8]) -> bool,
    ) {
        // Nearly always the next one, as the kernel keeps their order.
        let found = self.known[self.seen..]
            .iter()
            .position(|counted| *counted.name == *name);
        match found {
            Some(ahead) => {
                self.known.swap(self.seen, self.seen + ahead);
                let counted = &mut self.known[self.seen];
                if counted.counts {
                    for ((rose, new), old) in self.rose.iter_mut().zip(values).zip(counted.values) {
                        *rose = rose.saturating_add(new.saturating_sub(old));
                    }
                }
                counted.values = values;
            }
            None => {
                let counted = Counted {
                    counts: counts(name),
                    name: name.into(),
                    values,
                };
                self.known.push(counted);
                let last = self.known.len() - 1;
                self.known.swap(self.seen, last);
            }
        }
        self.seen += 1;
    }

    /// Ends the round: what the counters rose by. Names that were not noted are forgotten.
    pub(super) fn end_round(&mut self) -> [u64; 2] {
        self.known.truncate(self.seen);
        self.seen = 0;
        std::mem::take(&mut self.rose)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Counters;

    fn round(counters: &mut Counters, noted: &[(&str, [u64; 2])]) -> [u64; 2] {
        for (name, values) in noted {
            counters.note(name.as_bytes(), *values, |name| name != b"lo");
        }
        counters.end_round()
    }

    #[test]
    fn what_is_new_went_back_or_is_left_out_adds_nothing() {
        let mut all = Counters::default();
        assert_eq!(round(&mut all, &[("a", [5, 5]), ("lo", [1, 1])]), [0, 0]);
        assert_eq!(round(&mut all, &[("a", [7, 9]), ("lo", [9, 9])]), [2, 4]);
        assert_eq!(
            round(&mut all, &[("b", [100, 0]), ("a", [8, 9])]),
            [1, 0],
            "b is new"
        );
        assert_eq!(round(&mut all, &[("a", [3, 10]), ("b", [101, 0])]), [1, 1]);
        assert_eq!(round(&mut all, &[]), [0, 0]);
        assert_eq!(round(&mut all, &[("a", [1_000, 0])]), [0, 0], "it is back");
    }

    #[test]
    fn each_name_is_asked_for_once() {
        let mut all = Counters::default();
        let mut asked = 0;
        for _ in 0..3 {
            for name in [b"a", b"b"] {
                all.note(name, [0, 0], |_| {
                    asked += 1;
                    true
                });
            }
            all.end_round();
        }
        assert_eq!(asked, 2);
    }

    proptest! {
        // Names may come in any order, twice, or not at all, with any values.
        #[test]
        fn a_sum_is_never_more_than_the_highest_values(
            rounds in prop::collection::vec(prop::collection::vec((0..5_u8, any::<u32>()), 0..8), 0..8),
        ) {
            let mut all = Counters::default();
            for noted in rounds {
                let most: u64 = noted.iter().map(|(_, value)| u64::from(*value)).sum();
                for (name, value) in noted {
                    all.note(&[name], [value.into(), u64::MAX], |_| true);
                }
                let [rose, never] = all.end_round();
                prop_assert!(rose <= most);
                prop_assert_eq!(never, 0);
            }
        }
    }
}
