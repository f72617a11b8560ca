//! From a call's name to what carries it out.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::AwsError;
use super::shared::{Admitted, State};
use super::{ec2, sqs, ssm, sts};

/// The code of errors about what AWS knows and this fake does not. Each is a violation.
pub(super) const UNSUPPORTED: &str = "UnsupportedByTheFake";

/// Carries out a call, if it may be.
pub(super) fn run(
    state: &mut State,
    call: &Admitted,
    url: &str,
    now: Timestamp,
) -> Result<Value, AwsError> {
    admit(state, call, now)?;
    if call.parameters["DryRun"] == true {
        let message = "Request would have succeeded, but DryRun flag is set.";
        return Err(AwsError::new(412, "DryRunOperation", message));
    }
    match call.action.as_str() {
        "GetCallerIdentity" => Ok(sts::get_caller_identity(call)),
        "AssumeRole" => sts::assume_role(state, call),
        "GetParameter" => ssm::get_parameter(state, call),
        "GetParameters" => ssm::get_parameters(state, call),
        "GetQueueUrl" => sqs::get_queue_url(state, call, url),
        "DeleteMessage" => sqs::delete_message(state, call),
        "DeleteMessageBatch" => sqs::delete_message_batch(state, call),
        "CreateFleet" => ec2::create_fleet(state, call, now),
        "TerminateInstances" => ec2::terminate(state, call, now),
        "DescribeImages" => ec2::describe_images(state, call),
        "DescribeInstances" => ec2::describe_instances(state, call, now),
        "DescribeInstanceTypes" => ec2::describe_instance_types(state, call),
        "DescribeSubnets" => ec2::describe_subnets(state, call),
        "DescribeLaunchTemplates" => ec2::describe_launch_templates(state, call),
        "DescribeLaunchTemplateVersions" => ec2::describe_launch_template_versions(state, call),
        other => Err(unsupported(&format!("the action {other}"))),
    }
}

/// Whether a call is allowed, and its bucket has something left.
pub(super) fn admit(state: &mut State, call: &Admitted, now: Timestamp) -> Result<(), AwsError> {
    let action = &call.action;
    if call.principal.instance && action != "GetCallerIdentity" {
        let code = match call.service.as_str() {
            "ec2" => "UnauthorizedOperation",
            "sts" => "AccessDenied",
            _ => "AccessDeniedException",
        };
        let message = format!("User: {} is not authorized", call.principal.arn);
        return Err(AwsError::new(403, code, message));
    }
    let narrowed = ["Filters", "MaxResults"]
        .iter()
        .any(|name| call.parameters.get(name).is_some());
    let bucket = if action.starts_with("Describe") && !narrowed {
        format!("{action} unfiltered")
    } else {
        action.clone()
    };
    let enforced = state.options.enforce_limits;
    let (place, service) = (&call.place, &call.service);
    if !state.buckets.take(place, service, &bucket, now) && enforced {
        return Err(AwsError::throttled(service));
    }
    Ok(())
}

/// AWS knows this, the fake does not.
pub(super) fn unsupported(what: &str) -> AwsError {
    AwsError::new(501, UNSUPPORTED, format!("the fake does not know {what}"))
}

/// A tag of a request. EC2 takes one without a value; the model of STS asks for it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Tag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

/// The parameters as what the fake understands of them.
pub(super) fn typed<T: DeserializeOwned>(call: &Admitted) -> Result<T, AwsError> {
    serde_json::from_value(call.parameters.clone()).map_err(|error| unsupported(&error.to_string()))
}
