//! The fleet and its outbox: a batch is one transaction.

use std::fmt::Display;

use muster_core::{
    Effect, Job, JobId, JobStatus, LaunchId, PoolName, PoolState, Runner, Stored, TimelineEntry,
};
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::codec::{decode, encode, micros, rounded};
use super::writer::Change;
use super::{Batch, StoreError, StoredEntry};

impl Change for Batch {
    type Output = Vec<StoredEntry>;

    async fn apply(&self, db: &mut SqliteConnection) -> Result<Vec<StoredEntry>, StoreError> {
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

async fn write_job(db: &mut SqliteConnection, job: &Job) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO jobs (id, pool, status, settled_at, record) VALUES (?, ?, ?, ?, ?)
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

async fn write_runner(db: &mut SqliteConnection, runner: &Runner) -> Result<(), StoreError> {
    let marks = &runner.marks;
    sqlx::query(
        "INSERT INTO runners (launch, pool, name, instance, settled_at, record)
         VALUES (?, ?, ?, ?, ?, ?)
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
    db: &mut SqliteConnection,
    name: &PoolName,
    state: &PoolState,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pools (name, state) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET state = excluded.state",
    )
    .bind(name.as_str())
    .bind(encode(state)?)
    .execute(db)
    .await?;
    Ok(())
}

async fn forget_job(db: &mut SqliteConnection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET forgotten = 1 WHERE id = ?")
        .bind(id.0)
        .execute(db)
        .await?;
    Ok(())
}

async fn forget_runner(db: &mut SqliteConnection, launch: &LaunchId) -> Result<(), StoreError> {
    sqlx::query("UPDATE runners SET forgotten = 1 WHERE launch = ?")
        .bind(launch.as_str())
        .execute(db)
        .await?;
    Ok(())
}

async fn finish_effect(db: &mut SqliteConnection, key: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outbox WHERE key = ?")
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}

async fn write_effect(db: &mut SqliteConnection, effect: &Effect) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (key, effect) VALUES (?, ?)
         ON CONFLICT (key) DO UPDATE SET effect = excluded.effect",
    )
    .bind(effect.key())
    .bind(encode(effect)?)
    .execute(db)
    .await?;
    Ok(())
}

async fn mark_processed(db: &mut SqliteConnection, guid: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE deliveries SET processed = 1 WHERE guid = ?")
        .bind(guid)
        .execute(db)
        .await?;
    Ok(())
}

async fn append(
    db: &mut SqliteConnection,
    entry: &TimelineEntry,
) -> Result<StoredEntry, StoreError> {
    let done = sqlx::query(
        "INSERT INTO timeline (at, what, detail, pool, launch, runner, job)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(micros(entry.at))
    .bind(&entry.what)
    .bind(&entry.detail)
    .bind(entry.pool.as_ref().map(PoolName::as_str))
    .bind(entry.launch.as_ref().map(LaunchId::as_str))
    .bind(entry.runner.as_ref().map(muster_core::RunnerName::as_str))
    .bind(entry.job.map(|job| job.0))
    .execute(db)
    .await?;
    let mut entry = entry.clone();
    entry.at = rounded(entry.at);
    Ok(StoredEntry {
        sequence: done.last_insert_rowid(),
        entry,
    })
}

/// What was not forgotten, as of one moment.
pub(super) async fn load(db: &SqlitePool) -> Result<Stored, StoreError> {
    let mut snapshot = db.begin().await?;
    let jobs: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, record FROM jobs WHERE forgotten = 0 ORDER BY id")
            .fetch_all(&mut *snapshot)
            .await?;
    let runners: Vec<(String, String)> =
        sqlx::query_as("SELECT launch, record FROM runners WHERE forgotten = 0 ORDER BY launch")
            .fetch_all(&mut *snapshot)
            .await?;
    let pools: Vec<(String, String)> = sqlx::query_as("SELECT name, state FROM pools")
        .fetch_all(&mut *snapshot)
        .await?;
    snapshot.rollback().await?;
    Ok(Stored {
        jobs: decode_all(jobs, "job")?,
        runners: decode_all(runners, "runner")?,
        pools: pools
            .into_iter()
            .map(|(name, text)| Ok((PoolName::new(&name), decode(&text, "pool", &name)?)))
            .collect::<Result<_, StoreError>>()?,
    })
}

fn decode_all<K: Display, T: DeserializeOwned>(
    rows: Vec<(K, String)>,
    kind: &'static str,
) -> Result<Vec<T>, StoreError> {
    rows.into_iter()
        .map(|(key, text)| decode(&text, kind, key))
        .collect()
}

pub(super) async fn pending_effects(db: &SqlitePool) -> Result<Vec<Effect>, StoreError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT key, effect FROM outbox ORDER BY sequence")
            .fetch_all(db)
            .await?;
    decode_all(rows, "effect")
}

pub(super) async fn job(db: &SqlitePool, id: JobId) -> Result<Option<Job>, StoreError> {
    let text: Option<String> = sqlx::query_scalar("SELECT record FROM jobs WHERE id = ?")
        .bind(id.0)
        .fetch_optional(db)
        .await?;
    text.map(|text| decode(&text, "job", id)).transpose()
}

pub(super) async fn runner(db: &SqlitePool, text: &str) -> Result<Option<Runner>, StoreError> {
    let record: Option<String> = sqlx::query_scalar(
        "SELECT record FROM runners WHERE launch = ?1 OR name = ?1 OR instance = ?1
         ORDER BY settled_at DESC LIMIT 1",
    )
    .bind(text)
    .fetch_optional(db)
    .await?;
    record
        .map(|record| decode(&record, "runner", text))
        .transpose()
}
