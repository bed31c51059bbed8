"""What Docker costs through the engine, beside ``docker run`` and the SageMaker SDK's local mode on the same image.

The image is made here, of a base image and two small programs. The SDKs are those that scripts/sdk.sh
installs; one that is missing is left out, and the table says so.
"""

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.local.backend import remove_home
from backends.specs import EndpointSpec, ModelSpec, Strategy, TrainingSpec, Variant
from benchmarks.figures import Figure
from benchmarks.invoke import BODY, CLIENTS, bare_call, beside_container, in_turns, wire_call
from benchmarks.places import BUCKET, SERVE, free_port, plant_model
from benchmarks.servers import Server, greenroom
from benchmarks.transform import KINDS, ROW, bodies, ideal_seconds, job_seconds

IMAGE = "greenroom-benchmark"
BASE = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
DOCKERFILE = f"FROM {BASE}\nCOPY --chmod=755 train serve /usr/local/bin/\n"
SDK = Path(__file__).parents[1] / "scripts" / "sdk.sh"
ROUNDS = 5
SDK_ROUNDS = 2
CALLS = 450
SDK_CALLS = 50
ROWS = {Strategy.SINGLE_RECORD: 3_000, Strategy.MULTI_RECORD: 400_000}
# Its time for many rows less its time for few is that of the difference: its container's start and end are not counted.
SDK_ROWS = {Strategy.SINGLE_RECORD: (10, 110), Strategy.MULTI_RECORD: (10, 10_010)}


class LocalMode:
    """One version of the SDK in a process of its own; see local_mode.py."""

    def __init__(self, version: str, venv: Path, artifact: Path, folder: Path) -> None:
        self.name = f"SDK {version}"
        folder.mkdir()
        self._log_path = folder / "log"
        self._process = subprocess.Popen(
            [
                venv / "bin" / "python",
                Path(__file__).with_name("local_mode.py"),
                IMAGE,
                artifact,
                folder,
                str(free_port()),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_path.open("wb"),
            text=True,
        )

    def do(self, verb: str, *arguments: object) -> Any:
        """What the program answers: seconds, or a list of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([verb, *arguments]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} could not {verb}: {self._log_path.read_text()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def figures() -> list[Figure]:
    """Every row; about five minutes with both SDKs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        place = Path(folder)
        _build(place / "image")
        backend = opened.enter_context(_docker_backend(place / "home"))
        artifact = place / "model.tar.gz"
        backend.store.download(plant_model(backend), artifact)
        sdks = [LocalMode(version, venv, artifact, place / version) for version, venv in _sdks()]
        opened.callback(_remove_containers)  # The SDK leaves them.
        for sdk in sdks:
            opened.callback(sdk.close)
        return [*_training(backend, sdks), *_hosting(backend, sdks, place), *_transforms(backend, sdks, place)]


def _training(backend: Backend, sdks: list[LocalMode]) -> list[Figure]:
    def job(number: int) -> None:
        backend.training.start(TrainingSpec(name=f"job-{number}", image=IMAGE, output_uri=f"s3://{BUCKET}/out"))
        backend.training.finish(f"job-{number}")

    by_hand, ours = [], []
    theirs: dict[str, list[float]] = {sdk.name: [] for sdk in sdks}
    for number in range(ROUNDS + 1):  # The first round warms both up.
        by_hand.append(_seconds(lambda: _docker("run", "--rm", IMAGE, "train")))
        ours.append(_seconds(lambda number=number: job(number)))  # type: ignore[misc]
        for sdk in sdks if number < SDK_ROUNDS else ():
            theirs[sdk.name].append(sdk.do("train"))
    took, alone = statistics.median(ours[1:]), statistics.median(by_hand[1:])
    what = "docker: training job whose program does nothing"
    rows = [_row(what, f"{took:.2f} s", f"`docker run --rm` {alone:.2f} s", took / alone, "≤ 1.3")]
    for name, times in theirs.items():
        peer = statistics.median(times)
        rows.append(_row(what, f"{took:.2f} s", f"{name} {peer:.2f} s", took / peer, "≤ 0.5"))
    return rows


def _hosting(backend: Backend, sdks: list[LocalMode], place: Path) -> list[Figure]:
    """Deployments in turns, the last one of each side asked in turns too."""
    bare, ours = [], []
    for number in range(ROUNDS + 1):
        with _bare_server({}) as (_, seconds):
            bare.append(seconds)
        ours.append(_deploy(backend, f"endpoint-{number}"))
    took, alone = statistics.median(ours[1:]), statistics.median(bare[1:])
    what = "docker: CreateEndpoint to InService"
    rows = [_row(what, f"{took:.2f} s", f"`docker run` to the first /ping {alone:.2f} s", took / alone, "≤ 1.3")]
    theirs = {sdk: sdk.do("deploy") for sdk in sdks}
    rows += [_row(what, f"{took:.2f} s", f"{sdk.name} {theirs[sdk]:.2f} s", took / theirs[sdk], "-") for sdk in sdks]
    _deploy(backend, "asked", keep=True)
    with _bare_server({}) as (port, _), greenroom(place, 'runner = "docker"\n') as server:
        rows += _invocations(backend, port, server, sdks)
    backend.endpoints.delete("asked")
    backend.endpoints.wait_deleted("asked", timeout_seconds=60)
    for sdk in sdks:
        sdk.do("delete")
    return rows


def _invocations(backend: Backend, port: int, server: Server, sdks: list[LocalMode]) -> list[Figure]:
    def through() -> None:
        backend.endpoints.invoke("asked", BODY, content_type="text/csv")

    measured = in_turns(
        {"bare": lambda: bare_call(port), "invoke": lambda: through, "wire": lambda: wire_call(server, "asked")},
        CALLS // 3,
    )
    rows = [
        *beside_container(measured, "invoke", "docker: `Endpoints.invoke`"),
        *beside_container(measured, "wire", "docker: InvokeEndpoint through `greenroom serve`"),
    ]
    our_rate, our_p50 = measured["wire_per_second"], measured["wire_p50_ms"]
    for sdk in sdks:
        *times, _ = sdk.do("invoke", SDK_CALLS, 1)
        *_, together = sdk.do("invoke", 2 * SDK_CALLS, CLIENTS)
        rate, p50 = 2 * SDK_CALLS / together, 1000 * statistics.median(times)
        what = "docker: InvokeEndpoint through `greenroom serve`"
        peer = f"{sdk.name} {p50:.2f} ms"
        rows.append(_row(f"{what}, one client, p50", f"{our_p50:.2f} ms", peer, our_p50 / p50, "-"))
        peer = f"{sdk.name} {rate:.0f} requests/s"
        rows.append(_row(f"{what}, eight clients", f"{our_rate:.0f} requests/s", peer, our_rate / rate, "≥ 15"))
    return rows


def _transforms(backend: Backend, sdks: list[LocalMode], place: Path) -> list[Figure]:
    rows: list[Figure] = []
    busy = KINDS["model"]
    for strategy, what, targets in (
        (Strategy.SINGLE_RECORD, "docker: batch transform, one record a request, a model of 2 ms", ("≥ 0.85", "≥ 20")),
        (Strategy.MULTI_RECORD, "docker: batch transform, 6 MB a request, a model of 10 µs a row", ("≥ 0.90", "-")),
    ):
        count = ROWS[strategy]
        backend.store.put(f"s3://{BUCKET}/{strategy}/in", ROW * count)
        alone, ours = [], []
        for number in range(3):
            with _bare_server(busy) as (port, _):
                alone.append(count / ideal_seconds(bodies(strategy, count), port))
            ours.append(count / job_seconds(backend, IMAGE, strategy, f"{strategy}-{number}", busy))
        our_rate, alone_rate = statistics.median(ours), statistics.median(alone)
        ratio = our_rate / alone_rate
        rows.append(_row(what, f"{our_rate:,.0f} rows/s", f"ideal client {alone_rate:,.0f} rows/s", ratio, targets[0]))
        for sdk in sdks:
            rate = _sdk_rate(sdk, strategy, busy, place / f"{strategy}-{sdk.name.rpartition(' ')[2]}")
            rows.append(
                _row(what, f"{our_rate:,.0f} rows/s", f"{sdk.name} {rate:,.0f} rows/s", our_rate / rate, targets[1])
            )
    return rows


def _sdk_rate(sdk: LocalMode, strategy: Strategy, busy: dict[str, str], folder: Path) -> float:
    seconds: list[float] = []
    for count in SDK_ROWS[strategy]:
        source = folder / str(count)
        source.mkdir(parents=True)
        (source / "in").write_bytes(ROW * count)
        native = "SingleRecord" if strategy is Strategy.SINGLE_RECORD else "MultiRecord"
        seconds.append(sdk.do("transform", str(source), native, busy))
    few, many = SDK_ROWS[strategy]
    return (many - few) / (seconds[1] - seconds[0])


def _deploy(backend: Backend, name: str, *, keep: bool = False) -> float:
    model = ModelSpec(image=IMAGE, artifact_uri=f"s3://{BUCKET}/model.tar.gz")
    began = time.perf_counter()
    backend.endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model),)))
    backend.endpoints.wait_in_service(name, timeout_seconds=60)
    seconds = time.perf_counter() - began
    if not keep:
        backend.endpoints.delete(name)
        backend.endpoints.wait_deleted(name, timeout_seconds=60)
    return seconds


