"""Per server: one run of the whole pipeline with data and artifacts in its S3, and the web tier created in it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.localstack.webtier import FUNCTION, NAME, create_function, create_role
from tests.peers import PEERS, client, peer
from tests.reviews import few_reviews


@pytest.fixture(scope="session", params=PEERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Name and endpoint of a server."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with peer(request.param, folder) as url:
        yield request.param, url


@pytest.fixture(scope="session")
def url(server: tuple[str, str]) -> str:
    """The server's endpoint."""
    return server[1]


@pytest.fixture(scope="session")
def sentiment(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The command line as LocalStack's users have it: told by LOCALSTACK_HOST, with credentials nobody may use."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
    environment |= {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "never-to-be-seen"}
    environment |= {"GREENROOM_ENDPOINT_URL": "localstack", "LOCALSTACK_HOST": url.removeprefix("http://")}
    shell = Shell(tmp_path_factory.mktemp("pipeline"), environment)
    yield shell
    shell("destroy", "--yes")


@pytest.fixture(scope="session")
def run(sentiment: Shell) -> Any:
    """What ``sentiment run --json`` printed about a few dozen reviews."""
    source = few_reviews(sentiment.folder / "reviews.tar.gz")
    return sentiment.json("run", "--source", str(source))


@pytest.fixture(scope="session")
def runtime_url(sentiment: Shell) -> Iterator[str]:
    """The address of ``greenroom serve``."""
    command = [str(Path(sys.executable).with_name("greenroom")), "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=sentiment.folder, env=sentiment.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        yield found.group()
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def role_arn(url: str) -> str:
    """The role of the functions in the server."""
    return create_role(client("iam", url))


@pytest.fixture(scope="session")
def function_arn(url: str, role_arn: str, run: Any, runtime_url: str) -> str:
    """The page's function in the server, in front of the endpoint that the run deployed here."""
    variables = {
        "ENDPOINT_NAME": run["endpoint"],
        "GREENROOM_BACKEND": "local",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime_url,
    }
    return create_function(client("lambda", url), NAME, FUNCTION, role_arn=role_arn, variables=variables)
