"""The image itself: how it is built, what is in it, and what is said when it cannot be built."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from backends.errors import NotFound
from backends.images import BuildFailed, build
from sentiment.bundle import CONTAINER, DOCKERFILE, build_context
from tests.docker_engine import BASE, require_engine, sentiment_image

ROOT = Path(__file__).parents[2]
NAME = "greenroom-sentiment-test:changed"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    require_engine()
    client = docker.from_env()
    yield client
    client.close()


def built(files: dict[str, Path], *, base: str = BASE) -> list[str]:
    """Build the image *NAME* of *files*; what was said."""
    said: list[str] = []
    build(files, dockerfile=DOCKERFILE, tag=NAME, base=base, arguments={"BASE_IMAGE": base}, say=said.append)
    return said


def layers(engine: docker.DockerClient, name: str) -> list[str]:
    document: dict[str, Any] = engine.images.get(name).attrs
    return list(document["RootFS"]["Layers"])


def test_a_code_change_rebuilds_the_code_only(engine: docker.DockerClient, tmp_path: Path) -> None:
    """The layer of the requirements, the slow one, stays the same; without a change everything does."""
    image = sentiment_image()
    before = layers(engine, image)
    changed = tmp_path / "text.py"
    changed.write_text((ROOT / "sentiment" / "text.py").read_text() + "# changed\n")
    try:
        built(build_context())
        assert layers(engine, NAME) == before
        built(build_context() | {"sentiment/text.py": changed})
        after = layers(engine, NAME)
        requirements = len(layers(engine, BASE)) + 2
        assert after[:requirements] == before[:requirements]
        assert after[requirements] != before[requirements]
    finally:
        engine.images.remove(NAME)


def test_the_image_is_lean(engine: docker.DockerClient) -> None:
    """Nothing to install with, nothing of the pipeline; less than 250 MB beside its base."""
    image = engine.images.get(sentiment_image())
    assert image.attrs["Size"] - engine.images.get(BASE).attrs["Size"] < 250e6
    look = "import importlib.util as u; print([m for m in ('pip', 'setuptools', 'backends', 'sentiment.cli') if {}])"
    seen = engine.containers.run(image, ["python", "-c", look.format("u.find_spec(m)")], remove=True)
    assert seen == b"[]\n"


def test_a_failing_step_is_shown(engine: docker.DockerClient, tmp_path: Path) -> None:
    """The step, its exit code and its last lines; nothing gets the name."""
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {BASE}\nRUN echo some last words && exit 7\n")
    with pytest.raises(BuildFailed, match=r"(?s)returned a non-zero code: 7.*some last words"):
        built({DOCKERFILE: dockerfile})
    assert engine.images.list(name=NAME) == []


@pytest.mark.usefixtures("engine")
def test_a_missing_base_image_is_named() -> None:
    """With why it could not be fetched and what to do."""
    with pytest.raises(NotFound, match=r"'127\.0\.0\.1:1/none:1' .* connection refused.*--base-image"):
        built(build_context(), base="127.0.0.1:1/none:1")


def test_no_engine_is_said(tmp_path: Path) -> None:
    """With where to look, and the exit code of a place that cannot be reached."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("sentiment")), "image", "build"],
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert "'docker info' should answer" in done.stderr


def test_a_missing_context_is_said(tmp_path: Path) -> None:
    """The package alone, without the container's folder beside or in it: where it was looked for."""
    shutil.copytree(ROOT / "sentiment", tmp_path / "sentiment")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; from sentiment.bundle import build_context as b; b()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"no Dockerfile in {tmp_path / 'containers' / 'sentiment'}" in done.stderr


def test_the_image_holds_the_tested_versions() -> None:
    """What the image installs is pinned to what the project's own lock names."""
    pins = {line for line in _pins(CONTAINER / "requirements.lock") if not line.startswith("typing-extensions")}
    assert pins
    assert pins <= _pins(ROOT / "requirements.lock")


def _pins(lock: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[^\s\\]+", lock.read_text(), re.MULTILINE))
