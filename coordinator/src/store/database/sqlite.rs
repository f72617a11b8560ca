//! Opening the SQLite file: how it is locked and set up.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::store::StoreError;

/// How long a statement waits for another's lock. Only a backup tool or an operator's `sqlite3` holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening the file may take: what a crash left in the write-ahead log is read then.
pub(super) const CONNECT: Duration = Duration::from_secs(30);
/// How long a statement may take, and a transaction. A disk that hangs is told by these.
pub(super) const STATEMENT: Duration = Duration::from_secs(10);
pub(super) const TRANSACTION: Duration = Duration::from_secs(20);
/// Connections that read at the same time.
const READERS: u32 = 4;
/// How long a reader waits for a connection.
const READER_WAIT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before it is copied into the database. More than SQLite's
/// 1,000, as webhooks are large and each copy costs the commit that it falls on.
const CHECKPOINT_PAGES: &str = "4000";
/// Bytes that the write-ahead log may keep on disk after a checkpoint.
const WAL_LIMIT: &str = "67108864";

/// A file, and how connections to it are made.
#[derive(Clone)]
pub(in crate::store) struct Durable {
    pub(in crate::store) path: PathBuf,
    pub(in crate::store) options: SqliteConnectOptions,
    /// Device and number of the file that was opened.
    opened: Option<(u64, u64)>,
}

impl Durable {
    /// The file at this path, with the options that the store needs.
    pub(in crate::store) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            options: options(path),
            opened: None,
        }
    }

    /// Makes the file if there is none, readable by its owner only: webhooks tell of private repositories. SQLite gives
    /// its side files the same mode. The file is known from now on.
    pub(in crate::store) fn create(&mut self) -> Result<(), StoreError> {
        let mut how = OpenOptions::new();
        how.create(true).append(true).mode(0o600);
        let opened = how.open(&self.path).and_then(|file| file.metadata());
        let found = opened.map_err(at(&self.path))?;
        self.opened = Some((found.dev(), found.ino()));
        Ok(())
    }

    /// Fails if the file at the path is another than the one that was opened: SQLite goes on in that one, and doesn't look.
    pub(super) async fn is_in_place(&self) -> Result<(), StoreError> {
        let found = match tokio::fs::metadata(&self.path).await {
            Ok(found) => Some((found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&self.path)(error)),
        };
        if self.opened.is_none() || self.opened == found {
            return Ok(());
        }
        Err(StoreError::Replaced(self.path.clone()))
    }
}

/// How connections are made. Durable on commit: write-ahead log, `synchronous = FULL`
/// (<https://www.sqlite.org/pragma.html#pragma_synchronous>: in WAL mode `NORMAL` may lose the newest
/// transactions when the power goes).
pub(in crate::store) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", WAL_LIMIT)
}

/// What keeps another coordinator out of a database, until it is dropped or the process ends.
#[derive(Debug)]
pub(in crate::store) struct Lock {
    /// The file beside the database.
    pub(in crate::store) file: File,
    /// Where that is.
    pub(in crate::store) path: PathBuf,
    /// Whether it was made just now.
    pub(in crate::store) is_new: bool,
    _directory: File,
}

/// Locks the database against another coordinator: by a file beside it, and by the directory that it is in, as
/// people delete such files.
///
/// The database itself is no place for a lock: a network file system makes it one of SQLite's kind, which
/// SQLite's own would meet, and to close a file takes SQLite's locks of it away
/// (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
/// The lock of a directory is seen on this machine only; that of the file, where the file system has it, on all.
pub(in crate::store) fn lock(path: &Path) -> Result<Lock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut how = OpenOptions::new();
    how.append(true).mode(0o600);
    let (file, is_new) = match how.create_new(true).open(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            (how.create_new(false).create(true).open(&name), false)
        }
        made => (made, true),
    };
    let file = file.map_err(at(&name))?;
    hold(&file, &name)?;
    let resolved = fs::canonicalize(path);
    let directory = directory_of(resolved.as_deref().unwrap_or(path));
    let opened = File::open(directory).map_err(at(directory))?;
    hold(&opened, directory)?;
    Ok(Lock {
        file,
        path: name,
        is_new,
        _directory: opened,
    })
}

fn hold(file: &File, path: &Path) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

/// An error of a file, with its name.
fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |error| {
        let named = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        StoreError::from(sqlx::Error::Io(named))
    }
}

/// The directory that a file is in.
pub(in crate::store) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Connections that read. They can't write.
pub(super) async fn readers(file: &Durable) -> Result<SqlitePool, StoreError> {
    let options = file.options.clone().pragma("query_only", "ON");
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(READER_WAIT)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    Ok(pool)
}
