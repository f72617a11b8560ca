//! The two databases: SQLite in a file, PostgreSQL on a server.
//!
//! Every statement has one text for both, with `$1` for parameters. This thin layer is our own, and not
//! sqlx's `Any` driver, as that takes nothing but a URL: there is no place in it for SQLite's
//! `synchronous = FULL`, busy time-out and limits of the write-ahead log, nor for PostgreSQL's time-outs
//! and root certificates, and it can't `LISTEN`.

mod many;
pub(super) mod postgres;
pub(super) mod sqlite;
mod statement;

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

pub(super) use self::many::{Insert, for_keys};
pub(super) use self::sqlite::Durable;
pub(super) use self::statement::{Statement, Value, built, statement, storable};
use super::StoreError;

/// Which database, and how to connect to it.
#[derive(Clone)]
pub(super) enum Database {
    /// A file.
    Sqlite(Durable),
    /// A server.
    Postgres(postgres::Server),
}

impl Database {
    /// Opens a connection, within the time for it.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        match self {
            Self::Sqlite(file) => {
                let connecting = file.options.connect();
                let db = bounded(sqlite::CONNECT, connecting).await?;
                Ok(Connection {
                    link: Link::Sqlite(Held::Own(db)),
                    limit: sqlite::STATEMENT,
                })
            }
            Self::Postgres(server) => {
                let options = server.options();
                let db = bounded(server.limits.connect, options.connect()).await?;
                Ok(Connection {
                    link: Link::Postgres(Held::Own(db)),
                    limit: server.limits.patience(),
                })
            }
        }
    }

    /// Connections that read.
    pub(super) async fn readers(&self) -> Result<Readers, StoreError> {
        Ok(match self {
            Self::Sqlite(file) => Readers::Sqlite(sqlite::readers(file).await?),
            Self::Postgres(server) => Readers::Postgres(server.readers(), server.limits),
        })
    }

    /// Makes sure that what is written is written to the database that others find, too.
    pub(super) async fn is_in_place(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(file) => file.is_in_place().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// What begins a transaction that writes.
    pub(super) fn begin(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        }
    }

    /// What begins a transaction that reads all as of one moment.
    pub(super) fn begin_snapshot(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// How long a transaction that writes may take, all in all.
    pub(super) fn transaction_limit(&self) -> Duration {
        match self {
            Self::Sqlite(_) => sqlite::TRANSACTION,
            Self::Postgres(server) => server.limits.patience() * 2,
        }
    }
}

/// A connection to either database.
pub(super) struct Connection {
    link: Link,
    /// How long one statement may take.
    limit: Duration,
}

/// The connection itself.
pub(super) enum Link {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
}

/// A connection that is ours, or a pool's.
pub(super) enum Held<D: sqlx::Database> {
    Own(D::Connection),
    Pooled(PoolConnection<D>),
}

impl<D: sqlx::Database> Deref for Held<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self {
            Self::Own(db) => db,
            Self::Pooled(db) => db,
        }
    }
}

impl<D: sqlx::Database> DerefMut for Held<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self {
            Self::Own(db) => db,
            Self::Pooled(db) => db,
        }
    }
}

impl Connection {
    /// True for PostgreSQL.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self.link, Link::Postgres(_))
    }

    /// Runs a text that returns no rows and has no parameters.
    pub(super) async fn command(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let (link, limit) = self.parts();
        let work = async {
            match link {
                Link::Sqlite(db) => sqlx::raw_sql(sql).execute(&mut **db).await.map(|_| ()),
                Link::Postgres(db) => sqlx::raw_sql(sql).execute(&mut **db).await.map(|_| ()),
            }
        };
        let done = bounded(limit, work).await;
        self.after(done)
    }

    /// The connection itself.
    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// How long a statement may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// What runs a statement, and for how long.
    fn parts(&mut self) -> (&mut Link, Duration) {
        (&mut self.link, self.limit)
    }

    /// After a failure an answer may still be on its way: a pool gets the connection back no more.
    fn after<T>(&mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if done.is_err() {
            self.spoil();
        }
        done
    }

    /// Has it closed when it is given back to its pool.
    pub(super) fn spoil(&mut self) {
        match &mut self.link {
            Link::Sqlite(Held::Pooled(db)) => db.close_on_drop(),
            Link::Postgres(Held::Pooled(db)) => db.close_on_drop(),
            Link::Sqlite(Held::Own(_)) | Link::Postgres(Held::Own(_)) => {}
        }
    }

    /// Closes it, having said so to the other side.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        let limit = self.limit;
        bounded(limit, async {
            match self.link {
                Link::Sqlite(Held::Own(db)) => db.close().await,
                Link::Postgres(Held::Own(db)) => db.close().await,
                Link::Sqlite(Held::Pooled(_)) | Link::Postgres(Held::Pooled(_)) => Ok(()),
            }
        })
        .await
    }

    /// Ends it without a word.
    pub(super) async fn close_hard(self) {
        let closing = async {
            match self.link {
                Link::Sqlite(Held::Own(db)) => drop(db.close_hard().await),
                Link::Postgres(Held::Own(db)) => drop(db.close_hard().await),
                Link::Sqlite(Held::Pooled(_)) | Link::Postgres(Held::Pooled(_)) => {}
            }
        };
        drop(timeout(Duration::from_secs(1), closing).await);
    }
}

/// Connections that read.
pub(super) enum Readers {
    Sqlite(SqlitePool),
    Postgres(PgPool, postgres::Limits),
}

impl Readers {
    /// A connection, once there is one.
    pub(super) async fn acquire(&self) -> Result<Connection, StoreError> {
        match self {
            Self::Sqlite(pool) => Ok(Connection {
                link: Link::Sqlite(Held::Pooled(pool.acquire().await?)),
                limit: sqlite::STATEMENT,
            }),
            Self::Postgres(pool, limits) => Ok(Connection {
                link: Link::Postgres(Held::Pooled(pool.acquire().await?)),
                limit: limits.patience(),
            }),
        }
    }

    /// Closes them all; waits for those that are in use.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool, _) => pool.close().await,
        }
    }
}

/// Has something done within a time.
pub(super) async fn bounded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::TooSlow(limit)),
    }
}
