"""The SageMaker API (json 1.1): HTTP ⇄ the engine's documents, as far as they are read. Source: contract 0.1."""

import json

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from backends.emulator.sagemaker_runtime import read_body
from backends.engine import Engine
from backends.engine.state import Document
from backends.sagemaker.readings import ServiceError

_OPERATIONS = frozenset({"DescribeEndpoint", "ListEndpoints"})
_LIMIT_BYTES = 1024 * 1024


async def answer(engine: Engine, request: Request) -> Response:
    """The operation that ``X-Amz-Target`` names, or the refusal of it."""
    operation = request.headers.get("x-amz-target", "").removeprefix("SageMaker.")
    try:
        body = await read_body(request, _LIMIT_BYTES)
        return _response(await run_in_threadpool(_carry_out, engine, operation, body))
    except ServiceError as error:
        return _response({"__type": error.code, "message": error.message}, error.status)


def _carry_out(engine: Engine, operation: str, body: bytes) -> Document:
    if operation not in _OPERATIONS:
        text = f"{operation or 'POST /'} is not an operation that Greenroom answers."
        raise ServiceError("UnknownOperationException", text, status=404)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ServiceError("SerializationException", f"The body is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise ServiceError("SerializationException", "The body is not a JSON object.")
    return engine.call(operation, document)


def _response(document: Document, status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type="application/x-amz-json-1.1")
