//! `TerminateInstances`: all of what is named, or, if one id is unknown, nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Region, region};
use crate::fakes::aws::dispatch::typed;
use crate::fakes::aws::error::AwsError;
use crate::fakes::aws::shared::{Admitted, State};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    instance_ids: Vec<String>,
    #[serde(default)]
    skip_os_shutdown: bool,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "for what hangs in shutting-down, which nothing here does"
    )]
    force: bool,
}

pub(in crate::fakes::aws) fn terminate(
    state: &mut State,
    call: &Admitted,
    now: Timestamp,
) -> Result<Value, AwsError> {
    let request: Request = typed(call)?;
    let stages = state.options.stages;
    let region = region(state, call)?;
    region.look_up(&request.instance_ids, now)?;
    let asked: BTreeSet<&String> = request.instance_ids.iter().collect();
    let is_protected = |id: &&String| region.instances.get(*id).is_some_and(|it| it.protected);
    let protected = asked.iter().copied().find(is_protected).cloned();
    // What shares a zone with a protected instance stays, the rest goes, and the call fails.
    let zones: BTreeSet<String> = asked
        .iter()
        .filter_map(|id| region.instances.get(*id))
        .filter(|it| it.protected)
        .map(|it| it.zone.clone())
        .collect();
    let (mut answers, mut ended) = (Vec::new(), Vec::new());
    for id in asked {
        let Some(it) = region.instances.get_mut(id) else {
            continue;
        };
        if zones.contains(&it.zone) {
            continue;
        }
        let before = it.state;
        if it.end("Client.UserInitiatedShutdown", now, &stages) {
            it.skip_os_shutdown = request.skip_os_shutdown;
            ended.push(it.clone());
        }
        answers.push(json!({
            "InstanceId": id, "PreviousState": before.answer(), "CurrentState": it.state.answer(),
        }));
    }
    for it in ended {
        state.tell(it, now);
    }
    match protected {
        Some(id) => Err(AwsError::client(
            "OperationNotPermitted",
            format!(
                "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
            ),
        )),
        None => Ok(json!({ "TerminatingInstances": answers })),
    }
}

impl Region {
    /// Whether all ids are known; an error that names those that are not.
    pub(super) fn look_up(&self, ids: &[String], now: Timestamp) -> Result<(), AwsError> {
        if ids.len() > 1000 {
            return Err(AwsError::invalid_value(
                "The number of instance ids is more than 1000",
            ));
        }
        for id in ids {
            let digits = id.strip_prefix("i-").unwrap_or_default();
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hex || !matches!(digits.len(), 8 | 17) {
                return Err(AwsError::client(
                    "InvalidInstanceID.Malformed",
                    format!("Invalid id: \"{id}\""),
                ));
            }
        }
        let known = |id: &String| self.instances.get(id).is_some_and(|it| it.is_known(now));
        let unknown: Vec<&str> = ids
            .iter()
            .filter(|id| !known(id))
            .map(String::as_str)
            .collect();
        let message = match unknown[..] {
            [] => return Ok(()),
            [one] => format!("The instance ID '{one}' does not exist"),
            _ => format!("The instance IDs '{}' do not exist", unknown.join(", ")),
        };
        Err(AwsError::client("InvalidInstanceID.NotFound", message))
    }
}
