//! Who leads: never two, whatever happens to connections, processes and clocks. No clock but the server's and
//! the one that counts from our own start is ever read, so a wrong one can't matter.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::database::{Database, postgres::Server, statement};
use crate::store::fence::{Fence, Held};
use crate::store::fixtures::{Cluster, Mode, Wire, delivery, entry, in_schema};
use crate::store::lease::Lease;
use crate::store::{
    Batch, Leadership, LeaseTimes, PostgresSettings, Store, StoreError, TimelineQuery,
};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// A fifth of it may pass before a leader that stands still finds that it is over.
pub(super) const QUICK: LeaseTimes = LeaseTimes {
    ttl: Duration::from_secs(6),
    renew: Duration::from_millis(200),
};

fn batch(what: &str) -> Batch {
    Batch {
        timeline: vec![entry(0, what)],
        ..Batch::default()
    }
}

async fn stored(store: &Store) -> Vec<String> {
    let all = TimelineQuery {
        limit: 999,
        ..TimelineQuery::default()
    };
    let entries = store.timeline(all).await.unwrap();
    entries.into_iter().map(|one| one.entry.what).collect()
}

const EXPIRY_MICROS: &str = "SELECT (extract(epoch FROM expires_at) * 1000000)::BIGINT FROM leases";
const NOW_MICROS: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";

#[tokio::test]
async fn a_lead_that_is_given_up_passes_to_one_who_waits() {
    let settings = in_schema(Cluster::shared()).await;
    let (a, b) = (
        Store::connect(&settings).await.unwrap(),
        Store::connect(&settings).await.unwrap(),
    );
    // So long that nobody waits until it has run out.
    let long = LeaseTimes {
        ttl: Duration::from_secs(60),
        renew: Duration::from_millis(100),
    };
    let first = a.lead("a", long).await.unwrap();
    assert_eq!(first.fencing(), 1);
    a.commit(batch("by a")).await.unwrap();
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { b.lead("b", long).await }
    });
    let lost = first.lost();
    first.release().await;
    assert!(lost.is_cancelled());
    let refused = a.commit(batch("too late")).await;
    assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
    let refused = a.confirm_lead().await;
    assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");

    let second = timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(second.fencing(), 2);
    b.confirm_lead().await.unwrap();
    b.commit(batch("by b")).await.unwrap();
    assert_eq!(stored(&b).await, ["by a", "by b"]);
}

#[tokio::test]
async fn a_lease_of_a_dead_leader_does_not_outlive_a_clock_that_was_put_back() {
    let settings = in_schema(Cluster::shared()).await;
    let a = Store::connect(&settings).await.unwrap();
    let times = LeaseTimes {
        ttl: Duration::from_secs(60),
        renew: Duration::from_millis(100),
    };
    let first = a.lead("a", times).await.unwrap();
    first.release().await;
    let b = Store::connect(&settings).await.unwrap();
    let mut db = b.inner.database.connect().await.unwrap();
    // As it was left by one who died before the clock was put back.
    db.command(
        "UPDATE leases SET holder = 'dead', expires_at = clock_timestamp() + INTERVAL '1 hour'",
    )
    .await
    .unwrap();
    let second = timeout(DEADLINE, b.lead("b", times))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.fencing(), 2);
}

#[tokio::test]
async fn an_old_lead_that_is_dropped_late_does_not_end_a_new_one() {
    let settings = in_schema(Cluster::shared()).await;
    let store = Store::connect(&settings).await.unwrap();
    let times = LeaseTimes {
        ttl: Duration::from_secs(60),
        renew: Duration::from_millis(50),
    };
    let old = store.lead("a", times).await.unwrap();
    let mut db = store.inner.database.connect().await.unwrap();
    db.command("UPDATE leases SET expires_at = clock_timestamp()")
        .await
        .unwrap();
    timeout(DEADLINE, old.lost().cancelled()).await.unwrap();
    let new = store.lead("a", times).await.unwrap();
    old.release().await;
    store.commit(batch("on")).await.unwrap();
    assert!(!new.lost().is_cancelled());
    assert_eq!(new.fencing(), 2);
}

#[tokio::test]
async fn a_lease_that_is_renewed_outlives_its_time() {
    let settings = in_schema(Cluster::shared()).await;
    let store = Store::connect(&settings).await.unwrap();
    let leads = store.lead("a", QUICK).await.unwrap();
    outlives(&store, &leads, &settings).await;
    assert_eq!(leads.fencing(), 1);
}

