//! The fleet and its outbox: a batch is one transaction.

use std::fmt::Display;

use muster_core::{
    Effect, Job, JobId, JobStatus, LaunchId, PoolName, PoolState, Runner, Stored, TimelineEntry,
};
use serde::de::DeserializeOwned;

use super::change::Change;
use super::codec::{decode, encode, micros, rounded};
use super::database::{Connection, Database, Readers, statement, storable};
use super::{Batch, StoreError, StoredEntry};

impl Change for Batch {
    type Output = Vec<StoredEntry>;

    async fn apply(&self, db: &mut Connection) -> Result<Vec<StoredEntry>, StoreError> {
        if !self.mark(db).await? {
            return self.entries_of_before(db).await;
        }
        for job in &self.jobs {
            write_job(db, job).await?;
        }
        for runner in &self.runners {
            write_runner(db, runner).await?;
        }
        for (name, state) in &self.pools {
            write_pool(db, name, state).await?;
        }
        for id in &self.forgotten_jobs {
            forget_job(db, *id).await?;
        }
        for launch in &self.forgotten_runners {
            forget_runner(db, launch).await?;
        }
        for key in &self.finished_effects {
            finish_effect(db, key).await?;
        }
        for effect in self.effects.iter().filter(|effect| effect.is_durable()) {
            write_effect(db, effect).await?;
        }
        for guid in &self.processed_deliveries {
            mark_processed(db, guid).await?;
        }
        let mut entries = Vec::with_capacity(self.timeline.len());
        for entry in &self.timeline {
            entries.push(append(db, entry).await?);
        }
        Ok(entries)
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

async fn write_job(db: &mut Connection, job: &Job) -> Result<(), StoreError> {
    statement(
        "INSERT INTO jobs (id, pool, status, settled_at, record) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, status = excluded.status,
             settled_at = excluded.settled_at, record = excluded.record, forgotten = 0",
    )
    .bind(job.id().0)
    .bind(job.pool().map(PoolName::as_str))
    .bind(status_word(job.status()))
    .bind(micros(job.completed_at.unwrap_or(job.known_at)))
    .bind(encode(job)?)
    .execute(db)
    .await?;
    Ok(())
}

fn status_word(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Waiting => "waiting",
        JobStatus::Queued => "queued",
        JobStatus::InProgress => "in_progress",
        JobStatus::Completed => "completed",
    }
}

async fn write_runner(db: &mut Connection, runner: &Runner) -> Result<(), StoreError> {
    let marks = &runner.marks;
    statement(
        "INSERT INTO runners (launch, pool, name, instance, settled_at, record)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (launch) DO UPDATE SET pool = excluded.pool, name = excluded.name,
             instance = excluded.instance, settled_at = excluded.settled_at,
             record = excluded.record, forgotten = 0",
    )
    .bind(runner.launch.as_str())
    .bind(runner.pool.as_str())
    .bind(runner.name.as_str())
    .bind(runner.instance_id().map(muster_core::InstanceId::as_str))
    .bind(micros(marks.gone_at.unwrap_or(marks.stage_since)))
    .bind(encode(runner)?)
    .execute(db)
    .await?;
    Ok(())
}

async fn write_pool(
    db: &mut Connection,
    name: &PoolName,
    state: &PoolState,
) -> Result<(), StoreError> {
    statement(
        "INSERT INTO pools (name, state) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET state = excluded.state",
    )
    .bind(name.as_str())
    .bind(encode(state)?)
    .execute(db)
    .await?;
    Ok(())
}

async fn forget_job(db: &mut Connection, id: JobId) -> Result<(), StoreError> {
    statement("UPDATE jobs SET forgotten = 1 WHERE id = $1")
        .bind(id.0)
        .execute(db)
        .await?;
    Ok(())
}

async fn forget_runner(db: &mut Connection, launch: &LaunchId) -> Result<(), StoreError> {
    statement("UPDATE runners SET forgotten = 1 WHERE launch = $1")
        .bind(launch.as_str())
        .execute(db)
        .await?;
    Ok(())
}

async fn finish_effect(db: &mut Connection, key: &str) -> Result<(), StoreError> {
    statement("DELETE FROM outbox WHERE key = $1")
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}

async fn write_effect(db: &mut Connection, effect: &Effect) -> Result<(), StoreError> {
    statement(
        "INSERT INTO outbox (key, effect) VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET effect = excluded.effect",
    )
    .bind(effect.key())
    .bind(encode(effect)?)
    .execute(db)
    .await?;
    Ok(())
}

async fn mark_processed(db: &mut Connection, guid: &str) -> Result<(), StoreError> {
    statement("UPDATE deliveries SET processed = 1 WHERE guid = $1")
        .bind(guid)
        .execute(db)
        .await?;
    Ok(())
}

async fn append(db: &mut Connection, entry: &TimelineEntry) -> Result<StoredEntry, StoreError> {
    let (sequence,): (i64,) = statement(
        "INSERT INTO timeline (at, what, detail, pool, launch, runner, job)
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING sequence",
    )
    .bind(micros(entry.at))
    .bind(&entry.what)
    .bind(&entry.detail)
    .bind(entry.pool.as_ref().map(PoolName::as_str))
    .bind(entry.launch.as_ref().map(LaunchId::as_str))
    .bind(entry.runner.as_ref().map(muster_core::RunnerName::as_str))
    .bind(entry.job.map(|job| job.0))
    .one(db)
    .await?;
    Ok(StoredEntry {
        sequence,
        entry: as_stored(entry),
    })
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
    let (jobs, runners, pools) = read_all(&mut db).await?;
    Ok(Stored {
        jobs: decode_all(jobs, "job")?,
        runners: decode_all(runners, "runner")?,
        pools: pools
            .into_iter()
            .map(|(name, text)| Ok((PoolName::new(&name), decode(&text, "pool", &name)?)))
            .collect::<Result<_, StoreError>>()?,
    })
}

/// Keys and records.
type Rows<K> = Vec<(K, String)>;

async fn read_all(
    db: &mut Connection,
) -> Result<(Rows<i64>, Rows<String>, Rows<String>), StoreError> {
    let jobs = statement("SELECT id, record FROM jobs WHERE forgotten = 0 ORDER BY id")
        .all(db)
        .await?;
    // By the bytes, whatever the server's collation is.
    let mut runners: Rows<String> =
        statement("SELECT launch, record FROM runners WHERE forgotten = 0")
            .all(db)
            .await?;
    runners.sort_unstable();
    let pools = statement("SELECT name, state FROM pools").all(db).await?;
    Ok((jobs, runners, pools))
}

fn decode_all<K: Display, T: DeserializeOwned>(
    rows: Vec<(K, String)>,
    kind: &'static str,
) -> Result<Vec<T>, StoreError> {
    rows.into_iter()
        .map(|(key, text)| decode(&text, kind, key))
        .collect()
}

pub(super) async fn pending_effects(db: &Readers) -> Result<Vec<Effect>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Rows<String> = statement("SELECT key, effect FROM outbox ORDER BY sequence")
        .all(&mut db)
        .await?;
    decode_all(rows, "effect")
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
