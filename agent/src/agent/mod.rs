//! The dispatcher: one task that owns all state, takes every event in turn, and has executors do the
//! rest. What is decided, and when, is in [`crate::supervise::machine`].

mod coordinator;
mod runner;

use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message;
use muster_proto::v1::{Heartbeat, InterruptionKind, InterruptionNotice, Sample, SessionRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::enroll::Enrolled;
use crate::identity::Identity;
use crate::imds::{self, Notice};
use crate::sample::Sampler;
use crate::session::keeper::Keeper;
use crate::session::link::{Closed, LinkEvent};
use crate::session::outbox::Outbox;
use crate::signals::Signals;
use crate::supervise::descendants::{kill_all, reap_adopted, worker_exists};
use crate::supervise::listener::ListenerEvent;
use crate::supervise::machine::{Input, Machine};
use crate::supervise::tail::{Masker, Tail};
use crate::wire;

/// Time between two heartbeats until the coordinator says otherwise.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// How long the end waits for its acknowledgement once it was sent.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(10);
/// How long the end waits for a coordinator that can't be reached.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(60);
/// How long clearing away what the runner left may take.
const CLEAR_LIMIT: Duration = Duration::from_secs(5);
/// How long the executors may take to end.
const TASKS_LIMIT: Duration = Duration::from_secs(2);
/// Events of one executor that may wait for the dispatcher. A full queue holds the executor back,
/// and in the end the runner's pipe.
const EVENTS: usize = 64;

/// The agent, enrolled.
#[derive(Debug)]
pub(crate) struct Agent {
    config: Config,
    signals: Signals,
    instance_id: String,
    identity: Identity,
    enrolled_at: Timestamp,
    started_at: Timestamp,
    /// When the agent must end.
    life_ends: Instant,
    machine: Machine,
    outbox: Outbox,
    keeper: Keeper,
    sampler: Sampler,
    masker: Masker,
    tail: Tail,
    /// Name in the one assignment, once there was one.
    runner_name: Option<String>,
    /// As the runner printed it.
    runner_version: String,
    /// The runner's process, while it is waited for.
    runner: Option<runner::Running>,
    /// Nothing may start any more.
    draining: bool,
    /// The coordinator doesn't want to hear from this instance.
    unwanted: bool,
    ending: Option<Ending>,
    heartbeat_interval: Duration,
    heartbeat_at: Instant,
    look_at: Instant,
    link_events: Inbox<(u64, LinkEvent)>,
    runner_events: Inbox<ListenerEvent>,
    notices: Inbox<Notice>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
}

/// After the end was reported.
#[derive(Debug)]
struct Ending {
    /// When to go, heard or not.
    until: Instant,
}

/// A bounded queue, both ends of which stay here, so that it never closes.
#[derive(Debug)]
struct Inbox<T> {
    sender: mpsc::Sender<T>,
    receiver: mpsc::Receiver<T>,
}

impl<T> Inbox<T> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(EVENTS);
        Self { sender, receiver }
    }
}

impl Agent {
    /// An agent that has enrolled. `started_at` is when the process began.
    pub(crate) fn new(
        config: Config,
        enrolled: Enrolled,
        signals: Signals,
        started_at: Timestamp,
    ) -> Self {
        let now = Instant::now();
        let age = Duration::try_from(Timestamp::now().duration_since(started_at));
        let mut masker = Masker::default();
        masker.add(config.join_token.clone());
        Self {
            signals,
            instance_id: enrolled.instance_id,
            identity: enrolled.identity,
            enrolled_at: enrolled.at,
            started_at,
            life_ends: now + config.max_lifetime.saturating_sub(age.unwrap_or_default()),
            machine: Machine::new(config.runner_limits, now.into_std()),
            outbox: Outbox::default(),
            keeper: Keeper::new(now),
            sampler: Sampler::new(config.runner_dir.clone()),
            masker,
            tail: Tail::default(),
            runner_name: None,
            runner_version: String::new(),
            runner: None,
            draining: false,
            unwanted: false,
            ending: None,
            heartbeat_interval: HEARTBEAT_DEFAULT,
            heartbeat_at: now + HEARTBEAT_DEFAULT,
            look_at: now,
            link_events: Inbox::new(),
            runner_events: Inbox::new(),
            notices: Inbox::new(),
            tasks: JoinSet::new(),
            cancel: CancellationToken::new(),
            config,
        }
    }

    /// Runs until the work is over and reported, then leaves nothing behind.
    pub(crate) async fn run(mut self) {
        self.watch_metadata();
        self.time_passes();
        while !self.is_done() {
            let wake = self.next_wake();
            let requests = self.keeper.requests().cloned();
            let unsent = self.outbox.has_unsent();
            tokio::select! {
                Some(event) = self.runner_events.receiver.recv() => self.on_runner(event),
                Some((generation, event)) = self.link_events.receiver.recv() => {
                    self.on_link(generation, event);
                }
                Some(notice) = self.notices.receiver.recv() => self.on_notice(&notice),
                signal = self.signals.recv() => self.shut_down(format!("the agent got {signal}")),
                permit = room(requests), if unsent => self.send_event(permit),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an executor failed");
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.time_passes();
        }
        self.clear_away().await;
    }

    fn watch_metadata(&mut self) {
        if let Some(base) = self.config.metadata_endpoint.clone() {
            let watch = imds::watch_spot(base, self.notices.sender.clone());
            let cancel = self.cancel.clone();
            self.tasks.spawn(async move {
                let _ended = cancel.run_until_cancelled(watch).await;
            });
        }
    }

    /// When the loop must turn at the latest.
    fn next_wake(&self) -> Instant {
        let times = [
            Some(self.heartbeat_at),
            self.machine.next_deadline().map(Instant::from_std),
            self.keeper.connect_at(),
            self.machine.look_every().map(|_| self.look_at),
            self.ending.as_ref().map(|ending| ending.until),
            self.ending.is_none().then_some(self.life_ends),
            self.lost_at(),
        ];
        times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.heartbeat_at)
    }

