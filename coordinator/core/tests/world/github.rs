//! Jobs, and the webhooks that tell of them.

use super::*;

impl World {
    pub(super) fn queue_job(&mut self, pool: u8, known: bool) {
        self.next_id += 1;
        let id = JobId(self.next_id);
        let label = if pool == 0 { "linux" } else { "big" };
        let label = if known { label } else { "nowhere" };
        let report = JobReport {
            id,
            // Two jobs in a row are of one run.
            run_id: (self.next_id + 1) / 2,
            run_attempt: Some(1),
            repository: Repository {
                owner: "octo-org".into(),
                name: "hello".into(),
                public: false,
                enterprise: None,
            },
            workflow: None,
            name: format!("job {id}"),
            labels: vec!["self-hosted".into(), label.into()],
            status: JobStatus::Queued,
            conclusion: None,
            runner_name: None,
            created_at: Some(self.now),
            started_at: None,
            completed_at: None,
            installation: None,
        };
        self.github_jobs.insert(id, report.clone());
        self.events.push(Event::Job(Box::new(report)));
    }

    pub(super) fn cancel_job(&mut self, index: usize) {
        let queued: Vec<JobId> = self
            .github_jobs
            .values()
            .filter(|job| job.status == JobStatus::Queued)
            .map(|job| job.id)
            .collect();
        if let Some(id) = pick(&queued, index) {
            self.conclude(*id, "cancelled");
        }
    }

    pub(super) fn conclude(&mut self, id: JobId, conclusion: &str) {
        self.conclude_at(id, conclusion, self.now);
    }

    /// GitHub gives up the job of a dead runner, which takes it ten minutes.
    pub(super) fn give_up(&mut self, id: JobId) {
        let then = self.now.checked_add(Duration::from_secs(600)).unwrap();
        self.conclude_at(id, "failure", then);
    }

    fn conclude_at(&mut self, id: JobId, conclusion: &str, at: Timestamp) {
        let job = self.github_jobs.get_mut(&id).unwrap();
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion.to_owned());
        job.completed_at = Some(at);
        self.events.push(Event::Job(Box::new(job.clone())));
    }

    /// The jobs of the newest attempt of a run.
    fn newest_of(&self, run: i64) -> (u32, Vec<&JobReport>) {
        let attempt = self.attempts.get(&run).copied().unwrap_or(1);
        let jobs = self.github_jobs.values();
        let newest = jobs.filter(|job| job.run_id == run && job.run_attempt == Some(attempt));
        (attempt, newest.collect())
    }

    /// How a run is, once it has completed or has another attempt than this.
    pub(super) fn look_at_run(&self, run: &RunAttempt) -> Option<RunSeen> {
        let (attempt, jobs) = self.newest_of(run.run_id);
        let completed = jobs.iter().all(|job| job.status == JobStatus::Completed);
        let seen = |jobs: Vec<JobReport>, conclusion: Option<&str>| RunSeen {
            attempt,
            conclusion: conclusion.map(str::to_owned),
            jobs,
        };
        if attempt > run.attempt {
            return Some(seen(Vec::new(), None));
        }
        let cancelled = jobs
            .iter()
            .any(|job| job.conclusion.as_deref() == Some("cancelled"));
        let conclusion = if cancelled { "cancelled" } else { "failure" };
        completed.then(|| seen(jobs.into_iter().cloned().collect(), Some(conclusion)))
    }

    /// Runs the failed jobs of a run again, as the executor does: not if there is a newer attempt.
    pub(super) fn rerun(&mut self, run: &RunAttempt) -> RerunAnswer {
        let (attempt, jobs) = self.newest_of(run.run_id);
        if attempt > run.attempt {
            return RerunAnswer::Newer(attempt);
        }
        assert!(
            jobs.iter().all(|job| job.status == JobStatus::Completed),
            "a run is run again that has not completed"
        );
        let failed = jobs
            .iter()
            .filter(|job| job.conclusion.as_deref() == Some("failure"));
        let failed: Vec<JobReport> = failed.map(|job| (*job).clone()).collect();
        self.attempts.insert(run.run_id, attempt + 1);
        for old in failed {
            let count = self
                .reruns
                .entry((old.run_id, old.name.clone()))
                .or_default();
            *count += 1;
            assert!(*count <= RERUNS, "{} was run again {count} times", old.name);
            self.next_id += 1;
            // Ids of runs are taken from those of jobs, two by two.
            self.next_id += self.next_id % 2;
            let id = JobId(self.next_id + 1_000_000);
            let again = JobReport {
                id,
                run_attempt: Some(attempt + 1),
                status: JobStatus::Queued,
                conclusion: None,
                runner_name: None,
                created_at: Some(self.now),
                started_at: None,
                completed_at: None,
                ..old
            };
            self.github_jobs.insert(id, again.clone());
            self.events.push(Event::Job(Box::new(again)));
        }
        RerunAnswer::Started
    }

    pub(super) fn lose(&mut self, index: usize) {
        // Agents send again until acknowledged, and effects are carried out until answered: only
        // webhooks and messages to agents are ever lost.
        let webhooks: Vec<usize> = (0..self.events.len())
            .filter(|&at| matches!(self.events[at], Event::Job(_)))
            .collect();
        if let Some(&at) = pick(&webhooks, index) {
            self.events.remove(at);
        } else {
            take(&mut self.messages, index);
        }
    }
}
