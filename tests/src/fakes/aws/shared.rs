//! What the server, its tasks and the tests share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::buckets::Buckets;
use super::ec2::{Life, Region};
use super::faults::Faults;
use super::keys::{Keys, Principal};
use super::model::Models;
use super::options::Options;
use super::sqs::Queue;
use super::ssm::Parameters;
use super::sts::{Role, Session};
use crate::fakes::changes;

/// An AWS account and a region: EC2, SSM and SQS have a world of their own in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Twelve digits.
    pub account: String,
    /// Such as `eu-central-1`.
    pub region: String,
}

/// One call that came, and what it was answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it came.
    pub at: Timestamp,
    /// `ec2`, `sts`, `ssm` or `sqs`.
    pub service: String,
    /// Such as `CreateFleet`.
    pub action: String,
    /// The account that it was signed for, once that was clear.
    pub account: Option<String>,
    /// The region that it was signed for.
    pub region: String,
    /// The parameters in the model's names, once they could be read.
    pub parameters: Value,
    /// The HTTP status of the answer, whether or not it got through.
    pub status: Option<u16>,
    /// The error's code.
    pub error: Option<String>,
}

/// A call that is let in and well-formed.
pub(super) struct Admitted {
    pub(super) service: String,
    pub(super) action: String,
    pub(super) place: Place,
    pub(super) principal: Principal,
    pub(super) parameters: Value,
}

/// All that the fake remembers.
pub(super) struct State {
    pub(super) options: Arc<Options>,
    pub(super) keys: Keys,
    pub(super) roles: Vec<Role>,
    pub(super) sessions: Vec<Session>,
    pub(super) regions: BTreeMap<Place, Region>,
    pub(super) parameters: BTreeMap<Place, Parameters>,
    pub(super) queues: BTreeMap<Place, Queue>,
    pub(super) faults: Faults,
    pub(super) buckets: Buckets,
    pub(super) calls: Vec<Call>,
    pub(super) served: BTreeMap<String, u64>,
    pub(super) lives: Vec<Life>,
    pub(super) violations: Vec<String>,
}

/// What the server, its tasks and the tests share.
pub(super) struct Shared {
    pub(super) options: Arc<Options>,
    pub(super) models: Models,
    pub(super) url: String,
    /// One lock: AWS's answer to a request is one step, and no step waits for anything.
    state: Mutex<State>,
    /// Counts changes, for those that wait for one.
    pub(super) changed: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(options: Arc<Options>, models: Models, url: String, state: State) -> Self {
        Self {
            options,
            models,
            url,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    /// Brings the state up to now, changes it, and wakes who waits.
    pub(super) fn change<R>(&self, step: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let result = {
            let now = self.options.clock.now();
            let mut state = self.lock();
            state.advance(now);
            step(&mut state, now)
        };
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Touches the state without waking anyone.
    pub(super) fn quietly<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        let now = self.options.clock.now();
        let mut state = self.lock();
        state.advance(now);
        step(&mut state)
    }

    pub(super) fn violation(&self, text: String) {
        self.lock().violations.push(text);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the state up to now whenever something is due.
pub(super) async fn keep_time(shared: Arc<Shared>, stop: CancellationToken) {
    changes::keep_up(
        &shared.changed,
        &stop,
        || shared.options.clock.now(),
        || shared.lock().next_deadline(),
        |_| shared.change(|_, _| {}),
    )
    .await;
}
