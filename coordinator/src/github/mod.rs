//! GitHub: its API and its webhooks. No JSON of GitHub's travels beyond this module.

mod app_auth;
mod cache;
mod deliveries;
mod errors;
mod job_check;
mod jobs;
mod json;
mod limits;
pub mod reconcile;
mod releases;
mod repositories;
mod rest;
mod runners;
mod runs;
pub mod signature;
pub mod survey;
mod transport;
pub mod webhook;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use transport::simulated;

pub use deliveries::{Attempt, Cursor, Deliveries};
pub use errors::{GithubError, RetryLater, SetupError};
pub use job_check::JobCheck;
pub use repositories::ReachedRepository;
pub use rest::{GithubClient, Settings};
pub use runners::{MintError, Minted, RunnerSummary};
pub use runs::{Fetched, RunStanding};
