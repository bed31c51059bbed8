"""The SageMaker Runtime API (rest-json): HTTP ⇄ the engine's documents. Source: the service model's shapes."""

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from backends.engine import Engine
from backends.engine.hosting import PAYLOAD_LIMIT_BYTES
from backends.sagemaker.readings import ServiceError

_REQUEST_HEADERS = {
    "content-type": "ContentType",
    "accept": "Accept",
    "x-amzn-sagemaker-custom-attributes": "CustomAttributes",
    "x-amzn-sagemaker-target-variant": "TargetVariant",
    "x-amzn-sagemaker-inference-id": "InferenceId",
}


async def invoke_endpoint(engine: Engine, request: Request) -> Response:
    """InvokeEndpoint. Raises ServiceError as :meth:`Engine.call` does."""
    document: dict[str, object] = {
        "EndpointName": request.path_params["name"],
        "Body": await read_body(request, PAYLOAD_LIMIT_BYTES),
    }
    for header, member in _REQUEST_HEADERS.items():
        if header in request.headers:
            document[member] = request.headers[header]
    answer = await run_in_threadpool(engine.call, "InvokeEndpoint", document)
    headers = {"x-Amzn-Invoked-Production-Variant": answer["InvokedProductionVariant"]}
    if "CustomAttributes" in answer:
        headers["X-Amzn-SageMaker-Custom-Attributes"] = answer["CustomAttributes"]
    if "ContentType" in answer:
        headers["Content-Type"] = answer["ContentType"]
    return Response(answer["Body"], headers=headers)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, refused with a ValidationError as soon as it is over the limit."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            raise ServiceError("ValidationError", f"The request body is over {limit_bytes} bytes.")
    return bytes(body)
