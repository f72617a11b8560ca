//! The one task that writes. Changes that wait at the same time share a transaction, and so an fsync.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::change::{Change, Pending, Queued};
use super::checkpoint::Checkpoints;
use super::database::{Connection, Database, statement};
use super::fence::Fence;
use super::{Delivery, StoreError, deliveries, inbox};
use crate::backoff::Backoff;
use crate::clock;

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
/// Waits between tries while the database is gone.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The way to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Queued>>,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    writable: watch::Receiver<bool>,
}

impl Writer {
    /// Starts the task. It ends when it is closed, or when the last `Writer` is dropped.
    pub(super) fn start(db: Connection, database: Database, fence: Arc<Fence>) -> Self {
        let (queue, changes) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let (tell, writable) = watch::channel(true);
        let task = Task {
            changes,
            stop: stop.clone(),
            checkpoints: Checkpoints::start(&database),
            database,
            fence,
            db: Some(db),
            committing: false,
            writable: tell,
            outage: None,
        };
        Self {
            queue,
            stop,
            task: tokio::sync::Mutex::new(Some(tokio::spawn(task.run()))),
            writable,
        }
    }

    /// Whether the last thing that was to be written could be. While it couldn't, this is found out again
    /// and again.
    pub(super) fn writable(&self) -> watch::Receiver<bool> {
        self.writable.clone()
    }

    /// Has a change written; durable on return. If the caller goes away, it may be written or not.
    pub(super) async fn submit<C: Change>(&self, change: C) -> Result<C::Output, StoreError> {
        let (pending, answer) = Pending::new(change);
        let place = tokio::time::timeout(QUEUE_WAIT, self.queue.reserve())
            .await
            .map_err(|_| StoreError::Overloaded(QUEUE_WAIT))?
            .map_err(|_| StoreError::Closed)?;
        place.send(pending);
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
    checkpoints: Checkpoints,
    database: Database,
    fence: Arc<Fence>,
    /// None after a failure, until the next change.
    db: Option<Connection>,
    /// True from the moment in which a transaction may be committed, whatever is heard of it.
    committing: bool,
    writable: watch::Sender<bool>,
    outage: Option<Outage>,
}

/// A time in which nothing can be written.
struct Outage {
    since: Instant,
    backoff: Backoff,
    /// Before this the database is not tried again.
    again_at: Instant,
    error: StoreError,
    /// Whether nothing at all would go, so that changes need not be tried.
    of_all: bool,
}

/// What the writer has to do.
enum Next {
    Store(Box<dyn Queued>),
    /// Look whether the database is back.
    Probe,
    End,
}

impl Task {
    async fn run(mut self) {
        loop {
            match self.next().await {
                Next::Store(first) => {
                    let group = self.gather(first);
                    self.store(group).await;
                }
                Next::Probe => {
                    drop(self.transaction(&mut []).await);
                }
                Next::End => break,
            }
        }
        self.checkpoints.close().await;
        if let Some(db) = self.db.take()
            && let Err(error) = db.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }

    async fn next(&mut self) -> Next {
        let probe_at = self.outage.as_ref().map(|outage| outage.again_at);
        let probe = async {
            match probe_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.changes.close();
                self.changes.recv().await
            }
            change = self.changes.recv() => change,
            () = probe => return Next::Probe,
        };
        change.map_or(Next::End, Next::Store)
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
    /// can't be stored does no harm to its neighbours; unless the database is gone for all of them.
    async fn store(&mut self, mut group: Vec<Box<dyn Queued>>) {
        if let Some(outage) = &self.outage
            && outage.of_all
            && Instant::now() < outage.again_at
        {
            answer_all(group, &outage.error);
            return;
        }
        let error = match self.transaction(&mut group).await {
            Ok(()) => {
                for change in group {
                    change.answer(Ok(()));
                }
                return;
            }
            Err(error) => error,
        };
        let out = self.outage.as_ref().is_some_and(|outage| outage.of_all);
        if group.len() == 1 || out {
            let lasts = lasts(&error);
            answer_all(group, &error);
            self.doubt(lasts).await;
            return;
        }
        tracing::warn!(%error, changes = group.len(), "a group of changes failed; storing each alone");
        let deadline = Instant::now() + ALONE_WAIT;
        let mut refused = false;
        for mut change in group {
            let verdict = match &self.outage {
                Some(outage) if outage.of_all => Err(outage.error.again()),
                _ if Instant::now() >= deadline => Err(error.again()),
                _ => self.transaction(std::slice::from_mut(&mut change)).await,
            };
            refused |= verdict.as_ref().is_err_and(lasts);
            change.answer(verdict);
        }
        self.doubt(refused).await;
    }

    /// Finds out whether what was refused for good is refused because of what it is, or everything is.
    async fn doubt(&mut self, refused: bool) {
        if refused && self.outage.is_none() {
            drop(self.transaction(&mut []).await);
        }
    }

