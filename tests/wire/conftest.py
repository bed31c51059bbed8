"""Real boto3 against the emulator, which stands in front of a real engine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from backends import Backend
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.http_server import Server
from backends.local.backend import engine_settings, open_local
from backends.specs import EndpointSpec, ModelSpec, Variant
from tests.archives import archive
from tests.conformance.rigs import PROBE

ENDPOINT = "probe"


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> BackendConfig:
    """A place of its own."""
    home: Path = tmp_path_factory.mktemp("wire") / "home"
    return BackendConfig(home=home, images={"probe": PROBE})


@pytest.fixture(scope="session")
def backend(config: BackendConfig) -> Iterator[Backend]:
    """The place, with one endpoint of two variants."""
    with open_local(config) as opened:
        opened.store.ensure_bucket("wire")
        opened.store.put("s3://wire/model.tar.gz", archive({"model.txt": b"the model"}))
        model = ModelSpec(image="probe", artifact_uri="s3://wire/model.tar.gz")
        variants = (Variant(name="one", model=model), Variant(name="two", model=model, weight=0.0))
        opened.endpoints.start(EndpointSpec(name=ENDPOINT, variants=variants))
        opened.endpoints.wait_in_service(ENDPOINT, timeout_seconds=30)
        yield opened
        opened.endpoints.delete(ENDPOINT)
        opened.endpoints.wait_deleted(ENDPOINT, timeout_seconds=30)


@pytest.fixture(scope="session")
def url(config: BackendConfig, backend: Backend) -> Iterator[str]:
    """The emulator's address."""
    engine = Engine(engine_settings(config))
    with serving(create_app(engine)) as address:
        yield address
    engine.close()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """*app* on a free port, in a thread."""
    ready = threading.Event()
    server = Server(app, on_ready=lambda url: ready.set())  # noqa: ARG005  the URL is known
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        yield server.url
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def runtime(url: str) -> Any:
    """An unmodified boto3 client."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="session")
def sagemaker(url: str) -> Any:
    """An unmodified boto3 client of the other service."""
    return boto3.client(
        "sagemaker",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
