//! Jobs, as GitHub's API tells of them.

use muster_core::{JobId, JobReport, Repository, Scope};

use super::errors::GithubError;
use super::json::Node;
use super::limits::Bucket;
use super::rest::GithubClient;
use super::transport::Call;
use super::webhook;

impl GithubClient {
    /// What GitHub says of a job now. The answer doesn't name the repository: the report carries
    /// the one that is given.
    ///
    /// # Errors
    /// When GitHub can't be asked, or does not know the job.
    pub async fn get_job(
        &self,
        repository: &Repository,
        id: JobId,
    ) -> Result<JobReport, GithubError> {
        let scope = Scope::Repository {
            owner: repository.owner.clone(),
            name: repository.name.clone(),
        };
        let id = id.to_string();
        let path = vec![
            "repos",
            &repository.owner,
            &repository.name,
            "actions",
            "jobs",
            &id,
        ];
        let reply = self
            .as_installation(&scope, Bucket::Core, &Call::get(path))
            .await?;
        let document = reply.json()?;
        let job = Node::document(&document).as_object()?;
        let word = job.text("status")?;
        let status = webhook::known_status(word)
            .ok_or_else(|| GithubError::Garbled("status is a word that is not known".to_owned()))?;
        Ok(webhook::job_report(&job, repository.clone(), status)?)
    }
}
