"""Several threads at one stream of work, whose results come back in the stream's order.

The threads take from the stream by themselves, so that none waits for the one that gathers the results: with short
work that hand-over would cost more than the work.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

_LONGEST_WAIT_SECONDS = 0.02


class Relay(Generic[Work, Result]):
    """Runs *act* on all that *stream* yields, at most *concurrency* at a time.

    At most *window* pieces of work are taken whose results were not handed on yet; that bounds the memory. The
    stream is read in the threads, never in two at once. Use it as a context manager; leaving it
    waits for the acts that have begun.
    """

    def __init__(self, stream: Iterator[Work], act: Callable[[Work], Result], *, concurrency: int, window: int) -> None:
        self._stream = stream
        self._act = act
        self._places = threading.Semaphore(window)
        self._worth_waking = max(1, (window - concurrency) // 2)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._taken = 0
        self._finished: dict[int, tuple[Work, Result | Exception]] = {}
        self._is_exhausted = False
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._work) for _ in range(concurrency)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._is_exhausted = True
        for _ in self._threads:
            self._places.release()
        for thread in self._threads:
            thread.join()

    def results(self, look: Callable[[], None]) -> Iterator[tuple[Work, Result | Exception]]:
        """Yield each piece of work with what *act* returned or raised, in order; call *look* about 50 times a second.

        Raises whatever the stream raised, after the results of what came before.
        """
        handed_on = 0
        while True:
            with self._changed:
                if handed_on not in self._finished and not self._is_over(handed_on):
                    self._changed.wait(_LONGEST_WAIT_SECONDS)
                ready = []
                while handed_on in self._finished:
                    ready.append(self._finished.pop(handed_on))
                    handed_on += 1
                is_over = self._is_over(handed_on)
            for pair in ready:
                yield pair
                self._places.release()
            look()
            if is_over:
                break
        if self._failure is not None:
            raise self._failure

    def _is_over(self, handed_on: int) -> bool:
        return self._is_exhausted and handed_on == self._taken

    def _work(self) -> None:
        while True:
            self._places.acquire()
            with self._lock:
                if self._is_exhausted:
                    self._places.release()
                    return
                number = self._taken
                try:
                    work = next(self._stream)
                except BaseException as exc:  # noqa: BLE001  raised again where the results are read
                    self._is_exhausted = True
                    self._failure = None if isinstance(exc, StopIteration) else exc
                    self._changed.notify()
                    self._places.release()
                    return
                self._taken += 1
            self._finish(number, work)

    def _finish(self, number: int, work: Work) -> None:
        result: Result | Exception
        try:
            result = self._act(work)
        except Exception as exc:  # noqa: BLE001  handed on with its work
            result = exc
        with self._changed:
            self._finished[number] = work, result
            # The last ones need no longer wait for company.
            if len(self._finished) >= self._worth_waking or self._is_exhausted:
                self._changed.notify()
