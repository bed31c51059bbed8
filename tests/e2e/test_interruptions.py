"""`sentiment run` on the AWS wire while something breaks: the server, the line, the client itself."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backends import open_backend
from backends.config import BackendConfig
from sentiment.bundle import CONTAINER
from sentiment.settings import IMAGE
from tests.e2e.conftest import Shell
from tests.emulator import served
from tests.reviews import few_reviews

LIMIT_SECONDS = 240
# Writes a line now and then until it may go on, and becomes the real program.
_PATIENT_TRAIN = """#!{python}
import os, sys, time
number = 0
while not os.path.exists({go!r}):
    print(f"waiting {{number}}", flush=True)
    number += 1
    time.sleep(0.1)
os.execv(sys.executable, [sys.executable, {train!r}])
"""


class Scene:
    """A server's folder with a training program that waits to be let go, and a user of AWS."""

    def __init__(self, folder: Path) -> None:
        self.server = folder / "server"
        self._go = folder / "go"
        image = folder / "image"
        for made in (self.server, image, folder / "client"):
            made.mkdir()
        train = image / "train"
        train.write_text(_PATIENT_TRAIN.format(python=sys.executable, go=str(self._go), train=str(CONTAINER / "train")))
        train.chmod(0o755)
        (image / "serve").symlink_to(CONTAINER / "serve")
        (self.server / "greenroom.toml").write_text(f'[images]\n"{IMAGE}" = "{image}"\n')
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        environment |= {"GREENROOM_ROLE_ARN": "arn:aws:iam::000000000000:role/sentiment"}
        self.shell = Shell(folder / "client", environment)
        self.source = few_reviews(folder / "reviews.tar.gz")

    def let_go(self) -> None:
        """The training program goes on."""
        self._go.touch()

    def jobs(self, url: str) -> list[str]:
        """The states of the training jobs."""
        found = self.shell.json("--backend", "aws", "--endpoint-url", url, "status")["resources"]
        return [resource["state"] for resource in found if resource["kind"] == "training job"]

    @contextmanager
    def running(self, url: str) -> Iterator["Run"]:
        """``sentiment run`` from now on."""
        command = [str(Path(sys.executable).with_name("sentiment")), "--backend", "aws", "--endpoint-url", url]
        with subprocess.Popen(
            [*command, "run", "--source", str(self.source)],
            cwd=self.shell.folder,
            env=self.shell.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Run(process)
            finally:
                process.kill()


class Run:
    """A command at work, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._is_over = False
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._is_over = True
            self._said.notify_all()

    def until_said(self, pattern: str) -> None:
        """Wait until a line matches."""

        def found() -> bool:
            return any(re.search(pattern, line) for line in self.lines)

        with self._said:
            self._said.wait_for(lambda: self._is_over or found(), LIMIT_SECONDS)
        assert found(), "\n".join(self.lines)

    def ended(self) -> int:
        """The exit code, once all has been read."""
        code = self.process.wait(LIMIT_SECONDS)
        self._reader.join(LIMIT_SECONDS)
        return code

    def waits(self) -> list[int]:
        """The numbers that the training program has printed, as they were shown."""
        return [int(found[1]) for line in self.lines if (found := re.search(r"│ waiting (\d+)", line))]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    with open_backend(BackendConfig(home=scene.server / ".greenroom")) as backend:
        for endpoint in list(backend.endpoints.names()):
            backend.endpoints.delete(endpoint)
            backend.endpoints.wait_deleted(endpoint, timeout_seconds=LIMIT_SECONDS)


def test_a_server_that_is_gone_for_a_while(scene: Scene) -> None:
    """The run says so once, and goes on when it is back; each line of the log is shown once and none is lost."""
    with served(scene.server) as (url, server):
        run_there = scene.running(url)
        run = run_there.__enter__()
        run.until_said("│ waiting 3")
        server.send_signal(signal.SIGKILL)
        run.until_said("connection lost, trying for")
    with served(scene.server, port=urlsplit(url).port or 0):
        run.until_said("connected again")
        scene.let_go()
        assert run.ended() == 0, "\n".join(run.lines)
        run_there.__exit__(None, None, None)
        assert scene.jobs(url) == ["completed"]
    assert run.waits() == list(range(len(run.waits())))
    assert sum("connection lost" in line for line in run.lines) == 1


def test_a_service_that_throttles(scene: Scene, tmp_path: Path) -> None:
    """Half of all looks are refused or meet a broken server: slower, but the same."""
    faults = tmp_path / "faults.toml"
    faults.write_text(
        "\n".join(
            f'[[fault]]\noperation = "{operation}"\nerror = "{error}"\nstatus = {status}\nrate = 0.5'
            for operation, error, status in (
                ("sagemaker:DescribeTrainingJob", "ThrottlingException", 400),
                ("logs:GetLogEvents", "ThrottlingException", 400),
                ("logs:DescribeLogStreams", "ServiceUnavailableException", 503),
                ("sagemaker:DescribeTransformJob", "InternalFailure", 500),
            )
        )
    )
    with served(scene.server, "--faults", str(faults)) as (url, _), scene.running(url) as run:
        run.until_said("│ waiting 3")
        scene.let_go()
        assert run.ended() == 0, "\n".join(run.lines)
    assert run.waits() == list(range(len(run.waits())))


def test_a_client_that_is_killed(scene: Scene) -> None:
    """The job goes on without it, and the next run goes on with the job, its log from the beginning."""
    with served(scene.server) as (url, _):
        with scene.running(url) as first:
            first.until_said("│ waiting 3")
            first.process.kill()
            first.ended()
        assert scene.jobs(url) == ["in progress"]
        with scene.running(url) as second:
            second.until_said("│ waiting 0")
            scene.let_go()
            assert second.ended() == 0, "\n".join(second.lines)
        assert scene.jobs(url) == ["completed"]
    assert second.waits() == list(range(len(second.waits())))


def test_an_interrupt_stops_the_job(scene: Scene) -> None:
    """Ctrl-C is for the job too, as what goes on costs money; a second one leaves without waiting for its end."""
    with served(scene.server) as (url, _), scene.running(url) as run:
        run.until_said("│ waiting 3")
        run.process.send_signal(signal.SIGINT)
        run.until_said("interrupted: stopping training job .*Ctrl-C again leaves")
        assert run.ended() == 130
        assert scene.jobs(url) == ["stopped"]
