//! Webhooks, stored before they are answered.

use std::collections::HashSet;

use sqlx::FromRow;

use super::change::Change;
use super::codec::{micros, timestamp};
use super::database::{Connection, Readers, Value, statement, storable};
use super::{Accepted, Delivery, StoreError};

impl Change for Delivery {
    type Output = Accepted;

    /// Whoever leads: followers take webhooks, too.
    const OF_LEADER: bool = false;
    const WAKES_LEADER: bool = true;

    async fn apply(&self, db: &mut Connection) -> Result<Accepted, StoreError> {
        let rows = statement(
            "INSERT INTO deliveries (guid, event, received_at, body) VALUES ($1, $2, $3, $4)
             ON CONFLICT (guid) DO NOTHING",
        )
        .bind(&self.guid)
        .bind(&self.event)
        .bind(micros(self.received_at))
        .bind(self.body.as_slice())
        .execute(db)
        .await?;
        Ok(match rows {
            0 => Accepted::Duplicate,
            _ => Accepted::New,
        })
    }

    fn size(&self) -> usize {
        self.body.len()
    }

    fn as_delivery(&self) -> Option<&Delivery> {
        Some(self)
    }

    fn delivered(accepted: Accepted) -> Option<Accepted> {
        Some(accepted)
    }
}

/// Stores several at once, in their order; only PostgreSQL can. Of two with one guid the first is new.
pub(super) async fn accept_all(
    db: &mut Connection,
    deliveries: &[&Delivery],
) -> Result<Vec<Accepted>, StoreError> {
    let mut first = HashSet::new();
    let sent: Vec<&Delivery> = deliveries
        .iter()
        .copied()
        .filter(|one| first.insert(one.guid.as_str()))
        .collect();
    let stored: Vec<(String,)> = statement(
        "INSERT INTO deliveries (guid, event, received_at, body)
         SELECT guid, event, received_at, body
         FROM UNNEST($1, $2, $3, $4) WITH ORDINALITY
             AS sent (guid, event, received_at, body, place) ORDER BY place
         ON CONFLICT (guid) DO NOTHING RETURNING guid",
    )
    .bind(Value::Texts(
        sent.iter().map(|one| Some(storable(&one.guid))).collect(),
    ))
    .bind(Value::Texts(
        sent.iter().map(|one| Some(storable(&one.event))).collect(),
    ))
    .bind(Value::Integers(
        sent.iter()
            .map(|one| Some(micros(one.received_at)))
            .collect(),
    ))
    .bind(Value::Blobs(
        sent.iter().map(|one| one.body.clone()).collect(),
    ))
    .all(db)
    .await?;
    let mut new: HashSet<String> = stored.into_iter().map(|(guid,)| guid).collect();
    Ok(deliveries
        .iter()
        .map(|one| match new.remove(&one.guid) {
            true => Accepted::New,
            false => Accepted::Duplicate,
        })
        .collect())
}

#[derive(FromRow)]
struct Row {
    guid: String,
    event: String,
    received_at: i64,
    body: Vec<u8>,
}

pub(super) async fn pending(db: &Readers, limit: u32) -> Result<Vec<Delivery>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Vec<Row> = statement(
        "SELECT guid, event, received_at, body FROM deliveries
         WHERE processed = 0 ORDER BY sequence LIMIT $1",
    )
    .bind(limit)
    .all(&mut db)
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
