//! The wish that a copy ends before it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::sqlite::SqliteConnection;

use super::BackupError;

/// How many of its instructions SQLite executes between two looks; some microseconds.
const INSTRUCTIONS: i32 = 1_000;

/// Whether a copy is to end before it is done: then it leaves nothing behind. Clones are of the same wish.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for it, because of the signal of this number.
    pub fn ask(&self, signal: u8) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal, once it was asked for.
    #[must_use]
    pub fn asked(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// An error once it was asked for.
    pub(super) fn check(&self) -> Result<(), BackupError> {
        match self.asked() {
            None => Ok(()),
            Some(signal) => Err(BackupError::Interrupted(signal)),
        }
    }

    /// What an error means: what was stopped fails in any way.
    pub(super) fn meant(&self, error: BackupError) -> BackupError {
        self.check().err().unwrap_or(error)
    }

    /// Has a connection end what it does.
    pub(super) async fn ends(&self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let stop = self.clone();
        let goes_on = move || stop.asked().is_none();
        db.lock_handle()
            .await?
            .set_progress_handler(INSTRUCTIONS, goes_on);
        Ok(())
    }
}
