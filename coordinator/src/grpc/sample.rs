//! Fleets for the tests of the services.

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_core::{
    Decision, Fleet, FleetSpec, Instance, Job, JobId, JobReport, JobStatus, Marks, PoolSpec,
    Registration, Repository, Runner, Scope, Shape, SizeRules, Stored, TimeLimits, Work,
};

use crate::identity::spiffe::{AgentId, TrustDomain};

pub(super) const INSTANCE: &str = "i-0123456789abcdef0";

pub(super) fn agent_id() -> AgentId {
    let domain = TrustDomain::new("muster.test").unwrap();
    AgentId::new(&domain, "linux", "local", "local", INSTANCE).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn pool() -> PoolSpec {
    PoolSpec {
        name: "linux".into(),
        scope: Scope::Organization("octo-org".to_owned()),
        runner_group: "Default".to_owned(),
        labels: ["linux".to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 4,
        limits: TimeLimits::default(),
    }
}

pub(super) fn runner(launch: &str, work: Work) -> Runner {
    Runner {
        launch: launch.into(),
        pool: "linux".into(),
        shape: Shape::default(),
        scope: pool().scope,
        account: "local".into(),
        name: format!("muster-linux-{launch}").as_str().into(),
        attempt: 1,
        instance: Instance::Exists {
            id: INSTANCE.into(),
        },
        registration: Registration::None,
        work,
        drain: None,
        job: None,
        job_name: None,
        silent_since: None,
        marks: Marks {
            created_at: at(100),
            launched_at: None,
            enrolled_at: None,
            listening_at: None,
            busy_at: None,
            over_at: None,
            gone_at: None,
            stage_since: at(100),
        },
    }
}

pub(super) fn fleet_with(runners: impl IntoIterator<Item = Runner>) -> Fleet {
    let spec = FleetSpec {
        pools: vec![pool()],
        accounts: BTreeMap::new(),
    };
    let stored = Stored {
        runners: runners.into_iter().collect(),
        ..Stored::default()
    };
    Fleet::restore(spec, stored, 1)
}

pub(super) fn job(status: JobStatus) -> Job {
    Job {
        report: JobReport {
            id: JobId(1),
            run_id: 10,
            run_attempt: Some(1),
            repository: Repository {
                owner: "octo-org".to_owned(),
                name: "octo-repo".to_owned(),
                public: false,
                enterprise: None,
            },
            workflow: Some("ci".to_owned()),
            name: "build".to_owned(),
            labels: vec!["linux".to_owned()],
            status,
            conclusion: None,
            runner_name: None,
            created_at: None,
            started_at: None,
            completed_at: None,
            installation: None,
        },
        known_at: at(100),
        decision: Decision::Served {
            pool: "linux".into(),
            shape: Shape::default(),
        },
        taken_by: None,
        started_at: None,
        completed_at: None,
    }
}
