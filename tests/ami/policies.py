#!/usr/bin/env python3
"""Holds the policies in templates to what they may allow at most: no action by a pattern, nothing by what it is not, nobody by "*",
and of AWS's own policies those that Image Builder needs.

    policies.py TEMPLATE...
"""

import sys

import yaml

from components import Template, texts

# By the end of their names: arn:PARTITION:iam::aws:policy/...
MANAGED = {
    "AmazonSSMManagedInstanceCore",
    "EC2InstanceProfileForImageBuilder",
    "EC2ImageBuilderExecutionPolicy",
    "Ec2ImageBuilderCrossAccountDistributionAccess",
    "service-role/EC2ImageBuilderLifecycleExecutionPolicy",
}


def walk(value, path=()):
    """All mappings in a value, each with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, one in value.items():
            yield from walk(one, (*path, str(key)))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from walk(one, (*path, str(index)))


def statements(template):
    return [(path, one) for path, one in walk(template["Resources"]) if "Effect" in one]


def problems_of_statement(statement):
    if statement["Effect"] == "Deny":
        return
    for action in texts(statement.get("Action", [])):
        if "*" in action:
            yield f"allows the action {action}"
    for key in ("NotAction", "NotResource", "NotPrincipal"):
        if key in statement:
            yield f"allows by {key}"
    if "*" in texts(statement.get("Principal", [])):
        yield "allows it to everybody"


def problems_of(template):
    for path, statement in statements(template):
        for problem in problems_of_statement(statement):
            yield f"{'.'.join(path)}: {problem}"
    for path, one in walk(template["Resources"]):
        for policy in texts(one.get("ManagedPolicyArns", [])):
            if policy.partition(":policy/")[2] not in MANAGED:
                yield f"{'.'.join(path)}: {policy} is not known to be needed"


def main(*paths):
    failed = False
    seen = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            template = yaml.load(file, Template)
        found = len(statements(template))
        seen += found
        if not found:
            failed = True
            print(f"{path}: has no policy")
        for problem in problems_of(template):
            failed = True
            print(f"{path}: {problem}")
    if not failed:
        print(f"{seen} statements allow what they name")
    return int(failed or not paths)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
