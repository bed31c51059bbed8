"""For users' own tests: the fixture ``greenroom``, an emulator for one test; ``pytest --greenroom``, one for all.

While it stands, AWS's clients reach it without a word: ``AWS_ENDPOINT_URL``, dummy credentials and a region are set.
Images, runner and whatever else ``greenroom.toml`` and ``GREENROOM_…`` say are in force; the state folder is not the
user's own. What a test has left running is ended after it.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backends.engine import Engine

_START_SECONDS, _END_SECONDS, _PAUSE_SECONDS = 30.0, 60.0, 0.05
_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Greenroom:
    """A running emulator: its address and the folder that holds its state."""

    url: str
    home: Path


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--greenroom``."""
    group = parser.getgroup("greenroom", "SageMaker on this machine")
    group.addoption(
        "--greenroom", action="store_true", help="run all tests against one emulator: AWS_ENDPOINT_URL points at it"
    )


@pytest.fixture
def greenroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Greenroom]:
    """A fresh emulator on a free port, for this test alone."""
    with _running(tmp_path_factory.mktemp("greenroom") / "home") as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def _greenroom_for_all(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not request.config.getoption("--greenroom"):
        yield
        return
    with _running(tmp_path_factory.mktemp("greenroom") / "home"):
        yield


@contextmanager
def _running(home: Path) -> Iterator[Greenroom]:
    from dataclasses import replace  # noqa: PLC0415  every pytest of the user's loads this module

    from backends.config import load_config  # noqa: PLC0415
    from backends.engine import Engine  # noqa: PLC0415
    from backends.local.backend import engine_settings  # noqa: PLC0415

    try:
        from backends.emulator.app import create_app  # noqa: PLC0415
        from backends.http_server import Server, listen, url_of  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise pytest.UsageError(f"Greenroom's emulator needs {exc.name}: pip install 'greenroom[serve]'.") from exc
    config = load_config(backend="local", home=home)
    listener = listen()
    settings = replace(engine_settings(config), aws_endpoint_url=url_of(listener))
    engine = Engine(replace(settings, training_grace_seconds=_GRACE_SECONDS))
    is_up = threading.Event()
    server = Server(create_app(engine), listener=listener, on_ready=lambda _: is_up.set())
    thread = threading.Thread(target=server.run, name="greenroom", daemon=True)
    thread.start()
    try:
        if not is_up.wait(_START_SECONDS):
            raise RuntimeError(f"Greenroom's emulator did not answer at {server.url} in {_START_SECONDS:.0f} s.")
        with pytest.MonkeyPatch.context() as environment:
            _point_clients_at(server.url, config.region, environment)
            yield Greenroom(server.url, home)
    finally:
        server.should_exit = True
        thread.join()
        _end_everything(engine)
        engine.close()


def _point_clients_at(url: str, region: str, environment: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        environment.delenv(name)  # A profile, a token, another service's address: none of them is meant for here.
    environment.setenv("AWS_ENDPOINT_URL", url)
    environment.setenv("AWS_ACCESS_KEY_ID", "test")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
    environment.setenv("AWS_DEFAULT_REGION", region)
    environment.setenv("AWS_REGION", region)
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _end_everything(engine: "Engine") -> None:
    """Stop the jobs and delete the endpoints that a test has left.

    Raises:
        RuntimeError: some of it still runs after a minute.
    """
    from backends.sagemaker.readings import ServiceError  # noqa: PLC0415

    deadline = time.monotonic() + _END_SECONDS
    while not engine.is_idle():
        for operation, request in _endings(engine):
            try:
                engine.call(operation, request)
            except ServiceError:
                continue  # It has just ended, or is being changed: the next round sees.
        if time.monotonic() > deadline:
            raise RuntimeError(f"what a test started still runs after {_END_SECONDS:.0f} s: {list(_endings(engine))}")
        time.sleep(_PAUSE_SECONDS)


def _endings(engine: "Engine") -> Iterator[tuple[str, dict[str, str]]]:
    for kind in ("TrainingJob", "TransformJob"):
        page = engine.call(f"List{kind}s", {"StatusEquals": "InProgress", "MaxResults": 100})
        for job in page[f"{kind}Summaries"]:
            yield f"Stop{kind}", {f"{kind}Name": job[f"{kind}Name"]}
    for endpoint in engine.call("ListEndpoints", {"MaxResults": 100})["Endpoints"]:
        yield "DeleteEndpoint", {"EndpointName": endpoint["EndpointName"]}
