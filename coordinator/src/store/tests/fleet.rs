//! Batches, the outbox, actions and notes.

use muster_core::{Effect, JobId, JobStatus, LaunchId};
use rstest::rstest;

use crate::store::fixtures::{
    Backend::{self, Postgres, Sqlite},
    at, delivery, entry, home, job, launch, runner, terminate,
};
use crate::store::{Batch, BatchId, OperatorAction, StoreError, StoredEntry, TimelineQuery};

#[rstest]
#[tokio::test]
async fn an_effect_wanted_again_replaces_the_old_one_in_its_place(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let first = Batch {
        effects: vec![terminate("l1", "i-old"), launch("l2")],
        ..Batch::default()
    };
    home.store.commit(first).await.unwrap();
    let again = Batch {
        effects: vec![terminate("l1", "i-new")],
        ..Batch::default()
    };
    home.store.commit(again).await.unwrap();
    assert_eq!(
        home.store.pending_effects().await.unwrap(),
        [terminate("l1", "i-new"), launch("l2")]
    );
}

#[rstest]
#[tokio::test]
async fn an_effect_finished_and_wanted_again_in_one_batch_stays(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let effect = terminate("l1", "i-1");
    let batch = Batch {
        effects: vec![effect.clone()],
        finished_effects: vec![effect.key()],
        ..Batch::default()
    };
    home.store.commit(batch.clone()).await.unwrap();
    let again = Batch {
        id: BatchId::default(),
        ..batch
    };
    home.store.commit(again).await.unwrap();
    assert_eq!(
        home.store.pending_effects().await.unwrap(),
        std::slice::from_ref(&effect)
    );

    let done = Batch {
        finished_effects: vec![effect.key()],
        ..Batch::default()
    };
    home.store.commit(done).await.unwrap();
    assert_eq!(home.store.pending_effects().await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn messages_to_agents_are_not_stored(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let batch = Batch {
        effects: vec![Effect::Retire {
            launch: LaunchId::from("l1"),
            reason: "test".to_owned(),
        }],
        ..Batch::default()
    };
    home.store.commit(batch).await.unwrap();
    assert_eq!(home.store.pending_effects().await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn the_forgotten_are_left_out_at_the_start_but_can_be_looked_up(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let batch = Batch {
        jobs: vec![
            job(1, JobStatus::Completed, 1),
            job(2, JobStatus::Queued, 2),
        ],
        runners: vec![runner("l1", 1), runner("l2", 2)],
        forgotten_jobs: vec![JobId(1)],
        forgotten_runners: vec![LaunchId::from("l2")],
        ..Batch::default()
    };
    home.store.commit(batch.clone()).await.unwrap();
    let stored = home.store.load().await.unwrap();
    assert_eq!(stored.jobs, [batch.jobs[1].clone()]);
    assert_eq!(stored.runners, [batch.runners[0].clone()]);

    let found = home.store.job(JobId(1)).await.unwrap();
    assert_eq!(found.as_ref(), Some(&batch.jobs[0]));
    for name in ["l2", "muster-l2", "i-00000000000000002"] {
        let found = home.store.runner(name).await.unwrap();
        assert_eq!(found.as_ref(), Some(&batch.runners[1]), "{name}");
    }
    assert_eq!(home.store.runner("l3").await.unwrap(), None);
    assert_eq!(home.store.job(JobId(3)).await.unwrap(), None);
}

/// As after a roll-back. Its host is nobody's to end.
#[rstest]
#[tokio::test]
async fn the_instance_of_a_runner_that_can_not_be_read_is_known(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let batch = Batch {
        runners: vec![runner("l1", 1), runner("l4", 4)],
        ..Batch::default()
    };
    home.store.commit(batch).await.unwrap();
    let mut db = home.raw().await;
    db.command("UPDATE runners SET record = '{\"of\": \"tomorrow\"}'")
        .await
        .unwrap();
    let stored = home.store.load().await.unwrap();
    assert_eq!(stored.runners, []);
    assert_eq!(stored.unread, ["i-00000000000000001".into()].into());
    let error = home.store.runner("muster-l1").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[rstest]
#[tokio::test]
async fn a_forgotten_job_that_is_heard_of_again_is_back(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let batch = Batch {
        jobs: vec![job(1, JobStatus::Queued, 1)],
        forgotten_jobs: vec![JobId(1)],
        ..Batch::default()
    };
    home.store.commit(batch.clone()).await.unwrap();
    let news = Batch {
        id: BatchId::default(),
        forgotten_jobs: Vec::new(),
        ..batch
    };
    home.store.commit(news).await.unwrap();
    assert_eq!(home.store.load().await.unwrap().jobs.len(), 1);
}

#[rstest]
#[tokio::test]
async fn entries_are_numbered_in_order_and_returned_as_stored(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let mut exact = entry(0, "a");
    exact.at = jiff::Timestamp::from_nanosecond(1_800_000_000_123_456_789).unwrap();
    let batch = Batch {
        timeline: vec![exact, entry(1, "b")],
        ..Batch::default()
    };
    let entries = home.store.commit(batch).await.unwrap();
    assert!(entries[0].sequence < entries[1].sequence);
    assert_eq!(entries[0].entry.at.subsec_nanosecond(), 123_456_000);
    let query = crate::store::TimelineQuery {
        limit: 9,
        ..Default::default()
    };
    assert_eq!(home.store.timeline(query).await.unwrap(), entries);
}

#[rstest]
#[tokio::test]
async fn actions_are_listed_newest_first(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let action = |seconds| OperatorAction {
        at: at(seconds),
        operator: "ann".to_owned(),
        method: "DrainRunner".to_owned(),
        target: "l1".to_owned(),
        reason: "it's slow".to_owned(),
    };
    for seconds in 0..5 {
        home.store.record_action(action(seconds)).await.unwrap();
    }
    assert_eq!(home.store.actions(2).await.unwrap(), [action(4), action(3)]);
}

#[rstest]
#[tokio::test]
async fn a_note_keeps_its_last_value(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    assert_eq!(home.store.note("n").await.unwrap(), None);
    home.store.set_note("n", "1").await.unwrap();
    home.store.set_note("n", "2").await.unwrap();
    let note = home.store.note("n").await.unwrap();
    assert_eq!(note.as_deref(), Some("2"));
}

#[rstest]
#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_stored_again_without_harm(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let before = Batch {
        timeline: vec![entry(0, "before")],
        ..Batch::default()
    };
    home.store.commit(before).await.unwrap();
    let batch = Batch {
        timeline: vec![entry(1, "a"), entry(2, "b")],
        effects: vec![launch("l1")],
        ..Batch::default()
    };
    let first = home.store.commit(batch.clone()).await.unwrap();
    let home = home.crash().await;
    let second = home.store.commit(batch).await.unwrap();
    assert_eq!(first, second);
    let all = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    let stored: Vec<StoredEntry> = home.store.timeline(all).await.unwrap();
    assert_eq!(stored.len(), 3);
    assert_eq!(stored[1..], first);
    assert_eq!(home.store.pending_effects().await.unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_zero_byte_from_outside_stops_nothing(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let mut named = job(1, JobStatus::Queued, 1);
    named.report.name = "a\0b".to_owned();
    let mut told = entry(0, "said\0so");
    told.detail = "\0".to_owned();
    let batch = Batch {
        jobs: vec![named.clone()],
        timeline: vec![told],
        ..Batch::default()
    };
    let entries = home.store.commit(batch).await.unwrap();
    assert_eq!(entries[0].entry.what, "said\u{fffd}so");
    let all = TimelineQuery {
        limit: 9,
        ..TimelineQuery::default()
    };
    assert_eq!(home.store.timeline(all).await.unwrap(), entries);
    assert_eq!(home.store.load().await.unwrap().jobs, [named]);
}

#[rstest]
#[tokio::test]
async fn one_batch_may_have_two_of_one_key_and_the_last_counts(
    #[values(Sqlite, Postgres)] on: Backend,
) {
    let home = home(on).await;
    let batch = Batch {
        jobs: vec![
            job(1, JobStatus::Queued, 1),
            job(1, JobStatus::Completed, 1),
        ],
        effects: vec![
            terminate("l1", "i-old"),
            launch("l2"),
            terminate("l1", "i-new"),
        ],
        ..Batch::default()
    };
    home.store.commit(batch.clone()).await.unwrap();
    let jobs = home.store.load().await.unwrap().jobs;
    assert_eq!(jobs, batch.jobs[1..]);
    assert_eq!(
        home.store.pending_effects().await.unwrap(),
        [terminate("l1", "i-new"), launch("l2")]
    );
}

#[rstest]
#[tokio::test]
async fn a_batch_of_thousands_is_stored_in_its_order(#[values(Sqlite, Postgres)] on: Backend) {
    let home = home(on).await;
    let launches: Vec<_> = (0..2_500).map(|n| format!("l{n}")).collect();
    for guid in &launches {
        home.store.accept_delivery(delivery(guid)).await.unwrap();
    }
    let batch = Batch {
        timeline: launches.iter().map(|name| entry(0, name)).collect(),
        runners: launches.iter().map(|name| runner(name, 1)).collect(),
        effects: launches.iter().map(|name| launch(name)).collect(),
        processed_deliveries: launches.clone(),
        ..Batch::default()
    };
    let entries = home.store.commit(batch.clone()).await.unwrap();
    assert!(entries.is_sorted_by(|one, next| one.sequence < next.sequence));
    let all = TimelineQuery {
        limit: 9_999,
        ..TimelineQuery::default()
    };
    assert_eq!(home.store.timeline(all).await.unwrap(), entries);
    let told: Vec<_> = entries.into_iter().map(|one| one.entry).collect();
    assert_eq!(told, batch.timeline);
    assert_eq!(home.store.load().await.unwrap().runners.len(), 2_500);
    assert_eq!(home.store.pending_effects().await.unwrap(), batch.effects);
    assert_eq!(home.store.pending_deliveries(9).await.unwrap(), []);

    let over = Batch {
        forgotten_runners: batch.runners.into_iter().map(|it| it.launch).collect(),
        finished_effects: batch.effects.iter().map(Effect::key).collect(),
        ..Batch::default()
    };
    home.store.commit(over).await.unwrap();
    assert_eq!(home.store.load().await.unwrap().runners, []);
    assert_eq!(home.store.pending_effects().await.unwrap(), []);
}
