//! What keeps one who doesn't lead any more from writing.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::database::{Connection, statement};
use super::lease::NAME;

/// What the writer knows of the lease.
#[derive(Debug, Default)]
pub(super) struct Fence {
    // Shared by the writer and the keeper of the lease; held for a look only.
    held: Mutex<Option<Held>>,
}

/// A lease that is held.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) holder: String,
    pub(super) fencing: i64,
    pub(super) lost: CancellationToken,
}

impl Fence {
    fn held(&self) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    pub(super) fn set(&self, held: Option<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Forgets this lease; a newer one stays.
    pub(super) fn clear(&self, fencing: i64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| held.fencing == fencing) {
            *held = None;
        }
    }

    /// Whether this coordinator believes that it leads.
    pub(super) fn leads(&self) -> bool {
        self.held().is_some()
    }

    /// Makes sure, inside a transaction, that this coordinator leads, and goes on to until the transaction
    /// has ended: to take the lead is to change `fencing`, which waits for this lock; a renewal doesn't.
    pub(super) async fn check(&self, db: &mut Connection) -> Result<(), StoreError> {
        if !db.is_postgres() {
            return Ok(());
        }
        let held = self.held().ok_or(StoreError::NotLeader)?;
        let row: Option<(i64,)> = statement(
            "SELECT fencing FROM leases
             WHERE name = $1 AND holder = $2 AND fencing = $3 FOR KEY SHARE",
        )
        .bind(NAME)
        .bind(&held.holder)
        .bind(held.fencing)
        .first(db)
        .await?;
        if row.is_some() {
            return Ok(());
        }
        tracing::error!(fencing = held.fencing, "another coordinator leads");
        self.clear(held.fencing);
        held.lost.cancel();
        Err(StoreError::NotLeader)
    }
}
