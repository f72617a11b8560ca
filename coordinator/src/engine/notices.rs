//! Takes a provider's notices to the fleet.

use std::time::Duration;

use muster_core::{AccountName, Event, InstanceId, LaunchId};
use tokio_util::sync::CancellationToken;

use super::{Engine, Stopped};
use crate::backoff::Backoff;
use crate::compute::{Notice, NoticeKind, Provider};

/// Waits after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Takes notices until it is told to stop. A notice is acknowledged once what it changes is stored, so it
/// may come twice. One of an instance that a launch may get is left, and comes again.
pub async fn notices(
    engine: Engine,
    account: AccountName,
    provider: Provider,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let Some(received) = stop.run_until_cancelled(provider.notices()).await else {
            return;
        };
        let taken = match received {
            Ok(notices) => {
                let mut receipts = Vec::new();
                for notice in notices {
                    let receipt = notice.receipt.clone();
                    match tell(&engine, &account, &provider, notice).await {
                        Ok(true) => receipts.push(receipt),
                        Ok(false) => {}
                        Err(Stopped) => return,
                    }
                }
                provider.acknowledge(receipts).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = taken else {
            backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            continue;
        };
        tracing::warn!(account = account.as_str(), %error, "EC2's events can't be read");
        if stop
            .run_until_cancelled(tokio::time::sleep(backoff.wait()))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Tells the fleet; false if the notice is to come again.
async fn tell(
    engine: &Engine,
    account: &AccountName,
    provider: &Provider,
    notice: Notice,
) -> Result<bool, Stopped> {
    let instance = notice.instance;
    let Some(launch) = launch_of(engine, account, &instance).await? else {
        // Who can't be asked now may know when it comes again.
        let soon = provider.may_be_ours_soon(&instance).await.unwrap_or(true);
        // Else it is somebody else's, or one that the ledger has forgotten.
        tracing::debug!(
            instance = instance.as_str(),
            soon,
            "a notice of no launch of ours"
        );
        return Ok(!soon);
    };
    engine
        .submit(match notice.kind {
            NoticeKind::Gone => Event::InstanceGone { launch, instance },
            NoticeKind::Interrupted { kind, deadline } => Event::Interrupted {
                launch,
                kind,
                deadline,
                detail: "EventBridge".to_owned(),
            },
        })
        .await?;
    Ok(true)
}

async fn launch_of(
    engine: &Engine,
    account: &AccountName,
    instance: &InstanceId,
) -> Result<Option<LaunchId>, Stopped> {
    let (account, instance) = (account.clone(), instance.clone());
    engine
        .query(move |fleet| {
            fleet
                .runner_of(&account, &instance)
                .map(|runner| runner.launch.clone())
        })
        .await
}
