"""The emulator as an ASGI application.

    request ─ Host check ─ service by path ─ engine ─ reply in the service's own protocol

Signatures are accepted, never checked: there is no account here.
"""

import json
import uuid
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.routing import Route

from backends.emulator import sagemaker_runtime
from backends.engine import Engine
from backends.sagemaker.readings import ServiceError

_ALLOWED_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


def create_app(engine: Engine) -> FastAPI:
    """Everything that the emulator speaks, in front of *engine*, which the caller closes."""

    async def invoke(request: Request) -> Response:
        return await sagemaker_runtime.invoke_endpoint(engine, request)

    async def unknown(request: Request) -> Response:
        raise ServiceError(
            "UnknownOperationException",
            f"{request.method} {request.url.path} is not an operation that Greenroom answers.",
            status=404,
        )

    return FastAPI(
        title="Greenroom emulator",
        openapi_url=None,
        routes=[
            Route("/endpoints/{name}/invocations", _guarded(invoke), methods=["POST"]),
            Route("/{path:path}", _guarded(unknown), methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ],
    )


def _guarded(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """*handle* behind the Host check, its ServiceErrors in AWS's shape, a request id on every reply."""

    async def guarded(request: Request) -> Response:
        try:
            _check_host(request)
            response = await handle(request)
        except ServiceError as error:
            response = error_response(error)
        response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        return response

    return guarded


def error_response(error: ServiceError) -> Response:
    """*error* as the rest-json protocol carries it (contract 0.1): code in a header, members in the body."""
    return Response(
        json.dumps({"Message": error.message, **error.members}),
        status_code=error.status,
        media_type="application/json",
        headers={"x-amzn-ErrorType": error.code},
    )


def _check_host(request: Request) -> None:
    """A page of another site that got its name to resolve to this machine still says its own name here."""
    host = request.headers.get("host", "").rsplit(":", 1)[0] or "127.0.0.1"
    if host not in _ALLOWED_HOSTS:
        raise ServiceError("AccessDeniedException", f"Host {host!r} is not served here.", status=403)
