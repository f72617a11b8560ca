//! Deleting what nobody needs any more, a little at a time: other writes pass in between.

use jiff::{SignedDuration, Timestamp};

use super::change::Change;
use super::codec::micros;
use super::database::{Connection, statement};
use super::writer::Writer;
use super::{Pruned, StoreError};

/// Rows of one table in one transaction, at most.
const CHUNK: u64 = 500;

/// How much longer than its body the guid of a delivery is kept, so that it is known when it comes
/// again. GitHub redelivers for three days
/// (<https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks>).
const GUID_KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Which rows of a table go.
enum What {
    Bodies,
    Guids,
    Jobs,
    Runners,
    Timeline,
    JoinTokens,
    LaunchBatches,
    Enrolments,
}

/// One chunk of one table.
struct Chunk {
    what: &'static str,
    before: i64,
}

impl Change for Chunk {
    /// Rows that went.
    type Output = u64;

    async fn apply(&self, db: &mut Connection) -> Result<u64, StoreError> {
        statement(self.what)
            .bind(self.before)
            .bind(i64::try_from(CHUNK).unwrap_or(i64::MAX))
            .execute(db)
            .await
    }
}

impl What {
    fn statement(&self) -> &'static str {
        match self {
            Self::Bodies => {
                "UPDATE deliveries SET body = NULL WHERE sequence IN (
                     SELECT sequence FROM deliveries
                     WHERE processed = 1 AND body IS NOT NULL AND received_at < $1 LIMIT $2)"
            }
            Self::Guids => {
                "DELETE FROM deliveries WHERE sequence IN (
                     SELECT sequence FROM deliveries
                     WHERE processed = 1 AND received_at < $1 LIMIT $2)"
            }
            Self::Jobs => {
                "DELETE FROM jobs WHERE id IN (
                     SELECT id FROM jobs WHERE forgotten = 1 AND settled_at < $1 LIMIT $2)"
            }
            Self::Runners => {
                "DELETE FROM runners WHERE launch IN (
                     SELECT launch FROM runners WHERE forgotten = 1 AND settled_at < $1 LIMIT $2)"
            }
            Self::Timeline => {
                "DELETE FROM timeline WHERE sequence IN (
                     SELECT sequence FROM timeline WHERE at < $1 LIMIT $2)"
            }
            Self::LaunchBatches => {
                "DELETE FROM launch_batches WHERE token IN (
                     SELECT token FROM launch_batches
                     WHERE settled = 1 AND created_at < $1 LIMIT $2)"
            }
            // The mark that a launch has enrolled stays as long as the launch is remembered.
            Self::JoinTokens => {
                "DELETE FROM join_tokens WHERE hash IN (
                     SELECT hash FROM join_tokens WHERE expires_at < $1 AND NOT EXISTS (
                         SELECT 1 FROM runners
                         WHERE runners.launch = join_tokens.launch AND forgotten = 0) LIMIT $2)"
            }
            Self::Enrolments => {
                "DELETE FROM enrolments WHERE (account_id, region, instance, launched_at) IN (
                     SELECT account_id, region, instance, launched_at
                     FROM enrolments WHERE at < $1 AND NOT EXISTS (
                         SELECT 1 FROM runners
                         WHERE runners.launch = enrolments.launch AND forgotten = 0) LIMIT $2)"
            }
        }
    }

    async fn prune(&self, writer: &Writer, before: Timestamp) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            let rows = writer
                .submit(Chunk {
                    what: self.statement(),
                    before: micros(before),
                })
                .await?;
            total += rows;
            if rows < CHUNK {
                return Ok(total);
            }
        }
    }
}

pub(super) async fn prune(writer: &Writer, before: Timestamp) -> Result<Pruned, StoreError> {
    let guids_before = before.checked_sub(GUID_KEPT).unwrap_or(Timestamp::MIN);
    Ok(Pruned {
        bodies: What::Bodies.prune(writer, before).await?,
        deliveries: What::Guids.prune(writer, guids_before).await?,
        jobs: What::Jobs.prune(writer, before).await?,
        runners: What::Runners.prune(writer, before).await?,
        timeline: What::Timeline.prune(writer, before).await?,
        join_tokens: What::JoinTokens.prune(writer, before).await?,
        launch_batches: What::LaunchBatches.prune(writer, before).await?,
        enrolments: What::Enrolments.prune(writer, before).await?,
    })
}
