//! How the leader hears of deliveries that other coordinators stored.

use std::io::ErrorKind;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::database::postgres::Server;
use super::database::{Connection, statement};
use crate::backoff::Backoff;

/// The channel; all databases and schemas of a server have their own, the schema by the payload.
const CHANNEL: &str = "muster_deliveries";
/// How often is looked whatever was heard: a notice that a broken connection swallowed is late by this.
const POLL: Duration = Duration::from_secs(1);
/// Waits after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Tells the leader, when the transaction is committed, that there is a delivery.
pub(super) async fn announce(db: &mut Connection) -> Result<(), StoreError> {
    statement("SELECT pg_notify($1, current_schema()::TEXT)")
        .bind(CHANNEL)
        .execute(db)
        .await?;
    Ok(())
}

/// Says so whenever there may be deliveries that others stored, until it is told to stop.
pub(super) async fn watch(server: Server, ready: impl Fn() + Send, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    while !stop.is_cancelled() {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = listen(&server, &ready, &mut backoff) => heard,
        };
        tracing::debug!(error = %heard, "deliveries are looked for every second only");
        let waiting = async {
            let wait = backoff.wait();
            sleep(wait).await;
            ready();
        };
        if stop.run_until_cancelled(waiting).await.is_none() {
            return;
        }
    }
}

/// Listens until that fails.
async fn listen(server: &Server, ready: &impl Fn(), backoff: &mut Backoff) -> StoreError {
    match listen_on(server, ready, backoff).await {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

async fn listen_on(
    server: &Server,
    ready: &impl Fn(),
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(server.connect_limit())
        .connect_lazy_with(server.options());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    *backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        // What came before it listened.
        ready();
        // No notice is lost by giving up the wait: they wait in the connection.
        match timeout(POLL, listener.try_recv()).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None)) => return Err(sqlx::Error::Io(ErrorKind::UnexpectedEof.into())),
            Ok(Err(error)) => return Err(error),
        }
    }
}
