"""Batch transform's record arithmetic: one input object into request bodies, answers into one output.

    object ─(gunzip)─ split_batches ─► Batch, Batch, … ─ model ─► answers ─ assemble ─► object + ".out"
    file ──────────── split_file ────► Span, Span, …

Everything streams: the memory in use depends on the payload limit, never on the object's size, and a file's bodies
are not read at all.
Where AWS's own behaviour is not documented the choice is said in the docstring.
"""

import io
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from backends.errors import BackendError
from backends.specs import Split, Strategy
from backends.stores import PIECE_BYTES, pieces

MEBIBYTE = 1024**2
DEFAULT_MAX_PAYLOAD_BYTES = 6 * MEBIBYTE
_LOOK_BYTES = 1 << 16
_GZIP_SLICE_BYTES = 1 << 16  # zlib copies what follows a member, so slices bound the cost of tiny members
_GZIP_FORMAT = 31  # zlib's window size 15, plus 16 for a gzip frame


class BadObject(BackendError, ValueError):
    """One object of a transform cannot be carried through; the others are still processed."""


class RecordTooLarge(BadObject):
    """A record, or a whole unsplit object, does not fit into one request.

    ``record`` counts from 1. ``size_bytes`` is how much of it was seen before giving up, so the
    record may be larger; ``limit_bytes`` is what one request may carry.
    """

    def __init__(self, record: int, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"Too much data for max payload size: record {record} has {size_bytes} bytes or more, "
            f"a request may carry {limit_bytes}. Raise MaxPayloadInMB or cut the record.",
            kind="record",
            name=str(record),
            reason="Too much data for max payload size",
        )
        self.record = record
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class CorruptGzip(BadObject):
    """Input that was declared to be gzip is not, is damaged, or ends too early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The body of one request: *record_count* records, of which the first is number *first_record* (from 1)."""

    body: bytes
    record_count: int
    first_record: int


@dataclass(frozen=True, slots=True)
class Span:
    """The body of one request as *size_bytes* of an open file, from *start* on; the system sends it from there."""

    file: BinaryIO
    start: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How objects are cut into records and records into requests.

    *max_payload_bytes* limits the body as it is sent; 0 means no limit. *strategy* matters only
    where objects are split.
    """

    split: Split = Split.NONE
    strategy: Strategy = Strategy.MULTI_RECORD
    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES

    @property
    def sends_lines(self) -> bool:
        """True if every line is a request."""
        return self.split is Split.LINE and self.strategy is Strategy.SINGLE_RECORD

    @property
    def sends_whole(self) -> bool:
        """True if one request carries the whole object, whatever its size.

        SageMaker sends it with chunked encoding. Send ``pieces(source)`` then, to hold little of it
        in memory; :func:`split_batches` is right too but makes one body of everything.
        """
        return self.max_payload_bytes == 0 and not self.sends_lines


def split_batches(source: BinaryIO | Iterable[bytes], packing: Packing) -> Iterator[Batch]:
    r"""Cut one object into request bodies, in order.

    Split None: the whole object is one record, also when it is empty. Split Line: a record is the
    text up to ``\n``. MultiRecord packs as many whole lines as fit and keeps every terminator, so the
    bodies in a row are the object; SingleRecord sends a line without its ``\n`` (a ``\r`` stays).
    Blank lines are records; nothing follows a final ``\n``; an empty object has no lines.

    Raises:
        RecordTooLarge: at the record that exceeds the limit; earlier batches were yielded.
    """
    if packing.split is Split.NONE:
        return _whole(source, packing.max_payload_bytes)
    if packing.sends_lines:
        return _single_lines(source, packing.max_payload_bytes)
    return _packed_lines(source, packing.max_payload_bytes)


def is_file(source: BinaryIO) -> bool:
    """True for a file of this machine, which :func:`split_file` can take."""
    return isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO)


def split_file(file: BinaryIO, packing: Packing) -> Iterator[Span]:
    """Cut a file into the same bodies as :func:`split_batches`, looking only where one has to end.

    Not for *packing* that sends lines one by one. The file has to stay open, and as it is, until all are sent.

    Raises:
        RecordTooLarge: as split_batches does.
    """
    size, limit = os.fstat(file.fileno()).st_size, packing.max_payload_bytes
    if packing.split is Split.NONE:
        if size > limit > 0:
            raise RecordTooLarge(1, size, limit)
        yield Span(file, 0, size)
        return
    start = 0
    while start < size:
        end = _line_end(file, start, start + limit) if size - start > limit > 0 else size
        if end == start:
            raise RecordTooLarge(_line_count(file, start) + 1, min(size - start, limit + 1), limit)
        yield Span(file, start, end - start)
        start = end


def _line_end(file: BinaryIO, start: int, end: int) -> int:
    """Where the last line that ends in the file's bytes from *start* to *end* does; *start* if none."""
    while end > start:
        begin = max(start, end - _LOOK_BYTES)
        found = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return start


def _line_count(file: BinaryIO, end: int) -> int:
    """How many lines end in the first *end* bytes of the file."""
    starts = range(0, end, PIECE_BYTES)
    return sum(os.pread(file.fileno(), min(PIECE_BYTES, end - at), at).count(b"\n") for at in starts)


