"""What the engine's request handlers share: refusals in SageMaker's words, required members, pages of lists."""

import base64
import json
import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from itertools import islice
from typing import Any

from backends.engine.state import Document, Resource
from backends.naming import LONGEST_NAME_CHARS
from backends.sagemaker.readings import ServiceError

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NAME_PATTERN = "^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
_PAGE_SIZE = 10
_LARGEST_PAGE = 100


def refuse(message: str) -> ServiceError:
    """The error for a request that SageMaker would turn down."""
    return ServiceError("ValidationException", message)


def violation(value: object, member: str, constraint: str) -> ServiceError:
    """A schema violation in AWS's grammar (contract 0.3); *member* is the dotted path, spelled as in the API."""
    path = ".".join(part[:1].lower() + part[1:] for part in member.split("."))
    shown = "null" if value is None else f"'{value}'"
    return refuse(f"1 validation error detected: Value {shown} at '{path}' failed to satisfy constraint: {constraint}")


def required(request: Document, member: str) -> Any:
    """What *request* holds at the dotted path *member*."""
    value: Any = request
    for part in member.split("."):
        value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            raise violation(None, member, "Member must not be null")
    return value


def required_name(request: Document, member: str) -> str:
    """The name in *member* of *request*, checked against SageMaker's pattern."""
    name = required(request, member)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise violation(name, member, f"Member must satisfy regular expression pattern: {_NAME_PATTERN}")
    if len(name) > LONGEST_NAME_CHARS:
        raise violation(name, member, f"Member must have length less than or equal to {LONGEST_NAME_CHARS}")
    return name


def check_choice(value: object, member: str, choices: Collection[str]) -> None:
    """Refuse a *value* (None: not given) that is none of *choices*."""
    if value is not None and value not in choices:
        raise violation(value, member, f"Member must satisfy enum value set: [{', '.join(choices)}]")


def check_range(value: float | None, member: str, lowest: float, highest: float | None = None) -> None:
    """Refuse a *value* (None: not given) outside its range."""
    if value is not None and value < lowest:
        raise violation(value, member, f"Member must have value greater than or equal to {lowest}")
    if value is not None and highest is not None and value > highest:
        raise violation(value, member, f"Member must have value less than or equal to {highest}")


def check_absent(request: Document, what: str, members: Iterable[str]) -> None:
    """Refuse a request with one of *members*, which this engine would have to ignore."""
    for member in members:
        if request.get(member):
            raise refuse(f"{what}: this engine does not carry out {member} for now; leave it out.")


def page(
    resources: Iterable[Resource],
    request: Document,
    *,
    result: str,
    summary: Callable[[Resource], Document],
    modified: Callable[[Resource], float] | None = None,
) -> Document:
    """One page of a List operation: filtered, sorted newest first unless asked otherwise (contract 0.5).

    *resources* come newest first, of those of one moment the last name first.
    *modified* is given for what has a status. The token names the last item shown, so a walk shows every item once
    even if others come or go meanwhile.
    """
    sort_key = _sort_key(request, has_status=modified is not None)
    newest_first = request.get("SortOrder", "Descending") == "Descending"
    check_choice(request.get("SortOrder"), "SortOrder", ("Ascending", "Descending"))
    check_range(request.get("MaxResults"), "MaxResults", 1, _LARGEST_PAGE)
    wanted: Iterable[Resource] = (resource for resource in resources if _matches(resource, request, modified))
    if not (newest_first and request.get("SortBy", "CreationTime") == "CreationTime"):  # as they come
        wanted = sorted(wanted, key=sort_key, reverse=newest_first)
    if token := request.get("NextToken"):
        last = _read_token(token, request)
        wanted = (item for item in wanted if (sort_key(item) < last if newest_first else sort_key(item) > last))
    size = request.get("MaxResults", _PAGE_SIZE)
    shown = list(islice(wanted, size + 1))
    document: Document = {result: [summary(resource) for resource in shown[:size]]}
    if len(shown) > size:
        document["NextToken"] = _token(sort_key(shown[size - 1]), request)
    return document


def _sort_key(request: Document, *, has_status: bool) -> Callable[[Resource], tuple[Any, str]]:
    keys: dict[str, Callable[[Resource], tuple[Any, str]]] = {
        "Name": lambda resource: ("", resource.name),
        "CreationTime": lambda resource: (resource.created, resource.name),
    }
    if has_status:
        keys["Status"] = lambda resource: (resource.facts["status"], resource.name)
    order = request.get("SortBy", "CreationTime")
    check_choice(order, "SortBy", keys)
    return keys[order]


def _matches(resource: Resource, request: Document, modified: Callable[[Resource], float] | None) -> bool:
    if request.get("NameContains", "").lower() not in resource.name.lower():
        return False
    if not _within(resource.created, request, "CreationTime"):
        return False
    if modified is None:
        return True
    asks_when = not {"LastModifiedTimeAfter", "LastModifiedTimeBefore"}.isdisjoint(request)
    if asks_when and not _within(modified(resource), request, "LastModifiedTime"):
        return False
    return "StatusEquals" not in request or request["StatusEquals"] == resource.facts["status"]


def _within(moment: float, request: Document, member: str) -> bool:
    after, before = request.get(f"{member}After"), request.get(f"{member}Before")
    return (after is None or moment > _seconds(after)) and (before is None or moment < _seconds(before))


def _seconds(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else moment


def _token(last: tuple[Any, str], request: Document) -> str:
    return base64.urlsafe_b64encode(json.dumps([_question(request), *last]).encode()).decode()


def _read_token(token: str, request: Document) -> tuple[Any, str]:
    try:
        question, key, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        question, key, name = None, None, ""
    if question != _question(request):
        raise refuse("The NextToken is not valid for this request; start again without one.")
    return key, name


def _question(request: Document) -> list[str]:
    """What must stay the same from page to page."""
    return [f"{key}={value}" for key, value in sorted(request.items()) if key not in {"NextToken", "MaxResults"}]
