"""Multipart uploads: objects that arrive in numbered parts, in any order, and appear when they are complete.

Each part is a file like an object's. Completing puts them into one, so that an object always is one file: a reader
keeps what it opened with one descriptor. The kernel does it; where a file system can share extents nothing is copied.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from backends.errors import BackendError, Conflict, NotFound
from backends.stores.blobs import Arriving
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

_COLUMNS = "upload, bucket, key, created_us, content_type, metadata, headers, tags, algorithm, checksum_type"


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


class Uploads:
    """The uploads under way to *buckets*. Errors are as there."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._folder = buckets.folder

    def begin(self, bucket: str, key: str, attributes: Attributes, *, algorithm: str, checksum_type: str) -> Upload:
        created = now()
        # Ids in the order of time are listings in the order of time.
        name = f"{microseconds(created):016x}{secrets.token_hex(24)}"
        upload = Upload(name, bucket, key, created, attributes, algorithm, checksum_type)
        columns = attribute_columns(attributes)
        row = (name, bucket, key.encode(), microseconds(created), *columns, algorithm, checksum_type)
        with self._folder.available(f"begin {_words(upload)}"), self._folder.transaction() as index:
            self._buckets.require(bucket, index)
            index.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
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

    def arriving(self, upload: Upload, algorithms: Iterable[str] = ()) -> AbstractContextManager[Arriving]:
        """A place for a part's bytes; see :meth:`Buckets.arriving`."""
        return self._folder.arriving(f"store a part of {_words(upload)}", algorithms)

    def put_part(self, upload: Upload, number: int, arriving: Arriving) -> Part:
        """Make the bytes that arrived, hashed with the upload's algorithm, part *number*."""
        digests = arriving.digests
        part = Part(number, arriving.size_bytes, digests.etag, now(), digests[upload.algorithm])
        storing = self._folder.available(f"store part {number} of {_words(upload)}")
        with storing, self._folder.keeping(arriving) as index:
            if not index.execute("SELECT 1 FROM uploads WHERE upload = ?", (upload.name,)).fetchall():
                raise _missing(upload.name)
            index.execute("DELETE FROM parts WHERE owner = ? AND number = ?", (upload.name, number))
            index.execute(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    upload.name,
                    number,
                    arriving.blob,
                    part.size_bytes,
                    part.etag,
                    microseconds(part.modified),
                    part.checksum,
                ),
            )
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
        words = _words(upload)
        with self._folder.available(f"complete {words}"), self._folder.arriving(f"complete {words}") as arriving:
            blobs = self._blobs(upload, parts)
            for blob in blobs:
                with self._opened(upload, blob) as stream:
                    arriving.append(stream)
            with self._folder.keeping(arriving) as index:
                moved = index.executemany(
                    "UPDATE parts SET owner = ?, blob = NULL WHERE owner = ? AND blob = ?",
                    [(arriving.blob, upload.name, blob) for blob in blobs],
                )
                if moved.rowcount != len(parts):
                    raise self._changed(upload)
                index.execute("DELETE FROM uploads WHERE upload = ?", (upload.name,))
                self._buckets.replace(index, made, arriving.blob, check)
        return made

    def abort(self, upload: Upload) -> None:
        """End the upload; its parts are gone. Quiet if it has ended."""
        with self._folder.available(f"abort {_words(upload)}"), self._folder.transaction() as index:
            index.execute("DELETE FROM uploads WHERE upload = ?", (upload.name,))

    def _blobs(self, upload: Upload, parts: Sequence[Part]) -> list[str]:
        rows = self._folder.query("SELECT number, etag, blob FROM parts WHERE owner = ?", (upload.name,))
        there = {(number, etag): blob for number, etag, blob in rows}
        try:
            return [there[part.number, part.etag] for part in parts]
        except KeyError:
            raise self._changed(upload) from None

    def _opened(self, upload: Upload, blob: str) -> BinaryIO:
        try:
            return self._folder.open(blob)
        except FileNotFoundError:
            raise self._changed(upload) from None

    def _changed(self, upload: Upload) -> BackendError:
        """What to say when parts went away under our hands: the upload has ended, or they were replaced."""
        try:
            self.find(upload.bucket, upload.key, upload.name)
        except NotFound as exc:
            return exc
        return Conflict(f"parts of {_words(upload)} were replaced meanwhile.", kind="upload", name=upload.name)


def _words(upload: Upload) -> str:
    return f"upload {upload.name} to s3://{upload.bucket}/{upload.key}"


def _missing(name: str) -> NotFound:
    return NotFound(f"upload {name} does not exist; it may have been completed or aborted.", kind="upload", name=name)


def _upload(name: str, bucket: str, key: bytes, created_us: int, content_type: str, *documents: str) -> Upload:
    *attributes, algorithm, checksum_type = documents
    return Upload(
        name,
        bucket,
        key.decode(),
        moment(created_us),
        attributes_of(content_type, *attributes),
        algorithm,
        checksum_type,
    )
