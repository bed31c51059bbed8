"""HTTP to containers on the event loop: InvokeEndpoint without a thread."""

import asyncio
import select

from backends.engine.exchange import head_of
from backends.engine.reply import Answer, NoAnswer, Reply, TimedOut

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
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        connection: _Connection | None = None
        try:
            connection = await self._connection(address, deadline)
            answer = await connection.ask(start + body, answer_limit_bytes, deadline)
        except BaseException as exc:
            if connection is not None:
                connection.transport.abort()
            if isinstance(exc, TimeoutError):
                raise TimedOut(f"no answer within {timeout_seconds:g} s") from exc
            if isinstance(exc, OSError):
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

    async def _connection(self, address: Address, deadline: float) -> "_Connection":
        idle = self._idle.pop(address, [])
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                self._idle[address] = idle
                return connection
            connection.transport.close()
        async with asyncio.timeout_at(deadline):
            _, fresh = await asyncio.get_running_loop().create_connection(_Connection, *address)
        return fresh


class _Connection(asyncio.Protocol):
    """One connection, with one request under way at most."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.stays_open = True
        self._reply = Reply()
        self._answer: asyncio.Future[Answer] | None = None
        self._input = select.poll()

    async def ask(self, request: bytes, limit_bytes: int, deadline: float) -> Answer:
        """Send *request* and wait for its answer. Raises NoAnswer, TimeoutError, OSError."""
        loop = asyncio.get_running_loop()
        self._reply, self._answer = Reply(limit_bytes), loop.create_future()
        timer = loop.call_at(deadline, self._expire)
        self.transport.write(request)
        try:
            return await self._answer
        finally:
            timer.cancel()

    def is_usable(self) -> bool:
        """False if the server has closed it, or says what nobody asked for."""
        return not self.transport.is_closing() and not self._input.poll(0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP has no other
        self.transport = transport
        self._input.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stays_open = False
        if exc is None:
            self._feed(b"")
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TimeoutError())

    def _feed(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.transport.abort()
            return
        try:
            self._reply.feed(data)
        except NoAnswer as exc:
            self._answer.set_exception(exc)
            self.transport.abort()
            return
        if self._reply.is_whole:
            self.stays_open = self.stays_open and self._reply.stays_open
            self._answer.set_result(self._reply.answer)
