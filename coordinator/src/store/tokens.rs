//! Join tokens: stored as hashes, each launch enrols once.

use jiff::Timestamp;
use muster_core::{InstanceId, LaunchId, PoolName};
use sqlx::FromRow;

use super::change::Change;
use super::codec::{micros, timestamp};
use super::database::{Connection, statement};
use super::{JoinToken, Redeemed, StoreError};

impl Change for JoinToken {
    type Output = ();

    async fn apply(&self, db: &mut Connection) -> Result<(), StoreError> {
        statement("DELETE FROM join_tokens WHERE launch = $1 AND used_at IS NULL")
            .bind(self.launch.as_str())
            .execute(&mut *db)
            .await?;
        statement(
            "INSERT INTO join_tokens (hash, launch, pool, instance, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&self.hash[..])
        .bind(self.launch.as_str())
        .bind(self.pool.as_str())
        .bind(self.instance.as_str())
        .bind(micros(self.expires_at))
        .execute(db)
        .await?;
        Ok(())
    }
}

/// The wish to use a token.
pub(super) struct Redeem {
    pub(super) hash: [u8; 32],
    pub(super) now: Timestamp,
}

#[derive(FromRow)]
struct Row {
    launch: String,
    pool: String,
    instance: String,
    expires_at: i64,
}

impl Change for Redeem {
    type Output = Redeemed;

    async fn apply(&self, db: &mut Connection) -> Result<Redeemed, StoreError> {
        let row: Option<Row> = statement(
            "UPDATE join_tokens SET used_at = $1
             WHERE hash = $2 AND used_at IS NULL AND expires_at > $1 AND NOT EXISTS (
                 SELECT 1 FROM join_tokens AS other
                 WHERE other.launch = join_tokens.launch AND other.used_at IS NOT NULL)
             RETURNING launch, pool, instance, expires_at",
        )
        .bind(micros(self.now))
        .bind(&self.hash[..])
        .first(&mut *db)
        .await?;
        match row {
            Some(row) => Ok(Redeemed::Now(JoinToken {
                hash: self.hash,
                expires_at: timestamp(row.expires_at, "join token of", &row.launch)?,
                launch: LaunchId::new(row.launch),
                pool: PoolName::new(row.pool),
                instance: InstanceId::new(row.instance),
            })),
            None => self.why_not(db).await,
        }
    }
}

impl Redeem {
    async fn why_not(&self, db: &mut Connection) -> Result<Redeemed, StoreError> {
        let used: Option<(bool,)> = statement(
            "SELECT EXISTS (
                 SELECT 1 FROM join_tokens AS other
                 WHERE other.launch = join_tokens.launch AND other.used_at IS NOT NULL)
             FROM join_tokens WHERE hash = $1",
        )
        .bind(&self.hash[..])
        .first(db)
        .await?;
        Ok(match used {
            None => Redeemed::Unknown,
            Some((true,)) => Redeemed::Already,
            Some((false,)) => Redeemed::Expired,
        })
    }
}
