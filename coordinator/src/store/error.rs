//! What can go wrong in the store.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// The store can't do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database refuses, is broken or full.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Its schema is damaged, or can't be brought up to date.
    #[error("schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// Its schema was made by a newer version of this program.
    #[error(
        "the database has schema version {found}, this program knows {known}: \
         run the newer program, or restore an older database"
    )]
    NewerSchema {
        /// The version in the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Another process has it open. Two coordinators on one database would launch everything twice.
    #[error("another coordinator uses the database: {} is locked", .0.display())]
    InUse(PathBuf),
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
    /// The same again, for another caller who met the same fate: `sqlx::Error` can't be cloned.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Closed => Self::Closed,
            other => Self::Database(sqlx::Error::Io(std::io::Error::other(other.to_string()))),
        }
    }
}
