"""The SageMaker Python SDK 3.27, unmodified, against ``greenroom serve``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rigs import PROBE
from tests.docker_engine import BASE, probe_image
from tests.emulator import served
from tests.wire.sdks import Client, client

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The SDK, and a server whose image is the probe."""
    folder: Path = tmp_path_factory.mktemp("sdk3")
    (folder / "greenroom.toml").write_text(f'[images]\nprobe = "{PROBE}"\n')
    with served(folder) as (url, _), client("sdk3", url, folder) as program:
        yield program


@pytest.fixture(scope="module")
def trained(sdk: Client, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a finished training job left."""
    return sdk.ask("train", numbers(tmp_path_factory.mktemp("numbers")))


def numbers(folder: Path) -> str:
    """*folder*, with a file in it."""
    (folder / "numbers.csv").write_text("1\n2\n6\n")
    return str(folder)


def test_model_trainer(trained: Any) -> None:
    """A local folder becomes a channel; numbers arrive as text; the job is found by a part of its name."""
    assert trained["status"] == "Completed"
    assert trained["hyperparameters"] == {"say": "hello", "depth": "3"}
    assert trained["names"] == [trained["job"]]


def test_transformer(sdk: Client, trained: Any, tmp_path: Path) -> None:
    """Each line of a local file is predicted by a model made as a resource."""
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    assert sdk.ask("transform", trained["data"], str(tmp_path / "lines.txt")) == "ONE\nTWO\n"


def test_resources(sdk: Client, trained: Any) -> None:
    """A model, a configuration and an endpoint come, answer and go."""
    arn = "arn:aws:sagemaker:us-east-1:000000000000:endpoint/third"
    assert sdk.ask("resources", trained["data"]) == {"arn": arn, "answer": "HELLO", "left": 0}


def test_model_builder(sdk: Client, trained: Any) -> None:
    """An image of the user's own with its model data is built and deployed."""
    assert sdk.ask("build", trained["data"]) == "HELLO"


def test_source_code_runs_in_a_plain_image(tmp_path: Path) -> None:
    """The SDK's own drivers, uploaded as channels, start the user's script: a container with nothing but Python."""
    probe_image()  # It requires the engine and the base image.
    folders = [tmp_path / name for name in ("server", "client", "numbers")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "greenroom.toml").write_text('runner = "docker"\n')
    with served(folders[0]) as (url, _), client("sdk3", url, folders[1]) as program:
        told = program.ask("script", numbers(folders[2]), BASE)
        assert told == {"status": "Completed", "metrics": [["mean", 6.0]]}
