//! The coordinator's configuration file, and what it names.

use std::path::Path;

use super::coordinator::Addresses;
use super::{Cloud, Options, build, cloud};
use crate::fakes::github::FakeGithub;

/// What the configuration file is made from.
pub(super) struct Config<'a> {
    pub(super) dir: &'a Path,
    pub(super) github: &'a FakeGithub,
    pub(super) metadata_endpoint: &'a str,
    pub(super) options: &'a Options,
    pub(super) cloud: Option<&'a Cloud>,
}

/// Where the secrets are, if in files.
const FILES: &str = "private_key_file = \"app.pem\"\nwebhook_secret_files = [\"webhook.secret\"]";

/// Writes it, with the secrets that are in files.
pub(super) fn write_config(config: &Config<'_>, addresses: &Addresses) -> anyhow::Result<()> {
    let Config {
        dir,
        github,
        metadata_endpoint,
        options,
        cloud,
    } = config;
    std::fs::write(dir.join("app.pem"), &github.app_private_key_pem)?;
    std::fs::write(dir.join("webhook.secret"), github.webhook_secret())?;
    let agent = match &options.agent_binary {
        Some(binary) => binary.clone(),
        None => build::binary("muster-agent")?,
    };
    let compute = match cloud {
        Some(cloud) => cloud.account(options.max_instances, options.sweep_interval),
        None => format!(
            "[accounts.local]\nmax_instances = {}\n\n[local]\nagent_binary = {agent:?}\n\
             runner_dir = \"runner\"\nmetadata_endpoint = \"{metadata_endpoint}\"\n\
             sweep_interval = \"{}ms\"\n\n[local.environment]\nFAKE_RUNNER_SPEED = \"{}\"\n",
            options.max_instances,
            options.sweep_interval.as_millis(),
            options.runner_speed
        ),
    };
    let (secrets, secrets_table, authority) = match cloud {
        Some(cloud) if options.secrets_in_ssm => {
            let table = cloud.put_secrets(github, dir)?;
            (cloud::PARAMETERS, table, cloud::CA_PARAMETERS)
        }
        _ => (FILES, String::new(), ""),
    };
    let identity = match (authority, options.identity.as_str()) {
        ("", "") => String::new(),
        (authority, lines) => format!("[identity]\n{authority}\n{lines}\n"),
    };
    let pools = match cloud {
        Some(cloud) => cloud.pools(&options.pools),
        None => options.pools.clone(),
    };
    let text = format!(
        r#"[coordinator]
data_dir = "data"
development = true
heartbeat_interval = "{heartbeat}ms"

[listen]
web = "{web}"
enroll = "{enroll}"
agents = "{agents}"
operators = "{operators}"
server_names = ["localhost", "127.0.0.1"]
advertise_host = "127.0.0.1"
ports_file = "ports.json"

[github]
api_url = "{github_url}"
app_id = {app_id}
{secrets}
redeliver_interval = "1s"
{github_keys}
registrations_per_minute = {registrations}

{compute}

[telemetry]
log_level = "{log_level}"
emf_interval = "1s"

{secrets_table}
{identity}
{tables}
{pools}"#,
        heartbeat = options.heartbeat_interval.as_millis(),
        registrations = options.registrations_per_minute,
        log_level = options.log_level,
        web = addresses.web,
        enroll = addresses.enroll,
        agents = addresses.agents,
        operators = addresses.operators,
        github_url = github.url,
        app_id = github.app_id(),
        github_keys = options.github_keys,
        tables = options.tables,
    );
    std::fs::write(dir.join("muster.toml"), text)?;
    Ok(())
}
