"""Looking at an engine's processes from outside."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from backends.engine import Engine
from tests.engine.conftest import Stage, settings_for


def processes_of(home: Path) -> list[psutil.Process]:
    """Every supervisor and every program that belongs to *home*."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            ours = str(home) in " ".join(process.cmdline()) and "backends.engine.supervisor" in " ".join(
                process.cmdline()
            )
            if ours or programs_root(process).startswith(str(home)):
                found.append(process)
    return found


def programs_root(process: psutil.Process) -> str:
    """The SAGEMAKER_BASE_DIR of a labelled program, else an empty string."""
    environment = process.environ()
    return environment.get("SAGEMAKER_BASE_DIR", "") if "GREENROOM_RUN" in environment else ""


def kill(*victims: psutil.Process) -> None:
    """Send SIGKILL to all of them, then wait until the kernel has buried them."""
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    _, alive = psutil.wait_procs(victims, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of which nothing may be left running."""
    yield tmp_path / "home"
    stage = Stage(Engine(settings_for(tmp_path / "home")), tmp_path / "home")
    stage.strike()
    stage.until(lambda: processes_of(tmp_path / "home"), lambda left: left == [])
    stage.engine.close()


@pytest.fixture
def open_stage(home: Path) -> Iterator[Callable[[], Stage]]:
    opened: list[Stage] = []

    def open_it() -> Stage:
        opened.append(Stage(Engine(settings_for(home)), home))
        return opened[-1]

    yield open_it
    for stage in opened:
        stage.engine.close()
