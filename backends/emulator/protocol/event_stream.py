"""Events → the messages of ``application/vnd.amazon.eventstream``.

    total bytes │ bytes of headers │ CRC32 of these ║ headers ║ payload ║ CRC32 of all before

Source: AWS's Smithy specification, "Amazon Event Stream Specification"; the traits of the members are botocore's.
"""

import logging
import struct
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, cast
from zlib import crc32

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from botocore.model import Shape, StructureShape

from backends.emulator.protocol import scalars
from backends.emulator.protocol.models import Members
from backends.sagemaker.readings import ServiceError

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_FRAME_BYTES = 16
_NUMBERS = {"byte": (2, ">b"), "short": (3, ">h"), "integer": (4, ">i"), "long": (5, ">q")}
_BLOB, _STRING, _TIMESTAMP = 6, 7, 8
_log = logging.getLogger("greenroom.emulator")

Write = Callable[[str, Shape, Any], tuple[bytes, str]]
"""A member's name, its shape and value → a document in the service's protocol, and its content type."""


async def messages(shape: StructureShape, events: Iterator[Members], write: Write) -> AsyncGenerator[bytes]:
    """One message for each of *events*, as soon as it is there; each names one member of the stream's *shape*.

    *events* are asked for in a thread, and closed if they can be. A ServiceError from them is the stream's last
    message, an exception; anything else that they raise is the stream's own internal failure.
    """
    own_thread = CapacityLimiter(1)  # A stream may pause for long: it must not take the place of other requests.
    try:
        while (event := await run_sync(next, events, None, limiter=own_thread)) is not None:
            ((name, members),) = event.items()
            yield _event(name, _member(shape, name), members, write)
    except ServiceError as error:
        yield _exception(shape, error, write)
    except Exception:  # noqa: BLE001  the client gets AWS's event, the log the rest
        _log.exception("an event stream failed")
        name = next((name for name in shape.members if name.lower().startswith("internal")), "InternalFailure")
        yield _exception(shape, ServiceError(name, "Greenroom failed; its log says why."), write)
    finally:
        close = getattr(events, "close", None)
        if close:
            close()


def _message(headers: Mapping[str, bytes], payload: bytes) -> bytes:
    """One message; the *headers* are names → types and values, encoded."""
    head = b"".join(struct.pack(">B", len(name)) + name.encode() + value for name, value in headers.items())
    prelude = struct.pack(">II", _FRAME_BYTES + len(head) + len(payload), len(head))
    checked = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return checked + struct.pack(">I", crc32(checked))


def _event(name: str, shape: StructureShape, members: Members, write: Write) -> bytes:
    headers = {":message-type": _text("event"), ":event-type": _text(name)}
    traits = {member: inner.serialization for member, inner in shape.members.items()}
    in_header = [member for member in members if traits[member].get("eventheader")]
    headers |= {member: _header(shape.members[member], members[member]) for member in in_header}
    whole = next((member for member in members if traits[member].get("eventpayload")), None)
    if whole is not None:
        payload, kind = _payload(whole, shape.members[whole], members[whole], write)
    else:
        rest = {member: value for member, value in members.items() if member not in in_header}
        payload, kind = write(name, shape, rest) if rest else (b"", "")
    if kind:
        headers[":content-type"] = _text(kind)
    return _message(headers, payload)


def _member(shape: StructureShape, name: str) -> StructureShape:
    """One kind of event: always a structure."""
    return cast("StructureShape", shape.members[name])


def _payload(name: str, shape: Shape, value: Any, write: Write) -> tuple[bytes, str]:
    if shape.type_name == "blob":
        return value, "application/octet-stream"
    if shape.type_name == "string":
        return value.encode(), "text/plain"
    return write(name, shape, value)


def _exception(shape: StructureShape, error: ServiceError, write: Write) -> bytes:
    """*error* as the exception of that name in the stream, or as an error that the model does not know."""
    if error.code not in shape.members:
        known = {":message-type": "error", ":error-code": error.code, ":error-message": error.message}
        return _message({name: _text(value) for name, value in known.items()}, b"")
    inner = _member(shape, error.code)
    facts = {**error.members, **{name: error.message for name in inner.members if name.lower() == "message"}}
    payload, kind = write(error.code, inner, facts)
    headers = {":message-type": "exception", ":exception-type": error.code, ":content-type": kind}
    return _message({name: _text(value) for name, value in headers.items()}, payload)


def _header(shape: Shape, value: Any) -> bytes:
    if shape.type_name == "boolean":
        return b"\x00" if value else b"\x01"
    if shape.type_name in _NUMBERS:
        kind, layout = _NUMBERS[shape.type_name]
        return bytes([kind]) + struct.pack(layout, value)
    if shape.type_name == "timestamp":
        return struct.pack(">Bq", _TIMESTAMP, round(scalars.moment(value).timestamp() * 1000))
    if shape.type_name == "blob":
        return struct.pack(">BH", _BLOB, len(value)) + bytes(value)
    return _text(value)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">BH", _STRING, len(data)) + data
