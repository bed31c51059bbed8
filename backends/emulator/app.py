"""The emulator as an ASGI application: one chain for every request.

Host and Origin ─ how many at once ─ which service ─ region ─ which operation ─ its members ─ faults
─ the model's constraints ─ carry it out ─ reply in the service's protocol
"""

import asyncio
import inspect
import logging
import os
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.emulator.alarms import AlarmWatch
from backends.emulator.door import Door
from backends.emulator.faults import Fault
from backends.emulator.incoming import Incoming
from backends.emulator.protocol.models import Head, Members, load_model, unknown_operation
from backends.emulator.protocol.parse import Body, find_operation, parse
from backends.emulator.protocol.serialize import FilePart, Reply, serialize, serialize_error
from backends.emulator.protocol.validate import check
from backends.emulator.services import Operation, Service, check_region, wanted_service
from backends.emulator.services.identity import Iam, Sts
from backends.emulator.services.logs import Logs
from backends.emulator.services.s3 import S3
from backends.emulator.services.sagemaker import SageMaker, SageMakerRuntime
from backends.emulator.services.tagging import Tagging
from backends.emulator.upstream import Upstream
from backends.engine import Engine
from backends.http_server import ZERO_COPY
from backends.sagemaker.readings import ServiceError
from backends.stores.files import FileStore

MOST_AT_ONCE = 256
_THREADS = 64
_RECOVERY_SECONDS = 2.0
_ON_LOOPBACK = Door()
# InvokeEndpoint's limit is the largest of any operation that is not streamed.
_LARGEST_BODY_BYTES = 26_214_400
_log = logging.getLogger("greenroom.emulator")
_CarryOut = Callable[[Members], Awaitable[Members]]


def create_app(
    engine: Engine,
    *,
    door: Door = _ON_LOOPBACK,
    upstream: Upstream | None = None,
    faults: Sequence[Fault] = (),
    most_at_once: int = MOST_AT_ONCE,
    access_log: Callable[[str], object] | None = None,
) -> ASGIApp:
    """Everything that the emulator speaks, in front of *engine*, which the caller closes.

    *door* says by which names it is served, and to whom. What no service here carries out goes to *upstream*. More
    than *most_at_once* requests are told to slow down. *access_log* is called with a line of JSON for each request.
    """
    emulator = _Emulator(
        engine, door=door, upstream=upstream, faults=faults, most_at_once=most_at_once, access_log=access_log
    )

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        # More than those of asyncio: a request that waits for its container shall keep few others waiting.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
        watch = asyncio.create_task(_recover_now_and_then(engine))
        yield
        watch.cancel()
        emulator.close()

    around = Router(routes=[Route("/healthz", _health)], lifespan=lifespan)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_aws = scope["type"] == "http" and scope["path"] != "/healthz"
        await (emulator if is_aws else around)(scope, receive, send)

    return app


async def _recover_now_and_then(engine: Engine) -> None:
    while True:
        await asyncio.sleep(_RECOVERY_SECONDS)
        try:
            await asyncio.to_thread(engine.recover)
        except Exception:  # noqa: BLE001  the next time may be better
            _log.exception("crashed jobs were not set right")


async def _health(request: Request) -> Response:
    del request
    return JSONResponse({"status": "ok"})


@dataclass
class _Exchange:
    """One request, and what has been found out about it so far; an error is answered in the last known protocol."""

    head: Head
    incoming: Incoming
    request_id: str
    protocol: str
    namespace: str = ""
    service: str = ""
    operation: str = ""
    error: str = ""

    def refused(self, error: ServiceError) -> Reply:
        """The reply that says *error*."""
        if self.service == "s3" and error.code == "UnknownOperationException":
            error = ServiceError("NotImplemented", error.message, status=501)
        self.error = error.code
        return serialize_error(self.protocol, error, request_id=self.request_id, namespace=self.namespace)

    def line(self, reply: Reply, seconds: float) -> str:
        """The access log's line: one JSON object."""
        found = {"service": self.service, "operation": self.operation, "error": self.error}
        return orjson.dumps(
            {"request_id": self.request_id, "method": self.head.method, "path": self.head.path}
            | {name: value for name, value in found.items() if value}
            | {"status": reply.status, "ms": round(seconds * 1000, 1)}
        ).decode()


