//! The runner's files: written from a JIT configuration, read back, and removed.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Why a JIT configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// Not base64, inside or out.
    #[error(
        "The input is not a valid Base-64 string as it contains a non-base 64 character, more than two padding characters, or an illegal character among the padding characters. "
    )]
    Base64(#[from] base64::DecodeError),
    /// Not a JSON object of texts.
    #[error("Unexpected character encountered while parsing value. {0}")]
    Json(#[from] serde_json::Error),
    /// A file can't be written.
    #[error("{0}")]
    Write(#[from] std::io::Error),
}

/// What the listener needs of `.runner` and `.credentials`.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The registration's id.
    pub agent_id: String,
    /// The runner's name.
    pub agent_name: String,
    /// Below the root.
    pub work_folder: String,
    /// Where to poll for work, if anywhere.
    pub server_url: Option<String>,
    /// What is shown there.
    pub credential: String,
}

/// Writes each file of the blob into `root`, as `Runner.cs:234-261` does.
pub(super) fn unpack(blob: &str, root: &Path) -> Result<(), JitError> {
    let files: BTreeMap<String, String> = serde_json::from_slice(&STANDARD.decode(blob.trim())?)?;
    for (name, content) in files {
        std::fs::write(root.join(name), STANDARD.decode(content)?)?;
    }
    Ok(())
}

/// Reads the settings back; `None` if the runner is not configured.
pub(super) fn settings(root: &Path) -> Option<Settings> {
    let read = |name: &str| -> Option<Value> {
        let text = std::fs::read_to_string(root.join(name)).ok()?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    };
    let runner = read(".runner")?;
    let credentials = read(".credentials").unwrap_or(Value::Null);
    let folder = field(&runner, "WorkFolder");
    Some(Settings {
        agent_id: field(&runner, "AgentId"),
        agent_name: field(&runner, "AgentName"),
        work_folder: if folder.is_empty() {
            "_work".to_owned()
        } else {
            folder
        },
        server_url: Some(field(&runner, "ServerUrlV2")).filter(|url| url.starts_with("http://")),
        credential: credentials["Data"]["ClientId"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    })
}

/// A field in either case, as a text: JIT blobs have PascalCase and texts, `config.sh` writes
/// camelCase and numbers.
fn field(object: &Value, name: &str) -> String {
    let mut camel = name.to_owned();
    camel[..1].make_ascii_lowercase();
    match object.get(name).or_else(|| object.get(&camel)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Removes the configuration and says so (`ConfigurationManager.cs:496-525`).
pub(super) fn remove(root: &Path) {
    for (main, others) in [
        (
            ".credentials",
            [".credentials_rsaparams", ".credentials_migrated"].as_slice(),
        ),
        (".runner", &[".runner_migrated"]),
    ] {
        if std::fs::remove_file(root.join(main)).is_ok() {
            super::diag::say(&format!("√ Removed {main}"));
        }
        for other in others {
            drop(std::fs::remove_file(root.join(other)));
        }
    }
}
