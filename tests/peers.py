"""Real servers in AWS's place, from PyPI: moto in this process, LocalStack and MiniStack by their scripts."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.requirements import require

PEERS = ("localstack", "ministack")
REGION = "us-east-1"


def script(name: str) -> Path:
    """The program that starts and stops a server."""
    return Path(__file__).parents[1] / "scripts" / f"{name}.sh"


@contextmanager
def peer(name: str, folder: Path) -> Iterator[str]:
    """The endpoint of a fresh server on a free port; nothing of it is left afterwards."""

    def installed() -> bool:
        return subprocess.run([script(name), "is_installed"], check=False).returncode == 0

    require(name, installed, f"{name} is not installed: make test-localstack")
    environment = os.environ | {"PORT": "0"}
    started = subprocess.run(
        [script(name), "start", folder], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([script(name), "stop", folder], check=True)


@contextmanager
def moto_server() -> Iterator[str]:
    """The endpoint of moto on a free port. What it holds is this process's, whatever the port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(service: str, url: str) -> Any:
    """An unmodified boto3 client of the server at *url*; a refusal is not asked for twice."""
    return boto3.client(  # type: ignore[call-overload]  # the stubs want literal names
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
