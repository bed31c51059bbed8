"""The one polling loop. Time is an argument, so that tests can make it jump."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from backends.errors import BackendUnavailable, WaitTimeout

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Clock(Protocol):
    """Where a wait takes its time from."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass."""
        ...


class _SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK: Clock = _SystemClock()


def delays(longest_seconds: float) -> Iterator[float]:
    """Pauses between two looks: 5 ms at first, so that a short job costs little, then growing."""
    pause = 0.005
    while True:
        yield pause
        pause = min(pause * 1.4, longest_seconds)


def persistent(
    look: Callable[[], T], *, patience_seconds: float, pause_seconds: float = 0.25, clock: Clock = SYSTEM_CLOCK
) -> T:
    """Call *look*, again where the place is not reached, and return what it returned.

    The first time it is not reached is logged as a warning, one line, with how long it will be tried; so is its return.

    Raises:
        BackendUnavailable: it was not reached for *patience_seconds*.
    """
    lost_since: float | None = None
    while True:
        try:
            seen = look()
        except BackendUnavailable as exc:
            now = clock.now()
            lost_since = now if lost_since is None else lost_since
            left = lost_since + patience_seconds - now
            if left <= 0:
                raise
            if now == lost_since:
                _log.warning("connection lost, trying for %g s: %s", patience_seconds, exc)
            clock.sleep(min(pause_seconds, left))
        else:
            if lost_since is not None:
                _log.warning("connected again after %.0f s", clock.now() - lost_since)
            return seen


def wait_until(
    look: Callable[[], T],
    done: Callable[[T], bool],
    *,
    what: str,
    timeout_seconds: float | None = None,
    longest_pause_seconds: float = 0.25,
    clock: Clock = SYSTEM_CLOCK,
) -> T:
    """Call *look* until *done* accepts what it returned, and return that.

    Raises:
        WaitTimeout: *timeout_seconds* passed; the text holds the last thing seen.
    """
    deadline = None if timeout_seconds is None else clock.now() + timeout_seconds
    for pause in delays(longest_pause_seconds):
        seen = look()
        if done(seen):
            return seen
        if deadline is not None and clock.now() >= deadline:
            raise WaitTimeout(
                f"waited {timeout_seconds:g} s for {what}; last seen: {seen}. It goes on; wait longer or stop it."
            )
        clock.sleep(pause if deadline is None else min(pause, max(0.0, deadline - clock.now())))
    raise AssertionError("unreachable: delays() never ends")
