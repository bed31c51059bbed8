"""Real containers for tests: the probe's programs as an image of the Docker engine that is here."""

import subprocess
from functools import cache
from pathlib import Path

import docker

from backends.engine.runners.containers import NAME_LABEL
from tests.requirements import require

BASE = "python:3.11-slim-bookworm"
_PROBE = Path(__file__).parent / "images" / "probe"
_DOCKERFILE = f"FROM {BASE}\nCOPY --chmod=755 train serve /usr/local/bin/\n"


def probe_image() -> str:
    """The name of an image that holds the probe's ``train`` and ``serve``, built where it is missing."""
    require("docker", _has_engine, f"no Docker engine with {BASE} answers: scripts/docker-engine.sh, base-image.sh")
    return _build()


def left_over(name: str) -> list[str]:
    """Containers, volumes and networks that bear the label of the job or endpoint *name*."""
    client = docker.from_env()
    chosen: dict[str, str | list[str] | bool] = {"label": f"{NAME_LABEL}={name}"}
    found = [str(container.id) for container in client.containers.list(all=True, filters=chosen, ignore_removed=True)]
    found += [str(volume.name) for volume in client.volumes.list(filters=chosen)]
    found += [str(network.name) for network in client.networks.list(filters=chosen)]
    client.close()
    return found


@cache
def _build() -> str:
    name = "greenroom-probe:test"
    subprocess.run(
        ["docker", "build", "-q", "-t", name, "-f", "-", _PROBE],
        input=_DOCKERFILE.encode(),
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
