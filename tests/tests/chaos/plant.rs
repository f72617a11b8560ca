//! The fakes, the configuration, and the way to the coordinator that is up at present.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use muster_coordinator::clock;
use muster_coordinator::compute::ec2::{
    Ec2Pool, Ec2Settings, ImageSource, SpotStrategy, Template, TemplateKey,
};
use muster_core::{FleetSpec, PoolSpec, Scope, SizeRules, TimeLimits};
use muster_tests::fakes::Clock;
use muster_tests::fakes::aws::{self, Chaos, FakeAws, Stages, Subnet};
use muster_tests::fakes::github::{self, FakeGithub};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::coordinator::Link;
use crate::tally::Tally;

/// Name of the account in the configuration.
pub(crate) const ACCOUNT: &str = "main";
/// Name of the pool.
pub(crate) const POOL: &str = "linux";
/// The coordinator's name, and so the value of its tag.
pub(crate) const COORDINATOR: &str = "chaos";
/// The types of the pool: some of two processors, some of four.
const TYPES: [&str; 11] = [
    "m7i.large",
    "m6i.large",
    "m6a.large",
    "m5.large",
    "c7i.large",
    "r7i.large",
    "t3.medium",
    "m7i.xlarge",
    "c7i.xlarge",
    "c6i.xlarge",
    "m7a.xlarge",
];

/// What goes wrong how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    /// Of EC2, SSM and SQS.
    pub(crate) aws: Chaos,
    /// Spot instances that are to be taken back.
    pub(crate) interrupted: f64,
    /// Jobs with whose webhooks something happens.
    pub(crate) webhook: f64,
    /// Jobs at whose time a call to GitHub fails.
    pub(crate) github: f64,
}

/// All that a coordinator works with.
pub(crate) struct Plant {
    pub(crate) seed: u64,
    pub(crate) odds: Odds,
    pub(crate) aws: Arc<FakeAws>,
    pub(crate) github: Arc<FakeGithub>,
    pub(crate) fleet: FleetSpec,
    pub(crate) ec2: Ec2Settings,
    pub(crate) database: PathBuf,
    /// The coordinator that is up, if one is.
    pub(crate) link: watch::Sender<Option<Arc<Link>>>,
    tally: Mutex<Tally>,
    _directory: tempfile::TempDir,
}

impl Plant {
    /// Starts the fakes. Their time is tokio's, and so is the coordinator's.
    pub(crate) async fn build(seed: u64, max: u32, odds: Odds) -> Arc<Self> {
        let (base, since) = (Timestamp::now(), Instant::now());
        clock::follow_tokio(base, since);
        let time = Clock::Tokio { base, since };
        let aws = FakeAws::start(aws::Options {
            clock: time.clone(),
            stages: Stages {
                pending: Duration::from_secs(4),
                shutting_down: Duration::from_secs(6),
                // Shorter than at EC2, as what is described costs time with each listing.
                terminated: Duration::from_mins(8),
                unknown: Duration::from_secs(2),
            },
            ..aws::Options::default()
        })
        .await
        .unwrap();
        let github = FakeGithub::start(github::Options {
            clock: time,
            enforce_limits: false,
            // By the system's time, to which the coordinator's doesn't keep.
            token_lifetime: Duration::from_hours(10_000),
            poll_hold: Duration::from_secs(50),
            ..github::Options::default()
        })
        .await
        .unwrap();
        let home = aws.home();
        for subnet in aws.subnets(&home) {
            // No address ever comes back.
            let free = 1_000_000;
            aws.add_subnet(&home, Subnet { free, ..subnet });
        }
        aws.set_chaos(Some(odds.aws));
        let directory = tempfile::tempdir().unwrap();
        Arc::new(Self {
            seed,
            odds,
            fleet: fleet(max),
            ec2: settings(&aws),
            aws: Arc::new(aws),
            github: Arc::new(github),
            database: directory.path().join("muster.db"),
            link: watch::Sender::new(None),
            tally: Mutex::default(),
            _directory: directory,
        })
    }

    /// The coordinator that is up; waits for one.
    pub(crate) async fn link(&self) -> Arc<Link> {
        let mut link = self.link.subscribe();
        let up = link.wait_for(Option::is_some).await;
        up.ok().and_then(|link| link.clone()).unwrap()
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fleet(max: u32) -> FleetSpec {
    let pool = PoolSpec {
        name: POOL.into(),
        scope: Scope::Organization("acme".to_owned()),
        runner_group: "Default".to_owned(),
        labels: ["self-hosted", "linux", "x64"].map(str::to_owned).into(),
        sizes: SizeRules {
            cpus: [2, 4].into(),
            on_demand: true,
            ..SizeRules::default()
        },
        public_repositories: false,
        account: ACCOUNT.into(),
        min_idle: 0,
        max,
        limits: TimeLimits {
            idle: Duration::from_mins(2),
            ..TimeLimits::default()
        },
        rerun: None,
        canary: None,
    };
    FleetSpec {
        pools: vec![pool],
        accounts: BTreeMap::from([(ACCOUNT.into(), max)]),
    }
}

fn settings(aws: &FakeAws) -> Ec2Settings {
    let home = aws.home();
    let pool = Ec2Pool {
        template: Template {
            key: TemplateKey::Name("muster".to_owned()),
            version: "$Default".to_owned(),
        },
        image: ImageSource::Template,
        canary: None,
        subnets: aws.subnets(&home).into_iter().map(|it| it.id).collect(),
        types: TYPES.map(str::to_owned).into(),
        market: muster_core::Market::Spot,
        on_demand_fallback: true,
        strategy: SpotStrategy::PriceCapacityOptimized,
    };
    Ec2Settings {
        name: ACCOUNT.into(),
        account_id: home.account.clone(),
        region: home.region.clone(),
        role: None,
        endpoint: aws.url.parse().ok(),
        queue_url: Some(aws.queue_url(&home)),
        coordinator: COORDINATOR.to_owned(),
        pools: BTreeMap::from([(POOL.into(), pool)]),
    }
}
