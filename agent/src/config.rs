//! The configuration: one JSON document, checked as a whole before anything starts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use crate::supervise::watchdog::Limits;

/// How long an agent without a job waits for its coordinator, unless the configuration says otherwise.
const COORDINATOR_LOST_DEFAULT: Duration = Duration::from_secs(600);
/// No time in the configuration is longer than this: 30 days, in seconds.
const SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Names that `runner_environment` may not set, because the agent does.
pub(crate) const RESERVED_ENVIRONMENT: [&str; 5] = [
    "ACTIONS_RUNNER_INPUT_JITCONFIG",
    "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED",
    "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE",
    "RUNNER_PERFLOG",
    "MUSTER_INSTANCE_ID",
];

/// The checked configuration.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where to enrol.
    pub(crate) enroll: Remote,
    /// Where to hold the session.
    pub(crate) agents: Remote,
    /// The authorities that the coordinator's certificate may come from. At least one.
    pub(crate) trust_anchors: Vec<CertificateDer<'static>>,
    /// The secret that proves which launch this is; it works once.
    pub(crate) join_token: SecretString,
    /// The unpacked official runner, this instance's own copy.
    pub(crate) runner_dir: PathBuf,
    /// The agent's own directory.
    pub(crate) work_dir: PathBuf,
    /// The base of the instance metadata service, if there is one. Scheme http, no final slash.
    pub(crate) metadata_endpoint: Option<Url>,
    /// The launch, for logs.
    pub(crate) launch: String,
    /// The instance that this must be, if the provider knows it.
    pub(crate) instance_id: Option<String>,
    /// How long the agent may live.
    pub(crate) max_lifetime: Duration,
    /// How long the agent goes on without its coordinator when no job runs.
    pub(crate) coordinator_lost: Duration,
    /// Environment of the runner, on top of what the agent gives it.
    pub(crate) runner_environment: BTreeMap<String, String>,
    /// How long each step of the runner may take: an object of seconds, see [`Limits`]. For tests, and
    /// for hosts that are slower than most.
    pub(crate) runner_limits: Limits,
}

/// One listener of the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Scheme https, a host, a port.
    pub(crate) url: Url,
    /// The name that its certificate must carry.
    pub(crate) server_name: ServerName<'static>,
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

/// Reads and checks a configuration.
pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| ConfigError(vec![format!("not JSON: {e}; expected one JSON object")]))?;
    let Value::Object(map) = value else {
        return Err(ConfigError(vec!["not a JSON object".into()]));
    };
    let mut fields = Fields {
        map,
        problems: Vec::new(),
    };
    match fields.config() {
        Some(config) if fields.problems.is_empty() => Ok(config),
        _ => Err(ConfigError(fields.problems)),
    }
}

/// The fields that are still to be read, and what was wrong with those before.
struct Fields {
    map: Map<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    /// Reads every field before it gives up, so that all problems are found.
    fn config(&mut self) -> Option<Config> {
        let server_name = self.optional_string("server_name");
        let enroll = self.remote("enroll_url", server_name.as_deref());
        let agents = self.remote("agents_url", server_name.as_deref());
        let trust_anchors = self.trust_anchors();
        let join_token = self.secret("join_token");
        let runner_dir = self.directory("runner_dir");
        let work_dir = self.directory("work_dir");
        let metadata_endpoint = self.metadata_endpoint();
        let launch = self.string("launch");
        let instance_id = self.optional_string("instance_id");
        let max_lifetime = self.optional_seconds("max_lifetime_seconds");
        if max_lifetime.is_none() {
            self.missing("max_lifetime_seconds", "a number of seconds");
        }
        let coordinator_lost = self
            .optional_seconds("coordinator_lost_seconds")
            .unwrap_or(COORDINATOR_LOST_DEFAULT);
        let runner_environment = self.environment();
        let runner_limits = Limits::parse(self.map.remove("runner_limits"), &mut self.problems);
        for name in self.map.keys() {
            self.problems.push(format!("{name}: not a known field"));
        }
        Some(Config {
            enroll: enroll?,
            agents: agents?,
            trust_anchors: trust_anchors?,
            join_token: join_token?,
            runner_dir: runner_dir?,
            work_dir: work_dir?,
            metadata_endpoint,
            launch: launch?,
            instance_id,
            max_lifetime: max_lifetime?,
            coordinator_lost,
            runner_environment,
            runner_limits,
        })
    }

