//! The tasks of the process: each has a name, and whoever owns them hears if one ends before it should.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long before it is told to stop a task may end.
const GRACE: Duration = Duration::from_secs(1);

/// A task that the process can't do without is gone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TaskError {
    /// It returned, although it was not told to.
    #[error("the task {0:?} has ended before its time")]
    Ended(&'static str),
    /// It died of a bug.
    #[error("the task {name:?} failed: {message}")]
    Panicked {
        /// Its name.
        name: &'static str,
        /// What it said.
        message: String,
    },
}

/// Tasks that live until they are told to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The first that went wrong.
    failed: watch::Sender<Option<TaskError>>,
}

impl Tasks {
    /// None yet. `stop` is what tells them to.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            failed: watch::Sender::new(None),
        }
    }

    /// What tells them to stop.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Where short work is done, which may end and fail by itself: it is waited for at the end, too.
    #[must_use]
    pub fn short(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Starts a task that must live until it is told to stop.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tracker.spawn(async move {
            // Nothing of it is used after a panic.
            let error = match AssertUnwindSafe(work).catch_unwind().await {
                // What it served may have ended just before it is told to stop.
                Ok(()) if timeout(GRACE, stop.cancelled()).await.is_ok() => return,
                Ok(()) => TaskError::Ended(name),
                Err(panic) => TaskError::Panicked {
                    name,
                    message: said(&*panic),
                },
            };
            tracing::error!(%error, "the coordinator can't go on");
            failed.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(error);
                is_first
            });
        });
    }

    /// Waits until one has gone wrong; for ever if none does.
    pub async fn failed(&self) -> TaskError {
        let mut failed = self.failed.subscribe();
        // The sender lives as long as this.
        let first = failed.wait_for(Option::is_some).await;
        match first.ok().and_then(|first| first.clone()) {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// The first that has gone wrong.
    #[must_use]
    pub fn failure(&self) -> Option<TaskError> {
        self.failed.borrow().clone()
    }

    /// Waits until all have ended, the short ones included. No more may be started.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tracker.len()
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_or_panics_before_its_time_is_told() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("sweep", async {});
        assert_eq!(tasks.failed().await, TaskError::Ended("sweep"));

        let tasks = Tasks::new(CancellationToken::new());
        let number = 7;
        tasks.spawn("survey", async move { panic!("no {number}") });
        let error = tasks.failed().await;
        assert_eq!(error.to_string(), "the task \"survey\" failed: no 7");
        // The first one counts.
        tasks.spawn("sweep", async {});
        tasks.stop().cancel();
        tasks.ended().await;
        assert_eq!(tasks.failure(), Some(error));
    }

    #[tokio::test]
    async fn a_task_that_ends_just_before_it_is_told_to_stop_may() {
        let tasks = Tasks::new(CancellationToken::new());
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        tasks.spawn("sweep", async { ended.send(()).unwrap() });
        has_ended.await.unwrap();
        tasks.stop().cancel();
        tasks.ended().await;
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn a_task_that_was_told_to_stop_may_end_but_not_panic() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("sweep", stop.clone().cancelled_owned());
        tasks.short().spawn(async {});
        assert_eq!(tasks.failed().now_or_never(), None);
        stop.cancel();
        tasks.ended().await;
        assert_eq!(tasks.failure(), None);

        let tasks = Tasks::new(stop.clone());
        tasks.spawn("sweep", async { panic!("late") });
        tasks.ended().await;
        assert!(matches!(
            tasks.failure(),
            Some(TaskError::Panicked { name: "sweep", .. })
        ));
    }
}
