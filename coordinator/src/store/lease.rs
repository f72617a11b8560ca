//! Who leads: a lease with a fencing number.
//!
//! In PostgreSQL the lease is a row that its holder renews; whoever finds it expired, by the server's clock,
//! takes it and raises its fencing number. A leader stops by itself, by its own clock, before its lease
//! can have expired. That alone would not do, as a process may be paused between looking and writing: so
//! each transaction of a leader also reads the row, with a lock that keeps it from changing hands until
//! the transaction has ended. The SQLite file has one user, by its lock: it always leads, with fencing 1.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::database::{Connection, Database, statement};
use super::fence::{Fence, Held};
use crate::backoff::Backoff;
use crate::chance;

/// The row.
pub(super) const NAME: &str = "leader";
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
            let wait = match self.ask(&mut db).await {
                Ok(Some((fencing, asked_at))) => return Ok(self.hold(fencing, asked_at, db)),
                Ok(None) => {
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
                Err(error) if !error.passes() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the lease can't be looked at");
                    db = None;
                    backoff.wait()
                }
            };
            sleep(wait).await;
        }
    }

    /// Tries to take it, and says when it was asked for: to connect may take longer than the lease lasts, and its
    /// time counts from the question.
    async fn ask(&self, db: &mut Option<Connection>) -> Result<Option<(i64, Instant)>, StoreError> {
        connected(&self.database, db).await?;
        let asked_at = Instant::now();
        let taken = answered(self.times.ttl, self.attempt(db)).await?;
        Ok(taken.map(|fencing| (fencing, asked_at)))
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
    fn hold(self, fencing: i64, asked_at: Instant, db: Option<Connection>) -> Leadership {
        tracing::info!(fencing, holder = self.holder, "this coordinator leads");
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        self.fence.set(Some(Held {
            holder: self.holder.clone(),
            fencing,
            lost: lost.clone(),
        }));
        let until = self.until(asked_at);
        let keeping = self
            .clone()
            .keep(fencing, until, db, (lost.clone(), stop.clone()));
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

    /// When one that was asked for then is given up.
    fn until(&self, asked_at: Instant) -> Instant {
        asked_at + self.times.ttl - self.times.margin()
    }

    async fn keep(
        self,
        fencing: i64,
        mut until: Instant,
        mut db: Option<Connection>,
        (lost, stop): (CancellationToken, CancellationToken),
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = lost.cancelled() => return,
                () = sleep(self.times.renew) => {}
            }
            let renewed = tokio::select! {
                () = stop.cancelled() => return,
                renewed = timeout_at(until, self.renew(fencing, &mut db)) => renewed,
            };
            let why = match renewed {
                Ok(Ok(Some(asked_at))) => {
                    until = self.until(asked_at);
                    continue;
                }
                Ok(Ok(None)) => "it ran out, or another has it".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it could not be renewed in time".to_owned(),
            };
            tracing::error!(fencing, why, "the lead is lost");
            self.fence.clear(fencing);
            lost.cancel();
            return;
        }
    }

    /// Renews until there is an answer, and says when it was asked for that gave it; none if the lease is not held.
    /// An answer that doesn't come is given up soon, as another connection may have better luck.
    async fn renew(
        &self,
        fencing: i64,
        db: &mut Option<Connection>,
    ) -> Result<Option<Instant>, StoreError> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let tried = async {
                self.reconnect(db).await?;
                let asked_at = Instant::now();
                let renewed = answered(self.times.renew, self.renew_once(fencing, db)).await?;
                Ok(renewed.then_some(asked_at))
            };
            match tried.await {
                Err(error) if StoreError::passes(&error) => {
                    tracing::warn!(%error, "the lease can't be renewed yet");
                }
                answer => return answer,
            }
            *db = None;
            sleep(backoff.wait()).await;
        }
    }

    /// Connects, and has as long for it as the lease lasts. What is lost of the first connection is sent again
    /// after a second only, which may be too late: another is begun meanwhile.
    async fn reconnect(&self, db: &mut Option<Connection>) -> Result<(), StoreError> {
        if db.is_some() {
            return Ok(());
        }
        let mut first = Box::pin(self.database.connect());
        let made = match timeout(self.times.renew, &mut first).await {
            Ok(made) => made,
            Err(_) => tokio::select! {
                made = first => made,
                made = Box::pin(self.database.connect()) => made,
            },
        };
        *db = Some(made?);
        Ok(())
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
        None => Box::pin(database.connect()).await?,
    };
    Ok(db.insert(open))
}

/// The answer to a question, unless it takes too long.
async fn answered<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(limit, answer).await;
    answer.unwrap_or(Err(StoreError::TooSlow(limit)))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