    fn problem(&mut self, name: &str, value: &str, expected: &str) {
        self.problems
            .push(format!("{name}: {value}; expected {expected}"));
    }

    /// Notes a missing field, unless something was already said about it.
    fn missing(&mut self, name: &str, expected: &str) {
        if !self.problems.iter().any(|p| p.starts_with(name)) {
            self.problem(name, "missing", expected);
        }
    }

    fn optional_string(&mut self, name: &str) -> Option<String> {
        match self.map.remove(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            // The value isn't shown: it may be a secret in the wrong shape.
            Value::String(_) => {
                self.problem(name, "empty", "a string that is not empty");
                None
            }
            other => {
                self.problem(name, kind(&other), "a string");
                None
            }
        }
    }

    fn string(&mut self, name: &str) -> Option<String> {
        let text = self.optional_string(name);
        if text.is_none() {
            self.missing(name, "a string");
        }
        text
    }

    fn secret(&mut self, name: &str) -> Option<SecretString> {
        let secret = SecretString::from(self.string(name)?);
        if secret.expose_secret().trim() != secret.expose_secret() {
            self.problem(name, "begins or ends with a space", "the token alone");
        }
        Some(secret)
    }

    fn directory(&mut self, name: &str) -> Option<PathBuf> {
        let text = self.string(name)?;
        let path = PathBuf::from(&text);
        if !path.is_absolute() {
            self.problem(name, &format!("{text:?}"), "an absolute path");
        } else if !path.is_dir() {
            self.problem(name, &format!("{text:?}"), "a directory that exists");
        }
        Some(path)
    }

    fn optional_seconds(&mut self, name: &str) -> Option<Duration> {
        let value = self.map.remove(name)?;
        let expected = format!("a whole number of seconds from 1 to {SECONDS_MAX}");
        match value.as_u64() {
            Some(seconds @ 1..=SECONDS_MAX) => Some(Duration::from_secs(seconds)),
            _ => {
                self.problem(name, &value.to_string(), &expected);
                None
            }
        }
    }

    fn remote(&mut self, name: &str, server_name: Option<&str>) -> Option<Remote> {
        const EXPECTED: &str = "https://host:port";
        let text = self.string(name)?;
        let shown = format!("{text:?}");
        let url = match Url::parse(&text) {
            Ok(url) => url,
            Err(e) => {
                self.problem(name, &format!("{shown} is not a URL ({e})"), EXPECTED);
                return None;
            }
        };
        if url.scheme() != "https" || url.path() != "/" || url.query().is_some() {
            self.problem(name, &shown, EXPECTED);
            return None;
        }
        // `host_str` puts IPv6 addresses into brackets, which a server name doesn't have.
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        let wanted = server_name.unwrap_or(&host).to_owned();
        match ServerName::try_from(wanted.clone()) {
            Ok(server_name) => Some(Remote { url, server_name }),
            Err(_) => {
                let field = if server_name.is_some() {
                    "server_name"
                } else {
                    name
                };
                self.problem(field, &format!("{wanted:?}"), "a DNS name or an IP address");
                None
            }
        }
    }

