//! Walking a TOML document without stopping at its first error.
//!
//! Each reader records what is wrong, with its place, and answers `None`; the walk goes on. So a `None`
//! at the end means that at least one problem was recorded.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;

/// Most characters of a value that an error repeats.
const SHOWN: usize = 60;

/// The text of a file and what was found wrong with it.
pub(super) struct Document<'d> {
    text: &'d str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// Records a problem at an offset in bytes.
    pub(super) fn report(&self, offset: usize, text: impl Display) {
        let problem = Problem {
            at: Some(self.position(offset)),
            text: text.to_string(),
        };
        self.problems.borrow_mut().push((offset, problem));
    }

    /// The problems, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(offset, _)| *offset);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        (line, column)
    }

    /// A value as written, on one line.
    fn shown(&self, span: Range<usize>) -> String {
        let source = self.text.get(span).unwrap_or_default();
        let first = source.lines().next().unwrap_or_default();
        let cut: String = first.chars().take(SHOWN).collect();
        if cut.len() < source.trim_end().len() {
            format!("{cut}…")
        } else {
            cut
        }
    }
}

/// A table, and which of its keys are known.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    /// How errors name it; empty for the root.
    name: String,
    /// Where it begins.
    offset: usize,
    /// None if the file lacks it.
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(super) fn root(document: &'d Document<'d>, table: &'d DeTable<'d>) -> Self {
        Self {
            document,
            name: String::new(),
            offset: 0,
            table: Some(table),
            known: Vec::new(),
        }
    }

    /// Gives it a better name for errors, once one is known.
    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// Records a problem of the table as a whole.
    pub(super) fn refuse(&self, text: impl Display) {
        let separator = if self.name.is_empty() { "" } else { ": " };
        self.document
            .report(self.offset, format!("{}{separator}{text}", self.name));
    }

    /// The table of this name; absent tables are empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d> {
        match self.value(key) {
            Some(value) => value.section(),
            None => Section {
                document: self.document,
                name: format!("[{key}]"),
                offset: self.offset,
                table: None,
                known: Vec::new(),
            },
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(Value {
            document: self.document,
            name: self.path(key),
            value,
        })
    }

    fn path(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}: {key}"),
        }
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key);
        if value.is_none() {
            self.refuse(format_args!("{key} is missing"));
        }
        read(&value?)
    }

    /// A value that has a default.
    pub(super) fn default<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'d>) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => read(&value),
            None => Some(default),
        }
    }

    /// A value that may be absent. The outer option is none if it is there and wrong.
    #[expect(clippy::option_option, reason = "absent is not wrong")]
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'d>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.value(key) {
            Some(value) => read(&value).map(Some),
            None => Some(None),
        }
    }

    /// All keys and values, whatever the keys are.
    pub(super) fn entries(&self) -> Vec<(&'d str, usize, Value<'d>)> {
        let entries = self.table.into_iter().flatten();
        entries
            .map(|(key, value)| {
                let text: &'d str = key.get_ref();
                let value = Value {
                    document: self.document,
                    name: self.path(text),
                    value,
                };
                (text, key.span().start, value)
            })
            .collect()
    }

    /// Reports the keys that nobody asked for. Must come after the last of them was asked for, and
    /// before any return.
    pub(super) fn finish(&self) {
        for (key, offset, _) in self.entries() {
            if self.known.contains(&key) {
                continue;
            }
            let hint = match nearest(key, &self.known) {
                Some(near) => format!("; did you mean {near}?"),
                None => format!("; known are {}", self.known.join(", ")),
            };
            let name = self.path(key);
            self.document
                .report(offset, format!("{name} is not a known key{hint}"));
        }
    }
}

/// A value and its name.
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    name: String,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Value<'d> {
    /// Records that the value is wrong: it, then the reason.
    pub(super) fn refuse(&self, reason: impl Display) {
        let shown = self.document.shown(self.value.span());
        self.report(format_args!("{shown} {reason}"));
    }

    /// Records a problem without repeating the value.
    pub(super) fn report(&self, text: impl Display) {
        let text = format!("{}: {text}", self.name);
        self.document.report(self.value.span().start, text);
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.refused("is not a text in quotes"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.refused("is not true or false"),
        }
    }

    /// True if the value is an integer, in or out of range.
    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    pub(super) fn integer(&self, least: u32, most: u32) -> Option<u32> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.refused("is not a number");
        };
        u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| (least..=most).contains(number))
            .or_else(|| self.refused(format_args!("is not between {least} and {most}")))
    }

    /// The elements of a list; each records its own problems.
    pub(super) fn list(&self) -> Option<Vec<Value<'d>>> {
        let DeValue::Array(elements) = self.value.get_ref() else {
            return self.refused("is not a list");
        };
        let elements = elements.iter().map(|value| Value {
            document: self.document,
            name: self.name.clone(),
            value,
        });
        Some(elements.collect())
    }

    /// The table; what is no table is reported and taken for an absent one.
    pub(super) fn section(&self) -> Section<'d> {
        let table = self.value.get_ref().as_table();
        if table.is_none() {
            self.refuse("is not a table");
        }
        let name = if self.name.contains(": ") {
            self.name.clone()
        } else {
            format!("[{}]", self.name)
        };
        Section {
            document: self.document,
            name,
            offset: self.value.span().start,
            table,
            known: Vec::new(),
        }
    }

    /// Records that the value is wrong, and answers none.
    pub(super) fn refused<T>(&self, reason: impl Display) -> Option<T> {
        self.refuse(reason);
        None
    }
}

/// Reads each element; none if any is wrong, after all were read.
pub(super) fn all<'d, T>(
    values: &[Value<'d>],
    read: impl FnMut(&Value<'d>) -> Option<T>,
) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = values.iter().map(read).collect();
    read.into_iter().collect()
}

/// The known word that is most like this one, if any is like it.
fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let bound = (word.len() / 3).max(2);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_strange_one_is_not() {
        let known = ["min_idle", "max", "labels", "limits"];
        assert_eq!(nearest("label", &known), Some("labels"));
        assert_eq!(nearest("minidle", &known), Some("min_idle"));
        assert_eq!(nearest("mx", &known), Some("max"));
        assert_eq!(nearest("something_else", &known), None);
    }

    #[test]
    fn distance_counts_changes() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn positions_count_characters_not_bytes() {
        let document = Document::new("ä = 1\nöö = 2\n");
        assert_eq!(document.position(0), (1, 1));
        assert_eq!(document.position("ä = ".len()), (1, 5));
        assert_eq!(document.position("ä = 1\nöö".len()), (2, 3));
    }
}
