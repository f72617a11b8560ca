//! A fleet and what the tests tell it.

use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    Cause, Changes, Effect, Event, Fleet, FleetSpec, GithubRunnerId, HostPhase, InstanceId, Job,
    JobId, JobReport, JobStatus, LaunchId, Market, Outcome, PoolSpec, Repository, RerunCall,
    RerunPolicy, RunAttempt, RunnerName, Scope, SizeRules, Stored, TimeLimits,
};

/// A time, in seconds after the beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A pool of an organisation whose runners carry its name as a label.
pub(crate) fn pool(name: &str) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        scope: Scope::Organization("octo-org".into()),
        runner_group: "Default".into(),
        labels: ["self-hosted".to_owned(), name.to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 8,
        limits: TimeLimits {
            lifetime: Duration::from_secs(48 * 3_600),
            ..TimeLimits::default()
        },
        rerun: None,
        canary: None,
    }
}

/// A queued job of the pool `linux`, made at the beginning.
pub(crate) fn report(id: i64) -> JobReport {
    JobReport {
        id: JobId(id),
        run_id: 100,
        run_attempt: Some(1),
        repository: Repository {
            owner: "octo-org".into(),
            name: "hello".into(),
            public: false,
            enterprise: None,
        },
        workflow: Some("ci".into()),
        name: format!("job {id}"),
        labels: vec!["self-hosted".into(), "linux".into()],
        status: JobStatus::Queued,
        conclusion: None,
        runner_name: None,
        created_at: Some(at(0)),
        started_at: None,
        completed_at: None,
        installation: Some(1),
    }
}

/// The job, once a runner has it.
pub(crate) fn started(id: i64, runner: &str, second: i64) -> JobReport {
    JobReport {
        status: JobStatus::InProgress,
        runner_name: Some(runner.to_owned()),
        started_at: Some(at(second)),
        ..report(id)
    }
}

/// The job, once it has ended on a runner.
pub(crate) fn ended(id: i64, runner: &str, conclusion: &str, second: i64) -> JobReport {
    JobReport {
        status: JobStatus::Completed,
        conclusion: Some(conclusion.to_owned()),
        completed_at: Some(at(second)),
        ..started(id, runner, second)
    }
}

pub(crate) fn webhook(report: JobReport) -> Event {
    Event::Job(Box::new(report))
}

pub(crate) fn look(report: JobReport) -> Event {
    Event::JobFound(Box::new(report))
}

/// How far a runner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Step {
    /// GitHub has its registration.
    Minted,
    /// Its agent has it, too.
    Accepted,
    /// It waits for a job.
    Listens,
}

/// A fleet at a time.
pub(crate) struct Tester {
    pub(crate) fleet: Fleet,
    pub(crate) spec: FleetSpec,
    pub(crate) second: i64,
}

impl Tester {
    pub(crate) fn new(pools: Vec<PoolSpec>) -> Self {
        let accounts = [("local".into(), 20)].into();
        let spec = FleetSpec { pools, accounts };
        Self {
            fleet: Fleet::restore(spec.clone(), Stored::default(), 1),
            spec,
            second: 0,
        }
    }

    pub(crate) fn tell(&mut self, event: Event) -> Changes {
        self.fleet.apply(event, at(self.second))
    }

    /// Lets time pass, looked at once at its end.
    pub(crate) fn pass(&mut self, seconds: i64) -> Changes {
        self.second += seconds;
        self.tell(Event::Tick)
    }

    pub(crate) fn job(&self, id: i64) -> &Job {
        self.fleet.job(JobId(id)).unwrap()
    }

    pub(crate) fn queued(&self, pool: &str) -> u32 {
        self.fleet
            .figures(&pool.into(), at(self.second))
            .queued_jobs
    }

    /// The launches of a pool, the oldest first.
    pub(crate) fn launches(&self, pool: &str) -> Vec<LaunchId> {
        let mut runners: Vec<_> = self
            .fleet
            .runners()
            .filter(|runner| runner.pool.as_str() == pool)
            .collect();
        runners.sort_by_key(|runner| runner.marks.created_at);
        runners.iter().map(|runner| runner.launch.clone()).collect()
    }

    pub(crate) fn name(&self, launch: &LaunchId) -> RunnerName {
        self.fleet.runner(launch).unwrap().name.clone()
    }

    pub(crate) fn instance(launch: &LaunchId) -> InstanceId {
        InstanceId::new(format!("i-{launch}"))
    }

