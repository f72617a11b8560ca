//! What agents say.

use jiff::Timestamp;

use super::Fleet;
use super::demand::elapsed;
use super::time::NOT_LISTENED;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::{Event, HostPhase, Interruption, Outcome};
use crate::ids::{InstanceId, LaunchId, RunnerName};
use crate::rerun::Cause;
use crate::runner::{Registration, Runner, Work};
use crate::trouble::Trouble;

/// Most entries that the warnings and notices of one agent make in the timeline: the job on its host may
/// have taken it over.
const WARNINGS_MAX: u32 = 100;

impl Fleet {
    pub(super) fn enrolled(&mut self, launch: &LaunchId, instance: &InstanceId, turn: &mut Turn) {
        // The answer to the launch may come after the host itself.
        if self
            .runners
            .get(launch)
            .is_some_and(|runner| runner.instance_id().is_none())
        {
            self.launched(launch, instance, None, turn);
        }
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("enrolled: no launch {launch}"));
            return;
        };
        if runner.instance_id() != Some(instance) {
            turn.refuse(format!(
                "{launch} enrolled from {instance}, which is not its instance"
            ));
            return;
        }
        let step = runner.set_work(Work::Enrolled, turn.now);
        if turn.stepped(runner, step) {
            turn.tell(runner, "enrolled", "");
        }
    }

    /// Quarantine: the instance gets no job any more, and is ended. Its pool is not blamed, or whoever
    /// has taken over one host could stop all launches.
    pub(super) fn distrusted(&mut self, launch: &LaunchId, reason: &str, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("distrusted: no launch {launch}"));
            return;
        };
        if runner.is_over() {
            return;
        }
        turn.tell(runner, "distrusted", reason);
        self.end(
            launch,
            None,
            format!("not trusted any more: {reason}"),
            turn,
        );
    }

    pub(super) fn agent_connected(
        &mut self,
        launch: &LaunchId,
        phase: HostPhase,
        assignment: Option<&RunnerName>,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("connected: no launch {launch}"));
            return;
        };
        if runner.silent_since.take().is_some() {
            turn.tell(runner, "agent back", "");
        }
        if runner.is_over() {
            return;
        }
        if runner.work == Work::Booting {
            // Its certificate proves that it enrolled; the event of it was lost with a crash.
            let step = runner.set_work(Work::Enrolled, turn.now);
            turn.stepped(runner, step);
        }
        // What knows of no assignment was lost, or put back to a time before it.
        let adopts = match runner.work {
            Work::Found => true,
            Work::Enrolled => assignment.is_some(),
            _ => false,
        };
        if adopts && !self.adopt(launch, assignment, turn) {
            return;
        }
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        let ours = runner.name.clone();
        match (&runner.work, assignment) {
            (Work::Enrolled, None) => self.enrolled_host_connected(launch, turn),
            (Work::Assigning, None) if runner.drain.is_some() => {}
            (Work::Assigning, None) => {
                turn.emit(Effect::Assign {
                    launch: launch.clone(),
                    name: ours,
                });
            }
            (Work::Assigning, Some(name)) if *name == ours => {
                self.assignment_accepted(launch, name, turn);
                self.phase_changed(launch, phase, None, turn);
            }
            (Work::Starting | Work::Idle | Work::Busy, Some(name)) if *name == ours => {
                self.phase_changed(launch, phase, None, turn);
            }
            (_, claim) => {
                let claim = claim.map_or("none", RunnerName::as_str).to_owned();
                let reason = format!("its agent claims another assignment than {ours}: {claim}");
                self.end(launch, Some(Outcome::Lost), reason, turn);
            }
        }
        if self
            .runners
            .get(launch)
            .is_some_and(|runner| matches!(runner.work, Work::Starting | Work::Idle | Work::Busy))
        {
            self.ask_to_drain(launch, turn);
        }
        if let Some(name) = assignment.filter(|_| adopts) {
            self.attribute_to(name, turn);
        }
    }

    fn enrolled_host_connected(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        match runner.registration {
            Registration::None if runner.drain.is_none() => self.mint(launch, turn),
            Registration::Exists { .. } => {
                self.mint_another(launch, "a runner of this name exists", turn);
            }
            _ => {}
        }
    }

    /// An agent was there then.
    pub(super) fn heard(&mut self, launch: &LaunchId, at: Timestamp, turn: &mut Turn) {
        if let Some(runner) = self.runners.get_mut(launch) {
            runner.heard_at = Some(at.min(turn.now));
            turn.touch(runner);
        }
    }

    pub(super) fn agent_lost(&mut self, launch: &LaunchId, heard_at: Timestamp, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if !runner.is_over() && runner.silent_since.is_none() {
            runner.silent_since = Some(turn.now);
            turn.tell(runner, "agent lost", "its stream ended");
            self.heard(launch, heard_at, turn);
        }
    }

    /// Takes what an agent says, unless it was taken before: it says again whatever it does not know to be
    /// stored, on another stream and to another process of ours.
    pub(super) fn said(
        &mut self,
        launch: &LaunchId,
        sequence: u64,
        heard_at: Timestamp,
        event: Event,
        turn: &mut Turn,
    ) {
        if let Some(runner) = self.runners.get_mut(launch) {
            if sequence <= runner.heard_through {
                turn.refuse(format!(
                    "the agent of {launch} has said event {sequence} before"
                ));
                return;
            }
            runner.heard_through = sequence;
        }
        self.heard(launch, heard_at, turn);
        self.dispatch(event, turn);
    }

    pub(super) fn counts_anew(&mut self, launch: &LaunchId, turn: &mut Turn) {
        if let Some(runner) = self.runners.get_mut(launch) {
            runner.heard_through = 0;
            turn.touch(runner);
        }
    }

    pub(super) fn assignment_accepted(
        &mut self,
        launch: &LaunchId,
        name: &RunnerName,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.name != *name {
            turn.refuse(format!(
                "{launch} accepted {name}, and was assigned {}",
                runner.name
            ));
            return;
        }
        if runner.work == Work::Assigning {
            let step = runner.set_work(Work::Starting, turn.now);
            if turn.stepped(runner, step) {
                turn.tell(runner, "assigned", "");
            }
        }
    }

    pub(super) fn phase_changed(
        &mut self,
        launch: &LaunchId,
        phase: HostPhase,
        job_name: Option<String>,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.is_over() {
            return;
        }
        if !matches!(
            runner.work,
            Work::Assigning | Work::Starting | Work::Idle | Work::Busy
        ) {
            turn.refuse(format!("{launch} reports {phase:?} without an assignment").to_lowercase());
            return;
        }
        if job_name.is_some() && runner.job_name.is_none() {
            runner.job_name = job_name;
            turn.touch(runner);
        }
        match phase {
            HostPhase::Unassigned | HostPhase::Starting | HostPhase::Finished => {}
            HostPhase::Listening => {
                if runner.work == Work::Busy {
                    return;
                }
                let step = runner.set_work(Work::Idle, turn.now);
                if turn.stepped(runner, step) {
                    turn.tell(runner, "listening", "");
                    let (pool, shape) = (runner.pool.clone(), runner.shape.clone());
                    self.worked(&pool, &shape, turn);
                }
            }
            HostPhase::Assigned | HostPhase::Running => self.took_a_job(launch, turn),
        }
    }

    pub(super) fn finished(
        &mut self,
        launch: &LaunchId,
        outcome: Outcome,
        reason: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get(launch).filter(|it| !it.is_over()) else {
            return;
        };
        // An agent stops a job also when its host is as old as it may become.
        let limits = self.pool(&runner.pool).map(|pool| pool.limits);
        let lifetime = limits.unwrap_or_default().lifetime;
        let aged = elapsed(runner.marks.created_at, turn.now) >= lifetime;
        let mut reason = outcome.explained(reason);
        match outcome {
            Outcome::Interrupted if aged => {}
            Outcome::Interrupted => self.cut_short(launch, Cause::Stopped, turn),
            Outcome::Abandoned => self.cut_short(launch, Cause::Abandoned, turn),
            _ => {}
        }
        let mut ended = outcome;
        if outcome == Outcome::Unused && self.is_late_to_listen(launch, turn.now) {
            // Its host was asked only because of that.
            (ended, reason) = (Outcome::StartFailed, NOT_LISTENED.to_owned());
        }
        self.end(launch, Some(ended), reason.clone(), turn);
        if outcome.is_broken() {
            self.failed_by(launch, false, &reason, turn);
        }
    }

    pub(super) fn interrupted(
        &mut self,
        launch: &LaunchId,
        kind: Interruption,
        deadline: Option<Timestamp>,
        detail: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.is_over() {
            return;
        }
        let words = match kind {
            Interruption::Spot => "EC2 takes the Spot instance back",
            Interruption::Rebalance => "EC2 recommends to leave the instance",
            Interruption::Maintenance => "EC2 will maintain the host",
            Interruption::Lifecycle => "Auto Scaling takes the instance away",
        };
        let told = if detail.is_empty() {
            words.to_owned()
        } else {
            format!("{words}: {detail}")
        };
        warn(runner, "interruption notice", told, turn);
        // Whoever has the agent's certificate can't keep the provider busy by it.
        let closes = matches!(kind, Interruption::Spot | Interruption::Rebalance)
            && runner.warnings <= WARNINGS_MAX;
        if let Some(offering) = runner.offering.clone().filter(|_| closes) {
            turn.emit(Effect::CloseOffering {
                account: runner.account.clone(),
                offering,
            });
        }
        if kind == Interruption::Rebalance && runner.work == Work::Busy {
            return;
        }
        runner.notice = Some(kind);
        self.drain(launch, words.to_owned(), deadline, turn);
    }

    pub(super) fn troubled(
        &mut self,
        launch: &LaunchId,
        kind: Trouble,
        detail: String,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("troubled: no launch {launch}"));
            return;
        };
        if !runner.is_over() && warn(runner, kind.words(), detail, turn) {
            turn.changes.troubles.push(kind);
        }
    }
}

/// Tells what an agent warns of, up to a number of times.
fn warn(runner: &mut Runner, what: &str, detail: String, turn: &mut Turn) -> bool {
    if runner.warnings > WARNINGS_MAX {
        return false;
    }
    runner.warnings += 1;
    if runner.warnings > WARNINGS_MAX {
        let more = format!("after {WARNINGS_MAX} warnings no more of its agent's are kept");
        turn.tell(runner, "warnings left out", more);
        return false;
    }
    turn.tell(runner, what, detail);
    true
}

#[cfg(test)]
mod tests;
