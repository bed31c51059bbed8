"""Which image the commands name on AWS, and when it is pushed: boto3 is led to moto behind the program's back."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.e2e.conftest import Shell
from tests.reviews import few_reviews

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/greenroom-sentiment:"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def shell(url: str, tmp_path: Path) -> Shell:
    """A user of AWS whose Docker engine does not run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": url}
    environment |= {"GREENROOM_EXPECTED_ACCOUNT": ECR.partition(".")[0]}
    environment |= {"SENTIMENT_SOURCE": str(few_reviews(tmp_path / "reviews.tar.gz"))}
    return Shell(tmp_path, environment | {"DOCKER_HOST": "tcp://127.0.0.1:9"})


def images(shell: Shell, *arguments: str) -> set[str]:
    """The images that a run's documents name."""
    requests = json.loads(shell("--backend", "aws", *arguments, "run", "--dry-run").stdout)["requests"]
    documents: list[dict[str, Any]] = [request["document"] for request in requests]
    named = {document.get("AlgorithmSpecification", {}).get("TrainingImage", "") for document in documents}
    named |= {document.get("PrimaryContainer", {}).get("Image", "") for document in documents}
    return named - {""}


def test_a_run_names_the_image_of_its_content(shell: Shell) -> None:
    """In the account's own registry, which is in the plan; another server than AWS's gets the local name."""
    (named,) = images(shell)
    assert '"operation": "CreateRepository"' in shell("--backend", "aws", "run", "--dry-run").stdout
    assert named.startswith(ECR)
    assert images(shell, "--image", "mine:1") == {"mine:1"}
    assert images(shell, "--endpoint-url", shell.environment["AWS_ENDPOINT_URL"]) == {"greenroom-sentiment:latest"}


def test_what_is_not_there_is_pushed_before_anything_is_started(shell: Shell) -> None:
    """Here that cannot be, so nothing is."""
    done = shell("--backend", "aws", "run", "--yes", check=False)
    assert done.returncode == 4
    assert "image repository greenroom-sentiment: " in done.stderr
    assert "the Docker engine does not answer" in done.stderr


def test_what_is_there_is_taken(shell: Shell, url: str) -> None:
    """Without an engine; destroying removes the repository."""
    (named,) = images(shell)
    ecr: Any = boto3.client(
        "ecr", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    ecr.create_repository(repositoryName="greenroom-sentiment")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    ecr.put_image(
        repositoryName="greenroom-sentiment",
        imageTag=named.removeprefix(ECR),
        imageManifest=json.dumps(manifest | {"config": {"digest": "sha256:" + "1" * 64}}),
    )
    assert shell.json("--backend", "aws", "image", "push") == {"image": named}
    removed = shell.json("--backend", "aws", "destroy", "--yes")["removed"]
    assert "image repository greenroom-sentiment" in removed
    assert ecr.describe_repositories()["repositories"] == []
    ecr.close()


def test_the_prebuilt_image_needs_the_sdk(shell: Shell) -> None:
    """Which says what it is named."""
    done = shell("--backend", "aws", "--image", "prebuilt", "run", "--dry-run", check=False)
    assert done.returncode == 4
    assert "greenroom[prebuilt]" in done.stderr
