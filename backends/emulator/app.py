"""The emulator as an ASGI application.

    request ─ Host check ─ service by path ─ engine ─ reply in the service's own protocol

Signatures are accepted, never checked: there is no account here.
"""

import json
import uuid

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.emulator import sagemaker, sagemaker_runtime
from backends.engine import Engine
from backends.sagemaker.readings import ServiceError

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def create_app(engine: Engine, *, host: str = "127.0.0.1") -> FastAPI:
    """Everything that the emulator speaks, in front of *engine*, which the caller closes.

    *host* is the name by which it is served, beside those of loopback.
    """

    async def control(request: Request) -> Response:
        return await sagemaker.answer(engine, request)

    async def invoke(request: Request) -> Response:
        return await sagemaker_runtime.invoke_endpoint(engine, request)

    app = FastAPI(
        title="Greenroom emulator",
        openapi_url=None,
        routes=[
            Route("/", control, methods=["POST"]),
            Route("/endpoints/{name}/invocations", invoke, methods=["POST"]),
        ],
        exception_handlers={ServiceError: _refused, 404: _unknown, 405: _unknown},
    )
    app.add_middleware(_Door, allowed_hosts=LOOPBACK_NAMES | {host})
    return app


class _Door:
    """What every request passes, whatever its path: the Host check in, a request id out."""

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str]) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-amzn-RequestId"] = str(uuid.uuid4())
            await send(message)

        # A page of another site that got its name to resolve to this machine still says its own name here.
        host = Headers(scope=scope).get("host", "").rsplit(":", 1)[0] or "127.0.0.1"
        if host in self._allowed_hosts:
            await self._app(scope, receive, send_with_id)
        else:
            error = ServiceError("AccessDeniedException", f"Host {host!r} is not served here.", status=403)
            await error_response(error)(scope, receive, send_with_id)


def error_response(error: ServiceError) -> Response:
    """*error* as the rest-json protocol carries it (contract 0.1): code in a header, members in the body."""
    return Response(
        json.dumps({"Message": error.message, **error.members}),
        status_code=error.status,
        media_type="application/json",
        headers={"x-amzn-ErrorType": error.code},
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError), request
    return error_response(error)


async def _unknown(request: Request, error: Exception) -> Response:
    del error
    text = f"{request.method} {request.url.path} is not an operation that Greenroom answers."
    return error_response(ServiceError("UnknownOperationException", text, status=404))
