"""Several threads at one stream, results in its order."""

import threading
import time
from collections.abc import Iterator

import pytest

from backends.engine.relay import Relay


def nothing() -> None:
    """Look at nothing."""


def test_results_come_in_order() -> None:
    """Whatever each piece takes; what an act raises is handed on with its work."""

    def act(number: int) -> int:
        time.sleep((7 - number % 8) / 1000)
        if number == 20:
            raise ValueError("twenty")
        return number * number

    with Relay(iter(range(100)), act, concurrency=8, window=20) as relay:
        results = dict(relay.results(nothing))
    assert list(results) == list(range(100))
    assert isinstance(results.pop(20), ValueError)
    assert all(result == number * number for number, result in results.items())


def test_the_window_bounds_what_is_taken() -> None:
    """The stream is not read further than the window beyond what was handed on; the acts are bounded too."""
    read = handed_on = active = most = ahead = 0
    lock = threading.Lock()

    def stream() -> Iterator[int]:
        nonlocal read, ahead
        for number in range(200):
            read += 1
            ahead = max(ahead, read - handed_on)
            yield number

    def act(number: int) -> int:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.001)
        with lock:
            active -= 1
        return number

    with Relay(stream(), act, concurrency=3, window=7) as relay:
        for _ in relay.results(nothing):
            handed_on += 1
    assert ahead <= 8  # The one that is just being handed on counts as well.
    assert most <= 3


def test_a_broken_stream_is_reported_after_what_came_before() -> None:
    """Its exception is raised where the results are read."""

    def stream() -> Iterator[int]:
        yield from range(5)
        raise OSError("the stream broke")

    seen: list[int] = []

    def gather() -> None:
        with Relay(stream(), int, concurrency=2, window=4) as relay:
            for number, _ in relay.results(nothing):
                seen.append(number)

    with pytest.raises(OSError, match="broke"):
        gather()
    assert seen == list(range(5))


def test_leaving_early_ends_the_threads() -> None:
    """Nothing more is taken, and no thread stays."""
    before = threading.active_count()

    def gather() -> None:
        with Relay(iter(range(10**9)), int, concurrency=4, window=16) as relay:
            for number, _ in relay.results(nothing):
                if number == 100:
                    raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        gather()
    assert threading.active_count() == before


@pytest.mark.parametrize(("count", "concurrency", "window"), [(0, 1, 1), (1, 4, 5), (3, 1, 2)])
def test_short_streams_end(count: int, concurrency: int, window: int) -> None:
    """Fewer pieces than threads, or none."""
    with Relay(iter(range(count)), int, concurrency=concurrency, window=window) as relay:
        assert [number for number, _ in relay.results(nothing)] == list(range(count))
