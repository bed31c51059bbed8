import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from backends.emulator.incoming import Incoming
from backends.emulator.protocol.models import Head
from backends.sagemaker.readings import ServiceError

MIB = 1024**2


def incoming(messages: Iterable[tuple[str, bytes, bool]], **headers: str) -> Incoming:
    """A body of these messages, behind which nothing ever comes."""
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        for kind, body, more_body in left:
            return {"type": kind, "body": body, "more_body": more_body}
        await asyncio.Event().wait()
        raise AssertionError

    return Incoming(Head(method="PUT", path="/", query={}, headers=headers), receive, idle_seconds=0.05)


async def whole(body: Incoming) -> bytes:
    return b"".join([piece async for piece in body])


def test_a_body_ends_with_its_last_message() -> None:
    """Empty messages are no pieces."""

    async def check() -> None:
        body = incoming([("http.request", b"a", True), ("http.request", b"", True), ("http.request", b"b", False)])
        assert await whole(body) == b"ab"
        assert await body.is_over()

    asyncio.run(check())


def test_a_client_that_falls_silent_is_given_up() -> None:
    """S18: AWS's RequestTimeout, and the connection is not used again."""

    async def check() -> None:
        body = incoming([("http.request", b"a", True)])
        with pytest.raises(ServiceError) as caught:
            await whole(body)
        assert caught.value.code == "RequestTimeout"
        assert not await body.is_over()

    asyncio.run(check())


def test_a_client_that_goes_away_is_noticed() -> None:
    """The body is not complete."""

    async def check() -> None:
        body = incoming([("http.request", b"a", True), ("http.disconnect", b"", False)])
        with pytest.raises(ClientDisconnect):
            await whole(body)
        assert not await body.is_over()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("headers", "size", "is_over"), [({}, MIB, True), ({}, 100 * MIB, False), ({"expect": "100-continue"}, MIB, False)]
)
def test_what_nobody_wants_is_read_away(headers: dict[str, str], size: int, is_over: bool) -> None:  # noqa: FBT001
    """If it is little and under way already; else the connection ends."""

    async def check() -> None:
        pieces = [("http.request", bytes(MIB), number + 1 < size // MIB) for number in range(size // MIB)]
        assert await incoming(pieces, **headers).is_over() is is_over

    asyncio.run(check())
