"""Batch transform, rows per second, against an ideal concurrent client at the same program."""

import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from backends.base import Backend
from backends.specs import ModelSpec, Split, Strategy, TransformSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import BUCKET, SERVE, backend_with, plant_model

ROW = b"a film like any other, " * 40 + b"\n"
CONCURRENCY = 4
PORT = 19_573
KINDS: dict[str, dict[str, str]] = {"instant": {}, "model": {"MODEL_US": "2000", "MODEL_ROW_US": "10"}}
PAYLOAD_BYTES = 6 * 1024 * 1024


_NAMES = {
    "instant_single": "batch transform, one record a request, a model that takes no time",
    "instant_multi": "batch transform, records packed to 6 MB, a model that takes no time",
    "model_single": "batch transform, one record a request, a model of 2 ms",
    "model_multi": "batch transform, records packed to 6 MB, a model of 10 µs a row",
}
_TARGETS = {"model_single": "≥ 0.85", "model_multi": "≥ 0.90"}


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    return [
        Figure(
            what=name,
            ours=f"{measured[f'{key}_transform_rows_per_second']:,.0f} rows/s",
            peer=f"ideal client {measured[f'{key}_ideal_rows_per_second']:,.0f} rows/s",
            ratio=f"{measured[f'{key}_ratio']:.2f}",
            target=_TARGETS.get(key, "-"),
        )
        for key, name in _NAMES.items()
    ]


def measure() -> dict[str, float]:
    """Rows per second, the container's start and end not counted on either side; the sides in turns.

    "instant": the model takes no time, so everything that is measured is overhead. "model": it takes 2 ms for a
    request and 10 µs for a row.
    """
    figures: dict[str, float] = {}
    with backend_with(serve=SERVE) as (backend, image):
        for strategy, rows in ((Strategy.SINGLE_RECORD, 6000), (Strategy.MULTI_RECORD, 500_000)):
            backend.store.put(f"s3://{BUCKET}/{strategy}/in", ROW * rows)
            for kind, busy in KINDS.items():
                ideal, job = [], []
                for number in range(3):
                    with _server(image, busy):
                        ideal.append(rows / ideal_seconds(bodies(strategy, rows), PORT))
                    job.append(rows / job_seconds(backend, "image", strategy, f"{kind}-{strategy}-{number}", busy))
                name = f"{kind}_{'single' if strategy is Strategy.SINGLE_RECORD else 'multi'}"
                figures[f"{name}_ideal_rows_per_second"] = statistics.median(ideal)
                figures[f"{name}_transform_rows_per_second"] = statistics.median(job)
                figures[f"{name}_ratio"] = statistics.median(job) / statistics.median(ideal)
    return figures


def bodies(strategy: Strategy, rows: int) -> list[bytes]:
    """What an ideal client sends for *rows* times :data:`ROW`."""
    if strategy is Strategy.SINGLE_RECORD:
        return [ROW.rstrip(b"\n")] * rows
    per_body = PAYLOAD_BYTES // len(ROW)
    return [ROW * min(per_body, rows - start) for start in range(0, rows, per_body)]


def ideal_seconds(bodies: list[bytes], port: int) -> float:
    """How long it takes until all *bodies* are answered at *port*, by threads that do nothing else."""

    def work(mine: list[bytes]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        size = 0
        for body in mine:
            connection.request("POST", "/invocations", body=body, headers={"Content-Type": "text/csv"})
            size += len(connection.getresponse().read())
        connection.close()
        return size

    began = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(work, [bodies[start::CONCURRENCY] for start in range(CONCURRENCY)]))
    return time.perf_counter() - began


def job_seconds(backend: Backend, image: str, strategy: Strategy, name: str, busy: dict[str, str]) -> float:
    """The time from the first request (the data log's first line) until the output is stored: no container's end."""
    output_uri = f"s3://{BUCKET}/out/{name}"
    backend.transform.start(
        TransformSpec(
            name=name,
            model=ModelSpec(image=image, artifact_uri=plant_model(backend)),
            input_uri=f"s3://{BUCKET}/{strategy}/",
            output_uri=output_uri,
            content_type="text/csv",
            accept="text/csv",
            split=Split.LINE,
            assemble=Split.LINE,
            strategy=strategy,
            max_concurrency=CONCURRENCY,
            environment=busy,
        )
    )
    backend.transform.finish(name, timeout_seconds=600)
    lines = backend.transform.log_lines(name)  # type: ignore[attr-defined]  # the local backend has logs
    first = next(line for line in lines if "MaxConcurrentTransforms" in line)
    began = datetime.fromisoformat(f"{first.partition(':[')[0]}+00:00")
    return (backend.store.stat(f"{output_uri}/in.out").modified - began).total_seconds()


@contextmanager
def _server(image: Path, busy: dict[str, str]) -> Iterator[None]:
    environment = {**os.environ, **busy, "SAGEMAKER_BIND_TO_PORT": str(PORT)}
    with subprocess.Popen([str(image / "serve")], env=environment) as server:
        while True:
            try:
                http.client.HTTPConnection("127.0.0.1", PORT).connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        try:
            yield
        finally:
            server.kill()


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:40} {value:12.2f}")
