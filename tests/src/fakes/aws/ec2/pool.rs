//! What one override of a fleet's request comes to: a type in a subnet, of an image.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Region;
use super::types;
use crate::fakes::aws::error::AwsError;

/// `LaunchTemplateConfigs`, one of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Config {
    launch_template_specification: Specification,
    #[serde(default)]
    overrides: Vec<Override>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Specification {
    launch_template_id: Option<String>,
    launch_template_name: Option<String>,
    version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Override {
    instance_type: Option<String>,
    subnet_id: Option<String>,
    availability_zone: Option<String>,
    image_id: Option<String>,
    priority: Option<f64>,
    max_price: Option<String>,
}

/// A type in a subnet.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) template_id: String,
    pub(super) template_version: u32,
    pub(super) instance_type: String,
    pub(super) architecture: String,
    pub(super) zone: String,
    pub(super) subnet_id: String,
    pub(super) image_id: String,
    /// The lower, the sooner; what has none comes last.
    pub(super) priority: f64,
    /// Thousandths of a cent.
    pub(super) price: u32,
    /// Why nothing can be launched here at all.
    pub(super) broken: Option<(&'static str, String)>,
    echo: Value,
}

impl Pool {
    /// `LaunchTemplateAndOverrides` of an answer: the template by id, whatever it was asked for by.
    pub(super) fn answer(&self) -> Value {
        json!({
            "LaunchTemplateSpecification": {
                "LaunchTemplateId": self.template_id,
                "Version": self.template_version.to_string(),
            },
            "Overrides": self.echo,
        })
    }
}

impl Region {
    /// The pools of a request, in its order.
    pub(super) fn pools(
        &self,
        configs: &[Config],
        resolve: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<Pool>, AwsError> {
        let mut pools: Vec<Pool> = Vec::new();
        for config in configs {
            let asked = &config.launch_template_specification;
            let Some(version) = &asked.version else {
                let message = "You must specify a launch template version";
                return Err(AwsError::client("MissingParameter", message));
            };
            let template = self.template(
                asked.launch_template_id.as_deref(),
                asked.launch_template_name.as_deref(),
            )?;
            let number = template.number(version)?;
            let all = if config.overrides.is_empty() {
                vec![Override::default()]
            } else {
                config.overrides.clone()
            };
            for one in all {
                let pool = self.pool(&template.id, number, &one, resolve)?;
                // AWS takes two subnets of a zone for the same pool.
                let twice = |had: &Pool| {
                    had.instance_type == pool.instance_type
                        && had.zone == pool.zone
                        && had.broken.is_none()
                };
                if pool.broken.is_none() && pools.iter().any(twice) {
                    return Err(AwsError::client(
                        "InvalidFleetConfig",
                        "The fleet configuration contains duplicate instance pools.",
                    ));
                }
                pools.push(pool);
            }
        }
        // Quotas of EC2 Fleet: 300 overrides over all launch templates.
        if pools.len() > 300 {
            let message = "The fleet configuration has more than 300 overrides.";
            return Err(AwsError::client("InvalidFleetConfig", message));
        }
        Ok(pools)
    }

    /// The pool of a type in any subnet.
    pub(super) fn pool_of(&self, template_id: &str, instance_type: &str) -> Result<Pool, AwsError> {
        let asked = Override {
            instance_type: Some(instance_type.to_owned()),
            ..Override::default()
        };
        self.pool(template_id, 1, &asked, &|_| None)
    }

    fn pool(
        &self,
        template_id: &str,
        number: u32,
        asked: &Override,
        resolve: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Pool, AwsError> {
        let template = self.template(Some(template_id), None)?.version(number);
        let missing = |what: &str| {
            AwsError::client(
                "InvalidParameterValue",
                format!("no {what}, neither in the launch template nor in the overrides"),
            )
        };
        let instance_type = asked
            .instance_type
            .clone()
            .or(template.instance_type)
            .ok_or_else(|| missing("InstanceType"))?;
        let image = asked
            .image_id
            .clone()
            .or(template.image_id)
            .ok_or_else(|| missing("ImageId"))?;
        let image = image
            .strip_prefix("resolve:ssm:")
            .map_or(Some(image.clone()), resolve);
        let subnet = self.subnets.values().find(|subnet| {
            (asked.subnet_id.is_none() || asked.subnet_id.as_ref() == Some(&subnet.id))
                && asked
                    .availability_zone
                    .as_ref()
                    .is_none_or(|zone| *zone == subnet.zone)
        });
        let image_id = image.unwrap_or_default();
        let known_type = types::find(&instance_type);
        let known_image = self.images.get(&image_id);
        let broken = match (subnet, known_type, known_image) {
            (None, _, _) => Some((
                "InvalidSubnetID.NotFound",
                format!(
                    "The subnet ID '{}' does not exist",
                    asked.subnet_id.clone().unwrap_or_default()
                ),
            )),
            (_, None, _) => Some((
                "InvalidParameterValue",
                format!("Invalid value '{instance_type}' for InstanceType."),
            )),
            (_, _, None) => Some((
                "InvalidAMIID.NotFound",
                format!("The image id '[{image_id}]' does not exist"),
            )),
            (_, Some(it), Some(image)) if it.architecture != image.architecture => Some((
                "InvalidParameterValue",
                format!(
                    "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI.",
                    it.architecture, image.architecture
                ),
            )),
            _ => None,
        };
        let zone = subnet.map(|subnet| subnet.zone.clone()).unwrap_or_default();
        let subnet_id = subnet.map(|subnet| subnet.id.clone());
        let mut echo = Map::new();
        let mut set = |name: &str, value: Value| echo.insert(name.to_owned(), value);
        set("InstanceType", json!(instance_type));
        if let Some(subnet) = subnet_id.as_ref().or(asked.subnet_id.as_ref()) {
            set("SubnetId", json!(subnet));
        }
        if !zone.is_empty() {
            set("AvailabilityZone", json!(zone));
        }
        if let Some(priority) = asked.priority {
            set("Priority", json!(priority));
        }
        if let Some(image) = &asked.image_id {
            set("ImageId", json!(image));
        }
        if let Some(price) = &asked.max_price {
            set("MaxPrice", json!(price));
        }
        Ok(Pool {
            template_id: template_id.to_owned(),
            template_version: number,
            architecture: known_type.map_or("x86_64", |it| it.architecture).to_owned(),
            price: known_type.map_or(0, |it| it.price),
            instance_type,
            zone,
            subnet_id: subnet_id.unwrap_or_default(),
            image_id,
            priority: asked.priority.unwrap_or(f64::MAX),
            broken,
            echo: Value::Object(echo),
        })
    }
}
