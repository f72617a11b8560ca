//! Which listening runner gets which queued job.
//!
//! <https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/use-in-a-workflow>:
//! all labels must match, whatever their case; the runner must be online and idle; its group must
//! admit the repository; repository runners are looked at before the organisation's, and those
//! before the enterprise's.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Options;
use super::moves::after;
use super::runner_endpoint::Message;
use super::spec::{JobId, Status};
use super::state::{AccountKind, Job, Runner, Scope, State, Task};

impl State {
    /// Tells listening runners of queued jobs, the oldest first. Answers whether any was told.
    pub(super) fn assign(&mut self, options: &Options, now: Timestamp) -> bool {
        let idle = |runner: &Runner| runner.task == Task::Idle && runner.online(now);
        if !self.runners.values().any(idle) {
            return false;
        }
        let mut any = false;
        let mut hopeless = BTreeSet::new();
        let assigned: BTreeSet<JobId> = self
            .runners
            .values()
            .filter_map(|runner| match runner.task {
                Task::Assigned { job, .. } => Some(job),
                _ => None,
            })
            .collect();
        let queued: Vec<JobId> = self
            .open_jobs()
            .filter(|job| job.status == Status::Queued && !assigned.contains(&job.id))
            .map(|job| job.id)
            .collect();
        for id in queued {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            // What no idle runner may have, none may have for the next job that is like it.
            let kind = (job.spec.repository.clone(), job.spec.labels.clone());
            if hopeless.contains(&kind) {
                continue;
            }
            let best = self
                .runners
                .values()
                .filter(|runner| idle(runner))
                .filter_map(|runner| Some((self.nearness(runner, job)?, runner.id)))
                .min();
            let Some(runner) = best.and_then(|(_, id)| self.runners.get_mut(&id)) else {
                hopeless.insert(kind);
                continue;
            };
            runner.task = Task::Assigned {
                job: id,
                until: after(now, options.pickup_timeout),
            };
            if let Some(session) = &mut runner.session {
                session.inbox.push_back(Message::Job { request_id: id });
            }
            any = true;
        }
        any
    }

    /// How far the runner's scope is from the job's repository; `None` if it may not have it.
    fn nearness(&self, runner: &Runner, job: &Job) -> Option<u8> {
        let repository = self.repository(&job.spec.repository)?;
        let labels_fit = job.spec.labels.iter().all(|wanted| {
            runner
                .labels
                .iter()
                .any(|has| has.eq_ignore_ascii_case(wanted))
        });
        let nearness = match &runner.scope {
            Scope::Repository(name) => name
                .eq_ignore_ascii_case(&repository.full_name)
                .then_some(0),
            Scope::Organization(login) => {
                login.eq_ignore_ascii_case(repository.owner()).then_some(1)
            }
            // One enterprise owns all organisations of the fake.
            Scope::Enterprise(slug) => self
                .account(slug)
                .is_some_and(|account| account.kind == AccountKind::Enterprise)
                .then_some(2),
        }?;
        let group_admits = nearness == 0
            || self
                .group(&runner.scope, runner.group_id)
                .is_some_and(|group| {
                    let listed = group.repositories.as_ref().is_none_or(|names| {
                        names
                            .iter()
                            .any(|name| name.eq_ignore_ascii_case(&repository.full_name))
                    });
                    listed && (group.allows_public || !repository.public)
                });
        (labels_fit && group_admits).then_some(nearness)
    }
}
