"""A request's body as it arrives."""

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from backends.emulator.protocol.models import Head

_MOST_LEFT_BYTES = 16 * 1024**2


class Incoming:
    """The pieces of a body, once. Raises ClientDisconnect while it is read: the client went away."""

    def __init__(self, head: Head, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False
        # The first look for the body is what asks such a client to send it.
        self._is_awaited = "100-continue" in head.headers.get("expect", "")

    def __aiter__(self) -> "Incoming":
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            self._is_awaited = False
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            self._is_over = not message.get("more_body", False)
            if piece := message.get("body", b""):
                return bytes(piece)
        raise StopAsyncIteration

    async def is_over(self) -> bool:
        """Read away what an answer does not wait for, if it is little; False: the connection cannot be used again."""
        left = 0
        try:
            while not self._is_over and not self._is_awaited and left <= _MOST_LEFT_BYTES:
                left += len(await anext(self, b""))
        except ClientDisconnect:
            return False
        return self._is_over
