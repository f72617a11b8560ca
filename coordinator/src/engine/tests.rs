//! What the engine does with what an earlier process left behind, and while its store is out of order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use muster_core::{
    Effect, Event, FleetSpec, HostPhase, InstanceId, JobStatus, Marked, Origin, PoolSpec, Scope,
    SizeRules, TimeLimits,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use secrecy::SecretString;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, Executor, Parts};
use crate::compute::Provider;
use crate::compute::local::{LocalProvider, LocalSettings};
use crate::github::{GithubClient, Settings};
use crate::identity::ca::Authority;
use crate::identity::serving::PresentAuthority;
use crate::presence::Presence;
use crate::store::fixtures::{Cluster, Mode, Wire, delivery, in_schema, job, lead_at_once};
use crate::store::{Batch, Store, StoreError};
use crate::telemetry::Metrics;

mod forgotten;

fn github() -> GithubClient {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let url = "http://127.0.0.1:9".parse().unwrap();
    let pem = SecretString::from(key.serialize_pem());
    GithubClient::new(Settings::new(url, "1".to_owned(), pem)).unwrap()
}

/// A pool that takes the jobs of [`queued`].
fn pool() -> PoolSpec {
    PoolSpec {
        name: "linux".into(),
        scope: Scope::Organization("octo-org".to_owned()),
        runner_group: "Default".to_owned(),
        labels: ["self-hosted".to_owned()].into(),
        sizes: SizeRules {
            cpus: [8].into(),
            ..SizeRules::default()
        },
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 4,
        limits: TimeLimits::default(),
        rerun: None,
        canary: None,
    }
}

/// An engine's parts with one provider, which launches nothing by itself, and no pool.
fn parts(store: &Store, directory: &Path) -> Parts {
    let settings = LocalSettings {
        agent_binary: "muster-agent".into(),
        runner_dir: directory.join("template"),
        instances_dir: directory.join("instances"),
        enroll_url: String::new(),
        agents_url: String::new(),
        server_name: String::new(),
        authority: PresentAuthority::fixed(
            Authority::load_or_create(directory, Timestamp::now()).unwrap(),
        ),
        metadata_endpoint: None,
        environment: BTreeMap::new(),
    };
    let provider = Provider::Local(LocalProvider::new(settings, store.clone()));
    let providers = HashMap::from([("local".into(), provider)]);
    let metrics = Metrics::new().unwrap();
    Parts {
        store: std::sync::Arc::new(store.clone()),
        spec: FleetSpec {
            pools: Vec::new(),
            accounts: BTreeMap::new(),
        },
        presence: Presence::default(),
        executor: Executor::new(github(), providers, &[], metrics.clone()),
        metrics,
        list_first: false,
    }
}

#[tokio::test]
async fn an_effect_of_an_earlier_process_is_carried_out_and_leaves_the_outbox() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let instance = InstanceId::from("i-0123456789abcdef0");
    let folder = directory.path().join("instances").join(instance.as_str());
    std::fs::create_dir_all(folder.join("runner")).unwrap();
    let effect = Effect::TerminateStray {
        account: "local".into(),
        instance,
    };
    let batch = Batch {
        effects: vec![effect],
        ..Batch::default()
    };
    store.commit(batch).await.unwrap();

    let parts = parts(&store, directory.path());
    let (_engine, runnable) = Engine::new(parts).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let emptied = async {
        while !store.pending_effects().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), emptied)
        .await
        .expect("the effect leaves the outbox");
    assert!(!folder.join("runner").exists(), "what it asks for was done");
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// What was listed of the account.
fn listed(alive: &[Marked]) -> Event {
    Event::InstancesListed {
        account: "local".into(),
        absence: Duration::from_secs(900),
        alive: alive.to_vec(),
        gone: Vec::new(),
    }
}

