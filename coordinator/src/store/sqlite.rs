//! Opening the SQLite file: how it is locked, set up and brought up to date.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use super::StoreError;

/// The schema, step by step.
static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations");

/// How long a statement waits for another's lock. Only a backup tool or an operator's `sqlite3` holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read at the same time.
const READERS: u32 = 4;
/// How long a reader waits for a connection.
const READER_WAIT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before it is copied into the database. More than SQLite's
/// 1,000, as webhooks are large and each copy costs the commit that it falls on.
const CHECKPOINT_PAGES: &str = "4000";
/// Bytes that the write-ahead log may keep on disk after a checkpoint.
const WAL_LIMIT: &str = "67108864";

/// How connections are made. Durable on commit: write-ahead log, `synchronous = FULL`
/// (<https://www.sqlite.org/pragma.html#pragma_synchronous>: in WAL mode `NORMAL` may lose the newest
/// transactions when the power goes).
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", WAL_LIMIT)
}

/// Makes the file if there is none, readable by its owner only: webhooks tell of private repositories.
/// SQLite gives its side files the same mode.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| StoreError::Database(sqlx::Error::Io(error)))
}

/// Locks the database against another coordinator, until the file returned is dropped or the process
/// ends.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let io = |error| StoreError::Database(sqlx::Error::Io(error));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&name)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(name)),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(db: &mut SqliteConnection) -> Result<(), StoreError> {
    let known = MIGRATOR.iter().map(|step| step.version).max().unwrap_or(0);
    match MIGRATOR.run(db).await {
        Err(MigrateError::VersionMissing(found)) if found > known => {
            Err(StoreError::NewerSchema { found, known })
        }
        other => Ok(other?),
    }
}

/// Connections that read. They can't write.
pub(super) async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(READER_WAIT)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(pool)
}
