"""HTTP exchanges with one container over connections that are kept open. Threads share one :class:`Exchange`."""

import http.client
import queue
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

_HOST = "127.0.0.1"
_USER_AGENT = "AHC/2.0"  # What a container sees of SageMaker's hosting (contract B.1).


class NoAnswer(Exception):
    """The container closed the connection, refused it or did not answer in time; the text says which."""


@dataclass(frozen=True)
class Answer:
    """A container's whole answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """Sends requests to one loopback port. *timeout_seconds* bounds each wait for bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Answer:
        """One request and its answer. An iterable *body* travels in chunks.

        Raises:
            NoAnswer: no whole answer came.
        """
        sent_headers = {"User-Agent": _USER_AGENT, **(headers or {})}
        connection, kept = self._connection(timeout_seconds)
        try:
            try:
                connection.request(method, path, body=body, headers=sent_headers)
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
                # The server closed a kept connection while it was idle: that request never began.
                if not kept or not isinstance(body, bytes):
                    raise
                connection.close()
                connection.request(method, path, body=body, headers=sent_headers)
                response = connection.getresponse()
            answer = Answer(response.status, _lowered(response), response.read())
        except TimeoutError as exc:
            connection.close()
            raise NoAnswer(f"no answer within {timeout_seconds:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise NoAnswer(f"{type(exc).__name__}: {exc}") from exc
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)
        return answer

    def close(self) -> None:
        """Close the connections that are idle."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def _connection(self, timeout_seconds: float) -> tuple[http.client.HTTPConnection, bool]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return http.client.HTTPConnection(_HOST, self._port, timeout=timeout_seconds), False
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        return connection, True


def _lowered(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def chunks(file: IO[bytes], size_bytes: int = 1 << 16) -> Iterable[bytes]:
    """The rest of *file* in pieces."""
    while piece := file.read(size_bytes):
        yield piece
