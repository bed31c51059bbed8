"""The AWS backend's own way, end to end, against ``greenroom serve``: seven steps, and a server that is killed.

Once with programs as processes of the server, once in real containers.
"""

import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sentiment.bundle import CONTAINER
from sentiment.settings import IMAGE
from tests.docker_engine import sentiment_image
from tests.e2e.conftest import Shell, served_page
from tests.emulator import served
from tests.reviews import few_reviews


@pytest.fixture(scope="module", params=["process", "docker"])
def image(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The image's name, and what the server is told so that it can run it."""
    if request.param == "process":
        return IMAGE, f'[images]\n"{IMAGE}" = "{CONTAINER}"\n'
    return sentiment_image(), 'runner = "docker"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, image: tuple[str, str]) -> Path:
    """Where the server's state lies; the client has a folder of its own."""
    folder: Path = tmp_path_factory.mktemp("server")
    (folder / "greenroom.toml").write_text(image[1])
    return folder


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, image: tuple[str, str]) -> Shell:
    """A user of AWS: credentials, a role, an image, no idea of where the endpoint URL leads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "SENTIMENT_IMAGE": image[0]}
    environment |= {"GREENROOM_ROLE_ARN": "arn:aws:iam::000000000000:role/sentiment"}
    return Shell(tmp_path_factory.mktemp("client"), environment)


def test_all_seven_steps_and_a_server_that_is_killed(folder: Path, shell: Shell) -> None:
    """Jobs, objects and the endpoint are there when the server is started again; destroying leaves none."""
    source = few_reviews(shell.folder / "reviews.tar.gz")

    def sentiment(url: str, *arguments: str) -> Any:
        return shell.json("--backend", "aws", "--endpoint-url", url, *arguments)

    with served(folder) as (url, server):
        done = sentiment(url, "run", "--source", str(source))
        assert done["accuracy"] == 1.0
        assert sentiment(url, "predict", "a good film")["label"] == "positive"
        before = sentiment(url, "status")
        server.send_signal(signal.SIGKILL)
    with served(folder) as (url, _):
        assert sentiment(url, "predict", "a bad film")["label"] == "negative"
        assert sentiment(url, "status")["resources"] == before["resources"]
        refused = shell("--backend", "aws", "--endpoint-url", url, "web", "--yes", check=False)
        assert refused.returncode == 1
        assert "sentiment web --here" in refused.stderr
        refused = shell("--backend", "aws", "--endpoint-url", url, "deploy", "--ttl", "2h", "--yes", check=False)
        assert refused.returncode == 1
        assert "cloudformation" in refused.stderr
        with served_page(shell, "--backend", "aws", "--endpoint-url", url, here=True) as page:
            assert urllib.request.urlopen(page, timeout=30).status == 200  # noqa: S310  our own server
        again = sentiment(url, "run", "--source", str(source))
        assert (again["endpoint"], again["accuracy"]) == (done["endpoint"], done["accuracy"])
        other = sentiment(url, "run", "--source", str(source), "-p", "min_df=2")
        assert (other["endpoint"], other["accuracy"]) == (done["endpoint"], 1.0)
        assert [row["kind"] for row in sentiment(url, "status")["resources"]].count("endpoint") == 1
        shell("--backend", "aws", "--endpoint-url", url, "destroy", "--yes")
        left = sentiment(url, "status")["resources"]
        assert {resource["kind"] for resource in left} <= {"transform job"}  # SageMaker cannot delete those.
