//! Looks whether the files that the configuration names are there, and reads one that holds a secret.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{SecretString, zeroize::Zeroizing};
use thiserror::Error;

use super::{Config, SecretSource, UrlSource};

/// Bytes of a secret, at most.
const MAX_BYTES: u64 = 64 << 10;

/// A file that the configuration names can't be used. Names the key and the path, never the content.
#[derive(Debug, Error)]
#[error("{key}: {} {problem}", path.display())]
pub struct FileError {
    /// The key in the configuration.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// Looks at every file that the configuration names, the secret ones included, and keeps nothing.
/// Parameters are not looked at.
///
/// # Errors
/// All files that are not there, can't be read, or are not what they should be.
pub fn verify_files(config: &Config) -> Result<(), Vec<FileError>> {
    let mut found = Problems::default();
    let github = &config.github;
    found.secret("github.private_key_file", &github.private_key);
    for source in &github.webhook_secrets {
        found.secret("github.webhook_secret_files", source);
    }
    if let Some(path) = &github.proxy_credentials_file {
        let source = SecretSource::File(path.clone());
        found.secret("github.proxy_credentials_file", &source);
    }
    if let Some(path) = &github.ca_file {
        found.file("github.ca_file", path, readable_file);
    }
    if let Some(ca) = &config.identity.ca {
        found.secret("identity.ca_certificate_file", &ca.certificate);
        found.secret("identity.ca_key_file", &ca.key);
    }
    if let Some(postgres) = &config.store.postgres {
        if let UrlSource::Secret(source) = &postgres.url {
            found.secret("store.url_file", source);
        }
        if let Some(path) = &postgres.ca_file {
            found.file("store.ca_file", path, readable_file);
        }
    }
    if let Some(local) = &config.local {
        found.file("local.agent_binary", &local.agent_binary, program);
        found.file("local.runner_dir", &local.runner_dir, directory);
    }
    if found.0.is_empty() {
        Ok(())
    } else {
        Err(found.0)
    }
}

#[derive(Default)]
struct Problems(Vec<FileError>);

impl Problems {
    fn secret(&mut self, key: &'static str, source: &SecretSource) {
        if let SecretSource::File(path) = source
            && let Err(problem) = read_secret(path)
        {
            self.add(key, path, problem);
        }
    }

    fn file(
        &mut self,
        key: &'static str,
        path: &Path,
        good: fn(&Metadata) -> Result<(), &'static str>,
    ) {
        if let Err(problem) = inspect(path, good) {
            self.add(key, path, problem);
        }
    }

    fn add(&mut self, key: &'static str, path: &Path, problem: String) {
        self.0.push(FileError {
            key,
            path: path.to_owned(),
            problem,
        });
    }
}

/// Reads one secret. Line ends at its end are not part of it. Blocks.
///
/// # Errors
/// When it can't be read, is empty, too large, or no text; says what, never what it holds.
pub fn read_secret(path: &Path) -> Result<SecretString, String> {
    let cant = |error: io::Error| format!("can't be read: {error}");
    let file = File::open(path).map_err(cant)?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(cant)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is empty".to_owned()),
        secret => Ok(SecretString::from(secret)),
    }
}

fn inspect(path: &Path, good: fn(&Metadata) -> Result<(), &'static str>) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("can't be read: {error}"))?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("can't be read: {error}"))?;
    Ok(good(&metadata)?)
}

fn readable_file(metadata: &Metadata) -> Result<(), &'static str> {
    metadata.is_file().then_some(()).ok_or("is not a file")
}

fn program(metadata: &Metadata) -> Result<(), &'static str> {
    let executable = metadata.permissions().mode() & 0o111 != 0;
    (metadata.is_file() && executable)
        .then_some(())
        .ok_or("is not a program")
}

fn directory(metadata: &Metadata) -> Result<(), &'static str> {
    metadata.is_dir().then_some(()).ok_or("is not a directory")
}
