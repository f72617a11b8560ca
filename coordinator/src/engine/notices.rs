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
/// may come twice.
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
                    receipts.push(notice.receipt.clone());
                    if tell(&engine, &account, notice).await.is_err() {
                        return;
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

async fn tell(engine: &Engine, account: &AccountName, notice: Notice) -> Result<(), Stopped> {
    let instance = notice.instance;
    let Some(launch) = launch_of(engine, account, &instance).await? else {
        // An instance of somebody else, or one that the ledger has forgotten.
        tracing::debug!(
            instance = instance.as_str(),
            "a notice of no launch of ours"
        );
        return Ok(());
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
        .await
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
