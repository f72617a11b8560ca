//! A pool's canary: its share of what EC2 launches, and its end when its hosts never enrol.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use muster_coordinator::compute::ec2::ImageSource;
use muster_coordinator::engine::{self, Engine, Executor, Parts};
use muster_coordinator::presence::Presence;
use muster_coordinator::telemetry::Metrics;
use muster_core::{
    CanaryRules, Event, FleetSpec, InstanceId, JobId, JobReport, JobStatus, LaunchId, PoolSpec,
    PoolState, Repository, Runner, Scope, SizeRules, Stage, TimeLimits,
};
use muster_tests::fakes::github::{self, FakeGithub};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kit::{Home, PATIENCE};
use crate::versions::{add_image, client, put_parameter};

const OWN: &str = "ami-0123456789abcde01";
const CANARY: &str = "ami-0123456789abcde02";
const BETTER: &str = "ami-0123456789abcde03";

fn spec() -> FleetSpec {
    let pool = PoolSpec {
        name: "linux".into(),
        scope: Scope::Organization("acme".to_owned()),
        runner_group: "Default".to_owned(),
        labels: ["self-hosted".to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "main".into(),
        min_idle: 0,
        max: 100,
        limits: TimeLimits::default(),
        rerun: None,
        canary: Some(CanaryRules {
            share: 25,
            least: 3,
            margin: 10,
        }),
    };
    FleetSpec {
        pools: vec![pool],
        accounts: [("main".into(), 100)].into(),
    }
}

fn job(id: i64) -> Event {
    Event::Job(Box::new(JobReport {
        id: JobId(id),
        run_id: id,
        run_attempt: Some(1),
        repository: Repository {
            owner: "acme".to_owned(),
            name: "hello".to_owned(),
            public: false,
            enterprise: None,
        },
        workflow: None,
        name: format!("job {id}"),
        labels: vec!["self-hosted".to_owned()],
        status: JobStatus::Queued,
        conclusion: None,
        runner_name: None,
        created_at: None,
        started_at: None,
        completed_at: None,
        installation: None,
    }))
}

/// An engine over a home's provider.
struct Up {
    engine: Engine,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Up {
    async fn start(home: &Home, github: &FakeGithub) -> Self {
        let (metrics, stop) = (Metrics::new().unwrap(), CancellationToken::new());
        let spec = spec();
        let providers = HashMap::from([("main".into(), home.provider.clone())]);
        let (engine, runnable) = Engine::new(Parts {
            store: Arc::new(home.store.clone()),
            spec: spec.clone(),
            presence: Presence::default(),
            executor: Executor::new(client(github), providers, &spec.pools, metrics.clone()),
            metrics: metrics.clone(),
            list_first: true,
        })
        .await
        .unwrap();
        let mut tasks = JoinSet::new();
        let running = runnable.run(stop.clone());
        tasks.spawn(async move { running.await.unwrap() });
        tasks.spawn(engine::images(
            engine.clone(),
            home.provider.clone(),
            stop.clone(),
        ));
        tasks.spawn(engine::sweep(
            engine.clone(),
            "main".into(),
            home.provider.clone(),
            Duration::from_millis(200),
            stop.clone(),
        ));
        Self {
            engine,
            metrics,
            stop,
            tasks,
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    async fn pool(&self) -> PoolState {
        let read = |fleet: &muster_core::Fleet| fleet.pool_state(&"linux".into());
        self.engine.query(read).await.unwrap()
    }

    async fn queue(&self, jobs: std::ops::Range<i64>) {
        for id in jobs {
            self.engine.submit(job(id)).await.unwrap();
        }
    }

    /// Waits until something holds of the pool.
    async fn until(&self, what: &str, holds: impl Fn(&PoolState) -> bool) -> PoolState {
        let waiting = async {
            loop {
                let pool = self.pool().await;
                if holds(&pool) {
                    return pool;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{what} in time"))
    }

    /// The hosts that boot, once there are so many: each with its instance, and whether it is from the canary.
    async fn booting(&self, count: usize) -> Vec<(LaunchId, InstanceId, bool)> {
        let read = |fleet: &muster_core::Fleet| {
            let booting = |it: &&Runner| it.stage() == Stage::Booting;
            let runners = fleet.runners().filter(booting);
            let shown = runners.map(|it| {
                let instance = it.instance_id().cloned().unwrap();
                (it.launch.clone(), instance, it.is_canary())
            });
            shown.collect::<Vec<_>>()
        };
        let waiting = async {
            loop {
                let booting = self.engine.query(read).await.unwrap();
                if booting.len() == count {
                    return booting;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{count} hosts boot in time"))
    }
}

/// How many instances were ever made from each image.
fn made(home: &Home) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for instance in home.aws.instances() {
        *made.entry(instance.image_id).or_default() += 1;
    }
    made
}

fn of(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let counts = counts.iter();
    counts
        .map(|(image, count)| ((*image).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn a_canary_takes_its_share_and_is_stopped_when_its_hosts_never_enrol() {
    let github = FakeGithub::start(github::Options::default()).await.unwrap();
    let home = Home::of_pool(|pool| {
        pool.image = ImageSource::Id(OWN.to_owned());
        pool.canary = Some(ImageSource::Parameter("/muster/ami/next".to_owned()));
    })
    .await;
    for image in [OWN, CANARY, BETTER] {
        add_image(&home, image, "2.336.0");
    }
    put_parameter(&home, "/muster/ami/next", CANARY);
    let up = Up::start(&home, &github).await;
    up.until("the canary begins", |pool| pool.trial.is_some())
        .await;

    up.queue(1..13).await;
    let booting = up.booting(12).await;
    assert_eq!(
        made(&home),
        of(&[(OWN, 9), (CANARY, 3)]),
        "exactly a quarter"
    );
    for (launch, instance, canary) in booting {
        let image = home.aws.instance(instance.as_str()).unwrap().image_id;
        assert_eq!(image == CANARY, canary, "{launch}");
        if canary {
            // Its host never comes up.
            home.aws.power_off(instance.as_str());
        } else {
            up.engine
                .submit(Event::Enrolled { launch, instance })
                .await
                .unwrap();
        }
    }
    let stopped = |pool: &PoolState| pool.trial.as_ref().is_some_and(|it| it.stopped.is_some());
    let pool = up.until("the canary is stopped", stopped).await;
    let trial = pool.trial.unwrap();
    assert_eq!((trial.canary.launches, trial.canary.failed), (3, 3));
    assert_eq!(pool.closed_until, None, "the pool's own image goes on");

    // Its jobs, and new ones, get hosts from the pool's own image.
    up.queue(13..21).await;
    up.booting(11).await;
    assert_eq!(made(&home), of(&[(OWN, 20), (CANARY, 3)]));
    // Figures are brought up to date now and then.
    let series = "muster_canary_stopped{pool=\"linux\"} 1\n";
    let shown = |_: &PoolState| up.metrics.render().contains(series);
    up.until("the figures show it", shown).await;

    // Another process knows it, and another image begins anew.
    up.stop().await;
    let home = home.crash().await;
    let up = Up::start(&home, &github).await;
    up.until("the fleet is loaded", stopped).await;
    up.queue(21..25).await;
    up.booting(15).await;
    assert_eq!(made(&home), of(&[(OWN, 24), (CANARY, 3)]));
    put_parameter(&home, "/muster/ami/next", BETTER);
    let begun = |pool: &PoolState| {
        pool.trial
            .as_ref()
            .is_some_and(|it| it.image.as_str() == BETTER)
    };
    let pool = up.until("the better one begins", begun).await;
    assert_eq!(pool.trial.unwrap().stopped, None);
    up.queue(25..33).await;
    up.booting(23).await;
    assert_eq!(made(&home), of(&[(OWN, 30), (CANARY, 3), (BETTER, 2)]));
    up.stop().await;
    home.no_violations();
}

#[tokio::test]
async fn an_image_that_is_not_there_stops_nothing_but_itself() {
    let github = FakeGithub::start(github::Options::default()).await.unwrap();
    let home = Home::of_pool(|pool| {
        pool.image = ImageSource::Id(OWN.to_owned());
        pool.canary = Some(ImageSource::Id("ami-0ddddddddddddddd0".to_owned()));
    })
    .await;
    add_image(&home, OWN, "2.336.0");
    let up = Up::start(&home, &github).await;
    up.until("the canary begins", |pool| pool.trial.is_some())
        .await;
    up.queue(1..17).await;
    up.booting(16).await;
    assert_eq!(made(&home), of(&[(OWN, 16)]));
    let pool = up.pool().await;
    let trial = pool.trial.unwrap();
    assert!(trial.stopped.is_some(), "{trial:?}");
    // Three failures stop it, and those that were not asked for yet by then are taken back.
    let failed = 3..=trial.canary.launches;
    assert!(failed.contains(&trial.canary.failed), "{trial:?}");
    assert_eq!(trial.canary.good, 0);
    assert_eq!((pool.closed_until, pool.held), (None, vec![]));
    up.stop().await;
    home.no_violations();
}
