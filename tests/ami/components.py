#!/usr/bin/env python3
"""Holds the component documents of EC2 Image Builder to what AWSTOE takes, without AWS.

    components.py TEMPLATE DOCUMENT...    TEMPLATE is the CloudFormation that names the documents; its recipe must
                                          give each of them the parameters that it has

The rules are those of the user guide of EC2 Image Builder: toe-use-documents, toe-action-modules, toe-looping-constructs,
toe-user-defined-variables.
"""

import re
import subprocess
import sys

import jsonschema
import yaml

# Longest document that Image Builder takes.
LONGEST = 16_000

TEXT = {"type": "string", "minLength": 1}
REFERENCE = {"type": "string", "pattern": r"^\{\{.*\}\}$"}
NUMBER = {"anyOf": [{"type": "integer"}, REFERENCE]}


def a_list_of(required, optional=(), flags=()):
    """The input of an action that does the same for each of a list."""
    properties = {name: TEXT for name in (*required, *optional)}
    properties |= {name: {"type": "boolean"} for name in flags}
    item = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "array", "minItems": 1, "items": item}


def one_of(required, optional=None):
    """The input of an action that does one thing."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


WORDS = {"type": "array", "minItems": 1, "items": TEXT}
# The actions for Linux, by what they need. Those for Windows and macOS are unknown on purpose.
ACTIONS = {
    "ExecuteBash": one_of({"commands": WORDS}),
    "ExecuteBinary": one_of({"path": TEXT}, {"arguments": WORDS}),
    "ExecuteDocument": one_of(
        {"document": TEXT},
        {"document-s3-bucket-owner": TEXT, "phases": WORDS, "parameters": {"type": "array"}},
    ),
    "S3Download": a_list_of(["source", "destination"], ["expectedBucketOwner"], ["overwrite"]),
    "S3Upload": a_list_of(["source", "destination"], ["expectedBucketOwner"], ["recurse"]),
    "WebDownload": a_list_of(
        ["source", "destination"], ["checksum", "algorithm"], ["overwrite", "ignoreCertificateErrors"]
    ),
    "AppendFile": a_list_of(["path"], ["content", "encoding"]),
    "CopyFile": a_list_of(["source", "destination"], flags=["overwrite"]),
    "CopyFolder": a_list_of(["source", "destination"], flags=["overwrite"]),
    "CreateFile": a_list_of(["path"], ["content", "encoding", "owner", "group", "permissions"], ["overwrite"]),
    "CreateFolder": a_list_of(["path"], ["owner", "group", "permissions"], ["overwrite"]),
    "CreateSymlink": a_list_of(["path", "target"], flags=["force"]),
    "DeleteFile": a_list_of(["path"]),
    "DeleteFolder": a_list_of(["path"], flags=["force"]),
    "ListFiles": a_list_of(["path"], ["fileNamePattern", "excludeFileNamePattern"], ["recurse"]),
    "MoveFile": a_list_of(["source", "destination"], flags=["overwrite"]),
    "MoveFolder": a_list_of(["source", "destination"], flags=["overwrite"]),
    "ReadFile": a_list_of(["path"], ["encoding"]),
    "SetFileOwner": a_list_of(["path", "owner"], ["group"]),
    "SetFolderOwner": a_list_of(["path", "owner"], ["group"], ["recursive"]),
    "SetFilePermissions": a_list_of(["path", "permissions"]),
    "SetFolderPermissions": a_list_of(["path", "permissions"], flags=["recursive"]),
    "Reboot": one_of({}, {"delaySeconds": NUMBER}),
    "UpdateOS": one_of({}, {"include": WORDS, "exclude": WORDS}),
}

LOOP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{3,128}$"},
        "for": one_of({"start": NUMBER, "end": NUMBER, "updateBy": NUMBER}),
        "forEach": {"anyOf": [WORDS, one_of({"list": TEXT}, {"delimiter": TEXT})]},
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["for"]}, {"required": ["forEach"]}],
}

STEP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{3,128}$"},
        "action": {"enum": sorted(ACTIONS)},
        "timeoutSeconds": NUMBER,
        "onFailure": {"enum": ["Abort", "Continue", "Ignore"]},
        "maxAttempts": {"type": "integer", "minimum": 1},
        "loop": LOOP,
        "inputs": {},
    },
    "required": ["name", "action", "inputs"],
    "additionalProperties": False,
    "allOf": [
        {"if": {"properties": {"action": {"const": action}}}, "then": {"properties": {"inputs": inputs}}}
        for action, inputs in ACTIONS.items()
    ],
}

VARIABLE = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "propertyNames": {"pattern": r"^[A-Za-z0-9_-]{3,128}$"},
}

DOCUMENT = {
    "type": "object",
    "properties": {
        "schemaVersion": {"const": 1.0},
        "name": TEXT,
        "description": TEXT,
        "parameters": {
            "type": "array",
            "items": VARIABLE
            | {
                "additionalProperties": {
                    "type": "object",
                    "properties": {"type": {"const": "string"}, "default": TEXT, "description": TEXT},
                    "required": ["type", "description"],
                    "additionalProperties": False,
                }
            },
        },
        "constants": {
            "type": "array",
            "items": VARIABLE
            | {"additionalProperties": one_of({"type": {"const": "string"}, "value": TEXT})},
        },
        "phases": {
            "type": "array",
            "minItems": 1,
            "items": one_of(
                {"name": {"enum": ["build", "validate", "test"]}, "steps": {"type": "array", "minItems": 1, "items": STEP}}
            ),
        },
    },
    "required": ["schemaVersion", "name", "description", "phases"],
    "additionalProperties": False,
}


class Strict(yaml.SafeLoader):
    """YAML in which no key may come twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


