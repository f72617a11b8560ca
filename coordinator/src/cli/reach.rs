//! What can be reached when the coordinator starts, said once.

use std::collections::HashMap;

use muster_core::AccountName;
use tokio_util::sync::CancellationToken;

use crate::compute::Provider;

/// Asks what each account stands on, and says in one line of the log for each what answers and what doesn't, with
/// what follows from that. Nothing waits for it: what doesn't answer may do so later.
pub(super) async fn tell(providers: HashMap<AccountName, Provider>, stop: CancellationToken) {
    let accounts = providers.into_iter().map(async |(account, provider)| {
        let Some(reach) = stop.run_until_cancelled(provider.reach()).await else {
            return;
        };
        let (account, answering) = (account.as_str(), reach.answering.join(", "));
        if reach.lacking.is_empty() {
            if !answering.is_empty() {
                tracing::info!(account, answering, "AWS can be reached");
            }
            return;
        }
        let lacking: Vec<String> = reach.lacking.iter().map(ToString::to_string).collect();
        let lacking = lacking.join("; ");
        tracing::warn!(
            account,
            answering,
            lacking,
            "not all of AWS can be reached; the coordinator goes on and keeps trying"
        );
    });
    futures::future::join_all(accounts).await;
}
