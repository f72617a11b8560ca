//! Runners: registering, finding and deleting them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use muster_core::{DeregisterAnswer, GithubRunnerId, RunnerName, Scope};
use secrecy::SecretString;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use super::app_auth::scope_path;
use super::cache::Cache;
use super::errors::{GithubError, RetryLater};
use super::json::Node;
use super::limits::Bucket;
use super::rest::GithubClient;
use super::transport::Call;

/// How long the ids of runner groups are remembered.
const GROUPS_TTL: Duration = Duration::from_secs(10 * 60);

/// The group that every repository's own runners are in.
const REPOSITORY_GROUP: i64 = 1;

/// Wait before a new registration when the answer to one could not be read.
const GARBLED_WAIT: Duration = Duration::from_secs(5);

/// Entries of a page, as many as GitHub gives.
const PER_PAGE: usize = 100;

/// Pages of one list: 20,000 runners, twice what GitHub allows in a group.
const MAX_PAGES: u32 = 200;

/// A registered runner that waits for its process.
#[derive(Debug)]
pub struct Minted {
    /// GitHub's id for it.
    pub id: GithubRunnerId,
    /// What the runner is started with. It holds the runner's private key.
    pub encoded_jit_config: SecretString,
}

/// A runner was not registered, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MintError {
    /// A runner of this name exists: most likely the answer to an earlier call was lost.
    #[error("a runner of this name exists")]
    NameTaken,
    /// GitHub refuses, and will refuse again until somebody changes something.
    #[error("{0}")]
    Refused(String),
    /// Later it may go.
    #[error("{0}")]
    Retry(RetryLater),
}

impl From<GithubError> for MintError {
    fn from(error: GithubError) -> Self {
        match error {
            GithubError::Later(later) => Self::Retry(later),
            GithubError::Conflict(_) => Self::NameTaken,
            // It may be registered, as when an answer is lost: the next try will tell.
            GithubError::Garbled(_) => Self::Retry(RetryLater {
                after: GARBLED_WAIT,
                reason: error.to_string(),
            }),
            GithubError::NotInstalled(_)
            | GithubError::NotFound(_)
            | GithubError::Unprocessable(_)
            | GithubError::Refused { .. }
            | GithubError::Unaskable(_) => Self::Refused(error.to_string()),
        }
    }
}

/// A runner in GitHub's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSummary {
    /// GitHub's id.
    pub id: GithubRunnerId,
    /// Its name.
    pub name: RunnerName,
    /// Whether it holds a connection.
    pub online: bool,
    /// GitHub's view of whether it runs a job. It lags by up to a minute and has been seen false in
    /// the middle of a job: a hint, never a reason to delete.
    pub busy: bool,
    /// Its labels, as stored.
    pub labels: Vec<String>,
}

/// Ids of runner groups by scope and name.
#[derive(Debug)]
pub(super) struct Groups {
    ids: Cache<Scope, Arc<HashMap<String, i64>>>,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self { ids: Cache::new() }
    }
}

impl GithubClient {
    /// Registers a runner for one job and gives what its process needs.
    ///
    /// Labels are registered as given; GitHub adds none. `group` is not looked at for a repository,
    /// which has one group only. In a minute at most
    /// [`Settings::mints_per_minute`](super::Settings) calls go out.
    ///
    /// # Errors
    /// As [`MintError`] says. When the answer is lost the runner may be registered nevertheless:
    /// then the next call with the same name gives [`MintError::NameTaken`].
    pub async fn generate_jitconfig(
        &self,
        scope: &Scope,
        name: &RunnerName,
        group: &str,
        labels: &BTreeSet<String>,
    ) -> Result<Minted, MintError> {
        let (id, fresh) = self.group_id(scope, group).await?;
        let minted = self.mint(scope, name, id, labels).await;
        let Err(GithubError::NotFound(message)) = minted else {
            return Ok(minted?);
        };
        // Most likely the group was made anew under its name.
        if !fresh {
            self.groups().ids.forget(scope, |_| true).await;
            let (new, _) = self.group_id(scope, group).await?;
            if new != id {
                return Ok(self.mint(scope, name, new, labels).await?);
            }
        }
        Err(GithubError::NotFound(message).into())
    }

    async fn mint(
        &self,
        scope: &Scope,
        name: &RunnerName,
        group: i64,
        labels: &BTreeSet<String>,
    ) -> Result<Minted, GithubError> {
        let mut path = scope_path(scope);
        path.extend(["actions", "runners", "generate-jitconfig"]);
        let call = Call::new(Method::POST, path).body(json!({
            "name": name.as_str(),
            "runner_group_id": group,
            "labels": labels,
            "work_folder": "_work",
        }));
        self.budget_mint(scope).await?;
        let reply = self
            .as_installation(scope, Bucket::Registration, &call)
            .await?;
        let document = reply.json()?;
        let answer = Node::document(&document);
        Ok(Minted {
            id: GithubRunnerId(answer.object("runner")?.integer("id")?),
            encoded_jit_config: SecretString::from(answer.text("encoded_jit_config")?),
        })
    }

    /// The id of a group, and whether it was asked for just now.
    async fn group_id(&self, scope: &Scope, group: &str) -> Result<(i64, bool), GithubError> {
        if matches!(scope, Scope::Repository { .. }) {
            return Ok((REPOSITORY_GROUP, true));
        }
        let (mut groups, mut fresh) = self.known_groups(scope).await?;
        if !groups.contains_key(group) && !fresh {
            // It may have been made since.
            self.groups().ids.forget(scope, |_| true).await;
            (groups, fresh) = self.known_groups(scope).await?;
        }
        match groups.get(group) {
            Some(&id) => Ok((id, fresh)),
            None => Err(GithubError::NotFound(format!(
                "{scope} has no runner group {group:?} that the app may see"
            ))),
        }
    }

