import gzip
import io
import os
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.engine.records import (
    MEBIBYTE,
    CorruptGzip,
    Packing,
    RecordTooLarge,
    assemble,
    gunzip,
    is_file,
    output_key,
    split_batches,
    split_file,
)
from backends.specs import Split, Strategy
from backends.stores import pieces, stream_of

UNHURRIED = settings(deadline=None)  # the machine may be busy with other tests
LINES = st.lists(st.binary(max_size=12), max_size=40).map(b"\n".join)
CUTS = st.integers(min_value=1, max_value=50)


def packing(split: Split, strategy: Strategy = Strategy.MULTI_RECORD, limit: int = 0) -> Packing:
    return Packing(split=split, strategy=strategy, max_payload_bytes=limit)


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def bodies(data: bytes, how: Packing) -> list[bytes]:
    return [batch.body for batch in split_batches(io.BytesIO(data), how)]


@UNHURRIED
@given(LINES, CUTS, st.integers(min_value=13, max_value=80))
def test_packed_lines_in_a_row_are_the_object(data: bytes, cut: int, limit: int) -> None:
    """MultiRecord: the bodies joined are the input, none is over the limit, records are counted on."""
    how = packing(Split.LINE, limit=limit)
    batches = list(split_batches(chunked(data, cut), how))
    assert b"".join(assemble((batch.body for batch in batches), Split.NONE)) == data
    assert all(0 < len(batch.body) <= limit for batch in batches)
    number = 1
    for batch in batches:
        assert batch.first_record == number
        number += batch.record_count
    assert number - 1 == len(data.split(b"\n")) - data.endswith(b"\n") - (not data)


@UNHURRIED
@given(LINES, st.sampled_from(Split), st.integers(min_value=0, max_value=80))
def test_a_file_is_cut_as_what_is_read_is(data: bytes, split: Split, limit: int) -> None:
    """The spans of a file are the bodies that reading it would give, refused at the same record."""
    how = packing(split, limit=limit)

    def bodies_of(parts: Iterator[bytes]) -> tuple[list[bytes], int]:
        found: list[bytes] = []
        try:
            found.extend(parts)
        except RecordTooLarge as exc:
            return found, exc.record
        return found, 0

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        spans = (os.pread(file.fileno(), span.size_bytes, span.start) for span in split_file(file, how))
        assert bodies_of(spans) == bodies_of(batch.body for batch in split_batches(io.BytesIO(data), how))


def test_the_end_of_a_file_s_last_line_is_found_far_from_the_limit(tmp_path: Path) -> None:
    """However long the line is that has no room any more."""
    path = tmp_path / "in"
    path.write_bytes(b"a\n" + b"b" * 300_000 + b"\n")
    with path.open("rb") as file:
        assert is_file(file)
        assert [span.size_bytes for span in split_file(file, packing(Split.LINE, limit=300_001))] == [2, 300_001]


@UNHURRIED
@given(LINES, CUTS)
def test_single_lines_assemble_to_the_object(data: bytes, cut: int) -> None:
    """SingleRecord with Line and a model that echoes returns the input, its last line ended."""
    batches = list(split_batches(chunked(data, cut), packing(Split.LINE, Strategy.SINGLE_RECORD)))
    expected = data if data.endswith(b"\n") or not data else data + b"\n"
    assert b"".join(assemble((batch.body for batch in batches), Split.LINE)) == expected
    assert [batch.first_record for batch in batches] == list(range(1, len(batches) + 1))
    assert all(batch.record_count == 1 and b"\n" not in batch.body for batch in batches)


@UNHURRIED
@given(LINES, CUTS, st.integers(min_value=13, max_value=80))
def test_batches_are_as_full_as_they_can_be(data: bytes, cut: int, limit: int) -> None:
    """MultiRecord: the first line of the next batch would not have fitted."""
    found = [batch.body for batch in split_batches(chunked(data, cut), packing(Split.LINE, limit=limit))]
    for body, after in pairwise(found):
        assert len(body) + len(after.split(b"\n")[0]) + 1 > limit


