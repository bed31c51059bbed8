"""What the engine's request handlers share: refusals in SageMaker's words, ARNs, times, summaries of lists."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from backends.engine.settings import ACCOUNT
from backends.engine.state import Document, Resource
from backends.naming import arn
from backends.sagemaker.readings import ServiceError

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NAME_PATTERN = "^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
PAGE_SIZE = 10


def refuse(message: str) -> ServiceError:
    """The error for a request that SageMaker would turn down."""
    return ServiceError("ValidationException", message)


def violation(value: object, member: str, constraint: str) -> ServiceError:
    """A schema violation in AWS's grammar (contract 0.3)."""
    return refuse(
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    )


def required_name(request: Document, member: str) -> str:
    """The name in *member* of *request*, checked against SageMaker's pattern."""
    name = request.get(member)
    path = member[0].lower() + member[1:]
    if name is None:
        raise refuse(
            f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise violation(name, path, f"Member must satisfy regular expression pattern: {_NAME_PATTERN}")
    return name


class Arns:
    """ARNs of one region."""

    def __init__(self, region: str) -> None:
        self.region = region

    def of(self, kind: str, name: str) -> str:
        """The ARN of the *kind* of resource (``training-job`` …) called *name*."""
        return arn(self.region, ACCOUNT, kind, name)


def page(
    resources: Iterable[Resource],
    request: Document,
    *,
    status: Callable[[Resource], str] | None,
    summary: Callable[[Resource], Document],
    result: str,
) -> Document:
    """One page of a List operation: filtered, sorted newest first unless asked otherwise (contract 0.5)."""
    wanted = [resource for resource in resources if _matches(resource, request, status)]
    keys: dict[str, Callable[[Resource], Any]] = {
        "CreationTime": lambda resource: (resource.created, resource.name),
        "Name": lambda resource: resource.name,
        "Status": lambda resource: (status(resource) if status else "", resource.name),
    }
    order = request.get("SortBy", "CreationTime")
    if order not in keys:
        raise violation(order, "sortBy", f"Member must satisfy enum value set: [{', '.join(keys)}]")
    wanted.sort(key=keys[order], reverse=request.get("SortOrder", "Descending") == "Descending")
    start = _offset(request.get("NextToken"))
    size = request.get("MaxResults", PAGE_SIZE)
    document: Document = {result: [summary(resource) for resource in wanted[start : start + size]]}
    if start + size < len(wanted):
        document["NextToken"] = str(start + size)
    return document


def _matches(resource: Resource, request: Document, status: Callable[[Resource], str] | None) -> bool:
    if request.get("NameContains", "").lower() not in resource.name.lower():
        return False
    wanted = request.get("StatusEquals")
    return wanted is None or status is None or status(resource) == wanted


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    if not token.isdecimal():
        raise refuse("Invalid pagination token.")
    return int(token)
