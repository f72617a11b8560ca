"""Cuts AWS's models of its services down to the calls that Muster makes.

Usage: python3 slim-aws.py <botocore wheel> <output file>

The output is one JSON object, service -> {version, protocol, target, namespace, operations, shapes}:
  operations  name -> {input, output}: names of shapes, or null; resultWrapper where there is one
  shapes      only what the operations refer to, without documentation
"""

import gzip
import json
import os
import sys
import zipfile

WANTED = {
    "ec2/2016-11-15": [
        "CreateFleet",
        "DescribeImages",
        "DescribeInstances",
        "DescribeInstanceTypes",
        "DescribeLaunchTemplates",
        "DescribeLaunchTemplateVersions",
        "DescribeSubnets",
        "TerminateInstances",
    ],
    "sqs/2012-11-05": ["DeleteMessage", "DeleteMessageBatch", "GetQueueUrl", "ReceiveMessage"],
    "ssm/2014-11-06": ["GetParameter", "GetParameters"],
    "sts/2011-06-15": ["AssumeRole", "GetCallerIdentity"],
}
# Lists of hundreds of words that grow each month; the fake has a table of its own.
OPEN_ENUMS = {"InstanceType"}
DROPPED = {"documentation", "documentationUrl", "deprecated", "deprecatedMessage", "deprecatedSince"}


def plain(node):
    if isinstance(node, dict):
        return {name: plain(value) for name, value in node.items() if name not in DROPPED}
    return node


def shape(name, described):
    # A member may well be called "documentation": only the keywords around members are dropped.
    out = {key: value for key, value in plain({**described, "members": {}}).items() if key != "members"}
    if "members" in described:
        out["members"] = {key: plain(value) for key, value in described["members"].items()}
    if name in OPEN_ENUMS:
        out.pop("enum", None)
    # Ranges of code points that no engine for regular expressions reads as they are meant.
    if "\\u" in out.get("pattern", ""):
        del out["pattern"]
    return out


def refers_to(described):
    members = list(described.get("members", {}).values())
    members += [described[part] for part in ("member", "key", "value") if part in described]
    return [member["shape"] for member in members]


def cut(model, wanted):
    about = model["metadata"]
    operations, shapes, pending = {}, {}, []
    for name in wanted:
        operation = model["operations"][name]
        input, output = operation.get("input", {}), operation.get("output", {})
        operations[name] = {
            "input": input.get("shape"),
            "output": output.get("shape"),
            "resultWrapper": output.get("resultWrapper"),
        }
        pending += [part["shape"] for part in (input, output) if part]
    while pending:
        name = pending.pop()
        if name not in shapes:
            shapes[name] = shape(name, model["shapes"][name])
            pending += refers_to(shapes[name])
    return {
        "version": about["apiVersion"],
        "protocol": about["protocol"],
        "target": about.get("targetPrefix"),
        "namespace": about.get("xmlNamespace"),
        "operations": operations,
        "shapes": shapes,
    }


def main():
    wheel, target = sys.argv[1:]
    slim = {}
    with zipfile.ZipFile(wheel) as archive:
        for path, wanted in WANTED.items():
            packed = archive.read(f"botocore/data/{path}/service-2.json.gz")
            slim[path.split("/")[0]] = cut(json.loads(gzip.decompress(packed)), wanted)
    # Written beside and renamed: a test that starts meanwhile reads the old file or the new one.
    with open(f"{target}.new", "w", encoding="utf-8") as file:
        json.dump(slim, file, separators=(",", ":"))
    os.rename(f"{target}.new", target)


main()
