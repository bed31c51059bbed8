"""What the emulator makes of a container's answers, byte by byte."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from backends.emulator.containers import Containers
from backends.engine.reply import Answer, NoAnswer, TimedOut

Post = Callable[[], Coroutine[Any, Any, Answer]]
LIMIT_BYTES = 100
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def with_container(answers: list[bytes], act: Callable[[Post], Coroutine[Any, Any, Any]]) -> tuple[Any, int]:
    """What *act* returns, which posts to a container that gives *answers* in turn, and the number of connections.

    The container closes the connection where an answer says CLOSE.
    """

    async def run() -> tuple[Any, int]:
        left = iter(answers)
        serving: set[asyncio.Task[None] | None] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.current_task())
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await reader.readuntil(b"question"):
                    answer = next(left)
                    writer.write(answer.removesuffix(b"CLOSE"))
                    if answer.endswith(b"CLOSE"):
                        break
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        containers = Containers()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def post() -> Answer:
            return await containers.post(
                address, "/", body=b"question", headers={}, timeout_seconds=0.5, answer_limit_bytes=LIMIT_BYTES
            )

        try:
            return await act(post), len(serving)
        finally:
            containers.close()
            server.close()
            await asyncio.gather(*filter(None, serving))

    return asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.0 200 OK\r\n\r\nokCLOSE",
    ],
)
def test_a_whole_answer(answer: bytes) -> None:
    """By length, in chunks, after an interim answer, or up to the end of the connection."""
    found, _ = with_container([answer], lambda post: post())
    assert (found.status, found.body) == (200, b"ok")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nokCLOSE", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\noCLOSE", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, NoAnswer),
        (b"SSH-2.0-OpenSSH_9.6\r\n", NoAnswer),
        (b"CLOSE", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", TimedOut),
    ],
)
def test_no_whole_answer(answer: bytes, error: type[NoAnswer]) -> None:
    """Cut off, too large, no HTTP, or late; the next request has a connection of its own."""

    async def act(post: Post) -> Answer:
        with pytest.raises(NoAnswer) as caught:
            await post()
        assert caught.type is error
        return await post()

    found, connections = with_container([answer, WHOLE], act)
    assert (found.body, connections) == (b"ok", 2)


def test_connections_are_kept() -> None:
    """One client needs one connection."""

    async def act(post: Post) -> list[Answer]:
        return [await post() for _ in range(3)]

    found, connections = with_container([WHOLE] * 3, act)
    assert ([answer.body for answer in found], connections) == ([b"ok"] * 3, 1)


@pytest.mark.parametrize("answer", [WHOLE + b"CLOSE", WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
def test_a_connection_that_ends_is_not_used_again(answer: bytes) -> None:
    """Said to, or closed without a word."""

    async def act(post: Post) -> list[Answer]:
        return [await post() for _ in range(2)]

    found, connections = with_container([answer, WHOLE], act)
    assert ([answer.body for answer in found], connections) == ([b"ok"] * 2, 2)
