//! What is wrong: the coordinator's word against what agents did, and against the fakes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use futures::stream::{self, StreamExt as _};
use muster_proto::v1::{Runner, RunnerPhase, RunnerState, TimelineEntry};

use super::ground::Ground;
use super::host::Host;
use super::picture::{Picture, timeline};
use crate::world::Operator;

/// Timelines that are read at a time.
const AT_ONCE: usize = 16;
/// What happens to a runner once in its life.
const ONCE: [&str; 5] = [
    "launch decided",
    "launched",
    "enrolled",
    "assigned",
    "listening",
];

/// The longest list of what is wrong that is told.
const SHOWN: usize = 100;

/// Tells what is wrong in the end, and what the process ends with: 0 if that is nothing, 1 otherwise.
pub fn verdict(wrong: &[String], say: impl Fn(&str)) -> ExitCode {
    if wrong.is_empty() {
        say("all is right");
        return ExitCode::SUCCESS;
    }
    say(&format!("{} things are wrong:", wrong.len()));
    for line in wrong.iter().take(SHOWN) {
        say(&format!("  {line}"));
    }
    ExitCode::FAILURE
}

/// What is wrong with the present, if anything. All agents must be connected.
pub(super) fn now(ground: &Ground, picture: &Picture) -> Vec<String> {
    let mut wrong = picture.wrong.clone();
    let agents = ground.board.all();
    let alive = ground.aws.alive().into_iter();
    let alive: BTreeSet<String> = alive.map(|instance| instance.id).collect();
    for instance in &alive {
        if !picture.runners.contains_key(instance) {
            wrong.push(format!(
                "{instance} lives in EC2, and the ledger has no runner for it"
            ));
        }
    }
    for (instance, runner) in &picture.runners {
        let name = &runner.name;
        if !alive.contains(instance) {
            wrong.push(format!(
                "{name} ({instance}) is listed, and EC2 has no such instance"
            ));
            continue;
        }
        match agents.get(instance) {
            Some(host) => {
                let faults = faults(&host.lock(), runner);
                wrong.extend(
                    faults
                        .into_iter()
                        .map(|fault| format!("{name} ({instance}): {fault}")),
                );
            }
            None => wrong.push(format!("{name} ({instance}) has no agent yet")),
        }
    }
    for (instance, host) in &agents {
        let host = host.lock();
        if !host.over && !alive.contains(instance) {
            wrong.push(format!(
                "the agent of {instance} lives, and EC2 has no such instance"
            ));
        }
        wrong.extend(
            host.wrong
                .iter()
                .map(|fault| format!("{instance}: {fault}")),
        );
    }
    wrong.extend(registrations(ground, picture));
    wrong
}

/// What a listed runner has wrong about its agent.
fn faults(host: &Host, runner: &Runner) -> Vec<String> {
    let mut faults = Vec::new();
    if host.over {
        faults.push("its agent is over".to_owned());
    }
    if !runner.connected {
        faults.push("it is listed as not connected".to_owned());
    }
    if !host.connected {
        faults.push("its agent has no stream".to_owned());
    }
    if !host.is_heard() {
        faults.push("events of its agent are not acknowledged".to_owned());
    }
    if runner.draining != host.draining {
        let draining = runner.draining;
        faults.push(format!(
            "draining is {draining}, and its agent was told otherwise"
        ));
    }
    let expected = match host.phase {
        RunnerPhase::Unassigned => RunnerState::Enrolled,
        RunnerPhase::Starting | RunnerPhase::Connected => RunnerState::Starting,
        RunnerPhase::Listening => RunnerState::Idle,
        RunnerPhase::Assigned | RunnerPhase::Running => RunnerState::Busy,
        RunnerPhase::Finished | RunnerPhase::Unspecified => RunnerState::Ending,
    };
    if runner.state() != expected {
        faults.push(format!(
            "it is listed as {:?}, and its agent is {:?}",
            runner.state(),
            host.phase
        ));
    }
    if let Some(name) = host.runner.as_ref().filter(|name| **name != runner.name) {
        faults.push(format!("its agent was assigned {name}"));
    }
    faults
}

