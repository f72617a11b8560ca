//! The loop that owns the fleet. Events are applied in batches, each stored in one transaction; only
//! then is anything done, said or answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use muster_core::{Changes, Effect, Event, Fleet, JobId, JobStatus, Runner};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::executor::Executor;
use super::in_flight::{Ended, InFlight};
use super::messages::Messages;
use super::patience::store_patiently;
use super::{Command, EngineError, Parts, Question, Trouble, inbox};
use crate::store::{Batch, Ledger, StoredEntry};
use crate::telemetry::{Metrics, StrayState};
use crate::{chance, clock};

/// Commands taken into one transaction.
const BATCH: usize = 256;
/// How old the pools' figures may be: to count them takes longer than to decide.
const FIGURES: Duration = Duration::from_millis(100);
/// After so long in which nothing could be stored, those who were not heard meanwhile are given time.
const UNHEARD: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Actor {
    fleet: Fleet,
    store: Arc<dyn Ledger>,
    messages: Messages,
    executor: Executor,
    in_flight: InFlight,
    /// Effects of an earlier process, which are begun once this one runs.
    pending: Vec<Effect>,
    /// What effects under way are held up by.
    held_up: mpsc::Receiver<Event>,
    metrics: Metrics,
    entries: broadcast::Sender<StoredEntry>,
    trouble: Trouble,
    inbox: Arc<Notify>,
    /// Events that follow from what was just done.
    own: VecDeque<Event>,
    /// When the pools' figures were brought up to date.
    counted_at: Instant,
    /// Whether something may have happened since.
    uncounted: bool,
}

/// What one round has gathered.
#[derive(Default)]
struct Round {
    batch: Batch,
    events: Vec<Event>,
    stored: Vec<oneshot::Sender<()>>,
    questions: Vec<Question>,
}

impl Actor {
    pub(super) async fn load(
        parts: Parts,
        entries: broadcast::Sender<StoredEntry>,
        trouble: Trouble,
        inbox: Arc<Notify>,
    ) -> Result<Self, EngineError> {
        let stored = parts.store.load().await.map_err(EngineError::Load)?;
        let seed = chance::seed().ok_or(EngineError::Random)?;
        let mut fleet = Fleet::restore(parts.spec, stored, seed);
        if parts.list_first {
            fleet.list_first();
        }
        let pending = parts.store.pending_effects().await;
        let pending = pending.map_err(EngineError::Load)?;
        tracing::info!(
            jobs = fleet.jobs().count(),
            runners = fleet.runners().count(),
            effects = pending.len(),
            "fleet restored"
        );
        let messages = Messages::new(parts.presence, parts.executor.vault());
        let executor = parts.executor.fenced_by(Arc::clone(&parts.store));
        let (tell_held_up, held_up) = mpsc::channel(BATCH);
        let actor = Self {
            fleet,
            store: parts.store,
            messages,
            executor,
            in_flight: InFlight::new(tell_held_up),
            pending,
            held_up,
            metrics: parts.metrics,
            entries,
            trouble,
            inbox,
            own: VecDeque::from([Event::Restarted]),
            counted_at: Instant::now(),
            uncounted: true,
        };
        // Deliveries that were answered and not processed when the process ended.
        actor.inbox.notify_one();
        Ok(actor)
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<(), EngineError> {
        for effect in std::mem::take(&mut self.pending) {
            self.in_flight.start(&self.executor, effect);
        }
        let mut tick_at = Instant::now();
        loop {
            let mut round = Round::default();
            let inbox = Arc::clone(&self.inbox);
            let count_at = self.counted_at + FIGURES;
            if self.own.is_empty() {
                let mut delivered = false;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    Some(command) = commands.recv() => self.take(command, &mut round),
                    Some(ended) = self.in_flight.next() => self.take_ended(ended, &mut round),
                    Some(event) = self.held_up.recv() => round.events.push(event),
                    () = inbox.notified() => delivered = true,
                    () = tokio::time::sleep_until(count_at), if self.uncounted => {}
                    () = tokio::time::sleep_until(tick_at) => {}
                }
                // Whoever never stops coming keeps nobody out: all who wait have their part of the round.
                self.take_waiting(&mut commands, &mut round);
                if tick_at <= Instant::now() {
                    round.events.push(Event::Tick);
                    // A delivery may be stored although its sender was told otherwise.
                    delivered = true;
                    tick_at = Instant::now() + self.fleet.tick_within();
                }
                if delivered || inbox.notified().now_or_never().is_some() {
                    self.take_inbox(&mut round).await;
                }
            }
            round.events.extend(self.own.drain(..));
            let changes = self.apply(std::mem::take(&mut round.events));
            // What happened may need a look at the limits sooner than was thought.
            tick_at = tick_at.min(Instant::now() + self.fleet.tick_within());
            self.settle(round, changes, &stop).await?;
            self.uncounted = true;
            if self.counted_at.elapsed() >= FIGURES {
                self.count();
            }
        }
    }

    /// Takes of each kind what is there already, as much as a transaction may have.
    fn take_waiting(&mut self, commands: &mut mpsc::Receiver<Command>, round: &mut Round) {
        while round.stored.len() + round.questions.len() < BATCH {
            let Ok(command) = commands.try_recv() else {
                break;
            };
            self.take(command, round);
        }
        self.take_all_ended(round);
        for _ in 0..BATCH {
            let Ok(event) = self.held_up.try_recv() else {
                break;
            };
            round.events.push(event);
        }
    }

    fn take(&mut self, command: Command, round: &mut Round) {
        match command {
            Command::Apply { event, stored } => {
                round.events.push(event);
                round.stored.push(stored);
            }
            Command::Ask(question) => round.questions.push(question),
        }
    }

