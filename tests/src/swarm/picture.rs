//! What the coordinator says of all runners, as an operator sees it.

use std::collections::BTreeMap;

use muster_proto::v1::{self, GetTimelineRequest, ListRunnersRequest, RunnerState};

use super::ground::Ground;
use crate::world::Operator;

/// Most runners that a list has, and most entries of a timeline.
const MOST: u32 = 1_000;

/// All runners whose work is not over, by their instances.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) runners: BTreeMap<String, v1::Runner>,
    /// What can't be.
    pub(super) wrong: Vec<String>,
}

impl Picture {
    /// Asks for them, pool by pool.
    pub(super) async fn take(ground: &Ground, operator: &Operator) -> anyhow::Result<Self> {
        let mut picture = Self {
            runners: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let mut client = operator.client.clone();
        for (pool, _) in ground.pools() {
            let request = ListRunnersRequest {
                pool,
                include_gone: false,
                limit: MOST,
            };
            let listed = client.list_runners(request).await?.into_inner().runners;
            for runner in listed {
                if runner.state() < RunnerState::Ending {
                    picture.add(runner);
                }
            }
        }
        Ok(picture)
    }

    fn add(&mut self, runner: v1::Runner) {
        // One that is being launched has no instance yet; its name is no instance's id.
        let key = if runner.instance_id.is_empty() {
            runner.name.clone()
        } else {
            runner.instance_id.clone()
        };
        let (name, instance) = (runner.name.clone(), runner.instance_id.clone());
        if let Some(other) = self.runners.insert(key, runner) {
            let other = other.name;
            self.wrong.push(format!(
                "{other} and {name} have the same instance, {instance}"
            ));
        }
    }
}

/// What happened to a runner, the oldest first.
pub(super) async fn timeline(
    operator: &Operator,
    runner: &str,
) -> anyhow::Result<Vec<v1::TimelineEntry>> {
    let request = GetTimelineRequest {
        runner: runner.to_owned(),
        limit: MOST,
        ..GetTimelineRequest::default()
    };
    let answer = operator.client.clone().get_timeline(request).await?;
    Ok(answer.into_inner().entries)
}
