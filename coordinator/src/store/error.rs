//! What can go wrong in the store.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// The store can't do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database refuses what it was asked; it will again.
    #[error("database: {0}")]
    Database(sqlx::Error),
    /// The database is gone, or going: it may be back in a moment.
    #[error("the database can't be reached: {0}")]
    Unavailable(sqlx::Error),
    /// There is no room on its disk.
    #[error("the disk of the database is full: {0}")]
    Full(sqlx::Error),
    /// It did not answer in time.
    #[error("the database did not answer within {0:?}")]
    TooSlow(Duration),
    /// The answer to a commit was lost. Whether it is stored is not known; it may be stored again without
    /// harm.
    #[error("whether it is stored is not known, as the answer of the database was lost: {0}")]
    Unknown(Box<StoreError>),
    /// Another coordinator leads, or nobody does: only the leader may write this.
    #[error("this coordinator does not lead")]
    NotLeader,
    /// The URL of the database can't be used. Says nothing of what is in it.
    #[error("store.url: {0}")]
    Url(&'static str),
    /// Its schema is damaged, or can't be brought up to date.
    #[error("schema: {0}")]
    Schema(sqlx::migrate::MigrateError),
    /// Its schema was made by a newer version of this program, and is nothing for this one.
    #[error(
        "the database has schema version {found}, made for programs that know {least} or newer; \
         this program knows {known}: run the newer program, or restore an older database"
    )]
    NewerSchema {
        /// The version in the database.
        found: i64,
        /// The oldest version that a program must know to work with it.
        least: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Another process has it open. Two coordinators on one database would launch everything twice.
    #[error(
        "another coordinator uses the database: {} is locked. To delete the lock file helps nobody: \
         the lock goes when that process ends", .0.display()
    )]
    InUse(PathBuf),
    /// The file at the database's path is not the one that was opened. What is written to that one nobody finds again.
    #[error(
        "{} was deleted, moved or replaced while this coordinator had it open: put it back, or let the coordinator start \
         anew with what is there now", .0.display()
    )]
    Replaced(PathBuf),
    /// More is written than the disk takes; later it may go.
    #[error("the database is too slow: the queue of writes was full for {0:?}")]
    Overloaded(Duration),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A stored record can't be read.
    #[error("stored {kind} {key} can't be read: {detail}")]
    Corrupt {
        /// What it is.
        kind: &'static str,
        /// Which one.
        key: String,
        /// Why not.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same may succeed later, with nothing changed but time and the state of the database's
    /// machine.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Unavailable(_)
            | Self::Full(_)
            | Self::TooSlow(_)
            | Self::Unknown(_)
            | Self::Overloaded(_) => true,
            Self::Schema(error) => is_outage(error),
            Self::Database(_)
            | Self::NotLeader
            | Self::Url(_)
            | Self::NewerSchema { .. }
            | Self::InUse(_)
            | Self::Replaced(_)
            | Self::Closed
            | Self::Corrupt { .. } => false,
        }
    }

    /// Whether the database as a whole is out of order, so that nothing else would go either.
    pub(super) fn is_of_all(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TooSlow(_) | Self::Unknown(_) | Self::Closed
        )
    }

    /// What a commit's failure means: only a plain refusal tells that nothing was stored.
    pub(super) fn of_commit(self) -> Self {
        match self {
            Self::Unavailable(_) | Self::TooSlow(_) => Self::Unknown(Box::new(self)),
            other => other,
        }
    }

    /// The same again, for another caller who met the same fate: `sqlx::Error` can't be cloned.
    pub(super) fn again(&self) -> Self {
        let told = |error: &sqlx::Error| sqlx::Error::Io(std::io::Error::other(error.to_string()));
        match self {
            Self::Closed => Self::Closed,
            Self::NotLeader => Self::NotLeader,
            Self::Replaced(path) => Self::Replaced(path.clone()),
            Self::TooSlow(limit) => Self::TooSlow(*limit),
            Self::Full(error) => Self::Full(told(error)),
            Self::Unavailable(error) => Self::Unavailable(told(error)),
            Self::Database(error) => Self::Database(told(error)),
            Self::Unknown(error) => Self::Unknown(Box::new(error.again())),
            other => Self::Database(sqlx::Error::Io(std::io::Error::other(other.to_string()))),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(cause) if is_full(cause) => Self::Full(error),
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::WorkerCrashed => {
                Self::Unavailable(error)
            }
            E::PoolClosed => Self::Closed,
            E::Database(cause) => match trouble(cause.as_ref()) {
                Trouble::Full => Self::Full(error),
                Trouble::Passes => Self::Unavailable(error),
                Trouble::Lasts => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Schema(error)
    }
}

/// A change of the schema may fail because the database is going away.
fn is_outage(error: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError as E;
    let (E::Execute(cause) | E::ExecuteMigration(cause, _)) = error else {
        return false;
    };
    match cause {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(cause) => !matches!(trouble(cause.as_ref()), Trouble::Lasts),
        _ => false,
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::StorageFull | K::QuotaExceeded)
}

enum Trouble {
    Full,
    Passes,
    Lasts,
}

/// What an error of a database means. SQLite's codes are numbers
/// (<https://www.sqlite.org/rescode.html>; the low byte is the primary one), PostgreSQL's have five characters
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
fn trouble(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Trouble {
    let code = error.code().unwrap_or_default();
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        return match code.parse::<u32>().unwrap_or_default() & 0xff {
            13 => Trouble::Full,
            // BUSY, LOCKED, READONLY (a disk with errors is mounted so), IOERR, CANTOPEN
            5 | 6 | 8 | 10 | 14 => Trouble::Passes,
            _ => Trouble::Lasts,
        };
    }
    match &*code {
        "53100" => Trouble::Full,
        // A server that became a replica, a time-out of a statement, a lock or a transaction. A deadlock is
        // not among them: it is of this transaction, and each of its changes alone has none.
        "25006" | "57014" | "55P03" | "25P03" => Trouble::Passes,
        // No connection, no resources, shut down, errors of the system; wrong passwords are rotated ones.
        code if ["08", "53", "57", "58", "28"].contains(&code.get(..2).unwrap_or_default()) => {
            Trouble::Passes
        }
        _ => Trouble::Lasts,
    }
}
