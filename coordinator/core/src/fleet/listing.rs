//! What the provider's list of instances says, against the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::effect::Effect;
use crate::ids::{AccountName, InstanceId, LaunchId};
use crate::listed::Marked;
use crate::runner::Instance;

impl Fleet {
    /// Compares one account's instances with the ledger. One listing may lag behind; only what a
    /// further one agrees on is acted on, and an absence only once it has lasted.
    pub(super) fn instances_listed(
        &mut self,
        account: &AccountName,
        absence: Duration,
        alive: &[Marked],
        turn: &mut Turn,
    ) {
        self.unlisted.remove(account);
        self.recover_launches(account, alive, turn);
        self.enter_found(account, alive, turn);
        let alive: BTreeMap<_, _> = alive.iter().map(|it| (&it.instance, &it.launch)).collect();
        let before = self.suspects.remove(account).unwrap_or_default();
        let mut suspects = BTreeMap::new();
        for instance in self.strays(account, &alive) {
            if before.contains_key(&instance) {
                turn.refuse(format!(
                    "{instance} carries our mark and is not in the ledger"
                ));
                turn.emit(Effect::TerminateStray {
                    account: account.clone(),
                    instance,
                });
            } else {
                suspects.insert(instance, turn.now);
            }
        }
        for (launch, id) in self.absent(account, &alive) {
            match before.get(&id) {
                Some(since) if elapsed(*since, turn.now) >= absence => {
                    self.instance_gone(&launch, turn);
                    self.lost_its_instance(&launch, turn);
                }
                since => {
                    suspects.insert(id, since.copied().unwrap_or(turn.now));
                }
            }
        }
        self.suspects.insert(account.clone(), suspects);
    }

    /// Instances that are listed as gone are gone, at once.
    pub(super) fn listed_as_gone(
        &mut self,
        account: &AccountName,
        gone: &[InstanceId],
        turn: &mut Turn,
    ) {
        let gone: BTreeSet<&InstanceId> = gone.iter().collect();
        let launches: Vec<LaunchId> = self
            .runners
            .values()
            .filter(|runner| runner.account == *account)
            .filter(|runner| !matches!(runner.instance, Instance::Gone { .. }))
            .filter(|runner| runner.instance_id().is_some_and(|id| gone.contains(id)))
            .map(|runner| runner.launch.clone())
            .collect();
        for launch in launches {
            self.instance_gone(&launch, turn);
            self.lost_its_instance(&launch, turn);
        }
    }

    /// Instances that are listed and that no runner has.
    fn strays(
        &self,
        account: &AccountName,
        alive: &BTreeMap<&InstanceId, &Option<LaunchId>>,
    ) -> Vec<InstanceId> {
        let known: BTreeMap<&InstanceId, &LaunchId> = self
            .runners
            .values()
            .filter(|runner| runner.account == *account)
            .filter(|runner| !matches!(runner.instance, Instance::Gone { .. }))
            .filter_map(|runner| Some((runner.instance_id()?, &runner.launch)))
            .collect();
        alive
            .iter()
            .filter(|(instance, marked)| match (known.get(*instance), marked) {
                (Some(launch), Some(marked)) => *launch != marked,
                // The mark alone doesn't say which launch it was: the ledger does.
                (Some(_), None) => false,
                (None, _) => true,
            })
            .map(|(instance, _)| (*instance).clone())
            .filter(|instance| !self.unread.contains(instance))
            .collect()
    }

    /// Runners whose instance should be listed and is not.
    fn absent(
        &self,
        account: &AccountName,
        alive: &BTreeMap<&InstanceId, &Option<LaunchId>>,
    ) -> Vec<(LaunchId, InstanceId)> {
        self.runners
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
            .collect()
    }

