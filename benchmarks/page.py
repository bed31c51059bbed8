"""The application's endpoint by the page's path (gateway → handler → runtime API) and by InvokeEndpoint.

Beside its container asked directly. Trains and deploys in a scratch folder first.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backends.config import load_config
from backends.engine import Engine
from backends.local.backend import engine_settings
from benchmarks.figures import Figure
from benchmarks.invoke import bare_call, beside_container, in_turns, wire_call
from benchmarks.servers import greenroom

_CLIENTS = 8
_ONE_BY_ONE = 300
_CALLS = 500
_SECONDS = 8.0
_WARM_SECONDS = 4.0
_REVIEW = "An odd little film: slow to start, but the last half hour is wonderful and I did not want it to end. " * 4


def figures() -> list[Figure]:
    """One client's latency, then eight clients' throughput, at the gateway and at the bare container."""
    with tempfile.TemporaryDirectory() as folder:
        place: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "GREENROOM_HOME": f"{folder}/home"}}
        sentiment = str(Path(sys.executable).with_name("sentiment"))
        subprocess.run([sentiment, "run"], **place, check=True, capture_output=True)
        try:
            port = _container_port(Path(folder))
            with subprocess.Popen(
                [sentiment, "web", "--port", "0", "--json"],
                **place,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as server:
                assert server.stdout is not None
                page = urlsplit(json.loads(server.stdout.readline())["url"]).netloc
                through = _both(page, "/predict", {"text": _REVIEW})
                bare = _both(f"127.0.0.1:{port}", "/invocations", {"text": _REVIEW})
                server.terminate()
            with greenroom(Path(folder)) as emulator:
                by_call = in_turns(
                    {"bare": lambda: bare_call(port), "wire": lambda: wire_call(emulator, "sentiment")}, _CALLS
                )
        finally:
            subprocess.run([sentiment, "destroy", "--yes"], **place, check=True, capture_output=True)
    return [
        *beside_container(by_call, "wire", "InvokeEndpoint through `greenroom serve`, the application's model"),
        Figure(
            what="page path, one client, p50 / p99",
            ours=f"{through['p50'] * 1e3:.1f} / {through['p99'] * 1e3:.1f} ms",
            peer=f"container alone {bare['p50'] * 1e3:.2f} / {bare['p99'] * 1e3:.2f} ms",
            ratio=f"{through['p50'] / bare['p50']:.1f}",
            target="p50 ≤ 8 ms",
        ),
        Figure(
            what=f"page path, {_CLIENTS} clients",
            ours=f"{through['rate']:.0f} requests/s",
            peer=f"container alone {bare['rate']:.0f} requests/s",
            ratio=f"{through['rate'] / bare['rate']:.2f}",
            target="≥ 300 requests/s",
        ),
    ]


def _container_port(folder: Path) -> int:
    engine = Engine(engine_settings(load_config(home=folder / "home")))
    try:
        (endpoint,) = engine.site.state.every("endpoint")
        port: int = endpoint.facts["variants"][0]["address"][1]
    finally:
        engine.close()
    return port


def _both(address: str, path: str, document: dict[str, str]) -> dict[str, float]:
    _rate(address, path, document, seconds=_WARM_SECONDS)  # Every environment and worker has answered.
    one = sorted(_ask_for(address, path, document, count=_ONE_BY_ONE))
    rate = _rate(address, path, document, seconds=_SECONDS)
    return {"p50": statistics.median(one), "p99": one[int(len(one) * 0.99)], "rate": rate}


def _rate(address: str, path: str, document: dict[str, str], *, seconds: float) -> float:
    """Answers a second that :data:`_CLIENTS` clients get together."""
    began = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        taken = pool.map(lambda _: _ask_for(address, path, document, seconds=seconds), range(_CLIENTS))
        return sum(map(len, taken)) / (time.perf_counter() - began)


def _ask_for(
    address: str, path: str, document: dict[str, str], *, count: int = sys.maxsize, seconds: float = 1e9
) -> list[float]:
    """Ask until *count* or *seconds* is reached; the seconds each answer took."""
    connection = http.client.HTTPConnection(address)
    body = json.dumps(document).encode()
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(taken) < count and time.perf_counter() < deadline:
        started = time.perf_counter()
        connection.request("POST", path, body=body, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        taken.append(time.perf_counter() - started)
    connection.close()
    return taken
