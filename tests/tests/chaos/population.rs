//! A host for each instance that the fake EC2 launches, for as long as it lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_tests::fakes::aws::{Instance, Life, Market};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::hosts::live;
use crate::plant::Plant;
use crate::tally::Born;

/// Lets a host live on each instance, for as long as the fake does.
pub(crate) async fn populate(plant: Arc<Plant>) {
    let mut lives = plant.aws.lives();
    let mut ends: BTreeMap<String, CancellationToken> = BTreeMap::new();
    let mut hosts = JoinSet::new();
    let mut number = 0;
    loop {
        let life = tokio::select! {
            life = lives.next() => life,
            Some(ended) = hosts.join_next() => {
                if let Err(error) = ended {
                    plant.tally().wrong.push(format!("a host failed: {error}"));
                }
                continue;
            }
        };
        let Some(life) = life else { return };
        match life {
            Life::Launched(it) => {
                let end = CancellationToken::new();
                ends.insert(it.id.clone(), end.clone());
                born(&plant, &it);
                number += 1;
                hosts.spawn(live(Arc::clone(&plant), it, number, end));
            }
            Life::Running(_) => {}
            Life::Ending(it) => {
                if let Some(end) = ends.remove(&it.id) {
                    end.cancel();
                }
            }
            Life::Ended(it) => {
                plant.tally().gone.insert(it.id);
            }
        }
    }
}

fn born(plant: &Plant, it: &Instance) {
    let mut tally = plant.tally();
    let token = it.client_token.clone().unwrap_or_default();
    let spot = it.market == Market::Spot;
    tally.instances.insert(it.id.clone(), Born { token, spot });
    tally.most = tally.most.max(tally.alive());
}
