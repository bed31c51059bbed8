"""A container's HTTP answer as its bytes arrive, whoever reads them: a thread or an event loop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httptools

_FRAMING = frozenset({"content-length", "transfer-encoding"})
_FINAL = 200


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


class Reply:
    """What has arrived of one answer, whose body may have *limit_bytes*. Interim answers (1xx) are skipped."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_whole = False
        # Whether the connection can be used again.
        self.stays_open = False
        self._pieces: list[bytes] = []
        self._left_bytes = self._limit_bytes = limit_bytes
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in *data*; empty: the connection has ended.

        Raises:
            NoAnswer: this is no HTTP, its body is too large, or it has ended too early.
        """
        if not data:
            self._end()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self.is_whole:
                raise NoAnswer(f"its answer is no HTTP: {exc}, in {data[:80]!r}") from exc
            self.stays_open = False
        if self._left_bytes is not None and self._left_bytes < 0:
            raise NoAnswer(f"its answer is larger than {self._limit_bytes} bytes")

    def taken(self) -> Iterator[bytes]:
        """The pieces of the body that have come since they were last taken."""
        pieces, self._pieces = self._pieces, []
        return iter(pieces)

    @property
    def answer(self) -> Answer:
        """The whole of it, with what of the body has not been taken."""
        return Answer(self.status, self.headers, b"".join(self.taken()))

    def _end(self) -> None:
        # What says neither its length nor that it comes in chunks ends with the connection.
        if not self.status:
            raise NoAnswer("the connection was closed without an answer")
        if not self.is_whole and _FRAMING & self.headers.keys():
            raise NoAnswer("the connection was closed before the answer was whole")
        self.is_whole = True
        self.stays_open = False

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_whole:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < _FINAL:
            self.headers.clear()
        elif not self.is_whole:
            self.status = status

    def on_body(self, piece: bytes) -> None:
        if self.is_whole:
            return
        if self._left_bytes is not None:
            self._left_bytes -= len(piece)
        self._pieces.append(piece)

    def on_message_begin(self) -> None:
        if self.is_whole:  # Something follows that nobody has asked for.
            self.stays_open = False

    def on_message_complete(self) -> None:
        if self.status and not self.is_whole:
            self.is_whole = True
            self.stays_open = self._parser.should_keep_alive()
