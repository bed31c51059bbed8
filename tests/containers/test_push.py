"""Images pushed to a registry that asks for a password. ECR's own registry has not seen these pushes."""

import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from backends.errors import BackendUnavailable
from backends.images import PushFailed, push
from tests.docker_engine import require_engine
from tests.registry import PASSWORD, USERNAME, Registry, registry


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    require_engine()
    folder: Path = tmp_path_factory.mktemp("registry")
    with registry(folder) as started:
        yield started


@pytest.fixture
def image() -> Iterator[str]:
    """The name of a small image of this test's own; the engine must have no other name of it afterwards."""
    name = f"greenroom-push-test:{uuid.uuid4().hex[:8]}"
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as archive:
        entry = tarfile.TarInfo("name")
        entry.size = len(name)
        archive.addfile(entry, io.BytesIO(name.encode()))
    client = docker.from_env()
    client.api.import_image_from_data(tape.getvalue(), *name.split(":"))
    yield name
    assert client.images.get(name).tags == [name]
    client.images.remove(name)
    client.close()


def test_an_image_is_pushed(hub: Registry, image: str) -> None:
    """The registry has it under the name that was asked for, and whoever waited saw it come."""
    shares: list[float] = []
    push(image, f"{hub.host}/team/app:1", username=USERNAME, password=PASSWORD, advance=shares.append)
    assert hub.document("team/app/tags/list") == {"name": "team/app", "tags": ["1"]}
    assert shares[-1] == 1.0


def test_the_password_goes_nowhere_else(hub: Registry, image: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither into Docker's own files nor into anything printed or said, also where it is wrong."""
    with pytest.raises(PushFailed, match=r"not pushed: .*(denied|unauthorized|authentication)") as caught:
        push(image, f"{hub.host}/closed:1", username=USERNAME, password="wrong-password", advance=lambda _: None)
    push(image, f"{hub.host}/open:1", username=USERNAME, password=PASSWORD, advance=lambda _: None)
    said = "".join(capfd.readouterr()) + str(caught.value) + repr(caught.value.__cause__)
    config = Path("~/.docker/config.json").expanduser()
    kept = config.read_text() if config.exists() else ""
    assert hub.document("closed/tags/list") is None
    assert hub.host not in kept
    for secret in (PASSWORD, "wrong-password"):
        assert secret not in kept
        assert secret not in said


def test_a_registry_that_is_not_there(image: str) -> None:
    """The registry's name and the reason are said."""
    with pytest.raises(PushFailed, match=r"127\.0\.0\.1:9"):
        push(image, "127.0.0.1:9/app:1", username=USERNAME, password=PASSWORD, advance=lambda _: None)


def test_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is said as such."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(BackendUnavailable, match="Docker engine does not answer"):
        push("app:1", "127.0.0.1:9/app:1", username=USERNAME, password=PASSWORD, advance=lambda _: None)