    fn trust_anchors(&mut self) -> Option<Vec<CertificateDer<'static>>> {
        const NAME: &str = "trust_anchors_pem";
        const EXPECTED: &str = "one or more certificates as PEM text";
        let text = self.string(NAME)?;
        match CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>() {
            Ok(anchors) if !anchors.is_empty() => Some(anchors),
            Ok(_) => {
                self.problem(NAME, "no certificate in it", EXPECTED);
                None
            }
            Err(e) => {
                self.problem(NAME, &format!("not PEM ({e})"), EXPECTED);
                None
            }
        }
    }

    fn metadata_endpoint(&mut self) -> Option<Url> {
        const NAME: &str = "metadata_endpoint";
        let text = self.optional_string(NAME)?;
        match Url::parse(text.trim_end_matches('/')) {
            Ok(url) if url.scheme() == "http" && url.has_host() && url.query().is_none() => {
                Some(url)
            }
            _ => {
                self.problem(NAME, &format!("{text:?}"), "http://host[:port][/path]");
                None
            }
        }
    }

    fn environment(&mut self) -> BTreeMap<String, String> {
        const NAME: &str = "runner_environment";
        let mut environment = BTreeMap::new();
        match self.map.remove(NAME) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => {
                for (key, value) in map {
                    let named = format!("{NAME}.{key}");
                    let reserved = RESERVED_ENVIRONMENT
                        .iter()
                        .any(|r| r.eq_ignore_ascii_case(&key));
                    match value {
                        _ if reserved => {
                            self.problem(&named, "set by the agent", "another name");
                        }
                        _ if key.is_empty() || key.contains(['=', '\0']) => {
                            self.problem(&named, "not a name", "a name without '=' and NUL");
                        }
                        Value::String(text) if !text.contains('\0') => {
                            environment.insert(key, text);
                        }
                        other => self.problem(&named, kind(&other), "a string without NUL"),
                    }
                }
            }
            Some(other) => self.problem(NAME, kind(&other), "an object of strings"),
        }
        environment
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse;

    fn document() -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        json!({
            "enroll_url": "https://127.0.0.1:7001",
            "agents_url": "https://coordinator.test:7002",
            "trust_anchors_pem": pem,
            "join_token": "hunter2-hunter2",
            "runner_dir": "/",
            "work_dir": "/tmp",
            "launch": "l-1",
            "max_lifetime_seconds": 3600,
        })
    }

    #[test]
    fn the_smallest_document_is_enough() {
        let config = parse(&document().to_string()).unwrap();
        assert_eq!(config.coordinator_lost.as_secs(), 600);
        assert_eq!(config.agents.server_name.to_str(), "coordinator.test");
        assert_eq!(config.enroll.server_name.to_str(), "127.0.0.1");
        assert_eq!(config.instance_id, None);
    }

    #[test]
    fn one_server_name_serves_both_listeners() {
        let mut document = document();
        document["server_name"] = "muster.test".into();
        let config = parse(&document.to_string()).unwrap();
        assert_eq!(config.enroll.server_name.to_str(), "muster.test");
        assert_eq!(config.agents.server_name.to_str(), "muster.test");
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let mut document = document();
        document["enroll_url"] = "http://host:1".into();
        document["agents_url"] = 7.into();
        document["runner_dir"] = "relative".into();
        document["work_dir"] = "/nonexistent/dir".into();
        document["max_lifetime_seconds"] = 0.into();
        document["trust_anchors_pem"] = "nothing".into();
        document["metadata_endpoint"] = "ftp://x".into();
        document["runner_environment"] = json!({"RUNNER_PERFLOG": "x", "A=B": "x", "OK": 1});
        document["surprise"] = true.into();
        document.as_object_mut().unwrap().remove("launch");
        let error = parse(&document.to_string()).unwrap_err().to_string();
        for named in [
            "enroll_url: \"http://host:1\"; expected https://host:port",
            "agents_url: a number; expected a string",
            "runner_dir: \"relative\"; expected an absolute path",
            "work_dir: \"/nonexistent/dir\"; expected a directory that exists",
            "max_lifetime_seconds: 0;",
            "trust_anchors_pem: no certificate in it",
            "metadata_endpoint: \"ftp://x\"",
            "runner_environment.RUNNER_PERFLOG: set by the agent",
            "runner_environment.A=B: not a name",
            "runner_environment.OK: a number",
            "surprise: not a known field",
            "launch: missing",
        ] {
            assert!(error.contains(named), "{named:?} is not in:\n{error}");
        }
        assert_eq!(error.lines().count(), 13, "{error}");
    }

    #[test]
    fn neither_debug_nor_errors_show_the_token() {
        let mut document = document();
        let config = parse(&document.to_string()).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        document["join_token"] = json!(["hunter2-hunter2"]);
        let error = parse(&document.to_string()).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
