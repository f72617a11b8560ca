//! Webhooks, stored before they are answered.

use sqlx::FromRow;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::codec::{micros, timestamp};
use super::writer::Change;
use super::{Accepted, Delivery, StoreError};

impl Change for Delivery {
    type Output = Accepted;

    async fn apply(&self, db: &mut SqliteConnection) -> Result<Accepted, StoreError> {
        let done = sqlx::query(
            "INSERT INTO deliveries (guid, event, received_at, body) VALUES (?, ?, ?, ?)
             ON CONFLICT (guid) DO NOTHING",
        )
        .bind(&self.guid)
        .bind(&self.event)
        .bind(micros(self.received_at))
        .bind(&self.body)
        .execute(db)
        .await?;
        Ok(match done.rows_affected() {
            0 => Accepted::Duplicate,
            _ => Accepted::New,
        })
    }

    fn size(&self) -> usize {
        self.body.len()
    }
}

#[derive(FromRow)]
struct Row {
    guid: String,
    event: String,
    received_at: i64,
    body: Vec<u8>,
}

pub(super) async fn pending(db: &SqlitePool, limit: u32) -> Result<Vec<Delivery>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT guid, event, received_at, body FROM deliveries
         WHERE processed = 0 ORDER BY sequence LIMIT ?",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let received_at = timestamp(row.received_at, "delivery", &row.guid)?;
            Ok(Delivery {
                guid: row.guid,
                event: row.event,
                body: row.body,
                received_at,
            })
        })
        .collect()
}