class _Emulator:
    def __init__(
        self,
        engine: Engine,
        *,
        door: Door,
        upstream: Upstream | None,
        faults: Sequence[Fault],
        most_at_once: int,
        access_log: Callable[[str], object] | None,
    ) -> None:
        region = engine.site.settings.region
        iam = Iam(region, makes_roles=upstream is None)
        sagemaker = SageMaker(engine, AlarmWatch(engine, upstream.url) if upstream else None)
        services = [sagemaker, SageMakerRuntime(engine), Sts(region), iam, Logs(engine), Tagging(engine)]
        if isinstance(engine.site.store, FileStore):  # else it lies in another S3, which the client can ask itself
            services.append(S3(engine.site.store.buckets, region))
        self._services: dict[str, Service] = {service.name: service for service in services}
        self._region = region
        self._upstream = upstream
        self._faults = faults
        self._most_at_once = most_at_once
        self._door = door
        self._access_log = access_log
        self._operations: dict[tuple[str, str], _CarryOut | None] = {}
        self._now = 0

    def close(self) -> None:
        for service in self._services.values():
            service.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, head = time.perf_counter(), _head(scope)
        exchange = _Exchange(head, Incoming(head, receive), _request_id(), _protocol_by_look(head))
        self._now += 1
        try:
            reply = await self._answer(exchange)
            await _send(reply, exchange, send)
        finally:
            self._now -= 1
        if self._access_log is not None:
            self._access_log(exchange.line(reply, time.perf_counter() - began))

    async def _answer(self, exchange: _Exchange) -> Reply:
        refusal = self._door.turned_away(exchange.head)
        if refusal is None and self._now > self._most_at_once:
            refusal = _too_many(exchange.protocol)
        if refusal is not None:
            return exchange.refused(refusal)
        try:
            return await self._dispatch(exchange)
        except ServiceError as error:
            return exchange.refused(error)
        except ClientDisconnect:
            return exchange.refused(ServiceError("RequestTimeout", "The client went away before its body was read."))
        except Exception:  # noqa: BLE001  the client gets AWS's answer, the log the rest
            _log.exception("request %s failed", exchange.request_id)
            return exchange.refused(ServiceError("InternalFailure", "Greenroom failed; its log says why.", status=500))

    async def _dispatch(self, exchange: _Exchange) -> Reply:
        head = exchange.head
        exchange.service, region = wanted_service(head)
        service = self._services.get(exchange.service)
        if service is None:
            return await self._elsewhere(exchange, exchange.incoming)
        model = load_model(service.name)
        exchange.protocol = model.protocol
        exchange.namespace = model.service.metadata.get("xmlNamespace", "")
        check_region(service, region, self._region)
        head = service.addressed(head)
        stream = service.open_body(head, exchange.incoming)
        found = model.at(head) if service.streamed else None
        is_streamed = found is not None and found.operation.name in service.streamed
        body: Body = stream if is_streamed else await _read(stream)
        found = found or find_operation(model, head, body)
        exchange.operation = found.operation.name
        self._door.check(exchange.operation, head)
        carry_out = self._operation(service, found.operation.name)
        if carry_out is None:
            return await self._elsewhere(exchange, body)
        members = parse(model, found, head, body)
        await self._fault(exchange)
        try:
            check(found.operation.input_shape, members)
        except ServiceError as violation:
            raise service.refused(violation) from None
        answer = await carry_out(members)
        return serialize(model, found.operation, answer, request_id=exchange.request_id)

    def _operation(self, service: Service, name: str) -> "_CarryOut | None":
        """What carries out *name*, awaited; None: nothing does."""
        known = (service.name, name)
        if known not in self._operations:
            found = service.operation(name)
            self._operations[known] = found and _awaited(found)
        return self._operations[known]

    async def _fault(self, exchange: _Exchange) -> None:
        for fault in self._faults:
            if fault.concerns(exchange.service, exchange.operation) and random.random() < fault.rate:  # noqa: S311
                await asyncio.sleep(fault.latency_ms / 1000)
                if fault.error:
                    raise ServiceError(fault.error, fault.message, status=fault.status)

    async def _elsewhere(self, exchange: _Exchange, body: Body) -> Reply:
        if self._upstream is not None:
            return await self._upstream.forward(exchange.head, body)
        what = f"{exchange.operation} of {exchange.service}" if exchange.operation else f"{exchange.service!r}"
        known = ", ".join(sorted(self._services))
        raise unknown_operation(
            f"Greenroom does not carry out {what}; it speaks {known}. `greenroom serve --upstream URL` sends the rest "
            "to a LocalStack-compatible server."
        )


