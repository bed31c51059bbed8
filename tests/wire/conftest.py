"""Real boto3 against the emulator, which stands in front of a real engine."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError

from backends import Backend
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.local.backend import engine_settings, open_local
from backends.specs import EndpointSpec, ModelSpec, Variant
from tests.archives import archive
from tests.conformance.rigs import PROBE
from tests.emulator import serving

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


def client(
    service: str, url: str, *, region: str = "us-east-1", attempts: int = 1, config: Config | None = None
) -> Any:
    """An unmodified boto3 client that does not try again unless told to."""
    session: Any = boto3.session.Session(region_name=region, aws_access_key_id="test", aws_secret_access_key="test")
    tries = Config(retries={"total_max_attempts": attempts})
    return session.client(service, endpoint_url=url, config=tries.merge(config) if config else tries)


@pytest.fixture(scope="session")
def runtime(url: str) -> Any:
    """The runtime plane."""
    return client("sagemaker-runtime", url)


@pytest.fixture(scope="session")
def sagemaker(url: str) -> Any:
    """The control plane."""
    return client("sagemaker", url)


@pytest.fixture(scope="session")
def s3_config(tmp_path_factory: pytest.TempPathFactory) -> BackendConfig:
    """A place that holds objects only."""
    return BackendConfig(home=tmp_path_factory.mktemp("s3") / "home")


@pytest.fixture(scope="session")
def s3_url(s3_config: BackendConfig) -> Iterator[str]:
    """The address of an emulator in front of that place."""
    engine = Engine(engine_settings(s3_config))
    with serving(create_app(engine)) as address:
        yield address
    engine.close()


@pytest.fixture(scope="session")
def s3(s3_url: str) -> Any:
    """An unmodified boto3 client."""
    return client("s3", s3_url)


@pytest.fixture(scope="session")
def web() -> Iterator[urllib3.PoolManager]:
    """A plain client of HTTP, which tries nothing again."""
    pool = urllib3.PoolManager(retries=False)
    yield pool
    pool.clear()


@pytest.fixture
def bucket(s3: Any) -> str:
    """A bucket of the test's own."""
    name = f"test-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    return name


@contextmanager
def refused(code: str, status: int) -> Iterator[dict[str, Any]]:
    """The block is answered by an error with this code and HTTP status; its document is filled in."""
    document: dict[str, Any] = {}
    with pytest.raises(ClientError) as caught:
        yield document
    document |= caught.value.response
    assert (document["Error"]["Code"], document["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
