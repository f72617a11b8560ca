//! A GitHub with a memory: an app with installations, runner groups, JIT configurations, jobs, runs,
//! webhooks and rate limits, and an endpoint where the stand-in runner gets its work.
//!
//! Each REST request, each answer and each webhook is checked against GitHub's own OpenAPI
//! description; what departs from it is a violation, and [`FakeGithub::violations`] must be empty
//! when a test ends.

mod assign;
mod auth;
mod deliveries;
mod jit;
mod limits;
mod moves;
mod openapi;
mod options;
mod payload;
mod routes;
mod runner_endpoint;
mod server;
mod shared;
mod spec;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::auth::AppKey;
pub use self::deliveries::sign;
use self::openapi::Description;
pub use self::openapi::{DescriptionError, default_path};
pub use self::options::Options;
use self::payload::Templates;
use self::shared::Shared;
pub use self::spec::{
    Conclusion, Delivery, Effect, Fault, JobId, JobSpec, JobView, Mischief, RunnerRelease,
    RunnerView, SecretKind, Status, WebhookFault,
};
use self::state::{AccountKind, Group, Scope, State};
use crate::fakes::{NotInTime, changes, http_server};

/// Why the fake does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// GitHub's description is not there.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// The address can't be listened on.
    #[error("listen for the fake GitHub: {0}")]
    Listen(#[from] std::io::Error),
    /// No key pair could be made.
    #[error("generate the app's key")]
    Key,
}

