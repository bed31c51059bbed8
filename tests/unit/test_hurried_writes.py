"""Writes that may not wait, for the sake of an event loop: they are done at once, or nothing is and they say so."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backends.stores.blobs import SMALL_BYTES, WouldWait
from backends.stores.buckets import Attributes, Buckets

MIB = 1024**2
FILL = b"." * SMALL_BYTES  # with it, anything is large enough for a file of its own


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def buckets(root: Path) -> Iterator[Buckets]:
    with closing(Buckets(root)) as opened:
        opened.create("bucket")
        yield opened


def put(buckets: Buckets, key: str, data: bytes, *, may_wait: bool = True) -> None:
    with buckets.arriving("bucket", key) as arriving:
        arriving.write(data)
        buckets.put("bucket", key, arriving, Attributes(), may_wait=may_wait)


def put_in_a_hurry(buckets: Buckets, key: str, data: bytes) -> None:
    """What the emulator does on its event loop."""
    put(buckets, key, data, may_wait=False)


def content(buckets: Buckets) -> bytes:
    with buckets.open("bucket", "a")[1] as stream:
        return stream.read()


def test_a_writer_in_a_hurry_waits_for_nobody(buckets: Buckets, root: Path) -> None:
    """Not for another process that writes; then nothing has changed, and it works as soon as that one is done."""
    put_in_a_hurry(buckets, "a", b"old")
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WouldWait):
            put_in_a_hurry(buckets, "a", b"new")
        other.execute("ROLLBACK")
    assert content(buckets) == b"old"
    put_in_a_hurry(buckets, "a", b"new")
    assert content(buckets) == b"new"


def test_a_writer_in_a_hurry_waits_for_no_thread(buckets: Buckets) -> None:
    """Nor for another one of its own process."""
    writes, is_over = threading.Event(), threading.Event()

    def write() -> None:
        with buckets.folder.transaction():
            writes.set()
            assert is_over.wait(30)

    thread = threading.Thread(target=write)
    thread.start()
    assert writes.wait(30)
    with pytest.raises(WouldWait):
        put_in_a_hurry(buckets, "a", b"new")
    is_over.set()
    thread.join()
    put_in_a_hurry(buckets, "a", b"new")
    assert content(buckets) == b"new"


def test_a_writer_in_a_hurry_removes_no_file(buckets: Buckets, root: Path) -> None:
    """A large file takes long to go."""
    put(buckets, "a", FILL + b"large")
    with pytest.raises(WouldWait):
        put_in_a_hurry(buckets, "a", b"small")
    assert content(buckets) == FILL + b"large"
    assert len([path for path in (root / "blobs").rglob("*") if path.is_file()]) == 1


def test_a_writer_in_a_hurry_leaves_the_checkpoint_to_others(buckets: Buckets, root: Path) -> None:
    """The log does not grow for ever: now and then one is told to wait, as the disk does at a checkpoint."""
    told = 0
    for _ in range(3000):
        try:
            put_in_a_hurry(buckets, "a", FILL[:8000])
        except WouldWait:
            told += 1
            put(buckets, "a", FILL[:8000])
    assert 0 < told < 30
    assert (root / "index.sqlite-wal").stat().st_size < 30 * MIB


def test_a_durable_store_always_waits(root: Path) -> None:
    """For the disk."""
    with closing(Buckets(root, durable=True)) as buckets:
        buckets.create("bucket")
        with pytest.raises(WouldWait):
            put_in_a_hurry(buckets, "a", b"new")
