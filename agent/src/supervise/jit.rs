//! The just-in-time configuration: what it must look like before it is handed to the runner.
//!
//! base64 of a JSON object from file names to the base64 of their content; the runner writes each to
//! its own directory and checks no name (Runner.cs:234-261).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use thiserror::Error;

/// Largest configuration that is looked at, in bytes. Real ones have less than 10 KiB.
const SIZE_MAX: usize = 256 * 1024;
/// The names in the configurations of 2.336.0.
const KNOWN: [&str; 3] = [".runner", ".credentials", ".credentials_rsaparams"];

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
        if name == ".credentials_rsaparams"
            && let Ok(Value::Object(numbers)) = serde_json::from_slice(&decoded)
        {
            let texts = numbers.values().filter_map(Value::as_str);
            parts.extend(texts.map(|text| SecretString::from(text.to_owned())));
        }
    }
    Ok(JitConfig { encoded, parts })
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
