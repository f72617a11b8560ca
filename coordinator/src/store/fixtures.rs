//! Stores and values for the tests of the store.

mod home;
mod server;
mod wire;

pub(crate) use self::home::{Backend, Home, home, lead_at_once};
pub(crate) use self::server::{Cluster, in_schema};
pub(crate) use self::wire::{Mode, Wire};

use jiff::Timestamp;
use muster_core::{
    Decision, Drain, Effect, GithubRunnerId, Instance, InstanceId, Job, JobId, JobReport,
    JobStatus, LaunchId, Lineage, Marks, PoolName, Refusal, Registration, Repository, Runner,
    RunnerName, Scope, Shape, TimelineEntry, Trialed, Work,
};

use super::Delivery;

/// A time so many seconds after a fixed one.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub(crate) fn delivery(guid: &str) -> Delivery {
    Delivery {
        guid: guid.to_owned(),
        event: "workflow_job".to_owned(),
        body: format!("{{\"guid\":\"{guid}\"}}").into_bytes(),
        received_at: at(0),
    }
}

pub(crate) fn job(id: i64, status: JobStatus, salt: u32) -> Job {
    let served = !salt.is_multiple_of(5);
    Job {
        report: JobReport {
            id: JobId(id),
            run_id: id * 10,
            run_attempt: (!salt.is_multiple_of(3)).then_some(salt),
            repository: Repository {
                owner: "octo-org".to_owned(),
                name: format!("repo-{salt}"),
                public: false,
                enterprise: None,
            },
            workflow: Some("ci".to_owned()),
            name: "build 'quoted' \"name\" – ünïcode".to_owned(),
            labels: vec!["self-hosted".to_owned(), "muster/cpu=8".to_owned()],
            status,
            conclusion: None,
            runner_name: None,
            created_at: Some(at(-5)),
            started_at: None,
            completed_at: None,
            installation: Some(7),
        },
        known_at: at(0),
        decision: if served {
            Decision::Served {
                pool: PoolName::from("linux"),
                shape: Shape::default(),
            }
        } else {
            Decision::Refused(vec![Refusal {
                pool: PoolName::from("linux"),
                reason: "it lacks a label".to_owned(),
            }])
        },
        taken_by: None,
        started_at: None,
        completed_at: (status == JobStatus::Completed).then(|| at(60)),
        closed: None,
        doubted: false,
        missing_since: None,
        passed_over: false,
        cut_short: None,
        lineage: Lineage::default(),
    }
}

pub(crate) fn runner(launch: &str, salt: u32) -> Runner {
    let id = InstanceId::new(format!("i-{salt:017x}"));
    let instance = match salt % 4 {
        0 => Instance::Requested,
        1 => Instance::Exists { id },
        2 => Instance::Ending {
            id,
            asked_at: at(1),
        },
        _ => Instance::Gone { id: Some(id) },
    };
    Runner {
        launch: LaunchId::from(launch),
        pool: PoolName::from("linux"),
        shape: Shape::default(),
        scope: Scope::Organization("octo-org".into()),
        account: "local".into(),
        name: RunnerName::new(format!("muster-{launch}")),
        attempt: 1,
        offering: None,
        instance,
        registration: Registration::Exists {
            id: Some(GithubRunnerId(42)),
        },
        work: Work::Over {
            outcome: None,
            reason: "test".to_owned(),
        },
        drain: Some(Drain {
            reason: "spot".to_owned(),
            since: at(1),
            deadline: Some(at(120)),
            asked_at: at(1),
            retired: false,
        }),
        job: Some(JobId(3)),
        job_name: None,
        held_up: None,
        silent_since: None,
        heard_at: None,
        warnings: 0,
        notice: None,
        cut_short: None,
        heard_through: 0,
        trialed: Some(Trialed {
            canary: salt.is_multiple_of(2),
            tally: 1,
            sign: None,
        }),
        marks: Marks {
            withdrawn_at: None,
            created_at: at(0),
            launched_at: Some(at(1)),
            enrolled_at: None,
            registered_at: None,
            listening_at: None,
            busy_at: None,
            over_at: None,
            instance_gone_at: None,
            gone_at: None,
            stage_since: at(2),
        },
    }
}

pub(crate) fn entry(seconds: i64, what: &str) -> TimelineEntry {
    TimelineEntry {
        at: at(seconds),
        what: what.to_owned(),
        detail: String::new(),
        pool: None,
        launch: None,
        runner: None,
        job: None,
    }
}

pub(crate) fn launch(id: &str) -> Effect {
    Effect::Launch {
        launch: LaunchId::from(id),
        pool: PoolName::from("linux"),
        shape: Shape::default(),
        image: Some("ami-0123456789abcdef0".into()),
    }
}

pub(crate) fn terminate(launch: &str, instance: &str) -> Effect {
    Effect::Terminate {
        launch: LaunchId::from(launch),
        account: "local".into(),
        instance: InstanceId::from(instance),
        at_once: true,
    }
}
