"""A training job's checkpoints: in S3 as on its hosts, from before the program starts until it has ended (A.2, A.8)."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.base import ObjectStore
from backends.engine import channels, layout
from backends.engine.runners import RunnerFailed, Running
from backends.engine.state import Document
from backends.errors import BackendError
from backends.naming import join_uri

# Looking may mean to copy all of them out of a container: it takes a tenth of the time at most.
_REST = 10

Look = tuple[int, int]


class Checkpoints:
    """What CheckpointConfig asks for; without one there is nothing to do.

    *hosts* are their folders, each with ``ml``, which is the program's /opt/ml. All share the one S3Uri; of files of
    one name the first host's counts.
    """

    def __init__(self, store: ObjectStore, request: Document, hosts: Sequence[Path], *, pause_seconds: float) -> None:
        self._store = store
        self._folders = layout.checkpoint_folders(request)
        self._uri = request.get("CheckpointConfig", {}).get("S3Uri", "").rstrip("/") + "/"
        self._hosts = hosts
        self._pause_seconds = pause_seconds
        self._there: set[str] = set()
        self._seen: dict[str, Look] = {}
        self._stored: dict[str, Look] = {}

    def fetch(self) -> None:
        """Bring what S3 has to every host. Raises BackendError."""
        for folder in self._folders:
            for host in self._hosts:
                channels.download(self._store, self._uri, host / "ml" / folder)
            found = self._store.list_objects(self._uri)
            self._there = {info.uri for info in found if not info.uri.endswith("/")}
            self._stored = {name: _look(path) for name, path in self._files(folder).items()}

    @contextmanager
    def followed(self, running: Sequence[Running]) -> Iterator[None]:
        """While the block runs, store now and then what has changed, beside it; what is lost meanwhile is kept."""
        over = threading.Event()
        threads = [threading.Thread(target=self._follow, args=(folder, running, over)) for folder in self._folders]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def store(self) -> None:
        """Store what the hosts have, now that their programs have ended, however they did. Raises BackendError."""
        for folder in self._folders:
            files = self._files(folder)
            for name, path in files.items():
                self._upload(name, path)
            self._forget_all_but(files)

    def _follow(self, folder: str, running: Sequence[Running], over: threading.Event) -> None:
        pause = self._pause_seconds
        while not over.wait(pause):
            began = time.monotonic()
            # Whatever is in the way, at the end it is tried once more, and then said.
            with suppress(BackendError, RunnerFailed, OSError):
                drafts = [host / "checkpoints" for host in self._hosts]
                self._store_settled(
                    _union(program.peek(folder, draft) for program, draft in zip(running, drafts, strict=True))
                )
            pause = max(self._pause_seconds, _REST * (time.monotonic() - began))

    def _store_settled(self, files: dict[str, Path]) -> None:
        """Store what has changed and looks as it did the last time, so that nobody is writing it."""
        for name, path in files.items():
            with suppress(FileNotFoundError):  # It has just been replaced.
                look = _look(path)
                if self._seen.get(name) == look != self._stored.get(name):
                    self._upload(name, path)
                    self._stored[name] = look
                self._seen[name] = look
        self._forget_all_but(files)

    def _files(self, folder: str) -> dict[str, Path]:
        return _union(host / "ml" / folder for host in self._hosts)

    def _upload(self, name: str, path: Path) -> None:
        self._there.add(self._store.upload(path, join_uri(self._uri, name)).uri)

    def _forget_all_but(self, files: dict[str, Path]) -> None:
        """Delete from S3 what the program has deleted."""
        gone = self._there - {join_uri(self._uri, name) for name in files}
        for uri in gone:
            self._store.delete(uri)
        self._there -= gone


def _union(folders: Iterator[Path]) -> dict[str, Path]:
    """Name and path of every file in *folders*."""
    from backends.engine import archives  # noqa: PLC0415  most jobs have no checkpoints

    files: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():  # The program may have removed it.
            for name, path in archives.files(folder):
                files.setdefault(name, path)
    return files


def _look(path: Path) -> Look:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
