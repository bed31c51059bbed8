"""Bodies of the query protocol → members: ``ActionNames.member.1=s3:PutObject``."""

from collections.abc import Iterable, Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from backends.emulator.protocol import scalars

_LARGEST_DEPTH = 64


def read(shape: Shape, pairs: Iterable[tuple[str, str]]) -> Any:
    """What *pairs* of a form say of *shape*. Raises ServiceError: SerializationException."""
    return _read(shape, _tree(pairs))


def _tree(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """``A.member.1.B=x`` as nested dictionaries."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        *parents, last = name.split(".")
        if len(parents) > _LARGEST_DEPTH:
            raise scalars.malformed("a parameter is nested too deeply")
        node = root
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise scalars.malformed(f"{name} is both a value and a structure")
        node[last] = value
    return root


def _read(shape: Shape, node: Any) -> Any:
    if isinstance(shape, (ListShape, MapShape)) and node == "":
        node = {}  # How an empty list is written.
    if isinstance(node, dict) is not isinstance(shape, (StructureShape, ListShape, MapShape)):
        raise scalars.unfit(shape, node)
    if isinstance(shape, StructureShape):
        wires = ((name, inner, inner.serialization.get("name", name)) for name, inner in shape.members.items())
        return {name: _read(inner, node[wire]) for name, inner, wire in wires if wire in node}
    if isinstance(shape, ListShape):
        wire = shape.member.serialization.get("name", "member")
        return [_read(shape.member, item) for item in _in_order(node if _is_flat(shape) else node.get(wire, {}))]
    if isinstance(shape, MapShape):
        key, value = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
        entries = _in_order(node if _is_flat(shape) else node.get("entry", {}))
        return {_read(shape.key, entry.get(key, "")): _read(shape.value, entry.get(value, "")) for entry in entries}
    return scalars.read(shape, node)


def _is_flat(shape: Shape) -> bool:
    return bool(shape.serialization.get("flattened"))


def _in_order(node: Mapping[str, Any]) -> list[Any]:
    return [node[key] for key in sorted((key for key in node if key.isascii() and key.isdigit()), key=int)]
