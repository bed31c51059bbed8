"""The output of the programs that the engine ran: where it lies, and how it is followed."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_PAUSE_SECONDS = 0.05
# Access key ids, and the values of assignments that name a secret (case S9).
_SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|(?<=aws_secret_access_key[=:])\s*\S+|(?<=aws_session_token[=:])\s*\S+",
    re.IGNORECASE,
)


def masked(line: str) -> str:
    """*line* with what looks like a credential replaced by asterisks."""
    return _SECRETS.sub("****", line)


def tail(path: Path, *, lines: int = 10, limit_bytes: int = 8192) -> str:
    """The last *lines* lines of a log, at most *limit_bytes* of it; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return masked("\n".join(text.splitlines()[-lines:]))


def follow(folder: Path, ended: Callable[[], bool] | None) -> Iterator[str]:
    """Yield the lines of every ``*.log`` in *folder*, file by file as they grow, until *ended* says so.

    Without *ended*: what is there now.
    """
    with ExitStack() as files:
        opened: dict[Path, _Lines] = {}
        while True:
            last_look = ended is None or ended()
            for path in sorted(folder.glob("*.log")):
                if path not in opened:
                    opened[path] = _Lines(files.enter_context(path.open("rb")))
            for lines in opened.values():
                yield from lines.new(last=last_look)
            if last_look:
                return
            time.sleep(_PAUSE_SECONDS)


class _Lines:
    """The whole lines that a growing file has gained since the last look."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def new(self, *, last: bool) -> Iterator[str]:
        while chunk := self._file.read(1 << 16):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                yield masked(line.decode(errors="replace").rstrip("\r"))
        if last and self._rest:
            yield masked(self._rest.decode(errors="replace"))
