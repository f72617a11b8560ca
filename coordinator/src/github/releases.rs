//! The releases of the official runner.

use http::StatusCode;
use jiff::Timestamp;
use muster_core::Scope;

use super::errors::GithubError;
use super::json::Node;
use super::limits::Bucket;
use super::rest::GithubClient;
use super::runs::Fetched;
use super::transport::Call;
use crate::runner_versions::{Release, RunnerVersion};

/// Releases that are asked for: those of a year and more, and with their notes and files well below the largest
/// answer that is read.
const RELEASES: &str = "30";

impl GithubClient {
    /// The newest releases of the official runner, without those that are tried out first. Public, so that the
    /// installation of any scope may read them; a GitHub Enterprise Server doesn't have the repository.
    ///
    /// # Errors
    /// When GitHub can't be asked, or has no such repository.
    pub async fn runner_releases(
        &self,
        scope: &Scope,
        etag: Option<&str>,
    ) -> Result<Fetched<Vec<Release>>, GithubError> {
        let call = Call::get(vec!["repos", "actions", "runner", "releases"])
            .query("per_page", RELEASES)
            .unless(etag);
        let reply = self.as_installation(scope, Bucket::Core, &call).await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Same);
        }
        let document = reply.json()?;
        let list = Node::document(&document);
        let (mut value, mut left_out) = (Vec::new(), 0);
        for element in list.elements()? {
            match release(&element) {
                Ok(release) => value.extend(release),
                Err(error) => {
                    left_out += 1;
                    tracing::warn!(%error, "left out of the releases of the runner");
                }
            }
        }
        Ok(Fetched::New {
            value,
            etag: reply.etag(),
            calls: 1,
            left_out,
        })
    }
}

/// A release that runners are updated to; none for a draft, one that is tried out, and one of something else.
fn release(release: &Node<'_>) -> Result<Option<Release>, GithubError> {
    if release.field("draft").is_true() || release.field("prerelease").is_true() {
        return Ok(None);
    }
    let Some(version) = RunnerVersion::parse(release.text("tag_name")?) else {
        return Ok(None);
    };
    let published_at: Option<Timestamp> = release.optional_time("published_at")?;
    Ok(published_at.map(|published_at| Release {
        version,
        published_at,
    }))
}
