//! What operators did, and small named values.

use sqlx::FromRow;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::codec::{micros, timestamp};
use super::writer::Change;
use super::{OperatorAction, StoreError};

impl Change for OperatorAction {
    type Output = ();

    async fn apply(&self, db: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO operator_actions (at, operator, method, target, reason)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(micros(self.at))
        .bind(&self.operator)
        .bind(&self.method)
        .bind(&self.target)
        .bind(&self.reason)
        .execute(db)
        .await?;
        Ok(())
    }
}

#[derive(FromRow)]
struct Row {
    sequence: i64,
    at: i64,
    operator: String,
    method: String,
    target: String,
    reason: String,
}

pub(super) async fn actions(
    db: &SqlitePool,
    limit: u32,
) -> Result<Vec<OperatorAction>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT sequence, at, operator, method, target, reason FROM operator_actions
         ORDER BY sequence DESC LIMIT ?",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(OperatorAction {
                at: timestamp(row.at, "operator action", row.sequence)?,
                operator: row.operator,
                method: row.method,
                target: row.target,
                reason: row.reason,
            })
        })
        .collect()
}

/// A small named value.
pub(super) struct Note {
    pub(super) name: String,
    pub(super) value: String,
}

impl Change for Note {
    type Output = ();

    async fn apply(&self, db: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO notes (name, value) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(&self.name)
        .bind(&self.value)
        .execute(db)
        .await?;
        Ok(())
    }
}

pub(super) async fn note(db: &SqlitePool, name: &str) -> Result<Option<String>, StoreError> {
    let value = sqlx::query_scalar("SELECT value FROM notes WHERE name = ?")
        .bind(name)
        .fetch_optional(db)
        .await?;
    Ok(value)
}
