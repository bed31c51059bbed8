"""The gateway: a FastAPI application that stands where API Gateway stands, and serves the page beside it.

    request ─ size of headers ─ Host ─ Origin ─ preflight ─ route ──> body ─ event ─ function ─ response
                                                             └─ none: a file of the web folder, or "Not Found"

``_Gateway.answer`` is that chain, in that order.
"""

import asyncio
import logging
import time
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from backends.gateway.cors import CorsRule
from backends.gateway.events import (
    SHAPES,
    Api,
    EventShape,
    Failure,
    HttpRequest,
    HttpResponse,
    MalformedReply,
    Matched,
)
from backends.gateway.functions import (
    Function,
    FunctionBroken,
    FunctionSettings,
    Invocation,
    PayloadTooLarge,
    Throttled,
    TimedOut,
)
from backends.gateway.routes import RouteTable
from backends.gateway.static import WebFolder

logger = logging.getLogger("greenroom.gateway")
access = logging.getLogger("greenroom.gateway.access")

MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_HEADER_BYTES = 10240
BODY_TIMEOUT_SECONDS = 30.0
# So much more is read and dropped, as a client still sending would not see the answer before a reset.
LINGER_BYTES = 10 * 1024 * 1024
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LONGEST_LOGGED_PATH = 200

# What follows on the connection is the rest of a request nobody wants.
_ENDS_CONNECTION = (Failure.TOO_LARGE, Failure.SLOW_BODY, Failure.HEADERS_TOO_LARGE)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_FAILURES = MappingProxyType(
    {
        FunctionBroken: Failure.FUNCTION,
        MalformedReply: Failure.FUNCTION,
        PayloadTooLarge: Failure.TOO_LARGE,
        Throttled: Failure.THROTTLED,
        TimedOut: Failure.TIMEOUT,
        TimeoutError: Failure.TIMEOUT,
    }
)


@dataclass(frozen=True)
class GatewaySettings:
    """One API in front of one function.

    Attributes:
        function: What answers the routes.
        routes: Route keys such as ``POST /predict``.
        shape: ``http-2.0``, ``http-1.0`` or ``rest``: how events and errors look.
        web_folder: What GET serves where no route matches.
        allowed_hosts: Host names (no port) a request may be addressed to; any other could be DNS rebinding.
        allowed_origins: Origins beside the gateway's own that may send other methods than GET.
        cors: Cross-origin rules answered by the gateway; HTTP APIs only.
        integration_timeout_seconds: How long the gateway waits for the function; by default the kind's maximum.
    """

    function: FunctionSettings
    routes: tuple[str, ...] = ("POST /predict", "GET /about")
    shape: str = "http-2.0"
    api: Api = field(default_factory=Api)
    web_folder: Path | None = None
    allowed_hosts: frozenset[str] = frozenset(("127.0.0.1", "localhost", "[::1]"))
    allowed_origins: frozenset[str] = frozenset()
    cors: CorsRule | None = None
    integration_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown shape, or for rules that its kind of API does not have."""
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        longest = SHAPES[self.shape].integration_timeout_seconds
        if self.integration_timeout_seconds is not None and not 0 < self.integration_timeout_seconds <= longest:
            raise ValueError(f"{self.shape} waits at most {longest} s, not {self.integration_timeout_seconds} s")
        if self.cors is not None and not SHAPES[self.shape].has_cors:
            raise ValueError("a REST API's function answers preflights itself: add an OPTIONS route instead")


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway as an ASGI application; its function's environments live as long as its lifespan.

    Raises:
        ValueError: a route key is none.
    """
    function = Function(settings.function)
    gateway = _Gateway(settings, function)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        try:
            await function.start()
            yield
        except FunctionBroken as broken:
            logger.error("the gateway cannot start: %s", broken)  # noqa: TRY400 - it says all
            raise
        finally:
            await function.close()

    app = FastAPI(title="Greenroom gateway", openapi_url=None, lifespan=lifespan)
    # Not a route: the framework's path patterns let a line break pass by, and the checks with it.
    app.router.default = gateway
    return app


