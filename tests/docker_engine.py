"""Real containers for tests: images of the Docker engine that is here, built where they are missing."""

import subprocess
import time
from datetime import datetime
from functools import cache
from pathlib import Path

import docker

from backends.engine.runners.containers import NAME_LABEL, RUN_LABEL
from backends.images import build
from sentiment.bundle import DOCKERFILE, build_context
from tests.requirements import require

BASE = "python:3.11-slim-bookworm"
_STARTED = int(time.time())  # A volume's time has whole seconds.
_IMAGES = Path(__file__).parent / "images"


def probe_image() -> str:
    """The name of an image that holds the probe's ``train`` and ``serve``."""
    require_engine()
    return _probe()


def sentiment_image() -> str:
    """The name of the application's image, as ``sentiment image build`` builds it."""
    require_engine()
    return _sentiment()


def toolkit_image() -> str:
    """The name of a framework image made of SageMaker's own toolkits."""
    require_engine()
    return _toolkit()


def streamer_image() -> str:
    """The name of an image whose answers arrive in parts."""
    require_engine()
    return _streamer()


def left_over(name: str) -> list[str]:
    """Containers, volumes and networks of this test run that bear the label of the job or endpoint *name*."""
    return _labelled(NAME_LABEL, name, since=_STARTED)


def left_by(seat: str) -> list[str]:
    """Containers, volumes and networks of the supervisor that has or had this *seat*."""
    return _labelled(RUN_LABEL, seat, since=0)


def _labelled(label: str, value: str, *, since: float) -> list[str]:
    """What bears the label and is not older than *since*, for a run that was killed may have left its own."""
    client = docker.from_env()
    chosen: dict[str, str | list[str] | bool] = {"label": f"{label}={value}"}
    found = [
        *client.containers.list(all=True, filters=chosen, ignore_removed=True),
        *client.volumes.list(filters=chosen),
        *client.networks.list(filters=chosen),
    ]
    client.close()
    return [str(thing.id) for thing in found if _made(thing.attrs) >= since]


def _made(facts: dict[str, str]) -> float:
    """When a thing was made, from its ``docker inspect``."""
    return datetime.fromisoformat(facts.get("Created") or facts["CreatedAt"]).timestamp()


def require_engine() -> None:
    """Go on if an engine with the base image is here."""
    require("docker", _has_engine, f"no Docker engine with {BASE} answers: scripts/docker-engine.sh, base-image.sh")


@cache
def _sentiment() -> str:
    name = "greenroom-sentiment-test"
    build(build_context(), dockerfile=DOCKERFILE, tag=name, base=BASE, arguments={"BASE_IMAGE": BASE}, say=print)
    return name


@cache
def _toolkit() -> str:
    name = "greenroom-toolkit-test"
    files = {name: _IMAGES / "toolkit" / name for name in ("Dockerfile", "serve")}
    build(files, dockerfile="Dockerfile", tag=name, base=BASE, arguments={"BASE_IMAGE": BASE}, say=print)
    return name


@cache
def _probe() -> str:
    return _of_programs("probe", "train", "serve")


@cache
def _streamer() -> str:
    return _of_programs("streamer", "serve")


def _of_programs(folder: str, *programs: str) -> str:
    name = f"greenroom-{folder}:test"
    subprocess.run(
        ["docker", "build", "-q", "-t", name, "-f", "-", _IMAGES / folder],
        input=f"FROM {BASE}\nCOPY --chmod=755 {' '.join(programs)} /usr/local/bin/\n".encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return name


@cache
def _has_engine() -> bool:
    try:
        found = subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return found.returncode == 0
