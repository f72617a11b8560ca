//! Compares a provider's instances with the ledger: at the start, periodically, and when something ended.

use std::time::Duration;

use muster_core::{AccountName, Event};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::backoff::Backoff;
use crate::compute::Provider;

/// The first wait for another try, while an account has not been listed.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Lists the instances of an account at the start, at each interval, and at once when the provider saw one end,
/// until it is told to stop.
pub async fn sweep(
    engine: Engine,
    account: AccountName,
    provider: Provider,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut wait = Duration::ZERO;
    // Until the first, nothing is launched.
    let mut until_first = Backoff::new(FIRST_WAIT, interval);
    let mut listed_once = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = provider.something_ended() => {}
        }
        wait = interval;
        let listed = match provider.list().await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(account = account.as_str(), %error, "instances can't be listed");
                if !listed_once {
                    wait = until_first.wait();
                    let failed = Event::ListingFailed {
                        account: account.clone(),
                        reason: error.to_string(),
                    };
                    if engine.submit(failed).await.is_err() {
                        return;
                    }
                }
                continue;
            }
        };
        listed_once = true;
        let mut gone = Vec::new();
        for (instance, launch) in listed.gone {
            let Some(launch) = launch else {
                gone.push(instance);
                continue;
            };
            if engine
                .submit(Event::InstanceGone { launch, instance })
                .await
                .is_err()
            {
                return;
            }
        }
        let event = Event::InstancesListed {
            account: account.clone(),
            absence: provider.absence(),
            alive: listed.alive,
            gone,
        };
        if engine.submit(event).await.is_err() {
            return;
        }
    }
}
