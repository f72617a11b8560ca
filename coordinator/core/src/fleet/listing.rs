//! What the provider's list of instances says, against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use super::Fleet;
use super::turn::Turn;
use crate::effect::Effect;
use crate::ids::{AccountName, InstanceId, LaunchId};
use crate::runner::Instance;

impl Fleet {
    /// Compares one account's instances with the ledger. One listing may lag behind; only what two
    /// in a row agree on is acted on.
    pub(super) fn instances_listed(
        &mut self,
        account: &AccountName,
        alive: &[(InstanceId, Option<LaunchId>)],
        turn: &mut Turn,
    ) {
        self.recover_launches(account, alive, turn);
        let alive: BTreeMap<_, _> = alive.iter().map(|(id, launch)| (id, launch)).collect();
        let before = self.suspects.remove(account).unwrap_or_default();
        let mut suspects = BTreeSet::new();
        let mut strays = Vec::new();
        for (&instance, launch) in &alive {
            let known = launch
                .as_ref()
                .and_then(|launch| self.runners.get(launch))
                .is_some_and(|runner| {
                    runner.instance_id() == Some(instance)
                        && !matches!(runner.instance, Instance::Gone { .. })
                });
            if !known {
                strays.push(instance.clone());
            }
        }
        for instance in strays {
            if before.contains(&instance) {
                turn.refuse(format!(
                    "{instance} carries our mark and is not in the ledger"
                ));
                turn.emit(Effect::TerminateStray {
                    account: account.clone(),
                    instance,
                });
            } else {
                suspects.insert(instance);
            }
        }
        let absent: Vec<(LaunchId, InstanceId)> = self
            .runners
            .values()
            .filter(|runner| runner.account == *account)
            .filter(|r| {
                matches!(
                    r.instance,
                    Instance::Exists { .. } | Instance::Ending { .. }
                )
            })
            .filter_map(|runner| Some((runner.launch.clone(), runner.instance_id()?.clone())))
            .filter(|(_, id)| !alive.contains_key(id))
            .collect();
        for (launch, id) in absent {
            if before.contains(&id) {
                self.instance_gone(&launch, turn);
                self.lost_its_instance(&launch, turn);
            } else {
                suspects.insert(id);
            }
        }
        self.suspects.insert(account.clone(), suspects);
    }

    /// Finds the instances of launches whose answer was lost.
    fn recover_launches(
        &mut self,
        account: &AccountName,
        alive: &[(InstanceId, Option<LaunchId>)],
        turn: &mut Turn,
    ) {
        for (instance, launch) in alive {
            let Some(launch) = launch else { continue };
            let lost = self.runners.get(launch).is_some_and(|runner| {
                runner.account == *account && runner.instance == Instance::Requested
            });
            if lost {
                self.launched(launch, instance, turn);
            }
        }
    }
}