    async fn transaction(&mut self, group: &mut [Box<dyn Queued>]) -> Result<(), StoreError> {
        self.committing = false;
        let limit = self.database.transaction_limit();
        // What fails without any change is no change's fault.
        let mut of_all = group.is_empty();
        let done = match self.connect().await {
            Ok(()) => timeout(limit, self.apply_all(group))
                .await
                .unwrap_or(Err(StoreError::TooSlow(limit))),
            Err(error) => {
                of_all = true;
                Err(error)
            }
        };
        if done.is_ok() {
            self.checkpoints.written(group.len());
        }
        let done = match done {
            Err(error) if self.committing => Err(error.of_commit()),
            done => done,
        };
        if done.is_err()
            && let Some(db) = self.db.take()
        {
            // After errors such as a full disk SQLite has rolled back by itself, and a ROLLBACK
            // fails (https://www.sqlite.org/lang_transaction.html). sqlx then believes that the
            // transaction is still open. A new connection knows better.
            db.close_hard().await;
        }
        self.note(&done, of_all);
        done
    }

    async fn connect(&mut self) -> Result<(), StoreError> {
        if self.db.is_none() {
            self.db = Some(self.database.connect().await?);
        }
        Ok(())
    }

    async fn apply_all(&mut self, group: &mut [Box<dyn Queued>]) -> Result<(), StoreError> {
        let db = self.db.as_mut().ok_or(StoreError::Closed)?;
        db.command(self.database.begin()).await?;
        if group.iter().any(|change| change.of_leader()) {
            self.fence.check(db).await?;
        }
        let together = db.is_postgres() && group.len() > 1;
        if together {
            accept_together(db, group).await?;
        }
        for change in group.iter_mut() {
            if together && change.as_delivery().is_some() {
                continue;
            }
            // Nothing may follow a failure: outside the transaction it would be stored by itself.
            change.apply(db).await?;
        }
        if group.is_empty() {
            probe(db).await?;
        }
        if db.is_postgres()
            && !self.fence.leads()
            && group.iter().any(|change| change.wakes_leader())
        {
            deliveries::announce(db).await?;
        }
        self.database.is_in_place().await?;
        self.committing = true;
        db.command("COMMIT").await
    }

    /// Keeps account of outages, and tells of their beginning and end. What the database refuses is an outage,
    /// too, if it is refused whatever is to be written (`of_all`).
    fn note(&mut self, done: &Result<(), StoreError>, of_all: bool) {
        let error = match (done, &self.outage) {
            (Ok(()), Some(outage)) => {
                let lasted = outage.since.elapsed();
                tracing::info!(?lasted, "the store can be written again");
                self.outage = None;
                self.writable.send_replace(true);
                return;
            }
            (Ok(()), None) => return,
            (Err(error), _) => error,
        };
        let of_database = error.passes() || of_all;
        if self.outage.is_none() && of_database {
            tracing::error!(%error, "the store can't be written; webhooks are refused until it can");
            self.writable.send_replace(false);
            self.outage = Some(Outage {
                since: Instant::now(),
                again_at: Instant::now(),
                backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
                error: error.again(),
                of_all: false,
            });
        }
        let Some(outage) = &mut self.outage else {
            return;
        };
        // Whatever happened: a time that has passed would have the database tried without a pause.
        outage.again_at = Instant::now() + outage.backoff.wait();
        // A disk that is full may take something small all the same; who refuses one change answers.
        outage.of_all = error.is_of_all() || (of_all && !error.passes());
        if of_database {
            outage.error = error.again();
        }
    }
}

/// Whether the database refuses this for good; not so what only another coordinator may write.
fn lasts(error: &StoreError) -> bool {
    !error.passes() && !matches!(error, StoreError::NotLeader | StoreError::Closed)
}

fn answer_all(group: Vec<Box<dyn Queued>>, error: &StoreError) {
    for change in group {
        change.answer(Err(error.again()));
    }
}

/// Stores the deliveries of a group by one statement. A server elsewhere takes its time for each: a
/// hundred statements would be a hundred times the way there and back.
async fn accept_together(
    db: &mut Connection,
    group: &mut [Box<dyn Queued>],
) -> Result<(), StoreError> {
    let deliveries: Vec<&Delivery> = group.iter().filter_map(|one| one.as_delivery()).collect();
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut accepted = inbox::accept_all(db, &deliveries).await?.into_iter();
    for change in group.iter_mut() {
        if change.as_delivery().is_some()
            && let Some(accepted) = accepted.next()
        {
            change.delivered(accepted);
        }
    }
    Ok(())
}

/// Writes something small, to see whether that goes.
async fn probe(db: &mut Connection) -> Result<(), StoreError> {
    statement(
        "INSERT INTO notes (name, value) VALUES ('store.probe', $1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(clock::now().to_string())
    .execute(db)
    .await?;
    Ok(())
}
