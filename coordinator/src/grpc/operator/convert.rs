//! From the core's records to the wire's.

use muster_core::{
    Decision, Job, JobStatus, PoolFigures, PoolSpec, PoolState, Runner, Stage, Tally, Trial, Work,
};
use muster_proto::v1;

use crate::github::survey::Surveyed;
use crate::grpc::time::{duration, to_wire};
use crate::presence::Seen;
use crate::runner_versions::ImageRunner;
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
        images: Vec::new(),
        canary: state.trial.as_ref().map(canary),
    }
}

fn canary(trial: &Trial) -> v1::Canary {
    let stopped = trial.stopped.as_ref();
    v1::Canary {
        image_id: trial.image.to_string(),
        launches: Some(tally(trial.canary)),
        own_launches: Some(tally(trial.own)),
        stopped_at: stopped.map(|stopped| to_wire(stopped.at)),
        stopped: stopped.map(|it| it.reason.clone()).unwrap_or_default(),
    }
}

fn tally(tally: Tally) -> v1::ImageLaunches {
    v1::ImageLaunches {
        decided: tally.launches,
        good: tally.good,
        failed: tally.failed,
    }
}

pub(super) fn image(it: &ImageRunner) -> v1::PoolImage {
    let age = it.age.as_ref();
    v1::PoolImage {
        image_id: it.image.to_string(),
        canary: it.canary,
        runner_version: it.version.map(|it| it.to_string()).unwrap_or_default(),
        newest_runner_version: age.map(|it| it.newest.to_string()).unwrap_or_default(),
        behind: age.map(|it| duration(it.behind)),
        behind_at_least: age.is_some_and(|it| it.at_least),
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
    use muster_core::{Drain, Outcome, Refusal, Stopped, TimelineEntry};

    use super::*;
    use crate::grpc::sample::{
        INSTANCE, at, job as sample_job, pool as sample_pool, runner as row,
    };
    use crate::runner_versions::{Age, Release, RunnerVersion};

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
    fn a_pool_shows_how_its_canary_does() {
        let tally = |number, launches, good, failed| Tally {
            number,
            launches,
            good,
            failed,
        };
        let state = PoolState {
            trial: Some(Trial {
                image: "ami-new".into(),
                own_image: None,
                owed: 0,
                canary: tally(1, 21, 12, 8),
                own: tally(2, 189, 178, 2),
                stopped: Some(Stopped {
                    at: at(7),
                    reason: "8 of 20 failed".to_owned(),
                }),
            }),
            ..PoolState::default()
        };
        let shown = pool(&sample_pool(), &state, &PoolFigures::default());
        let shown = shown.canary.unwrap();
        let launches = shown.launches.unwrap();
        assert_eq!(shown.image_id, "ami-new");
        assert_eq!(
            (launches.decided, launches.good, launches.failed),
            (21, 12, 8)
        );
        assert_eq!(shown.own_launches.unwrap().failed, 2);
        assert_eq!(shown.stopped, "8 of 20 failed");
        assert_eq!(shown.stopped_at, Some(to_wire(at(7))));
    }

    #[test]
    fn an_image_shows_what_is_known_of_its_runner() {
        let version = RunnerVersion::parse("2.336.0");
        let mut it = ImageRunner {
            image: "ami-old".into(),
            canary: false,
            version,
            age: None,
        };
        let shown = image(&it);
        assert_eq!(shown.runner_version, "2.336.0");
        assert_eq!(
            (shown.behind, shown.newest_runner_version.as_str()),
            (None, "")
        );
        let newer = Release {
            version: RunnerVersion::parse("2.337.0").unwrap(),
            published_at: at(0),
        };
        it.age = Age::of(version.unwrap(), &[newer], at(86_400));
        let shown = image(&it);
        assert_eq!(shown.newest_runner_version, "2.337.0");
        assert_eq!(shown.behind.map(|behind| behind.seconds), Some(86_400));
        assert!(shown.behind_at_least, "no older release is known");
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