/// Waits until the time is over that the lease has now, and it must still be held.
pub(super) async fn outlives(store: &Store, leads: &Leadership, settings: &PostgresSettings) {
    let beside = Database::Postgres(Server::new(settings).unwrap());
    let mut beside = beside.connect().await.unwrap();
    let (end,): (i64,) = statement(EXPIRY_MICROS).one(&mut beside).await.unwrap();
    let over = async {
        // By the server's clock, as the lease is.
        while statement(NOW_MICROS)
            .one::<(i64,)>(&mut beside)
            .await
            .unwrap()
            .0
            <= end
        {
            store.commit(batch("on")).await.unwrap();
        }
    };
    timeout(DEADLINE, over).await.unwrap();
    assert!(!leads.lost().is_cancelled());
}

#[tokio::test]
async fn a_leader_out_of_reach_stops_before_another_leads_and_can_write_no_more() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let a = Store::connect(&wire.through(&settings)).await.unwrap();
    let b = Store::connect(&settings).await.unwrap();
    let first = a.lead("a", QUICK).await.unwrap();
    a.commit(batch("by a")).await.unwrap();

    wire.set(Mode::Silent);
    let stopped = async {
        first.lost().cancelled().await;
        Instant::now()
    };
    let taken = async {
        let leads = b.lead("b", QUICK).await.unwrap();
        (Instant::now(), leads)
    };
    let both = Box::pin(async { tokio::join!(stopped, taken) });
    let (stopped, (taken, second)) = timeout(DEADLINE, both).await.unwrap();
    assert!(stopped < taken, "{:?}", taken.duration_since(stopped));
    assert_eq!(second.fencing(), 2);
    b.commit(batch("by b")).await.unwrap();

    wire.set(Mode::Whole);
    let late = timeout(DEADLINE, async {
        loop {
            match a.commit(batch("late")).await {
                Err(error) if error.passes() => tokio::task::yield_now().await,
                other => return other,
            }
        }
    });
    let late = late.await.unwrap();
    assert!(matches!(late, Err(StoreError::NotLeader)), "{late:?}");
    assert_eq!(stored(&b).await, ["by a", "by b"]);
}

#[tokio::test]
async fn a_short_cut_of_the_connection_costs_no_lead() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let times = LeaseTimes {
        ttl: Duration::from_secs(30),
        renew: Duration::from_millis(50),
    };
    let leads = store.lead("a", times).await.unwrap();
    for _ in 0..3 {
        wire.set(Mode::Cut);
        timeout(DEADLINE, wire.refuses(1)).await.unwrap();
        wire.set(Mode::Whole);
        let again = async {
            while store.accept_delivery(delivery("a")).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, again).await.unwrap();
    }
    assert!(!leads.lost().is_cancelled());
    store.commit(batch("on")).await.unwrap();
}

/// A leader whose process stands still between looking and committing.
#[tokio::test]
async fn the_lead_does_not_change_hands_under_a_transaction() {
    let settings = in_schema(Cluster::shared()).await;
    let times = LeaseTimes {
        ttl: Duration::from_secs(60),
        renew: Duration::from_millis(50),
    };
    let a = Store::connect(&settings).await.unwrap();
    let first = a.lead("a", times).await.unwrap();
    let mut paused = a.inner.database.connect().await.unwrap();
    // For as long as the test takes.
    paused
        .command("SET idle_in_transaction_session_timeout = 0")
        .await
        .unwrap();
    paused.command("BEGIN").await.unwrap();
    a.inner.fence.check(&mut paused).await.unwrap();
    paused
        .command("INSERT INTO notes (name, value) VALUES ('by', 'a')")
        .await
        .unwrap();

    // Renewals don't wait for it.
    let mut other = a.inner.database.connect().await.unwrap();
    let expiry = "SELECT expires_at::TEXT FROM leases";
    let before: (String,) = statement(expiry).one(&mut other).await.unwrap();
    let renewed = async {
        while statement(expiry)
            .one::<(String,)>(&mut other)
            .await
            .unwrap()
            == before
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, renewed).await.unwrap();

    // Now they end, and the lease runs out.
    drop(first);
    other
        .command("UPDATE leases SET expires_at = clock_timestamp()")
        .await
        .unwrap();
    let wire = Wire::to(Cluster::shared().directory()).await;
    let b = Store::connect(&wire.through(&settings)).await.unwrap();
    let taking = tokio::spawn({
        let b = b.clone();
        async move { b.lead("b", times).await }
    });
    // It asks more than once.
    timeout(DEADLINE, wire.carries(20)).await.unwrap();
    assert!(!taking.is_finished(), "the transaction still goes on");
    paused.command("COMMIT").await.unwrap();
    let second = timeout(DEADLINE, taking).await.unwrap().unwrap().unwrap();
    assert_eq!(second.fencing(), 2);
    assert_eq!(b.note("by").await.unwrap().as_deref(), Some("a"));
}

