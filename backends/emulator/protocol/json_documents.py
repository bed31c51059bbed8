"""JSON bodies ⇄ members."""

import base64
import json
from datetime import datetime
from typing import Any

import orjson
from botocore.model import ListShape, MapShape, Shape, StructureShape

from backends.emulator.protocol import scalars
from backends.emulator.protocol.models import wires

_LARGEST_DEPTH = 64
_SPELLED_ALIKE = {"string", "character", "integer", "long", "float", "double", "boolean"}
_KINDS: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "character": (str,),
    "blob": (str,),
    "timestamp": (int, float, str),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
}


def read(shape: Shape, body: bytes) -> Any:
    """What *body* says of *shape*; an empty one says nothing. Raises ServiceError: SerializationException."""
    try:
        document = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as exc:
        raise scalars.malformed(f"the body is not JSON: {exc}") from exc
    return _read(shape, document, 0)


def write(shape: Shape, value: Any) -> bytes:
    """*value* as JSON; times are epoch seconds to the millisecond (contract 0.1)."""
    plain = _plain(shape, value)
    try:
        return orjson.dumps(plain)
    except TypeError:  # Half a character, as a file's name may hold it, is nothing that UTF-8 can say.
        return json.dumps(plain).encode()


def _read(shape: Shape, value: Any, depth: int) -> Any:
    kinds = _KINDS[shape.type_name]
    if not (bool in kinds if isinstance(value, bool) else isinstance(value, kinds)) or depth > _LARGEST_DEPTH:
        raise scalars.unfit(shape, value)
    if isinstance(shape, StructureShape):
        return {
            name: _read(inner, value[wire], depth + 1)
            for name, inner, _, wire in wires(shape)
            if value.get(wire) is not None
        }
    if isinstance(shape, ListShape):
        return [_read(shape.member, item, depth + 1) for item in value]
    if isinstance(shape, MapShape):
        return {key: _read(shape.value, item, depth + 1) for key, item in value.items()}
    return value if shape.type_name in _SPELLED_ALIKE else scalars.read(shape, value)


def _plain(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        return {
            wire: value[name] if inner.type_name in _SPELLED_ALIKE else _plain(inner, value[name])
            for name, inner, _, wire in wires(shape)
            if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        return [_plain(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: _plain(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        return round(value.timestamp() if isinstance(value, datetime) else value, 3)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
