//! The one task that writes. Changes that wait at the same time share a transaction, and so an fsync.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::StoreError;

/// Changes that may wait for the writer.
const QUEUE: usize = 1024;
/// How long a caller waits for a place in the queue. GitHub gives up a webhook after ten seconds
/// (<https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks>).
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Changes in one transaction, at most.
const GROUP: usize = 128;
/// Bytes after which a transaction takes no more changes.
const GROUP_BYTES: usize = 8 << 20;

/// How long the changes of a group that failed are tried each alone, before the rest of them is given
/// the group's error: where each meets a lock, each would wait for its own time-out.
const ALONE_WAIT: Duration = Duration::from_secs(5);

/// One thing to write. It may be applied more than once, if a transaction is rolled back.
pub(super) trait Change: Send + Sync + 'static {
    /// What the caller learns.
    type Output: Send;

    /// Writes it inside a transaction.
    fn apply(
        &self,
        db: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;

    /// About how many bytes it writes, if that may be many.
    fn size(&self) -> usize {
        0
    }
}

/// A change, its outcome once applied, and who waits for it.
struct Pending<C: Change> {
    change: C,
    outcome: Option<C::Output>,
    reply: oneshot::Sender<Result<C::Output, StoreError>>,
}

/// A [`Pending`] whose change may be of any type.
trait Queued: Send {
    fn apply<'a>(
        &'a mut self,
        db: &'a mut SqliteConnection,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Tells the caller: the outcome if the transaction was committed.
    fn answer(self: Box<Self>, verdict: Result<(), StoreError>);

    fn size(&self) -> usize;
}

impl<C: Change> Queued for Pending<C> {
    fn apply<'a>(
        &'a mut self,
        db: &'a mut SqliteConnection,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.outcome = Some(self.change.apply(db).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, verdict: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let answer = verdict.and_then(|()| outcome.ok_or(StoreError::Closed));
        // A caller that has gone away needs no answer.
        drop(reply.send(answer));
    }

    fn size(&self) -> usize {
        self.change.size()
    }
}

/// The way to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Queued>>,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the task. It ends when it is closed, or when the last `Writer` is dropped.
    pub(super) fn start(db: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let (queue, changes) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let task = Task {
            changes,
            stop: stop.clone(),
            options,
            db: Some(db),
        };
        Self {
            queue,
            stop,
            task: tokio::sync::Mutex::new(Some(tokio::spawn(task.run()))),
        }
    }

    /// Has a change written; durable on return. If the caller goes away, it may be written or not.
    pub(super) async fn submit<C: Change>(&self, change: C) -> Result<C::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        let place = tokio::time::timeout(QUEUE_WAIT, self.queue.reserve())
            .await
            .map_err(|_| StoreError::Overloaded(QUEUE_WAIT))?
            .map_err(|_| StoreError::Closed)?;
        place.send(Box::new(Pending {
            change,
            outcome: None,
            reply,
        }));
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes what is queued, then closes the database.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the store's writer failed");
        }
    }
}

/// The owner of the connection that writes.
struct Task {
    changes: mpsc::Receiver<Box<dyn Queued>>,
    stop: CancellationToken,
    options: SqliteConnectOptions,
    /// None after a failure, until the next change.
    db: Option<SqliteConnection>,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            let group = self.gather(first);
            self.store(group).await;
        }
        if let Some(db) = self.db.take()
            && let Err(error) = db.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }

    async fn next(&mut self) -> Option<Box<dyn Queued>> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.changes.close();
                self.changes.recv().await
            }
            change = self.changes.recv() => change,
        }
    }

    /// The first change and those that wait behind it, within bounds.
    fn gather(&mut self, first: Box<dyn Queued>) -> Vec<Box<dyn Queued>> {
        let mut bytes = first.size();
        let mut group = vec![first];
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Ok(change) = self.changes.try_recv() else {
                break;
            };
            bytes += change.size();
            group.push(change);
        }
        group
    }

    /// Stores a group in one transaction. If that fails, each change in its own, so that one that
    /// can't be stored does no harm to its neighbours.
    async fn store(&mut self, mut group: Vec<Box<dyn Queued>>) {
        let error = match self.transaction(&mut group).await {
            Ok(()) => {
                for change in group {
                    change.answer(Ok(()));
                }
                return;
            }
            Err(error) => error,
        };
        if group.len() == 1 {
            if let Some(change) = group.pop() {
                change.answer(Err(error));
            }
            return;
        }
        tracing::warn!(%error, changes = group.len(), "a group of changes failed; storing each alone");
        let deadline = Instant::now() + ALONE_WAIT;
        for mut change in group {
            let verdict = if Instant::now() < deadline {
                self.transaction(std::slice::from_mut(&mut change)).await
            } else {
                Err(error.again())
            };
            change.answer(verdict);
        }
    }

    async fn transaction(&mut self, group: &mut [Box<dyn Queued>]) -> Result<(), StoreError> {
        let done = match self.connect().await {
            Ok(db) => apply_all(db, group).await,
            Err(error) => return Err(error),
        };
        if done.is_err()
            && let Some(db) = self.db.take()
        {
            // After errors such as a full disk SQLite has rolled back by itself, and a ROLLBACK
            // fails (https://www.sqlite.org/lang_transaction.html). sqlx then believes that the
            // transaction is still open. A new connection knows better.
            drop(db.close_hard().await);
        }
        done
    }

    async fn connect(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => self.options.connect().await?,
        };
        Ok(self.db.insert(db))
    }
}

async fn apply_all(
    db: &mut SqliteConnection,
    group: &mut [Box<dyn Queued>],
) -> Result<(), StoreError> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    for change in group {
        // Nothing may follow a failure: outside the transaction it would be stored by itself.
        change.apply(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