    async fn known_groups(
        &self,
        scope: &Scope,
    ) -> Result<(Arc<HashMap<String, i64>>, bool), GithubError> {
        let mut fresh = false;
        let groups = self
            .groups()
            .ids
            .get(scope, async || {
                fresh = true;
                let groups = self.list_groups(scope).await?;
                Ok((Arc::new(groups), Instant::now() + GROUPS_TTL))
            })
            .await?;
        Ok((groups, fresh))
    }

    async fn list_groups(&self, scope: &Scope) -> Result<HashMap<String, i64>, GithubError> {
        let mut path = scope_path(scope);
        path.extend(["actions", "runner-groups"]);
        let mut groups = HashMap::new();
        self.each_page(scope, &Call::get(path), "runner_groups", |group| {
            groups.insert(group.text("name")?.to_owned(), group.integer("id")?);
            Ok(true)
        })
        .await?;
        Ok(groups)
    }

    /// Deletes a registration. [`DeregisterAnswer::Deleted`] is no proof that no job was given to
    /// the runner.
    ///
    /// # Errors
    /// When GitHub can't be asked or refuses for another reason than a running job.
    pub async fn delete_runner(
        &self,
        scope: &Scope,
        id: GithubRunnerId,
    ) -> Result<DeregisterAnswer, GithubError> {
        let id = id.to_string();
        let mut path = scope_path(scope);
        path.extend(["actions", "runners", id.as_str()]);
        let call = Call::new(Method::DELETE, path);
        match self.as_installation(scope, Bucket::Core, &call).await {
            Ok(_) => Ok(DeregisterAnswer::Deleted),
            Err(GithubError::NotFound(_)) => Ok(DeregisterAnswer::Absent),
            Err(GithubError::Unprocessable(_)) => Ok(DeregisterAnswer::Busy),
            Err(error) => Err(error),
        }
    }

    /// The runner with exactly this name, if the list has it.
    ///
    /// # Errors
    /// When GitHub can't be asked, or its list has no end.
    pub async fn find_runner(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<RunnerSummary>, GithubError> {
        // Servers that don't know the filter give all runners, and those whose name contains it
        // may be given too.
        let call = runners(scope).query("name", name.as_str());
        let mut found = None;
        self.each_page(scope, &call, "runners", |runner| {
            if runner.text("name")? == name.as_str() {
                found = Some(summary(runner)?);
            }
            Ok(found.is_none())
        })
        .await?;
        Ok(found)
    }

    /// All runners of a scope. The list is read page by page while it changes: that a runner is not
    /// in it proves nothing.
    ///
    /// # Errors
    /// When GitHub can't be asked, or its list has no end.
    pub async fn list_runners(&self, scope: &Scope) -> Result<Vec<RunnerSummary>, GithubError> {
        let mut list = Vec::new();
        self.each_page(scope, &runners(scope), "runners", |runner| {
            list.push(summary(runner)?);
            Ok(true)
        })
        .await?;
        Ok(list)
    }

    /// Whether GitHub knows a registration.
    ///
    /// # Errors
    /// When GitHub can't be asked.
    pub async fn has_runner(&self, scope: &Scope, id: GithubRunnerId) -> Result<bool, GithubError> {
        let id = id.to_string();
        let mut path = scope_path(scope);
        path.extend(["actions", "runners", id.as_str()]);
        match self
            .as_installation(scope, Bucket::Core, &Call::get(path))
            .await
        {
            Ok(_) => Ok(true),
            Err(GithubError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a list to its end, or until the visitor has enough.
    async fn each_page(
        &self,
        scope: &Scope,
        call: &Call<'_>,
        field: &'static str,
        mut visit: impl FnMut(&Node<'_>) -> Result<bool, GithubError>,
    ) -> Result<(), GithubError> {
        for page in 1..=MAX_PAGES {
            let page = page.to_string();
            let call = call.clone().query("per_page", "100").query("page", &page);
            let document: Value = self
                .as_installation(scope, Bucket::Core, &call)
                .await?
                .json()?;
            let root = Node::document(&document);
            let list = root.field(field);
            let mut count = 0;
            for element in list.elements()? {
                count += 1;
                if !visit(&element)? {
                    return Ok(());
                }
            }
            if count < PER_PAGE {
                return Ok(());
            }
        }
        let reason = format!("the list of {field} has more than {MAX_PAGES} pages");
        Err(GithubError::Garbled(reason))
    }
}

fn runners(scope: &Scope) -> Call<'_> {
    let mut path = scope_path(scope);
    path.extend(["actions", "runners"]);
    Call::get(path)
}

fn summary(runner: &Node<'_>) -> Result<RunnerSummary, GithubError> {
    let mut labels = Vec::new();
    let list = runner.field("labels");
    for label in list.elements()? {
        labels.push(label.text("name")?.to_owned());
    }
    Ok(RunnerSummary {
        id: GithubRunnerId(runner.integer("id")?),
        name: RunnerName::new(runner.text("name")?),
        online: runner.text("status")? == "online",
        busy: runner.boolean("busy")?,
        labels,
    })
}
