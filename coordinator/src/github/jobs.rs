//! Jobs, as GitHub's API tells of them.

use muster_core::{JobId, JobReport, Repository, Scope};
use url::Url;

use super::errors::GithubError;
use super::json::Node;
use super::limits::Bucket;
use super::rest::GithubClient;
use super::transport::Call;
use super::webhook;

impl GithubClient {
    /// What GitHub says of a job now. Of the repository the answer has owner and name only, which are
    /// others than were asked for if it was renamed or transferred; the rest is as given.
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
        report(&Node::document(&document).as_object()?, repository)
    }
}

/// Reads a job of an answer, whose repository is known but for its present name.
pub(super) fn report(job: &Node<'_>, repository: &Repository) -> Result<JobReport, GithubError> {
    let status = webhook::known_status(job.text("status")?)
        .ok_or_else(|| GithubError::Garbled("status is a word that is not known".to_owned()))?;
    let mut repository = repository.clone();
    if let Some((owner, name)) = job.optional_text("run_url")?.and_then(place) {
        (repository.owner, repository.name) = (owner, name);
    }
    Ok(webhook::job_report(job, repository, status)?)
}

/// Owner and name in the address of a run, `https://api.github.com/repos/acme/app/actions/runs/1`.
fn place(address: &str) -> Option<(String, String)> {
    let url = Url::parse(address).ok()?;
    let mut segments = url
        .path_segments()?
        .skip_while(|segment| *segment != "repos")
        .skip(1);
    match (segments.next()?, segments.next()?, segments.next()?) {
        (owner, name, "actions") if !owner.is_empty() && !name.is_empty() => {
            Some((owner.to_owned(), name.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://api.github.com/repos/acme/app/actions/runs/1", Some(("acme", "app")))]
    #[case("https://ghe.acme.com/api/v3/repos/acme/app.js/actions/runs/1", Some(("acme", "app.js")))]
    #[case("https://api.github.com/repos/acme", None)]
    #[case("https://api.github.com/users/acme", None)]
    #[case("not an address", None)]
    fn a_run_names_its_repository(#[case] address: &str, #[case] expected: Option<(&str, &str)>) {
        let found = place(address);
        let found = found
            .as_ref()
            .map(|(owner, name)| (owner.as_str(), name.as_str()));
        assert_eq!(found, expected);
    }
}
