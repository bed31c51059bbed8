"""Ways to run the image's two programs. The tests know only what `Rig` promises.

Here stand the promise and the programs as processes; `image_rig` runs them in containers.
"""

import contextlib
import csv
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "containers" / "sentiment"
LIMIT_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """What `train` is given: channel name → file name → content, and what stands in the config files."""

    channels: Mapping[str, Mapping[str, bytes]]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    content_types: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ("algo-1",)
    current_host: str = "algo-1"
    stop_at: str = ""
    checkpoints: Mapping[str, bytes] | None = None


@dataclass(frozen=True)
class Trained:
    """What `train` left."""

    status: int
    log: str
    failure: str | None
    model: Path
    output: Path
    checkpoints: Mapping[str, bytes]


@dataclass(frozen=True)
class Answer:
    """An HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Served(ABC):
    """A running `serve`."""

    port: int

    @abstractmethod
    def stop(self) -> int:
        """Ask it to end as the platform does, and return its exit status."""

    @abstractmethod
    def worker_pids(self) -> list[int]:
        """Its worker processes, as this machine numbers them."""

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def invoke(self, body: Any, content_type: str | None = "text/plain", accept: str | None = None) -> Answer:
        headers = {"content-type": content_type, "accept": accept}
        return self.ask("POST", "/invocations", body, {name: v for name, v in headers.items() if v is not None})


class Rig(ABC):
    """A way to run `train` and `serve`."""

    @abstractmethod
    def train(self, job: Job, folder: Path) -> Trained:
        """Run `train` to its end on a tree made in *folder*."""

    @abstractmethod
    def serve(
        self, model: Path, folder: Path, environment: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Served]:
        """Run `serve` on a copy of *model* until the block ends; it has answered /ping by then."""

    @abstractmethod
    def serve_fails(
        self, model: Path, folder: Path, environment: Mapping[str, str], beside: Served | None = None
    ) -> tuple[int, str]:
        """Run a `serve` that cannot start, as *beside* has its port where that is given; its exit status and log."""


class ProcessRig(Rig):
    """The programs as processes on a temporary tree, found through SAGEMAKER_BASE_DIR."""

    def train(self, job: Job, folder: Path) -> Trained:
        base = folder / "ml"
        write_tree(base, job)
        with _started("train", {"SAGEMAKER_BASE_DIR": str(base)}) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if job.stop_at and job.stop_at in line:
                    process.terminate()
            status = process.wait(LIMIT_SECONDS)
        failure = base / "output" / "failure"
        text = failure.read_text() if failure.exists() else None
        kept = files_in(base / "checkpoints")
        return Trained(status, "".join(lines), text, base / "model", base / "output" / "data", kept)

    @contextmanager
    def serve(self, model: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
        settings = _serving(model, folder, environment or {})
        with _started("serve", settings) as process:
            served = _ServedProcess(process, int(settings["SAGEMAKER_BIND_TO_PORT"]))
            until(lambda: process.poll() is not None or served.is_up())
            assert process.poll() is None, "serve ended before it answered"
            yield served

    def serve_fails(
        self, model: Path, folder: Path, environment: Mapping[str, str], beside: Served | None = None
    ) -> tuple[int, str]:
        taken = {"SAGEMAKER_BIND_TO_PORT": str(beside.port)} if beside else {}
        with _started("serve", _serving(model, folder, {**environment, **taken})) as process:
            log, _ = process.communicate(timeout=LIMIT_SECONDS)
            return process.returncode, log


class _ServedProcess(Served):
    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.port = port

    def is_up(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/ping").status == 200
        return False

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(LIMIT_SECONDS)

    def worker_pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self._process.pid).children()]


def until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*, up to the limit."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write_tree(base: Path, job: Job) -> None:
    """The /opt/ml tree for *job*, as the platform would write it."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (base / "model").mkdir()
    (base / "output" / "data").mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(job.hyperparameters))
    resources = {"current_host": job.current_host, "hosts": job.hosts, "network_interface_name": "eth0"}
    (config / "resourceconfig.json").write_text(json.dumps(resources))
    channels: dict[str, dict[str, str]] = {}
    for name, files in job.channels.items():
        channels[name] = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
        if name in job.content_types:
            channels[name]["ContentType"] = job.content_types[name]
        (base / "input" / "data" / name).mkdir(parents=True)
        for file_name, content in files.items():
            path = base / "input" / "data" / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (config / "inputdataconfig.json").write_text(json.dumps(channels))
    if job.checkpoints is not None:
        (base / "checkpoints").mkdir()
        for file_name, content in job.checkpoints.items():
            (base / "checkpoints" / file_name).write_bytes(content)


def files_in(folder: Path) -> dict[str, bytes]:
    """The files right in *folder*; none if it is not there."""
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def serving_tree(model: Path, folder: Path) -> Path:
    """An /opt/ml for `serve` in *folder*, with a copy of *model*."""
    base = folder / "serving"
    shutil.copytree(model, base / "model")
    return base


@contextmanager
def _started(program: str, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A program of the image in a session of its own, of which nothing is left afterwards."""
    clean = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
        **environment,
    }
    with subprocess.Popen(
        [PROGRAMS / program],
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _serving(model: Path, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    base = serving_tree(model, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port)}
    return {**settings, "SAGEMAKER_MODEL_SERVER_WORKERS": "2", **environment}


def as_csv(rows: list[tuple[str, ...]] | list[tuple[str, str]]) -> bytes:
    """*rows* as CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def as_json_lines(rows: list[tuple[str, str]]) -> bytes:
    """*rows* as JSON Lines with text and label."""
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()
