//! What passes between the supervisor and the front.

use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{AssignmentAccepted, InterruptionKind, InterruptionNotice, RunnerPhase};
use tokio::time::Instant;

use super::{HostState, Report, Saved, Supervisor, ToFront};
use crate::local::{Assignment, Notice, Order, Settings, shortened};
use crate::steady::Steady;
use crate::supervise::announce::{self, Announcement};
use crate::supervise::jit;
use crate::supervise::machine::{Input, Machine};
use crate::wire;

/// Longest name of a runner that is accepted, in bytes.
const RUNNER_NAME_MAX: usize = 256;
/// Most notices of one instance. More are a service that makes them up.
const NOTICES_MAX: usize = 32;
/// A notice may come a moment after its hour.
const AT_ONCE: Duration = Duration::ZERO;

impl Supervisor {
    /// A new front takes the place of the one before, and hears everything.
    pub(super) fn on_front(&mut self, front: ToFront) {
        tracing::debug!("a front has come");
        self.lose_front();
        self.front = Some(front);
        // So that its first heartbeat has something to say.
        self.sample_at = Instant::now();
        self.told = self.state();
        self.tell(Report::State(self.told.clone()));
        let events: Vec<Report> = self.known.journal.events().cloned().collect();
        for event in events {
            self.tell(event);
        }
    }

    pub(super) fn lose_front(&mut self) {
        self.front = None;
        self.contact.lose(Instant::now());
    }

    /// Says `report`, if anybody is there. All but samples is said again to the next one.
    pub(super) fn tell(&mut self, report: Report) {
        let Some(front) = &self.front else { return };
        if front.to.try_send(report).is_err() {
            tracing::warn!("the front does not listen");
            self.lose_front();
        }
    }

    /// Saves what has changed, and only then says it: what was said must be known to the next process.
    pub(super) fn end_turn(&mut self) {
        self.save();
        let state = self.state();
        if state != self.told {
            self.notifier.status(describe(&state));
            self.told = state.clone();
            self.tell(Report::State(state));
        }
        for report in std::mem::take(&mut self.outgoing) {
            self.tell(report);
        }
    }

    fn state(&self) -> HostState {
        HostState {
            phase: self.machine.phase().into(),
            busy: self.machine.busy(),
            runner_name: self.known.runner_name.clone(),
            runner_version: self.known.runner_version.clone(),
            last_sequence: self.known.journal.last_sequence(),
            marks: self.known.marks,
        }
    }

    /// Whether the next process will find all that is known now.
    fn save(&mut self) -> bool {
        let Some(file) = &mut self.state_file else {
            return true;
        };
        let known = &mut self.known;
        let saved = Saved {
            machine: Some(self.machine.snapshot()),
            journal: std::mem::take(&mut known.journal),
            runner_name: known.runner_name.clone(),
            runner_version: known.runner_version.clone(),
            marks: known.marks,
            steady: known.steady,
            notices: known.notices.clone(),
            draining: known.draining,
            lifetime: known.lifetime,
            ended: self.ending.is_some(),
            hook_ran: self.hook_ran,
            cgroup: self.grounds.cgroup().cloned(),
        };
        let age = self.machine.age(Instant::now().into_std());
        let done = file.save(&saved, age);
        known.journal = saved.journal;
        // What happened is told all the same. A process that comes after this one would not know of it, and
        // gives its events numbers that were not given before.
        done.inspect_err(|error| tracing::warn!(%error, "the state can't be saved"))
            .is_ok()
    }

    pub(super) async fn on_order(&mut self, order: Order) {
        match order {
            Order::Contact { up } => {
                self.contact.set(up, Instant::now());
                if up {
                    self.unwanted = false;
                }
            }
            Order::Settings(settings) => self.on_settings(settings),
            Order::Assign(assignment) => self.on_assignment(assignment).await,
            Order::Drain { deadline } => {
                tracing::info!("draining");
                self.drain(deadline, "the coordinator drains this host");
            }
            Order::Retire => {
                tracing::info!("the registration is gone");
                self.known.draining = true;
                let worker = self.grounds.worker_exists();
                self.feed(Input::Retire { worker });
            }
            Order::Shutdown { reason } => {
                let reason = shortened(&reason);
                self.shut_down(format!("the coordinator asked for it: {reason}"));
            }
            Order::Notice(notice) => self.on_notice(notice),
            Order::Acknowledge { through } => self.known.journal.acknowledge(through),
            Order::Unwanted => {
                if !self.machine.busy() {
                    self.unwanted = true;
                    self.shut_down("the coordinator no longer accepts this instance".into());
                }
            }
        }
    }

    /// The front may have been taken over: nothing that it says is taken as it comes.
    fn on_settings(&mut self, settings: Settings) {
        let settings = settings.bounded();
        if let Some(interval) = settings.heartbeat_interval {
            self.sample_interval = interval;
            self.sample_at = self.sample_at.min(Instant::now() + interval);
        }
        if let Some(lifetime) = settings.lifetime {
            self.extend_life(lifetime);
        }
        self.feed(Input::Settings {
            interrupt_lead: settings.interrupt_lead,
            stop_grace: settings.stop_grace,
        });
    }