def test_lines_are_cut_only_at_newlines_and_blank_ones_are_records() -> None:
    """Neither a carriage return nor a Unicode line separator ends a record; blank lines count."""
    data = "a\r\n\n\u2028b\x0b\n".encode()
    assert bodies(data, packing(Split.LINE, Strategy.SINGLE_RECORD)) == [b"a\r", b"", "\u2028b\x0b".encode()]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_an_empty_object_has_no_lines(strategy: Strategy) -> None:
    """Split Line of nothing sends nothing."""
    assert bodies(b"", packing(Split.LINE, strategy, 10)) == []


@pytest.mark.parametrize("data", [b"", b"a\nb\n"])
def test_an_unsplit_object_is_one_record(data: bytes) -> None:
    """Split None sends the object as it is, whatever the strategy, also when it is empty."""
    for strategy in Strategy:
        (batch,) = split_batches(io.BytesIO(data), packing(Split.NONE, strategy, 10))
        assert (batch.body, batch.record_count, batch.first_record) == (data, 1, 1)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("cut", [1, 4, 100])
def test_a_record_over_the_limit_is_named(strategy: Strategy, cut: int) -> None:
    """The error carries record number, size seen and limit; the batches before it were handed out."""
    source = split_batches(chunked(b"ab\ncd\n" + b"x" * 20 + b"\nef\n", cut), packing(Split.LINE, strategy, 8))
    seen: list[bytes] = []
    with pytest.raises(RecordTooLarge, match=r"Too much data for max payload size: record 3 ") as caught:
        seen.extend(batch.body for batch in source)
    assert b"".join(body.strip() for body in seen).replace(b"\n", b"") == b"abcd"
    assert (caught.value.record, caught.value.limit_bytes) == (3, 8)
    assert 8 < caught.value.size_bytes <= 21


