//! JSON logs, one object on each line, whose level can be changed while the program runs.

use std::fmt;

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

/// Beginning of the targets that are ours.
const OURS: &str = "muster";

/// The way to the level of the logs. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    filter: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

/// The logs can't be set up or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// No such level.
    #[error("{0:?} is not a level: off, error, warn, info, debug, trace")]
    UnknownLevel(String),
    /// Something else in this process takes the logs.
    #[error("logs are set up already")]
    TakenAlready,
    /// What took the logs is gone.
    #[error("logs are not set up any more")]
    Gone,
}

impl Logs {
    /// Sends this process's logs to a writer, which is standard error but for tests. Standard output
    /// belongs to metrics.
    ///
    /// # Errors
    /// When the process has its logs set up.
    pub fn init<W>(level: LevelFilter, writer: W) -> Result<Self, LogError>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (logs, subscriber) = Self::build(level, writer);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::TakenAlready)?;
        Ok(logs)
    }

    fn build<W>(level: LevelFilter, writer: W) -> (Self, impl Subscriber + Send + Sync)
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(targets(level));
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(writer);
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        (Self { filter: handle }, subscriber)
    }

    /// Sets the level from now on.
    ///
    /// # Errors
    /// When there is no such level, or the logs are gone.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let level = parse(level).ok_or_else(|| LogError::UnknownLevel(level.to_owned()))?;
        self.filter
            .reload(targets(level))
            .map_err(|_| LogError::Gone)
    }

    /// The present level.
    #[must_use]
    pub fn level(&self) -> LevelFilter {
        let level = self.filter.with_current(|targets| {
            let mut levels = targets.iter().filter(|(target, _)| *target == OURS);
            levels.next().map(|(_, level)| level)
        });
        level.ok().flatten().unwrap_or(LevelFilter::OFF)
    }
}

fn parse(level: &str) -> Option<LevelFilter> {
    match level.to_ascii_lowercase().as_str() {
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

/// Where the SDK dumps what each place for credentials said, raw answers included, at each failed call. We say
/// in our own words that there are none.
const CREDENTIALS: &str = "aws_config::meta::credentials";

/// Ours at this level. Libraries only warn, lest HTTP/2 frames and SQL statements drown what matters;
/// at `trace` they say everything too.
fn targets(level: LevelFilter) -> Targets {
    let libraries = match level {
        LevelFilter::TRACE => LevelFilter::TRACE,
        other => other.min(LevelFilter::WARN),
    };
    let credentials = match level {
        LevelFilter::TRACE => LevelFilter::TRACE,
        other => other.min(LevelFilter::ERROR),
    };
    Targets::new()
        .with_default(libraries)
        .with_target(CREDENTIALS, credentials)
        .with_target(OURS, level)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    /// A writer that keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn lines(&self) -> Vec<Value> {
            let bytes = self.0.lock().unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    fn logged(level: LevelFilter, run: impl FnOnce(&Logs)) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        let (logs, subscriber) = Logs::build(level, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || run(&logs));
        kept.lines()
    }

    #[test]
    fn a_line_is_one_object_with_its_fields() {
        let lines = logged(LevelFilter::INFO, |_| {
            tracing::info!(pool = "linux", waiting = 3, "a \"quoted\"\nmessage");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["message"], "a \"quoted\"\nmessage");
        assert_eq!(lines[0]["pool"], "linux");
        assert_eq!(lines[0]["waiting"], 3);
        let time = lines[0]["timestamp"].as_str().unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let lines = logged(LevelFilter::INFO, |logs| {
            assert_eq!(logs.level(), LevelFilter::INFO);
            tracing::debug!("one");
            logs.set_level("debug").unwrap();
            assert_eq!(logs.level(), LevelFilter::DEBUG);
            tracing::debug!("two");
            logs.set_level("OFF").unwrap();
            tracing::error!("three");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "two");
    }

    #[test]
    fn a_level_that_does_not_exist_changes_nothing() {
        logged(LevelFilter::WARN, |logs| {
            let error = logs.set_level("loud").unwrap_err();
            assert_eq!(error, LogError::UnknownLevel("loud".to_owned()));
            assert_eq!(logs.level(), LevelFilter::WARN);
        });
    }

    #[test]
    fn the_sdk_dumps_no_answers_of_places_without_credentials() {
        let lines = logged(LevelFilter::DEBUG, |logs| {
            tracing::warn!(target: "aws_config::meta::credentials::chain", "raw answers");
            tracing::warn!(target: "aws_config::imds", "trouble");
            logs.set_level("trace").unwrap();
            tracing::warn!(target: "aws_config::meta::credentials::chain", "asked for");
        });
        let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
        assert_eq!(messages, ["trouble", "asked for"]);
    }

    #[test]
    fn libraries_only_warn_until_everything_is_asked_for() {
        let lines = logged(LevelFilter::DEBUG, |logs| {
            tracing::info!(target: "h2::proto", "frame");
            tracing::warn!(target: "h2::proto", "trouble");
            logs.set_level("trace").unwrap();
            tracing::trace!(target: "h2::proto", "all");
            logs.set_level("error").unwrap();
            tracing::warn!(target: "h2::proto", "quiet");
        });
        let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
        assert_eq!(messages, ["trouble", "all"]);
    }
}
