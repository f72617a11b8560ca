//! What agents say.

use jiff::Timestamp;

use super::Fleet;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::{HostPhase, Interruption, Outcome};
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
    }

    fn enrolled_host_connected(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        match runner.registration {
            Registration::None if runner.drain.is_none() => self.mint(launch, turn),
            _ => {}
        }
    }

    pub(super) fn agent_lost(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if !runner.is_over() && runner.silent_since.is_none() {
            runner.silent_since = Some(turn.now);
            turn.tell(runner, "agent lost", "its stream ended");
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
                    let pool = runner.pool.clone();
                    self.worked(&pool, turn);
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
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if runner.is_over() {
            return;
        }
        let pool = runner.pool.clone();
        let reason = outcome.explained(reason);
        match outcome {
            Outcome::Interrupted => self.cut_short(launch, Cause::Stopped, turn),
            Outcome::Abandoned => self.cut_short(launch, Cause::Abandoned, turn),
            _ => {}
        }
        self.end(launch, Some(outcome), reason.clone(), turn);
        if outcome.is_broken() {
            self.failed(&pool, false, &reason, turn);
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
        let closes = matches!(kind, Interruption::Spot | Interruption::Rebalance);
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
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::fixtures::{at, pool, report};
    use crate::fleet::{FleetSpec, Stored};

    /// A fleet with one launch.
    fn launched() -> (Fleet, LaunchId) {
        let spec = FleetSpec {
            pools: vec![pool("linux")],
            accounts: [("local".into(), 9)].into(),
        };
        let mut fleet = Fleet::restore(spec, Stored::default(), 1);
        fleet.apply(Event::Job(Box::new(report(1))), at(0));
        let launch = fleet.runners().next().unwrap().launch.clone();
        (fleet, launch)
    }

    fn told(fleet: &mut Fleet, event: Event) -> Vec<(String, String)> {
        let entries = fleet.apply(event, at(1)).timeline.into_iter();
        entries.map(|entry| (entry.what, entry.detail)).collect()
    }

    fn troubled(launch: &LaunchId, kind: Trouble) -> Event {
        Event::Troubled {
            launch: launch.clone(),
            kind,
            detail: "812 MiB are left".into(),
        }
    }

    #[test]
    fn a_warning_is_told_and_counted_and_decides_nothing() {
        let (mut fleet, launch) = launched();
        let changes = fleet.apply(troubled(&launch, Trouble::Disk), at(1));
        assert_eq!(changes.troubles, [Trouble::Disk]);
        assert_eq!(changes.effects, []);
        let entry = &changes.timeline[0];
        assert_eq!(
            (entry.what.as_str(), entry.detail.as_str()),
            ("disk low", "812 MiB are left")
        );
        assert_eq!(entry.launch.as_ref(), Some(&launch));
    }

    #[test]
    fn the_warnings_of_one_agent_are_kept_up_to_a_number() {
        let (mut fleet, launch) = launched();
        let mut entries = Vec::new();
        for _ in 0..WARNINGS_MAX + 50 {
            entries.extend(told(&mut fleet, troubled(&launch, Trouble::Memory)));
        }
        let (last, kept) = entries.split_last().unwrap();
        assert_eq!(kept.len(), WARNINGS_MAX as usize);
        assert_eq!(last.0, "warnings left out");
    }

    #[test]
    fn an_unknown_or_ended_launch_has_no_warnings() {
        let (mut fleet, launch) = launched();
        let unknown = fleet.apply(troubled(&"nobody".into(), Trouble::Disk), at(1));
        assert_eq!(unknown.refused.len(), 1);
        let reason = "test".to_owned();
        fleet.apply(
            Event::OperatorTerminate {
                launch: launch.clone(),
                reason,
            },
            at(1),
        );
        assert_eq!(told(&mut fleet, troubled(&launch, Trouble::Disk)), []);
    }

    fn distrusted(launch: &LaunchId) -> Event {
        Event::Distrusted {
            launch: launch.clone(),
            reason: "a second enrolment".into(),
        }
    }

    #[test]
    fn a_distrusted_host_is_ended_once_and_its_pool_goes_on() {
        let (mut fleet, launch) = launched();
        let instance = crate::ids::InstanceId::from("i-0123456789abcdef0");
        let enrolled = Event::Enrolled {
            launch: launch.clone(),
            instance: instance.clone(),
        };
        fleet.apply(enrolled.clone(), at(1));
        let changes = fleet.apply(distrusted(&launch), at(1));
        let told: Vec<_> = changes
            .timeline
            .iter()
            .map(|entry| (entry.what.as_str(), entry.detail.as_str()))
            .take(2)
            .collect();
        assert_eq!(
            told,
            [
                ("distrusted", "a second enrolment"),
                ("ended", "not trusted any more: a second enrolment"),
            ]
        );
        let end = Effect::Terminate {
            launch: launch.clone(),
            account: "local".into(),
            instance,
            at_once: true,
        };
        assert!(changes.effects.contains(&end), "{:?}", changes.effects);
        // The job that waits gets another host at once.
        let again = |effect: &Effect| matches!(effect, Effect::Launch { launch: new, .. } if *new != launch);
        assert!(changes.effects.iter().any(again), "{:?}", changes.effects);
        let state = fleet.pool_state(&"linux".into());
        assert_eq!((state.failures, state.closed_until), (0, None));

        assert_eq!(self::told(&mut fleet, distrusted(&launch)), []);
        fleet.apply(enrolled, at(2));
        assert!(fleet.runner(&launch).unwrap().is_over());
    }

    #[test]
    fn a_distrusted_launch_that_is_unknown_changes_nothing() {
        let (mut fleet, _) = launched();
        let changes = fleet.apply(distrusted(&"nobody".into()), at(1));
        assert_eq!(changes.refused.len(), 1);
        assert_eq!(changes.effects, []);
    }

    #[test]
    fn an_instance_is_found_in_its_own_account_only() {
        let (mut fleet, launch) = launched();
        let instance = crate::ids::InstanceId::from("i-0123456789abcdef0");
        let launched = Event::Launched {
            launch: launch.clone(),
            instance: instance.clone(),
            offering: None,
        };
        fleet.apply(launched, at(1));
        let found = fleet.runner_of(&"local".into(), &instance);
        assert_eq!(found.map(|runner| &runner.launch), Some(&launch));
        assert_eq!(fleet.runner_of(&"another".into(), &instance), None);
    }

    #[test]
    fn a_notice_is_told_with_the_words_of_its_source() {
        let (mut fleet, launch) = launched();
        let notice = Event::Interrupted {
            launch,
            kind: Interruption::Lifecycle,
            deadline: None,
            detail: "target state is Terminated".into(),
        };
        let entries = told(&mut fleet, notice);
        assert_eq!(entries[0].0, "interruption notice");
        assert_eq!(
            entries[0].1,
            "Auto Scaling takes the instance away: target state is Terminated"
        );
        let reason = &entries[1];
        assert_eq!(reason.1, "Auto Scaling takes the instance away");
    }
}