    /// Finds the instances of launches whose answer was lost.
    fn recover_launches(&mut self, account: &AccountName, alive: &[Marked], turn: &mut Turn) {
        for marked in alive {
            let Some(launch) = &marked.launch else {
                continue;
            };
            let lost = self.runners.get(launch).is_some_and(|runner| {
                runner.account == *account && runner.instance == Instance::Requested
            });
            if lost {
                self.launched(launch, &marked.instance, None, turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Event, Interruption};
    use crate::fixtures::{at, pool, report};
    use crate::fleet::{FleetSpec, Stored};
    use crate::matching::Market;
    use crate::offering::Offering;

    const ABSENCE: Duration = Duration::from_secs(900);

    fn launched(offering: Option<Offering>) -> (Fleet, LaunchId) {
        let spec = FleetSpec {
            pools: vec![pool("linux")],
            accounts: [("local".into(), 4)].into(),
        };
        let mut fleet = Fleet::restore(spec, Stored::default(), 1);
        fleet.apply(Event::Job(Box::new(report(1))), at(0));
        let launch = fleet.runners().next().unwrap().launch.clone();
        let instance = InstanceId::from("i-0123456789abcdef0");
        fleet.apply(
            Event::Launched {
                launch: launch.clone(),
                instance,
                offering,
            },
            at(5),
        );
        (fleet, launch)
    }

    fn list(fleet: &mut Fleet, alive: &[&str], second: i64) -> Vec<Effect> {
        let alive = alive
            .iter()
            .map(|id| Marked {
                instance: InstanceId::from(*id),
                launch: None,
                origin: None,
            })
            .collect();
        let account = "local".into();
        let event = Event::InstancesListed {
            account,
            absence: ABSENCE,
            alive,
            gone: Vec::new(),
        };
        fleet.apply(event, at(second)).effects
    }

    #[test]
    fn an_instance_is_gone_only_once_its_absence_has_lasted() {
        let (mut fleet, launch) = launched(None);
        let gone = |fleet: &Fleet| fleet.runner(&launch).unwrap().instance_is_gone();
        list(&mut fleet, &[], 10);
        list(&mut fleet, &[], 100);
        assert!(!gone(&fleet), "a minute and a half convict nobody");
        list(&mut fleet, &["i-0123456789abcdef0"], 200);
        list(&mut fleet, &[], 300);
        list(&mut fleet, &[], 1_100);
        assert!(!gone(&fleet), "it was seen in between");
        list(&mut fleet, &[], 1_201);
        assert!(gone(&fleet));
    }

    #[test]
    fn what_is_listed_as_gone_is_gone_at_once() {
        let (mut fleet, launch) = launched(None);
        let event = Event::InstancesListed {
            account: "local".into(),
            absence: ABSENCE,
            alive: Vec::new(),
            gone: vec!["i-0123456789abcdef0".into(), "i-another".into()],
        };
        fleet.apply(event, at(10));
        assert!(fleet.runner(&launch).unwrap().instance_is_gone());
    }

    #[test]
    fn an_instance_of_nobody_is_ended_at_its_second_listing() {
        let (mut fleet, _) = launched(None);
        let listed = ["i-0123456789abcdef0", "i-0000000000000dead"];
        assert_eq!(list(&mut fleet, &listed, 10), []);
        let effects = list(&mut fleet, &listed, 70);
        let [Effect::TerminateStray { instance, .. }] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(instance.as_str(), "i-0000000000000dead");
    }

    #[test]
    fn an_instance_whose_record_can_not_be_read_is_left_alone() {
        let (fleet, _) = launched(None);
        let stored = Stored {
            unread: ["i-0123456789abcdef0".into()].into(),
            ..Stored::default()
        };
        let mut fleet = Fleet::restore(fleet.spec, stored, 2);
        for second in [10, 70, 130] {
            assert_eq!(list(&mut fleet, &["i-0123456789abcdef0"], second), []);
        }
    }

    #[test]
    fn capacity_that_is_taken_back_is_closed() {
        let offering = Offering {
            market: Market::Spot,
            instance_type: "m7i.large".to_owned(),
            zone: "eu-west-1a".to_owned(),
        };
        let (mut fleet, launch) = launched(Some(offering.clone()));
        let notice = Event::Interrupted {
            launch,
            kind: Interruption::Spot,
            deadline: Some(at(130)),
            detail: String::new(),
        };
        let effects = fleet.apply(notice, at(10)).effects;
        let account = "local".into();
        assert!(effects.contains(&Effect::CloseOffering { account, offering }));
    }
}
