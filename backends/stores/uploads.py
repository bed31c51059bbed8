"""Multipart uploads: objects that arrive in numbered parts, in any order, and appear when they are complete.

An object always is one file, so that a reader keeps what it opened with one descriptor. Parts are written to where
they will lie in it: the first that comes says how far apart the parts begin, since all but the last are of one size.

    number    1        2        3        4
    file      ████████ ████████ ░░░░░░░░ ███

A part that comes again, does not fit or says no size gets a file of its own, for what was acknowledged is never
overwritten. Completing then only copies these into place; if the parts do not lie as they should, it copies all of them
into a new file, by the kernel. A slot of the file has one writer ever, unless that one failed and said so.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from backends.errors import Conflict, NotFound
from backends.stores.blobs import Arriving, Kept
from backends.stores.buckets import (
    Attributes,
    Buckets,
    Check,
    Checksum,
    Part,
    StoredObject,
    attribute_columns,
    attributes_of,
    microseconds,
    moment,
    now,
    read_parts,
)
from backends.stores.checksums import composite_etag

_COLUMNS = "upload, bucket, key, created_us, content_type, metadata, headers, tags, algorithm, checksum_type, blob"


@dataclass(frozen=True)
class Upload:
    """One upload under way; ``name`` is its id. *algorithm* and *checksum_type* say which checksum it will have."""

    name: str
    bucket: str
    key: str
    created: datetime
    attributes: Attributes
    algorithm: str
    checksum_type: str
    blob: str


class _Piece(NamedTuple):
    """Where a part lies: in a file of its own, in its row, or in the upload's file."""

    number: int
    etag: str
    size_bytes: int
    blob: str | None
    data: bytes | None

    @property
    def own(self) -> Kept | None:
        """None if it lies in the upload's file."""
        return None if self.blob is None and self.data is None else Kept(self.blob, self.data)


