//! The policies that we ship, filled in as an installer does.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// A policy document.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Document {
    pub(crate) statement: Vec<Statement>,
}

/// One statement of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Statement {
    pub(crate) sid: String,
    pub(crate) action: OneOrMore,
    pub(crate) resource: Option<OneOrMore>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../coordinator/deploy/iam")
}

/// A file with its placeholders filled in. One that is not named here fails.
pub(crate) fn filled(file: &str, account: &str, region: &str) -> Value {
    let mut text = std::fs::read_to_string(folder().join(file)).unwrap();
    let coordinator = super::world::ACCOUNT;
    for (name, value) in [
        ("AWS::Partition", "aws".to_owned()),
        ("AWS::Region", region.to_owned()),
        ("AWS::AccountId", account.to_owned()),
        ("CoordinatorName", super::world::COORDINATOR.to_owned()),
        ("AccountRoleName", "muster-account".to_owned()),
        (
            "CoordinatorRoleArn",
            format!("arn:aws:iam::{coordinator}:role/muster-coordinator"),
        ),
        (
            "EventQueueArn",
            format!("arn:aws:sqs:{region}:{account}:muster-events"),
        ),
        ("ExternalId", super::world::EXTERNAL_ID.to_owned()),
        ("InstanceRoleName", "muster-runner".to_owned()),
    ] {
        text = text.replace(&format!("${{{name}}}"), &value);
    }
    assert!(
        !text.contains("${"),
        "{file} has a placeholder of no name: {text}"
    );
    serde_json::from_str(&text).unwrap()
}
