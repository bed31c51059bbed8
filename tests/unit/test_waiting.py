"""Waits with a clock that jumps."""

import logging
from collections.abc import Callable, Iterable

import pytest

from backends.errors import BackendUnavailable
from backends.waiting import persistent, wait_until

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 3.0


class Jumping:
    """A clock on which a sleep takes no time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


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


def test_patience_begins_anew_with_each_loss() -> None:
    """A wait may be longer than any one loss; each is borne by itself."""
    seen = wait_until(
        looks([None, None, 1, None, None, 2]),
        lambda number: number == 2,
        what="two",
        longest_pause_seconds=PAUSE_SECONDS,
        patience_seconds=7.0,
        clock=Jumping(),
    )
    assert seen == 2


def test_a_wait_with_a_limit_is_no_longer_for_its_patience() -> None:
    """Whoever set a limit hears at that time that nothing is reached."""
    clock = Jumping()
    with pytest.raises(BackendUnavailable):
        wait_until(
            looks([None] * 9),
            bool,
            what="anything",
            timeout_seconds=5.0,
            longest_pause_seconds=PAUSE_SECONDS,
            patience_seconds=PATIENCE_SECONDS,
            clock=clock,
        )
    assert clock.seconds == 5.0
