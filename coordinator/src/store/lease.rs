//! Who leads: a lease with a fencing number.
//!
//! In PostgreSQL the lease is a row that its holder renews; whoever finds it expired, by the server's clock,
//! takes it and raises its fencing number. A leader stops by itself, by its own clock, before its lease
//! can have expired. That alone would not do, as a process may be paused between looking and writing: so
//! each transaction of a leader also reads the row, with a lock that keeps it from changing hands until
//! the transaction has ended. The SQLite file has one user, by its lock: it always leads, with fencing 1.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::database::{Connection, Database, statement};
use crate::backoff::Backoff;
use crate::chance;

/// The row.
const NAME: &str = "leader";
/// Waits after a failure of the connection that renews.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How a lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long it lasts if it is not renewed: so long nobody leads after a leader has died.
    pub ttl: Duration,
    /// How often it is renewed, and how often others look whether it is free; at most a third of `ttl`.
    pub renew: Duration,
}

impl Default for LeaseTimes {
    /// Another serves within three seconds after a leader was killed: its lease runs out at most two after that,
    /// and to load the fleet takes some tenths. The price is that a leader whose database is silent for longer
    /// than 1.1 s gives up: 1.6 s after its last renewal, which may be half a second ago. It could store
    /// nothing meanwhile, so little is lost by it; a shorter lease would end at each pause of a busy disk.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(2),
            renew: Duration::from_millis(500),
        }
    }
}

impl LeaseTimes {
    /// How long before its end a lease that could not be renewed is given up.
    fn margin(self) -> Duration {
        self.ttl / 5
    }
}

/// The right to lead. Dropped, it is not renewed any more, and runs out.
#[derive(Debug)]
pub struct Leadership {
    fencing: i64,
    lost: CancellationToken,
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    lease: Lease,
}

impl Leadership {
    /// Leads for ever.
    pub(super) fn of_file() -> Self {
        Self {
            fencing: 1,
            lost: CancellationToken::new(),
            keeper: None,
        }
    }

    /// Grows with each change of the leader; no two leaders ever have the same.
    #[must_use]
    pub fn fencing(&self) -> i64 {
        self.fencing
    }

    /// Cancelled once this coordinator does not lead any more. From then on it must do nothing but end.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives the lead up, so that another need not wait for the lease to run out. What is written after this
    /// is refused.
    pub async fn release(mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        keeper.stop.cancel();
        drop((&mut keeper.task).await);
        keeper.lease.fence.clear(self.fencing);
        if self.lost.is_cancelled() {
            return;
        }
        self.lost.cancel();
        let limit = keeper.lease.times.ttl;
        match timeout(limit, keeper.lease.give_up(self.fencing)).await {
            Ok(Ok(())) => tracing::info!(fencing = self.fencing, "the lead is given up"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease runs out, as it can't be given up"),
            Err(_) => tracing::warn!("the lease runs out, as it can't be given up in time"),
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.stop.cancel();
            keeper.lease.fence.clear(self.fencing);
            self.lost.cancel();
        }
    }
}

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
    fn clear(&self, fencing: i64) {
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

/// A lease in PostgreSQL, seen by one who holds it or would like to.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) database: Database,
    pub(super) fence: Arc<Fence>,
    /// Names this process, and no other, nor another start of it.
    pub(super) holder: String,
    pub(super) times: LeaseTimes,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Waits until the lease is free, and takes it. Goes on through outages; ends when it is dropped.
    pub(super) async fn take(self) -> Result<Leadership, StoreError> {
        let mut backoff = Backoff::new(FIRST_WAIT, self.times.renew);
        let mut db = None;
        loop {
            let asked_at = Instant::now();
            let tried = timeout(self.times.ttl, self.attempt(&mut db)).await;
            let wait = match tried {
                Ok(Ok(Some(fencing))) => return Ok(self.hold(fencing, asked_at)),
                Ok(Ok(None)) => {
                    backoff = Backoff::new(FIRST_WAIT, self.times.renew);
                    // Those who wait shall not all come at once.
                    let usual = chance::around(self.times.renew, 0.5, 1.0);
                    match timeout(self.times.renew, self.left(&mut db)).await {
                        // Its holder may be dead: then it is taken the moment it runs out.
                        Ok(Ok(Some(left))) => {
                            usual.min(left + chance::around(FIRST_WAIT, 0.0, 1.0))
                        }
                        _ => usual,
                    }
                }
                Ok(Err(error)) if !error.passes() => return Err(error),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease can't be looked at");
                    db = None;
                    backoff.wait()
                }
                Err(_) => {
                    db = None;
                    backoff.wait()
                }
            };
            sleep(wait).await;
        }
    }

