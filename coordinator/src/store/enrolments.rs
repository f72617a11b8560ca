//! Enrolments by proof of identity: each start of an instance enrols once.

use sqlx::sqlite::SqliteConnection;

use super::codec::micros;
use super::writer::Change;
use super::{Claimed, Enrolment, StoreError};

impl Change for Enrolment {
    type Output = Claimed;

    async fn apply(&self, db: &mut SqliteConnection) -> Result<Claimed, StoreError> {
        let inserted = sqlx::query(
            "INSERT INTO enrolments
                 (account_id, region, instance, launched_at, launch, key_hash, at)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&self.account_id)
        .bind(&self.region)
        .bind(self.instance.as_str())
        .bind(micros(self.launched_at))
        .bind(self.launch.as_str())
        .bind(&self.key_hash[..])
        .bind(micros(self.at))
        .execute(&mut *db)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(Claimed::Now);
        }
        let same: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM enrolments
                 WHERE account_id = ? AND region = ? AND instance = ? AND launched_at = ?
                     AND launch = ? AND key_hash = ?)",
        )
        .bind(&self.account_id)
        .bind(&self.region)
        .bind(self.instance.as_str())
        .bind(micros(self.launched_at))
        .bind(self.launch.as_str())
        .bind(&self.key_hash[..])
        .fetch_one(db)
        .await?;
        Ok(if same {
            Claimed::BySameKey
        } else {
            Claimed::Already
        })
    }
}