/// Runners against GitHub's registrations.
fn registrations(ground: &Ground, picture: &Picture) -> Vec<String> {
    let mut registered: BTreeMap<String, u32> = BTreeMap::new();
    for runner in ground.world.github.runners() {
        *registered.entry(runner.name).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for runner in picture.runners.values() {
        let needed = matches!(runner.state(), RunnerState::Idle | RunnerState::Busy);
        let held = registered.remove(&runner.name).unwrap_or(0);
        if held > 1 || (needed && held == 0) {
            wrong.push(format!("{} has {held} registrations", runner.name));
        }
    }
    // Those of runners whose work is over may be on their way out.
    wrong
}

/// How the present departs from a picture that was taken before: nothing may have changed.
pub(super) fn changed(before: &Picture, after: &Picture) -> Vec<String> {
    let mut wrong = Vec::new();
    for (instance, was) in &before.runners {
        let name = &was.name;
        let Some(is) = after.runners.get(instance) else {
            wrong.push(format!("{name} ({instance}) is not listed any more"));
            continue;
        };
        if is.name != *name {
            wrong.push(format!("{name} ({instance}) is {} now", is.name));
        }
        if is.state() != was.state() {
            let (is, was) = (is.state(), was.state());
            wrong.push(format!("{name} ({instance}) was {was:?} and is {is:?}"));
        }
        if (is.job_id, is.draining, is.github_runner_id)
            != (was.job_id, was.draining, was.github_runner_id)
        {
            wrong.push(format!("{name} ({instance}) was {was:?} and is {is:?}"));
        }
    }
    for (instance, runner) in &after.runners {
        if !before.runners.contains_key(instance) {
            wrong.push(format!("{} ({instance}) was not there before", runner.name));
        }
    }
    wrong
}

/// What happened to a runner twice, or not at all, by its timeline.
pub(super) async fn history(
    ground: &Ground,
    operator: &Operator,
    picture: &Picture,
) -> Vec<String> {
    let agents = ground.board.all();
    let looks = picture.runners.iter().map(|(instance, runner)| {
        let host = agents.get(instance).cloned();
        // One that was launched a moment ago has yet to say so.
        let listens = runner.state() == RunnerState::Idle;
        async move {
            let entries = match timeline(operator, &runner.name).await {
                Ok(entries) => entries,
                Err(error) => return vec![format!("{}: no timeline: {error:#}", runner.name)],
            };
            let warnings = host.map(|host| host.lock().warnings.clone());
            let faults = of_history(&entries, &warnings.unwrap_or_default(), listens);
            let name = |fault: String| format!("{} ({instance}): {fault}", runner.name);
            faults.into_iter().map(name).collect()
        }
    });
    let found: Vec<Vec<String>> = stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    found.into_iter().flatten().collect()
}

fn of_history(entries: &[TimelineEntry], warnings: &[String], listens: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for what in ONCE {
        let count = entries.iter().filter(|entry| entry.what == what).count();
        let yet_to_come = what == "listening" && !listens && count == 0;
        if count != 1 && !yet_to_come {
            wrong.push(format!("{count} entries say {what:?}"));
        }
    }
    for warning in warnings {
        let count = entries
            .iter()
            .filter(|entry| entry.detail == *warning)
            .count();
        if count != 1 {
            wrong.push(format!("{count} entries say {warning:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::plan::Habit;

    fn entry(what: &str, detail: &str) -> TimelineEntry {
        TimelineEntry {
            what: what.to_owned(),
            detail: detail.to_owned(),
            ..TimelineEntry::default()
        }
    }

    #[test]
    fn what_happened_twice_or_not_at_all_is_wrong() {
        let mut entries: Vec<_> = ONCE.iter().map(|what| entry(what, "")).collect();
        entries.push(entry("runs short of disk space", "one"));
        assert_eq!(of_history(&entries, &["one".to_owned()], true), [""; 0]);
        let young: Vec<_> = ["launch decided", "launched", "enrolled", "assigned"]
            .map(|what| entry(what, ""))
            .into();
        assert_eq!(of_history(&young, &[], false), [""; 0]);
        assert_eq!(of_history(&young, &[], true).len(), 1);
        entries.push(entry("listening", ""));
        entries.push(entry("runs short of disk space", "one"));
        let wrong = of_history(&entries, &["one".to_owned(), "two".to_owned()], true);
        assert_eq!(
            wrong,
            [
                "2 entries say \"listening\"",
                "2 entries say \"one\"",
                "0 entries say \"two\""
            ]
        );
    }

    #[test]
    fn a_runner_must_be_listed_as_its_agent_is() {
        let mut host = Host::new(Habit::Steady);
        host.connected = true;
        let mut runner = Runner {
            name: "muster-a".to_owned(),
            connected: true,
            ..Runner::default()
        };
        runner.set_state(RunnerState::Enrolled);
        assert_eq!(faults(&host, &runner).len(), 0);
        runner.set_state(RunnerState::Idle);
        runner.connected = false;
        host.runner = Some("muster-b".to_owned());
        assert_eq!(faults(&host, &runner).len(), 3);
    }

    #[test]
    fn after_a_kill_nothing_may_be_otherwise() {
        let listed = |instance: &str, state: RunnerState| {
            let mut runner = Runner {
                name: format!("muster-{instance}"),
                instance_id: instance.to_owned(),
                ..Runner::default()
            };
            runner.set_state(state);
            (instance.to_owned(), runner)
        };
        let picture = |runners: Vec<_>| Picture {
            runners: runners.into_iter().collect(),
            wrong: Vec::new(),
        };
        let idle = || listed("i-1", RunnerState::Idle);
        let before = picture(vec![idle(), listed("i-2", RunnerState::Busy)]);
        assert_eq!(changed(&before, &before), [""; 0]);
        let after = picture(vec![idle(), listed("i-3", RunnerState::Busy)]);
        assert_eq!(changed(&before, &after).len(), 2);
        let after = picture(vec![idle(), listed("i-2", RunnerState::Idle)]);
        assert_eq!(changed(&before, &after).len(), 1);
    }
}