    /// Brings a launch so far that its runner listens.
    pub(crate) fn listens(&mut self, launch: &LaunchId) -> RunnerName {
        self.comes_to(launch, Step::Listens)
    }

    /// Brings a launch so far.
    pub(crate) fn comes_to(&mut self, launch: &LaunchId, step: Step) -> RunnerName {
        let name = self.name(launch);
        let launch = launch.clone();
        self.tell(Event::Enrolled {
            launch: launch.clone(),
            instance: Self::instance(&launch),
        });
        self.tell(Event::AgentConnected {
            launch: launch.clone(),
            phase: HostPhase::Unassigned,
            assignment: None,
            heard_at: at(self.second),
        });
        self.tell(Event::Minted {
            launch: launch.clone(),
            name: name.clone(),
            id: GithubRunnerId(7),
        });
        if step >= Step::Accepted {
            self.tell(Event::AssignmentAccepted {
                launch: launch.clone(),
                name: name.clone(),
            });
        }
        if step >= Step::Listens {
            self.phase(&launch, HostPhase::Listening);
        }
        name
    }

    pub(crate) fn phase(&mut self, launch: &LaunchId, phase: HostPhase) -> Changes {
        self.tell(Event::PhaseChanged {
            launch: launch.clone(),
            phase,
            job_name: None,
        })
    }
}

/// The words of the timeline.
pub(crate) fn told(changes: &Changes) -> Vec<&str> {
    changes
        .timeline
        .iter()
        .map(|entry| entry.what.as_str())
        .collect()
}

/// How many launches follow.
pub(crate) fn launched(changes: &Changes) -> usize {
    let launch = |effect: &&Effect| matches!(effect, Effect::Launch { .. });
    changes.effects.iter().filter(launch).count()
}

pub(crate) fn finished(launch: &LaunchId, outcome: Outcome) -> Event {
    Event::Finished {
        launch: launch.clone(),
        outcome,
        reason: "as the agent says".into(),
    }
}

pub(crate) fn gone(launch: &LaunchId) -> Event {
    Event::InstanceGone {
        launch: launch.clone(),
        instance: Tester::instance(launch),
    }
}

pub(crate) fn first_attempt() -> RunAttempt {
    RunAttempt {
        repository: report(1).repository,
        run_id: 100,
        attempt: 1,
    }
}

pub(crate) fn calls(changes: &Changes) -> Vec<&RerunCall> {
    let effects = changes.effects.iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Rerun { call, .. } => Some(call),
            _ => None,
        })
        .collect()
}

/// A job that runs, and the runner that has it.
pub(crate) fn running(tester: &mut Tester, id: i64) -> (LaunchId, RunnerName) {
    let before = tester.launches("linux");
    tester.tell(webhook(report(id)));
    let launch = tester
        .launches("linux")
        .into_iter()
        .find(|launch| !before.contains(launch))
        .unwrap();
    let name = tester.listens(&launch);
    tester.tell(webhook(started(id, name.as_str(), 9)));
    tester.phase(&launch, HostPhase::Running);
    (launch, name)
}

pub(crate) fn restart(tester: &mut Tester) {
    let stored = Stored {
        jobs: tester.fleet.jobs().cloned().collect(),
        runners: tester.fleet.runners().cloned().collect(),
        ..Stored::default()
    };
    tester.fleet = Fleet::restore(tester.spec.clone(), stored, 2);
    tester.tell(Event::Restarted);
}

/// How many runs are watched from now on.
pub(crate) fn watches(changes: &Changes) -> usize {
    let watch = |effect: &&Effect| matches!(effect, Effect::WatchRun { .. });
    changes.effects.iter().filter(watch).count()
}

/// What is done about a job that was cut short.
pub(crate) fn rerun(tester: &Tester, id: i64) -> Option<String> {
    let cut = tester.job(id).cut_short.as_ref()?;
    cut.rerun.as_ref().map(ToString::to_string)
}

/// Why a job was cut short.
pub(crate) fn cause(tester: &Tester, id: i64) -> Option<Cause> {
    tester.job(id).cut_short.as_ref().map(|cut| cut.cause)
}

/// A pool that runs interrupted jobs again once, on-demand.
pub(crate) fn rerunning() -> Tester {
    let mut linux = pool("linux");
    linux.rerun = Some(RerunPolicy {
        attempts: 1,
        market: Some(Market::OnDemand),
    });
    Tester::new(vec![linux])
}
