//! Tells the fleet what the pools launch from that have a canary.

use std::collections::BTreeMap;

use muster_core::Event;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::compute::Provider;

/// Tells images as they become known, until it is told to stop.
pub async fn images(engine: Engine, provider: Provider, stop: CancellationToken) {
    let Some(mut images) = provider.images() else {
        return stop.cancelled().await;
    };
    let mut told = BTreeMap::new();
    loop {
        let pools = images.borrow_and_update().pools.clone();
        for (pool, images) in pools {
            let Some(canary) = images.canary else {
                continue;
            };
            let known = (images.own.clone(), canary.clone());
            if told.get(&pool) == Some(&known) {
                continue;
            }
            let event = Event::ImagesKnown {
                pool: pool.clone(),
                own: images.own,
                canary,
            };
            if engine.submit(event).await.is_err() {
                return;
            }
            told.insert(pool, known);
        }
        let Some(Ok(())) = stop.run_until_cancelled(images.changed()).await else {
            return;
        };
    }
}
