//! Takes the fields of a document one by one, and keeps what was wrong with each.

use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

/// No time in the configuration is longer than this: 30 days, in seconds.
const SECONDS_MAX: u64 = 30 * 24 * 3600;

/// The fields that are still to be read, and what was wrong with those before.
pub(super) struct Fields {
    map: Map<String, Value>,
    problems: Vec<String>,
    /// Every name that was asked for, for the test of the reference.
    #[cfg(test)]
    asked: std::collections::BTreeSet<String>,
}

impl Fields {
    /// All fields of a document.
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self {
            map,
            problems: Vec::new(),
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    /// Every name that was asked for.
    #[cfg(test)]
    pub(super) fn asked(self) -> std::collections::BTreeSet<String> {
        self.asked
    }

    /// Every problem found, with the fields that nobody has read.
    pub(super) fn finish(mut self) -> Vec<String> {
        for name in self.map.keys() {
            self.problems.push(format!("{name}: not a known field"));
        }
        self.problems
    }

    pub(super) fn problem(&mut self, name: &str, value: &str, expected: &str) {
        self.problems
            .push(format!("{name}: {value}; expected {expected}"));
    }

    /// Notes a missing field, unless something was already said about it.
    pub(super) fn missing(&mut self, name: &str, expected: &str) {
        if !self.problems.iter().any(|p| p.starts_with(name)) {
            self.problem(name, "missing", expected);
        }
    }

    pub(super) fn optional_string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            // The value isn't shown: it may be a secret in the wrong shape.
            Value::String(_) => {
                self.problem(name, "empty", "a string that is not empty");
                None
            }
            other => {
                self.problem(name, kind(&other), "a string");
                None
            }
        }
    }

    pub(super) fn string(&mut self, name: &str) -> Option<String> {
        let text = self.optional_string(name);
        if text.is_none() {
            self.missing(name, "a string");
        }
        text
    }

    pub(super) fn secret(&mut self, name: &str) -> Option<SecretString> {
        let secret = SecretString::from(self.string(name)?);
        if secret.expose_secret().trim() != secret.expose_secret() {
            self.problem(name, "begins or ends with a space", "the token alone");
        }
        Some(secret)
    }

    pub(super) fn directory(&mut self, name: &str) -> Option<PathBuf> {
        let text = self.string(name)?;
        let path = PathBuf::from(&text);
        if !path.is_absolute() {
            self.problem(name, &format!("{text:?}"), "an absolute path");
        } else if !path.is_dir() {
            self.problem(name, &format!("{text:?}"), "a directory that exists");
        }
        Some(path)
    }

    /// A directory that must exist, also if it isn't named.
    pub(super) fn directory_or(&mut self, name: &str, default: &str) -> Option<PathBuf> {
        self.map
            .entry(name)
            .or_insert_with(|| Value::String(default.into()));
        self.directory(name)
    }

    /// An absolute path, of what need not exist yet.
    pub(super) fn optional_path(&mut self, name: &str) -> Option<PathBuf> {
        let text = self.optional_string(name)?;
        let path = PathBuf::from(&text);
        if !path.is_absolute() {
            self.problem(name, &format!("{text:?}"), "an absolute path");
        }
        Some(path)
    }

    /// Whether a field is there and still to be read.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// What was wrong so far, for a reader of its own words.
    pub(super) fn problems(&mut self) -> &mut Vec<String> {
        &mut self.problems
    }

    /// A field of any kind.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        #[cfg(test)]
        self.asked.insert(name.to_owned());
        self.map.remove(name)
    }

    /// A user of this host.
    pub(super) fn user(&mut self, name: &str, default: &str) -> Option<User> {
        let user = self.optional_string(name).unwrap_or_else(|| default.into());
        match User::from_name(&user) {
            Ok(Some(user)) => Some(user),
            Ok(None) => {
                self.problem(name, &format!("{user:?}"), "a user of this host");
                None
            }
            Err(error) => {
                let shown = format!("{user:?} can't be looked up ({error})");
                self.problem(name, &shown, "a user of this host");
                None
            }
        }
    }

    pub(super) fn optional_seconds(&mut self, name: &str) -> Option<Duration> {
        let value = self.take(name)?;
        let expected = format!("a whole number of seconds from 1 to {SECONDS_MAX}");
        match value.as_u64() {
            Some(seconds @ 1..=SECONDS_MAX) => Some(Duration::from_secs(seconds)),
            _ => {
                self.problem(name, &value.to_string(), &expected);
                None
            }
        }
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
