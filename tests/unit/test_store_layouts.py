"""Stores that another version wrote: earlier ones are brought forward, later ones left alone."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backends.errors import BackendError
from backends.stores.blobs import SMALL_BYTES
from backends.stores.buckets import _LAYOUTS, Checksum
from backends.stores.files import FileStore
from backends.stores.uploads import Uploads

FILL = b"." * SMALL_BYTES  # with it, anything is large enough for a file of its own


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def uri(key: str) -> str:
    return f"s3://bucket/{key}"


def files(root: Path) -> list[Path]:
    return [path for path in (root / "blobs").rglob("*") if path.is_file()]


def test_an_earlier_layout_is_brought_forward(root: Path) -> None:
    """What the first version wrote is read, described, replaced and cleared away."""
    blob = "7f" * 16
    (root / "blobs" / "7f").mkdir(parents=True)
    (root / "blobs" / "7f" / blob).write_bytes(b"first")
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.executescript(f"{_LAYOUTS[0]} CREATE TABLE doomed (blob TEXT PRIMARY KEY) WITHOUT ROWID")
        index.execute("INSERT INTO buckets VALUES ('bucket')")
        row = ("bucket", b"a", blob, 5, hashlib.md5(b"first", usedforsecurity=False).hexdigest(), 1, "text/x", "{}")
        index.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        index.execute("PRAGMA user_version = 1")
        index.commit()
    with closing(FileStore(root)) as store:
        assert (store.get(uri("a")), store.stat(uri("a")).content_type) == (b"first", "text/x")
        store.put(uri("a"), b"second")
        store.put(uri("b"), b"third")
    with closing(FileStore(root)) as store:
        assert (store.get(uri("a")), store.get(uri("b"))) == (b"second", b"third")
    assert not files(root)


def test_small_bytes_of_the_second_layout_come_into_their_rows(root: Path) -> None:
    """They lay in a table of their own, those of objects and of parts that have been sent."""
    (root / "blobs" / "7f").mkdir(parents=True)
    (root / "blobs" / "7f" / "7f00").write_bytes(FILL + b"large")
    (root / "blobs" / "7f" / "7f01").write_bytes(b"")
    of = ("text/x", "{}", "{}", "{}")
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.executescript(f"CREATE TABLE doomed (blob TEXT PRIMARY KEY) WITHOUT ROWID; {_LAYOUTS[0]} {_LAYOUTS[1]}")
        index.execute("INSERT INTO buckets VALUES ('bucket', 1)")
        for key, blob, size in ((b"large", "7f00", len(FILL) + 5), (b"small", "7f02", 5)):
            row = ("bucket", key, blob, size, "etag", 1, *of, "CRC32", "AAAAAA==")
            index.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        upload_row = ("u", "bucket", b"joined", 1, *of, "CRC32", "COMPOSITE", "7f01", None)
        index.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", upload_row)
        index.execute("INSERT INTO parts VALUES ('u', 1, '7f03', 4, ?, 1, 'AAAAAA==')", ("0" * 32,))
        index.executemany("INSERT INTO small VALUES (?, ?)", [("7f02", b"small"), ("7f03", b"part")])
        index.execute("PRAGMA user_version = 2")
        index.commit()
    with closing(FileStore(root)) as store:
        assert (store.get(uri("large")), store.get(uri("small"))) == (FILL + b"large", b"small")
        uploads = Uploads(store.buckets)
        upload = uploads.find("bucket", "joined", "u")
        uploads.complete(upload, uploads.parts(upload), checksum=Checksum("CRC32", "AAAAAA==-1"))
        assert store.get(uri("joined")) == b"part"
        for written in ("large", "small", "joined"):
            store.delete(uri(written))
    assert not files(root)


def test_a_later_layout_is_refused(root: Path) -> None:
    """A store written by a later version is left alone."""
    FileStore(root).close()
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.execute("PRAGMA user_version = 9")
    with pytest.raises(BackendError, match="layout 9, this one knows 3"):
        FileStore(root)