    /// When the coordinator counts as lost. Never while a job runs.
    fn lost_at(&self) -> Option<Instant> {
        if self.ending.is_some() || self.machine.busy() || self.machine.stopping() {
            return None;
        }
        Some(self.keeper.down_since()? + self.config.coordinator_lost)
    }

    /// Does what is due.
    fn time_passes(&mut self) {
        let now = Instant::now();
        self.feed(Input::Tick);
        if let Some(interval) = self.machine.look_every()
            && self.look_at <= now
        {
            self.look_at = now + interval;
            let worker = worker_exists();
            self.feed(Input::Looked { worker });
        }
        if self.ending.is_none() && self.life_ends <= now {
            // Once only: this makes the runner stop, and the machine sees to the rest.
            self.life_ends = now + UNREACHABLE_LIMIT;
            self.shut_down("the agent's longest life is over".into());
        }
        if self.lost_at().is_some_and(|at| at <= now) {
            self.shut_down("the coordinator was out of reach for too long".into());
        }
        if self.heartbeat_at <= now {
            self.heartbeat_at = now + self.heartbeat_interval;
            reap_adopted(self.runner.as_ref().and_then(runner::Running::pid));
            let sample = self.sampler.take();
            self.send_heartbeat(sample);
        }
        if self.keeper.connect_at().is_some_and(|at| at <= now) {
            self.connect();
        }
    }

    fn send_heartbeat(&self, sample: Sample) {
        let Some(requests) = self.keeper.requests() else {
            return;
        };
        let heartbeat = Message::Heartbeat(Heartbeat {
            sample: Some(sample),
        });
        // A full queue is a stalled connection, which keep-alive will end; a reading can be missed.
        if requests.try_send(request(heartbeat)).is_err() {
            tracing::debug!("a heartbeat was left out");
        }
    }

    fn send_event(&mut self, permit: Option<mpsc::OwnedPermit<SessionRequest>>) {
        let Some(permit) = permit else {
            // Nothing can be sent on this stream any more, whatever may still come from it.
            self.on_closed(&Closed::Ended);
            return;
        };
        if let Some(event) = self.outbox.next_unsent() {
            permit.send(request(Message::Event(event)));
        }
        if let Some(ending) = &mut self.ending
            && !self.outbox.has_unsent()
        {
            ending.until = ending.until.min(Instant::now() + ACKNOWLEDGE_LIMIT);
        }
    }

    fn on_notice(&mut self, notice: &Notice) {
        self.report(Kind::InterruptionNotice(InterruptionNotice {
            kind: InterruptionKind::Spot.into(),
            deadline: Some(wire::timestamp(notice.time)),
            ..InterruptionNotice::default()
        }));
        self.draining = true;
        self.feed(Input::Drain {
            deadline: Some(self.instant(notice.time)),
            worker: worker_exists(),
        });
    }

    fn shut_down(&mut self, reason: String) {
        tracing::info!(reason, "shutting down");
        self.draining = true;
        self.feed(Input::Shutdown(reason));
    }

    fn report(&mut self, kind: Kind) {
        self.outbox.push(kind, Timestamp::now());
    }

    #[expect(clippy::unused_self, reason = "reads as one of the agent's clocks")]
    fn instant(&self, time: Timestamp) -> std::time::Instant {
        Instant::now().into_std() + wire::until(time)
    }

    fn is_done(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            self.unwanted || self.outbox.is_empty() || ending.until <= Instant::now()
        })
    }

    /// Ends every process of the runner and every task.
    async fn clear_away(mut self) {
        let runner = self.runner.as_ref().and_then(runner::Running::pid);
        let left = kill_all(&self.instance_id, runner, CLEAR_LIMIT).await;
        if left > 0 {
            tracing::error!(left, "processes of the runner can't be killed");
        }
        if !self.outbox.is_empty() {
            tracing::warn!("the coordinator did not acknowledge the end");
        }
        self.cancel.cancel();
        // Dropping the keeper cancels the link; dropping the receivers lets executors run to their end.
        drop((
            self.keeper,
            self.runner,
            self.link_events,
            self.runner_events,
        ));
        let ended = timeout(TASKS_LIMIT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("executors did not end in time");
        }
    }
}

/// Room for one message on the open stream. Never, if there is none.
async fn room(
    requests: Option<mpsc::Sender<SessionRequest>>,
) -> Option<mpsc::OwnedPermit<SessionRequest>> {
    match requests {
        Some(requests) => requests.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

fn request(message: Message) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}