/// The fake. Stops when dropped.
pub struct FakeGithub {
    /// Its address, in place of `https://api.github.com`.
    pub url: String,
    /// The app's private key, PKCS#1 as GitHub hands it out.
    pub app_private_key_pem: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl FakeGithub {
    /// Starts on a free port unless the options name one.
    ///
    /// # Errors
    ///
    /// If GitHub's description is missing (run `tests/install`) or the port is taken.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let description = Description::read(&options.description)?;
        let listener = TcpListener::bind(options.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let templates = Templates::new(&description, &url);
        let mut state = State::new(Arc::clone(&templates));
        state.ensure_account(&options.organization, AccountKind::Organization);
        if let Some(enterprise) = &options.enterprise {
            state.ensure_account(enterprise, AccountKind::Enterprise);
        }
        let app_key = AppKey::generate().map_err(|_| StartError::Key)?;
        let shared = Arc::new(Shared {
            app_key,
            url: url.clone(),
            description,
            templates,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            options,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = Arc::clone(&shared);
        tasks.spawn(http_server::serve(listener, stop.clone(), move |request| {
            let shared = Arc::clone(&serving);
            async move { server::serve(&shared, request).await }
        }));
        tasks.spawn(deliveries::run(Arc::clone(&shared), stop.clone()));
        tasks.spawn(shared::expire(Arc::clone(&shared), stop.clone()));
        tasks.close();
        let app_private_key_pem = shared.app_key.private_pem.clone();
        Ok(Self {
            url,
            app_private_key_pem,
            shared,
            stop,
            tasks,
        })
    }

    /// Stops serving and waits for all tasks.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// The app's id, for `iss`.
    pub fn app_id(&self) -> u64 {
        self.shared.options.app_id
    }

    /// What webhooks are signed with.
    pub fn webhook_secret(&self) -> &str {
        &self.shared.options.webhook_secret
    }

    /// Where webhooks go from now on. Those from before are lost, as with GitHub.
    pub fn set_webhook_url(&self, url: &str) {
        self.shared
            .change(|state| state.webhook_url = Some(url.to_owned()));
    }

    /// Publishes a release of the official runner.
    pub fn release_runner(&self, release: RunnerRelease) {
        self.shared
            .change(|state| state.runner_releases.push(release));
    }

    /// The installation in an organisation or enterprise.
    pub fn installation_id(&self, login: &str) -> Option<u64> {
        self.shared
            .quietly(|state| state.account(login).map(|account| account.installation))
    }

    /// Makes a repository known, with its owner, before any job of it.
    pub fn add_repository(&self, full_name: &str, public: bool) {
        self.shared
            .change(|state| state.ensure_repository(full_name, public));
    }

    /// Deletes a repository with all its runs. No webhook of `workflow_job` tells of it.
    pub fn delete_repository(&self, full_name: &str) {
        self.shared.change(|state| {
            state.repositories.remove(&full_name.to_lowercase());
            let jobs = &state.jobs;
            state.open.retain(|id| {
                jobs.get(id)
                    .is_none_or(|job| !job.spec.repository.eq_ignore_ascii_case(full_name))
            });
        });
    }

    /// Adds a runner group to an organisation; `repositories` are `owner/name`, `None` for all.
    /// Answers its id.
    pub fn add_group(
        &self,
        organization: &str,
        name: &str,
        repositories: Option<&[&str]>,
        allows_public: bool,
    ) -> u64 {
        self.shared.change(|state| {
            let scope = Scope::Organization(organization.to_owned());
            let id = 1 + state.groups.iter().map(|group| group.id).max().unwrap_or(0);
            state.groups.push(Group {
                id,
                scope,
                name: name.to_owned(),
                repositories: repositories
                    .map(|names| names.iter().map(|&name| name.to_owned()).collect()),
                allows_public,
            });
            id
        })
    }

    /// Queues a job as a run of its own.
    pub fn queue_job(&self, spec: JobSpec) -> JobId {
        self.queue_run(vec![spec]).first().copied().unwrap_or(0)
    }

    /// Queues a run; answers the ids of those jobs that need no other.
    pub fn queue_run(&self, jobs: Vec<JobSpec>) -> Vec<JobId> {
        self.shared
            .change(|state| state.queue_run(jobs, self.shared.now()))
    }

    /// Approves a waiting job. `false` if it does not wait.
    pub fn approve_job(&self, id: JobId) -> bool {
        self.shared.change(|state| state.approve(id))
    }

    /// Cancels a job as a user would. `false` if it has ended already.
    pub fn cancel_job(&self, id: JobId) -> bool {
        let options = &self.shared.options;
        self.shared
            .change(|state| state.cancel(id, options, self.shared.now()))
    }

    /// A job as it is now.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.shared
            .quietly(|state| state.jobs.get(&id).map(state::Job::view))
    }

    /// All jobs, the oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.shared
            .quietly(|state| state.jobs.values().map(state::Job::view).collect())
    }

    /// How many jobs have not ended.
    pub fn open_jobs(&self) -> usize {
        self.shared.quietly(|state| state.open.len())
    }

    /// All registrations, the oldest first.
    pub fn runners(&self) -> Vec<RunnerView> {
        let now = self.shared.now();
        self.shared.quietly(|state| {
            state
                .runners
                .values()
                .map(|runner| runner.view(now))
                .collect()
        })
    }

    /// Answers one request of a runner as if it had come over a socket: status and body. `path` is what
    /// follows `/_runner/`, with the query.
    pub async fn runner_call(
        &self,
        method: &http::Method,
        path: &str,
        credential: &str,
        body: &serde_json::Value,
    ) -> (u16, serde_json::Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let body = body.to_string();
        let call = runner_endpoint::RunnerCall {
            method,
            path,
            query,
            credential,
            body: body.as_bytes(),
        };
        let answer = runner_endpoint::serve(&self.shared, &call).await;
        (answer.status.as_u16(), answer.body.unwrap_or_default())
    }

    /// Makes the API say that a runner is busy or not, whatever it does; `None` for the truth.
    pub fn report_busy(&self, runner_name: &str, busy: Option<bool>) {
        self.shared.change(|state| {
            for runner in state
                .runners
                .values_mut()
                .filter(|runner| runner.name == runner_name)
            {
                runner.reported_busy = busy;
            }
        });
    }

    /// Removes a registration as GitHub's own clean-up does.
    pub fn remove_runner(&self, runner_name: &str) {
        self.shared
            .change(|state| state.runners.retain(|_, runner| runner.name != runner_name));
    }

    /// Waits until a job has the status.
    ///
    /// # Errors
    ///
    /// If it does not within `wait`.
    pub async fn wait_job(
        &self,
        id: JobId,
        status: Status,
        wait: Duration,
    ) -> Result<JobView, NotInTime> {
        let what = format!("job {id} {}", status.as_str());
        self.wait_for(&what, wait, || {
            self.job(id).filter(|job| job.status == status)
        })
        .await
    }

    /// Waits until `look` finds something; it is asked again after each change.
    ///
    /// # Errors
    ///
    /// If it does not within `wait`.
    pub async fn wait_for<R>(
        &self,
        what: &str,
        wait: Duration,
        look: impl Fn() -> Option<R>,
    ) -> Result<R, NotInTime> {
        changes::wait_for(&self.shared.changed, what, wait, look).await
    }

    /// Programs a failure of the REST API.
    pub fn inject(&self, fault: Fault) {
        self.shared.change(|state| state.faults.push(fault));
    }

    /// How many requests the programmed failures will still hit.
    pub fn faults_left(&self) -> u32 {
        self.shared
            .quietly(|state| state.faults.iter().map(|fault| fault.times).sum())
    }

    /// Programs a disturbance of webhooks.
    pub fn disturb_webhooks(&self, fault: WebhookFault) {
        self.shared.change(|state| state.webhook_faults.push(fault));
    }

    /// All attempts at delivering webhooks, the oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.quietly(|state| state.deliveries.clone())
    }

    /// All secrets that were given out so far, also those that don't work any more.
    pub fn secrets_given(&self) -> Vec<(SecretKind, String)> {
        self.shared.quietly(|state| state.secrets_given.clone())
    }

    /// How often a call was served, such as `POST /orgs/{org}/actions/runners/generate-jitconfig`.
    pub fn served(&self, call: &str) -> u64 {
        self.shared
            .quietly(|state| state.served.get(call).copied().unwrap_or(0))
    }

    /// All calls served, with their counts.
    pub fn all_served(&self) -> BTreeMap<String, u64> {
        self.shared.quietly(|state| state.served.clone())
    }

    /// What departed from GitHub's description so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.shared.quietly(|state| state.violations.clone())
    }

    /// Takes the violations, for tests that provoke some.
    pub fn take_violations(&self) -> Vec<String> {
        self.shared
            .quietly(|state| std::mem::take(&mut state.violations))
    }
}
