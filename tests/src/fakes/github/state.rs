//! What the fake remembers: accounts, runners, jobs, runs. Only records; the moves are in `moves`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::deliveries::Outgoing;
use super::payload::Templates;
use super::runner_endpoint::Message;
use super::spec::{
    Conclusion, Delivery, Fault, JobId, JobSpec, JobView, RunnerRelease, RunnerView, SecretKind,
    Status, WebhookFault,
};

/// Everything, behind one lock: each request is one short step under it.
pub(super) struct State {
    next_id: u64,
    pub(super) templates: Arc<Templates>,
    pub(super) webhook_url: Option<String>,
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) groups: Vec<Group>,
    pub(super) tokens: HashMap<String, Token>,
    /// All tokens, JIT configurations and runners' credentials that were ever given out.
    pub(super) secrets_given: Vec<(SecretKind, String)>,
    pub(super) runners: BTreeMap<u64, Runner>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// Those that have not ended.
    pub(super) open: BTreeSet<JobId>,
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) outbox: VecDeque<Outgoing>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) violations: Vec<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) webhook_faults: Vec<WebhookFault>,
    pub(super) budgets: super::limits::Budgets,
    /// The releases of the official runner, the oldest first; none if there is no such repository here.
    pub(super) runner_releases: Vec<RunnerRelease>,
    /// Requests served, by `METHOD template`.
    pub(super) served: BTreeMap<String, u64>,
}

/// An organisation, a user or an enterprise, with the app installed in it.
pub(super) struct Account {
    pub(super) id: u64,
    pub(super) login: String,
    pub(super) kind: AccountKind,
    pub(super) installation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AccountKind {
    Organization,
    Enterprise,
}

pub(super) struct Repository {
    pub(super) id: u64,
    /// `owner/name`.
    pub(super) full_name: String,
    pub(super) public: bool,
    pub(super) pushed_at: Timestamp,
}

impl Repository {
    pub(super) fn owner(&self) -> &str {
        self.full_name.split('/').next().unwrap_or_default()
    }
}

/// Where a runner is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `owner/name`.
    Repository(String),
    Organization(String),
    Enterprise(String),
}

/// A runner group of an organisation or the enterprise.
pub(super) struct Group {
    /// Unique within its scope; 1 is "Default".
    pub(super) id: u64,
    pub(super) scope: Scope,
    pub(super) name: String,
    /// `owner/name` of those that may use it; `None` for all.
    pub(super) repositories: Option<Vec<String>>,
    pub(super) allows_public: bool,
}

pub(super) struct Token {
    pub(super) installation: u64,
    pub(super) expires_at: Timestamp,
    /// `None`: all that the app has.
    pub(super) permissions: Option<HashMap<String, String>>,
}

/// A registration.
pub(super) struct Runner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) group_id: u64,
    pub(super) labels: Vec<String>,
    /// What the listener shows to the runner endpoint.
    pub(super) credential: String,
    pub(super) session: Option<Session>,
    pub(super) connected_once: bool,
    pub(super) task: Task,
    /// What the API says of `busy`, where a test wants it to be wrong.
    pub(super) reported_busy: Option<bool>,
}

/// What a registration is there for. It only ever moves forward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Idle,
    /// Told of a job that it has not acquired yet.
    Assigned {
        job: JobId,
        until: Timestamp,
    },
    Running {
        job: JobId,
    },
    /// Had a job and will never get another (actions/runner#4617).
    Spent,
}

pub(super) struct Session {
    pub(super) id: String,
    pub(super) inbox: VecDeque<Message>,
    /// Counts as online until then, unless it polls again.
    pub(super) online_until: Timestamp,
}

pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) run_id: u64,
    pub(super) run_attempt: u64,
    pub(super) spec: JobSpec,
    pub(super) status: Status,
    pub(super) conclusion: Option<Conclusion>,
    pub(super) annotation: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) completed_at: Option<Timestamp>,
    pub(super) runner: Option<Host>,
    /// The runner must renew before this.
    pub(super) locked_until: Option<Timestamp>,
    /// A cancelled job is ended then, whatever its runner does.
    pub(super) cancel_deadline: Option<Timestamp>,
}

/// The runner that has a job; outlives the registration.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) group_id: u64,
    pub(super) group_name: String,
}

/// A workflow run.
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) number: u64,
    pub(super) attempt: u64,
    pub(super) repository: String,
    pub(super) workflow: String,
    pub(super) created_at: Timestamp,
    /// Its jobs, of all attempts.
    pub(super) jobs: Vec<JobId>,
    /// Jobs whose needs are not met yet.
    pub(super) pending: Vec<JobSpec>,
}

