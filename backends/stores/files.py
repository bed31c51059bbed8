"""Objects on this machine's disk: their bytes in files, their names and headers in a SQLite index.

    root/index.sqlite       bucket, key, headers and the file's name for each object
    root/blobs/7f/7f3a…     the bytes; the file's name is random and says nothing of the key
    root/incoming/7f3a…     bytes that are being written, each locked by the process that writes them

Why an index and not a file named after each key: keys never become paths, so there is nothing to
escape (``..``, ``//``, NUL, 1024 bytes of any UTF-8, ``a`` beside ``a/b``, names that differ by case);
a listing is a range scan that is already in S3's byte order; and a transaction decides between
writers, which conditional writes, multipart uploads and versions will need as well.

A write puts the bytes into ``incoming``, then commits the row, then moves the file to ``blobs``.
Killed before the commit, the old object stands; killed after it, the new one does, and readers look
into ``incoming`` too. The kernel drops a dead writer's lock; the next store that is opened finishes
or removes what lies in ``incoming`` unlocked, and removes files that lost their row (noted in the same
transaction as the loss). So no rubbish stays, and opening does not scan the objects.

Durability: what was acknowledged survives the death of any process. It survives a power cut only with
``durable=True``, which waits for the disk on every write; without, the last seconds' writes may be
lost, the index stays consistent, and a torn file is reported when it is opened, by its size.

Any number of processes may share a root, on a local file system (locks and SQLite's WAL need one).
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from backends.base import ObjectStore
from backends.errors import BackendError, BackendUnavailable, NotFound
from backends.naming import split_uri
from backends.specs import ObjectInfo
from backends.stores import pieces

_BUSY_TIMEOUT_SECONDS = 60
_PAGE_ROWS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_METADATA: Mapping[str, str] = MappingProxyType({})

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS buckets (
        bucket TEXT PRIMARY KEY
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS objects (
        bucket TEXT NOT NULL,
        key BLOB NOT NULL,              -- UTF-8; blobs compare byte by byte, as S3 orders keys
        blob TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        etag TEXT NOT NULL,             -- MD5, hex
        modified_us INTEGER NOT NULL,   -- since 1970, UTC
        content_type TEXT NOT NULL,
        metadata TEXT NOT NULL,         -- the caller's own headers, a JSON object of strings
        PRIMARY KEY (bucket, key)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX IF NOT EXISTS objects_by_blob ON objects (blob);
    CREATE TABLE IF NOT EXISTS doomed (
        blob TEXT PRIMARY KEY           -- files whose row is gone, until they are known to be removed
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;
"""
_SCHEMA_VERSION = 1


