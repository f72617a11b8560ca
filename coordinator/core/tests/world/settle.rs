//! The end of a run: no more faults, then all must be right.

use super::*;

impl World {
    /// Lets the world go on without faults until nothing is left to do, then checks the end.
    pub(crate) fn settle(&mut self) {
        self.apply(Event::OperatorPause {
            pool: "linux".into(),
            paused: None,
        });
        for _ in 0..120 {
            self.list();
            self.now = self.now.checked_add(Duration::from_secs(30)).unwrap();
            self.apply(Event::Tick);
            // Reconciliation: GitHub's view of each job is read again.
            let news: Vec<JobReport> = self
                .github_jobs
                .values()
                .filter(|job| {
                    self.fleet
                        .job(job.id)
                        .is_none_or(|known| known.status() < job.status)
                })
                .cloned()
                .collect();
            for report in news {
                self.apply(Event::JobFound(Box::new(report)));
            }
            while !(self.effects_to_carry_out().is_empty()
                && self.messages.is_empty()
                && self.events.is_empty()
                && self.answers.is_empty())
            {
                self.carry_out(0, 2);
                self.deliver(0);
            }
            for index in 0..self.hosts.len() {
                self.host_step(index);
            }
        }
        self.check_end();
    }

    /// What happened to a launch, for the message of a failed check.
    fn story(&self, launch: &LaunchId) -> String {
        let lines = self
            .log
            .iter()
            .filter(|line| line.contains(launch.as_str()));
        lines.cloned().collect::<Vec<_>>().join("\n")
    }

    /// Whether the run of a job is watched that has another job which nobody takes, and so doesn't complete.
    fn is_watched(&self, job: &muster_core::Job) -> bool {
        let run = muster_core::RunAttempt {
            repository: job.report.repository.clone(),
            run_id: job.report.run_id,
            attempt: job.report.run_attempt.unwrap_or(1),
        };
        let watch = Effect::WatchRun { run: run.clone() };
        self.outbox.contains_key(&watch.key()) && self.look_at_run(&run).is_none()
    }

    fn check_end(&self) {
        for job in self.fleet.jobs() {
            let rerun = job.cut_short.as_ref().and_then(|cut| cut.rerun.as_ref());
            let pending = rerun.is_some_and(muster_core::Rerun::is_pending);
            assert!(
                !pending || self.is_watched(job),
                "{} waits for its repetition: {rerun:?}, {:?}, {:?}",
                job.id(),
                self.outbox,
                self.github_jobs
            );
            if job.status() == JobStatus::Completed {
                continue;
            }
            let explanation = self.fleet.explain(job.id(), self.now).unwrap();
            assert!(
                job.pool().is_none() && explanation.pools.iter().all(|v| !v.reason.is_empty()),
                "invariant 4: {} was neither served nor explained: {explanation:?}",
                job.id()
            );
        }
        for (instance, (launch, born)) in &self.instances {
            let age = self.now.duration_since(*born);
            assert!(
                Duration::try_from(age).unwrap() <= LIFETIME + Duration::from_secs(120),
                "invariant 5: {instance} is {age:?} old"
            );
            let runner = self
                .fleet
                .runner(launch)
                .expect("invariant 5: not in the ledger");
            assert!(
                matches!(
                    runner.work,
                    Work::Idle | Work::Starting | Work::Assigning | Work::Enrolled | Work::Booting
                ),
                "invariant 5: {instance} is still there: {runner:?}"
            );
        }
        let registrations = self.registrations.iter();
        for (name, registration) in
            registrations.filter(|(name, _)| !self.lost_registrations.contains(*name))
        {
            let runner = self.fleet.runner(&registration.launch);
            assert!(
                runner.is_some_and(|runner| runner.name == *name && runner.stage() < Stage::Ending),
                "registration {name} was left: {runner:?}\n{}",
                self.story(&registration.launch)
            );
        }
    }
}
