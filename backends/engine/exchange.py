"""HTTP exchanges with one container over connections that are kept open. Threads share one :class:`Exchange`."""

import http.client
import os
import queue
import re
import select
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from backends.engine.records import Span

_USER_AGENT = "AHC/2.0"  # What a container sees of SageMaker's hosting (contract B.1).
_PIECE_BYTES = 1 << 16
_OK = range(200, 300)
_LINE_BREAK = re.compile(r"[\r\n]")


class NoAnswer(Exception):
    """The container refused or closed the connection, or broke the protocol; the text says which."""


class TimedOut(NoAnswer):
    """The whole answer was not there in time."""


@dataclass(frozen=True)
class Answer:
    """A container's whole answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """Sends requests to one address, a host and a port.

    A request is written in one piece, which http.client does not do; its reply is read by http.client.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._idle: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        self._is_closed = False

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Span | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
        answer_limit_bytes: int | None = None,
        sink: BinaryIO | None = None,
    ) -> Answer:
        """One request, sent once, and its answer. An iterable *body* travels in chunks.

        The body of a 2xx answer goes into *sink* if there is one. *timeout_seconds* is for the whole answer, from
        the moment when the request has been sent.

        Raises:
            TimedOut: it took longer.
            NoAnswer: no whole answer came, or one over *answer_limit_bytes*.
        """
        sock: socket.socket | None = None
        try:
            sock = self._connection(timeout_seconds)
            _write(sock, self._head(method, path, headers or {}), body if method != "GET" else None)
            deadline = time.monotonic() + timeout_seconds
            with http.client.HTTPResponse(sock, method=method) as response:
                response.begin()
                answer = _receive(response, sock, deadline, answer_limit_bytes, sink)
                stays_open = not response.will_close
        except BaseException as exc:
            if sock is not None:
                sock.close()
            if isinstance(exc, TimeoutError):
                raise TimedOut(f"no answer within {timeout_seconds:g} s") from exc
            if isinstance(exc, (OSError, http.client.HTTPException)):
                raise NoAnswer(str(exc) or type(exc).__name__) from exc
            raise
        if stays_open:
            self._idle.put(sock)
        else:
            sock.close()
        if self._is_closed:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connections that are idle; others when their answer is there."""
        self._is_closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def _connection(self, timeout_seconds: float) -> socket.socket:
        """An idle connection that the server still holds open, else a new one."""
        while True:
            try:
                sock = self._idle.get_nowait()
            except queue.Empty:
                sock = socket.create_connection(self.address, timeout_seconds)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            if not _has_input(sock):
                sock.settimeout(timeout_seconds)
                return sock
            sock.close()

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The request's first lines, without those that say how its body ends."""
        host, port = self.address
        lines = {"Host": f"{host}:{port}", "Accept-Encoding": "identity", "User-Agent": _USER_AGENT, **headers}
        for value in headers.values():
            if _LINE_BREAK.search(value):
                raise ValueError(f"a header's value holds a line break: {value!r}")
        return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())


def _write(sock: socket.socket, head: str, body: bytes | Span | Iterable[bytes] | None) -> None:
    if body is None:
        sock.sendall(f"{head}\r\n".encode("latin-1"))
        return
    if isinstance(body, Span):
        if body.size_bytes > _PIECE_BYTES:
            sock.sendall(f"{head}Content-Length: {body.size_bytes}\r\n\r\n".encode("latin-1"))
            sock.sendfile(body.file, body.start, body.size_bytes)
            return
        body = os.pread(body.file.fileno(), body.size_bytes, body.start)
    if isinstance(body, bytes):
        start = f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        if len(body) <= _PIECE_BYTES:
            sock.sendall(start + body)
        else:
            sock.sendall(start)
            sock.sendall(body)
        return
    sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode("latin-1"))
    for chunk in body:
        if chunk:  # An empty one would be the end.
            sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    sock.sendall(b"0\r\n\r\n")


def _receive(
    response: http.client.HTTPResponse,
    sock: socket.socket,
    deadline: float,
    limit_bytes: int | None,
    sink: BinaryIO | None,
) -> Answer:
    stream_to = sink if response.status in _OK else None
    pieces: list[bytes] = []
    received, length = 0, response.length
    while piece := _piece(response, None if length is None else length - received):
        received += len(piece)
        if limit_bytes is not None and received > limit_bytes:
            raise http.client.HTTPException(f"its answer is larger than {limit_bytes} bytes")
        if stream_to is None:
            pieces.append(piece)
        else:
            stream_to.write(piece)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        sock.settimeout(remaining)
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, b"".join(pieces))


def _piece(response: http.client.HTTPResponse, missing: int | None) -> bytes:
    """What of the body has arrived, empty at its end; *missing* of it are known to come.

    Versions of Python differ in whether read1 counts down by itself.
    """
    if missing is None:
        return response.read1(_PIECE_BYTES)
    if missing == 0:
        return b""
    piece = response.read1(min(_PIECE_BYTES, missing))
    if not piece:
        raise http.client.IncompleteRead(b"", missing)
    return piece


def _has_input(sock: socket.socket) -> bool:
    """True if there is something to read where nothing is due: the server has closed the connection."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
