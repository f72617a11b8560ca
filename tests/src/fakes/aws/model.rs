//! AWS's own models of its services, and whether a message keeps to them.
//!
//! The models are botocore's (`service-2.json`), cut down by `tests/slim-aws.py`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Failures to read the models.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not there, or not readable.
    #[error("read AWS's models at {path}: run tests/install first ({source})")]
    Missing {
        /// Where they were looked for.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not in the form that tests/slim-aws.py writes.
    #[error("parse AWS's models: run tests/install again ({0})")]
    Malformed(#[from] serde_json::Error),
}

/// Where the models are: `MUSTER_AWS_MODELS`, or where `tests/install` puts them.
pub fn default_path() -> PathBuf {
    std::env::var_os("MUSTER_AWS_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/.cache/muster/aws-slim.json"),
        PathBuf::from,
    )
}

/// The models of all services, by the name that signatures have for them.
pub(super) type Models = HashMap<String, Service>;

/// Reads the models from `path`.
pub(super) fn read(path: &Path) -> Result<Models, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|source| ModelError::Missing {
        path: path.to_owned(),
        source,
    })?;
    let mut models: Models = serde_json::from_str(&text)?;
    for service in models.values_mut() {
        let spoken = |operation: &Operation| [operation.input.clone(), operation.output.clone()];
        let shapes = service.operations.values().flat_map(spoken).flatten();
        service.validators = shapes.map(|shape| (shape, OnceLock::new())).collect();
    }
    Ok(models)
}

/// How a service's messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    /// A form, answered with XML; EC2's own way of names.
    Ec2,
    /// A form, answered with XML.
    Query,
    Json,
}

/// One service.
#[derive(Deserialize)]
pub(super) struct Service {
    pub(super) version: String,
    pub(super) protocol: Protocol,
    /// What `X-Amz-Target` starts with.
    pub(super) target: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) operations: HashMap<String, Operation>,
    shapes: HashMap<String, Shape>,
    #[serde(skip)]
    validators: HashMap<String, OnceLock<Result<Validator, String>>>,
}

/// One call.
#[derive(Deserialize)]
pub(super) struct Operation {
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
    #[serde(rename = "resultWrapper")]
    pub(super) wrapper: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Structure,
    List,
    Map,
    String,
    Blob,
    Integer,
    Long,
    Double,
    Float,
    Boolean,
    Timestamp,
}

/// A type of the model.
#[derive(Deserialize)]
pub(super) struct Shape {
    pub(super) r#type: Kind,
    #[serde(default)]
    pub(super) members: BTreeMap<String, Member>,
    #[serde(default)]
    required: Vec<String>,
    /// What a list holds.
    pub(super) member: Option<Member>,
    /// What a map holds.
    value: Option<Member>,
    #[serde(default, rename = "enum")]
    words: Vec<String>,
    min: Option<Value>,
    max: Option<Value>,
    pattern: Option<String>,
}

/// Where a shape is used.
#[derive(Deserialize)]
pub(super) struct Member {
    pub(super) shape: String,
    #[serde(rename = "locationName")]
    pub(super) location: Option<String>,
    #[serde(rename = "queryName")]
    pub(super) query: Option<String>,
}

/// What kind of departure from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Unknown,
    Missing,
    Invalid,
}

/// A departure from the model.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) flaw: Flaw,
    /// The parameter, as `Overrides/0/SubnetId`.
    pub(super) at: String,
    pub(super) text: String,
}

impl Service {
    pub(super) fn shape(&self, name: &str) -> Option<&Shape> {
        self.shapes.get(name)
    }

    /// What is wrong with a value of a shape that an operation takes or answers; empty if nothing is.
    pub(super) fn check(&self, shape: &str, value: &Value) -> Vec<Wrong> {
        let Some(cell) = self.validators.get(shape) else {
            return vec![Wrong::new(Flaw::Invalid, "", format!("no shape {shape}"))];
        };
        let compiled = cell.get_or_init(|| {
            let all: Map<_, _> = self
                .shapes
                .iter()
                .map(|(name, shape)| (name.clone(), self.schema(shape)))
                .collect();
            let schema = json!({ "$ref": format!("#/$defs/{shape}"), "$defs": all });
            let built = jsonschema::options().offline().build(&schema);
            built.map_err(|error| error.to_string())
        });
        match compiled {
            Ok(validator) => validator
                .iter_errors(value)
                .take(8)
                .map(|error| Wrong::of(&error))
                .collect(),
            Err(error) => vec![Wrong::new(Flaw::Invalid, shape, error.clone())],
        }
    }

