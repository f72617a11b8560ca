//! Copies SQLite's write-ahead log into the database, beside the writer.
//!
//! SQLite does that by itself, but in the commit that finds the log too long, and whoever waits for that commit
//! waits for the copy of all of it. A passive checkpoint of another connection hinders nobody, so that there is little
//! left for the writer's own (<https://www.sqlite.org/wal.html#performance_considerations>). That one stays: without
//! a moment in which all is copied the log would grow for as long as somebody writes.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::database::{Connection, Database};

/// Changes after which the log is copied.
const EVERY: usize = 500;

/// The task that copies; none for PostgreSQL, which has its own.
pub(super) struct Checkpoints {
    written: usize,
    due: Arc<Notify>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the task.
    pub(super) fn start(database: &Database) -> Self {
        let (due, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let task = matches!(database, Database::Sqlite(_)).then(|| {
            let work = Box::pin(copy(database.clone(), Arc::clone(&due)));
            let stopped = stop.clone();
            tokio::spawn(async move {
                stopped.run_until_cancelled(work).await;
            })
        });
        Self {
            written: 0,
            due,
            stop,
            task,
        }
    }

    /// So many changes were committed.
    pub(super) fn written(&mut self, changes: usize) {
        self.written += changes;
        if self.written >= EVERY {
            self.written = 0;
            self.due.notify_one();
        }
    }

    /// Ends the task. A copy that it is at goes on by itself, as harmless as any.
    pub(super) async fn close(self) {
        self.stop.cancel();
        if let Some(task) = self.task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the copying of the write-ahead log failed");
        }
    }
}

async fn copy(database: Database, due: Arc<Notify>) {
    let mut db = None;
    loop {
        due.notified().await;
        if let Err(error) = checkpoint(&database, &mut db).await {
            // The writer's own checkpoints still take place. What is wrong with the disk, the writer tells.
            tracing::debug!(%error, "the write-ahead log was not copied");
            if let Some(db) = db.take() {
                db.close_hard().await;
            }
        }
    }
}

async fn checkpoint(database: &Database, db: &mut Option<Connection>) -> Result<(), StoreError> {
    let db = match db {
        Some(db) => db,
        none => none.insert(database.connect().await?),
    };
    db.command("PRAGMA wal_checkpoint(PASSIVE)").await
}
