"""IAM's reading of a policy as far as ours go: statements that allow, on ARNs, under conditions on strings.

Source: IAM user guide, "IAM JSON policy elements": Action, Resource, Condition, Condition operators. What is not known
here raises, so that no statement is taken for less than it says.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class Call:
    """One action on one resource, an ARN or ``*`` where the action takes none; *context* is IAM's, by its keys."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False)


def allows(policy: Mapping[str, Any], call: Call) -> bool:
    """Whether a caller with *policy* and nothing else may do it."""
    return any(
        all(
            _holds(operator, call.context, key, values)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
        for statement in speaking_of(policy, call)
    )


def speaking_of(policy: Mapping[str, Any], call: Call) -> Iterator[dict[str, Any]]:
    """The statements of *policy* on this action and resource, whatever their conditions."""
    for statement in policy["Statement"]:
        assert statement.keys() <= _KNOWN, statement
        assert statement["Effect"] == "Allow", statement
        if call.action.lower() in {action.lower() for action in _listed(statement["Action"])} and any(
            covers(pattern, call.resource) for pattern in _listed(statement["Resource"])
        ):
            yield statement


def covers(pattern: str, arn: str) -> bool:
    """Whether *pattern* stands for *arn*: its wildcards end at a colon, but in the last of an ARN's six parts."""
    if pattern == "*":
        return True
    parts, wanted = arn.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(wanted) and all(map(_like, wanted, parts))


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


def _holds(operator: str, context: Mapping[str, str], key: str, values: str | list[str]) -> bool:
    compare = {"StringEquals": str.__eq__, "StringLike": _like, "Bool": str.__eq__}[operator]
    return key in context and any(compare(value, context[key]) for value in _listed(values))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def elsewhere(call: Call) -> Iterator[Call]:
    """The same on what is not the application's: another name, bucket, account or, for a change, region."""
    parts = call.resource.split(":", 5)
    twins = [call.resource.replace("sentiment", "somebodys"), re.sub(r"greenroom-\d{12}", "somebodys", call.resource)]
    if call.resource != "*" and parts[4]:
        twins.append(":".join([*parts[:4], "999999999999", parts[5]]))
    if call.resource != "*" and parts[3] and not reads(call.action):
        twins.append(":".join([*parts[:3], "ap-south-1", *parts[4:]]))
    yield from (replace(call, resource=twin) for twin in twins if twin != call.resource)


def reads(action: str) -> bool:
    """Whether *action* changes nothing."""
    return re.match(r"\w[\w-]*:(BatchCheck|Describe|Get|List)", action) is not None
