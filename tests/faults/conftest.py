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
            if is_supervisor(process, home) or programs_root(process).startswith(str(home)):
                found.append(process)
    return found


def is_supervisor(process: psutil.Process, home: Path) -> bool:
    """True if it keeps a seat, which the nursery that shares its command line does not."""
    command = " ".join(process.cmdline())
    if str(home) not in command or "backends.engine.supervisor" not in command:
        return False
    return any(Path(file.path).parent == home / "supervisors" for file in process.open_files())


def nurseries_of(home: Path) -> list[psutil.Process]:
    """The processes from which supervisors of *home* are forked."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            ours = str(home) in command and "backends.engine.supervisor" in command
            if ours and process.status() != psutil.STATUS_ZOMBIE and not is_supervisor(process, home):
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
