"""Starting supervisors, and telling the living from the dead.

Each job and each endpoint is carried by a *supervisor*, a process of its own, so that it goes on when the command
that asked for it ends. A supervisor is known by its *seat*: a file that it keeps locked as long as it lives. The
kernel lets go of the lock however it dies, so liveness needs neither process ids nor heartbeats.

The parent locks the seat before it starts the process, which inherits the lock, so there is no moment at which a
recorded supervisor looks dead although it is on its way.

Everything that a supervisor starts carries its seat as a label, and it leaves its seat's file behind unless it ended
in good order. So an unlocked seat names exactly what may be left over, and the runner that left it
(:mod:`backends.engine.recovery`), whatever the records say.
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.engine.settings import EngineSettings

_BOOT = "import sys; sys.path[:] = sys.argv[3].split('\\n'); from backends.engine.supervisor import main; main()"
_PACKAGES = str(Path(__file__).parents[2])
_DRAFT_SUFFIX = ".new"


class Supervisor:
    """A supervisor process that waits to be told what to carry."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        folder = _folder(settings.home)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.seat = f"{settings.runner}-{os.urandom(8).hex()}"
        path = folder / self.seat
        lock = _locked(path)
        try:
            with (settings.home / "engine.log").open("ab") as complaints:
                self._process = subprocess.Popen(
                    # -S: the parent has worked out the module path already; doing it again costs 40 ms.
                    [sys.executable, "-S", "-c", _BOOT, str(settings.home), self.seat, _module_path()],
                    cwd=settings.home,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    start_new_session=True,
                    pass_fds=(lock,),
                    env=_environment(settings.home),
                )
        finally:
            os.close(lock)
        threading.Thread(target=self._process.wait, daemon=True).start()  # Leaves no zombie behind.

    def carry(self, kind: str, name: str) -> None:
        """Tell the supervisor to carry the resource, whose record names this seat."""
        order = {"settings": self._settings.as_json(), "kind": kind, "name": name}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # It died already: the next look at its seat finds that out.
            self._process.stdin.write(json.dumps(order).encode())
            self._process.stdin.close()

    def dismiss(self) -> None:
        """End a supervisor that was told nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()


def _locked(path: Path) -> int:
    """A descriptor of the new file *path*, which appears under its name only once it is locked."""
    draft = path.with_suffix(_DRAFT_SUFFIX)
    lock = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    draft.rename(path)
    return lock


def runner_of(seat: str) -> str:
    """The name of the runner that whoever sat there used."""
    return seat.partition("-")[0]


def is_alive(home: Path, seat: str) -> bool:
    """True while the supervisor of *seat* runs, or is about to."""
    try:
        probe = os.open(_folder(home) / seat, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two processes that look at once do not take each other for the supervisor.
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


def seats(home: Path) -> Iterator[str]:
    """Every seat that is taken, or was left behind by a supervisor that died."""
    with suppress(FileNotFoundError):
        yield from [path.name for path in _folder(home).iterdir() if path.suffix != _DRAFT_SUFFIX]


def vacate(home: Path, seat: str) -> None:
    """Remove the file of a seat whose supervisor has ended and has left nothing behind."""
    (_folder(home) / seat).unlink(missing_ok=True)


def _folder(home: Path) -> Path:
    return home / "supervisors"


def _environment(home: Path) -> dict[str, str]:
    """The parent's environment without AWS's variables: nothing on this machine may use the user's account."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        # Compiling everything anew would double a short job's time; what is compiled stays within our own folder.
        environment["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")
    return environment


def _module_path() -> str:
    """Where this process finds its modules, for one that starts in another folder."""
    return "\n".join([_PACKAGES, *(str(Path(entry).absolute()) for entry in sys.path)])
