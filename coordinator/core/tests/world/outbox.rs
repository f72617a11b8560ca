//! Effects and events on their way.

use super::*;

impl World {
    /// Delivers one of the events and answers that wait.
    pub(super) fn deliver(&mut self, index: usize) {
        let total = self.events.len() + self.answers.len();
        if total == 0 {
            return;
        }
        let index = index % total;
        if index < self.events.len() {
            let event = self.events.remove(index);
            self.apply(event);
        } else {
            let (key, answer) = self.answers.remove(index - self.events.len());
            self.under_way.remove(&key);
            self.outbox.remove(&key);
            self.apply(answer);
        }
    }

    pub(super) fn carry_out(&mut self, index: usize, luck: u8) {
        let waiting = self.effects_to_carry_out();
        let total = waiting.len() + self.messages.len();
        if total == 0 {
            return;
        }
        let index = index % total;
        let Some(key) = waiting.get(index) else {
            let message = self.messages.remove(index - waiting.len());
            self.send(message);
            return;
        };
        let effect = self.outbox[key].clone();
        // One call in five is made and its answer lost: the effect stays, to be carried out again.
        let lost = luck % 5 == 4;
        match self.carry_out_durable(effect, luck, lost) {
            Some(_) if lost => {}
            Some(answer) => {
                self.under_way.insert(key.clone());
                self.answers.push((key.clone(), answer));
            }
            None => {
                self.outbox.remove(key);
            }
        }
    }

