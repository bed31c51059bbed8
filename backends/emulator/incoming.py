"""A request's body as it arrives."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from backends.emulator.protocol.models import Head
from backends.sagemaker.readings import ServiceError

IDLE_SECONDS = 30.0
_MOST_LEFT_BYTES = 16 * 1024**2


class Incoming:
    """The pieces of a body, once.

    Raises while it is read:
        ClientDisconnect: the client went away.
        ServiceError: RequestTimeout, nothing came for *idle_seconds*.
    """

    def __init__(self, head: Head, receive: Receive, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._is_over = False
        # A client that waits to be asked for its body is asked by the first look for it; one that fell silent is lost.
        self._is_silent = "100-continue" in head.headers.get("expect", "")

    def __aiter__(self) -> "Incoming":
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            self._is_silent = True
            message = await self._message()
            if message["type"] != "http.request":
                raise ClientDisconnect
            self._is_silent = False
            self._is_over = not message.get("more_body", False)
            if piece := message.get("body", b""):
                return bytes(piece)
        raise StopAsyncIteration

    async def _message(self) -> Message:
        # What asyncio.timeout does, but that takes some 20 µs more, a twelfth of a small object's GET.
        task, is_late = asyncio.current_task(), False
        assert task is not None

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._idle_seconds, give_up)
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not is_late or task.uncancel():
                raise
            text = "Your socket connection to the server was not read from or written to within the timeout period."
            raise ServiceError("RequestTimeout", text) from None
        finally:
            timer.cancel()

    async def is_over(self) -> bool:
        """Read away what an answer does not wait for, if it is little; False: the connection cannot be used again."""
        left = 0
        try:
            while not self._is_over and not self._is_silent and left <= _MOST_LEFT_BYTES:
                left += len(await anext(self, b""))
        except (ClientDisconnect, ServiceError):
            return False
        return self._is_over

    async def is_abandoned(self) -> bool:
        """True if the body was read and the client has gone away since: nobody reads the answer."""
        if not self._is_over:
            return False
        try:
            async with asyncio.timeout(0):  # What is known by now.
                message = await self._receive()
        except TimeoutError:
            return False
        return bool(message["type"] == "http.disconnect")
