"""MetricDefinitions: the numbers that a training job's regular expressions find in its log (contract A.12)."""

import re
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from types import FrameType

from backends.engine.state import Document

# A user's regex can take for ever on one line (case S22); so can a million lines.
_LINE_LIMIT_CHARS = 4096
_LARGEST_FLOAT32 = 3.4028234663852886e38


class _TooSlow(Exception):
    """A metric's regex has used up its time."""


def final_metrics(
    log_path: Path, definitions: list[Document], *, timeout_seconds: float
) -> tuple[list[Document], list[str]]:
    """The last value of each metric, as FinalMetricDataList holds it, and the metrics that were given up.

    The first capture group is read as a number and kept as float32; what is no finite number is passed over. A metric
    whose regex takes longer than *timeout_seconds* over the whole log is given up. Call it in the main thread.
    """
    found: list[Document] = []
    given_up: list[str] = []
    moment = log_path.stat().st_mtime
    for definition in definitions:
        try:
            with _limited(timeout_seconds):
                value = _last(log_path, re.compile(definition["Regex"]))
        except _TooSlow:
            given_up.append(definition["Name"])
            continue
        if value is not None:
            found.append({"MetricName": definition["Name"], "Value": value, "Timestamp": moment})
    return found, given_up


def _last(log_path: Path, pattern: re.Pattern[str]) -> float | None:
    last = None
    with log_path.open(encoding="utf-8", errors="replace") as log:
        while line := log.readline(_LINE_LIMIT_CHARS):
            value = _number(pattern.search(line.rstrip("\n")))
            last = last if value is None else value
    return last


def _number(match: re.Match[str] | None) -> float | None:
    try:
        value = float(match.group(1)) if match else None
    except (ValueError, IndexError, TypeError):
        return None
    if value is None or not isfinite(value) or abs(value) > _LARGEST_FLOAT32:
        return None
    single: float = struct.unpack("f", struct.pack("f", value))[0]
    return single


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt what runs in the block after *seconds*; re looks for signals while it searches."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature is signal's
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, interrupt)
    outer_timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer_timer)
