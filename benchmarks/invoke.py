"""One invocation, in this process and over the AWS wire, against a bare HTTP client at the same container."""

import http.client
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from backends.base import Backend
from backends.specs import EndpointSpec, ModelSpec, Variant

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import SERVE, backend_with, plant_model
from benchmarks.servers import Server, authorization, greenroom

CALLS = 1500
CLIENTS = 8
ROUNDS = 3
BODY = b"a film like any other\n"
CONTENT = {"Content-Type": "text/csv"}
SIGNED = {**CONTENT, "Authorization": authorization("sagemaker")}


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    return [
        *beside_container(measured, "invoke", "`Endpoints.invoke`"),
        *beside_container(measured, "wire", "InvokeEndpoint through `greenroom serve`"),
    ]


def beside_container(measured: Mapping[str, float], name: str, what: str) -> list[Figure]:
    """The rows of one way of :func:`in_turns` beside the way ``bare``."""
    return [
        Figure(
            what=f"{what}, one client, p50 / p99",
            ours=f"{measured[f'{name}_p50_ms']:.2f} / {measured[f'{name}_p99_ms']:.2f} ms",
            peer=f"container alone {measured['bare_p50_ms']:.2f} / {measured['bare_p99_ms']:.2f} ms",
            ratio=f"{measured[f'{name}_p50_ms'] - measured['bare_p50_ms']:.2f} ms over it",
            target="≤ 1.5 ms over it",
        ),
        Figure(
            what=f"{what}, eight clients",
            ours=f"{measured[f'{name}_per_second']:.0f} requests/s",
            peer=f"container alone {measured['bare_per_second']:.0f} requests/s",
            ratio=f"{measured[f'{name}_per_second'] / measured['bare_per_second']:.2f}",
            target="≥ 0.60",
        ),
    ]


def measure() -> dict[str, float]:
    """Times in milliseconds for one client, requests per second for eight; the three ways in turns."""
    with backend_with(serve=SERVE) as (backend, image), greenroom(image.parent) as server:
        name = "endpoint"
        model = ModelSpec(image="image", artifact_uri=plant_model(backend))
        backend.endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model),)))
        backend.endpoints.wait_in_service(name, timeout_seconds=60)
        port = _port(backend)
        try:

            def invoke() -> None:
                backend.endpoints.invoke(name, BODY, content_type="text/csv")

            return in_turns(
                {"bare": lambda: bare_call(port), "invoke": lambda: invoke, "wire": lambda: wire_call(server, name)},
                CALLS // ROUNDS,
            )
        finally:
            backend.endpoints.delete(name)
            backend.endpoints.wait_deleted(name, timeout_seconds=60)


def in_turns(ways: Mapping[str, Callable[[], Callable[[], None]]], calls: int) -> dict[str, float]:
    """``NAME_p50_ms`` and ``NAME_p99_ms`` of one client, ``NAME_per_second`` of eight, for every way to call."""
    times: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, make_call in ways.items():
            times.setdefault(name, []).extend(times_of(make_call(), calls))
        for name, make_call in ways.items():
            rates.setdefault(name, []).append(rate_of(make_call, calls))
    measured = {}
    for name, milliseconds in times.items():
        in_order = sorted(milliseconds)
        measured[f"{name}_p50_ms"] = statistics.median(in_order)
        measured[f"{name}_p99_ms"] = in_order[int(len(in_order) * 0.99)]
        measured[f"{name}_per_second"] = statistics.median(rates[name])
    return measured


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


def bare_call(
    port: int, method: str = "POST", path: str = "/invocations", headers: Mapping[str, str] = CONTENT
) -> Callable[[], None]:
    """One request over a connection of its own that stays open, as a function; to the container, if nothing else."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call() -> None:
        try:
            connection.request(method, path, body=BODY, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        except OSError:
            connection.close()
            raise
        assert response.status == HTTPStatus.OK, answer

    return call


def wire_call(server: Server, endpoint: str) -> Callable[[], None]:
    """The same as InvokeEndpoint of the emulator."""
    return bare_call(urlsplit(server.url).port or 0, path=f"/endpoints/{endpoint}/invocations", headers=SIGNED)


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
