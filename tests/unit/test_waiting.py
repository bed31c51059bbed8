"""Waits with a clock that jumps."""

import logging
from collections.abc import Callable, Iterable

import pytest

from backends.errors import BackendUnavailable
from backends.waiting import persistent
from tests.clock import Jumping

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 3.0


def looks(seen: Iterable[int | None]) -> Callable[[], int]:
    """A look that returns one of *seen* after the other; at None the place is not reached."""
    coming = iter(seen)

    def look() -> int:
        number = next(coming)
        if number is None:
            raise BackendUnavailable("the line is dead")
        return number

    return look


def test_a_lost_connection_is_borne_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it fails, two lines: that it is lost and how long it is tried, and that it is back."""
    clock = Jumping()
    with caplog.at_level(logging.WARNING):
        found = persistent(
            looks([None, None, None, 7]), patience_seconds=PATIENCE_SECONDS, pause_seconds=PAUSE_SECONDS, clock=clock
        )
    assert (found, clock.seconds) == (7, 9.0)
    assert [record.getMessage() for record in caplog.records] == [
        "connection lost, trying for 10 s: the line is dead",
        "connected again after 9 s",
    ]


def test_patience_ends() -> None:
    """After the time that was said, not a look later."""
    clock = Jumping()
    with pytest.raises(BackendUnavailable, match="dead"):
        persistent(looks([None] * 9), patience_seconds=PATIENCE_SECONDS, pause_seconds=PAUSE_SECONDS, clock=clock)
    assert clock.seconds == PATIENCE_SECONDS
