"""One invocation of an endpoint, against a bare HTTP client at the same container."""

import http.client
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from backends.base import Backend
from backends.specs import EndpointSpec, ModelSpec, Variant

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import SERVE, backend_with, plant_model

CALLS = 1500
CLIENTS = 8
BODY = b"a film like any other\n"


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    return [
        Figure(
            what="`Endpoints.invoke`, one client, p50 / p99",
            ours=f"{measured['invoke_p50_ms']:.2f} / {measured['invoke_p99_ms']:.2f} ms",
            peer=f"container alone {measured['bare_p50_ms']:.2f} / {measured['bare_p99_ms']:.2f} ms",
            ratio=f"{measured['invoke_p50_ms'] - measured['bare_p50_ms']:.2f} ms over it",
            target="≤ 1.5 ms over it",
        ),
        Figure(
            what="`Endpoints.invoke`, eight clients",
            ours=f"{measured['invoke_per_second']:.0f} requests/s",
            peer=f"container alone {measured['bare_per_second']:.0f} requests/s",
            ratio=f"{measured['invoke_per_second'] / measured['bare_per_second']:.2f}",
            target="≥ 0.60",
        ),
    ]


def measure() -> dict[str, float]:
    """Times in milliseconds for one client, requests per second for eight; the two ways in turns."""
    with backend_with(serve=SERVE) as (backend, _):
        name = "endpoint"
        model = ModelSpec(image="image", artifact_uri=plant_model(backend))
        backend.endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model),)))
        backend.endpoints.wait_in_service(name, timeout_seconds=60)
        port = _port(backend)
        try:

            def invoke() -> None:
                backend.endpoints.invoke(name, BODY, content_type="text/csv")

            rounds = [(times_of(bare_call(port), CALLS // 3), times_of(invoke, CALLS // 3)) for _ in range(3)]
            bare = sorted(one for first, _ in rounds for one in first)
            through = sorted(one for _, second in rounds for one in second)
            bare_rate = rate_of(lambda: bare_call(port), CALLS // 3)
            through_rate = rate_of(lambda: invoke, CALLS // 3)
        finally:
            backend.endpoints.delete(name)
            backend.endpoints.wait_deleted(name, timeout_seconds=60)
    return {
        "bare_p50_ms": statistics.median(bare),
        "bare_p99_ms": bare[int(len(bare) * 0.99)],
        "invoke_p50_ms": statistics.median(through),
        "invoke_p99_ms": through[int(len(through) * 0.99)],
        "bare_per_second": bare_rate,
        "invoke_per_second": through_rate,
    }


def _port(backend: Backend) -> int:
    """Where the container listens, found as a stranger would: it is the one that asks for this port."""
    import psutil  # noqa: PLC0415

    home = backend.place.split()[-1].strip("()")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            if "/serve" in " ".join(process.cmdline()) and home in str(environment):
                return int(environment["SAGEMAKER_BIND_TO_PORT"])
    raise LookupError("the container's process is not there")


def bare_call(port: int, method: str = "POST", path: str = "/invocations") -> Callable[[], None]:
    """One request to the container over a connection of its own that stays open, as a function."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call() -> None:
        try:
            connection.request(method, path, body=BODY, headers={"Content-Type": "text/csv"})
            connection.getresponse().read()
        except OSError:
            connection.close()
            raise

    return call


def times_of(call: Callable[[], None], calls: int) -> list[float]:
    """Milliseconds of each call, one after the other."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return times


def rate_of(make_call: Callable[[], Callable[[], None]], calls: int) -> float:
    """Calls per second of :data:`CLIENTS` clients, each of which makes *calls*."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        total = sum(len(times) for times in pool.map(lambda _: times_of(make_call(), calls), range(CLIENTS)))
    return total / (time.perf_counter() - began)


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:20} {value:10.2f}")
