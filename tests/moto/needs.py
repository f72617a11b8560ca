"""What IAM is asked for a call: actions, resources and condition keys.

Follows https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html and, for
what an instant fleet needs beside ec2:CreateFleet,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html.
"""

import json

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition


class Call:
    """A request as moto has parsed it."""

    def __init__(self, account, region, service, action, params):
        self.account, self.region, self.partition = account, region, get_partition(region)
        self.service, self.action, self.params = service, action, params
        self.context = {"aws:RequestedRegion": region}

    def arn(self, kind, name="*"):
        # Images and snapshots belong to no account in ARNs.
        account = "" if kind in ("image", "snapshot") else self.account
        return f"arn:{self.partition}:ec2:{self.region}:{account}:{kind}/{name}"

    def need(self, action, resource, **more):
        context = self.context | {"ec2:Region": self.region} | more.pop("keys", {})
        return action, resource, context


def _request_tags(tags):
    keys = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return keys | ({"aws:TagKeys": sorted(tags)} if tags else {})


def _tags_by_kind(specifications):
    return {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one.get("Tags", one.get("Tag", []))}
        for one in specifications or []
    }


def _resource_tags(call, name):
    tags = ec2_backends[call.account][call.region].describe_tags(filters={"resource-id": [name]})
    return {f"aws:ResourceTag/{tag['key']}": tag["value"] for tag in tags}


def _of_template(call, wanted):
    """A launch template that a request names, and what the version of it says."""
    backend = ec2_backends[call.account][call.region]
    if "LaunchTemplateId" in wanted:
        template = backend.get_launch_template(wanted["LaunchTemplateId"])
    else:
        template = backend.get_launch_template_by_name(wanted["LaunchTemplateName"])
    version = {"$Default": template.default_version_number, "$Latest": template.latest_version_number}
    number = wanted.get("Version", "$Default")
    return template.id, template.get_version(version.get(number, number)).data


def _launches(call, data, overrides, tags, spot, template=None):
    """What ec2:RunInstances of one offering needs. `data` is what the template says."""
    run = "ec2:RunInstances"
    spec = {**data, **overrides}

    def source(parameter=None):
        """Whether a template is used, and whether the resource of a parameter is the template's own. What no
        parameter names, such as the network interface in a subnet of the request, counts as not the template's."""
        if template is None:
            return {}
        own = parameter in data and parameter not in overrides
        return {
            "ec2:LaunchTemplate": call.arn("launch-template", template),
            "ec2:IsLaunchTemplateResource": "true" if own else "false",
        }

    metadata = spec.get("MetadataOptions") or {}
    keys = source() | {"ec2:InstanceMarketType": "spot" if spot else "on-demand"}
    if "HttpTokens" in metadata:
        keys["ec2:MetadataHttpTokens"] = metadata["HttpTokens"]
    if "HttpPutResponseHopLimit" in metadata:
        keys["ec2:MetadataHttpPutResponseHopLimit"] = metadata["HttpPutResponseHopLimit"]
    yield call.need(run, call.arn("instance"), keys=keys | _request_tags(tags.get("instance", {})))
    yield call.need(run, call.arn("volume"), keys=source() | _request_tags(tags.get("volume", {})))
    for kind in ("network-interface", "snapshot"):
        yield call.need(run, call.arn(kind), keys=source())
    if spot:
        # The one resource of an instance that has no key for the template.
        yield call.need(run, call.arn("spot-instances-request"))
    yield call.need(run, call.arn("image", spec.get("ImageId", "*")), keys=source("ImageId"))
    yield call.need(run, call.arn("subnet", spec.get("SubnetId", "*")), keys=source("SubnetId"))
    for group in spec.get("SecurityGroupIds") or ["*"]:
        yield call.need(run, call.arn("security-group", group), keys=source("SecurityGroupIds"))
    if template is not None:
        yield call.need(run, call.arn("launch-template", template), keys=_resource_tags(call, template))
    profile = spec.get("IamInstanceProfile")
    if profile:
        name = profile.get("Name") or profile["Arn"].rsplit("/", 1)[1]
        role = iam_backends[call.account][call.partition].get_instance_profile(name).roles[0]
        yield call.need("iam:PassRole", role.arn, keys={"iam:PassedToService": "ec2.amazonaws.com"})