impl State {
    pub(super) fn new(templates: Arc<Templates>) -> Self {
        Self {
            next_id: 1000,
            templates,
            webhook_url: None,
            accounts: BTreeMap::new(),
            repositories: BTreeMap::new(),
            groups: Vec::new(),
            tokens: HashMap::new(),
            secrets_given: Vec::new(),
            runners: BTreeMap::new(),
            jobs: BTreeMap::new(),
            open: BTreeSet::new(),
            runs: BTreeMap::new(),
            outbox: VecDeque::new(),
            deliveries: Vec::new(),
            violations: Vec::new(),
            faults: Vec::new(),
            webhook_faults: Vec::new(),
            budgets: super::limits::Budgets::default(),
            runner_releases: Vec::new(),
            served: BTreeMap::new(),
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The account, made with its default runner group and an installation if new.
    pub(super) fn ensure_account(&mut self, login: &str, kind: AccountKind) {
        let key = login.to_lowercase();
        if self.accounts.contains_key(&key) {
            return;
        }
        let (id, installation) = (self.fresh_id(), self.fresh_id());
        let scope = match kind {
            AccountKind::Organization => Scope::Organization(login.to_owned()),
            AccountKind::Enterprise => Scope::Enterprise(login.to_owned()),
        };
        self.accounts.insert(
            key,
            Account {
                id,
                login: login.to_owned(),
                kind,
                installation,
            },
        );
        self.groups.push(Group {
            id: 1,
            scope,
            name: "Default".to_owned(),
            repositories: None,
            allows_public: true,
        });
    }

    /// The repository, made with its owner if new.
    pub(super) fn ensure_repository(&mut self, full_name: &str, public: bool) {
        self.ensure_account(
            full_name.split('/').next().unwrap_or_default(),
            AccountKind::Organization,
        );
        let id = self.fresh_id();
        self.repositories
            .entry(full_name.to_lowercase())
            .or_insert_with(|| Repository {
                id,
                full_name: full_name.to_owned(),
                public,
                pushed_at: Timestamp::UNIX_EPOCH,
            });
    }

    pub(super) fn repository(&self, full_name: &str) -> Option<&Repository> {
        self.repositories.get(&full_name.to_lowercase())
    }

    pub(super) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.get(&login.to_lowercase())
    }

    pub(super) fn group(&self, scope: &Scope, id: u64) -> Option<&Group> {
        self.groups
            .iter()
            .find(|group| group.id == id && group.scope == *scope)
    }

    /// The jobs that have not ended.
    pub(super) fn open_jobs(&self) -> impl Iterator<Item = &Job> {
        self.open.iter().filter_map(|id| self.jobs.get(id))
    }

    pub(super) fn runner_by_credential(&mut self, credential: &str) -> Option<&mut Runner> {
        self.runners
            .values_mut()
            .find(|runner| runner.credential == credential)
    }

    /// The attempt's jobs, or for each name the newest if `attempt` is `None`.
    pub(super) fn jobs_of_run(&self, run: u64, attempt: Option<u64>) -> Vec<&Job> {
        let run = self.runs.get(&run).into_iter();
        let ids = run.flat_map(|run| &run.jobs);
        let all = ids.filter_map(|id| self.jobs.get(id));
        match attempt {
            Some(attempt) => all.filter(|job| job.run_attempt == attempt).collect(),
            None => {
                let newest: BTreeMap<&str, &Job> =
                    all.map(|job| (job.spec.name.as_str(), job)).collect();
                newest.into_values().collect()
            }
        }
    }
}

impl Runner {
    pub(super) fn online(&self, now: Timestamp) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.online_until > now)
    }

    pub(super) fn busy(&self) -> bool {
        self.reported_busy.unwrap_or(matches!(
            self.task,
            Task::Assigned { .. } | Task::Running { .. }
        ))
    }

    pub(super) fn view(&self, now: Timestamp) -> RunnerView {
        RunnerView {
            id: self.id,
            name: self.name.clone(),
            labels: self.labels.clone(),
            group_id: self.group_id,
            online: self.online(now),
            busy: self.busy(),
        }
    }
}

impl Job {
    pub(super) fn view(&self) -> JobView {
        JobView {
            id: self.id,
            run_id: self.run_id,
            run_attempt: self.run_attempt,
            name: self.spec.name.clone(),
            repository: self.spec.repository.clone(),
            status: self.status,
            conclusion: self.conclusion,
            runner_name: self.runner.as_ref().map(|host| host.name.clone()),
            annotation: self.annotation.clone(),
            created_at: self.created_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
        }
    }
}

impl Run {
    pub(super) fn status(&self, jobs: &[&Job]) -> Status {
        let all = |status| jobs.iter().all(|job| job.status == status);
        if self.pending.is_empty() && all(Status::Completed) {
            Status::Completed
        } else if all(Status::Queued) {
            Status::Queued
        } else if all(Status::Waiting) {
            Status::Waiting
        } else {
            Status::InProgress
        }
    }

    pub(super) fn conclusion(&self, jobs: &[&Job]) -> Option<Conclusion> {
        if self.status(jobs) != Status::Completed {
            return None;
        }
        let any = |conclusion| jobs.iter().any(|job| job.conclusion == Some(conclusion));
        Some(match () {
            () if any(Conclusion::Failure) => Conclusion::Failure,
            () if any(Conclusion::Cancelled) => Conclusion::Cancelled,
            () => Conclusion::Success,
        })
    }
}