def test_an_unsplit_object_over_the_limit_is_refused_early() -> None:
    """An object without end is given up once it is over the limit."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(RecordTooLarge, match=r"record 1 has 11000 bytes or more, a request may carry 10000"):
        list(split_batches(endless(), packing(Split.NONE, limit=10_000)))
    with pytest.raises(RecordTooLarge):
        list(split_batches(endless(), packing(Split.LINE, Strategy.SINGLE_RECORD, 10_000)))


def test_no_limit_sends_the_whole_object() -> None:
    """MaxPayloadInMB 0 with MultiRecord or without split: one request, which can be streamed."""
    data = b"line\n" * 1000
    assert bodies(data, packing(Split.LINE)) == [data]
    assert packing(Split.LINE).sends_whole
    assert packing(Split.NONE, Strategy.SINGLE_RECORD).sends_whole
    assert not packing(Split.LINE, Strategy.SINGLE_RECORD).sends_whole
    assert not packing(Split.NONE, limit=1).sends_whole


def test_the_limit_itself_is_allowed() -> None:
    """A body of exactly the limit is sent; its terminator counts where it is sent."""
    assert bodies(b"abc\nabc\n", packing(Split.LINE, limit=4)) == [b"abc\n", b"abc\n"]
    assert bodies(b"abcd\nabcd", packing(Split.LINE, Strategy.SINGLE_RECORD, 4)) == [b"abcd", b"abcd"]
    assert bodies(b"abcd", packing(Split.NONE, limit=4)) == [b"abcd"]


def test_assemble_with_line_doubles_no_newline() -> None:
    """Line ends an answer only if it has not ended; None changes nothing."""
    answers = [b"1\n2", b"3\n", b""]
    assert b"".join(assemble(answers, Split.LINE)) == b"1\n2\n3\n\n"
    assert b"".join(assemble(answers, Split.NONE)) == b"1\n23\n"


def peak_bytes(work: Iterator[object]) -> int:
    tracemalloc.start()
    try:
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("strategy", list(Strategy))
def test_memory_does_not_grow_with_the_object(strategy: Strategy) -> None:
    """Splitting 64 MiB of generated lines takes no more memory than 16 MiB, and a few payloads at most."""
    block = b"".join(b"%0300d\n" % number for number in range(3000))
    how = packing(Split.LINE, strategy, MEBIBYTE)

    def generated(total: int) -> Iterator[bytes]:
        return (block for _ in range(total // len(block)))

    small = peak_bytes(iter(split_batches(generated(16 * MEBIBYTE), how)))
    large = peak_bytes(iter(split_batches(generated(64 * MEBIBYTE), how)))
    assert large < small * 1.2
    assert large < 8 * MEBIBYTE


def test_one_long_line_takes_linear_time() -> None:
    """A line of 32 MiB that arrives in pieces of 4 KiB is joined once, not at every piece."""
    source = (b"x" * 4096 for _ in range(8192))
    started = time.process_time()
    (batch,) = split_batches(source, packing(Split.LINE, Strategy.SINGLE_RECORD))
    assert len(batch.body) == 32 * MEBIBYTE
    assert time.process_time() - started < 2


@UNHURRIED
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), CUTS, st.integers(0, 600))
def test_gunzip_reads_any_number_of_members(contents: list[bytes], cut: int, padding: int) -> None:
    """Members in a row and zero bytes after them unpack to the contents in a row."""
    data = b"".join(map(gzip.compress, contents)) + bytes(padding)
    assert b"".join(gunzip(chunked(data, cut))) == b"".join(contents)


def test_gunzip_unpacks_bombs_piece_by_piece() -> None:
    """A ratio of 1000 : 1 does not show in memory."""
    packed = gzip.compress(bytes(64 * MEBIBYTE))
    assert peak_bytes(iter(gunzip(io.BytesIO(packed)))) < 8 * MEBIBYTE
    assert sum(map(len, gunzip(io.BytesIO(packed)))) == 64 * MEBIBYTE


@UNHURRIED
@given(st.binary(min_size=1, max_size=200), st.data())
def test_gunzip_refuses_what_was_cut_or_changed(content: bytes, data: st.DataObject) -> None:
    """A stream that ends early, or whose content or checksum was changed, is an error, never less data."""
    packed = gzip.compress(content, mtime=0)
    with pytest.raises(CorruptGzip):
        list(gunzip(io.BytesIO(packed[: data.draw(st.integers(0, len(packed) - 1))])))
    place = data.draw(st.integers(10, len(packed) - 1))
    changed = bytearray(packed)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        found = b"".join(gunzip(io.BytesIO(bytes(changed))))
    except CorruptGzip:
        return
    assert found == content, "a bit that does not matter, such as padding after the last block"


def test_gunzip_refuses_other_bytes() -> None:
    """Plain text, plain deflate and rubbish after a member are named as not being gzip."""
    for data in (b"plain text", zlib.compress(b"x"), gzip.compress(b"x") + b"rubbish"):
        with pytest.raises(CorruptGzip, match="not valid gzip"):
            list(gunzip(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("prefix", "key", "expected"),
    [
        ("in/", "in/a.csv", "a.csv.out"),
        ("in", "in/a.csv", "a.csv.out"),
        ("job/batch_input", "job/batch_input/iris_sample_X_0.csv", "iris_sample_X_0.csv.out"),
        ("in/a.csv", "in/a.csv", "a.csv.out"),
        ("a.csv", "a.csv", "a.csv.out"),
        ("in/", "in/dataset01/data.csv", "dataset01/data.csv.out"),
        ("in/data", "in/dataset01/data.csv", "dataset01/data.csv.out"),
        ("in", "in2/a.csv", "in2/a.csv.out"),
        ("", "in/a.csv.gz", "in/a.csv.gz.out"),
        ("in", "in//a", "/a.out"),
    ],
)
def test_output_keys_keep_the_path_below_the_prefix(prefix: str, key: str, expected: str) -> None:
    """The path relative to the prefix stays; a prefix that ends in a component counts to its last slash."""
    assert output_key(prefix, key) == expected


def test_output_key_refuses_foreign_keys() -> None:
    """A key that is not below the prefix is a mistake of the caller."""
    with pytest.raises(ValueError, match="does not start with"):
        output_key("in/", "out/a")


@UNHURRIED
@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_streams_and_pieces_are_opposites(chunks: list[bytes], size: int) -> None:
    """What goes into stream_of comes out of it, whole or in reads of any size, and out of pieces."""
    data = b"".join(chunks)
    assert stream_of(chunks).read() == data
    stream = stream_of(chunks)
    assert b"".join(iter(lambda: stream.read(size), b"")) == data
    assert b"".join(pieces(stream_of(chunks))) == data


def test_closing_a_stream_closes_its_generator() -> None:
    """Who stops reading early can let go of what feeds the stream."""
    closed = []

    def feed() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    stream = stream_of(feed())
    assert stream.read(1) == b"a"
    stream.close()
    assert closed == [True]
