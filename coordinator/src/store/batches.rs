//! Calls that make several instances at once: what was asked, and what came of it.

use jiff::Timestamp;
use muster_core::AccountName;
use sqlx::FromRow;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::codec::{micros, timestamp};
use super::writer::Change;
use super::{LaunchBatch, StoreError};

impl Change for LaunchBatch {
    type Output = ();

    async fn apply(&self, db: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO launch_batches (token, account, created_at, settled, record)
             VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (token) DO UPDATE
             SET settled = max(settled, excluded.settled), record = excluded.record",
        )
        .bind(&self.token)
        .bind(self.account.as_str())
        .bind(micros(self.created_at))
        .bind(self.settled)
        .bind(&self.record)
        .execute(db)
        .await?;
        Ok(())
    }
}

#[derive(FromRow)]
struct Row {
    token: String,
    created_at: i64,
    settled: bool,
    record: String,
}

/// The batches of an account that are not settled, and those made after a time.
pub(super) async fn batches(
    db: &SqlitePool,
    account: &AccountName,
    after: Timestamp,
) -> Result<Vec<LaunchBatch>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT token, created_at, settled, record FROM launch_batches
         WHERE account = ? AND (settled = 0 OR created_at > ?) ORDER BY created_at, token",
    )
    .bind(account.as_str())
    .bind(micros(after))
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(LaunchBatch {
                created_at: timestamp(row.created_at, "launch batch", &row.token)?,
                token: row.token,
                account: account.clone(),
                settled: row.settled,
                record: row.record,
            })
        })
        .collect()
}