class FileStore(ObjectStore):
    """A persistent object store under the folder *root*, which is made if it is missing (mode 0700).

    Safe for threads and for processes, each with its own instance; do not carry one across a fork.
    With *durable* every write waits for the disk, see above.

    Raises:
        BackendUnavailable: *root* cannot be made, written or locked; also from every method.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self._root = root
        self._durable = durable
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        self._removed: list[str] = []
        # A transaction of ours must neither be seen half done by our own readers nor hold them up.
        self._write_lock, self._read_lock = threading.RLock(), threading.Lock()
        with self._available("open the store"):
            for folder in (root, self._blobs, self._incoming):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opening_alone():
                self._writing = self._connect()
                self._prepare_index()
                self._reading = self._connect()
                self._sweep()

    # The contract of all that follows without docstring is ObjectStore's.

    def ensure_bucket(self, bucket: str) -> None:
        split_uri(f"s3://{bucket}", key_required=False)
        with self._available(f"make bucket {bucket!r}"), self._transaction() as index:
            index.execute("INSERT OR IGNORE INTO buckets VALUES (?)", (bucket,))

    def write(
        self,
        uri: str,
        source: BinaryIO,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> ObjectInfo:
        """Replace the whole object, as the contract says; *metadata* are headers of the caller's own."""
        bucket, key = split_uri(uri)
        self._require_bucket(bucket)
        with self._new_blob(uri) as (blob, descriptor):
            size_bytes, etag = self._fill(descriptor, source, uri)
            info = ObjectInfo(
                uri=uri,
                size_bytes=size_bytes,
                etag=etag,
                modified=datetime.now(UTC),
                content_type=content_type,
            )
            with self._available(f"store {uri}"):
                self._commit(bucket, key, blob, info, metadata)
        return info

    def reader(self, uri: str) -> BinaryIO:
        """Open the object for streaming; the stream can seek, so any range can be read."""
        bucket, key = split_uri(uri)
        with self._available(f"read {uri}"):
            stream, size_bytes = self._open_blob(bucket, key)
            if os.fstat(stream.fileno()).st_size != size_bytes:
                stream.close()
                raise BackendError(
                    f"the stored bytes of {uri} are damaged: not {size_bytes} bytes any more, perhaps since "
                    "a power cut. Store the object again.",
                    kind="object",
                    name=uri,
                )
        return stream

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = split_uri(uri)
        with self._available(f"describe {uri}"):
            return _info(uri, *self._row("size_bytes, etag, modified_us, content_type", bucket, key))

    def metadata(self, uri: str) -> dict[str, str]:
        """The headers given to :meth:`write`. Raises NotFound."""
        bucket, key = split_uri(uri)
        with self._available(f"describe {uri}"):
            headers: dict[str, str] = json.loads(self._row("metadata", bucket, key)[0])
        return headers

    def delete(self, uri: str) -> None:
        bucket, key = split_uri(uri)
        with self._available(f"delete {uri}"):
            with self._transaction() as index:
                doomed = _evict(index, bucket, key)
            self._remove(doomed)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, start = split_uri(prefix, key_required=False)
        self._require_bucket(bucket)
        return self._listed(bucket, start.encode())

    def close(self) -> None:
        with suppress(sqlite3.Error), self._transaction():
            pass  # it notes which files were removed
        self._writing.close()
        self._reading.close()

    # Writing.

    @contextmanager
    def _new_blob(self, uri: str) -> Iterator[tuple[str, int]]:
        """A new locked file in ``incoming``; at the end it is in place, or gone if it was not committed."""
        with self._available(f"store {uri}"):
            blob, descriptor = self._create_locked()
        try:
            yield blob, descriptor
        finally:
            # Whether the commit happened only the index knows: an interrupt can strike right after it.
            with suppress(sqlite3.Error, OSError):
                self._settle(blob)
            os.close(descriptor)

    def _create_locked(self) -> tuple[str, int]:
        while True:
            blob = os.urandom(16).hex()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._incoming / blob, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return blob, descriptor
            os.close(descriptor)  # a sweep came between creating and locking, and took it for rubbish

    def _fill(self, descriptor: int, source: BinaryIO, uri: str) -> tuple[int, str]:
        digest = hashlib.md5(usedforsecurity=False)  # S3's ETag
        size_bytes = 0
        for piece in pieces(source):
            digest.update(piece)
            size_bytes += len(piece)
            with self._available(f"store {uri}"):
                _write_all(descriptor, piece)
        if self._durable:
            with self._available(f"store {uri}"):
                os.fsync(descriptor)
                _fsync_folder(self._incoming)
        return size_bytes, digest.hexdigest()

    def _commit(self, bucket: str, key: str, blob: str, info: ObjectInfo, metadata: Mapping[str, str]) -> None:
        row = (
            bucket,
            key.encode(),
            blob,
            info.size_bytes,
            info.etag,
            (info.modified - _EPOCH) // _MICROSECOND,
            info.content_type,
            json.dumps(dict(metadata)),
        )
        with self._transaction() as index:
            doomed = _evict(index, bucket, key)
            index.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._remove(doomed)

    def _settle(self, blob: str) -> None:
        """Move a file out of ``incoming``: to its place if a row names it, else away."""
        arrived = self._incoming / blob
        if not self._query("SELECT 1 FROM objects WHERE blob = ?", (blob,)):
            arrived.unlink(missing_ok=True)
            return
        place = self._place(blob)
        try:
            arrived.rename(place)
        except FileNotFoundError:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has replaced the object by now
                arrived.rename(place)

    def _remove(self, doomed: list[str]) -> None:
        for blob in doomed:
            # In this order: a file only ever moves from the first place to the second.
            with suppress(OSError):  # it stays doomed, and the next store to be opened tries again
                (self._incoming / blob).unlink(missing_ok=True)
                self._place(blob).unlink(missing_ok=True)
                self._removed.append(blob)

    def _place(self, blob: str) -> Path:
        return self._blobs / blob[:2] / blob

    # Reading.

    def _open_blob(self, bucket: str, key: str) -> tuple[BinaryIO, int]:
        tried = ""
        while True:
            blob, size_bytes = self._row("blob, size_bytes", bucket, key)
            # Three looks, since the file may move from incoming to its place between the first two.
            for path in (self._place(blob), self._incoming / blob, self._place(blob)):
                with suppress(FileNotFoundError):
                    return path.open("rb"), size_bytes
            if blob == tried:
                raise FileNotFoundError(f"{self._place(blob)}, which holds the object's bytes, is missing")
            tried = blob  # replaced or deleted meanwhile: the row tells

    def _row(self, columns: str, bucket: str, key: str) -> tuple[Any, ...]:
        rows = self._query(
            f"SELECT {columns} FROM objects WHERE bucket = ? AND key = ?",  # noqa: S608  our own column names
            (bucket, key.encode()),
        )
        if not rows:
            raise NotFound(
                f"nothing is stored at s3://{bucket}/{key} in {self._root}.",
                kind="object",
                name=f"s3://{bucket}/{key}",
            )
        return rows[0]

    def _require_bucket(self, bucket: str) -> None:
        with self._available(f"look for bucket {bucket!r}"):
            found = self._query("SELECT 1 FROM buckets WHERE bucket = ?", (bucket,))
        if not found:
            raise NotFound(
                f"bucket {bucket!r} does not exist in {self._root}; make it with ensure_bucket.",
                kind="bucket",
                name=bucket,
            )

    def _listed(self, bucket: str, prefix: bytes) -> Iterator[ObjectInfo]:
        # No UTF-8 ends in, or begins with, the byte 0xff.
        end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b"\xff"
        start = prefix
        while True:
            with self._available(f"list s3://{bucket}"):
                page = self._query(
                    "SELECT key, size_bytes, etag, modified_us, content_type FROM objects"
                    " WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
                    (bucket, start, end, _PAGE_ROWS),
                )
            for key, *columns in page:
                yield _info(f"s3://{bucket}/{key.decode()}", *columns)
            if len(page) < _PAGE_ROWS:
                return
            start = page[-1][0] + b"\0"  # the next key in byte order that is possible

    def _query(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._read_lock:
            return self._reading.execute(statement, values).fetchall()

    # The index.

    def _connect(self) -> sqlite3.Connection:
        path = self._root / "index.sqlite"
        # SQLite would let others read it. Never open an existing index oneself: closing any descriptor of a file
        # drops this process's POSIX locks on it, those of SQLite's other connections among them.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        index = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
        index.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        return index

    def _prepare_index(self) -> None:
        self._writing.execute("PRAGMA journal_mode = WAL")
        (version,) = self._writing.execute("PRAGMA user_version").fetchone()
        if version not in {0, _SCHEMA_VERSION}:
            self._writing.close()
            raise BackendError(
                f"the store in {self._root} was written by another version (layout {version}, this one knows "
                f"{_SCHEMA_VERSION}); use that version, or another folder.",
                kind="store",
                name=str(self._root),
            )
        if version == 0:
            self._writing.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            index = self._writing
            index.execute("BEGIN IMMEDIATE")
            try:
                removed = len(self._removed)
                index.executemany("DELETE FROM doomed WHERE blob = ?", [(blob,) for blob in self._removed])
                yield index
                index.execute("COMMIT")
            except BaseException:
                if index.in_transaction:
                    index.execute("ROLLBACK")
                raise
            del self._removed[:removed]

    @contextmanager
    def _opening_alone(self) -> Iterator[None]:
        """One process at a time: SQLite's change to WAL mode does not wait for others, it fails."""
        descriptor = os.open(self._root / "opening.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Finish what dead writers began, and remove what they left."""
        for entry in self._incoming.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), entry.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                self._settle(entry.name)
        self._remove([blob for (blob,) in self._query("SELECT blob FROM doomed", ())])
        if self._removed:
            with self._transaction():
                pass  # it notes which files were removed

    @contextmanager
    def _available(self, attempt: str) -> Iterator[None]:
        """Restate errors of the disk and of SQLite as ours."""
        try:
            yield
        except BackendError:
            raise
        except (OSError, sqlite3.Error) as exc:
            raise BackendUnavailable(
                f"could not {attempt}: the file store in {self._root} failed: {exc}. "
                "Is there space, and is the folder ours to write?",
                kind="store",
                name=str(self._root),
                reason=str(exc),
            ) from exc


def _evict(index: sqlite3.Connection, bucket: str, key: str) -> list[str]:
    """Take the object's row away, if there is one, and note its file as doomed."""
    rows = index.execute(
        "DELETE FROM objects WHERE bucket = ? AND key = ? RETURNING blob", (bucket, key.encode())
    ).fetchall()
    index.executemany("INSERT INTO doomed VALUES (?)", rows)
    return [blob for (blob,) in rows]


def _info(uri: str, size_bytes: int, etag: str, modified_us: int, content_type: str) -> ObjectInfo:
    return ObjectInfo(
        uri=uri,
        size_bytes=size_bytes,
        etag=etag,
        modified=_EPOCH + modified_us * _MICROSECOND,
        content_type=content_type,
    )


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
