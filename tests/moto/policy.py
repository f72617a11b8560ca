"""Decides by IAM policies, resources and conditions included, which moto itself leaves out.

Knows the elements and operators that Muster's policies use, and refuses to guess at others.
"""

import fnmatch
import re


class Unknown(Exception):
    """A policy has something that is not decided here."""


def _listed(value):
    return value if isinstance(value, list) else [value]


def _like(pattern, value):
    # IAM knows no character classes.
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), value) is not None


OPERATORS = {
    "StringEquals": lambda expected, actual: expected == actual,
    "StringLike": _like,
    "ArnLike": _like,
    "Bool": lambda expected, actual: expected.lower() == actual.lower(),
    "NumericLessThanEquals": lambda expected, actual: float(actual) <= float(expected),
}


def condition_holds(condition, context):
    """All operators and keys must hold; of several expected values, one."""
    for operator, keys in condition.items():
        for_all = operator.startswith("ForAllValues:")
        name = operator.removeprefix("ForAllValues:")
        if name not in OPERATORS:
            raise Unknown(f"condition operator {operator}")
        matches = OPERATORS[name]
        for key, expected in keys.items():
            actual = context.get(key)
            # A key that the request lacks fails a condition, but holds for all of no values.
            if actual is None:
                if for_all:
                    continue
                return False
            if isinstance(actual, list) and not for_all:
                raise Unknown(f"{operator} of {key}, which has several values")
            for one in _listed(actual):
                if not any(matches(value, str(one)) for value in _listed(expected)):
                    return False
    return True


def _principal_fits(statement, principal):
    allowed = statement.get("Principal")
    if allowed is None or allowed == "*":
        return True
    kind, name = principal
    return name in _listed(allowed.get(kind, []))


def deciding(documents, action, resource, context, principal=None):
    """The statements that speak of a request: those that allow it and those that deny it, as pairs of
    Sid and the resource pattern that fitted."""
    allow, deny = [], []
    for document in documents:
        for statement in _listed(document["Statement"]):
            known = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
            if statement.keys() - known:
                raise Unknown(f"statement with {sorted(statement.keys() - known)}")
            if not any(_like(one.lower(), action.lower()) for one in _listed(statement["Action"])):
                continue
            if principal is not None and not _principal_fits(statement, principal):
                continue
            # A trust policy has no resources: it belongs to one.
            patterns = _listed(statement.get("Resource", "*"))
            fitting = [pattern for pattern in patterns if _like(pattern, resource)]
            if not fitting or not condition_holds(statement.get("Condition", {}), context):
                continue
            effect = allow if statement["Effect"] == "Allow" else deny
            effect += [(statement.get("Sid", ""), pattern) for pattern in fitting]
    return allow, deny
