//! Workflow runs: which are open, their jobs, and running them again.

use http::{Method, StatusCode};
use jiff::Timestamp;
use muster_core::{JobReport, Repository, RerunCall, RunAttempt, Scope};
use serde_json::{Value, json};

use super::errors::GithubError;
use super::jobs;
use super::json::Node;
use super::limits::Bucket;
use super::rest::GithubClient;
use super::transport::Call;

/// Entries of a page, as many as GitHub gives.
const PER_PAGE: usize = 100;
/// Pages of one list: GitHub gives 1,000 runs for a filter, a matrix has 256 jobs at most, and of 20,000
/// repositories half are watched.
const MAX_PAGES: u32 = 200;

/// An answer to a question that was asked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched<T> {
    /// The same as then. GitHub doesn't count such a call against the hourly limit.
    /// <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>
    Same,
    /// Another.
    New {
        /// The answer.
        value: T,
        /// What to say next time; none if it has to be read anew.
        etag: Option<String>,
        /// How many calls it took: one for each page of a list.
        calls: u32,
        /// Elements of a list that can't be read.
        left_out: u32,
    },
}

impl<T> Fetched<T> {
    /// How many calls it took.
    pub(super) fn calls(&self) -> u32 {
        match self {
            Self::Same => 1,
            Self::New { calls, .. } => *calls,
        }
    }
}

/// How a run is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStanding {
    /// Its newest attempt, from 1.
    pub attempt: u32,
    /// Whether that has completed.
    pub completed: bool,
    /// How, in GitHub's word.
    pub conclusion: Option<String>,
    /// When that attempt began.
    pub started_at: Option<Timestamp>,
}

impl GithubClient {
    /// The ids of the runs of a repository that have a status, newest first; 1,000 at most.
    ///
    /// # Errors
    /// When GitHub can't be asked.
    pub async fn runs_with(
        &self,
        repository: &Repository,
        status: &str,
        etag: Option<&str>,
    ) -> Result<Fetched<Vec<i64>>, GithubError> {
        let call = Call::get(path(repository, &["runs"])).query("status", status);
        let read = |run: &Node<'_>| Ok(Some(run.integer("id")?));
        self.list(&scope(repository), &call, "workflow_runs", etag, read)
            .await
    }

    /// The jobs of a run's newest attempt.
    ///
    /// # Errors
    /// When GitHub can't be asked, or has no such run.
    pub async fn jobs_of_run(
        &self,
        repository: &Repository,
        run: i64,
        etag: Option<&str>,
    ) -> Result<Fetched<Vec<JobReport>>, GithubError> {
        let run = run.to_string();
        let call = Call::get(path(repository, &["runs", &run, "jobs"])).query("filter", "latest");
        let read = |job: &Node<'_>| jobs::report(job, repository).map(Some);
        self.list(&scope(repository), &call, "jobs", etag, read)
            .await
    }

    /// How a run is.
    ///
    /// # Errors
    /// When GitHub can't be asked, or has no such run.
    pub async fn run(
        &self,
        repository: &Repository,
        run: i64,
        etag: Option<&str>,
    ) -> Result<Fetched<RunStanding>, GithubError> {
        let run = run.to_string();
        let call = Call::get(path(repository, &["runs", &run])).unless(etag);
        let reply = self
            .as_installation(&scope(repository), Bucket::Core, &call)
            .await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Same);
        }
        let document = reply.json()?;
        let run = Node::document(&document).as_object()?;
        let started_at = run.optional_time("run_started_at")?;
        let standing = RunStanding {
            attempt: run.optional_count("run_attempt")?.unwrap_or(1),
            completed: run.optional_text("status")? == Some("completed"),
            conclusion: run.optional_text("conclusion")?.map(str::to_owned),
            started_at: started_at.or(run.optional_time("created_at")?),
        };
        Ok(Fetched::New {
            value: standing,
            etag: reply.etag(),
            calls: 1,
            left_out: 0,
        })
    }

    /// Has jobs of a completed run run again, in a new attempt. Not idempotent: look at the run's attempt
    /// before.
    ///
    /// # Errors
    /// When GitHub can't be asked, or refuses: 403 while the run is under way, when it is older than 30
    /// days, or has been run 50 times.
    pub async fn rerun(&self, run: &RunAttempt, call: &RerunCall) -> Result<(), GithubError> {
        let id = match call {
            RerunCall::Job(job) => job.to_string(),
            RerunCall::FailedJobs => run.run_id.to_string(),
        };
        let rest = match call {
            RerunCall::Job(_) => ["jobs", &id, "rerun"],
            RerunCall::FailedJobs => ["runs", &id, "rerun-failed-jobs"],
        };
        let path = path(&run.repository, &rest);
        let call = Call::new(Method::POST, path).body(json!({}));
        let scope = scope(&run.repository);
        self.as_installation(&scope, Bucket::Core, &call)
            .await
            .map(drop)
    }

    /// Reads a list to its end. What `read` answers none for is left out, and so is what can't be read: one odd
    /// element must not hide all others.
    pub(super) async fn list<T>(
        &self,
        scope: &Scope,
        call: &Call<'_>,
        field: &'static str,
        etag: Option<&str>,
        read: impl Fn(&Node<'_>) -> Result<Option<T>, GithubError>,
    ) -> Result<Fetched<Vec<T>>, GithubError> {
        let mut value = Vec::new();
        let (mut new, mut calls, mut left_out) = (None, 0, 0);
        for page in 1..=MAX_PAGES {
            let number = page.to_string();
            let first = page == 1;
            let call = call.clone().query("per_page", "100").query("page", &number);
            let call = call.unless(etag.filter(|_| first));
            let reply = self.as_installation(scope, Bucket::Core, &call).await?;
            if first && reply.status == StatusCode::NOT_MODIFIED {
                return Ok(Fetched::Same);
            }
            calls += 1;
            let document: Value = reply.json()?;
            let root = Node::document(&document);
            let list = root.field(field);
            let mut count = 0;
            for element in list.elements()? {
                count += 1;
                match read(&element) {
                    Ok(element) => value.extend(element),
                    Err(error) => {
                        left_out += 1;
                        tracing::warn!(%scope, %error, "left out of what GitHub lists");
                    }
                }
            }
            let last = count < PER_PAGE;
            // The first page says nothing of a change on another.
            new = reply.etag().filter(|_| first && last);
            if last {
                break;
            }
        }
        Ok(Fetched::New {
            value,
            etag: new,
            calls,
            left_out,
        })
    }
}

fn scope(repository: &Repository) -> Scope {
    Scope::Repository {
        owner: repository.owner.clone(),
        name: repository.name.clone(),
    }
}

fn path<'a>(repository: &'a Repository, rest: &[&'a str]) -> Vec<&'a str> {
    let mut path = vec!["repos", &repository.owner, &repository.name, "actions"];
    path.extend(rest);
    path
}
