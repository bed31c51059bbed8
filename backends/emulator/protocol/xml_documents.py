"""XML bodies ⇄ members. A body with a document type declaration is refused: it could grow without end."""

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

from botocore.model import ListShape, MapShape, Shape, StructureShape
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backends.emulator.protocol import scalars
from backends.sagemaker.readings import ServiceError

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_LARGEST_DEPTH = 64
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
# What XML 1.0 cannot hold.
_ILLEGAL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "\N{REPLACEMENT CHARACTER}")


def read(shape: Shape, body: bytes) -> Any:
    """What *body* says of *shape*, whatever its outermost element is called.

    Raises:
        ServiceError: MalformedXML.
    """
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as exc:
        text = "The XML you provided was not well-formed or did not validate against our published schema"
        raise ServiceError("MalformedXML", text) from exc
    return _read(shape, root, 0)


def write(shape: Shape, value: Any, name: str, *, namespace: str = "") -> str:
    """*value* as the element *name*."""
    opened = name + (f" xmlns={quoteattr(namespace)}" if namespace else "")
    if isinstance(shape, StructureShape):
        return f"<{opened}{_attributes(shape, value)}>{''.join(_members(shape, value))}</{name}>"
    return "".join(_element(shape, value, name))


def text(value: object) -> str:
    """*value* as character data."""
    return escape(str(value).translate(_ILLEGAL))


def _read(shape: Shape, element: Element, depth: int) -> Any:
    if depth > _LARGEST_DEPTH:
        raise scalars.malformed("the body is nested too deeply")
    if isinstance(shape, StructureShape):
        return dict(_read_members(shape, element, depth + 1))
    if isinstance(shape, ListShape):
        return [_read(shape.member, child, depth + 1) for child in element]
    if isinstance(shape, MapShape):
        return {entry[0].text or "": _read(shape.value, entry[1], depth + 1) for entry in element if len(entry) > 1}
    return scalars.read(shape, element.text or "")


def _read_members(shape: StructureShape, element: Element, depth: int) -> Iterator[tuple[str, Any]]:
    children: dict[str, list[Element]] = {}
    for child in element:
        children.setdefault(_bare(child.tag), []).append(child)
    for name, inner in shape.members.items():
        wire = inner.serialization.get("name", name)
        if inner.serialization.get("xmlAttribute"):
            local = wire.rpartition(":")[2]
            for attribute, value in element.attrib.items():
                if _bare(attribute) == local:
                    yield name, value
        elif isinstance(inner, ListShape) and inner.serialization.get("flattened"):
            wire = inner.member.serialization.get("name", wire)
            if wire in children:
                yield name, [_read(inner.member, child, depth) for child in children[wire]]
        elif wire in children:
            yield name, _read(inner, children[wire][0], depth)


def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]


def _members(shape: StructureShape, value: Any) -> Iterator[str]:
    for name, inner in shape.members.items():
        is_elsewhere = "location" in inner.serialization or inner.serialization.get("xmlAttribute")
        if value.get(name) is not None and not is_elsewhere:
            yield from _element(inner, value[name], inner.serialization.get("name", name))


def _element(shape: Shape, value: Any, name: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        yield f"<{name}{_attributes(shape, value)}>"
        yield from _members(shape, value)
        yield f"</{name}>"
    elif isinstance(shape, ListShape):
        is_flat = shape.serialization.get("flattened")
        inside = shape.member.serialization.get("name", name if is_flat else "member")
        yield "" if is_flat else f"<{name}>"
        for item in value:
            yield from _element(shape.member, item, inside)
        yield "" if is_flat else f"</{name}>"
    elif isinstance(shape, MapShape):
        yield f"<{name}>"
        for key, item in value.items():
            yield "<entry>"
            yield from _element(shape.key, key, shape.key.serialization.get("name", "key"))
            yield from _element(shape.value, item, shape.value.serialization.get("name", "value"))
            yield "</entry>"
        yield f"</{name}>"
    else:
        yield f"<{name}>{text(scalars.write(shape, value, time_format='iso8601'))}</{name}>"


def _attributes(shape: StructureShape, value: Any) -> str:
    written = ""
    for name, inner in shape.members.items():
        if inner.serialization.get("xmlAttribute") and name in value:
            wire = inner.serialization.get("name", name)
            declared = f" xmlns:xsi={quoteattr(_INSTANCE)}" if wire.startswith("xsi:") else ""
            written += f"{declared} {wire}={quoteattr(value[name])}"
    return written
