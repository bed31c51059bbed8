"""HTTP exchanges with one container over connections that are kept open. Threads share one :class:`Exchange`."""

import os
import queue
import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from backends.engine.records import Span
from backends.engine.reply import Answer, NoAnswer, Reply, TimedOut

_USER_AGENT = "AHC/2.0"  # What a container sees of SageMaker's hosting (contract B.1).
_PIECE_BYTES = 1 << 16
_OK = range(200, 300)
_LINE_BREAK = re.compile(r"[\r\n]")


class Arriving:
    """An answer whose body is still on its way. Iterate over its pieces, as they come, and close it."""

    def __init__(self, reply: Reply, sock: socket.socket, timeout_seconds: float, deadline: float) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._reply = reply
        self._sock = sock
        self._timeout_seconds = timeout_seconds
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        """The pieces. Raises TimedOut or NoAnswer where there should be another."""
        while True:
            yield from self._reply.taken()
            if self._reply.is_whole:
                return
            with _restated(self._timeout_seconds):
                _receive(self._sock, self._reply, self._deadline)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class Exchange:
    """Sends requests to one address, a host and a port."""

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
        head = head_of(self.address, method, path, headers or {})
        sock = self._sent(head, None if method == "GET" else body, timeout_seconds)
        reply = Reply(answer_limit_bytes)
        deadline = time.monotonic() + timeout_seconds
        try:
            while True:
                if sink is not None and reply.status in _OK:
                    sink.writelines(reply.taken())
                if reply.is_whole:
                    break
                with _restated(timeout_seconds):
                    _receive(sock, reply, deadline)
        except BaseException:
            sock.close()
            raise
        if reply.stays_open:
            self._idle.put(sock)
        else:
            sock.close()
        if self._is_closed:
            self.close()
        return reply.answer

    def open(self, path: str, *, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Arriving:
        """POST once; the answer as soon as its head is there. *timeout_seconds* is for the whole of it, as in send.

        Raises:
            TimedOut, NoAnswer: no head came, as for :meth:`send`.
        """
        sock = self._sent(head_of(self.address, "POST", path, headers), body, timeout_seconds)
        reply = Reply()
        deadline = time.monotonic() + timeout_seconds
        try:
            with _restated(timeout_seconds):
                while not reply.status:
                    _receive(sock, reply, deadline)
        except BaseException:
            sock.close()
            raise
        return Arriving(reply, sock, timeout_seconds, deadline)

    def _sent(self, head: str, body: bytes | Span | Iterable[bytes] | None, timeout_seconds: float) -> socket.socket:
        """The connection over which the request went."""
        with _restated(timeout_seconds):
            sock = self._connection(timeout_seconds)
            try:
                _write(sock, head, body)
            except BaseException:
                sock.close()
                raise
        return sock

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
            if not has_input(sock):
                sock.settimeout(timeout_seconds)
                return sock
            sock.close()


def head_of(address: tuple[str, int], method: str, path: str, headers: Mapping[str, str]) -> str:
    """A request's first lines, without those that say how its body ends."""
    host, port = address
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


def _receive(sock: socket.socket, reply: Reply, deadline: float) -> None:
    """Wait for more of *reply*. Raises TimeoutError, OSError, NoAnswer."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    sock.settimeout(remaining)
    reply.feed(sock.recv(_PIECE_BYTES))


@contextmanager
def _restated(timeout_seconds: float) -> Iterator[None]:
    """Say as NoAnswer what happens to a connection."""
    try:
        yield
    except TimeoutError as exc:
        raise TimedOut(f"no answer within {timeout_seconds:g} s") from exc
    except OSError as exc:
        raise NoAnswer(str(exc) or type(exc).__name__) from exc


def has_input(sock: socket.socket) -> bool:
    """True if there is something to read where nothing is due: the server has closed the connection."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
