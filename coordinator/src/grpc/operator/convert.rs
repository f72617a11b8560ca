//! From the core's records to the wire's.

use muster_core::{
    Decision, Job, JobStatus, PoolFigures, PoolSpec, PoolState, Runner, Stage, Work,
};
use muster_proto::v1;

use crate::github::survey::Surveyed;
use crate::grpc::time::{duration, to_wire};
use crate::presence::Seen;
use crate::store::{OperatorAction, StoredEntry};

pub(super) fn pool(spec: &PoolSpec, state: &PoolState, figures: &PoolFigures) -> v1::Pool {
    let paused = state.paused.as_ref().map(|by| format!("paused {by}"));
    v1::Pool {
        name: spec.name.to_string(),
        labels: spec.labels.iter().cloned().collect(),
        scope: spec.scope.to_string(),
        min_idle: spec.min_idle,
        max: spec.max,
        paused: state.paused.is_some(),
        queued_jobs: figures.queued_jobs,
        booting: figures.booting,
        idle: figures.idle,
        busy: figures.busy,
        ending: figures.ending,
        limited_by: figures.limited_by.clone().or(paused).unwrap_or_default(),
    }
}

pub(super) fn survey((owner, surveyed): (String, Surveyed)) -> v1::Survey {
    v1::Survey {
        owner,
        repositories: as_u32(surveyed.repositories),
        hot: as_u32(surveyed.hot),
        open_runs: as_u32(surveyed.runs),
        notice_within: Some(duration(surveyed.notice_within)),
        oldest_look: Some(duration(surveyed.oldest_look)),
        calls_per_minute: surveyed.calls_a_minute,
        held_up: surveyed.held_up.unwrap_or_default(),
    }
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn runner(runner: &Runner, seen: Option<&Seen>) -> v1::Runner {
    let reason = match (&runner.work, &runner.drain) {
        (Work::Over { reason, .. }, _) => reason.clone(),
        (_, Some(drain)) => drain.reason.clone(),
        (_, None) => runner.held_up.clone().unwrap_or_default(),
    };
    v1::Runner {
        name: runner.name.to_string(),
        pool: runner.pool.to_string(),
        state: stage(runner.stage()).into(),
        instance_id: runner
            .instance_id()
            .map(ToString::to_string)
            .unwrap_or_default(),
        github_runner_id: runner.github_id().map_or(0, |id| id.0),
        job_id: runner.job.map_or(0, |id| id.0),
        draining: runner.drain.is_some(),
        reason,
        created_at: Some(to_wire(runner.marks.created_at)),
        state_since: Some(to_wire(runner.marks.stage_since)),
        connected: seen.is_some_and(|seen| seen.connected),
        last_seen_at: seen.map(|seen| to_wire(seen.last_seen)),
    }
}

fn stage(stage: Stage) -> v1::RunnerState {
    match stage {
        Stage::Launching => v1::RunnerState::Launching,
        Stage::Booting => v1::RunnerState::Booting,
        Stage::Enrolled => v1::RunnerState::Enrolled,
        Stage::Starting => v1::RunnerState::Starting,
        Stage::Idle => v1::RunnerState::Idle,
        Stage::Busy => v1::RunnerState::Busy,
        Stage::Found => v1::RunnerState::Found,
        Stage::Ending => v1::RunnerState::Ending,
        Stage::Gone => v1::RunnerState::Gone,
    }
}

pub(super) fn job(job: &Job) -> v1::Job {
    let report = &job.report;
    let refusals = match &job.decision {
        Decision::Served { .. } => Vec::new(),
        Decision::Refused(refusals) => refusals
            .iter()
            .map(|refusal| format!("{}: {}", refusal.pool, refusal.reason))
            .collect(),
    };
    v1::Job {
        id: job.id().0,
        repository: report.repository.to_string(),
        workflow: report.workflow.clone().unwrap_or_default(),
        name: report.name.clone(),
        run_id: report.run_id,
        run_attempt: report.run_attempt.unwrap_or(1),
        labels: report.labels.clone(),
        state: status(job.status()).into(),
        conclusion: report.conclusion.clone().unwrap_or_default(),
        pool: job.pool().map(ToString::to_string).unwrap_or_default(),
        runner: report.runner_name.clone().unwrap_or_default(),
        queued_at: Some(to_wire(job.queued_at())),
        started_at: job.started_at.map(to_wire),
        completed_at: job.completed_at.map(to_wire),
        refusals,
        interrupted: job
            .cut_short
            .as_ref()
            .map(|cut| cut.cause.words().to_owned())
            .unwrap_or_default(),
        rerun: job
            .cut_short
            .as_ref()
            .and_then(|cut| cut.rerun.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        rerun_of: job.lineage.of.map_or(0, |id| id.0),
    }
}

fn status(status: JobStatus) -> v1::JobState {
    match status {
        JobStatus::Waiting => v1::JobState::Waiting,
        JobStatus::Queued => v1::JobState::Queued,
        JobStatus::InProgress => v1::JobState::InProgress,
        JobStatus::Completed => v1::JobState::Completed,
    }
}

/// The status that a filter asks for; none for any.
pub(super) fn wanted(state: v1::JobState) -> Option<JobStatus> {
    match state {
        v1::JobState::Unspecified => None,
        v1::JobState::Waiting => Some(JobStatus::Waiting),
        v1::JobState::Queued => Some(JobStatus::Queued),
        v1::JobState::InProgress => Some(JobStatus::InProgress),
        v1::JobState::Completed => Some(JobStatus::Completed),
    }
}

pub(super) fn entry(stored: StoredEntry) -> v1::TimelineEntry {
    let entry = stored.entry;
    let launch = entry.launch.map(|launch| launch.to_string());
    v1::TimelineEntry {
        sequence: stored.sequence,
        at: Some(to_wire(entry.at)),
        what: entry.what,
        detail: entry.detail,
        pool: entry.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        // A launch that has no name yet is known by its id.
        runner: entry
            .runner
            .map(|runner| runner.to_string())
            .or(launch)
            .unwrap_or_default(),
        job_id: entry.job.map_or(0, |id| id.0),
    }
}

pub(super) fn action(action: OperatorAction) -> v1::OperatorAction {
    v1::OperatorAction {
        at: Some(to_wire(action.at)),
        operator: action.operator,
        method: action.method,
        target: action.target,
        reason: action.reason,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use muster_core::{Drain, Outcome, Refusal, TimelineEntry};

    use super::*;
    use crate::grpc::sample::{
        INSTANCE, at, job as sample_job, pool as sample_pool, runner as row,
    };

    #[test]
    fn a_draining_runner_says_why_until_it_is_over() {
        let mut record = row("launch-a", Work::Idle);
        record.drain = Some(Drain {
            reason: "by alice: kernel update".to_owned(),
            since: at(1),
            deadline: None,
            asked_at: at(1),
            retired: false,
        });
        let shown = runner(&record, None);
        assert_eq!(shown.state(), v1::RunnerState::Idle);
        assert!(shown.draining && !shown.connected);
        assert_eq!(shown.reason, "by alice: kernel update");
        assert_eq!(shown.instance_id, INSTANCE);
        record.work = Work::Over {
            outcome: Some(Outcome::Unused),
            reason: "drained".to_owned(),
        };
        let seen = Seen {
            connected: true,
            last_seen: at(5),
            sample: None,
        };
        let shown = runner(&record, Some(&seen));
        assert_eq!(shown.state(), v1::RunnerState::Ending);
        assert_eq!(shown.reason, "drained");
        assert!(shown.connected);
    }

    #[test]
    fn a_refused_job_shows_each_reason() {
        let mut record = sample_job(JobStatus::Queued);
        record.decision = Decision::Refused(vec![Refusal {
            pool: "linux".into(),
            reason: "no label gpu".to_owned(),
        }]);
        let shown = job(&record);
        assert_eq!(shown.refusals, ["linux: no label gpu"]);
        assert_eq!(shown.pool, "");
        assert_eq!(shown.state(), v1::JobState::Queued);
        assert_eq!(shown.repository, "octo-org/octo-repo");
    }

    #[test]
    fn a_paused_pool_says_by_whom() {
        let state = PoolState {
            paused: Some("by alice: broken image".to_owned()),
            ..PoolState::default()
        };
        let shown = pool(&sample_pool(), &state, &PoolFigures::default());
        assert!(shown.paused);
        assert_eq!(shown.limited_by, "paused by alice: broken image");
    }

    #[test]
    fn an_entry_of_a_launch_without_a_name_shows_its_id() {
        let shown = entry(StoredEntry {
            sequence: 7,
            entry: TimelineEntry {
                at: Timestamp::UNIX_EPOCH,
                what: "launched".to_owned(),
                detail: String::new(),
                pool: None,
                launch: Some("launch-a".into()),
                runner: None,
                job: None,
            },
        });
        assert_eq!((shown.runner.as_str(), shown.job_id), ("launch-a", 0));
    }
}
