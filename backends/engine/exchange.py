"""HTTP exchanges with one container over connections that are kept open. Threads share one :class:`Exchange`."""

import http.client
import queue
import select
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

_USER_AGENT = "AHC/2.0"  # What a container sees of SageMaker's hosting (contract B.1).
_PIECE_BYTES = 1 << 16
_OK = range(200, 300)


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
    """Sends requests to one address, a host and a port."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._is_closed = False

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterable[bytes] | None = None,
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
        connection = self._connection(timeout_seconds)
        try:
            connection.request(method, path, body=body, headers={"User-Agent": _USER_AGENT, **(headers or {})})
            answer = _receive(connection, time.monotonic() + timeout_seconds, answer_limit_bytes, sink)
        except TimeoutError as exc:
            connection.close()
            raise TimedOut(f"no answer within {timeout_seconds:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise NoAnswer(str(exc) or type(exc).__name__) from exc
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)
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

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        """An idle connection that the server still holds open, else a new one."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return http.client.HTTPConnection(*self.address, timeout=timeout_seconds)
            connection.timeout = timeout_seconds
            # No socket: the server asked for the connection's end; the next request opens another.
            if connection.sock is None:
                return connection
            if not _has_input(connection.sock):
                connection.sock.settimeout(timeout_seconds)
                return connection
            connection.close()


def _receive(
    connection: http.client.HTTPConnection, deadline: float, limit_bytes: int | None, sink: BinaryIO | None
) -> Answer:
    sock = connection.sock  # Kept, for getresponse() lets go of it when the server wants the connection closed.
    with connection.getresponse() as response:
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
