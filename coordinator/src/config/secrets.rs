//! Reading the secrets that the configuration names, and looking whether its other files are there.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{SecretString, zeroize::Zeroizing};
use thiserror::Error;

use super::Config;

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

/// The secrets. `Debug` shows none of them.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The GitHub app's private key, PEM.
    pub app_key: SecretString,
    /// Secrets that sign webhooks, at least one.
    pub webhook: Vec<SecretString>,
    /// `user:password` for the proxy.
    pub proxy_credentials: Option<SecretString>,
    /// The certificate authority's private key, PEM; none if it is made in the data directory.
    pub ca_key: Option<SecretString>,
}

impl Secrets {
    /// Reads all secrets.
    ///
    /// # Errors
    /// When any can't be read, is empty or is too large: then all that are wrong.
    pub fn load(config: &Config) -> Result<Self, Vec<FileError>> {
        let github = &config.github;
        let mut errors = Vec::new();
        let app_key = read_into(
            &mut errors,
            "github.private_key_file",
            &github.private_key_file,
        );
        let mut webhook = Vec::new();
        for path in &github.webhook_secret_files {
            webhook.extend(read_into(&mut errors, "github.webhook_secret_files", path));
        }
        let proxy_credentials = github
            .proxy_credentials_file
            .as_deref()
            .and_then(|path| read_into(&mut errors, "github.proxy_credentials_file", path));
        let ca_key = config
            .identity
            .ca
            .as_ref()
            .and_then(|ca| read_into(&mut errors, "identity.ca_key_file", &ca.key));
        match app_key {
            Some(app_key) if errors.is_empty() => Ok(Self {
                app_key,
                webhook,
                proxy_credentials,
                ca_key,
            }),
            _ => Err(errors),
        }
    }

    /// Looks at every file that the configuration names, the secret ones included, and keeps nothing.
    ///
    /// # Errors
    /// All files that are not there, can't be read, or are not what they should be.
    pub fn verify(config: &Config) -> Result<(), Vec<FileError>> {
        let mut errors = Self::load(config).err().unwrap_or_default();
        let mut check = |key, path: &Path, good: fn(&Metadata) -> Result<(), &'static str>| {
            if let Err(problem) = inspect(path, good) {
                errors.push(FileError {
                    key,
                    path: path.to_owned(),
                    problem,
                });
            }
        };
        if let Some(path) = &config.github.ca_file {
            check("github.ca_file", path, readable_file);
        }
        if let Some(ca) = &config.identity.ca {
            check(
                "identity.ca_certificate_file",
                &ca.certificate,
                readable_file,
            );
        }
        if let Some(local) = &config.local {
            check("local.agent_binary", &local.agent_binary, program);
            check("local.runner_dir", &local.runner_dir, directory);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

/// Reads one secret. Line ends at its end are not part of it.
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

fn read_into(errors: &mut Vec<FileError>, key: &'static str, path: &Path) -> Option<SecretString> {
    read_secret(path)
        .map_err(|problem| {
            errors.push(FileError {
                key,
                path: path.to_owned(),
                problem,
            });
        })
        .ok()
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
