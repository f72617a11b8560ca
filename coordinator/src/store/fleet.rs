//! The fleet and its outbox: a batch is one transaction.

use std::collections::BTreeSet;
use std::fmt::Display;

use muster_core::{
    Effect, InstanceId, Job, JobId, JobStatus, LaunchId, PoolName, PoolState, Runner, RunnerName,
    Stored, TimelineEntry,
};
use serde::de::DeserializeOwned;

use super::change::Change;
use super::codec::{decode, encode, micros, rounded};
use super::database::{
    Connection, Database, Insert, Readers, Value, for_keys, statement, storable,
};
use super::{Batch, StoreError, StoredEntry};

impl Change for Batch {
    type Output = Vec<StoredEntry>;

    async fn apply(&self, db: &mut Connection) -> Result<Vec<StoredEntry>, StoreError> {
        if !self.mark(db).await? {
            return self.entries_of_before(db).await;
        }
        JOBS.write(db, all(&self.jobs, of_job)?).await?;
        RUNNERS.write(db, all(&self.runners, of_runner)?).await?;
        POOLS.write(db, all(&self.pools, of_pool)?).await?;
        let jobs = self.forgotten_jobs.iter().map(|id| id.0.into()).collect();
        for_keys(db, "UPDATE jobs SET forgotten = 1 WHERE id", jobs).await?;
        let runners = self.forgotten_runners.iter();
        let runners = runners.map(|launch| launch.as_str().into()).collect();
        for_keys(db, "UPDATE runners SET forgotten = 1 WHERE launch", runners).await?;
        let keys = self.finished_effects.iter().map(Value::from).collect();
        for_keys(db, "DELETE FROM outbox WHERE key", keys).await?;
        let durable = self.effects.iter().filter(|effect| effect.is_durable());
        OUTBOX.write(db, all(durable, of_effect)?).await?;
        let guids = self.processed_deliveries.iter().map(Value::from).collect();
        for_keys(db, "UPDATE deliveries SET processed = 1 WHERE guid", guids).await?;
        self.append_entries(db).await
    }
}

impl Batch {
    /// Notes that this batch is stored; false if it was before.
    async fn mark(&self, db: &mut Connection) -> Result<bool, StoreError> {
        let id = self.id.to_string();
        let rows = statement("UPDATE last_batch SET id = $1 WHERE id <> $1")
            .bind(id)
            .execute(db)
            .await?;
        Ok(rows == 1)
    }

    async fn append_entries(&self, db: &mut Connection) -> Result<Vec<StoredEntry>, StoreError> {
        let rows = all(&self.timeline, of_entry)?;
        let numbers = TIMELINE.append(db, "sequence", rows).await?;
        let entries = numbers.into_iter().zip(&self.timeline);
        Ok(entries
            .map(|(sequence, entry)| StoredEntry {
                sequence,
                entry: as_stored(entry),
            })
            .collect())
    }

    /// The entries of a batch that was stored before, the last of all: nobody else appends any.
    async fn entries_of_before(&self, db: &mut Connection) -> Result<Vec<StoredEntry>, StoreError> {
        let count = i64::try_from(self.timeline.len()).unwrap_or(i64::MAX);
        let numbers: Vec<(i64,)> =
            statement("SELECT sequence FROM timeline ORDER BY sequence DESC LIMIT $1")
                .bind(count)
                .all(db)
                .await?;
        let entries = numbers.into_iter().rev().zip(&self.timeline);
        Ok(entries
            .map(|((sequence,), entry)| StoredEntry {
                sequence,
                entry: as_stored(entry),
            })
            .collect())
    }
}

const JOBS: Insert = Insert {
    into: "jobs",
    columns: &["id", "pool", "status", "settled_at", "record"],
    on_conflict: "ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, status = excluded.status,
        settled_at = excluded.settled_at, record = excluded.record, forgotten = 0",
};

fn of_job(job: &Job) -> Result<Vec<Value>, StoreError> {
    Ok(vec![
        job.id().0.into(),
        job.pool().map(PoolName::as_str).into(),
        status_word(job.status()).into(),
        micros(job.completed_at.unwrap_or(job.known_at)).into(),
        encode(job)?.into(),
    ])
}

fn status_word(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Waiting => "waiting",
        JobStatus::Queued => "queued",
        JobStatus::InProgress => "in_progress",
        JobStatus::Completed => "completed",
    }
}

const RUNNERS: Insert = Insert {
    into: "runners",
    columns: &["launch", "pool", "name", "instance", "settled_at", "record"],
    on_conflict: "ON CONFLICT (launch) DO UPDATE SET pool = excluded.pool, name = excluded.name,
        instance = excluded.instance, settled_at = excluded.settled_at,
        record = excluded.record, forgotten = 0",
};

fn of_runner(runner: &Runner) -> Result<Vec<Value>, StoreError> {
    let marks = &runner.marks;
    Ok(vec![
        runner.launch.as_str().into(),
        runner.pool.as_str().into(),
        runner.name.as_str().into(),
        runner.instance_id().map(InstanceId::as_str).into(),
        micros(marks.gone_at.unwrap_or(marks.stage_since)).into(),
        encode(runner)?.into(),
    ])
}

const POOLS: Insert = Insert {
    into: "pools",
    columns: &["name", "state"],
    on_conflict: "ON CONFLICT (name) DO UPDATE SET state = excluded.state",
};

fn of_pool((name, state): &(PoolName, PoolState)) -> Result<Vec<Value>, StoreError> {
    Ok(vec![name.as_str().into(), encode(state)?.into()])
}

