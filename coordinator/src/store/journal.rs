//! What operators did, and small named values.

use sqlx::FromRow;

use super::change::Change;
use super::codec::{micros, timestamp};
use super::database::{Connection, Readers, statement};
use super::{OperatorAction, StoreError};

impl Change for OperatorAction {
    type Output = ();

    async fn apply(&self, db: &mut Connection) -> Result<(), StoreError> {
        statement(
            "INSERT INTO operator_actions (at, operator, method, target, reason)
             VALUES ($1, $2, $3, $4, $5)",
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

pub(super) async fn actions(db: &Readers, limit: u32) -> Result<Vec<OperatorAction>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Vec<Row> = statement(
        "SELECT sequence, at, operator, method, target, reason FROM operator_actions
         ORDER BY sequence DESC LIMIT $1",
    )
    .bind(limit)
    .all(&mut db)
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

    async fn apply(&self, db: &mut Connection) -> Result<(), StoreError> {
        statement(
            "INSERT INTO notes (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(&self.name)
        .bind(&self.value)
        .execute(db)
        .await?;
        Ok(())
    }
}

/// Nothing but the look, inside a transaction, whether this coordinator leads.
pub(super) struct LeadConfirmed;

impl Change for LeadConfirmed {
    type Output = ();

    async fn apply(&self, _db: &mut Connection) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(super) async fn note(db: &Readers, name: &str) -> Result<Option<String>, StoreError> {
    let mut db = db.acquire().await?;
    let row: Option<(String,)> = statement("SELECT value FROM notes WHERE name = $1")
        .bind(name)
        .first(&mut db)
        .await?;
    Ok(row.map(|(value,)| value))
}
