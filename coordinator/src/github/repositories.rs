//! The repositories that an installation can see.

use jiff::Timestamp;
use muster_core::{Repository, Scope};

use super::errors::GithubError;
use super::json::Node;
use super::rest::GithubClient;
use super::runs::Fetched;
use super::transport::Call;

/// A repository in which jobs may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachedRepository {
    /// The repository. The answer doesn't name its enterprise.
    pub repository: Repository,
    /// When somebody pushed to it last.
    pub pushed_at: Option<Timestamp>,
}

impl GithubClient {
    /// The repositories that the installation of a scope can see, archived ones left out, as nothing runs
    /// in them. 20,000 at most.
    ///
    /// # Errors
    /// When GitHub can't be asked.
    pub async fn reached_repositories(
        &self,
        scope: &Scope,
        etag: Option<&str>,
    ) -> Result<Fetched<Vec<ReachedRepository>>, GithubError> {
        let call = Call::get(vec!["installation", "repositories"]);
        self.list(scope, &call, "repositories", etag, reached).await
    }
}

fn reached(repository: &Node<'_>) -> Result<Option<ReachedRepository>, GithubError> {
    if repository.field("archived").is_true() || repository.field("disabled").is_true() {
        return Ok(None);
    }
    let public = match repository.optional_text("visibility")? {
        Some(visibility) => visibility == "public",
        None => !repository.boolean("private")?,
    };
    Ok(Some(ReachedRepository {
        repository: Repository {
            owner: repository.object("owner")?.text("login")?.to_owned(),
            name: repository.text("name")?.to_owned(),
            public,
            enterprise: None,
        },
        pushed_at: repository.optional_time("pushed_at")?,
    }))
}