const OUTBOX: Insert = Insert {
    into: "outbox",
    columns: &["key", "effect"],
    on_conflict: "ON CONFLICT (key) DO UPDATE SET effect = excluded.effect",
};

fn of_effect(effect: &Effect) -> Result<Vec<Value>, StoreError> {
    Ok(vec![effect.key().into(), encode(effect)?.into()])
}

const TIMELINE: Insert = Insert {
    into: "timeline",
    columns: &["at", "what", "detail", "pool", "launch", "runner", "job"],
    on_conflict: "",
};

fn of_entry(entry: &TimelineEntry) -> Result<Vec<Value>, StoreError> {
    Ok(vec![
        micros(entry.at).into(),
        entry.what.as_str().into(),
        entry.detail.as_str().into(),
        entry.pool.as_ref().map(PoolName::as_str).into(),
        entry.launch.as_ref().map(LaunchId::as_str).into(),
        entry.runner.as_ref().map(RunnerName::as_str).into(),
        entry.job.map(|job| job.0).into(),
    ])
}

/// The rows of records.
fn all<'r, T: 'r>(
    records: impl IntoIterator<Item = &'r T>,
    row: fn(&T) -> Result<Vec<Value>, StoreError>,
) -> Result<Vec<Vec<Value>>, StoreError> {
    records.into_iter().map(row).collect()
}

/// An entry as it will be read back.
fn as_stored(entry: &TimelineEntry) -> TimelineEntry {
    TimelineEntry {
        at: rounded(entry.at),
        what: storable(&entry.what),
        detail: storable(&entry.detail),
        ..entry.clone()
    }
}

/// What was not forgotten, as of one moment.
pub(super) async fn load(database: &Database, db: &Readers) -> Result<Stored, StoreError> {
    let mut db = db.acquire().await?;
    // Closed afterwards, and its transaction with it, even if nobody waits for the end of this.
    db.spoil();
    db.command(database.begin_snapshot()).await?;
    let (jobs, rows, pools) = read_all(&mut db).await?;
    let (mut runners, mut unread) = (Vec::new(), BTreeSet::new());
    for (launch, text, instance) in rows {
        let read = readable(vec![(launch, text)], "runner");
        if read.is_empty() {
            unread.extend(instance.map(InstanceId::new));
        }
        runners.extend(read);
    }
    let pools = pools.into_iter().map(|(name, text)| {
        let state = decode(&text, "pool", &name).unwrap_or_else(|error| {
            tracing::error!(%error, "a pool is paused, as its state is of a newer version, or damaged");
            PoolState {
                paused: Some(format!("its stored state can't be read: {error}")),
                ..PoolState::default()
            }
        });
        (PoolName::new(&name), state)
    });
    Ok(Stored {
        jobs: readable(jobs, "job"),
        runners,
        pools: pools.collect(),
        unread,
    })
}

/// Keys and records.
type Rows<K> = Vec<(K, String)>;
/// Launches, records and instances.
type RunnerRows = Vec<(String, String, Option<String>)>;

async fn read_all(
    db: &mut Connection,
) -> Result<(Rows<i64>, RunnerRows, Rows<String>), StoreError> {
    let jobs = statement("SELECT id, record FROM jobs WHERE forgotten = 0 ORDER BY id")
        .all(db)
        .await?;
    // By the bytes, whatever the server's collation is.
    let mut runners: RunnerRows =
        statement("SELECT launch, record, instance FROM runners WHERE forgotten = 0")
            .all(db)
            .await?;
    runners.sort_unstable();
    let pools = statement("SELECT name, state FROM pools").all(db).await?;
    Ok((jobs, runners, pools))
}

/// The records that can be read. After a roll-back some may be of a newer version; that must not keep all others from being
/// served. A job that is left aside is found again at GitHub, a runner's instance is left alone, and an effect waits for the version
/// that wrote it.
fn readable<K: Display, T: DeserializeOwned>(rows: Vec<(K, String)>, kind: &'static str) -> Vec<T> {
    let read = rows.into_iter().map(|(key, text)| decode(&text, kind, key));
    read.filter_map(|read: Result<T, StoreError>| {
        read.inspect_err(|error| {
            tracing::error!(%error, "a record is left aside, as it is of a newer version, or damaged");
        })
        .ok()
    })
    .collect()
}

pub(super) async fn pending_effects(db: &Readers) -> Result<Vec<Effect>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Rows<String> = statement("SELECT key, effect FROM outbox ORDER BY sequence")
        .all(&mut db)
        .await?;
    Ok(readable(rows, "effect"))
}

pub(super) async fn job(db: &Readers, id: JobId) -> Result<Option<Job>, StoreError> {
    let mut db = db.acquire().await?;
    let row: Option<(String,)> = statement("SELECT record FROM jobs WHERE id = $1")
        .bind(id.0)
        .first(&mut db)
        .await?;
    row.map(|(text,)| decode(&text, "job", id)).transpose()
}

pub(super) async fn runner(db: &Readers, text: &str) -> Result<Option<Runner>, StoreError> {
    let mut db = db.acquire().await?;
    let row: Option<(String,)> = statement(
        "SELECT record FROM runners WHERE launch = $1 OR name = $1 OR instance = $1
         ORDER BY settled_at DESC LIMIT 1",
    )
    .bind(text)
    .first(&mut db)
    .await?;
    row.map(|(record,)| decode(&record, "runner", text))
        .transpose()
}
