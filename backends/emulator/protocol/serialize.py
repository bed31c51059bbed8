"""The members of an operation's output, or an error → a reply."""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO
from xml.sax.saxutils import quoteattr

from botocore.model import OperationModel, Shape, StructureShape

from backends.emulator.protocol import event_stream, json_documents, scalars, xml_documents
from backends.emulator.protocol.models import Members, Model, wires
from backends.sagemaker.readings import ServiceError

_S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# The model does not name the outermost element of these; S3's API reference does.
_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetObjectAttributes": "GetObjectAttributesResponse",
}


@dataclass(frozen=True)
class FilePart:
    """*size_bytes* of *file* from *start* on; whoever sends them closes it."""

    file: BinaryIO
    start: int
    size_bytes: int


@dataclass(kw_only=True, slots=True)
class Reply:
    """What goes back. A streamed *body* is as long as its Content-Length says, where it has one; a file's must."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncGenerator[bytes] | FilePart = b""


def serialize(model: Model, operation: OperationModel, members: Members, *, request_id: str) -> Reply:
    """*members* as the protocol of *model* carries them; those that the shape does not know are left out."""
    shape = operation.output_shape
    if model.protocol == "json":
        body = json_documents.write(shape, members) if shape is not None and shape.members else b""
        return Reply(headers={"Content-Type": "application/x-amz-json-1.1"}, body=body)
    if model.protocol == "query":
        return _query(model, operation, members, request_id)
    return Reply(status=operation.http.get("responseCode", 200)) if shape is None else _rest(operation, shape, members)


def serialize_error(protocol: str, error: ServiceError, *, request_id: str, namespace: str = "") -> Reply:
    """*error* in the grammar of *protocol* (contract 0.1). One of status 304 is its members as headers."""
    if error.status == 304:
        return Reply(status=304, headers={name: str(value) for name, value in error.members.items()})
    if protocol in {"json", "rest-json"}:
        document = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
        kind = "application/x-amz-json-1.1" if protocol == "json" else "application/json"
        headers = {"Content-Type": kind, "x-amzn-ErrorType": error.code}
        return Reply(status=error.status, headers=headers, body=json.dumps(document).encode())
    facts = {"Code": error.code, "Message": error.message, **error.members}
    inside = "".join(f"<{name}>{xml_documents.text(value)}</{name}>" for name, value in facts.items())
    if protocol == "query":
        blame = "Sender" if error.status < 500 else "Receiver"
        inside = f"<Error><Type>{blame}</Type>{inside}</Error><RequestId>{request_id}</RequestId>"
        written = f"<ErrorResponse xmlns={quoteattr(namespace)}>{inside}</ErrorResponse>"
    else:
        written = f"<Error>{inside}<RequestId>{request_id}</RequestId><HostId>greenroom</HostId></Error>"
    return Reply(
        status=error.status,
        headers={"Content-Type": "application/xml"},
        body=(xml_documents.DECLARATION + written).encode(),
    )


def _query(model: Model, operation: OperationModel, members: Members, request_id: str) -> Reply:
    shape, inside = operation.output_shape, ""
    if shape is not None:
        inside = xml_documents.write(
            shape, members, shape.serialization.get("resultWrapper", f"{operation.name}Result")
        )
    name, namespace = f"{operation.name}Response", model.service.metadata.get("xmlNamespace", "")
    request = f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    text = f"<{name} xmlns={quoteattr(namespace)}>{inside}{request}</{name}>"
    return Reply(headers={"Content-Type": "text/xml"}, body=text.encode())


def _rest(operation: OperationModel, shape: StructureShape, members: Members) -> Reply:
    status, headers = _to_head(shape, members)
    status = status or operation.http.get("responseCode", 200)
    payload: str | None = shape.serialization.get("payload")
    inner: Shape = shape
    value: Any = members
    if payload is not None:
        inner, value = shape.members[payload], members.get(payload)
    elif all(where for _, _, where, _ in wires(shape)):
        value = None
    if value is None:
        return Reply(status=status, headers=headers)
    if isinstance(inner, StructureShape) and inner.serialization.get("eventstream"):
        return Reply(
            status=status,
            headers={"content-type": event_stream.CONTENT_TYPE, **headers},
            body=event_stream.messages(inner, value, partial(_document, operation)),
        )
    if inner.type_name in {"blob", "string"}:
        return Reply(status=status, headers=headers, body=value.encode() if isinstance(value, str) else value)
    body, kind = _document(operation, payload, inner, value)
    return Reply(status=status, headers={"content-type": kind, **headers}, body=body)


def _document(operation: OperationModel, payload: str | None, shape: Shape, value: Any) -> tuple[bytes, str]:
    if operation.service_model.resolved_protocol == "rest-json":
        return json_documents.write(shape, value), "application/json"
    if operation.name == "GetBucketLocation":  # botocore's own parser, too, takes this output as the bare root
        place = xml_documents.text(value["LocationConstraint"])
        root = f"<LocationConstraint xmlns={quoteattr(_S3_NAMESPACE)}>{place}</LocationConstraint>"
        return (xml_documents.DECLARATION + root).encode(), "application/xml"
    root = _ROOTS.get(operation.name) or shape.serialization.get("name") or payload or f"{operation.name}Result"
    text = xml_documents.DECLARATION + xml_documents.write(shape, value, root, namespace=_S3_NAMESPACE)
    return text.encode(), "application/xml"


def _to_head(shape: StructureShape, members: Members) -> tuple[int | None, dict[str, str]]:
    status, headers = None, {}
    for name, inner, where, wire in wires(shape):
        value = members.get(name) if where else None
        if value is None:
            continue
        if where == "header":
            headers[wire] = value if type(value) is str else scalars.write(inner, value, time_format="rfc822")
            status = 206 if wire == "content-range" else status
        elif where == "headers":
            headers |= {wire + key: item for key, item in value.items()}
        elif where == "statusCode":
            status = value
    return status, headers
