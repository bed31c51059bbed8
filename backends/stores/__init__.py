"""Object stores, and the two shapes in which bytes travel to and from them: streams and pieces.

``files`` keeps objects on this machine's disk, ``s3`` in any S3. Neither is imported from here,
so that using one never costs, or needs, the other.
"""

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

PIECE_BYTES = 1 << 20


def pieces(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Yield what *source* holds in non-empty pieces; a file-like source in pieces of at most 1 MiB.

    *source* is read to its end and not closed.
    """
    read = getattr(source, "read", None)
    found: Iterable[bytes] = iter(lambda: read(PIECE_BYTES), b"") if read else source
    return (piece for piece in found if piece)


def stream_of(chunks: Iterable[bytes]) -> BinaryIO:
    """A readable stream over *chunks*, which are asked for as the reader goes on.

    The opposite of :func:`pieces`: it hands what is made piece by piece (an archive, a transform's
    output) to an object store without holding it whole. It cannot seek; closing it closes a generator.
    """
    return io.BufferedReader(_PieceStream(chunks), PIECE_BYTES)


class _PieceStream(io.RawIOBase):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = pieces(chunks)
        self._origin = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names no public type
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        closer = getattr(self._origin, "close", None)
        if closer and not self.closed:
            closer()
        super().close()