#[tokio::test]
async fn strays_and_lost_hosts_are_counted_as_they_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let mut parts = parts(&store, directory.path());
    parts.spec = FleetSpec {
        pools: vec![pool()],
        accounts: [("local".into(), 4)].into(),
    };
    let metrics = parts.metrics.clone();
    let shows = |series: &str| metrics.render().contains(series);
    assert!(shows("muster_leading 0\n"));
    let (engine, runnable) = Engine::new(parts).await.unwrap();
    assert!(shows("muster_leading 1\n"));
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));

    let stray = Marked {
        instance: InstanceId::from("i-0000000000000dead"),
        launch: None,
        origin: None,
    };
    let host = Marked {
        instance: InstanceId::from("i-0123456789abcdef0"),
        launch: Some("found".into()),
        origin: Some(Origin {
            pool: "linux".into(),
            since: Timestamp::now(),
            offering: None,
        }),
    };
    let folder = directory
        .path()
        .join("instances")
        .join("i-0000000000000dead");
    std::fs::create_dir_all(folder.join("runner")).unwrap();
    let alive = [stray, host];
    engine.submit(listed(&alive)).await.unwrap();
    assert!(shows("muster_strays_total{state=\"found\"} 0\n"));
    engine.submit(listed(&alive)).await.unwrap();
    assert!(shows("muster_strays_total{state=\"found\"} 1\n"));
    let ended = async {
        while !shows("muster_strays_total{state=\"ended\"} 1\n") {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, ended).await.expect("it is ended");

    assert!(shows("muster_hosts_lost_total{kind=\"gone\"} 0\n"));
    let came_back = Event::AgentConnected {
        launch: "found".into(),
        phase: HostPhase::Running,
        assignment: Some("muster-linux-1".into()),
        heard_at: Timestamp::now(),
    };
    engine.submit(came_back).await.unwrap();
    let gone = Event::InstanceGone {
        launch: "found".into(),
        instance: "i-0123456789abcdef0".into(),
    };
    engine.submit(gone).await.unwrap();
    assert!(shows("muster_hosts_lost_total{kind=\"gone\"} 1\n"));
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pool_at_its_maximum_with_jobs_that_wait_is_shown_as_exhausted() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let mut parts = parts(&store, directory.path());
    let mut full = pool();
    full.max = 0;
    parts.spec = FleetSpec {
        pools: vec![full],
        accounts: [("local".into(), 4)].into(),
    };
    let metrics = parts.metrics.clone();
    let shows = |series: &'static str| {
        let metrics = metrics.clone();
        async move {
            while !metrics.render().contains(series) {
                tokio::task::yield_now().await;
            }
        }
    };
    let (engine, runnable) = Engine::new(parts).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let before = shows("muster_pool_exhausted{pool=\"linux\"} 0\n");
    timeout(DEADLINE, before).await.unwrap();
    engine.submit(queued(1)).await.unwrap();
    let after = shows("muster_pool_exhausted{pool=\"linux\"} 1\n");
    timeout(DEADLINE, after).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

const DEADLINE: Duration = Duration::from_secs(60);

/// An event that changes something.
fn queued(id: i64) -> Event {
    Event::Job(Box::new(job(id, JobStatus::Queued, 1).report))
}

