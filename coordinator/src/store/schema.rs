//! Bringing the schema up to date, and living with one that a newer program made.
//!
//! During a rolling deploy the old program works on while the new one has changed the schema. So each
//! migration is one that the program before it can live with: it adds tables, indexes and columns with a
//! default, and takes away only what that program doesn't use any more. The schema itself says which
//! programs it is for (`schema_compatibility`); one that is newer than this program and says that it is
//! for this one, too, is taken as it is.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migrator};
use tokio::time::timeout;

use super::StoreError;
use super::database::{Connection, Link, statement};

/// The schema of SQLite, step by step.
pub(super) static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");
/// The schema of PostgreSQL. Versions of the same number mean the same.
pub(super) static POSTGRES: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// Brings the schema up to date. A server that goes without a word is waited for as long as for a statement; what was
/// done by then stays, and the next try goes on there.
pub(super) async fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    if !db.is_postgres() {
        return migrate_with(db, &SQLITE).await;
    }
    let limit = db.limit();
    let done = timeout(limit, migrate_with(db, &POSTGRES)).await;
    done.unwrap_or(Err(StoreError::TooSlow(limit)))
}

/// The same, for a program that knows these versions.
pub(super) async fn migrate_with(
    db: &mut Connection,
    migrator: &Migrator,
) -> Result<(), StoreError> {
    let known = newest(migrator);
    let found = match run(db, migrator).await {
        Ok(()) => return Ok(()),
        Err(MigrateError::VersionMissing(found)) if found > known => found,
        Err(error) => return Err(error.into()),
    };
    if db.is_postgres() {
        // The lock that it took is held by the connection until then.
        statement("SELECT pg_advisory_unlock_all()::TEXT")
            .execute(db)
            .await?;
    }
    let (least, newest) = least_known(db, found).await?;
    if known < least {
        return Err(StoreError::NewerSchema {
            found: newest,
            least,
            known,
        });
    }
    let newer = Migrator {
        migrations: Cow::Owned(migrator.migrations.to_vec()),
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    run(db, &newer).await?;
    tracing::warn!(
        found = newest,
        known,
        "the database has a newer schema, and it is good for this program, too"
    );
    Ok(())
}

/// Whether a SQLite file has a schema that this program can work with, or bring up to date. Changes nothing.
pub(super) async fn fits(db: &mut sqlx::SqliteConnection) -> Result<(), StoreError> {
    let known = newest(&SQLITE);
    let found: (Option<i64>,) =
        sqlx::query_as("SELECT max(version) FROM _sqlx_migrations WHERE success = 1")
            .fetch_one(&mut *db)
            .await?;
    let found = found.0.unwrap_or_default();
    if found <= known {
        return Ok(());
    }
    let said: Result<(i64,), _> = sqlx::query_as("SELECT least_known FROM schema_compatibility")
        .fetch_one(db)
        .await;
    let least = said.map_or(found, |(least,)| least);
    if least <= known {
        return Ok(());
    }
    Err(StoreError::NewerSchema {
        found,
        least,
        known,
    })
}

fn newest(migrator: &Migrator) -> i64 {
    let versions = migrator.iter().map(|step| step.version);
    versions.max().unwrap_or_default()
}

async fn run(db: &mut Connection, migrator: &Migrator) -> Result<(), MigrateError> {
    match db.link() {
        Link::Sqlite(db) => migrator.run_direct(None, &mut **db, false).await,
        Link::Postgres(db) => migrator.run_direct(None, &mut **db, false).await,
    }
}

/// The oldest version that a program must know, and the newest that there is. A schema that doesn't say is
/// for its own program alone.
async fn least_known(db: &mut Connection, found: i64) -> Result<(i64, i64), StoreError> {
    let (newest,): (Option<i64>,) = statement("SELECT max(version) FROM _sqlx_migrations")
        .one(db)
        .await?;
    let newest = newest.unwrap_or(found);
    let said = statement("SELECT least_known FROM schema_compatibility")
        .first::<(i64,)>(db)
        .await;
    match said {
        Ok(Some((least,))) => Ok((least, newest)),
        Ok(None) | Err(StoreError::Database(_)) => Ok((newest, newest)),
        Err(error) => Err(error),
    }
}
