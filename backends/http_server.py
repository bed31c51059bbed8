"""Put an application on a port: uvicorn with its fast parts, limits before parsing, and one way to know it is up."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import uvicorn
from starlette.types import ASGIApp, Message
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backends.errors import BackendUnavailable

# Enough for any gateway's own, finer limit to be the one that answers.
MAX_HEAD_BYTES = 20_480
HEADER_TIMEOUT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 65
MAX_CONNECTIONS = 1000
SHUTDOWN_SECONDS = 3
ZERO_COPY = "http.response.zerocopysend"
_JOINED_BYTES = 65_536
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: a limit on a request's head, in bytes and in time, and files as bodies.

    A part of a file goes from the kernel's cache to the client without passing through this process, by ASGI's
    extension "Zero Copy Send"; the response must have a Content-Length.
    """

    _heads = 0
    _is_in_head = False
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._heads
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        if self._heads != before:  # Most heads come in one piece and are over by now.
            self._head_bytes = 0
            if self._head_timer is None:
                self._arm()
            return
        # The head goes on beyond this piece of it, and the parser itself keeps any amount.
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._heads += 1
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._disarm()
        self.scope["extensions"] = {ZERO_COPY: {}}
        super().on_headers_complete()
        # uvicorn makes its cycle itself.
        outgoing = self.cycle.transport = _Outgoing(self.transport)  # type: ignore[assignment]
        self.cycle.send = partial(_send, self.cycle, outgoing)  # type: ignore[method-assign]

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self.transport.close()


class _Outgoing:
    """A connection's transport that sends a response's head with what comes next: one call of the system, not two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._held = b""
        self.is_head = False

    def write(self, data: bytes) -> None:
        if self.is_head:
            self._held = data
        elif len(data) < _JOINED_BYTES:
            self.transport.write(self._held + data)
            self._held = b""
        else:
            self.flush()
            self.transport.write(data)

    def flush(self) -> None:
        if self._held:
            self.transport.write(self._held)
            self._held = b""

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()


async def _send(cycle: RequestResponseCycle, outgoing: _Outgoing, message: Message) -> None:
    if message["type"] == ZERO_COPY:
        outgoing.flush()
        await _send_file(cycle, outgoing.transport, message["file"], message["offset"], message["count"])
        cycle.expected_content_length -= message["count"]
        message = {"type": "http.response.body", "more_body": message.get("more_body", False)}
    outgoing.is_head = message["type"] == "http.response.start"
    await RequestResponseCycle.send(cycle, message)  # type: ignore[arg-type]  # starlette's type is the wider one
    if not outgoing.is_head or cycle.chunked_encoding:  # a stream's first piece may be long in coming
        outgoing.flush()


async def _send_file(
    cycle: RequestResponseCycle, transport: asyncio.Transport, file: BinaryIO, offset: int, count: int
) -> None:
    if cycle.disconnected:
        return
    transport.set_write_buffer_limits(high=0)  # to drain is now to wait for the last byte of the head
    await cycle.flow.drain()
    # The loop does not watch its transport's own descriptor for anybody else.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    try:
        while count and not cycle.disconnected:
            sent = await asyncio.to_thread(_sendfile, connection, file.fileno(), offset, count)
            offset, count = offset + sent, count - sent
            if count:
                await _writable(connection)
    except ConnectionError:
        transport.abort()
    finally:
        os.close(connection)
        if not transport.is_closing():
            transport.set_write_buffer_limits()


def _sendfile(connection: int, file: int, offset: int, count: int) -> int:
    """How many bytes the connection took; in a thread, as the disk may have to be waited for."""
    try:
        sent = os.sendfile(connection, file, offset, count)
    except BlockingIOError:
        return 0
    if not sent:
        raise EOFError(f"the file ends {count} bytes too early")
    return sent


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)


class Server(uvicorn.Server):
    """A uvicorn server on a socket of ours, which tells its address when it answers there.

    ``run`` blocks until SIGINT or SIGTERM; ``should_exit`` ends it from another thread.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        listener: socket.socket | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
        on_ready: Callable[[str], None] = lambda url: None,  # noqa: ARG005 - nobody need be told
    ) -> None:
        """Take the port, where there is no *listener* (:func:`listen`) that has; 0 takes a free one.

        Raises:
            ValueError: *host* can be reached from other machines and *allow_remote* is not set.
            BackendUnavailable: as `listen`.
        """
        if not allow_remote and not _is_loopback(host):
            raise ValueError(f"{host} can be reached from other machines; say so explicitly to serve there")
        config = uvicorn.Config(
            app,
            http=LimitedHttpProtocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._socket = listener or listen(host, port)
        self._on_ready = on_ready
        self.url = url_of(self._socket)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        with self._socket:
            super().run([self._socket, *(sockets or [])])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready(self.url)


def serve(app: ASGIApp, **options: Any) -> None:
    """Serve *app* until SIGINT or SIGTERM; *options* are those of `Server`."""
    Server(app, **options).run()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Take a port, so that its number is known before what answers there is made; 0 takes a free one.

    Raises:
        BackendUnavailable: the port is taken, or the host is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise BackendUnavailable(
            f"port {port} of {host} cannot be used: {exc.strerror}. Take another by --port (0: a free one) or --host."
        ) from exc
    return listener


def url_of(listener: socket.socket) -> str:
    """How it is called."""
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