#[tokio::test]
async fn an_outage_of_the_store_holds_everything_up_and_loses_nothing() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let _leads = lead_at_once(&store).await;
    let directory = tempfile::tempdir().unwrap();
    let (engine, runnable) = Engine::new(parts(&store, directory.path())).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let mut told = engine.subscribe();
    engine.submit(queued(1)).await.unwrap();
    while told.try_recv().is_ok() {}

    wire.set(Mode::Cut);
    // More than fit the channel: the last ones wait for a place.
    let mut waiting = tokio::task::JoinSet::new();
    for id in 2..2_000 {
        let engine = engine.clone();
        waiting.spawn(async move { engine.submit(queued(id)).await });
    }
    let mut writable = store.writable();
    let gone = timeout(DEADLINE, writable.wait_for(|writable| !writable));
    gone.await.unwrap().unwrap();
    // The store tries to come back, more than once.
    timeout(DEADLINE, wire.refuses(5)).await.unwrap();
    assert!(waiting.try_join_next().is_none(), "nothing is answered");
    // Who needn't wait is told why.
    let why = timeout(DEADLINE, engine.held_up()).await.unwrap();
    assert!(!why.is_empty());
    assert!(told.is_empty(), "nothing is said");
    assert!(!running.is_finished());

    wire.set(Mode::Whole);
    let all = async {
        while let Some(done) = waiting.join_next().await {
            done.unwrap().unwrap();
        }
    };
    timeout(DEADLINE, all).await.unwrap();
    assert_eq!(engine.held_up().now_or_never(), None);
    let stored = store.load().await.unwrap();
    assert_eq!(stored.jobs.len(), 1_999);
    assert!(!told.is_empty());
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn to_be_told_to_stop_ends_an_engine_that_waits_for_its_store() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let _leads = lead_at_once(&store).await;
    let directory = tempfile::tempdir().unwrap();
    let (engine, runnable) = Engine::new(parts(&store, directory.path())).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    engine.submit(queued(1)).await.unwrap();
    wire.set(Mode::Cut);
    let waiting = tokio::spawn(async move { engine.submit(queued(2)).await });
    let mut writable = store.writable();
    let gone = timeout(DEADLINE, writable.wait_for(|writable| !writable));
    gone.await.unwrap().unwrap();
    stop.cancel();
    let ended = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(matches!(ended, Err(EngineError::Store(error)) if error.passes()));
    assert!(waiting.await.unwrap().is_err(), "it was not acknowledged");
}

#[tokio::test]
async fn an_engine_whose_lead_is_lost_ends_at_once() {
    let settings = in_schema(Cluster::shared()).await;
    let old = Store::connect(&settings).await.unwrap();
    let _leads = lead_at_once(&old).await;
    let directory = tempfile::tempdir().unwrap();
    let (engine, runnable) = Engine::new(parts(&old, directory.path())).await.unwrap();
    let running = tokio::spawn(runnable.run(CancellationToken::new()));
    engine.submit(queued(1)).await.unwrap();

    let new = Store::connect(&settings).await.unwrap();
    let _other = lead_at_once(&new).await;
    assert!(engine.submit(queued(2)).await.is_err());
    let ended = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(matches!(
        ended,
        Err(EngineError::Store(StoreError::NotLeader))
    ));
    assert_eq!(new.load().await.unwrap().jobs.len(), 1);

    // A follower's delivery reaches the engine of the one that leads.
    let (engine, runnable) = Engine::new(parts(&new, directory.path())).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let watching = {
        let (new, engine, stop) = (new.clone(), engine.clone(), stop.clone());
        tokio::spawn(async move {
            new.watch_deliveries(move || engine.inbox_ready(), stop)
                .await;
        })
    };
    old.accept_delivery(delivery("of-a-follower"))
        .await
        .unwrap();
    let taken = async {
        while !new.pending_deliveries(9).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, taken).await.unwrap();
    stop.cancel();
    watching.await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn commands_that_never_stop_coming_hold_up_neither_the_inbox_nor_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let (engine, runnable) = Engine::new(parts(&store, directory.path())).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    // While what some say is stored, the others say more.
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let engine = engine.clone();
        callers.spawn(async move {
            for turn in 0.. {
                engine
                    .submit(queued(1_000 + turn * 8 + caller))
                    .await
                    .unwrap();
            }
        });
    }
    let processed = async |guid: &str, told: bool| {
        let mut one = delivery(guid);
        one.body = b"{}".to_vec();
        store.accept_delivery(one).await.unwrap();
        if told {
            engine.inbox_ready();
        }
        let reading = async {
            while !store.pending_deliveries(9).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), reading).await
    };
    processed("told", true).await.expect("the inbox is read");
    // Nobody says so: it is found by the next tick.
    processed("untold", false).await.expect("time goes on");
    callers.abort_all();
    while callers.join_next().await.is_some() {}
    stop.cancel();
    running.await.unwrap().unwrap();
}
