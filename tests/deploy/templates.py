"""The templates as data: YAML with CloudFormation's short forms in their long form."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "coordinator/deploy/cloudformation"


class Loader(yaml.SafeLoader):
    """Knows !Ref, !Sub and their like; refuses what CloudFormation refuses."""

    def compose_node(self, parent, index):
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"{self.peek_event().start_mark}: CloudFormation knows no aliases")
        return super().compose_node(parent, index)


def _short(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _short)
# Dates are texts: the version of a template is one.
Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))


def load(path):
    return yaml.load(path.read_text(), Loader)


def all_of(folder=FOLDER):
    """Each template by its name."""
    return {path.name: load(path) for path in sorted(folder.glob("*.yaml"))}


def kinds():
    """All types of resources."""
    return {one["Type"] for template in all_of().values() for one in template["Resources"].values()}


def walk(value, path=()):
    """All parts of a value, each with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, one in value.items():
            yield from walk(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from walk(one, (*path, index))
