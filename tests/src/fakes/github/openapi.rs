//! GitHub's own description of its REST API, and whether a message keeps to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::{Registry, Validator};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

const BASE: &str = "https://github.invalid/description.json";

/// Failures to read the description.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// Not there, or not readable.
    #[error("read GitHub's description at {path}: run tests/install first ({source})")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not in the form that tests/slim-openapi.js writes.
    #[error("parse GitHub's description: run tests/install again ({0})")]
    Malformed(String),
}

/// The description, cut down by `tests/slim-openapi.js`.
pub(super) struct Description {
    operations: Vec<Operation>,
    registry: Registry<'static>,
    validators: HashMap<String, OnceLock<Result<Validator, String>>>,
    /// Real payloads by event name.
    pub(super) examples: HashMap<String, Vec<Value>>,
    /// The description's own examples of answers, by `METHOD template`.
    pub(super) answers: HashMap<String, Value>,
}

/// One call that the description knows.
pub(super) struct Operation {
    /// Upper case.
    pub(super) method: String,
    /// Such as `/orgs/{org}/installation`.
    pub(super) template: String,
    segments: Vec<Segment>,
    about: RawOperation,
}

enum Segment {
    Literal(String),
    Parameter(String),
}

#[derive(Deserialize)]
struct Raw {
    paths: HashMap<String, HashMap<String, RawOperation>>,
    components: Value,
    webhooks: HashMap<String, Value>,
    examples: HashMap<String, Vec<Value>>,
    answers: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct RawOperation {
    parameters: Vec<RawParameter>,
    #[serde(rename = "requestBody")]
    body: Option<RawBody>,
    responses: HashMap<String, Option<Value>>,
}

#[derive(Deserialize)]
struct RawParameter {
    name: String,
    r#in: String,
    required: bool,
    schema: Value,
}

#[derive(Deserialize)]
struct RawBody {
    required: bool,
    schema: Value,
}

/// Where the description is: `MUSTER_OPENAPI`, or where `tests/install` puts it.
pub fn default_path() -> PathBuf {
    std::env::var_os("MUSTER_OPENAPI").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("node_modules/.cache/muster/github-slim.json")
        },
        PathBuf::from,
    )
}

impl Description {
    /// Reads the description from `path`.
    pub(super) fn read(path: &Path) -> Result<Self, DescriptionError> {
        let text = std::fs::read_to_string(path).map_err(|source| DescriptionError::Missing {
            path: path.to_owned(),
            source,
        })?;
        let malformed =
            |error: &dyn std::fmt::Display| DescriptionError::Malformed(error.to_string());
        let raw: Raw = serde_json::from_str(&text).map_err(|error| malformed(&error))?;
        let document = json!({ "components": raw.components, "webhooks": raw.webhooks });
        let registry = Registry::new()
            .add(BASE, document)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .map_err(|error| malformed(&error))?;
        let operations: Vec<_> = raw.paths.into_iter().flat_map(Operation::of_path).collect();
        let mut validators = HashMap::new();
        for operation in &operations {
            for schema in operation.schemas() {
                validators.insert(schema.to_string(), OnceLock::new());
            }
        }
        for action in raw.webhooks.keys() {
            validators.insert(webhook_schema(action).to_string(), OnceLock::new());
        }
        Ok(Self {
            operations,
            registry,
            validators,
            examples: raw.examples,
            answers: raw.answers,
        })
    }

    /// The operation of a request and its path parameters, decoded.
    pub(super) fn find(
        &self,
        method: &str,
        path: &str,
    ) -> Option<(&Operation, HashMap<String, String>)> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut found: Vec<_> = self
            .operations
            .iter()
            .filter(|operation| operation.method == method)
            .filter_map(|operation| Some((operation, operation.matches(&parts)?)))
            .collect();
        // A literal segment wins over a parameter: `generate-jitconfig` is no runner's id.
        found.sort_by_key(|(_, parameters)| parameters.len());
        found.into_iter().next()
    }

    /// What is wrong with a request, in words; empty if nothing is.
    pub(super) fn check_request(
        &self,
        operation: &Operation,
        path: &HashMap<String, String>,
        query: &str,
        body: Option<&Value>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let query: HashMap<String, String> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        for parameter in &operation.about.parameters {
            let given = match parameter.r#in.as_str() {
                "path" => path.get(&parameter.name),
                "query" => query.get(&parameter.name),
                _ => continue,
            };
            match given {
                Some(text) => {
                    let value = typed(text, &parameter.schema);
                    wrong.extend(
                        self.check(&parameter.schema, &value)
                            .into_iter()
                            .map(|error| {
                                format!("{} parameter {}: {error}", parameter.r#in, parameter.name)
                            }),
                    );
                }
                None if parameter.required => {
                    wrong.push(format!(
                        "{} parameter {} is missing",
                        parameter.r#in, parameter.name
                    ));
                }
                None => {}
            }
        }
        for name in query.keys() {
            if !operation
                .about
                .parameters
                .iter()
                .any(|known| known.r#in == "query" && known.name == *name)
            {
                wrong.push(format!("query parameter {name} is not described"));
            }
        }
        match (&operation.about.body, body) {
            (Some(described), Some(body)) => {
                wrong.extend(
                    self.check(&described.schema, body)
                        .into_iter()
                        .map(|error| format!("body: {error}")),
                );
            }
            (Some(described), None) if described.required => {
                wrong.push("body: missing or not JSON".to_owned());
            }
            (None, Some(_)) => wrong.push("body: none is described".to_owned()),
            _ => {}
        }
        wrong
    }

    /// What is wrong with an answer of ours; empty if nothing is.
    pub(super) fn check_answer(
        &self,
        operation: &Operation,
        status: u16,
        body: Option<&Value>,
    ) -> Vec<String> {
        match (operation.about.responses.get(&status.to_string()), body) {
            (Some(Some(schema)), Some(body)) => self.check(schema, body),
            (Some(Some(_)), None) => vec![format!("an answer {status} has a body")],
            (Some(None), Some(body)) if *body != json!({}) => {
                vec![format!("an answer {status} has no body")]
            }
            (Some(None), _) => Vec::new(),
            // The description leaves these out of most calls; GitHub answers them everywhere.
            (None, _) if matches!(status, 304 | 401 | 403 | 404 | 422 | 429 | 500..) => Vec::new(),
            (None, _) => vec![format!("status {status} is not described")],
        }
    }

    /// What is wrong with a `workflow_job` payload; empty if nothing is.
    pub(super) fn check_webhook(&self, action: &str, payload: &Value) -> Vec<String> {
        self.check(&webhook_schema(action), payload)
    }

    fn check(&self, schema: &Value, instance: &Value) -> Vec<String> {
        let Some(cell) = self.validators.get(&schema.to_string()) else {
            return vec![format!("no schema {schema}")];
        };
        let compiled = cell.get_or_init(|| {
            jsonschema::options()
                .with_registry(&self.registry)
                .offline()
                .build(&absolute(schema))
                .map_err(|error| error.to_string())
        });
        match compiled {
            Ok(validator) => validator
                .iter_errors(instance)
                .take(8)
                .map(|error| {
                    let mut text = error.to_string();
                    text.truncate(text.floor_char_boundary(300));
                    format!("{}: {text}", error.instance_path())
                })
                .collect(),
            Err(error) => vec![format!("the schema {schema} does not compile: {error}")],
        }
    }
}

