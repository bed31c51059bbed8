"""A request's head and body → the operation asked for and the members of its input.

Unknown members are passed over, as AWS does.
"""

from collections.abc import AsyncIterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, Shape, StructureShape

from backends.emulator.protocol import forms, json_documents, scalars, xml_documents
from backends.emulator.protocol.models import Found, Head, Members, Model, wires

Body = bytes | AsyncIterable[bytes]

_MOST_FIELDS = 10_000


def find_operation(model: Model, head: Head, body: Body) -> Found:
    """The operation that a request asks for; only the query protocol says it in the *body*.

    Raises:
        ServiceError: UnknownOperationException.
    """
    if model.protocol == "json":
        return model.named(head.headers.get("x-amz-target", "").rpartition(".")[2])
    if model.protocol == "query":
        return model.named(dict(_form(head, body)).get("Action", ""))
    return model.at(head)


def parse(model: Model, found: Found, head: Head, body: Body) -> Members:
    """The members of the operation's input; *body* as a stream becomes the payload as it is.

    Raises:
        ServiceError: SerializationException, MalformedXML.
    """
    shape = found.operation.input_shape
    if shape is None:
        return {}
    if not isinstance(body, bytes):
        return dict(found.labels) | _from_head(shape, head) | {shape.serialization["payload"]: body}
    if model.protocol == "json":
        members: Members = json_documents.read(shape, body)
    elif model.protocol == "query":
        members = forms.read(shape, _form(head, body))
    else:
        members = dict(found.labels) | _from_head(shape, head) | _from_body(model, shape, body)
    return members


def _from_head(shape: StructureShape, head: Head) -> Members:
    members: Members = {}
    for name, inner, where, wire in wires(shape):
        if where == "header" and wire in head.headers:
            members[name] = scalars.read(inner, head.headers[wire])
        elif where == "querystring" and wire in head.query:
            members[name] = _from_query(inner, head.query[wire])
        elif where == "headers" and (
            found := {key[len(wire) :]: head.headers[key] for key in head.headers if key.startswith(wire)}
        ):
            members[name] = found
    return members


def _from_query(shape: Shape, values: Sequence[str]) -> Any:
    if isinstance(shape, ListShape):
        return [scalars.read(shape.member, value) for value in values]
    return scalars.read(shape, values[0])


def _from_body(model: Model, shape: StructureShape, body: bytes) -> Members:
    read = xml_documents.read if model.protocol == "rest-xml" else json_documents.read
    payload = shape.serialization.get("payload")
    if payload is None:
        in_body = {name for name, _, where, _ in wires(shape) if not where}
        document = read(shape, body) if body and in_body else {}
        return {name: value for name, value in document.items() if name in in_body}
    value = _payload(shape.members[payload], body, read)
    return {} if value is None else {payload: value}


def _payload(shape: Shape, body: bytes, read: Any) -> Any:
    if shape.type_name == "blob":
        return body
    if not body:
        return None
    return body.decode(errors="replace") if shape.type_name == "string" else read(shape, body)


def _form(head: Head, body: Body) -> list[tuple[str, str]]:
    assert isinstance(body, bytes), "no operation of the query protocol is streamed"
    in_path = [(name, value) for name, values in head.query.items() for value in values]
    try:
        return in_path + parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise scalars.malformed(f"the form cannot be read: {exc}") from exc
