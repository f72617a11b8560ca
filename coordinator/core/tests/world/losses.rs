//! The provider's lists, crashes, and the loss of the store.

use super::*;

impl World {
    pub(super) fn list(&mut self) {
        let alive = self
            .instances
            .iter()
            .map(|(id, (launch, born))| {
                // Some providers mark instances with something that several launches share.
                let known = self.fleet.runner(launch).and_then(Runner::instance_id) == Some(id);
                Marked {
                    instance: id.clone(),
                    launch: (!known).then(|| launch.clone()),
                    origin: self.lost.contains(launch).then(|| Origin {
                        pool: self.tags[launch].clone(),
                        since: *born,
                        offering: None,
                    }),
                }
            })
            .collect();
        self.apply(Event::InstancesListed {
            account: "local".into(),
            absence: Duration::ZERO,
            alive,
            gone: Vec::new(),
        });
    }

    /// Kills the process at this point and starts it from what was stored.
    pub(super) fn crash(&mut self) {
        self.seed += 1;
        self.messages.clear();
        self.vault.clear();
        // Answers that were not taken are lost, and their effects are carried out again. Agents keep
        // their events until acknowledged; GitHub does not keep webhooks.
        self.answers.clear();
        self.under_way.clear();
        self.events
            .retain(|event| !matches!(event, Event::Job(_) | Event::AssignmentLost { .. }));
        for host in self.hosts.values_mut() {
            host.connected = false;
        }
        let stored = Stored {
            jobs: self.jobs.values().cloned().collect(),
            runners: self.runners.values().cloned().collect(),
            pools: self.pools.clone(),
            ..Stored::default()
        };
        self.fleet = Fleet::restore(self.spec.clone(), stored, self.seed);
        self.fleet.list_first();
        self.apply(Event::Restarted);
    }

    /// Kills the process at this point, and starts it with an empty store.
    pub(super) fn lose_store(&mut self) {
        self.log.push(format!("{} the store is lost", self.now));
        self.lost = self.launched.keys().cloned().collect();
        self.lost_registrations = self.registrations.keys().cloned().collect();
        (self.jobs, self.runners, self.pools) = Default::default();
        self.trialed.clear();
        self.outbox.clear();
        // What agents had to say they say after their hello; how often a job was run again nobody knows.
        self.events.clear();
        self.reruns.clear();
        self.crash();
    }
}
