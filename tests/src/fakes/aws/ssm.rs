//! SSM's Parameter Store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::AwsError;
use super::shared::{Admitted, Place, State};

/// The parameters of one account and region.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<String, Vec<Parameter>>);

/// One version of a parameter.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    kind: ParameterKind,
    pub(super) value: String,
    at: Timestamp,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Text.
    Text,
    /// Text, encrypted.
    Secret,
    /// The id of a machine image.
    Image,
    /// One that nobody may read: a call that names it is refused.
    Denied,
}

impl Parameters {
    /// Adds a version; answers its number.
    pub(super) fn put(
        &mut self,
        name: &str,
        kind: ParameterKind,
        value: &str,
        at: Timestamp,
    ) -> usize {
        let versions = self.0.entry(name.to_owned()).or_default();
        versions.push(Parameter {
            kind,
            value: value.to_owned(),
            at,
        });
        versions.len()
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The newest version.
    pub(super) fn latest(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)?.last()
    }

    /// What `name` or `name:version` stands for.
    fn answer(&self, place: &Place, selected: &str, decrypt: bool) -> Option<Value> {
        let (name, selector) = match selected.split_once(':') {
            Some((name, selector)) => (name, Some(selector)),
            None => (selected, None),
        };
        let versions = self.0.get(name)?;
        let version = match selector {
            Some(selector) => selector.parse().ok()?,
            None => versions.len(),
        };
        let it = versions.get(version.checked_sub(1)?)?;
        let secret = it.kind == ParameterKind::Secret;
        let value = if secret && !decrypt {
            "AQICAHhEncryptedAndOfNoUseToAnyone=="
        } else {
            &it.value
        };
        let Place { account, region } = place;
        let slash = if name.starts_with('/') { "" } else { "/" };
        let mut out = json!({
            "Name": name, "Value": value, "Version": version,
            "Type": if secret { "SecureString" } else { "String" },
            "DataType": if it.kind == ParameterKind::Image { "aws:ec2:image" } else { "text" },
            "ARN": format!("arn:aws:ssm:{region}:{account}:parameter{slash}{name}"),
            "LastModifiedDate": it.at.as_second(),
        });
        if let Some(selector) = selector {
            out["Selector"] = json!(format!(":{selector}"));
        }
        Some(out)
    }
}

pub(super) fn get_parameter(state: &mut State, call: &Admitted) -> Result<Value, AwsError> {
    let name = call.parameters["Name"].as_str().unwrap_or_default();
    let decrypt = call.parameters["WithDecryption"] == true;
    let known = state.parameters.get(&call.place);
    known
        .and_then(|all| all.answer(&call.place, name, decrypt))
        .map(|found| json!({ "Parameter": found }))
        .ok_or_else(|| AwsError::client("ParameterNotFound", format!("{name} is not known")))
}

/// Names that are not known are listed, without an error.
pub(super) fn get_parameters(state: &mut State, call: &Admitted) -> Result<Value, AwsError> {
    let decrypt = call.parameters["WithDecryption"] == true;
    let names = call.parameters["Names"].as_array();
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    let known = state.parameters.get(&call.place);
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let latest = known.and_then(|all| all.latest(name));
        if latest.is_some_and(|it| it.kind == ParameterKind::Denied) {
            let message = format!("not authorized to perform: ssm:GetParameters on {name}");
            return Err(AwsError::client("AccessDeniedException", message));
        }
        match known.and_then(|all| all.answer(&call.place, name, decrypt)) {
            Some(answer) => found.push(answer),
            None => unknown.push(json!(name)),
        }
    }
    let mut answer = json!({ "Parameters": found });
    // SSM sends an empty list too, which its own model doesn't allow.
    if !unknown.is_empty() {
        answer["InvalidParameters"] = json!(unknown);
    }
    Ok(answer)
}
