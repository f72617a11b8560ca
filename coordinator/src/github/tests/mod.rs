//! The client against a GitHub that refuses, stalls, lies and never ends.

mod auth;
mod deliveries;
mod limits;
mod lists;
mod registrations;
mod releases;
mod runners;
mod survey;
mod transport;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{DeregisterAnswer, GithubRunnerId, JobId, Repository, RunnerName, Scope};
use rstest::rstest;
use serde_json::{Value, json};

use super::fake::{Fake, Reply, pkcs8, reply, with};
use super::*;

fn org() -> Scope {
    Scope::Organization("acme".to_owned())
}

fn repository_scope() -> Scope {
    Scope::Repository {
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
    }
}

fn name() -> RunnerName {
    RunnerName::from("muster-1")
}

fn minted() -> Reply {
    reply(
        201,
        json!({ "runner": { "id": 23 }, "encoded_jit_config": "c2VjcmV0" }),
    )
}

async fn mint(client: &GithubClient, scope: &Scope, group: &str) -> Result<Minted, MintError> {
    let labels = BTreeSet::from(["linux".to_owned(), "self-hosted".to_owned()]);
    client
        .generate_jitconfig(scope, &name(), group, &labels)
        .await
}

async fn delete(client: &GithubClient) -> Result<DeregisterAnswer, GithubError> {
    client.delete_runner(&org(), GithubRunnerId(23)).await
}

fn waits(error: &GithubError) -> Duration {
    error
        .retry_after()
        .unwrap_or_else(|| panic!("expected a delay, not {error}"))
}

fn widgets() -> Repository {
    Repository {
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
        public: true,
        enterprise: None,
    }
}
