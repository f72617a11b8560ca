//! The JIT configuration blob: base64 of a JSON object of file names and base64 file contents, as
//! `Runner.Listener` decodes it (actions/runner `src/Runner.Listener/Runner.cs:234-261`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::state::Runner;
pub(super) use crate::standin::protocol::guid;

/// The blob for a registration. `url` is where the runner is to connect.
pub(super) fn encode(runner: &Runner, group_name: &str, work_folder: &str, url: &str) -> String {
    // PascalCase and strings throughout, as the service writes them (actions/runner#1925).
    let settings = json!({
        "AgentId": runner.id.to_string(),
        "AgentName": runner.name,
        "DisableUpdate": "false",
        "Ephemeral": "true",
        "PoolId": runner.group_id.to_string(),
        "PoolName": group_name,
        "ServerUrl": url,
        "ServerUrlV2": url,
        "UseV2Flow": "true",
        "WorkFolder": work_folder,
    });
    let credentials = json!({
        "Scheme": "OAuth",
        "Data": {
            "ClientId": runner.credential,
            "AuthorizationUrl": format!("{url}/_runner/token"),
            "requireFipsCryptography": "True",
        },
    });
    let files = json!({
        ".runner": STANDARD.encode(settings.to_string()),
        ".credentials": STANDARD.encode(credentials.to_string()),
        ".credentials_rsaparams": STANDARD.encode(key_parameters().to_string()),
    });
    STANDARD.encode(files.to_string())
}

/// Random bytes in the shape of a 2048-bit key: nothing here signs with it.
fn key_parameters() -> Value {
    let part = |bytes: usize| STANDARD.encode(random_bytes(bytes));
    json!({
        "d": part(256), "dp": part(128), "dq": part(128), "exponent": "AQAB",
        "inverseQ": part(128), "modulus": part(256), "p": part(128), "q": part(128),
    })
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::fill(&mut bytes[..]);
    bytes
}
