"""Bytes that exist as long as a row of a SQLite index keeps them: in a file that it names or, if few, in itself.

    root/index.sqlite       what there is; its tables are the business of whoever opens the folder
    root/blobs/7f/7f3a…     the bytes; the file's name is random and says nothing of what is in it
    root/incoming/7f3a…     bytes that are being written, each locked by the process that writes them

A write puts the bytes into ``incoming``, then commits the row, then moves the file to ``blobs``.
Killed before the commit, nothing happened; killed after it, the row stands, and readers look
into ``incoming`` too. The kernel drops a dead writer's lock; the next process that opens the folder finishes
or removes what lies in ``incoming`` unlocked, and removes files that lost their row (noted in the same
transaction as the loss). So no rubbish stays, and opening does not scan the files.

Up to 8 KiB of them never become a file: a row costs a tenth of the calls to the system.

Durability: what was acknowledged survives the death of any process. It survives a power cut only with
``durable=True``, which waits for the disk on every write; without, the last seconds' writes may be
lost, the index stays consistent, and a torn file is seen by its size.

Any number of processes may share a root, on a local file system (locks and SQLite's WAL need one).
"""

import fcntl
import io
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from backends.errors import BackendError, BackendUnavailable
from backends.stores import PIECE_BYTES
from backends.stores.checksums import Digests

SMALL_BYTES = 8192
_BUSY_TIMEOUT_SECONDS = 60
_CHECKPOINT_PAGES = 4000  # 16 MB: a checkpoint waits for the disk
_MOST_HURRIED = 500  # transactions in a row that make no checkpoint
_MOMENT_SECONDS = 0.002  # what those that may not wait do wait for another writer: their turn comes

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS doomed (
        blob TEXT PRIMARY KEY           -- files whose row is gone, until they are known to be removed
    ) WITHOUT ROWID;