class Uploads:
    """The uploads under way to *buckets*. Errors are as there."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._folder = buckets.folder

    def begin(self, bucket: str, key: str, attributes: Attributes, *, algorithm: str, checksum_type: str) -> Upload:
        created = now()
        # Ids in the order of time are listings in the order of time.
        name = f"{microseconds(created):016x}{os.urandom(24).hex()}"
        words = f"begin an upload to s3://{bucket}/{key}"
        with self._folder.available(words), self._folder.arriving(words) as arriving:
            arriving.file()
            upload = Upload(name, bucket, key, created, attributes, algorithm, checksum_type, arriving.blob)
            columns = (*attribute_columns(attributes), algorithm, checksum_type, arriving.blob, None)
            with self._folder.keeping(arriving) as index:
                self._buckets.require(bucket, index)
                row = (name, bucket, key.encode(), microseconds(created), *columns)
                index.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return upload

    def find(self, bucket: str, key: str, name: str) -> Upload:
        with self._folder.available(f"look for upload {name}"):
            rows = self._folder.query(
                f"SELECT {_COLUMNS} FROM uploads WHERE upload = ? AND bucket = ? AND key = ?",  # noqa: S608  our own words
                (name, bucket, key.encode()),
            )
        if not rows:
            self._buckets.require(bucket)
            raise _missing(name)
        return _upload(*rows[0])

    def under_way(self, bucket: str, *, prefix: str = "") -> Iterator[Upload]:
        """All that have a key with *prefix*: by key, then by time."""
        self._buckets.require(bucket)
        with self._folder.available(f"list the uploads to bucket {bucket!r}"):
            rows = self._folder.query(
                f"SELECT {_COLUMNS} FROM uploads WHERE bucket = ? ORDER BY bucket, key, upload",  # noqa: S608
                (bucket,),
            )
        return (_upload(*row) for row in rows if row[2].startswith(prefix.encode()))

    @contextmanager
    def arriving(
        self, upload: Upload, number: int, size_bytes: int | None, algorithms: Iterable[str] = ()
    ) -> Iterator[Arriving]:
        """A place for the bytes of part *number*: *size_bytes* and no more, if that is known."""
        words = f"store part {number} of {_words(upload)}"
        with self._folder.available(words):
            offset = self._claimed(upload, number, size_bytes) if size_bytes else None
        if offset is None:
            with self._folder.arriving(words, algorithms) as arriving:
                yield arriving
            return
        try:
            with self._folder.overwriting(upload.blob, offset, words, algorithms) as arriving:
                yield arriving
        except BaseException:
            with self._folder.available(words), self._folder.transaction() as index:
                index.execute(
                    "DELETE FROM slots WHERE upload = ? AND number = ? AND NOT is_written", (upload.name, number)
                )
            raise

    def put_part(self, upload: Upload, number: int, arriving: Arriving) -> Part:
        """Make the bytes that arrived, hashed with the upload's algorithm, part *number*."""
        digests = arriving.digests
        part = Part(number, arriving.size_bytes, digests.etag, now(), digests[upload.algorithm])
        is_in_place = arriving.blob == upload.blob
        blob, data = (None, None) if is_in_place else arriving.kept
        row = (upload.name, number, blob, part.size_bytes, part.etag, microseconds(part.modified), part.checksum, data)
        storing = self._folder.available(f"store part {number} of {_words(upload)}")
        with storing, self._folder.keeping(arriving) as index:
            _require(index, upload)
            index.execute("DELETE FROM parts WHERE owner = ? AND number = ?", (upload.name, number))
            index.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            if is_in_place:
                index.execute("UPDATE slots SET is_written = 1 WHERE upload = ? AND number = ?", (upload.name, number))
        return part

    def parts(self, upload: Upload, *, after: int = 0, limit: int = -1) -> list[Part]:
        """The parts that are there, by number: at most *limit* of those over *after*."""
        with self._folder.available(f"list the parts of {_words(upload)}"):
            return read_parts(self._folder, upload.name, after=after, limit=limit)

    def complete(
        self, upload: Upload, parts: Sequence[Part], *, checksum: Checksum, check: Check | None = None
    ) -> StoredObject:
        """Make *parts* the object and end the upload; parts that are not among them are lost.

        Raises:
            Conflict: one of them was replaced meanwhile.
        """
        etag = composite_etag([part.etag for part in parts])
        size_bytes = sum(part.size_bytes for part in parts)
        made = StoredObject(upload.bucket, upload.key, size_bytes, etag, now(), upload.attributes, checksum)
        with self._folder.available(f"complete {_words(upload)}"):
            part_bytes, pieces = self._laid_out(upload, parts)
            joining = self._in_place(upload, part_bytes, pieces) if part_bytes else self._copied(upload, pieces)
            with joining as arriving, self._folder.keeping(arriving) as index:
                if not set(pieces) <= set(_pieces(index, upload)):
                    raise Conflict(
                        f"parts of {_words(upload)} were replaced meanwhile.", kind="upload", name=upload.name
                    )
                index.executemany(
                    "UPDATE parts SET owner = ?, blob = NULL, data = NULL WHERE owner = ? AND number = ?",
                    [(arriving.blob, upload.name, piece.number) for piece in pieces],
                )
                index.execute(
                    "UPDATE uploads SET blob = NULL WHERE upload = ? AND blob = ?", (upload.name, arriving.blob)
                )
                index.execute("DELETE FROM uploads WHERE upload = ?", (upload.name,))
                self._buckets.replace(index, made, arriving.kept, check)
        return made

    def abort(self, upload: Upload) -> None:
        """End the upload; its parts are gone. Quiet if it has ended."""
        with self._folder.available(f"abort {_words(upload)}"), self._folder.transaction() as index:
            index.execute("DELETE FROM uploads WHERE upload = ?", (upload.name,))

    def _claimed(self, upload: Upload, number: int, size_bytes: int) -> int | None:
        """Where in the upload's file the part may be written, by nobody else."""
        with self._folder.transaction() as index:
            index.execute(
                "UPDATE uploads SET part_bytes = ? WHERE upload = ? AND part_bytes IS NULL", (size_bytes, upload.name)
            )
            for (part_bytes,) in index.execute("SELECT part_bytes FROM uploads WHERE upload = ?", (upload.name,)):
                if size_bytes <= part_bytes:
                    claim = index.execute("INSERT OR IGNORE INTO slots VALUES (?, ?, 0)", (upload.name, number))
                    return part_bytes * (number - 1) if claim.rowcount else None
        return None

    def _laid_out(self, upload: Upload, parts: Sequence[Part]) -> tuple[int, list[_Piece]]:
        """The pieces of *parts*, and how far apart they lie in the upload's file: 0 if they do not fit there.

        If they do, nobody may claim a slot of it from now on.
        """
        with self._folder.transaction() as index:
            _require(index, upload)
            ((part_bytes,),) = index.execute("SELECT abs(part_bytes) FROM uploads WHERE upload = ?", (upload.name,))
            there = _pieces(index, upload)
            wanted = {(part.number, part.etag) for part in parts}
            pieces = [piece for piece in there if (piece.number, piece.etag) in wanted]
            if len(pieces) < len(parts):
                raise Conflict(f"parts of {_words(upload)} were replaced meanwhile.", kind="upload", name=upload.name)
            sizes = [piece.size_bytes for piece in pieces]
            is_busy = index.execute(
                "SELECT 1 FROM slots WHERE upload = ? AND NOT is_written", (upload.name,)
            ).fetchall()
            fits = (
                part_bytes
                and not is_busy
                and [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
                and sizes[:-1] == [part_bytes] * (len(sizes) - 1)
                and sizes[-1] <= part_bytes
                and all(piece.own for piece in there if piece not in pieces)
            )
            if fits:
                index.execute("UPDATE uploads SET part_bytes = -abs(part_bytes) WHERE upload = ?", (upload.name,))
        return (part_bytes if fits else 0), pieces

    @contextmanager
    def _in_place(self, upload: Upload, part_bytes: int, pieces: Sequence[_Piece]) -> Iterator[Arriving]:
        with self._folder.overwriting(upload.blob, 0, f"complete {_words(upload)}") as arriving:
            for piece in pieces:
                if piece.own:
                    os.lseek(arriving.file(), part_bytes * (piece.number - 1), os.SEEK_SET)
                    with self._folder.open(piece.own) as stream:
                        arriving.splice(stream, piece.size_bytes)
            os.ftruncate(arriving.file(), sum(piece.size_bytes for piece in pieces))
            yield arriving

    @contextmanager
    def _copied(self, upload: Upload, pieces: Sequence[_Piece]) -> Iterator[Arriving]:
        ((part_bytes,),) = self._folder.query("SELECT abs(part_bytes) FROM uploads WHERE upload = ?", (upload.name,))
        with self._folder.arriving(f"complete {_words(upload)}") as arriving:
            for piece in pieces:
                with self._folder.open(piece.own or Kept(upload.blob, None)) as stream:
                    stream.seek(0 if piece.own else part_bytes * (piece.number - 1))
                    arriving.splice(stream, piece.size_bytes)
            yield arriving


def _pieces(index: sqlite3.Connection, upload: Upload) -> list[_Piece]:
    rows = index.execute(
        "SELECT number, etag, size_bytes, blob, data FROM parts WHERE owner = ? ORDER BY number", (upload.name,)
    )
    return [_Piece(*row) for row in rows]


def _require(index: sqlite3.Connection, upload: Upload) -> None:
    if not index.execute("SELECT 1 FROM uploads WHERE upload = ?", (upload.name,)).fetchall():
        raise _missing(upload.name)


def _words(upload: Upload) -> str:
    return f"upload {upload.name} to s3://{upload.bucket}/{upload.key}"


def _missing(name: str) -> NotFound:
    return NotFound(f"upload {name} does not exist; it may have been completed or aborted.", kind="upload", name=name)


def _upload(name: str, bucket: str, key: bytes, created_us: int, content_type: str, *documents: str) -> Upload:
    *attributes, algorithm, checksum_type, blob = documents
    return Upload(
        name,
        bucket,
        key.decode(),
        moment(created_us),
        attributes_of(content_type, *attributes),
        algorithm,
        checksum_type,
        blob,
    )