@contextmanager
def _bare_server(environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """``docker run`` of the image's server: its port, and the seconds to the first good /ping."""
    port = free_port()
    flags = [flag for name, value in environment.items() for flag in ("--env", f"{name}={value}")]
    began = time.perf_counter()
    container = _docker("run", "--detach", "--publish", f"127.0.0.1:{port}:8080", *flags, IMAGE, "serve")
    try:
        call = bare_call(port, method="GET", path="/ping")
        while not _answers(call):
            time.sleep(0.005)
        yield port, time.perf_counter() - began
    finally:
        _docker("rm", "--force", container)


def _answers(call: Callable[[], None]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


@contextmanager
def _docker_backend(home: Path) -> Iterator[Backend]:
    config = BackendConfig(home=home, runner="docker")
    with open_backend(config) as backend:
        backend.store.ensure_bucket(BUCKET)
        yield backend
    remove_home(config)


def _build(folder: Path) -> None:
    folder.mkdir()
    (folder / "train").write_text("#!/usr/bin/env python3\n")
    (folder / "serve").write_text(f"#!/usr/bin/env python3\n{SERVE}")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    _docker("build", "--quiet", "--tag", IMAGE, str(folder))


def _sdks() -> Iterator[tuple[str, Path]]:
    """Version and environment of each SDK, as scripts/sdk.sh installs them."""
    for name in ("sdk2", "sdk3"):
        told = subprocess.run([SDK, name, "folder"], capture_output=True, check=True, text=True).stdout
        version = re.search(r"sagemaker.*==(\S+)", SDK.with_name(f"{name}.in").read_text())
        assert version
        yield version[1], Path(told.strip())


def _remove_containers() -> None:
    for container in _docker("ps", "--all", "--quiet", "--filter", f"ancestor={IMAGE}").split():
        _docker("rm", "--force", container)


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _row(what: str, ours: str, peer: str, ratio: float, target: str) -> Figure:
    return Figure(
        what=what, ours=ours, peer=peer, ratio=f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}", target=target
    )