impl Operation {
    fn of_path((template, methods): (String, HashMap<String, RawOperation>)) -> Vec<Self> {
        methods
            .into_iter()
            .map(|(method, about)| Self {
                method: method.to_uppercase(),
                segments: template
                    .trim_start_matches('/')
                    .split('/')
                    .map(Segment::parse)
                    .collect(),
                template: template.clone(),
                about,
            })
            .collect()
    }

    fn matches(&self, parts: &[&str]) -> Option<HashMap<String, String>> {
        if parts.len() != self.segments.len() {
            return None;
        }
        let mut parameters = HashMap::new();
        for (segment, part) in self.segments.iter().zip(parts) {
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::Literal(_) => return None,
                Segment::Parameter(_) if part.is_empty() => return None,
                Segment::Parameter(name) => {
                    parameters.insert(name.clone(), (*part).to_owned());
                }
            }
        }
        Some(parameters)
    }

    fn schemas(&self) -> impl Iterator<Item = &Value> {
        let about = &self.about;
        about
            .parameters
            .iter()
            .map(|parameter| &parameter.schema)
            .chain(about.body.iter().map(|body| &body.schema))
            .chain(about.responses.values().flatten())
    }
}

impl Segment {
    fn parse(text: &str) -> Self {
        match text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        {
            Some(name) => Self::Parameter(name.to_owned()),
            None => Self::Literal(text.to_owned()),
        }
    }
}

fn webhook_schema(action: &str) -> Value {
    json!({ "$ref": format!("#/webhooks/{action}") })
}

/// A query or path text as the JSON value that its schema talks about.
fn typed(text: &str, schema: &Value) -> Value {
    let parsed = match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => text.parse::<i64>().ok().map(Value::from),
        Some("boolean") => text.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

/// The schema with its references made absolute, since it stands outside the document.
fn absolute(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| match value {
                    Value::String(target) if key == "$ref" => {
                        (key.clone(), Value::from(format!("{BASE}{target}")))
                    }
                    _ => (key.clone(), absolute(value)),
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(absolute).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_segments_win_over_parameters() {
        let description = Description::read(&default_path()).unwrap();
        let (operation, parameters) = description
            .find("POST", "/orgs/acme/actions/runners/generate-jitconfig")
            .unwrap();
        assert_eq!(
            operation.template,
            "/orgs/{org}/actions/runners/generate-jitconfig"
        );
        assert_eq!(parameters["org"], "acme");
        assert!(
            description
                .find("POST", "/orgs/acme/actions/runners/1/2")
                .is_none()
        );
    }

    #[test]
    fn a_request_that_departs_from_the_description_is_named() {
        let description = Description::read(&default_path()).unwrap();
        let (operation, path) = description
            .find("POST", "/orgs/acme/actions/runners/generate-jitconfig")
            .unwrap();
        let body = json!({ "name": "a", "runner_group_id": "1", "labels": [] });
        let wrong = description
            .check_request(operation, &path, "page=1", Some(&body))
            .join("\n");
        assert!(wrong.contains("runner_group_id"), "{wrong}");
        assert!(wrong.contains("labels"), "{wrong}");
        assert!(wrong.contains("query parameter page"), "{wrong}");
    }

    #[test]
    fn every_schema_of_the_description_compiles() {
        let description = Description::read(&default_path()).unwrap();
        for schema in description.validators.keys() {
            let schema: Value = serde_json::from_str(schema).unwrap();
            let wrong = description.check(&schema, &Value::Null).join("\n");
            assert!(!wrong.contains("does not compile"), "{wrong}");
        }
    }
}
