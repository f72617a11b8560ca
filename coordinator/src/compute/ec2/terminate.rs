//! The TerminateInstances call, for many at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::InstanceStateName;
use muster_core::InstanceId;

use super::batcher::{Asked, Gather};
use super::budget::Budgets;
use super::error::{self, CallError, Kind};

/// How ends are gathered. A job's end shall be a call within a tenth of a second.
pub(super) const GATHER: Gather = Gather {
    window: Duration::from_millis(20),
    most: 500,
};

/// An instance to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) instance: InstanceId,
    /// Without an orderly shutdown.
    pub(super) at_once: bool,
}

/// True if the instance is known to be gone; false if its end was accepted, or nobody knows it.
pub(super) type Answer = Result<bool, CallError>;

/// How often a call that is not allowed is halved. One instance that carries another's tag denies it for
/// all, and those who ask again come in other company; where nothing may be ended, each half is a call
/// that real ends wait for.
const DENIALS: u32 = 2;

/// Ends instances and answers each. One that EC2 refuses fails its whole call; so what is refused is
/// halved until it stands alone, or is not allowed.
pub(super) async fn terminate(
    client: Client,
    budgets: Arc<Budgets>,
    batch: Vec<Asked<End, Answer>>,
) {
    let (at_once, orderly): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|asked| asked.question.at_once);
    for (skip_shutdown, group) in [(true, at_once), (false, orderly)] {
        let mut groups = vec![(group, 0)];
        while let Some((mut group, denials)) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            match call(&client, &budgets, &group, skip_shutdown).await {
                Ok(gone) => {
                    for asked in group {
                        let gone = gone.get(&asked.question.instance).copied().unwrap_or(false);
                        // Who asked has left: its end is accepted all the same.
                        let _ = asked.answer.send(Ok(gone));
                    }
                }
                Err(error) if group.len() > 1 && one_of_them(error.kind, denials) => {
                    let denials = denials + u32::from(error.kind == Kind::Denied);
                    let half = group.split_off(group.len() / 2);
                    groups.extend([(group, denials), (half, denials)]);
                }
                Err(error) => {
                    let answer = match error.kind {
                        // No proof that it is gone: it is asked again, until a list says so.
                        Kind::NotFound => Ok(false),
                        _ => Err(error),
                    };
                    for asked in group {
                        let _ = asked.answer.send(answer.clone());
                    }
                }
            }
        }
    }
}

/// Whether an error can be the fault of one instance among several that were denied so often before.
fn one_of_them(kind: Kind, denials: u32) -> bool {
    kind.refuses() && (kind != Kind::Denied || denials < DENIALS)
}

async fn call(
    client: &Client,
    budgets: &Budgets,
    group: &[Asked<End, Answer>],
    skip_shutdown: bool,
) -> Result<BTreeMap<InstanceId, bool>, CallError> {
    budgets.terminate.spend().await;
    let ids = group
        .iter()
        .map(|asked| asked.question.instance.to_string());
    let output = client
        .terminate_instances()
        .set_instance_ids(Some(ids.collect()))
        .skip_os_shutdown(skip_shutdown)
        .send()
        .await
        .map_err(|error| {
            let error = error::of_call("TerminateInstances", &error);
            if error.kind == Kind::Throttled {
                budgets.terminate.refused();
            }
            error
        })?;
    let states = output.terminating_instances().iter();
    Ok(states
        .filter_map(|change| {
            let state = change.current_state()?.name()?;
            let gone = *state == InstanceStateName::Terminated;
            Some((change.instance_id()?.into(), gone))
        })
        .collect())
}
