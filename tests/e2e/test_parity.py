"""`sentiment parity`: the same requests to the local backend and, over the AWS wire, to a server of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentiment.bundle import CONTAINER
from sentiment.parity import QUESTIONS
from sentiment.settings import IMAGE
from tests.e2e.conftest import Shell, opened_shell
from tests.emulator import served
from tests.reviews import few_reviews


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The local backend, with a model in service."""
    with opened_shell(tmp_path_factory.mktemp("here")) as shell:
        shell("run", "--source", str(few_reviews(shell.folder / "reviews.tar.gz")))
        yield shell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an emulator of its own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "greenroom.toml").write_text(f'[images]\n"{IMAGE}" = "{CONTAINER}"\n')
    with served(folder) as (url, _):
        yield url


@pytest.fixture
def there(here: Shell, server: str, tmp_path: Path) -> Path:
    """The configuration of the AWS backend in front of the emulator."""
    file = tmp_path / "there.toml"
    file.write_text(
        f'backend = "aws"\nendpoint_url = "{server}"\nrole_arn = "arn:aws:iam::000000000000:role/sentiment"\n'
        f'home = "{here.folder / ".greenroom-there"}"\n'
    )
    return file


def test_two_backends_agree_until_one_has_another_model(here: Shell, there: Path) -> None:
    """The same reviews make the same model and answers; other reviews do not, and each difference is named."""
    here("--config", str(there), "run", "--source", str(here.folder / "reviews.tar.gz"))
    found = here.json("parity", "--against", str(there))
    assert found["differences"] == []
    assert found["requests"] == len(QUESTIONS)
    assert found["rows"] > 0
    assert found["artifacts"] > 0

    here("--config", str(there), "run", "--source", str(here.folder / "reviews.tar.gz"), "-p", "c=0.01", "--fresh")
    exactly = _differing(here, there)
    assert exactly >= {"model.tar.gz", "one review as JSON"}
    roughly = _differing(here, there, "--tolerance", "1000")  # What is left: labels.
    assert {"model.tar.gz"} <= roughly < exactly


def test_a_place_is_not_compared_with_itself(here: Shell, tmp_path: Path) -> None:
    file = tmp_path / "same.toml"
    file.write_text(f'home = "{here.folder / ".greenroom"}"\n')
    done = here("--config", str(file), "parity", "--against", str(file), check=False)
    assert done.returncode == 2
    assert "the same place" in done.stderr


def test_a_side_without_an_endpoint_is_named(here: Shell, tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.write_text('home = "empty"\n')
    done = here("parity", "--against", str(file), check=False)
    assert done.returncode == 3
    assert "no endpoint is in service" in done.stderr


def _differing(here: Shell, there: Path, *options: str) -> set[str]:
    done = here("parity", "--against", str(there), *options, "--json", check=False)
    assert done.returncode == 1
    return {difference["what"] for difference in json.loads(done.stdout)["differences"]}
