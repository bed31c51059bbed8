"""The stack of docker-compose.yml, from a copy of the project that tests may edit, with each of the two composes."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docker_engine import BASE
from tests.requirements import require
from tests.reviews import few_reviews

ROOT = Path(__file__).parents[2]
COMPOSES = {"v2": ["docker", "compose"], "1.29": ["docker-compose"]}
LOCALSTACK_IMAGE = "greenroom-localstack:4.9.2"
LIMIT_SECONDS = 120
_FILES = (".dockerignore", "docker-compose.yml", "docker-compose.docker.yml")
_SOURCES = ("backends", "containers", "lambda", "sentiment", "web", *_FILES)


@dataclass(frozen=True)
class Stack:
    """A project that is up: *folder* is mounted into its containers."""

    command: list[str]
    project: str
    folder: Path
    url: str
    s3_url: str

    def __call__(self, *arguments: str) -> str:
        """What compose printed; a failure shows everything that the containers said."""
        done = subprocess.run(
            [*self.command, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=500, check=False
        )
        if done.returncode:
            logs = subprocess.run([*self.command, "logs"], cwd=self.folder, capture_output=True, text=True, check=False)
            pytest.fail(f"compose {' '.join(arguments)}: {done.stderr}\n{logs.stdout}")
        return done.stdout

    def get(self, path: str) -> str:
        """The body of a page that is there."""
        with urllib.request.urlopen(self.url + path, timeout=LIMIT_SECONDS) as response:  # noqa: S310  our own server
            return str(response.read().decode())

    def about(self) -> Any:
        """What the handler says of itself; nothing while the gateway is away."""
        try:
            return json.loads(self.get("/about"))
        except OSError:
            return {}

    def ask(self, review: str) -> Any:
        """The handler's answer to *review*."""
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{self.url}/predict", json.dumps({"text": review}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as response:  # noqa: S310
            return json.load(response)

    def containers(self) -> dict[str, Any]:
        """What the Docker engine knows of each service's container."""
        found = self("ps", "-q").split()
        documents = json.loads(subprocess.run(["docker", "inspect", *found], capture_output=True, check=True).stdout)
        return {document["Config"]["Labels"]["com.docker.compose.service"]: document for document in documents}

    def left(self) -> list[str]:
        """Every container, network and volume of the project."""
        kinds = (["ps", "-a"], ["network", "ls"], ["volume", "ls"])
        chosen = ["-q", "--filter", f"label=com.docker.compose.project={self.project}"]
        return [
            name
            for kind in kinds
            for name in subprocess.run(["docker", *kind, *chosen], capture_output=True, check=True, text=True)
            .stdout.split()
        ]  # fmt: skip


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that other programs do."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {LIMIT_SECONDS} s: {what}")
        time.sleep(0.1)


@pytest.fixture(scope="session", params=COMPOSES)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of a developer who has changed no setting."""
    with stack_up(request.param, tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@contextmanager
def stack_up(version: str, folder: Path, *services: str, **changed: str) -> Iterator[Stack]:
    """A stack in *folder*, of all *services* or some, with a few dozen reviews and the settings that were *changed*.

    Nothing of it is left.
    """
    require("compose", _is_here, "compose or an image is missing: scripts/compose.sh, scripts/localstack-image.sh")
    for name in _SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    few_reviews(folder / "sentiment" / "reviews.tar.gz")
    project = f"greenroom-test-{os.getpid()}-{version.replace('.', '')}{'-changed' if changed else ''}"
    port, s3_port = _free_ports(2)
    settings = {
        "COMPOSE_PROJECT_NAME": project,
        "GREENROOM_IMAGE": "greenroom:test",
        "LOCALSTACK_IMAGE": LOCALSTACK_IMAGE,
        "SENTIMENT_SOURCE": "/opt/greenroom/sentiment/reviews.tar.gz",
        "PORT": port,
        "LOCALSTACK_PORT": s3_port,
        **changed,
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    stack = Stack(COMPOSES[version], project, folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{s3_port}")
    try:
        stack("up", "-d", "--build", *services)
        until(lambda: bool(stack.about()), "the gateway answers")
        yield stack
    finally:
        stack("down", "-v")
    assert stack.left() == []


def _is_here() -> bool:
    commands = [[*command, "version"] for command in COMPOSES.values()]
    commands += [["docker", "image", "inspect", image] for image in (BASE, LOCALSTACK_IMAGE)]
    try:
        return all(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands)
    except FileNotFoundError:
        return False


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