class Template(yaml.SafeLoader):
    """CloudFormation: its short functions are read as what they are given."""


Template.add_multi_constructor(
    "!",
    lambda loader, suffix, node: {
        suffix: loader.construct_scalar(node)
        if isinstance(node, yaml.ScalarNode)
        else loader.construct_sequence(node, deep=True)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_mapping(node, deep=True)
    },
)


def names(variables):
    return [name for variable in variables or [] for name in variable]


def texts(value):
    """All strings in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def problems_of(text):
    """What is wrong with a document, in words."""
    if len(text) > LONGEST:
        yield f"{len(text)} characters, and {LONGEST} are the most"
    try:
        document = yaml.load(text, Strict)
    except yaml.YAMLError as error:
        yield f"not YAML: {error}"
        return
    validator = jsonschema.Draft202012Validator(DOCUMENT)
    found = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    for error in found:
        yield f"{'/'.join(map(str, error.absolute_path)) or 'document'}: {error.message[:200]}"
    if found:
        return
    yield from problems_of_names(document)
    for phase in document["phases"]:
        for step in phase["steps"]:
            yield from problems_of_step(phase["name"], step)


def problems_of_names(document):
    phases = [phase["name"] for phase in document["phases"]]
    if len(set(phases)) < len(phases):
        yield "a phase comes twice"
    if phases != sorted(phases, key=["build", "validate", "test"].index):
        yield "phases run in the order of the document, which is not build, validate, test"
    for phase in document["phases"]:
        steps = [step["name"] for step in phase["steps"]]
        if len(set(steps)) < len(steps):
            yield f"{phase['name']}: a step comes twice"
    known = names(document.get("parameters")) + names(document.get("constants"))
    if len(set(known)) < len(known):
        yield "a parameter or constant comes twice"
    used = set()
    for text in texts(document["phases"]):
        for reference in re.findall(r"\{\{\s*([^}]*?)\s*\}\}", text):
            if re.match(r"^(build|validate|test)\.", reference) or re.match(r"^[A-Za-z0-9_-]+\.(index|value)$", reference):
                continue
            used.add(reference)
            if reference not in known:
                yield f"{{{{ {reference} }}}} is no parameter"
        if text.count("{{") != text.count("}}"):
            yield f"an open reference in {text[:60]!r}"
    for name in known:
        if name not in used:
            yield f"parameter {name} has no use"


def problems_of_step(phase, step):
    where = f"{phase}/{step['name']}"
    # What is not said is two hours, and going on after a failure is nothing that an image survives.
    if "timeoutSeconds" not in step or "onFailure" not in step:
        yield f"{where}: says no timeoutSeconds or no onFailure"
    elif step["onFailure"] != "Abort":
        yield f"{where}: goes on after a failure"
    elif isinstance(step["timeoutSeconds"], int) and not 0 < step["timeoutSeconds"] <= 7200:
        yield f"{where}: timeoutSeconds is not from 1 to 7200"
    if step["action"] == "WebDownload":
        for item in step["inputs"]:
            if "checksum" not in item or item.get("algorithm") != "SHA256":
                yield f"{where}: fetches what it doesn't know by a SHA256"
    if step["action"] == "ExecuteBash":
        for command in step["inputs"]["commands"]:
            yield from problems_of_command(where, command)


def problems_of_command(where, command):
    if "\n" in command.strip() and not command.startswith("set -euo pipefail\n"):
        yield f"{where}: its lines don't begin with set -euo pipefail"
    # Whoever may start a pipeline chooses what parameters are: they are words, not commands.
    for line in command.splitlines():
        bare = re.sub(r"'[^']*'", "", line)
        if "{{" in bare:
            yield f"{where}: a reference outside of single quotes: {line.strip()[:80]}"
    checked = subprocess.run(
        ["shellcheck", "--shell=bash", "--format=gcc", "-"],
        input=re.sub(r"\{\{\s*\w+\s*\}\}", "value", command),
        capture_output=True,
        text=True,
    )
    # The same words on both sides, and single quotes: those are where references stood.
    for line in checked.stdout.splitlines():
        if "SC2050" not in line:
            yield f"{where}: {line}"


def problems_of_recipe(template, documents):
    """Whether each component of the recipe exists and gets what it needs; `documents` are texts by name."""
    resources = yaml.load(template, Template)["Resources"]
    components = {}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::ImageBuilder::Component":
            uri = next(iter(texts(resource["Properties"]["Uri"])))
            components[name] = uri.rpartition("/")[2]
    recipe = next(r for r in resources.values() if r["Type"] == "AWS::ImageBuilder::ImageRecipe")
    used = []
    for component in recipe["Properties"]["Components"]:
        document = components[component["ComponentArn"]["Ref"]]
        used.append(document)
        if document not in documents:
            yield f"the recipe has {document}, which is not there"
            continue
        parameters = yaml.load(documents[document], Strict).get("parameters", [])
        given = [parameter["Name"] for parameter in component.get("Parameters", [])]
        for name in given:
            if name not in names(parameters):
                yield f"the recipe gives {document} the parameter {name}, which it has not"
        for parameter in parameters:
            for name, what in parameter.items():
                if "default" not in what and name not in given:
                    yield f"the recipe doesn't give {document} its parameter {name}"
    for document in documents:
        if document not in used:
            yield f"the recipe doesn't use {document}"
    if used and used[0] != "base.yaml":
        yield "base.yaml is not the first: the others need its scripts"
    if [document for document in used if document not in ("seal.yaml", "test.yaml")] != used[: len(used) - 2]:
        yield "something is built after seal.yaml"


def main(template, *paths):
    documents = {}
    failed = False
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents[path.rpartition("/")[2]] = text = file.read()
        for problem in problems_of(text):
            failed = True
            print(f"{path}: {problem}")
    if not failed:
        with open(template, encoding="utf-8") as file:
            for problem in problems_of_recipe(file.read(), documents):
                failed = True
                print(f"{template}: {problem}")
    if not failed:
        print(f"{len(documents)} component documents are as AWSTOE takes them, and the recipe gives them what they need")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
