//! Enrolments by proof of identity: each start of an instance enrols once.

use super::change::Change;
use super::codec::micros;
use super::database::{Connection, statement};
use super::{Claimed, Enrolment, StoreError};

impl Change for Enrolment {
    type Output = Claimed;

    async fn apply(&self, db: &mut Connection) -> Result<Claimed, StoreError> {
        let inserted = statement(
            "INSERT INTO enrolments
                 (account_id, region, instance, launched_at, launch, key_hash, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
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
        if inserted == 1 {
            return Ok(Claimed::Now);
        }
        let (same,): (bool,) = statement(
            "SELECT EXISTS (
                 SELECT 1 FROM enrolments
                 WHERE account_id = $1 AND region = $2 AND instance = $3 AND launched_at = $4
                     AND launch = $5 AND key_hash = $6)",
        )
        .bind(&self.account_id)
        .bind(&self.region)
        .bind(self.instance.as_str())
        .bind(micros(self.launched_at))
        .bind(self.launch.as_str())
        .bind(&self.key_hash[..])
        .one(db)
        .await?;
        Ok(if same {
            Claimed::BySameKey
        } else {
            Claimed::Already
        })
    }
}
