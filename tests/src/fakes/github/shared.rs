//! What the server, its tasks and the tests share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::auth::AppKey;
use super::openapi::Description;
use super::options::Options;
use super::payload::Templates;
use super::state::State;
use crate::fakes::changes;

/// What the server, its tasks and the tests share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) url: String,
    pub(super) description: Description,
    pub(super) templates: Arc<Templates>,
    pub(super) app_key: AppKey,
    /// One lock: GitHub's answer to a request is one step, and no step waits for anything.
    pub(super) state: Mutex<State>,
    /// Counts changes, for those that wait for one.
    pub(super) changed: watch::Sender<u64>,
}

impl Shared {
    /// Changes the state, gives out work that this made possible, and wakes who waits.
    pub(super) fn change<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        let result = {
            let mut state = self.lock();
            let result = step(&mut state);
            state.assign(&self.options, self.now());
            result
        };
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// A listener looks for messages: wakes others only if work was given out.
    pub(super) fn poll<R>(&self, look: impl Fn(&mut State) -> Option<R>) -> Option<R> {
        let (result, news) = {
            let mut state = self.lock();
            match look(&mut state) {
                Some(result) => (Some(result), false),
                None => {
                    let news = state.assign(&self.options, self.now());
                    (look(&mut state), news)
                }
            }
        };
        if news {
            self.changed.send_modify(|count| *count += 1);
        }
        result
    }

    /// Touches the state without waking anyone.
    pub(super) fn quietly<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        step(&mut self.lock())
    }

    pub(super) fn violation(&self, text: String) {
        self.quietly(|state| state.violations.push(text));
    }

    /// What time it is for jobs, registrations and deliveries.
    pub(super) fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what has run out: locks, assignments, tokens.
pub(super) async fn expire(shared: Arc<Shared>, stop: CancellationToken) {
    changes::keep_up(
        &shared.changed,
        &stop,
        || shared.now(),
        || shared.quietly(|state| state.next_deadline()),
        |now| shared.change(|state| state.expire(now)),
    )
    .await;
}