#[tokio::test]
async fn of_many_who_want_it_one_gets_each_number() {
    let settings = in_schema(Cluster::shared()).await;
    let times = LeaseTimes {
        ttl: Duration::from_secs(60),
        renew: Duration::from_millis(20),
    };
    let mut contenders = tokio::task::JoinSet::new();
    for n in 0..6 {
        let store = Store::connect(&settings).await.unwrap();
        contenders.spawn(async move {
            let leads = store.lead(&format!("c{n}"), times).await.unwrap();
            let fencing = leads.fencing();
            store.commit(batch(&fencing.to_string())).await.unwrap();
            leads.release().await;
            fencing
        });
    }
    let mut numbers = timeout(DEADLINE, contenders.join_all()).await.unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let store = Store::connect(&settings).await.unwrap();
    assert_eq!(stored(&store).await, ["1", "2", "3", "4", "5", "6"]);
}

/// What one of three contenders does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Renew(usize),
    Write(usize),
    GiveUp(usize),
    /// So much time passes that a lease runs out.
    RunOut,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3_usize;
    prop_oneof![
        3 => who.clone().prop_map(Step::Take),
        2 => who.clone().prop_map(Step::Renew),
        4 => who.clone().prop_map(Step::Write),
        1 => who.prop_map(Step::GiveUp),
        2 => Just(Step::RunOut),
    ]
}

/// What the row should say.
#[derive(Default)]
struct Model {
    holder: Option<usize>,
    fencing: i64,
    runs: bool,
    /// What each contender last held, whatever became of it: an old leader doesn't know.
    believes: [Option<i64>; 3],
}

async fn contend(settings: PostgresSettings, steps: Vec<Step>) {
    let store = Store::connect(&settings).await.unwrap();
    let database = Database::Postgres(Server::new(&settings).unwrap());
    let lease = |who: usize| Lease {
        database: database.clone(),
        fence: Arc::new(Fence::default()),
        holder: format!("c{who}"),
        times: LeaseTimes {
            ttl: Duration::from_secs(60),
            renew: Duration::from_secs(1),
        },
    };
    let leases = [lease(0), lease(1), lease(2)];
    let mut model = Model::default();
    let mut link = Some(database.connect().await.unwrap());
    for step in steps {
        match step {
            Step::Take(who) => {
                let free = model.holder.is_none() || !model.runs;
                let got = leases[who].attempt(&mut link).await.unwrap();
                assert_eq!(got.is_some(), free);
                if let Some(fencing) = got {
                    assert_eq!(fencing, model.fencing + 1);
                    model.fencing = fencing;
                    (model.holder, model.runs) = (Some(who), true);
                    model.believes[who] = got;
                    leases[who].fence.set(Some(Held {
                        holder: format!("c{who}"),
                        fencing,
                        lost: CancellationToken::new(),
                    }));
                }
            }
            Step::Renew(who) => {
                let Some(fencing) = model.believes[who] else {
                    continue;
                };
                let renewed = leases[who].renew_once(fencing, &mut link).await.unwrap();
                let own = model.holder == Some(who) && model.fencing == fencing;
                assert_eq!(renewed, own && model.runs);
            }
            Step::Write(who) => {
                let mut db = database.connect().await.unwrap();
                db.command("BEGIN").await.unwrap();
                let checked = leases[who].fence.check(&mut db).await;
                let own = model.holder == Some(who) && model.believes[who] == Some(model.fencing);
                // Also if it ran out: as long as nobody took it, nobody else writes.
                assert_eq!(checked.is_ok(), own, "{checked:?}");
                if own {
                    statement("INSERT INTO operator_actions (at, operator, method, target, reason) VALUES ($1, $2, '', '', '')")
                        .bind(model.fencing)
                        .bind(format!("c{who}"))
                        .execute(&mut db)
                        .await
                        .unwrap();
                    db.command("COMMIT").await.unwrap();
                } else {
                    model.believes[who] = None;
                }
                db.close().await.unwrap();
            }
            Step::GiveUp(who) => {
                let fencing = model.believes[who].unwrap_or(0);
                leases[who].give_up(fencing).await.unwrap();
                model.runs &= model.holder != Some(who) || model.fencing != fencing;
            }
            Step::RunOut => {
                let mut db = database.connect().await.unwrap();
                db.command("UPDATE leases SET expires_at = clock_timestamp()")
                    .await
                    .unwrap();
                db.close().await.unwrap();
                model.runs = false;
            }
        }
    }
    // Each number has written for one holder only.
    let mut db = database.connect().await.unwrap();
    let shared: Vec<(i64,)> = statement(
        "SELECT at FROM operator_actions GROUP BY at HAVING count(DISTINCT operator) > 1",
    )
    .all(&mut db)
    .await
    .unwrap();
    assert_eq!(shared, []);
    db.close().await.unwrap();
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_two_ever_write_with_the_same_number(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { contend(in_schema(Cluster::shared()).await, steps).await });
    }
}
