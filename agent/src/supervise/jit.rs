//! The just-in-time configuration: what it must look like before it is handed to the runner.
//!
//! base64 of a JSON object from file names to the base64 of their content; the runner writes each to
//! its own directory and checks no name (Runner.cs:234-261).

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use thiserror::Error;

use super::files::ForeignDir;

/// Largest configuration that is looked at, in bytes. Real ones have less than 10 KiB.
const SIZE_MAX: usize = 256 * 1024;
/// The names in the configurations of 2.336.0.
const KNOWN: [&str; 3] = [".runner", CREDENTIALS_FILE, KEY_FILE];
const CREDENTIALS_FILE: &str = ".credentials";
const KEY_FILE: &str = ".credentials_rsaparams";
/// Largest of these files, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;

/// A configuration that is well-formed.
#[derive(Debug)]
pub(crate) struct JitConfig {
    /// As it came, for the runner.
    pub(crate) encoded: SecretString,
    /// Its parts that must not be shown either: contents as encoded, and the private key's numbers.
    pub(crate) parts: Vec<SecretString>,
}

/// Why a configuration is refused. No text of it is in here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum JitError {
    /// Nothing, or far too much.
    #[error("{0} bytes long; expected 1 to {SIZE_MAX}")]
    Size(usize),
    /// The outer encoding is broken.
    #[error("not base64")]
    NotBase64,
    /// It isn't a JSON object with something in it.
    #[error("not a JSON object of files inside the base64")]
    NotAnObject,
    /// A name that could reach outside of the runner's directory.
    #[error("file {0} has a name that is not a plain file name")]
    Name(usize),
    /// Content that the runner could not decode.
    #[error("the content of file {0} is not base64 text")]
    Content(usize),
}

/// Checks a configuration.
pub(crate) fn check(encoded: SecretString) -> Result<JitConfig, JitError> {
    let text = encoded.expose_secret().trim();
    if text.is_empty() || text.len() > SIZE_MAX {
        return Err(JitError::Size(text.len()));
    }
    let json = Zeroizing::new(
        BASE64_STANDARD
            .decode(text)
            .map_err(|_| JitError::NotBase64)?,
    );
    let files: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|_| JitError::NotAnObject)?;
    if files.is_empty() {
        return Err(JitError::NotAnObject);
    }
    let mut parts = Vec::new();
    for (index, (name, content)) in files.iter().enumerate() {
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name.contains("..") || name == "."
        {
            return Err(JitError::Name(index));
        }
        if !KNOWN.contains(&name.as_str()) {
            tracing::warn!(file = index, "unknown file in the runner's configuration");
        }
        let content = content.as_str().ok_or(JitError::Content(index))?;
        let decoded = BASE64_STANDARD
            .decode(content)
            .map(Zeroizing::new)
            .map_err(|_| JitError::Content(index))?;
        parts.push(content.to_owned().into());
        if name == KEY_FILE {
            parts.extend(key_numbers(&decoded));
        }
    }
    Ok(JitConfig { encoded, parts })
}

/// The secrets of a configuration that the runner has written to its directory: it keeps them there while
/// it works (Runner.cs:241-256). None if they are not there.
pub(crate) fn parts_on_disk(runner_dir: &Path) -> Option<Vec<SecretString>> {
    let root = ForeignDir::open(runner_dir, ".").ok()?;
    let key = Zeroizing::new(root.tail(KEY_FILE, KEY_FILE_MAX).ok()?);
    let mut parts: Vec<SecretString> = key_numbers(&key).collect();
    if parts.is_empty() {
        return None;
    }
    parts.push(BASE64_STANDARD.encode(&*key).into());
    if let Ok(credentials) = root.tail(CREDENTIALS_FILE, KEY_FILE_MAX) {
        parts.push(BASE64_STANDARD.encode(&credentials).into());
    }
    Some(parts)
}

/// The numbers of the private key, as texts.
fn key_numbers(json: &[u8]) -> impl Iterator<Item = SecretString> + use<> {
    let numbers = match serde_json::from_slice(json) {
        Ok(Value::Object(numbers)) => numbers,
        _ => Map::new(),
    };
    numbers.into_iter().filter_map(|(_, number)| match number {
        Value::String(text) => Some(text.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use rstest::rstest;
    use secrecy::{ExposeSecret as _, SecretString};
    use serde_json::{Value, json};

    use super::{JitError, check};

    fn encoded(files: &Value) -> String {
        BASE64_STANDARD.encode(files.to_string())
    }

    #[test]
    fn the_parts_of_the_private_key_are_known_as_secrets() {
        let key = BASE64_STANDARD.encode(json!({"d": "cHJpdmF0ZS1udW1iZXI="}).to_string());
        let text = encoded(&json!({".runner": "e30=", ".credentials_rsaparams": key}));
        let jit = check(text.clone().into()).unwrap();
        assert_eq!(jit.encoded.expose_secret(), text);
        let parts: Vec<_> = jit.parts.iter().map(SecretString::expose_secret).collect();
        assert!(parts.contains(&"cHJpdmF0ZS1udW1iZXI=") && parts.contains(&key.as_str()));
    }

    #[test]
    fn a_supervisor_that_comes_later_finds_the_secrets_beside_the_runner() {
        let dir = tempfile::tempdir().unwrap();
        assert!(super::parts_on_disk(dir.path()).is_none());
        let key = json!({"d": "cHJpdmF0ZS1udW1iZXI=", "exponent": "AQAB"}).to_string();
        std::fs::write(dir.path().join(".credentials_rsaparams"), &key).unwrap();
        let parts = super::parts_on_disk(dir.path()).unwrap();
        let parts: Vec<_> = parts.iter().map(SecretString::expose_secret).collect();
        assert!(parts.contains(&"cHJpdmF0ZS1udW1iZXI="));
        assert!(parts.contains(&BASE64_STANDARD.encode(&key).as_str()));
    }

    #[rstest]
    #[case(String::new(), JitError::Size(0))]
    #[case("%%%".into(), JitError::NotBase64)]
    #[case(BASE64_STANDARD.encode("[]"), JitError::NotAnObject)]
    #[case(encoded(&json!({})), JitError::NotAnObject)]
    #[case(encoded(&json!({"../.bashrc": "e30="})), JitError::Name(0))]
    #[case(encoded(&json!({"a/b": "e30="})), JitError::Name(0))]
    #[case(encoded(&json!({"..": "e30="})), JitError::Name(0))]
    #[case(encoded(&json!({".runner": "?"})), JitError::Content(0))]
    #[case(encoded(&json!({".runner": 7})), JitError::Content(0))]
    fn refused(#[case] text: String, #[case] error: JitError) {
        assert_eq!(check(text.into()).unwrap_err(), error);
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in "\\PC{0,80}", json in "[\\[\\]{}\":,a-z.0-9/]{0,60}") {
            let _ = check(text.into());
            let _ = check(BASE64_STANDARD.encode(json).into());
        }
    }
}
