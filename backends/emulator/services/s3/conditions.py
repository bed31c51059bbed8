"""What a request makes its answer depend on: If-* headers and ranges (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backends.sagemaker.readings import ServiceError
from backends.stores.buckets import Check, StoredObject

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


def check_read(found: StoredObject, members: Mapping[str, Any], *, prefix: str = "") -> None:
    """Whether *found* is wanted under the If-* members that begin with *prefix*.

    Raises:
        ServiceError: 412; or 304 with the headers that go with it, where the object is read itself and not copied.
    """
    modified = found.modified.replace(microsecond=0)
    match, none_match = members.get(f"{prefix}IfMatch"), members.get(f"{prefix}IfNoneMatch")
    since, unmodified = members.get(f"{prefix}IfModifiedSince"), members.get(f"{prefix}IfUnmodifiedSince")
    if match is not None:
        if not _names(match, found.etag):
            raise _failed("If-Match")
    elif unmodified is not None and modified > _utc(unmodified, modified):
        raise _failed("If-Unmodified-Since")
    if none_match is not None:
        unwanted = _names(none_match, found.etag)
    else:
        unwanted = since is not None and modified <= _utc(since, modified)
    if unwanted and prefix:
        raise _failed("If-None-Match" if none_match is not None else "If-Modified-Since")
    if unwanted:
        headers = {"ETag": quoted(found.etag), "Last-Modified": modified.strftime("%a, %d %b %Y %H:%M:%S GMT")}
        raise ServiceError("NotModified", "", status=304, **headers)


def write_check(members: Mapping[str, Any]) -> Check | None:
    """The check that a write or delete under IfMatch and IfNoneMatch asks for."""
    match, none_match = members.get("IfMatch"), members.get("IfNoneMatch")
    if match is None and none_match is None:
        return None

    def check(found: StoredObject | None) -> None:
        if match is not None:
            if found is None:
                raise ServiceError("NoSuchKey", "The specified key does not exist.", status=404, Key=members["Key"])
            if not _names(match, found.etag):
                raise _failed("If-Match")
        if none_match is not None and found is not None and _names(none_match, found.etag):
            raise _failed("If-None-Match")

    return check


def wanted_range(text: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None: all of it, also where *text* cannot be read or names several.

    Raises:
        ServiceError: 416.
    """
    found = _RANGE.fullmatch(text) if text else None
    if not found or not any(found.groups()):
        return None
    first, last = found.groups()
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(0, size_bytes - int(last))
    end = min(int(last) + 1, size_bytes) if first and last else size_bytes
    if start >= end:
        text = "The requested range is not satisfiable"
        raise ServiceError("InvalidRange", text, status=416, RangeRequested=found[0], ActualObjectSize=size_bytes)
    return start, end


def quoted(etag: str) -> str:
    """As ETags stand in headers and documents."""
    return f'"{etag}"'


def _names(condition: str, etag: str) -> bool:
    named = [part.strip().removeprefix("W/").strip('"') for part in condition.split(",")]
    return "*" in named or etag in named


def _utc(time: datetime, like: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=like.tzinfo)


def _failed(condition: str) -> ServiceError:
    text = "At least one of the pre-conditions you specified did not hold"
    return ServiceError("PreconditionFailed", text, status=412, Condition=condition)
