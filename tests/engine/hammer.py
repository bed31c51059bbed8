"""Callers that ask an endpoint without pause while something happens to it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.engine.conftest import Stage

# Some requests are under way when the traffic switches, whenever that is.
BODIES = (b"environment", b"environment sleep=0.1", b"environment sleep=0.4", b"environment")


@dataclass
class Answers:
    """What the callers were told: the model's VERSION in each answer in order, and what went wrong."""

    versions: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)


@contextmanager
def hammering(stage: Stage, endpoint: str) -> Iterator[Answers]:
    """Ask *endpoint* from several threads as long as the block runs."""
    seen, over = Answers(), threading.Event()

    def ask(body: bytes) -> None:
        while not over.is_set():
            try:
                answer = stage.engine.call("InvokeEndpoint", {"EndpointName": endpoint, "Body": body})
                seen.versions.append(json.loads(answer["Body"])["VERSION"])
            except Exception as error:  # noqa: BLE001  the test looks at all of them
                seen.failures.append(error)

    with ThreadPoolExecutor(len(BODIES)) as threads:
        asking = [threads.submit(ask, body) for body in BODIES]
        try:
            yield seen
        finally:
            over.set()
    for thread in asking:
        thread.result()
