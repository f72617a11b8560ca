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
            run_id: 1,
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
        let job = self.github_jobs.get_mut(&id).unwrap();
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion.to_owned());
        job.completed_at = Some(self.now);
        self.events.push(Event::Job(Box::new(job.clone())));
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