    /// A notice with an hour drains at that hour. One without it, or one that only recommends, takes
    /// no running job away.
    fn on_notice(&mut self, mut notice: Notice) {
        notice.detail = shortened(&notice.detail);
        if self.known.notices.contains(&notice) || self.known.notices.len() >= NOTICES_MAX {
            return;
        }
        self.known.notices.push(notice.clone());
        let kind = InterruptionKind::try_from(notice.kind).unwrap_or_default();
        tracing::warn!(?kind, deadline = ?notice.deadline, notice.detail, "interruption notice");
        self.report(Kind::InterruptionNotice(InterruptionNotice {
            kind: kind.into(),
            deadline: notice.deadline.map(wire::timestamp),
            detail: notice.detail,
        }));
        let (deadline, reason) = match kind {
            InterruptionKind::Rebalance => (None, "EC2 recommends to leave this instance"),
            InterruptionKind::Maintenance => (notice.deadline, "EC2 will maintain this host"),
            InterruptionKind::Lifecycle => {
                (notice.deadline, "Auto Scaling takes this instance away")
            }
            InterruptionKind::Spot | InterruptionKind::Unspecified => {
                (notice.deadline, "EC2 takes this Spot instance back")
            }
        };
        self.drain(deadline, reason);
    }

    fn drain(&mut self, deadline: Option<Timestamp>, reason: &str) {
        self.known.draining = true;
        let worker = self.grounds.worker_exists();
        let now = self.time();
        self.feed(Input::Drain {
            deadline: deadline.map(|at| Instant::now().into_std() + wire::until(at, now)),
            worker,
        });
        if let Some(deadline) = deadline
            && self.ending.is_none()
        {
            self.announce(deadline, reason);
        }
    }

    /// What time it is, whatever the job says.
    fn time(&self) -> Timestamp {
        let steady = self.known.steady.as_ref();
        steady.map_or_else(Timestamp::now, Steady::now)
    }

    /// Tells the job, if there may be one.
    fn announce(&mut self, deadline: Timestamp, reason: &str) {
        let stops_in = self.machine.stops_in(Instant::now().into_std());
        let announcement = Announcement {
            reason: reason.to_owned(),
            instance_ends_at: deadline,
            job_stops_at: self.time() + stops_in.unwrap_or(AT_ONCE),
        };
        if let Err(error) = announce::write(&self.config.work_dir, &announcement) {
            tracing::warn!(%error, "the interruption can't be announced to the job");
        }
        if self.runner.is_some() && !self.hook_ran {
            self.hook_ran = true;
            self.tasks.spawn(announce::run_hook(
                self.config.work_dir.clone(),
                self.config.mode.clone(),
                self.mark.clone(),
            ));
        }
    }

    /// Takes the one assignment of this life.
    async fn on_assignment(&mut self, assignment: Assignment) {
        let name = assignment.runner_name;
        match &self.known.runner_name {
            Some(held) if *held == name => {
                tracing::debug!(runner = name, "the assignment came again");
                return;
            }
            Some(held) => {
                tracing::error!(runner = name, held, "a second assignment is refused");
                return;
            }
            None => {}
        }
        if self.known.draining || self.machine.phase() != RunnerPhase::Unassigned {
            tracing::warn!(runner = name, "an assignment after the drain is refused");
            return;
        }
        if name.is_empty() || name.len() > RUNNER_NAME_MAX {
            let length = name.len();
            tracing::error!(length, "an assignment without a usable name is refused");
            return;
        }
        self.known.runner_name = Some(name.clone());
        self.known.steady = Some(Steady::start());
        match jit::check(assignment.jit_config) {
            Ok(config) => {
                tracing::info!(runner = name, "assignment accepted");
                self.report(Kind::AssignmentAccepted(AssignmentAccepted {
                    runner_name: name,
                }));
                // Before the runner exists: whoever comes after this process must not start another.
                if self.save() {
                    self.start_runner(config).await;
                } else {
                    let reason = "the supervisor's state can't be saved";
                    self.feed(Input::StartFailed(reason.into()));
                }
            }
            Err(error) => {
                let reason = format!("the runner's configuration is not usable: {error}");
                self.feed(Input::StartFailed(reason));
            }
        }
    }

    /// Takes over what an earlier process knew, and its runner.
    pub(super) fn restore(&mut self, saved: Saved, age: Duration) {
        let now = Instant::now();
        self.known = super::Known {
            journal: saved.journal.of_another_process(),
            runner_name: saved.runner_name,
            runner_version: saved.runner_version,
            marks: saved.marks,
            steady: saved.steady,
            notices: saved.notices,
            draining: saved.draining,
            lifetime: None,
        };
        if let Some(lifetime) = saved.lifetime {
            self.extend_life(lifetime);
        }
        self.hook_ran = saved.hook_ran;
        if let Some(snapshot) = saved.machine {
            let limits = self.config.runner_limits;
            self.machine = Machine::restore(snapshot, limits, age, now.into_std());
        }
        if let Some(cgroup) = saved.cgroup {
            self.found_cgroup(cgroup);
        }
        if self.machine.phase() == RunnerPhase::Running {
            // Those before are lost, but for what the cgroup remembers.
            self.sampler.begin_peaks();
        }
        if saved.ended {
            self.begin_end();
        } else if self.known.runner_name.is_some() {
            self.find_runner();
        }
    }
}

fn describe(state: &HostState) -> String {
    let phase = state.phase().as_str_name();
    let phase = phase.trim_start_matches("RUNNER_PHASE_").to_lowercase();
    match &state.runner_name {
        Some(name) => format!("runner {name}: {phase}"),
        None => "no runner assigned".to_owned(),
    }
}