    /// The shape as JSON Schema. Times are seconds in JSON and ISO 8601 in XML.
    fn schema(&self, shape: &Shape) -> Value {
        let member = |member: &Member| json!({ "$ref": format!("#/$defs/{}", member.shape) });
        let mut schema = Map::new();
        let mut set = |key: &str, value: Value| schema.insert(key.to_owned(), value);
        let (least, most) = match shape.r#type {
            Kind::Structure => {
                let members: Map<_, _> = shape
                    .members
                    .iter()
                    .map(|(name, about)| (name.clone(), member(about)))
                    .collect();
                set("type", json!("object"));
                set("properties", Value::Object(members));
                set("required", json!(shape.required));
                set("additionalProperties", json!(false));
                ("minProperties", "maxProperties")
            }
            Kind::List => {
                set("type", json!("array"));
                set("items", shape.member.as_ref().map_or(json!({}), member));
                ("minItems", "maxItems")
            }
            Kind::Map => {
                set("type", json!("object"));
                let value = shape.value.as_ref().map_or(json!({}), member);
                set("additionalProperties", value);
                ("minProperties", "maxProperties")
            }
            Kind::String | Kind::Blob => {
                set("type", json!("string"));
                ("minLength", "maxLength")
            }
            Kind::Integer | Kind::Long => {
                set("type", json!("integer"));
                ("minimum", "maximum")
            }
            Kind::Double | Kind::Float => {
                set("type", json!("number"));
                ("minimum", "maximum")
            }
            Kind::Boolean => {
                set("type", json!("boolean"));
                ("minimum", "maximum")
            }
            Kind::Timestamp => {
                let json = self.protocol == Protocol::Json;
                set("type", json!(if json { "number" } else { "string" }));
                ("minimum", "maximum")
            }
        };
        if !shape.words.is_empty() {
            set("enum", json!(shape.words));
        }
        if let Some(pattern) = &shape.pattern {
            set("pattern", json!(format!("^(?:{pattern})$")));
        }
        for (keyword, limit) in [(least, &shape.min), (most, &shape.max)] {
            if let Some(limit) = limit {
                set(keyword, limit.clone());
            }
        }
        Value::Object(schema)
    }
}

impl Wrong {
    pub(super) fn new(flaw: Flaw, at: &str, text: String) -> Self {
        let at = at.to_owned();
        Self { flaw, at, text }
    }

    fn of(error: &jsonschema::ValidationError<'_>) -> Self {
        let place = error.instance_path().to_string();
        let (flaw, at) = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                (Flaw::Missing, format!("{place}/{name}"))
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                (Flaw::Unknown, format!("{place}/{}", unexpected.join(", ")))
            }
            _ => (Flaw::Invalid, place),
        };
        let mut text = error.to_string();
        text.truncate(text.floor_char_boundary(300));
        Self::new(flaw, at.trim_start_matches('/'), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_the_models_compiles() {
        for service in read(&default_path()).unwrap().values() {
            for shape in service.validators.keys() {
                let wrong = service.check(shape, &json!({}));
                assert!(
                    wrong.iter().all(|wrong| wrong.flaw == Flaw::Missing),
                    "{shape}: {wrong:?}"
                );
            }
        }
    }

    #[test]
    fn departures_are_told_apart() {
        let models = read(&default_path()).unwrap();
        let value = json!({ "RoleArn": "arn:aws:iam::123456789012:role/a", "Rolle": "x",
            "DurationSeconds": 10 });
        let wrong = models["sts"].check("AssumeRoleRequest", &value);
        let flaws: Vec<_> = wrong.iter().map(|wrong| (wrong.flaw, &*wrong.at)).collect();
        assert!(flaws.contains(&(Flaw::Unknown, "Rolle")), "{wrong:?}");
        assert!(
            flaws.contains(&(Flaw::Missing, "RoleSessionName")),
            "{wrong:?}"
        );
        assert!(
            flaws.contains(&(Flaw::Invalid, "DurationSeconds")),
            "{wrong:?}"
        );
    }
}
