"""Single values written as text: in headers, query parameters, XML and forms."""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from botocore.model import Shape
from botocore.utils import parse_timestamp

from backends.sagemaker.readings import ServiceError

_BOOLEANS = {"true": True, "false": False}
_READERS: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": lambda text: _BOOLEANS[text.lower()],
    "timestamp": parse_timestamp,
    "blob": lambda text: base64.b64decode(text, validate=True),
    "list": lambda text: [part.strip() for part in text.split(",")],
}


def read(shape: Shape, text: str) -> Any:
    """The value of *shape* that *text* stands for. Raises ServiceError: SerializationException."""
    try:
        return _READERS.get(shape.type_name, str)(text)
    except (ValueError, KeyError, TypeError, OverflowError, binascii.Error) as exc:
        raise unfit(shape, text) from exc


def write(shape: Shape, value: Any, *, time_format: str) -> str:
    """*value* as text; *time_format* (``iso8601``, ``rfc822``) is used unless the model names another."""
    if shape.type_name == "timestamp":
        return _time(moment(value), shape.serialization.get("timestampFormat", time_format))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def moment(value: datetime | float) -> datetime:
    """A time, given as such or in seconds since the epoch."""
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


def unfit(shape: Shape, value: object) -> ServiceError:
    """The error for a value of another type than the model's."""
    return malformed(f"{type(value).__name__} value can not be converted to {shape.name} ({shape.type_name})")


def malformed(text: str) -> ServiceError:
    """The error for a body that cannot be read."""
    return ServiceError("SerializationException", text)


def _time(when: datetime, time_format: str) -> str:
    if time_format == "rfc822":
        return format_datetime(when.replace(microsecond=0), usegmt=True)
    if time_format == "unixTimestamp":
        return f"{when.timestamp():.3f}"
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
