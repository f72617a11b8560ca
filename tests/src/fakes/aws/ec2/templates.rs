//! Launch templates.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Region, region};
use crate::fakes::aws::dispatch::typed;
use crate::fakes::aws::error::AwsError;
use crate::fakes::aws::shared::{Admitted, State};

/// A launch template.
#[derive(Clone, Debug)]
pub struct Template {
    /// `lt-…`.
    pub id: String,
    /// Unique in its region.
    pub name: String,
    /// The version that `$Default` stands for.
    pub default: u32,
    /// Version 1 first.
    pub versions: Vec<TemplateVersion>,
}

/// What a version of a launch template says.
#[derive(Clone, Debug)]
pub struct TemplateVersion {
    /// The machine image.
    pub image_id: Option<String>,
    /// Such as `m7i.large`.
    pub instance_type: Option<String>,
    /// Tags that instances get.
    pub tags: Vec<(String, String)>,
    /// Whether instances end when their own system shuts down (`terminate`), or only stop.
    pub ends_on_shutdown: bool,
    /// Whether `TerminateInstances` is refused.
    pub protected: bool,
    /// What `LaunchTemplateData` says besides, in the model's names.
    pub more: Value,
}

impl Default for TemplateVersion {
    fn default() -> Self {
        Self {
            image_id: None,
            instance_type: None,
            tags: Vec::new(),
            ends_on_shutdown: true,
            protected: false,
            more: json!({}),
        }
    }
}

impl TemplateVersion {
    fn answer(&self) -> Value {
        let mut data = self.more.clone();
        let behaviour = if self.ends_on_shutdown {
            "terminate"
        } else {
            "stop"
        };
        data["InstanceInitiatedShutdownBehavior"] = json!(behaviour);
        data["DisableApiTermination"] = json!(self.protected);
        if let Some(image) = &self.image_id {
            data["ImageId"] = json!(image);
        }
        if let Some(instance_type) = &self.instance_type {
            data["InstanceType"] = json!(instance_type);
        }
        data
    }
}

impl Template {
    /// The number that a text stands for.
    pub(super) fn number(&self, version: &str) -> Result<u32, AwsError> {
        let latest = u32::try_from(self.versions.len()).unwrap_or(u32::MAX);
        let number = match version {
            "$Latest" => latest,
            "$Default" => self.default,
            text => text.parse().map_err(|_| {
                AwsError::client(
                    "InvalidLaunchTemplateVersion.Malformed",
                    format!("Invalid launch template version '{text}'"),
                )
            })?,
        };
        if (1..=latest).contains(&number) {
            return Ok(number);
        }
        Err(AwsError::client(
            "InvalidLaunchTemplateId.VersionNotFound",
            format!(
                "Could not find the specified version {number} for the launch template with ID {}.",
                self.id
            ),
        ))
    }

    /// A version by its number.
    pub(super) fn version(&self, number: u32) -> TemplateVersion {
        let at = usize::try_from(number).unwrap_or(0).saturating_sub(1);
        self.versions.get(at).cloned().unwrap_or_default()
    }
}

impl Region {
    /// A template by exactly one of id and name.
    pub(super) fn template(
        &self,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Result<&Template, AwsError> {
        match (id, name) {
            (Some(id), None) => self.templates.iter().find(|it| it.id == id).ok_or_else(|| {
                AwsError::client(
                    "InvalidLaunchTemplateId.NotFound",
                    format!("The specified launch template, with template ID {id}, does not exist."),
                )
            }),
            (None, Some(name)) => self.templates.iter().find(|it| it.name == name).ok_or_else(|| {
                AwsError::client(
                    "InvalidLaunchTemplateName.NotFoundException",
                    format!("The specified launch template, with template name {name}, does not exist."),
                )
            }),
            _ => Err(AwsError::client(
                "InvalidParameterCombination",
                "exactly one of LaunchTemplateId and LaunchTemplateName must be specified",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Templates {
    #[serde(default)]
    launch_template_ids: Vec<String>,
    #[serde(default)]
    launch_template_names: Vec<String>,
}

pub(in crate::fakes::aws) fn describe_launch_templates(
    state: &mut State,
    call: &Admitted,
) -> Result<Value, AwsError> {
    let asked: Templates = typed(call)?;
    let region = region(state, call)?;
    let mut found = Vec::new();
    for id in &asked.launch_template_ids {
        found.push(region.template(Some(id), None)?.clone());
    }
    for name in &asked.launch_template_names {
        found.push(region.template(None, Some(name))?.clone());
    }
    if asked.launch_template_ids.is_empty() && asked.launch_template_names.is_empty() {
        found.clone_from(&region.templates);
    }
    let answers: Vec<_> = found
        .iter()
        .map(|it| {
            json!({
                "LaunchTemplateId": it.id, "LaunchTemplateName": it.name,
                "DefaultVersionNumber": it.default, "LatestVersionNumber": it.versions.len(),
            })
        })
        .collect();
    Ok(json!({ "LaunchTemplates": answers }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Versions {
    launch_template_id: Option<String>,
    launch_template_name: Option<String>,
    #[serde(default)]
    versions: Vec<String>,
}

pub(in crate::fakes::aws) fn describe_launch_template_versions(
    state: &mut State,
    call: &Admitted,
) -> Result<Value, AwsError> {
    let asked: Versions = typed(call)?;
    let region = region(state, call)?;
    let it = region.template(
        asked.launch_template_id.as_deref(),
        asked.launch_template_name.as_deref(),
    )?;
    let mut numbers = Vec::new();
    for version in &asked.versions {
        numbers.push(it.number(version)?);
    }
    if asked.versions.is_empty() {
        numbers.extend((1..).take(it.versions.len()));
    }
    let answers: Vec<_> = numbers
        .into_iter()
        .map(|number| {
            json!({
                "LaunchTemplateId": it.id, "LaunchTemplateName": it.name, "VersionNumber": number,
                "DefaultVersion": number == it.default,
                "LaunchTemplateData": it.version(number).answer(),
            })
        })
        .collect();
    Ok(json!({ "LaunchTemplateVersions": answers }))
}