class _Refused(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class _Gateway:
    """The chain every request goes through."""

    def __init__(self, settings: GatewaySettings, function: Function) -> None:
        self._settings = settings
        self._function = function
        self._shape: EventShape = SHAPES[settings.shape](settings.api)
        self._routes = RouteTable(settings.routes)
        self._web = None if settings.web_folder is None else WebFolder(settings.web_folder.resolve())
        self._patience_seconds = settings.integration_timeout_seconds or self._shape.integration_timeout_seconds
        # A function that runs on after the gateway gave up is still somebody's.
        self._running: set[asyncio.Task[Invocation]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and log it."""
        if scope["type"] != "http":
            raise RuntimeError("the gateway speaks HTTP alone")
        started = time.perf_counter()
        request_id = _new_request_id()
        request = _request(scope)
        try:
            response = await self.answer(request, receive, request_id)
        except _Refused as refused:
            response = self._shape.error(refused.failure)
            if refused.failure in _ENDS_CONNECTION:
                response = HttpResponse(response.status, (*response.headers, ("connection", "close")), response.body)
        cors = self._settings.cors
        if cors is not None and not cors.is_preflight(request):
            response = cors.apply(request, response)
        await _send(send, response, self._shape.trace_headers(request_id))
        _log_access(request, response, time.perf_counter() - started, request_id)

    async def answer(self, request: HttpRequest, receive: Receive, request_id: str) -> HttpResponse:
        """The response to *request*, whose body is still to be received.

        Raises:
            _Refused: the gateway answers by itself.
        """
        self._check_headers(request)
        self._check_host(request)
        self._check_origin(request)
        cors = self._settings.cors
        if cors is not None and cors.is_preflight(request):
            return cors.preflight(request)
        found = self._routes.find(request.method, request.path)
        if found is None:
            return await self._file(request)
        route, variables = found
        matched = Matched(route.key, route.resource, variables)
        request = _with_body(request, await _body(receive))
        return await self._invoke(request, matched, request_id)

    def _check_headers(self, request: HttpRequest) -> None:
        size = len(request.path) + len(request.query) + sum(len(n) + len(v) for n, v in request.headers)
        if size > MAX_HEADER_BYTES:
            raise _Refused(Failure.HEADERS_TOO_LARGE)

    def _check_host(self, request: HttpRequest) -> None:
        hosts = [value for name, value in request.headers if name == "host"]
        if len(hosts) != 1 or _without_port(hosts[0]) not in self._settings.allowed_hosts:
            raise _Refused(Failure.FORBIDDEN)

    def _check_origin(self, request: HttpRequest) -> None:
        """Refuse what another site's page sends here; a browser names the page's origin, a program none."""
        origin = request.header("origin")
        if request.method in _SAFE_METHODS or not origin:
            return
        cors = self._settings.cors
        allowed = self._settings.allowed_origins | set(cors.allow_origins if cors else ())
        if origin != f"http://{request.header('host')}" and origin not in allowed:
            raise _Refused(Failure.FORBIDDEN)

    async def _file(self, request: HttpRequest) -> HttpResponse:
        response = None
        if self._web is not None and request.method in ("GET", "HEAD"):
            response = await asyncio.to_thread(self._web.answer, request)
        if response is None:
            raise _Refused(Failure.NO_ROUTE)
        return response

    async def _invoke(self, request: HttpRequest, matched: Matched, request_id: str) -> HttpResponse:
        event = self._shape.event(request, matched, request_id=request_id, epoch_seconds=time.time())
        invocation = asyncio.ensure_future(self._function.invoke(event, str(uuid.uuid4())))
        self._running.add(invocation)
        invocation.add_done_callback(self._finished)
        try:
            # The gateway's patience ends before a long function does; the function runs on, as in AWS.
            async with asyncio.timeout(self._patience_seconds):
                ended = await asyncio.shield(invocation)
            if ended.failed:
                raise MalformedReply("the function failed; its log says why")
            return self._shape.response(ended.payload, request)
        except tuple(_FAILURES) as error:
            logger.warning("%s %s: %s: %s", request_id, matched.route_key, type(error).__name__, error)
            raise _Refused(_FAILURES[type(error)]) from error

    def _finished(self, invocation: "asyncio.Task[Invocation]") -> None:
        self._running.discard(invocation)
        if not invocation.cancelled():
            # Looked at, so that asyncio does not complain of an error nobody waited for.
            invocation.exception()


def _request(scope: Scope) -> HttpRequest:
    client = scope.get("client")
    # As sent, so that an encoded slash is none; latin-1 keeps every byte.
    return HttpRequest(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        body=b"",
        source_ip=client[0] if client else "127.0.0.1",
        protocol=f"HTTP/{scope['http_version']}",
    )


def _with_body(request: HttpRequest, body: bytes) -> HttpRequest:
    if not body:
        return request
    return HttpRequest(
        request.method, request.path, request.query, request.headers, body, request.source_ip, request.protocol
    )


async def _body(receive: Receive) -> bytes:
    """The request's body, given up when it is too large or too slow."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in _chunks(receive):
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    chunks.append(chunk)
                elif size > MAX_BODY_BYTES + LINGER_BYTES:
                    break
    except TimeoutError:
        raise _Refused(Failure.SLOW_BODY) from None
    if size > MAX_BODY_BYTES:
        raise _Refused(Failure.TOO_LARGE)
    return b"".join(chunks)


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            # Half a body must not reach the function. Nobody will see this answer.
            raise _Refused(Failure.SLOW_BODY)
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _send(send: Send, response: HttpResponse, trace: tuple[tuple[str, str], ...]) -> None:
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in (*response.headers, *trace)]
    has_body = response.status not in (204, 304)
    if has_body:
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if has_body else b""})


def _new_request_id() -> str:
    """An id that looks like API Gateway's: sixteen characters of base64."""
    return b64encode(uuid.uuid4().bytes[:11]).decode()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _log_access(request: HttpRequest, response: HttpResponse, seconds: float, request_id: str) -> None:
    access.info(
        "%s %s %d %.1f ms %s",
        request.method,
        request.path[:_LONGEST_LOGGED_PATH],
        response.status,
        seconds * 1000,
        request_id,
    )