"""


class WouldWait(Exception):
    """A transaction that may not wait would have to, for another writer or for the disk; nothing has changed."""


class Kept(NamedTuple):
    """Where a row keeps bytes: in the file of this name, or in itself."""

    blob: str | None
    data: bytes | None


class Arriving:
    """Bytes on their way in: counted and hashed as they are written, gone again unless a row comes to keep them."""

    def __init__(
        self,
        algorithms: Iterable[str],
        create: Callable[[str], int],
        writing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """*create* makes the file of a name, once there is more than a few bytes."""
        self.blob = os.urandom(16).hex()
        self.size_bytes = 0
        self.digests = Digests(algorithms)
        self.small = b""
        self.descriptor: int | None = None
        self._create = create
        self._writing = writing

    @property
    def kept(self) -> Kept:
        """What a row shall say."""
        return Kept(self.blob, None) if self.descriptor is not None else Kept(None, self.small)

    def write(self, piece: bytes) -> None:
        """Raises BackendUnavailable."""
        self.digests.update_etag(piece)
        self.keep(piece)

    def keep(self, piece: bytes) -> None:
        """The part of :meth:`write` beside which ``digests.update_etag`` may go on in another thread."""
        self.digests.update_checksums(piece)
        self.size_bytes += len(piece)
        if self.descriptor is None and self.size_bytes <= SMALL_BYTES:
            self.small += piece
            return
        with self._writing():
            _write_all(self.file(), piece)

    def splice(self, source: BinaryIO, size_bytes: int) -> None:
        """*size_bytes* of *source*, unhashed; by the kernel, which on some file systems shares the bytes.

        Raises BackendUnavailable.
        """
        with self._writing():
            descriptor, left = self.file(), size_bytes
            with suppress(
                AttributeError, OSError
            ):  # not on this system, or not between these two: from where it stopped
                while left and (count := os.copy_file_range(source.fileno(), descriptor, left)):
                    left -= count
            while left and (piece := source.read(min(left, PIECE_BYTES))):
                _write_all(descriptor, piece)
                left -= len(piece)
            if left:
                raise OSError(f"{left} bytes are missing")
        self.size_bytes += size_bytes

    def file(self) -> int:
        """The descriptor; small bytes become a file too."""
        if self.descriptor is None:
            self.descriptor = self._create(self.blob)
            _write_all(self.descriptor, self.small)
            self.small = b""
        return self.descriptor


class BlobFolder:
    """The files and the index under *root*, which is made if it is missing (mode 0700).

    *layouts* make the tables, each bringing them from the version of its place to the next; an index of an earlier
    version is brought forward. There is a view ``kept (blob)`` of all files that shall stay, and triggers insert those
    that lose their row into the table ``doomed (blob)``.

    Safe for threads and for processes, each with its own instance; do not carry one across a fork.

    Raises:
        BackendUnavailable: *root* cannot be made, written or locked.
        BackendError: the index is of a later version.
    """

    def __init__(self, root: Path, layouts: Sequence[str], *, durable: bool) -> None:
        self.root = root
        self._durable = durable
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        self._removed: list[str] = []
        # A transaction of ours must neither be seen half done by our own readers nor hold them up.
        self._write_lock, self._read_lock = threading.RLock(), threading.Lock()
        with self.available("open the store"):
            for folder in (root, self._blobs, self._incoming):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opening_alone():
                self._writing = self._connect()
                self._prepare_index(layouts)
                self._reading = self._connect()
                self._hurried = self._connect(timeout_seconds=_MOMENT_SECONDS)
                self._hurried.execute("PRAGMA wal_autocheckpoint = 0")
                self._hurried_left = _MOST_HURRIED
                self._sweep()

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._read_lock:
            return self._reading.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self, *, may_wait: bool = True) -> Iterator[sqlite3.Connection]:
        """The index for writing; committed at the end, unless the block raises. Files that lost their row go then.

        Raises:
            WouldWait: it may not wait, but others write, files lost their row, or the disk is to be waited for.
        """
        with self._begun(may_wait=may_wait) as index:
            try:
                noted = len(self._removed)
                index.executemany("DELETE FROM doomed WHERE blob = ?", [(blob,) for blob in self._removed])
                yield index
                doomed = index.execute("SELECT blob FROM doomed").fetchall()
                if doomed and not may_wait:
                    raise WouldWait  # noqa: TRY301  the transaction is taken back as with any other error
                index.execute("COMMIT")
            except BaseException:
                if index.in_transaction:
                    index.execute("ROLLBACK")
                raise
            del self._removed[:noted]
        for (blob,) in doomed:
            # In this order: a file only ever moves from the first place to the second.
            with suppress(OSError):  # it stays doomed, and the next transaction tries again
                (self._incoming / blob).unlink(missing_ok=True)
                self._place(blob).unlink(missing_ok=True)
                self._removed.append(blob)

    @contextmanager
    def _begun(self, *, may_wait: bool) -> Iterator[sqlite3.Connection]:
        if not self._write_lock.acquire(timeout=-1 if may_wait else _MOMENT_SECONDS):
            raise WouldWait
        try:
            index = self._writing if may_wait else self._hurried
            # The page cache takes what is committed, unless it shall be on the disk or a checkpoint is due.
            if not may_wait and (self._durable or not self._hurried_left):
                raise WouldWait
            try:
                index.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not may_wait and exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    raise WouldWait from exc
                raise
            self._hurried_left = _MOST_HURRIED if may_wait else self._hurried_left - 1
            yield index
        finally:
            self._write_lock.release()

    @contextmanager
    def arriving(self, attempt: str, algorithms: Iterable[str] = ()) -> Iterator[Arriving]:
        """A place for new bytes; what stays of it at the end of the block is what a committed row keeps.

        *attempt* says in errors what the bytes are for.
        """
        arriving = Arriving(algorithms, self._create_locked, partial(self.available, attempt))
        try:
            yield arriving
        finally:
            if arriving.descriptor is not None:
                # Whether the commit happened only the index knows: an interrupt can strike right after it.
                with suppress(sqlite3.Error, OSError):
                    self._settle(arriving.blob)
                os.close(arriving.descriptor)

    @contextmanager
    def overwriting(self, blob: str, offset: int, attempt: str, algorithms: Iterable[str] = ()) -> Iterator[Arriving]:
        """A place for bytes within a file that a row names already; who else writes there is the caller's business."""
        with self.available(attempt):
            descriptor = self._opened(blob, os.O_WRONLY)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            arriving = Arriving(algorithms, self._create_locked, partial(self.available, attempt))
            arriving.blob, arriving.descriptor = blob, descriptor
            yield arriving
        finally:
            os.close(descriptor)

    @contextmanager
    def keeping(self, arriving: Arriving, *, may_wait: bool = True) -> Iterator[sqlite3.Connection]:
        """A :meth:`transaction` in which a row comes to keep the bytes that arrived."""
        if arriving.descriptor is not None and self._durable:
            os.fsync(arriving.descriptor)
            _fsync(self._incoming)
        with self.transaction(may_wait=may_wait) as index:
            yield index

    def open(self, kept: Kept) -> BinaryIO:
        """Open what a row keeps. Raises FileNotFoundError if the row was outdated."""
        if kept.blob is None:
            return io.BytesIO(kept.data or b"")
        return os.fdopen(self._opened(kept.blob, os.O_RDONLY), "rb")

    def _opened(self, blob: str, flags: int) -> int:
        # Three looks, since the file may move from incoming to its place between the first two.
        for path in (self._place(blob), self._incoming / blob):
            with suppress(FileNotFoundError):
                return os.open(path, flags | os.O_CLOEXEC)
        return os.open(self._place(blob), flags | os.O_CLOEXEC)

    @contextmanager
    def available(self, attempt: str) -> Iterator[None]:
        """Restate errors of the disk and of SQLite as ours."""
        try:
            yield
        except BackendError:
            raise
        except (OSError, sqlite3.Error) as exc:
            raise BackendUnavailable(
                f"could not {attempt}: the file store in {self.root} failed: {exc}. "
                "Is there space, and is the folder ours to write?",
                kind="store",
                name=str(self.root),
                reason=str(exc),
            ) from exc

    def close(self) -> None:
        with suppress(sqlite3.Error), self.transaction():
            pass  # it notes which files were removed
        self._writing.close()
        self._reading.close()
        self._hurried.close()

    # Files.

    def _create_locked(self, blob: str) -> int:
        while True:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._incoming / blob, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # a sweep came between creating and locking, and took it for rubbish

    def _settle(self, blob: str) -> None:
        """Move a file out of ``incoming``: to its place if a row names it, else away."""
        arrived = self._incoming / blob
        if not self.query("SELECT 1 FROM kept WHERE blob = ?", (blob,)):
            arrived.unlink(missing_ok=True)
            return
        place = self._place(blob)
        try:
            arrived.rename(place)
        except FileNotFoundError:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has replaced the object by now
                arrived.rename(place)

    def _place(self, blob: str) -> Path:
        return self._blobs / blob[:2] / blob

    def _sweep(self) -> None:
        """Finish what dead writers began, and remove what they left."""
        for entry in self._incoming.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), entry.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                self._settle(entry.name)
        if self.query("SELECT 1 FROM doomed LIMIT 1"):
            for _ in ("remove them", "note that they are gone"):
                with self.transaction():
                    pass

    # The index.

    def _connect(self, timeout_seconds: float = _BUSY_TIMEOUT_SECONDS) -> sqlite3.Connection:
        path = self.root / "index.sqlite"
        # SQLite would let others read it. Never open an existing index oneself: closing any descriptor of a file
        # drops this process's POSIX locks on it, those of SQLite's other connections among them.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        index = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False)
        index.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        return index

    def _prepare_index(self, layouts: Sequence[str]) -> None:
        self._writing.execute("PRAGMA journal_mode = WAL")
        self._writing.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        (found,) = self._writing.execute("PRAGMA user_version").fetchone()
        if found > len(layouts):
            self._writing.close()
            raise BackendError(
                f"the store in {self.root} was written by a later version (layout {found}, this one knows "
                f"{len(layouts)}); use that version, or another folder.",
                kind="store",
                name=str(self.root),
            )
        if found < len(layouts):
            steps = "".join(layouts[found:])
            self._writing.executescript(f"BEGIN; {_SCHEMA} {steps} PRAGMA user_version = {len(layouts)}; COMMIT")

    @contextmanager
    def _opening_alone(self) -> Iterator[None]:
        """One process at a time: SQLite's change to WAL mode does not wait for others, it fails."""
        descriptor = os.open(self.root / "opening.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
