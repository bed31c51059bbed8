"""Starting supervisors, and telling the living from the dead.

Each job and each endpoint is carried by a *supervisor*, a process of its own, so that it goes on when the command
that asked for it ends. A supervisor is known by its *seat*: a file that it keeps locked as long as it lives. The
kernel lets go of the lock however it dies, so liveness needs neither process ids nor heartbeats.

The parent locks the seat before it asks for the process, which gets the lock with the order, so there is no moment
at which a recorded supervisor looks dead although it is on its way.

Loading an interpreter and its modules takes longer than many a job. So an engine's supervisors are forked from a
*nursery*, a process with one thread that has loaded them and does nothing else. It is started with the first
supervisor, ends with the engine, and may be killed at any time: the next supervisor starts another.

Everything that a supervisor starts carries its seat as a label, and it leaves its seat's file behind unless it ended
in good order. So an unlocked seat names exactly what may be left over, and the runner that left it
(:mod:`backends.engine.recovery`), whatever the records say.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.engine.settings import EngineSettings

_BOOT = "import sys; sys.path[:] = sys.argv[2].split('\\n'); from backends.engine.supervisor import main; main()"
ORDER_BYTES = 1024  # All are as long, so that they need no framing.
_PACKAGES = str(Path(__file__).parents[2])
_DRAFT_SUFFIX = ".new"


class Nursery:
    """The process from which an engine's supervisors are forked; safe in several threads."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None

    @property
    def home(self) -> Path:
        """Where its supervisors have their seats."""
        return self._settings.home

    @property
    def runner(self) -> str:
        """The runner that its supervisors use unless they are told another."""
        return self._settings.runner

    def wake(self) -> None:
        """Let it load, unless it has."""
        with self._lock:
            self._open_door()

    def fork(self, order: dict[str, str], lock: int) -> None:
        """Let a supervisor carry out *order*; it inherits the descriptor *lock*."""
        text = json.dumps(order).encode().ljust(ORDER_BYTES)
        assert len(text) == ORDER_BYTES, "names are short"
        with self._lock:
            try:
                socket.send_fds(self._open_door(), [text], [lock])
            except ConnectionError:  # It was killed.
                self._shut_door()
                socket.send_fds(self._open_door(), [text], [lock])

    def close(self) -> None:
        """End it; its supervisors go on."""
        with self._lock:
            self._shut_door()

    def _open_door(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._shut_door()
        if self._door is None:
            self._door, theirs = socket.socketpair()
            with theirs, (self.home / "engine.log").open("ab") as complaints:
                self._process = subprocess.Popen(
                    # -S: this process has worked out the module path already; doing it again costs 40 ms.
                    [sys.executable, "-S", "-c", _BOOT, json.dumps(self._settings.as_json()), _module_path()],
                    cwd=self.home,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    start_new_session=True,
                    env=_environment(self.home),
                )
        return self._door

    def _shut_door(self) -> None:
        if self._door is not None and self._process is not None:
            self._door.close()
            self._process.wait()
            self._door = None


class Supervisor:
    """A supervisor on its way: its seat is taken, and waits to be told what to carry."""

    def __init__(self, nursery: Nursery, *, runner: str = "") -> None:
        self._nursery = nursery
        folder = _folder(nursery.home)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.seat = f"{runner or nursery.runner}-{os.urandom(8).hex()}"
        self._lock = _locked(folder / self.seat)
        nursery.wake()  # It loads while the request is checked.

    def carry(self, kind: str, name: str) -> None:
        """Let it carry the resource, whose record names this seat."""
        try:
            self._nursery.fork({"seat": self.seat, "kind": kind, "name": name}, self._lock)
        finally:
            os.close(self._lock)

    def dismiss(self) -> None:
        """It is not needed."""
        vacate(self._nursery.home, self.seat)
        os.close(self._lock)


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
