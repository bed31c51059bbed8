"""S3's buckets and objects on this machine's disk: their bytes in files if they are many, the rest in a SQLite index.

Why an index and not a file named after each key: keys never become paths, so there is nothing to
escape (``..``, ``//``, NUL, 1024 bytes of any UTF-8, ``a`` beside ``a/b``, names that differ by case);
a listing is a range scan that is already in S3's byte order; and a transaction decides between
writers, which conditional writes and multipart uploads need. What files do, and when: :mod:`backends.stores.blobs`.

Buckets' and keys' names are taken as they come; whoever passes them has checked them.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from backends.errors import AlreadyExists, BackendError, Conflict, NotFound
from backends.stores.blobs import Arriving, BlobFolder, Kept
from backends.stores.checksums import COMPOSITE, FULL_OBJECT

_PAGE_ROWS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Each brings a store's layout to the next version.
_LAYOUTS = (
    """
    CREATE TABLE buckets (
        bucket TEXT PRIMARY KEY
    ) WITHOUT ROWID;
    CREATE TABLE objects (
        bucket TEXT NOT NULL,
        key BLOB NOT NULL,              -- UTF-8; blobs compare byte by byte, as S3 orders keys
        blob TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        etag TEXT NOT NULL,             -- MD5, hex; of several parts: with their number
        modified_us INTEGER NOT NULL,   -- since 1970, UTC, as all times here
        content_type TEXT NOT NULL,
        metadata TEXT NOT NULL,         -- the caller's own headers, a JSON object of strings
        PRIMARY KEY (bucket, key)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX objects_by_blob ON objects (blob);
    """,
    """
    ALTER TABLE buckets ADD COLUMN created_us INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE objects ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';  -- S3's, as metadata
    ALTER TABLE objects ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';     -- likewise
    ALTER TABLE objects ADD COLUMN algorithm TEXT;
    ALTER TABLE objects ADD COLUMN checksum TEXT;
    CREATE TABLE settings (
        bucket TEXT NOT NULL,
        name TEXT NOT NULL,
        document TEXT NOT NULL,         -- JSON
        PRIMARY KEY (bucket, name)
    ) WITHOUT ROWID;
    CREATE TABLE uploads (
        upload TEXT PRIMARY KEY,
        bucket TEXT NOT NULL,
        key BLOB NOT NULL,
        created_us INTEGER NOT NULL,
        content_type TEXT NOT NULL,
        metadata TEXT NOT NULL,
        headers TEXT NOT NULL,
        tags TEXT NOT NULL,
        algorithm TEXT NOT NULL,
        checksum_type TEXT NOT NULL,
        blob TEXT,                      -- the file that its parts share, see uploads.py; none once it is the object's
        part_bytes INTEGER              -- how far apart they lie in it; none before the first, 0 if no more may come
    ) WITHOUT ROWID;
    CREATE TABLE slots (
        upload TEXT NOT NULL,           -- who writes to the file, or has written
        number INTEGER NOT NULL,
        is_written INTEGER NOT NULL,
        PRIMARY KEY (upload, number)
    ) WITHOUT ROWID;
    CREATE INDEX uploads_by_key ON uploads (bucket, key, upload);
    CREATE TABLE parts (
        owner TEXT NOT NULL,            -- an upload, or the blob of an object that was made of parts
        number INTEGER NOT NULL,
        blob TEXT,                      -- none if its bytes are in the owner's file
        size_bytes INTEGER NOT NULL,
        etag TEXT NOT NULL,
        modified_us INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        PRIMARY KEY (owner, number)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX parts_by_blob ON parts (blob);
    CREATE UNIQUE INDEX uploads_by_blob ON uploads (blob);
    CREATE VIEW kept AS
        SELECT blob FROM objects UNION ALL SELECT blob FROM parts UNION ALL SELECT blob FROM uploads;
    CREATE TRIGGER bucket_gone AFTER DELETE ON buckets BEGIN
        DELETE FROM settings WHERE bucket = OLD.bucket;
        DELETE FROM uploads WHERE bucket = OLD.bucket;
    END;
    CREATE TABLE IF NOT EXISTS small (blob TEXT PRIMARY KEY, data BLOB NOT NULL);
    CREATE VIEW IF NOT EXISTS lost AS SELECT blob FROM doomed;
    """,
    """
    CREATE TABLE whole (
        bucket TEXT NOT NULL,
        key BLOB NOT NULL,
        blob TEXT,
        size_bytes INTEGER NOT NULL,
        etag TEXT NOT NULL,
        modified_us INTEGER NOT NULL,
        content_type TEXT NOT NULL,
        metadata TEXT NOT NULL,
        headers TEXT NOT NULL,
        tags TEXT NOT NULL,
        algorithm TEXT,
        checksum TEXT,
        data BLOB,                      -- few bytes, which have no file; last, so that a listing does not read it
        PRIMARY KEY (bucket, key)
    ) WITHOUT ROWID;
    INSERT INTO whole
        SELECT bucket, key, iif(data IS NULL, blob, NULL), size_bytes, etag, modified_us, content_type, metadata,
            headers, tags, algorithm, checksum, data
        FROM objects LEFT JOIN small USING (blob);
    DROP VIEW kept;
    DROP TABLE objects;
    ALTER TABLE whole RENAME TO objects;
    CREATE UNIQUE INDEX objects_by_blob ON objects (blob) WHERE blob IS NOT NULL;
    DROP TRIGGER IF EXISTS part_gone;
    DROP TRIGGER IF EXISTS part_moved;
    DROP TRIGGER IF EXISTS upload_gone;
    ALTER TABLE parts ADD COLUMN data BLOB;  -- as an object's
    UPDATE parts SET blob = NULL, data = (SELECT data FROM small WHERE small.blob = parts.blob)
        WHERE blob IN (SELECT blob FROM small);
    DROP VIEW lost;
    DROP TABLE small;
    CREATE VIEW kept AS
        SELECT blob FROM objects UNION ALL SELECT blob FROM parts UNION ALL SELECT blob FROM uploads;
    CREATE TRIGGER object_gone AFTER DELETE ON objects WHEN OLD.blob IS NOT NULL BEGIN
        INSERT INTO doomed VALUES (OLD.blob);
        DELETE FROM parts WHERE owner = OLD.blob;
    END;
    CREATE TRIGGER part_gone AFTER DELETE ON parts WHEN OLD.blob IS NOT NULL BEGIN
        INSERT INTO doomed VALUES (OLD.blob);
    END;
    CREATE TRIGGER part_moved AFTER UPDATE OF blob ON parts WHEN NEW.blob IS NULL AND OLD.blob IS NOT NULL BEGIN
        INSERT INTO doomed VALUES (OLD.blob);
    END;
    CREATE TRIGGER upload_gone AFTER DELETE ON uploads BEGIN
        DELETE FROM parts WHERE owner = OLD.upload;
        DELETE FROM slots WHERE upload = OLD.upload;
        INSERT INTO doomed SELECT OLD.blob WHERE OLD.blob IS NOT NULL;
    END;
    """,
)


class Checksum(NamedTuple):
    """The one checksum that S3 keeps of an object."""

    algorithm: str
    value: str

    @property
    def type(self) -> str:
        return COMPOSITE if "-" in self.value else FULL_OBJECT


@dataclass(frozen=True)
class Attributes:
    """What its writer says of an object: *metadata* are headers of the writer's own, *headers* those that S3 knows."""

    content_type: str = "binary/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredObject:
    """One object without its bytes."""

    bucket: str
    key: str
    size_bytes: int
    etag: str
    modified: datetime
    attributes: Attributes
    checksum: Checksum | None


class Part(NamedTuple):
    """One part of an upload, or of an object that was made of parts."""

    number: int
    size_bytes: int
    etag: str
    modified: datetime
    checksum: str


Check = Callable[[StoredObject | None], None]
"""Is asked about what stands at the key, in the transaction that would change it; nothing changes if it raises."""


class Buckets:
    """The buckets under the folder *root*. Safe for threads and for processes, as :class:`BlobFolder` says.

    Errors are those of the disk (BackendUnavailable), NotFound of the kinds ``bucket``, ``object`` and ``upload``,
    and what is said at the methods.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.folder = BlobFolder(root, _LAYOUTS, durable=durable)

    def close(self) -> None:
        self.folder.close()

    # Buckets.

    def create(self, bucket: str) -> None:
        """Raises AlreadyExists."""
        with self.folder.available(f"make bucket {bucket!r}"), self.folder.transaction() as index:
            made = index.execute("INSERT OR IGNORE INTO buckets VALUES (?, ?)", (bucket, microseconds(now())))
            if not made.rowcount:
                raise AlreadyExists(f"bucket {bucket!r} exists.", kind="bucket", name=bucket)

    def remove(self, bucket: str) -> None:
        """Remove an empty bucket and the uploads that are under way to it. Raises Conflict if there are objects."""
        with self.folder.available(f"remove bucket {bucket!r}"), self.folder.transaction() as index:
            self.require(bucket, index)
            if index.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (bucket,)).fetchall():
                raise Conflict(f"bucket {bucket!r} holds objects.", kind="bucket", name=bucket)
            index.execute("DELETE FROM buckets WHERE bucket = ?", (bucket,))

    def names(self, *, prefix: str = "", after: str = "") -> list[tuple[str, datetime]]:
        """The buckets in order, with the time at which they were made."""
        with self.folder.available("list the buckets"):
            rows = self.folder.query(
                "SELECT bucket, created_us FROM buckets WHERE bucket > ? ORDER BY bucket", (after,)
            )
        return [(bucket, moment(created_us)) for bucket, created_us in rows if bucket.startswith(prefix)]

    def require(self, bucket: str, index: sqlite3.Connection | None = None) -> None:
        """Raises NotFound."""
        statement = "SELECT 1 FROM buckets WHERE bucket = ?"
        with self.folder.available(f"look for bucket {bucket!r}"):
            found = index.execute(statement, (bucket,)).fetchall() if index else self.folder.query(statement, (bucket,))
        if not found:
            raise NotFound(
                f"bucket {bucket!r} does not exist in {self.folder.root}; make it with ensure_bucket.",
                kind="bucket",
                name=bucket,
            )

    def setting(self, bucket: str, name: str) -> Any:
        """The document that was set under *name*, or None."""
        self.require(bucket)
        with self.folder.available(f"read a setting of bucket {bucket!r}"):
            rows = self.folder.query("SELECT document FROM settings WHERE bucket = ? AND name = ?", (bucket, name))
        return json.loads(rows[0][0]) if rows else None

    def set(self, bucket: str, name: str, document: object) -> None:
        """Keep *document*, which can be JSON; None removes it."""
        with self.folder.available(f"change bucket {bucket!r}"), self.folder.transaction() as index:
            self.require(bucket, index)
            index.execute("DELETE FROM settings WHERE bucket = ? AND name = ?", (bucket, name))
            if document is not None:
                index.execute("INSERT INTO settings VALUES (?, ?, ?)", (bucket, name, json.dumps(document)))

    # Objects.

    def arriving(self, bucket: str, key: str, algorithms: Iterable[str] = ()) -> AbstractContextManager[Arriving]:
        """A place for bytes, which :meth:`put` makes an object; see :meth:`BlobFolder.arriving`."""
        self.require(bucket)
        return self.folder.arriving(f"store s3://{bucket}/{key}", algorithms)

    def put(
        self,
        bucket: str,
        key: str,
        arriving: Arriving,
        attributes: Attributes,
        *,
        checksum: Checksum | None = None,
        check: Check | None = None,
        may_wait: bool = True,
    ) -> StoredObject:
        """Make the bytes that arrived the object at *key*, in place of what stands there.

        Raises:
            WouldWait: as :meth:`BlobFolder.transaction`.
        """
        made = StoredObject(bucket, key, arriving.size_bytes, arriving.digests.etag, now(), attributes, checksum)
        storing = self.folder.available(f"store s3://{bucket}/{key}")
        with storing, self.folder.keeping(arriving, may_wait=may_wait) as index:
            self.replace(index, made, arriving.kept, check)
        return made

    def replace(self, index: sqlite3.Connection, made: StoredObject, kept: Kept, check: Check | None) -> None:
        """The part of :meth:`put` that is done within a transaction."""
        self.require(made.bucket, index)
        _check(index, made.bucket, made.key, check)
        address = (made.bucket, made.key.encode())
        index.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", address)
        index.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *address,
                kept.blob,
                made.size_bytes,
                made.etag,
                microseconds(made.modified),
                *attribute_columns(made.attributes),
                *(made.checksum or (None, None)),
                kept.data,
            ),
        )

    def stat(self, bucket: str, key: str) -> StoredObject:
        with self.folder.available(f"describe s3://{bucket}/{key}"):
            return _object(self._row(bucket, key))

    def open(self, bucket: str, key: str) -> tuple[StoredObject, BinaryIO]:
        """The object and its bytes, which can seek and stay whole if the object is replaced meanwhile.

        Raises:
            BackendError: the bytes are torn.
        """
        with self.folder.available(f"read s3://{bucket}/{key}"):
            tried = None
            while True:
                row = self._row(bucket, key, _OPENED)
                found, kept = _object(row), Kept(row[2], row[-1])
                try:
                    stream = self.folder.open(kept)
                except FileNotFoundError as exc:
                    if kept == tried:
                        raise FileNotFoundError(f"{kept.blob}, which holds the object's bytes, is missing") from exc
                    tried = kept  # replaced or deleted meanwhile: the row tells
                else:
                    break
            if stream.seek(0, os.SEEK_END) != found.size_bytes:
                stream.close()
                raise BackendError(
                    f"the stored bytes of s3://{bucket}/{key} are damaged: not {found.size_bytes} bytes any more, "
                    "perhaps since a power cut. Store the object again.",
                    kind="object",
                    name=f"s3://{bucket}/{key}",
                )
            stream.seek(0)
        return found, stream

    def delete(self, bucket: str, key: str, *, check: Check | None = None) -> None:
        """Quiet if there is nothing."""
        with self.folder.available(f"delete s3://{bucket}/{key}"), self.folder.transaction() as index:
            _check(index, bucket, key, check)
            index.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key.encode()))

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        with self.folder.available(f"tag s3://{bucket}/{key}"), self.folder.transaction() as index:
            statement = "UPDATE objects SET tags = ? WHERE bucket = ? AND key = ?"
            changed = index.execute(statement, (json.dumps(dict(tags)), bucket, key.encode())).rowcount
            if not changed:
                raise self._missing(bucket, key)

    def entries(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", page_rows: int = _PAGE_ROWS
    ) -> Iterator[StoredObject | str]:
        """What a listing shows behind *after*, in byte order: objects, and what those have in common that go on.

        A key that goes on behind the *prefix* with the *delimiter* is not shown itself: all that agree up to there
        are one string. *page_rows* says how many rows are held at a time. Raises NotFound for the bucket at once.
        """
        self.require(bucket)
        return self._entries(bucket, prefix.encode(), delimiter.encode(), after.encode(), page_rows)

    def _entries(
        self, bucket: str, prefix: bytes, delimiter: bytes, after: bytes, page_rows: int
    ) -> Iterator[StoredObject | str]:
        def common(key: bytes) -> bytes:
            cut = key.find(delimiter, len(prefix)) if delimiter and key.startswith(prefix) else -1
            return key[: cut + len(delimiter)] if cut >= 0 else b""

        # All that shares a string with *after* stands before it.
        start = max(prefix, (_behind(common(after)) or after + b"\0") if after else b"")
        end = _behind(prefix) or b"\xff"  # no UTF-8 has that byte
        while True:
            with self.folder.available(f"list s3://{bucket}"):
                page = self.folder.query(_LISTING, (bucket, start, end, page_rows))
            for row in page:
                key: bytes = row[1]
                if key < start:
                    continue
                if shared := common(key):
                    start = _behind(shared)
                    yield shared.decode()
                else:
                    start = key + b"\0"  # the next key in byte order that is possible
                    yield _object(row)
            if len(page) < page_rows:
                return

    def parts_of(self, bucket: str, key: str) -> list[Part]:
        """The parts of which the object was made; none if it was put whole."""
        with self.folder.available(f"describe s3://{bucket}/{key}"):
            blob = self._row(bucket, key)[2]
            return read_parts(self.folder, blob) if blob else []

    def _row(self, bucket: str, key: str, statement: str = "") -> tuple[Any, ...]:
        rows = self.folder.query(statement or _OBJECT, (bucket, key.encode()))
        if not rows:
            self.require(bucket)
            raise self._missing(bucket, key)
        return rows[0]

    def _missing(self, bucket: str, key: str) -> NotFound:
        uri = f"s3://{bucket}/{key}"
        return NotFound(f"nothing is stored at {uri} in {self.folder.root}.", kind="object", name=uri)


_COLUMNS = (
    "bucket, key, blob, size_bytes, etag, modified_us, content_type, metadata, headers, tags, algorithm, checksum"
)
_OBJECT = f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key = ?"  # noqa: S608  our own words
_OPENED = f"SELECT {_COLUMNS}, data FROM objects WHERE bucket = ? AND key = ?"  # noqa: S608
_LISTING = f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"  # noqa: S608


def read_parts(folder: BlobFolder, owner: str, *, after: int = 0, limit: int = -1) -> list[Part]:
    """The parts of *owner* in order, at most *limit* of those with numbers over *after*."""
    rows = folder.query(
        "SELECT number, size_bytes, etag, modified_us, checksum FROM parts"
        " WHERE owner = ? AND number > ? ORDER BY number LIMIT ?",
        (owner, after, limit),
    )
    return [
        Part(number, size, etag, moment(modified_us), checksum) for number, size, etag, modified_us, checksum in rows
    ]


def attribute_columns(attributes: Attributes) -> tuple[str, ...]:
    """*attributes* as they stand in the index."""
    documents = (attributes.metadata, attributes.headers, attributes.tags)
    return attributes.content_type, *(json.dumps(dict(document)) if document else "{}" for document in documents)


def attributes_of(content_type: str, *documents: str) -> Attributes:
    """The opposite of :func:`attribute_columns`."""
    metadata, headers, tags = ({} if document == "{}" else json.loads(document) for document in documents)
    return Attributes(content_type, metadata, headers, tags)


def now() -> datetime:
    """The time as it can be stored."""
    return datetime.now(UTC)


def microseconds(time: datetime) -> int:
    """Since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def moment(microseconds_since_1970: int) -> datetime:
    """The opposite of :func:`microseconds`."""
    return _EPOCH + microseconds_since_1970 * _MICROSECOND


def _check(index: sqlite3.Connection, bucket: str, key: str, check: Check | None) -> None:
    if check:
        rows = index.execute(_OBJECT, (bucket, key.encode())).fetchall()
        check(_object(rows[0]) if rows else None)


def _object(row: tuple[Any, ...]) -> StoredObject:
    """*row* of :data:`_COLUMNS`, and perhaps more."""
    bucket, key, _blob, size_bytes, etag, modified_us, *attributes, algorithm, checksum = row[:12]
    return StoredObject(
        bucket,
        key.decode(),
        size_bytes,
        etag,
        moment(modified_us),
        attributes_of(*attributes),
        Checksum(algorithm, checksum) if checksum else None,
    )


def _behind(prefix: bytes) -> bytes:
    """The first byte string behind all that start with *prefix*; nothing for nothing."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b""