    /// Keys of the effects that something can be done about.
    pub(super) fn effects_to_carry_out(&self) -> Vec<String> {
        let waiting = self.outbox.iter().filter(|(key, effect)| {
            let watches = match effect {
                Effect::WatchRun { run } => self.look_at_run(run).is_none(),
                _ => false,
            };
            !watches && !self.under_way.contains(*key)
        });
        waiting.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn carry_out_durable(
        &mut self,
        effect: Effect,
        luck: u8,
        lost: bool,
    ) -> Option<Event> {
        self.log
            .push(format!("{} effect {effect:?} with luck {luck}", self.now));
        match effect {
            Effect::Launch { launch, pool, .. } => {
                self.tags.insert(launch.clone(), pool);
                assert!(
                    self.runners.contains_key(&launch),
                    "invariant 2: launch before its intent"
                );
                if luck % 7 == 6 && !self.launched.contains_key(&launch) {
                    let failure = LaunchFailure::Capacity;
                    return Some(Event::LaunchFailed {
                        launch,
                        failure,
                        detail: "none left".into(),
                    });
                }
                Some(self.launch(launch))
            }
            Effect::Mint { launch, name, .. } => Some(self.mint(launch, name, lost)),
            Effect::Deregister { launch, name, .. } => {
                let answer = match self.registrations.get(&name) {
                    None => DeregisterAnswer::Absent,
                    Some(registration) if registration.job.is_some() && !luck.is_multiple_of(3) => {
                        DeregisterAnswer::Busy
                    }
                    // GitHub's view lags: 204 though a job was just given.
                    Some(_) => {
                        self.registrations.remove(&name);
                        DeregisterAnswer::Deleted
                    }
                };
                Some(Event::Deregistered {
                    launch,
                    name,
                    answer,
                })
            }
            Effect::Terminate {
                launch, instance, ..
            } => {
                self.remove_instance(&instance);
                Some(Event::Terminated {
                    launch,
                    gone: luck.is_multiple_of(2),
                })
            }
            Effect::TerminateStray { instance, .. } => {
                let (launch, _) = self.instances.get(&instance)?;
                assert!(
                    !self.lost.contains(launch),
                    "{instance} was lost with the store, and is no stray"
                );
                let known = self.fleet.runner(launch);
                assert!(
                    known.is_none_or(|runner| runner.instance_id() != Some(&instance)
                        || runner.instance_is_gone()),
                    "invariant 5: {instance} is in the ledger"
                );
                self.remove_instance(&instance);
                None
            }
            Effect::WatchRun { run } => {
                let seen = Box::new(self.look_at_run(&run)?);
                Some(Event::RunCompleted { run, seen })
            }
            Effect::Rerun { run, .. } => {
                let answer = self.rerun(&run);
                Some(Event::RerunAnswered { run, answer })
            }
            Effect::Assign { .. }
            | Effect::Drain { .. }
            | Effect::Retire { .. }
            | Effect::Withdraw { .. }
            | Effect::CloseOffering { .. } => unreachable!(),
        }
    }

    pub(super) fn launch(&mut self, launch: LaunchId) -> Event {
        let instance = InstanceId::new(format!("i-{launch}"));
        // The client token: the same launch twice makes one instance.
        if self
            .launched
            .insert(launch.clone(), instance.clone())
            .is_none()
        {
            self.instances
                .insert(instance.clone(), (launch.clone(), self.now));
            let host = Host {
                launch: launch.clone(),
                phase: Phase::Booting,
                connected: false,
                assignment: None,
                drained_at: None,
            };
            self.hosts.insert(instance.clone(), host);
        }
        Event::Launched {
            launch,
            instance,
            offering: Some(spot()),
        }
    }

    /// A launch that was not called is answered; another goes on.
    fn withdraw(&mut self, launch: LaunchId) {
        let key = format!("launch/{launch}");
        let waits = self.outbox.contains_key(&key) && !self.under_way.contains(&key);
        if waits && !self.launched.contains_key(&launch) {
            self.under_way.insert(key.clone());
            let failed = Event::LaunchFailed {
                launch,
                failure: LaunchFailure::Withdrawn,
                detail: "nobody needs it any more".into(),
            };
            self.answers.push((key, failed));
        }
    }

    pub(super) fn mint(&mut self, launch: LaunchId, name: RunnerName, lost: bool) -> Event {
        let stored = self
            .runners
            .get(&launch)
            .expect("invariant 2: mint before its launch");
        assert!(
            stored.name == name || stored.attempt > 1,
            "invariant 2: {name} was not stored before its call"
        );
        if self.registrations.contains_key(&name) {
            let failure = MintFailure::NameTaken;
            return Event::MintFailed {
                launch,
                name,
                failure,
                detail: "name exists".into(),
            };
        }
        self.next_id += 1;
        let id = GithubRunnerId(self.next_id);
        let registration = Registration {
            launch: launch.clone(),
            job: None,
        };
        self.registrations.insert(name.clone(), registration);
        if !lost {
            self.vault.insert((launch.clone(), name.clone()));
        }
        Event::Minted { launch, name, id }
    }

    pub(super) fn send(&mut self, message: Effect) {
        match message {
            Effect::Assign { launch, name } => {
                let host = self
                    .hosts
                    .values_mut()
                    .find(|h| h.launch == launch && h.connected);
                let Some(host) = host else { return };
                if !self.vault.remove(&(launch.clone(), name.clone())) {
                    self.events.push(Event::AssignmentLost { launch, name });
                    return;
                }
                assert!(
                    host.assignment.is_none(),
                    "invariant 1: a second assignment"
                );
                assert!(
                    self.assigned.insert(launch.clone()),
                    "invariant 8: it went twice"
                );
                host.assignment = Some(name.clone());
                host.phase = Phase::Starting;
                self.events.push(Event::AssignmentAccepted { launch, name });
            }
            Effect::Drain { launch, .. } => self.look(&launch, false),
            Effect::Retire { launch, .. } => self.look(&launch, true),
            Effect::CloseOffering { offering, .. } => assert_eq!(offering, spot()),
            Effect::Withdraw { launch, .. } => self.withdraw(launch),
            _ => unreachable!(),
        }
    }
}

fn spot() -> Offering {
    Offering {
        market: Market::Spot,
        instance_type: "m7i.large".to_owned(),
        zone: "eu-west-1a".to_owned(),
    }
}