    /// Takes what has ended: launches that shared a call end together, and share a transaction.
    fn take_all_ended(&mut self, round: &mut Round) {
        while round.batch.finished_effects.len() < BATCH {
            let Some(ended) = self.in_flight.next_now() else {
                return;
            };
            self.take_ended(ended, round);
        }
    }

    fn take_ended(&mut self, ended: Ended, round: &mut Round) {
        match ended {
            Ended::Answered { key, answer } => {
                round.batch.finished_effects.push(key);
                if let Some(answer) = answer {
                    round.events.push(answer);
                }
            }
            Ended::Failed(effect) => {
                self.in_flight.start(&self.executor, effect);
            }
        }
    }

    async fn take_inbox(&mut self, round: &mut Round) {
        match inbox::read(&*self.store).await {
            Ok(read) => {
                round.events.extend(read.events);
                round.batch.processed_deliveries.extend(read.guids);
                if read.more {
                    self.inbox.notify_one();
                }
            }
            Err(error) => {
                tracing::error!(%error, "the inbox can't be read; it is tried again with the next delivery");
            }
        }
    }

    /// Has the fleet take what the round has gathered.
    fn apply(&mut self, events: Vec<Event>) -> Changes {
        let changes = self.fleet.apply_all(events, clock::now());
        for refused in &changes.refused {
            tracing::debug!(reason = refused, "event without effect");
        }
        changes
    }

    /// Stores a round, and only then does, says and answers what follows from it.
    async fn settle(
        &mut self,
        mut round: Round,
        changes: Changes,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        let batch = &mut round.batch;
        batch.jobs = changes
            .jobs
            .iter()
            .filter_map(|id| self.fleet.job(*id))
            .cloned()
            .collect();
        batch.runners = changes
            .runners
            .iter()
            .filter_map(|id| self.fleet.runner(id))
            .cloned()
            .collect();
        batch.pools = changes
            .pools
            .iter()
            .map(|pool| (pool.clone(), self.fleet.pool_state(pool)))
            .collect();
        batch.forgotten_jobs = changes.forgotten_jobs.iter().copied().collect();
        batch.forgotten_runners = changes.forgotten_runners.iter().cloned().collect();
        batch.timeline = changes.timeline;
        batch.effects = changes
            .effects
            .iter()
            .filter(|effect| effect.is_durable())
            .cloned()
            .collect();
        let began = Instant::now();
        let entries = if batch.is_empty() {
            Vec::new()
        } else {
            store_patiently(&*self.store, batch, &self.trouble, stop).await?
        };
        if began.elapsed() >= UNHEARD {
            // Before the next look at the limits, which are seconds and minutes.
            self.own.push_back(Event::Resumed);
        }
        for launch in &changes.runners {
            if self.fleet.runner(launch).is_some_and(Runner::is_over) {
                self.messages.revoke(launch);
            }
        }
        for launch in &changes.forgotten_runners {
            self.messages.forget(launch);
        }
        for effect in changes.effects {
            self.carry_out(effect);
        }
        self.tell(entries);
        self.observe(&changes.moved_jobs);
        for difference in changes.differences {
            self.metrics.difference(difference);
        }
        for answer in &changes.reruns {
            self.metrics.rerun(answer);
        }
        for trouble in changes.troubles {
            self.metrics.trouble(trouble);
        }
        for loss in changes.losses {
            self.metrics.host_lost(loss);
        }
        for pool in &changes.stopped_canaries {
            tracing::warn!(
                pool = pool.as_str(),
                "the pool's canary failed too often and is stopped"
            );
        }
        for stored in round.stored {
            // Who asked has gone: the event is stored all the same.
            let _ = stored.send(());
        }
        for question in round.questions {
            question(&self.fleet);
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        let hint = matches!(
            effect,
            Effect::CloseOffering { .. } | Effect::Withdraw { .. }
        );
        if hint || effect.is_durable() {
            let key = matches!(effect, Effect::TerminateStray { .. }).then(|| effect.key());
            let started = self.in_flight.start(&self.executor, effect);
            if let Some(effect) = key.filter(|_| started) {
                tracing::warn!(
                    effect,
                    "an instance has our mark and nobody knows it; it is ended"
                );
                self.metrics.stray(StrayState::Found);
            }
        } else if let Some(event) = self.messages.send(effect) {
            self.own.push_back(event);
        }
    }

    /// Tells logs, figures and watchers what is now durable.
    fn tell(&self, entries: Vec<StoredEntry>) {
        if entries.is_empty() {
            return;
        }
        for stored in entries {
            let entry = &stored.entry;
            tracing::info!(
                pool = entry.pool.as_ref().map(muster_core::PoolName::as_str),
                runner = entry.runner.as_ref().map(muster_core::RunnerName::as_str),
                job = entry.job.map(|job| job.0),
                detail = entry.detail,
                "{}",
                entry.what
            );
            // Nobody watches.
            let _ = self.entries.send(stored);
        }
    }

    /// Counts what became of jobs.
    fn observe(&self, moved: &[(JobId, JobStatus)]) {
        for (id, status) in moved {
            self.metrics.job_event(*status);
            let Some(job) = self.fleet.job(*id) else {
                continue;
            };
            if let (JobStatus::InProgress, Some(pool), Some(started)) =
                (status, job.pool(), job.started_at)
            {
                let wait = started.duration_since(job.queued_at());
                self.metrics
                    .observe_wait(pool, Duration::try_from(wait).unwrap_or_default());
            }
        }
    }

    /// Brings the pools' figures up to date.
    fn count(&mut self) {
        (self.counted_at, self.uncounted) = (Instant::now(), false);
        let now = clock::now();
        for pool in self.fleet.pools() {
            self.metrics
                .set_pool(&pool.name, &self.fleet.figures(&pool.name, now));
        }
    }
}
