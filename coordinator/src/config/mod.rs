//! The configuration: one TOML file, read once, turned into checked values.
//!
//! A file that is wrong is refused with all its errors at once, each with its place. Reading it binds no
//! port and opens no other file; secrets are read by [`crate::secrets`].

mod canary;
mod document;
mod ec2;
#[cfg(test)]
mod ec2_tests;
mod error;
mod github;
mod pools;
mod secrets;
mod sections;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

use toml::de::DeTable;

pub(crate) use ec2::is_known_region;
pub use error::{ConfigErrors, Problem};
pub use secrets::{FileError, read_secret, verify_files};
pub use settings::{
    CaSource, Config, CoordinatorSettings, Ec2Account, GithubSettings, IdentitySettings,
    ListenSettings, LocalSettings, SecretSource, SecretsSettings, TelemetrySettings,
};

pub use store::{PostgresSource, StoreSettings, UrlSource};

use document::{Document, Section};

/// Bytes of a configuration file, at most.
const MAX_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads and checks a file. Relative paths in it start at its directory.
    ///
    /// # Errors
    /// When it can't be read or anything in it is wrong: then all that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read(path).map_err(|error| ConfigErrors::whole(path, error))?;
        Self::parse(&text, path)
    }

    /// Checks a text as if it were read from this file.
    ///
    /// # Errors
    /// When anything in it is wrong: then all that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        // Agents are told paths and have a working directory of their own: all must be absolute. Without
        // a working directory there is nothing better than the path as it is.
        let base = path.parent().unwrap_or(Path::new(""));
        let base = if base.as_os_str().is_empty() {
            Path::new(".")
        } else {
            base
        };
        let base = &std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let document = Document::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What was understood of the rest may be misunderstood.
            for error in errors {
                let offset = error.span().map_or(0, |span| span.start);
                document.report(offset, error.message());
            }
            return Err(ConfigErrors::new(path, document.into_problems()));
        }
        let config = read_all(Section::root(&document, table.get_ref()), base);
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ if problems.is_empty() => Err(ConfigErrors::whole(path, "can't be understood")),
            _ => Err(ConfigErrors::new(path, problems)),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| format!("can't be read: {error}"))?
        .len();
    if size > MAX_BYTES {
        return Err(format!("has {size} bytes, more than {MAX_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"))
}

fn read_all(mut root: Section<'_>, base: &Path) -> Option<Config> {
    let coordinator = sections::coordinator(root.section("coordinator"), base);
    let development = coordinator.as_ref().is_some_and(|one| one.development);
    let listen = sections::listen(root.section("listen"), base);
    let github = github::github(root.section("github"), base, development);
    let identity = sections::identity(root.section("identity"), base, development);
    let telemetry = sections::telemetry(root.section("telemetry"));
    let store = store::store(root.section("store"), base);
    let shared = store.as_ref().is_some_and(|store| store.postgres.is_some());
    if shared
        && identity
            .as_ref()
            .is_some_and(|identity| identity.ca.is_none())
    {
        root.refuse(
            "[store] is in PostgreSQL, which coordinators may share, and [identity] names no authority; \
             each would make its own, which the agents of the other don't trust",
        );
    }
    let named = parameters(github.as_ref(), identity.as_ref(), store.as_ref());
    let secrets = sections::secrets(root.section("secrets"), development, named);
    let heartbeat = coordinator.as_ref().map(|one| one.heartbeat_interval);
    let whole = ec2::Whole {
        coordinator: coordinator.as_ref().map_or("", |one| &one.name),
        development,
    };
    let fleet = pools::fleet(&mut root, heartbeat, &whole);

    let local_section = root.section("local");
    let local_used = fleet.as_ref().is_some_and(|(fleet, _)| {
        let mut pools = fleet.pools.iter();
        pools.any(|pool| pool.account.as_str() == pools::LOCAL)
    });
    let local = if local_section.exists() {
        let data_dir = coordinator.as_ref().map(|one| one.data_dir.as_path());
        sections::local(local_section, base, data_dir).map(Some)
    } else {
        if local_used {
            root.refuse("[local] is missing; a pool launches in the account \"local\"");
        }
        Some(None)
    };
    root.finish();
    let (fleet, ec2) = fleet?;
    Some(Config {
        coordinator: coordinator?,
        listen: listen?,
        github: github?,
        identity: identity?,
        store: store?,
        secrets: secrets?,
        local: local?,
        ec2,
        fleet,
        telemetry: telemetry?,
    })
}

/// The first parameter that holds a secret, if any does.
fn parameters<'a>(
    github: Option<&'a GithubSettings>,
    identity: Option<&'a IdentitySettings>,
    store: Option<&'a StoreSettings>,
) -> Option<&'a str> {
    let github = github
        .into_iter()
        .flat_map(|github| std::iter::once(&github.private_key).chain(&github.webhook_secrets));
    let ca = identity.and_then(|identity| identity.ca.as_ref());
    let ca = ca.into_iter().flat_map(|ca| [&ca.certificate, &ca.key]);
    let postgres = store.and_then(|store| store.postgres.as_ref());
    let url = postgres.and_then(|postgres| match &postgres.url {
        UrlSource::Secret(source) => Some(source),
        UrlSource::Plain(_) => None,
    });
    github.chain(ca).chain(url).find_map(|source| match source {
        SecretSource::Parameter(name) => Some(name.as_str()),
        SecretSource::File(_) => None,
    })
}
