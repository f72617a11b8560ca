//! What happens to a host's runner: its assignment, its job, and its end.

use std::time::Duration;

use jiff::Timestamp;
use muster_core::Interruption;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{
    Assignment, AssignmentAccepted, InterruptionKind, InterruptionNotice, RunnerFinished,
    RunnerOutcome,
};
use tokio::time::Instant;

use super::{Agent, News, Runner};
use crate::grpc::time::to_wire;
use crate::simulation::github;
use crate::simulation::host::thief;

/// An agent stops a job so long before its instance is taken.
const LEAD: Duration = Duration::from_secs(30);
/// So long before it stops a job, one that ends may be taken for one that was stopped.
const IN_DOUBT: Duration = Duration::from_secs(75);
/// From so long on without the coordinator, a job that fails looks like one whose host GitHub has given up, which it does
/// ten minutes after the host went: nobody can tell the two apart.
const LOOKS_GIVEN_UP: Duration = Duration::from_secs(8 * 60);
/// It powers its host off so long after its last event was acknowledged, or wasn't.
pub(super) const LINGER: Duration = Duration::from_secs(5);
const LINGER_UNHEARD: Duration = Duration::from_secs(120);

impl Agent {
    pub(super) fn assigned(&mut self, assignment: &Assignment) {
        let config = &assignment.encoded_jit_config;
        self.world.lock().judge.assigned(&self.instance, config);
        let name = assignment.runner_name.clone();
        // After a registration whose answer was lost, its name has a number.
        let ours = name.starts_with(&format!("muster-{}-{}", self.pool, self.launch));
        if self.runner != Runner::None || !ours {
            let who = self.instance.as_str();
            self.world.violated(&format!(
                "invariant 1 or 8: {who} gets {name} as well: {:?}",
                self.runner
            ));
        }
        if self.drained {
            let who = self.instance.as_str();
            self.world
                .violated(&format!("invariant 9: {who} is drained and gets {name}"));
        }
        self.name = name.clone();
        let id = config.trim_start_matches("jit-").parse().unwrap_or(0);
        self.event(Kind::AssignmentAccepted(AssignmentAccepted {
            runner_name: name,
        }));
        self.changed(Runner::Starting(id), String::new());
        let wait = self.world.lock().between(800, 4_000);
        self.runner_at = Some(Instant::now() + wait);
    }

    pub(super) fn runner_goes_on(&mut self) {
        self.runner_at = None;
        match self.runner {
            Runner::Starting(id) => {
                if github::comes_online(&self.world, id, &self.instance) {
                    self.changed(Runner::Listening(id), String::new());
                } else {
                    self.finish(RunnerOutcome::StartFailed);
                }
            }
            Runner::Running(job) => {
                let ends = {
                    let stops = self
                        .stop_at
                        .is_some_and(|at| Instant::now() + IN_DOUBT >= at);
                    let unheard =
                        self.stream.is_none() && self.heard_at.elapsed() >= LOOKS_GIVEN_UP;
                    let late = stops || unheard;
                    let mut state = self.world.lock();
                    let job = state.github.jobs.get_mut(&job);
                    job.map_or("failure", |job| {
                        job.in_doubt = late;
                        job.ends
                    })
                };
                github::complete(&self.world, job, ends);
                self.finish(if ends == "success" {
                    RunnerOutcome::Succeeded
                } else {
                    RunnerOutcome::Failed
                });
            }
            Runner::None | Runner::Listening(_) | Runner::Finished => {}
        }
    }

    pub(super) fn learn(&mut self, news: &News) {
        match *news {
            News::Job(job) => {
                let (lasts, mut name, lies) = {
                    let mut state = self.world.lock();
                    let lies = state.plan.lies;
                    let lies = state.chance(lies);
                    let known = state.github.jobs.get(&job);
                    let told = known.map(|job| (job.lasts, job.name.clone()));
                    let (lasts, name) = told.unwrap_or_default();
                    (lasts, name, lies)
                };
                if lies {
                    // What the job prints is whatever the job wants.
                    name = "job-0".to_owned();
                }
                if !matches!(self.runner, Runner::Starting(_) | Runner::Listening(_)) {
                    github::lost_host(&self.world, &self.instance);
                    return;
                }
                self.changed(Runner::Running(job), name);
                self.runner_at = Some(Instant::now() + lasts);
                thief::may_rob(&self.world, &self.instance, &self.launch, &self.pool, job);
            }
            News::Cancelled(job) => {
                if self.runner == Runner::Running(job) {
                    github::complete(&self.world, job, "cancelled");
                    self.finish(RunnerOutcome::Canceled);
                } else {
                    // It learns of the job after this.
                    github::complete(&self.world, job, "cancelled");
                }
            }
            News::Deregistered => {
                if matches!(self.runner, Runner::Starting(_) | Runner::Listening(_)) {
                    self.finish(RunnerOutcome::Unused);
                }
            }
            News::Interrupted(kind, deadline) => {
                self.taken_at(deadline);
                let kind = match kind {
                    Interruption::Spot => InterruptionKind::Spot,
                    Interruption::Rebalance => InterruptionKind::Rebalance,
                    Interruption::Maintenance => InterruptionKind::Maintenance,
                    Interruption::Lifecycle => InterruptionKind::Lifecycle,
                };
                self.event(Kind::InterruptionNotice(InterruptionNotice {
                    kind: kind.into(),
                    deadline: deadline.map(to_wire),
                    detail: String::new(),
                }));
            }
            // Nothing on it goes on: see `Agent::run`.
            News::Hangs => {}
            News::CutOff(wait) => {
                self.cut_off_until = Some(Instant::now() + wait);
                self.disconnected();
            }
        }
    }

    pub(super) fn taken_at(&mut self, deadline: Option<Timestamp>) {
        let Some(deadline) = deadline else { return };
        let left = deadline.duration_since(self.world.now());
        let left = Duration::try_from(left).unwrap_or_default();
        self.stop_at = Some(Instant::now() + left.saturating_sub(LEAD));
    }

    /// A job is stopped while it still can tell so.
    pub(super) fn stop_job(&mut self) {
        self.stop_at = None;
        match self.runner {
            Runner::Running(job) => {
                {
                    let mut state = self.world.lock();
                    if let Some(job) = state.github.jobs.get_mut(&job) {
                        job.interrupted = true;
                        job.in_doubt = true;
                    }
                }
                github::complete(&self.world, job, "failure");
                self.finish(RunnerOutcome::Interrupted);
            }
            Runner::None | Runner::Starting(_) | Runner::Listening(_) | Runner::Finished => {}
        }
    }

    pub(super) fn finish(&mut self, outcome: RunnerOutcome) {
        if self.runner == Runner::Finished {
            return;
        }
        github::lost_host(&self.world, &self.instance);
        self.runner = Runner::Finished;
        self.runner_at = None;
        self.event(Kind::RunnerFinished(RunnerFinished {
            outcome: outcome.into(),
            ..RunnerFinished::default()
        }));
        self.leave(LINGER_UNHEARD);
    }

    pub(super) fn leave(&mut self, after: Duration) {
        let stays = {
            let mut state = self.world.lock();
            let stays = state.plan.stays_on;
            state.chance(stays)
        };
        if !stays {
            self.off_at = Some(Instant::now() + after);
        }
    }
}
