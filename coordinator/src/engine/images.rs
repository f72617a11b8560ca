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
            let known = (images.own.clone(), images.canary.clone());
            // Until one is known there is nothing to tell; one that is gone is to be told.
            let last = told.get(&pool);
            if last == Some(&known) || (last.is_none() && images.canary.is_none()) {
                continue;
            }
            let event = Event::ImagesKnown {
                pool: pool.clone(),
                own: images.own,
                canary: images.canary,
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
