"""The seven steps in real containers of the image that the command line has built, on a few hundred real reviews."""

import json
import urllib.request
from collections.abc import Iterator
from itertools import islice
from typing import Any

import docker
import pytest

from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM
from backends.engine.state import State
from sentiment.data import package_reviews
from tests.archives import archive
from tests.docker_engine import left_by, require_engine
from tests.e2e.conftest import Shell, opened_shell, served_page

REVIEWS = 300
IMAGE = "greenroom-sentiment-e2e"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The command line with the docker runner, on a fresh place without anything left in the engine afterwards."""
    require_engine()
    folder = tmp_path_factory.mktemp("docker")
    with opened_shell(folder, GREENROOM_RUNNER="docker", SENTIMENT_IMAGE=IMAGE, GREENROOM_DOCKER__DEBUG_PORT="0") as it:
        yield it
        seats = seats_of(it)
    assert [name for name, seat in seats.items() if left_by(seat)] == []
    client = docker.from_env()
    client.images.remove(IMAGE)
    client.close()


def seats_of(shell: Shell) -> dict[str, str]:
    """The seat of each job's and endpoint's supervisor, by name: other engines have things of these names too."""
    state = State(shell.folder / ".greenroom" / "state.db")
    seats = {it.name: it.facts["seat"] for kind in (TRAINING, TRANSFORM, ENDPOINT) for it in state.every(kind)}
    state.close()
    return seats


@pytest.fixture(scope="module")
def built(shell: Shell) -> Any:
    """What ``sentiment image build`` printed."""
    return shell.json("image", "build", "--tag", IMAGE)


@pytest.fixture(scope="module")
def source(shell: Shell) -> str:
    """An archive like the official one with a few hundred reviews, as many of each kind."""
    kept: dict[str, bytes] = {}
    for is_positive, label in (True, "pos"), (False, "neg"):
        of_a_kind = (review.text for review in package_reviews() if review.is_positive == is_positive)
        for number, text in enumerate(islice(of_a_kind, REVIEWS // 2)):
            kept[f"aclImdb/{'test' if number % 5 == 0 else 'train'}/{label}/{number}_5.txt"] = text.encode()
    path = shell.folder / "aclImdb_v1.tar.gz"
    path.write_bytes(archive(kept))
    return str(path)


@pytest.fixture(scope="module")
def run(shell: Shell, built: Any, source: str) -> tuple[Any, str]:
    """What a run printed on stdout, and on stderr."""
    done = shell("--runner", "docker", "run", "--source", source, "--print-command", "--json")
    return json.loads(done.stdout), done.stderr


def test_the_image_is_built_by_name(built: Any) -> None:
    """The id that was printed is that of the engine's image."""
    client = docker.from_env()
    assert client.images.get(IMAGE).id == built["id"]
    client.close()


def test_six_steps_run_in_containers(shell: Shell, run: tuple[Any, str]) -> None:
    """The same results as from processes; the endpoint's container and its model, and nothing else, stay."""
    result, _ = run
    assert result["train_size"] + result["test_size"] == REVIEWS
    assert result["accuracy"] > 0.6
    left = {name: left_by(seat) for name, seat in seats_of(shell).items()}
    assert [(name, len(found)) for name, found in left.items() if found] == [(result["endpoint"], 2)]


def test_the_commands_are_shown(run: tuple[Any, str]) -> None:
    """Of the training job and of the endpoint, each naming the image as the user does."""
    commands = [line for line in run[1].splitlines() if "[greenroom] docker create" in line]
    assert [command.count(f" {IMAGE} train") for command in commands] == [1, 0]
    assert [command.count(f" {IMAGE} serve") for command in commands] == [0, 1]


@pytest.mark.usefixtures("run")
def test_the_seventh_step(shell: Shell) -> None:
    """The deployed model answers on the command line and through the page's API."""
    assert shell.json("predict", "A wonderful film, a joy, the best of the year.")["label"] == "positive"
    with served_page(shell) as url:
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{url}/predict", json.dumps({"text": "A delight."}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            assert set(json.load(response)) >= {"label", "probability"}


@pytest.mark.usefixtures("run")
def test_a_debugger_is_asked_for_by_a_flag(shell: Shell, source: str) -> None:
    """It listens in the image's own Python, and the program does not care."""
    done = shell("train", "--source", source, "--fresh", "--debug", "listen")
    assert "debugpy listens" in done.stderr
    assert "the container's debugger is at 127.0.0.1:" in done.stderr
    assert "model saved" in done.stderr


@pytest.mark.parametrize("flag", [["--print-command"], ["--debug", "wait"]])
def test_flags_of_containers_need_containers(shell: Shell, flag: list[str]) -> None:
    """With processes they are wrong usage."""
    done = shell("--runner", "process", "train", *flag, check=False)
    assert done.returncode == 2
    assert "--runner docker" in done.stderr
