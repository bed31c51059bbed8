"""The model behind HTTP: GET /ping, GET /execution-parameters, POST /invocations. Bodies are the codec's matter.

Starlette, which FastAPI is built on, rather than FastAPI itself: nothing here needs the difference, and importing
it would double the time from start to the first good /ping and the work of a request.

Source: SageMaker developer guide, "Custom Inference Code with Hosting Services" and "... with Batch Transform".
"""

import asyncio
import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from codec import JSON, Refusal, accepted, answer, dumped, reader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from sentiment.model import SentimentModel

# The largest body worked on at once: more of it would keep a /ping on the same worker waiting.
SMALL_BODY_BYTES = 16 * 1024
# So much more is read and dropped, as a client still sending would not see the answer before a reset.
LINGER_BYTES = 32 * 1024 * 1024
BATCH_PAYLOAD_MIB = 6
_CODES = MappingProxyType({404: "NotFound", 405: "MethodNotAllowed"})


def create_app(model: "SentimentModel", *, workers: int, max_payload_bytes: int | None) -> Starlette:
    """The inference server around *model*, which must bear concurrent calls."""
    parameters = {
        "MaxConcurrentTransforms": workers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": BATCH_PAYLOAD_MIB,
    }

    async def ping(request: Request) -> Response:
        del request
        return Response(status_code=200)

    async def execution_parameters(request: Request) -> Response:
        del request
        return Response(json.dumps(parameters), media_type=JSON)

    async def invocations(request: Request) -> Response:
        if "origin" in request.headers:
            # Only a browser sends it, and no page has business here; on a user's machine any page could try.
            raise Refusal(403, "Forbidden", "this server does not answer web pages")
        read = reader(request.headers.get("content-type", ""))
        accept = accepted(request.headers.get("accept", ""), request.headers["content-type"])
        body = await _body(request, max_payload_bytes)

        def work() -> bytes:
            return answer(model, read(body), accept)

        reply = work() if len(body) <= SMALL_BODY_BYTES else await asyncio.to_thread(work)
        return Response(reply, media_type=accept)

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/execution-parameters", execution_parameters),
            Route("/invocations", invocations, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _http_error, Exception: _broken},
    )


async def _body(request: Request, max_payload_bytes: int | None) -> bytes:
    """The whole body, counted while it arrives."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if max_payload_bytes is None or size <= max_payload_bytes:
            chunks.append(chunk)
        elif size > max_payload_bytes + LINGER_BYTES:
            break
    if max_payload_bytes is not None and size > max_payload_bytes:
        raise Refusal(413, "PayloadTooLarge", f"the body is over the limit of {max_payload_bytes} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


# --- errors --------------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, Refusal):
        raise error
    response = _error(error.status, error.code, str(error))
    if error.status == 413:
        response.headers["connection"] = "close"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = _error(error.status_code, _CODES.get(error.status_code, "BadRequest"), message)
    response.headers.update(error.headers or {})
    return response


async def _broken(request: Request, error: Exception) -> Response:
    del request
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    return _error(500, "InternalError", f"{type(error).__name__}; the server's log has the details")


def _error(status: int, code: str, message: str) -> Response:
    return Response(dumped({"error": {"code": code, "message": message}}), status_code=status, media_type=JSON)
