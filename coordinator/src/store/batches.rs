//! Calls that make several instances at once: what was asked, and what came of it.

use jiff::Timestamp;
use muster_core::AccountName;
use sqlx::FromRow;

use super::change::Change;
use super::codec::{micros, timestamp};
use super::database::{Connection, Readers, statement};
use super::{LaunchBatch, StoreError};

impl Change for LaunchBatch {
    type Output = ();

    async fn apply(&self, db: &mut Connection) -> Result<(), StoreError> {
        statement(
            "INSERT INTO launch_batches (token, account, created_at, settled, record)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (token) DO UPDATE SET record = excluded.record,
                 settled = CASE launch_batches.settled WHEN 1 THEN 1 ELSE excluded.settled END",
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
    settled: i64,
    record: String,
}

/// Whether there is a batch of this token.
pub(super) async fn has(db: &Readers, token: &str) -> Result<bool, StoreError> {
    let mut db = db.acquire().await?;
    let row: Option<(String,)> = statement("SELECT token FROM launch_batches WHERE token = $1")
        .bind(token)
        .first(&mut db)
        .await?;
    Ok(row.is_some())
}

/// The batches of an account that are not settled, and those made after a time.
pub(super) async fn batches(
    db: &Readers,
    account: &AccountName,
    after: Timestamp,
) -> Result<Vec<LaunchBatch>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Vec<Row> = statement(
        "SELECT token, created_at, settled, record FROM launch_batches
         WHERE account = $1 AND (settled = 0 OR created_at > $2) ORDER BY created_at, token",
    )
    .bind(account.as_str())
    .bind(micros(after))
    .all(&mut db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(LaunchBatch {
                created_at: timestamp(row.created_at, "launch batch", &row.token)?,
                token: row.token,
                account: account.clone(),
                settled: row.settled == 1,
                record: row.record,
            })
        })
        .collect()
}
