//! What the local provider is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::identity::serving::PresentAuthority;

/// Settings of the local provider.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The agent's binary.
    pub agent_binary: PathBuf,
    /// An unpacked official runner; each instance gets a copy.
    pub runner_dir: PathBuf,
    /// Where the instances' folders are.
    pub instances_dir: PathBuf,
    /// URL that agents enrol at.
    pub enroll_url: String,
    /// URL of the agents' streams.
    pub agents_url: String,
    /// Name in the coordinator's certificate.
    pub server_name: String,
    /// What agents trust: the anchors of the authority at their launch.
    pub authority: PresentAuthority,
    /// An instance metadata service; `{instance_id}` is replaced.
    pub metadata_endpoint: Option<String>,
    /// Variables for the runner.
    pub environment: BTreeMap<String, String>,
}
