"""HTTP to containers on the event loop: InvokeEndpoint without a thread."""

import asyncio

import httptools

from backends.engine.exchange import Answer, NoAnswer, TimedOut, has_input, head_of

Address = tuple[str, int]


class Containers:
    """Requests to containers, over connections that are kept open; for one event loop."""

    def __init__(self) -> None:
        self._idle: dict[Address, list[_Connection]] = {}

    async def post(
        self,
        address: Address,
        path: str,
        *,
        body: bytes,
        headers: dict[str, str],
        timeout_seconds: float,
        answer_limit_bytes: int,
    ) -> Answer:
        """One request, sent once, and its answer, as :meth:`Exchange.send` gives it, with the same errors."""
        start = f"{head_of(address, 'POST', path, headers)}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = await self._connection(address)
                answer = await connection.ask(start + body, answer_limit_bytes)
        except BaseException as exc:
            if connection is not None:
                connection.transport.abort()
            if isinstance(exc, TimeoutError):
                raise TimedOut(f"no answer within {timeout_seconds:g} s") from exc
            if isinstance(exc, (OSError, httptools.HttpParserError)):
                raise NoAnswer(str(exc) or type(exc).__name__) from exc
            raise
        if connection.stays_open:
            self._idle.setdefault(address, []).append(connection)
        else:
            connection.transport.close()
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.transport.abort()
        self._idle.clear()

    async def _connection(self, address: Address) -> "_Connection":
        idle = self._idle.pop(address, [])
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                self._idle[address] = idle
                return connection
            connection.transport.close()
        _, fresh = await asyncio.get_running_loop().create_connection(_Connection, *address)
        return fresh


class _Connection(asyncio.Protocol):
    """One connection, with one request under way at most; the callbacks of asyncio and of the parser."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.stays_open = True
        self._answer: asyncio.Future[Answer] | None = None

    def ask(self, request: bytes, limit_bytes: int) -> asyncio.Future[Answer]:
        """Send *request*. Raises NoAnswer, OSError, HttpParserError in the future."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._is_begun = False
        self._left_bytes = limit_bytes
        self._limit_bytes = limit_bytes
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def is_usable(self) -> bool:
        """False if the server has closed it, or says what nobody asked for."""
        return not self.transport.is_closing() and not has_input(self.transport.get_extra_info("socket").fileno())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP has no other
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stays_open = False
        if self._answer is None or self._answer.done():
            return
        # An answer that says neither its length nor that it comes in chunks ends with the connection.
        if exc is None and self._is_begun and not {"content-length", "transfer-encoding"} & self._headers.keys():
            self.on_message_complete()
        else:
            self._fail(exc or NoAnswer("the connection was closed before the answer was whole"))

    def on_message_begin(self) -> None:
        self._is_begun = False
        self._headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self._is_begun = True

    def on_body(self, piece: bytes) -> None:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            self._fail(NoAnswer(f"its answer is larger than {self._limit_bytes} bytes"))
        else:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():  # 100 Continue comes before the answer
            return
        self.stays_open = self.stays_open and self._parser.should_keep_alive()
        self._answer.set_result(Answer(status, self._headers, b"".join(self._pieces)))

    def _fail(self, exc: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)
        self.transport.abort()
