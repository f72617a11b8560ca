//! The configuration: one JSON document, checked as a whole before anything starts.
//!
//! `run` reads a document of the network's part, and of the host's part too unless a supervisor has
//! that. `supervise` reads one of the host's part.

mod fields;
mod host;
mod network;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;

use self::fields::Fields;
pub(crate) use self::host::{HostConfig, Mode, UnitSettings};
pub(crate) use self::network::{Attestation, CredentialSource, NetworkConfig, Remote};

/// What `run` does.
#[derive(Debug)]
pub(crate) enum RunConfig {
    /// One process faces the network and has the runner: the local provider, tests.
    Alone {
        /// The network's part.
        network: NetworkConfig,
        /// The host's part.
        host: Box<HostConfig>,
    },
    /// A supervisor has the runner.
    Front {
        /// The network's part.
        network: NetworkConfig,
        /// The supervisor's socket.
        supervisor: PathBuf,
    },
}

impl RunConfig {
    /// The network's part.
    pub(crate) fn network(&self) -> &NetworkConfig {
        match self {
            Self::Alone { network, .. } | Self::Front { network, .. } => network,
        }
    }
}

/// What `supervise` does.
#[derive(Debug)]
pub(crate) struct SuperviseConfig {
    /// The host's part.
    pub(crate) host: HostConfig,
    /// The user who may give orders over the socket, beside root.
    pub(crate) agent_uid: u32,
}

/// Every problem of a configuration at once.
#[derive(Debug, Error)]
#[error("{}", list(.0))]
pub(crate) struct ConfigError(Vec<String>);

fn list(problems: &[String]) -> String {
    let mut text = String::from("the configuration is not usable:");
    for problem in problems {
        // Writing to a string can't fail.
        let _ = write!(text, "\n  {problem}");
    }
    text
}

/// Reads and checks the configuration of `run`.
pub(crate) fn parse_run(text: &str) -> Result<RunConfig, ConfigError> {
    parse(text, |fields| {
        let supervisor = fields.optional_path("supervisor_socket");
        let network = NetworkConfig::read(fields);
        if let Some(supervisor) = supervisor {
            let network = network?;
            return Some(RunConfig::Front {
                network,
                supervisor,
            });
        }
        let instance_id = network.as_ref().and_then(|n| n.instance_id.clone());
        let host = HostConfig::read_alone(fields, instance_id);
        Some(RunConfig::Alone {
            network: network?,
            host: Box::new(host?),
        })
    })
}

/// Reads and checks the configuration of `supervise`.
pub(crate) fn parse_supervise(text: &str) -> Result<SuperviseConfig, ConfigError> {
    parse(text, read_supervise)
}

fn read_supervise(fields: &mut Fields) -> Option<SuperviseConfig> {
    let agent_uid = fields
        .user("agent_user", "muster-agent")
        .map(|u| u.uid.as_raw());
    let host = HostConfig::read_supervised(fields);
    Some(SuperviseConfig {
        host: host?,
        agent_uid: agent_uid?,
    })
}

/// Has `read` take every field before it gives up, so that all problems are found.
fn parse<T>(text: &str, read: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T, ConfigError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| ConfigError(vec![format!("not JSON: {e}; expected one JSON object")]))?;
    let Value::Object(map) = value else {
        return Err(ConfigError(vec!["not a JSON object".into()]));
    };
    let mut fields = Fields::new(map);
    let config = read(&mut fields);
    match (config, fields.finish()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(ConfigError(problems)),
    }
}