def _awaited(carry_out: Operation) -> _CarryOut:
    """*carry_out* itself, or in a thread if it would hold up the loop."""
    if inspect.iscoroutinefunction(carry_out):
        return cast("_CarryOut", carry_out)

    async def in_a_thread(members: Members) -> Members:
        return await asyncio.to_thread(cast("Callable[[Members], Members]", carry_out), members)

    return in_a_thread


def _request_id() -> str:
    """A random UUID (RFC 9562, section 5.4), for a fifth of what the library's class takes."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _head(scope: Scope) -> Head:
    raw = scope.get("raw_path") or scope["path"].encode()
    asked = scope["query_string"].decode("latin-1")
    query = parse_qs(asked, keep_blank_values=True, max_num_fields=1000) if asked else {}
    # Of several that have one name the first counts.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    return Head(method=scope["method"], path=raw.decode("latin-1"), query=query, headers=headers)


async def _read(stream: AsyncIterable[bytes]) -> bytes:
    """The whole body, refused as soon as it is over the limit."""
    body = bytearray()
    async for piece in stream:
        body += piece
        if len(body) > _LARGEST_BODY_BYTES:
            raise ServiceError("ValidationError", f"The request body is over {_LARGEST_BODY_BYTES} bytes.")
    return bytes(body)


async def _send(reply: Reply, exchange: _Exchange, send: Send) -> None:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    headers |= {"x-amzn-requestid": exchange.request_id, "x-amz-request-id": exchange.request_id}
    with_body = exchange.head.method != "HEAD"
    if isinstance(reply.body, bytes) and with_body:
        headers["content-length"] = str(len(reply.body))
    if not await exchange.incoming.is_over():
        headers["connection"] = "close"
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    if isinstance(reply.body, bytes):
        await send({"type": "http.response.body", "body": reply.body if with_body else b""})
        return
    if isinstance(reply.body, FilePart):
        part = reply.body
        with part.file:
            await send({"type": ZERO_COPY, "file": part.file, "offset": part.start, "count": part.size_bytes})
        return
    async with aclosing(reply.body) as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if await exchange.incoming.is_abandoned():
                return
    await send({"type": "http.response.body", "body": b""})


def _too_many(protocol: str) -> ServiceError:
    """AWS's words for "slow down", which its clients answer by trying again later."""
    if protocol == "rest-xml":
        return ServiceError("SlowDown", "Please reduce your request rate.", status=503)
    return ServiceError("ThrottlingException", "Rate exceeded")


def _protocol_by_look(head: Head) -> str:
    """What a client of an unknown service most likely reads."""
    kind = head.headers.get("content-type", "")
    if "x-amz-target" in head.headers:
        return "json"
    if kind.startswith("application/x-www-form-urlencoded"):
        return "query"
    return "rest-xml" if "/s3/" in head.headers.get("authorization", "") else "rest-json"
