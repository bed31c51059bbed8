"""The SageMaker Python SDK 2.257, unmodified, against ``greenroom serve``."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rigs import PROBE
from tests.emulator import served
from tests.wire.sdks import ROOT, SCRIPT, Client, client

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The SDK, and a server whose images are the probe and one that runs users' scripts."""
    folder: Path = tmp_path_factory.mktemp("sdk2")
    images = {"probe": PROBE, "sagemaker-scikit-learn": PROBE.parent / "script"}
    lines = [f'"{name}" = "{path}"' for name, path in images.items()]
    (folder / "greenroom.toml").write_text("\n".join(["[images]", *lines]))
    with served(folder) as (url, _), client("sdk2", url, folder) as program:
        yield program


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of this machine."""
    folder: Path = tmp_path_factory.mktemp("numbers")
    (folder / "numbers.csv").write_text("1\n2\n6\n")
    return str(folder)


@pytest.fixture(scope="module")
def trained(sdk: Client, numbers: str) -> Any:
    """What a finished training job left."""
    return sdk.ask("fit", numbers, "a word of the program's")


def test_fit_follows_the_log_and_attach_finds_the_job(trained: Any) -> None:
    """A local folder becomes a channel; the program's output is on the screen; the job is whole when found again."""
    assert "a word of the program's" in trained["screen"]
    assert "Training seconds" in trained["screen"]
    data, hyperparameters, tags = trained["attached"]
    assert data == trained["data"] == f"s3://sagemaker-us-east-1-000000000000/{trained['job']}/output/model.tar.gz"
    assert hyperparameters == {"say": "a word of the program's", "depth": "3"}
    assert tags == [{"Key": "team", "Value": "tests"}]


def test_a_failure_is_told_with_its_reason(sdk: Client) -> None:
    """The text that the program left, and its exit code."""
    assert "AlgorithmError: no luck, exit code: 3" in sdk.ask("fail")


def test_transformer(sdk: Client, trained: Any, tmp_path: Path) -> None:
    """Each line of a local file is predicted, the output lies in the account's own bucket."""
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    path, output = sdk.ask("transform", trained["job"], str(tmp_path / "lines.txt"))
    assert path.startswith("s3://sagemaker-us-east-1-000000000000/probe-")
    assert output == "ONE\nTWO\n"


def test_deploy_predict_update_delete(sdk: Client, trained: Any) -> None:
    """An endpoint answers before and after it gets another configuration; nothing is left of it."""
    told = sdk.ask("deploy", trained["job"])
    assert told == {"answers": ["HELLO", "AGAIN"], "instances": 2, "left": [[], []]}


def test_script_mode(sdk: Client, numbers: str) -> None:
    """AWS's own image name finds the local image; the uploaded scripts train and serve there."""
    told = sdk.ask("script", numbers)
    assert told["image"].endswith("/sagemaker-scikit-learn:1.2-1-cpu-py3")
    assert told["answers"] == [-5.0, -4.0, 4.0]


def test_what_is_not_emulated_is_said(sdk: Client) -> None:
    """A tuner's job is refused in words, not by a hanging client."""
    assert "Greenroom does not carry out CreateHyperParameterTuningJob" in sdk.ask("tune")


def test_the_prebuilt_image_is_the_one_that_the_sdk_knows(sdk: Client) -> None:
    """Its registry differs from region to region; one that there is not is said."""
    code = """
import sys
from backends.errors import InvalidSpec
from sentiment.prebuilt import image_uri
for region in sys.argv[1:]:
    try:
        print(image_uri(region, "ml.m5.large"))
    except InvalidSpec as error:
        print(error)
"""
    folder = subprocess.run([SCRIPT, "sdk2", "folder"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

    command = [f"{folder}/bin/python", "-c", code, "eu-central-1", "nowhere-1"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    uri, refusal = done.stdout.splitlines()
    assert uri == "492215442770.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
    assert "there is no prebuilt scikit-learn image for ml.m5.large in nowhere-1" in refusal