    pub(super) async fn attempt(
        &self,
        db: &mut Option<Connection>,
    ) -> Result<Option<i64>, StoreError> {
        let db = connected(&self.database, db).await?;
        // While a transaction of the leader holds the row it is skipped and not waited for: an attempt that
        // was given up could take the lease behind its own back. One that lasts longer than any may be (`lease_ttl` is a
        // minute at most) is of a time before the server's clock was put back.
        let row: Option<(i64,)> = statement(
            "UPDATE leases SET holder = $2, fencing = leases.fencing + 1,
                 expires_at = clock_timestamp() + $3 * INTERVAL '1 microsecond'
             FROM (SELECT name FROM leases
                   WHERE name = $1 AND (expires_at <= clock_timestamp()
                       OR expires_at > clock_timestamp() + INTERVAL '2 minutes')
                   FOR UPDATE SKIP LOCKED) AS free
             WHERE leases.name = free.name
             RETURNING leases.fencing",
        )
        .bind(NAME)
        .bind(&self.holder)
        .bind(micros(self.times.ttl))
        .first(db)
        .await?;
        Ok(row.map(|(fencing,)| fencing))
    }

    /// How long the lease lasts that another has; none if it has run out and could not be taken.
    async fn left(&self, db: &mut Option<Connection>) -> Result<Option<Duration>, StoreError> {
        let db = connected(&self.database, db).await?;
        let row: Option<(i64,)> = statement(
            "SELECT CAST(EXTRACT(EPOCH FROM expires_at - clock_timestamp()) * 1000000 AS BIGINT)
             FROM leases WHERE name = $1",
        )
        .bind(NAME)
        .first(db)
        .await?;
        let micros = row.and_then(|(micros,)| u64::try_from(micros).ok());
        Ok(micros
            .filter(|micros| *micros > 0)
            .map(Duration::from_micros))
    }

    /// Holds what was taken. Its time counts from before it was asked for.
    fn hold(self, fencing: i64, asked_at: Instant) -> Leadership {
        tracing::info!(fencing, holder = self.holder, "this coordinator leads");
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        self.fence.set(Some(Held {
            holder: self.holder.clone(),
            fencing,
            lost: lost.clone(),
        }));
        let keeping = self
            .clone()
            .keep(fencing, asked_at, lost.clone(), stop.clone());
        Leadership {
            fencing,
            lost,
            keeper: Some(Keeper {
                stop,
                task: tokio::spawn(keeping),
                lease: self,
            }),
        }
    }

    async fn keep(
        self,
        fencing: i64,
        asked_at: Instant,
        lost: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut until = asked_at + self.times.ttl - self.times.margin();
        let mut db = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = lost.cancelled() => return,
                () = sleep(self.times.renew) => {}
            }
            let asked_at = Instant::now();
            let renewed = tokio::select! {
                () = stop.cancelled() => return,
                renewed = timeout_at(until, self.renew(fencing, &mut db)) => renewed,
            };
            let why = match renewed {
                Ok(Ok(true)) => {
                    until = asked_at + self.times.ttl - self.times.margin();
                    continue;
                }
                Ok(Ok(false)) => "it ran out, or another has it".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it could not be renewed in time".to_owned(),
            };
            tracing::error!(fencing, why, "the lead is lost");
            self.fence.clear(fencing);
            lost.cancel();
            return;
        }
    }

    /// Renews until there is an answer. One that doesn't come is given up soon, as another connection may
    /// have better luck.
    async fn renew(&self, fencing: i64, db: &mut Option<Connection>) -> Result<bool, StoreError> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            match timeout(self.times.renew, self.renew_once(fencing, db)).await {
                Ok(Ok(renewed)) => return Ok(renewed),
                Ok(Err(error)) if !error.passes() => return Err(error),
                Ok(Err(error)) => tracing::warn!(%error, "the lease can't be renewed yet"),
                Err(_) => tracing::warn!("the lease can't be renewed yet: no answer"),
            }
            *db = None;
            sleep(backoff.wait()).await;
        }
    }

    pub(super) async fn renew_once(
        &self,
        fencing: i64,
        db: &mut Option<Connection>,
    ) -> Result<bool, StoreError> {
        let db = connected(&self.database, db).await?;
        // One that ran out is not renewed: its holder may have been gone for a while.
        let rows = statement(
            "UPDATE leases SET expires_at = clock_timestamp() + $4 * INTERVAL '1 microsecond'
             WHERE name = $1 AND holder = $2 AND fencing = $3 AND expires_at > clock_timestamp()",
        )
        .bind(NAME)
        .bind(&self.holder)
        .bind(fencing)
        .bind(micros(self.times.ttl))
        .execute(db)
        .await?;
        Ok(rows == 1)
    }

    pub(super) async fn give_up(&self, fencing: i64) -> Result<(), StoreError> {
        let mut db = self.database.connect().await?;
        statement(
            "UPDATE leases SET expires_at = clock_timestamp()
             WHERE name = $1 AND holder = $2 AND fencing = $3 AND expires_at > clock_timestamp()",
        )
        .bind(NAME)
        .bind(&self.holder)
        .bind(fencing)
        .execute(&mut db)
        .await?;
        db.close().await
    }
}

async fn connected<'c>(
    database: &Database,
    db: &'c mut Option<Connection>,
) -> Result<&'c mut Connection, StoreError> {
    let open = match db.take() {
        Some(open) => open,
        None => database.connect().await?,
    };
    Ok(db.insert(open))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
