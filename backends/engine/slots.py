"""How many requests a serverless endpoint is in the middle of, counted over all processes that ask it.

Whoever asks locks one of so many files meanwhile; the locks of a process that is killed go with it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoSlot(Exception):
    """As many requests are under way as there may be."""


class Slots:
    """The slots of one endpoint, in *folder*, for the threads of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[int] = []
        self._taken: set[int] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    @contextmanager
    def one_of(self, most: int) -> Iterator[None]:
        """Hold one of *most* slots as long as the block runs. Raises NoSlot."""
        with self._lock:
            number = self._take(most)
        try:
            yield
        finally:
            with self._lock:
                fcntl.flock(self._files[number], fcntl.LOCK_UN)
                self._taken.discard(number)
                self._close_if_idle()

    def close(self) -> None:
        """Give the files back, as soon as no block runs."""
        with self._lock:
            self._is_closed = True
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._is_closed and not self._taken:
            for file in self._files:
                os.close(file)
            self._files.clear()

    def _take(self, most: int) -> int:
        for number in range(most):
            if number in self._taken:
                continue
            try:
                fcntl.flock(self._file(number), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            self._taken.add(number)
            return number
        raise NoSlot

    def _file(self, number: int) -> int:
        while len(self._files) <= number:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path = self._folder / str(len(self._files))
            self._files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        return self._files[number]
