//! Waiting for what a fake's state comes to: a counter tells that something has changed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for the next deadline where there is none: any change ends it.
const NO_DEADLINE: Duration = Duration::from_hours(1);

/// Waited in vain.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not come true within {waited:?}")]
pub struct NotInTime {
    what: String,
    waited: Duration,
}

/// Waits until `look` finds something; it is asked again after each change.
pub(super) async fn wait_for<R>(
    changed: &watch::Sender<u64>,
    what: &str,
    wait: Duration,
    look: impl Fn() -> Option<R>,
) -> Result<R, NotInTime> {
    let mut changed = changed.subscribe();
    let found = async {
        loop {
            changed.borrow_and_update();
            if let Some(found) = look() {
                return Some(found);
            }
            changed.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(wait, found).await {
        Ok(Some(found)) => Ok(found),
        _ => Err(NotInTime {
            what: what.to_owned(),
            waited: wait,
        }),
    }
}

/// Has what is due carried out when it is, until told to stop. `carry_out` must leave nothing due.
pub(super) async fn keep_up(
    changed: &watch::Sender<u64>,
    stop: &CancellationToken,
    now: impl Fn() -> Timestamp,
    next_deadline: impl Fn() -> Option<Timestamp>,
    carry_out: impl Fn(Timestamp),
) {
    let mut changed = changed.subscribe();
    loop {
        changed.borrow_and_update();
        let now = now();
        let wait = match next_deadline() {
            Some(due) if due <= now => {
                carry_out(now);
                continue;
            }
            Some(due) => Duration::try_from(due.duration_since(now)).unwrap_or_default(),
            None => NO_DEADLINE,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            _ = changed.changed() => {}
        }
    }
}
