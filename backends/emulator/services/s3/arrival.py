"""Bytes from the event loop to the disk: memory stays flat, the loop waits for no disk and no long digest."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TypeVar

from backends.emulator.services.s3.payload import Payload
from backends.sagemaker.readings import ServiceError
from backends.stores import PIECE_BYTES
from backends.stores.blobs import SMALL_BYTES, Arriving, WouldWait

_MOST_BYTES = 5 * 1024**3
_MOST_READY = 3

Result = TypeVar("Result")


async def take_in(
    payload: Payload,
    receiving: Callable[[set[str]], AbstractContextManager[Arriving]],
    finish: Callable[[Arriving], Result],
    hurried: Callable[[Arriving], Result] | None = None,
) -> Result:
    """Write *payload* to the place that *receiving* opens for these digests, verify it, and *finish*; in threads.

    A large body has threads of its own, so that a slow client keeps nobody else's; a small one takes one once, or
    none: *hurried* does what *finish* does, or raises WouldWait where that would hold up the loop.

    Raises:
        ServiceError: the body is too large, broken, or not what the client meant.
    """
    if (payload.size_bytes or 0) > _MOST_BYTES:
        raise _too_large(payload.size_bytes)
    algorithms = {*payload.algorithms, "MD5"}

    def verified(arriving: Arriving, last: bytes, keep: Callable[[Arriving], Result]) -> Result:
        arriving.write(last)
        payload.verify(arriving.digests)
        return keep(arriving)

    def at_once(data: bytes, keep: Callable[[Arriving], Result]) -> Result:
        with receiving(algorithms) as arriving:
            return verified(arriving, data, keep)

    batches = _batches(payload)
    first = await anext(batches)
    if hurried and len(first) <= SMALL_BYTES:
        with suppress(WouldWait):
            return at_once(first, hurried)
    if len(first) < PIECE_BYTES:
        return await asyncio.to_thread(at_once, first, finish)
    opened = ExitStack()
    try:
        arriving = await asyncio.to_thread(opened.enter_context, receiving(algorithms))
        last = await _written(arriving, first, batches)
        return await asyncio.to_thread(verified, arriving, last, finish)
    finally:
        await asyncio.to_thread(opened.close)


async def _written(arriving: Arriving, first: bytes, batches: AsyncIterator[bytes]) -> bytes:
    """Write all but the last batch, which is returned; the threads find some batches ready and wait for nobody."""
    loop, digester, writer = asyncio.get_running_loop(), ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def start(batch: bytes) -> asyncio.Future[tuple[None, None]]:
        return asyncio.gather(
            loop.run_in_executor(digester, arriving.digests.update_etag, batch),
            loop.run_in_executor(writer, arriving.keep, batch),
        )

    writing, held = deque([start(first)]), b""
    try:
        async for batch in batches:
            if len(batch) < PIECE_BYTES:
                held = batch
                break
            if arriving.size_bytes > _MOST_BYTES:
                raise _too_large(arriving.size_bytes)
            writing.append(start(batch))
            if len(writing) > _MOST_READY:
                await writing.popleft()
        for written in writing:
            await written
    finally:
        for pool in (digester, writer):  # never leave a thread behind that writes to a file that is closed
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        await asyncio.gather(*writing, return_exceptions=True)  # the first that failed says enough
    return held


async def _batches(payload: Payload) -> AsyncIterator[bytes]:
    """The payload in batches of at least PIECE_BYTES, and a last one that is smaller, perhaps empty."""
    held: list[bytes] = []
    count = 0
    async for piece in payload.unverified():
        held.append(piece)
        count += len(piece)
        if count >= PIECE_BYTES:
            yield b"".join(held)
            held.clear()
            count = 0
    yield b"".join(held)


def _too_large(size_bytes: int | None) -> ServiceError:
    text = "Your proposed upload exceeds the maximum allowed size"
    return ServiceError("EntityTooLarge", text, ProposedSize=size_bytes, MaxSizeAllowed=_MOST_BYTES)
