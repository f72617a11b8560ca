//! Random batches against a model in memory, with crashes in between.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::{
    Effect, Job, JobId, JobStatus, LaunchId, PoolName, PoolState, Runner, Stopped, Tally,
    TimelineEntry, Trial,
};
use proptest::prelude::*;

use crate::store::fixtures::{
    Backend, Home, at, delivery, entry, home, job, launch, runner, terminate,
};
use crate::store::{Accepted, Batch, BatchId, StoredEntry, TimelineQuery};

#[derive(Clone, Debug)]
enum Step {
    Commit(Box<Batch>),
    Deliver(String),
    Crash,
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<JobId, Job>,
    runners: BTreeMap<LaunchId, Runner>,
    pools: BTreeMap<PoolName, PoolState>,
    outbox: Vec<Effect>,
    timeline: Vec<StoredEntry>,
    delivered: BTreeSet<String>,
    waiting: Vec<String>,
}

/// No zero byte is stored.
fn as_stored(mut entry: TimelineEntry) -> TimelineEntry {
    entry.what = entry.what.replace('\0', "\u{fffd}");
    entry
}

impl Model {
    fn commit(&mut self, batch: Batch, entries: Vec<StoredEntry>) {
        self.jobs
            .extend(batch.jobs.into_iter().map(|job| (job.id(), job)));
        self.runners.extend(
            batch
                .runners
                .into_iter()
                .map(|one| (one.launch.clone(), one)),
        );
        self.pools.extend(batch.pools);
        for id in batch.forgotten_jobs {
            self.jobs.remove(&id);
        }
        for launch in batch.forgotten_runners {
            self.runners.remove(&launch);
        }
        self.outbox
            .retain(|effect| !batch.finished_effects.contains(&effect.key()));
        for effect in batch.effects {
            match self.outbox.iter_mut().find(|old| old.key() == effect.key()) {
                Some(old) => *old = effect,
                None => self.outbox.push(effect),
            }
        }
        self.waiting
            .retain(|guid| !batch.processed_deliveries.contains(guid));
        let written: Vec<_> = entries.iter().map(|one| one.entry.clone()).collect();
        let expected: Vec<_> = batch.timeline.into_iter().map(as_stored).collect();
        assert_eq!(written, expected);
        self.timeline.extend(entries);
    }

    async fn check(&self, home: &Home) {
        let stored = home.store.load().await.unwrap();
        assert_eq!(stored.jobs, self.jobs.values().cloned().collect::<Vec<_>>());
        assert_eq!(
            stored.runners,
            self.runners.values().cloned().collect::<Vec<_>>()
        );
        assert_eq!(stored.pools, self.pools);
        assert_eq!(home.store.pending_effects().await.unwrap(), self.outbox);
        let query = TimelineQuery {
            limit: 9_999,
            ..TimelineQuery::default()
        };
        assert_eq!(home.store.timeline(query).await.unwrap(), self.timeline);
        let waiting = home.store.pending_deliveries(9_999).await.unwrap();
        let waiting: Vec<_> = waiting.into_iter().map(|one| one.guid).collect();
        assert_eq!(waiting, self.waiting);
    }
}

async fn run(on: Backend, steps: Vec<Step>) {
    let mut home = home(on).await;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(batch) => {
                let batch = *batch;
                let entries = home.store.commit(batch.clone()).await.unwrap();
                model.commit(batch, entries);
            }
            Step::Deliver(guid) => {
                let accepted = home.store.accept_delivery(delivery(&guid)).await.unwrap();
                let new = model.delivered.insert(guid.clone());
                assert_eq!(accepted == Accepted::New, new);
                if new {
                    model.waiting.push(guid);
                }
            }
            Step::Crash => home = home.crash().await,
        }
    }
    model.check(&home).await;
    let home = home.crash().await;
    model.check(&home).await;
}

fn id() -> impl Strategy<Value = i64> {
    0..6_i64
}

fn launch_name() -> impl Strategy<Value = String> {
    (0..6_u32).prop_map(|n| format!("l{n}"))
}

fn some_job() -> impl Strategy<Value = Job> {
    let status = prop::sample::select(vec![
        JobStatus::Waiting,
        JobStatus::Queued,
        JobStatus::InProgress,
        JobStatus::Completed,
    ]);
    (id(), status, any::<u32>()).prop_map(|(id, status, salt)| job(id, status, salt))
}

fn some_effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        launch_name().prop_map(|name| launch(&name)),
        (launch_name(), "i-[0-9a-f]{4}").prop_map(|(name, id)| terminate(&name, &id)),
    ]
}

fn some_pool() -> impl Strategy<Value = (PoolName, PoolState)> {
    ("[ab]", any::<u32>(), any::<Option<String>>()).prop_map(|(name, failures, paused)| {
        let trial = Trial {
            image: "ami-0123456789abcdef0".into(),
            own_image: None,
            owed: failures % 100,
            canary: Tally::default(),
            own: Tally::default(),
            stopped: paused.as_ref().map(|reason| Stopped {
                at: at(1),
                reason: reason.clone(),
            }),
        };
        let state = PoolState {
            failures,
            tallies: failures,
            trial: failures.is_multiple_of(2).then_some(trial),
            paused,
            ..PoolState::default()
        };
        (PoolName::new(name), state)
    })
}

prop_compose! {
    fn some_batch()(
        jobs in prop::collection::vec(some_job(), 0..4),
        runners in prop::collection::vec(
            (launch_name(), any::<u32>()).prop_map(|(name, salt)| runner(&name, salt)), 0..4),
        pools in prop::collection::vec(some_pool(), 0..2),
        forgotten_jobs in prop::collection::vec(id().prop_map(JobId), 0..2),
        forgotten_runners in prop::collection::vec(launch_name().prop_map(LaunchId::new), 0..2),
        timeline in prop::collection::vec((0..99_i64, ".{0,9}").prop_map(|(at, text)| entry(at, &text)), 0..4),
        effects in prop::collection::vec(some_effect(), 0..3),
        finished_effects in prop::collection::vec(some_effect().prop_map(|one| one.key()), 0..3),
        processed_deliveries in prop::collection::vec("[a-f]", 0..2),
    ) -> Batch {
        Batch {
            id: BatchId::default(), jobs, runners, pools, forgotten_jobs, forgotten_runners,
            timeline, effects, finished_effects, processed_deliveries,
        }
    }
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => some_batch().prop_map(|batch| Step::Commit(Box::new(batch))),
        3 => "[a-f]".prop_map(Step::Deliver),
        1 => Just(Step::Crash),
    ]
}

fn run_alone(on: Backend, steps: Vec<Step>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run(on, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_in_sqlite_equals_the_model(steps in prop::collection::vec(some_step(), 1..20)) {
        run_alone(Backend::Sqlite, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_in_postgres_equals_the_model(steps in prop::collection::vec(some_step(), 1..20)) {
        run_alone(Backend::Postgres, steps);
    }
}
