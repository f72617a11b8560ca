//! What the hosts and their runners do.

use super::*;

impl World {
    /// The host looks at its runner; if it is idle and retired, it stops.
    pub(super) fn look(&mut self, launch: &LaunchId, retired: bool) {
        let Some(host) = self
            .hosts
            .values_mut()
            .find(|h| h.launch == *launch && h.connected)
        else {
            return;
        };
        let idle = !matches!(host.phase, Phase::Running(_));
        if retired && idle {
            host.phase = Phase::Done;
            let outcome = Outcome::Unused;
            let launch = launch.clone();
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "unused".into(),
            });
        } else {
            host.drained_at.get_or_insert(self.now);
            self.events.push(Event::DrainReported {
                launch: launch.clone(),
                idle,
            });
        }
    }

    pub(super) fn host_step(&mut self, index: usize) {
        let Some(id) = pick_key(&self.hosts, index) else {
            return;
        };
        let host = self.hosts.get_mut(&id).unwrap();
        let launch = host.launch.clone();
        match host.phase.clone() {
            Phase::Booting => {
                host.phase = Phase::Enrolled;
                self.apply(Event::Enrolled {
                    launch,
                    instance: id,
                });
            }
            Phase::Enrolled => {
                host.phase = Phase::Connected;
                self.connect(&id);
            }
            _ if !host.connected => self.connect(&id),
            Phase::Connected | Phase::Done => {}
            Phase::Starting => {
                host.phase = Phase::Listening;
                let phase = HostPhase::Listening;
                self.events.push(Event::PhaseChanged {
                    launch,
                    phase,
                    job_name: None,
                });
            }
            Phase::Listening => self.give_job(&id),
            Phase::Running(job) => self.finish_job(&id, job),
        }
    }

    pub(super) fn connect(&mut self, id: &InstanceId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.connected = true;
        let phase = match host.phase {
            Phase::Booting | Phase::Enrolled | Phase::Connected => HostPhase::Unassigned,
            Phase::Starting => HostPhase::Starting,
            Phase::Listening => HostPhase::Listening,
            Phase::Running(_) => HostPhase::Running,
            Phase::Done => HostPhase::Finished,
        };
        let launch = host.launch.clone();
        let assignment = host.assignment.clone();
        let finished = host.phase == Phase::Done;
        self.apply(Event::AgentConnected {
            launch: launch.clone(),
            phase,
            assignment,
            heard_at: self.now,
        });
        if let Some(name) = &self.hosts[id].assignment
            && self.fleet.find_runner(name.as_str()).is_some()
        {
            self.lost_registrations.remove(name);
        }
        if finished {
            let outcome = Outcome::Unused;
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "sent again".into(),
            });
        }
    }

    pub(super) fn disconnect(&mut self, id: &InstanceId) {
        let host = self.hosts.get_mut(id).unwrap();
        if std::mem::take(&mut host.connected) {
            let launch = host.launch.clone();
            self.apply(Event::AgentLost {
                launch,
                heard_at: self.now,
            });
        }
    }

    pub(super) fn give_job(&mut self, id: &InstanceId) {
        let host = &self.hosts[id];
        let name = host.assignment.clone().unwrap();
        let Some(registration) = self.registrations.get_mut(&name) else {
            // The poll says that the registration is gone: the runner ends unused.
            let launch = host.launch.clone();
            self.hosts.get_mut(id).unwrap().phase = Phase::Done;
            let outcome = Outcome::Unused;
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "deleted".into(),
            });
            return;
        };
        let pool = self.tags[&registration.launch].to_string();
        let Some(job) = self
            .github_jobs
            .values_mut()
            .find(|job| job.status == JobStatus::Queued && job.labels.contains(&pool))
        else {
            return;
        };
        job.status = JobStatus::InProgress;
        job.runner_name = Some(name.to_string());
        job.started_at = Some(self.now);
        registration.job = Some(job.id);
        self.events.push(Event::Job(Box::new(job.clone())));
        let launch = host.launch.clone();
        let job_id = job.id;
        self.hosts.get_mut(id).unwrap().phase = Phase::Running(job_id);
        let phase = HostPhase::Running;
        self.events.push(Event::PhaseChanged {
            launch,
            phase,
            job_name: None,
        });
    }

    pub(super) fn finish_job(&mut self, id: &InstanceId, job: JobId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.phase = Phase::Done;
        let launch = host.launch.clone();
        self.registrations.remove(host.assignment.as_ref().unwrap());
        if self.github_jobs[&job].status != JobStatus::Completed {
            self.conclude(job, "success");
        }
        let outcome = Outcome::Succeeded;
        self.events.push(Event::Finished {
            launch,
            outcome,
            reason: "done".into(),
        });
    }

    pub(super) fn remove_instance(&mut self, id: &InstanceId) {
        if let Some((launch, _)) = self.instances.remove(id)
            && launch.as_str() < "m"
        {
            // The providers tell of some ends by themselves; the others are found by listing.
            self.events.push(Event::InstanceGone {
                launch,
                instance: id.clone(),
            });
        }
        if let Some(host) = self.hosts.remove(id) {
            if let Phase::Running(job) = host.phase {
                self.give_up(job);
                // GitHub gives up a dead runner's job, and then its registration.
                self.registrations.remove(host.assignment.as_ref().unwrap());
            }
            if host.connected {
                self.apply(Event::AgentLost {
                    launch: host.launch,
                    heard_at: self.now,
                });
            }
        }
    }
}