def _whole(source: BinaryIO | Iterable[bytes], limit: int) -> Iterator[Batch]:
    held: list[bytes] = []
    held_bytes = 0
    for piece in pieces(source):
        held.append(piece)
        held_bytes += len(piece)
        if limit and held_bytes > limit:
            raise RecordTooLarge(1, held_bytes, limit)
    yield Batch(body=b"".join(held), record_count=1, first_record=1)


def _packed_lines(source: BinaryIO | Iterable[bytes], limit: int) -> Iterator[Batch]:
    held: list[bytes] = []  # Joined once for each body: growing one buffer would cost more than sending it.
    held_bytes = 0
    record = 1
    for piece in pieces(source):
        held.append(piece)
        held_bytes += len(piece)
        while limit and held_bytes > limit:
            rest = _cut(held, held_bytes - limit)
            if not held:
                raise _too_large(b"".join(rest), record, limit)
            batch = _packed(held, record)
            held, held_bytes = rest, sum(map(len, rest))
            record += batch.record_count
            yield batch
            del batch  # Nobody needs it while the next one is made.
    if held_bytes:
        yield _packed(held, record)


def _cut(held: list[bytes], excess: int) -> list[bytes]:
    """Take what follows the last line end from *held*, whose last *excess* bytes do not count; return that.

    Linear: the search runs backwards and stops at the first line end.
    """
    rest: list[bytes] = []
    while held:
        piece = held.pop()
        end = piece.rfind(b"\n", 0, len(piece) - excess) + 1
        rest.append(piece[end:])
        if end:
            held.append(piece[:end])
            break
        excess = 0
    return rest[::-1]


def _packed(held: list[bytes], first_record: int) -> Batch:
    body = b"".join(held)
    count = body.count(b"\n") + (not body.endswith(b"\n"))
    return Batch(body=body, record_count=count, first_record=first_record)


def _too_large(held: bytes, record: int, limit: int) -> RecordTooLarge:
    return RecordTooLarge(record, held.find(b"\n") + 1 or len(held), limit)


def _single_lines(source: BinaryIO | Iterable[bytes], limit: int) -> Iterator[Batch]:
    for record, body in enumerate(_lines(source, limit), start=1):
        if limit and len(body) > limit:
            raise RecordTooLarge(record, len(body), limit)
        yield Batch(body=body, record_count=1, first_record=record)


def _lines(source: BinaryIO | Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield lines without their end; a line that has not ended is cut once it is over the limit."""
    begun: list[bytes] = []
    begun_bytes = 0
    for piece in pieces(source):
        first, *ended = piece.split(b"\n")
        begun.append(first)
        begun_bytes += len(first)
        if ended:
            yield b"".join(begun)
            yield from ended[:-1]
            begun, begun_bytes = [ended[-1]], len(ended[-1])
        if limit and begun_bytes > limit:
            break
    rest = b"".join(begun)
    if rest:
        yield rest


def assemble(answers: Iterable[bytes], assemble_with: Split) -> Iterator[bytes]:
    r"""Yield the pieces of the output object, one for each of the model's *answers*, in their order.

    Line ends every answer with ``\n`` unless it already ends with one, so that a model which answers
    with whole lines does not leave blank ones; None changes nothing.
    """
    if assemble_with is Split.NONE:
        return iter(answers)
    return (answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def gunzip(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Yield the unpacked content of a gzip stream of one or more members, at most 1 MiB at a time.

    Zero bytes after the last member are padding.

    Raises:
        CorruptGzip: not gzip, a wrong checksum, other bytes after the end, or no end.
    """
    unpack, members = None, 0
    for piece in _slices(source, _GZIP_SLICE_BYTES):
        rest = piece if unpack or not members else piece.lstrip(b"\0")
        while rest:
            unpack = unpack or zlib.decompressobj(_GZIP_FORMAT)
            content = _inflate(unpack, rest)
            if content:
                yield content
            rest = unpack.unconsumed_tail
            if unpack.eof:
                rest, unpack, members = unpack.unused_data.lstrip(b"\0"), None, members + 1
    if unpack or not members:
        raise CorruptGzip("the gzip data ends before its end mark; was the upload cut off?", kind="gzip")


def _slices(source: BinaryIO | Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces(source):
        for start in range(0, len(piece), size):
            yield piece[start : start + size]


def _inflate(unpack: "zlib._Decompress", data: bytes) -> bytes:
    try:
        return unpack.decompress(data, PIECE_BYTES)
    except zlib.error as exc:
        raise CorruptGzip(f"the data is not valid gzip ({exc}).", kind="gzip", reason=str(exc)) from exc


def output_key(prefix_key: str, input_key: str) -> str:
    """The key, below S3OutputPath, of the output made from *input_key* of an input prefix.

    The path relative to the prefix is kept and ``.out`` appended. A prefix that ends inside a
    component counts only up to its last ``/``, so a single object gives its base name. AWS's guide
    contradicts itself for nested prefixes; the flat cases are as its listings show.

    Raises:
        ValueError: *input_key* is not below *prefix_key*.
    """
    if not input_key.startswith(prefix_key):
        raise ValueError(f"key {input_key!r} does not start with the input prefix {prefix_key!r}")
    is_folder = input_key.startswith("/", len(prefix_key))
    folder = f"{prefix_key}/" if prefix_key and is_folder else prefix_key[: prefix_key.rfind("/") + 1]
    return f"{input_key.removeprefix(folder)}.out"