def _tagging(call, tags, action):
    for kind, those in tags.items():
        keys = _request_tags(those) | {"ec2:CreateAction": "CreateFleet" if kind == "fleet" else action}
        yield call.need("ec2:CreateTags", call.arn(kind), keys=keys)


def _create_fleet(call):
    params, fleet = call.params, "ec2:CreateFleet"
    tags = _tags_by_kind(params.get("TagSpecifications"))
    for kind in ("fleet", "instance", "volume"):
        yield call.need(fleet, call.arn(kind), keys=_request_tags(tags.get(kind, {})))
    spot = params["TargetCapacitySpecification"].get("DefaultTargetCapacityType") == "spot"
    for config in params["LaunchTemplateConfigs"]:
        template, data = _of_template(call, config["LaunchTemplateSpecification"])
        keys = _resource_tags(call, template)
        yield call.need(fleet, call.arn("launch-template", template), keys=keys)
        # AWS's reference has no such resources of CreateFleet; the policies of Karpenter and of ECS's managed instances do.
        for kind in ("network-interface", "snapshot", *(["spot-instances-request"] if spot else [])):
            yield call.need(fleet, call.arn(kind))
        for group in data.get("SecurityGroupIds") or ["*"]:
            yield call.need(fleet, call.arn("security-group", group))
        for override in config.get("Overrides") or [{}]:
            spec = {**data, **override}
            yield call.need(fleet, call.arn("image", spec["ImageId"]))
            yield call.need(fleet, call.arn("subnet", spec["SubnetId"]))
            yield from _launches(call, data, override, tags, spot, template)
    yield from _tagging(call, tags, "RunInstances")


def _run_instances(call):
    tags = _tags_by_kind(call.params.get("TagSpecifications"))
    spot = (call.params.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
    template, data = None, {}
    if call.params.get("LaunchTemplate"):
        template, data = _of_template(call, call.params["LaunchTemplate"])
    yield from _launches(call, data, call.params, tags, spot, template)
    yield from _tagging(call, tags, "RunInstances")


def _terminate_instances(call):
    known = {
        one.id for one in ec2_backends[call.account][call.region].all_instances()
    }
    for name in call.params["InstanceIds"]:
        # EC2 says that it knows no such instance before it asks whether it may be ended.
        if name in known:
            keys = _resource_tags(call, name)
            yield call.need("ec2:TerminateInstances", call.arn("instance", name), keys=keys)


def _get_parameters(call):
    for name in call.params["Names"]:
        resource = f"arn:{call.partition}:ssm:{call.region}:{call.account}:parameter/{name.lstrip('/')}"
        yield f"ssm:{call.action}", resource, dict(call.context)


def _assume_role(call):
    params = call.params
    tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []}
    keys = call.context | _request_tags(tags)
    first = keys | ({"sts:ExternalId": params["ExternalId"]} if params.get("ExternalId") else {})
    yield "sts:AssumeRole", params["RoleArn"], first
    if tags:
        yield "sts:TagSession", params["RoleArn"], keys


# Which action allows a call, where that has another name than the call.
NAMED_OTHERWISE = {"sqs:DeleteMessageBatch": "sqs:DeleteMessage"}

SPECIAL = {
    "ec2:CreateFleet": _create_fleet,
    "ec2:RunInstances": _run_instances,
    "ec2:TerminateInstances": _terminate_instances,
    "ssm:GetParameters": _get_parameters,
    "sts:AssumeRole": _assume_role,
}


def needs(call, resource):
    """Everything that must be allowed for a call. `resource` is what moto knows of it."""
    name = f"{call.service}:{call.action}"
    if name in SPECIAL:
        yield from SPECIAL[name](call)
    else:
        yield NAMED_OTHERWISE.get(name, name), resource, dict(call.context)


def documents(account, partition, principal):
    """The policies of a role or user, and who it is in trust policies."""
    iam = iam_backends[account][partition]
    kind, name = principal
    if kind == "role":
        inline = [iam.get_role_policy(name, one)[1] for one in iam.list_role_policies(name)]
        attached, _ = iam.list_attached_role_policies(name)
        who = iam.get_role(name).arn
    else:
        inline = [
            iam.get_user_policy(name, one)["policy_document"] for one in iam.list_user_policies(name)
        ]
        attached, _ = iam.list_attached_user_policies(name)
        who = iam.get_user(name).arn
    texts = inline + [one.document for one in attached]
    return [json.loads(text) for text in texts], who
