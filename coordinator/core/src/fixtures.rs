//! Values that the unit tests share.

use std::time::Duration;

use jiff::Timestamp;

use crate::event::{JobReport, JobStatus, Repository};
use crate::ids::JobId;
use crate::pool::{PoolSpec, Scope, SizeRules, TimeLimits};

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
}

pub(crate) fn pool(name: &str) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        scope: Scope::Organization("octo-org".into()),
        runner_group: "Default".into(),
        labels: ["self-hosted", "linux", "x64"].map(str::to_owned).into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 4,
        limits: TimeLimits {
            idle: Duration::from_secs(600),
            ..TimeLimits::default()
        },
        rerun: None,
        canary: None,
    }
}

pub(crate) fn report(id: i64) -> JobReport {
    JobReport {
        id: JobId(id),
        run_id: 1,
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
        created_at: None,
        started_at: None,
        completed_at: None,
        installation: None,
    }
}
