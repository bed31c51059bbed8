"""JSON bodies ⇄ members."""

import base64
import json
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from backends.emulator.protocol import scalars

_LARGEST_DEPTH = 64
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
        document = json.loads(body) if body else {}
    except (ValueError, RecursionError) as exc:
        raise scalars.malformed(f"the body is not JSON: {exc}") from exc
    return _read(shape, document, 0)


def write(shape: Shape, value: Any) -> bytes:
    """*value* as JSON; times are epoch seconds to the millisecond (contract 0.1)."""
    return json.dumps(_plain(shape, value), separators=(",", ":")).encode()


def _read(shape: Shape, value: Any, depth: int) -> Any:
    if getattr(shape, "is_document_type", False):
        return value
    if not _is_of(value, _KINDS[shape.type_name]) or depth > _LARGEST_DEPTH:
        raise scalars.unfit(shape, value)
    if isinstance(shape, StructureShape):
        wires = ((name, inner, inner.serialization.get("name", name)) for name, inner in shape.members.items())
        return {
            name: _read(inner, value[wire], depth + 1) for name, inner, wire in wires if value.get(wire) is not None
        }
    if isinstance(shape, ListShape):
        return [_read(shape.member, item, depth + 1) for item in value]
    if isinstance(shape, MapShape):
        return {key: _read(shape.value, item, depth + 1) for key, item in value.items()}
    return scalars.read(shape, value) if shape.type_name in {"blob", "timestamp"} else value


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return bool in kinds if isinstance(value, bool) else isinstance(value, kinds)


def _plain(shape: Shape, value: Any) -> Any:
    if getattr(shape, "is_document_type", False):
        return value
    if isinstance(shape, StructureShape):
        wires = ((name, inner, inner.serialization.get("name", name)) for name, inner in shape.members.items())
        return {wire: _plain(inner, value[name]) for name, inner, wire in wires if value.get(name) is not None}
    if isinstance(shape, ListShape):
        return [_plain(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: _plain(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        return round(scalars.moment(value).timestamp(), 3)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
