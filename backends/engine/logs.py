"""The output of the programs that the engine ran: where it lies, and how it is followed."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_PAUSE_SECONDS = 0.05
# What looks like a credential, and the values of assignments that name an AWS secret (case S9).
_TOKENS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|hf_[A-Za-z0-9]{30,}"
    r"|xox[abprs]-[\w-]{10,})\b"
)
_ASSIGNED = re.compile(r"((?:secret_?access_?key|session_?token)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;}]+", re.IGNORECASE)
_LONGEST_LINE_BYTES = 256 * 1024  # What CloudWatch takes as one event.


def masked(text: str) -> str:
    """*text* with what looks like a credential replaced by asterisks."""
    return _ASSIGNED.sub(r"\1****", _TOKENS.sub("****", text))


def tail(path: Path, *, lines: int = 10, limit_bytes: int = 8192) -> str:
    """The last *lines* lines of a log, at most *limit_bytes* of it; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return masked("\n".join(text.rstrip("\n").split("\n")[-lines:]))


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
    """The whole lines that a growing file has gained since the last look; very long ones are cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def new(self, *, last: bool) -> Iterator[str]:
        while chunk := self._file.read(1 << 16):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                yield _text(line)
            if len(self._rest) > _LONGEST_LINE_BYTES:
                yield _text(self._rest)
                self._rest = b""
        if last and self._rest:
            yield _text(self._rest)
            self._rest = b""


def _text(line: bytes) -> str:
    return masked(line.decode(errors="replace").rstrip("\r"))
