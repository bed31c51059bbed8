"""The face of a runner: start one program under the /opt/ml contract, watch it, bring home what it wrote, end it."""

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.errors import BackendUnavailable

# Dummies: a program that calls AWS by mistake is refused there, and finds no profile of the user's.
DUMMY_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Address = tuple[str, int]
NO_SPACE = os.strerror(errno.ENOSPC)


class ImageMissing(Exception):
    """The image, or its program, is not here; the text says where it was looked for and how to get it."""


class RunnerFailed(BackendUnavailable):
    """The place where programs run failed, not the program: it does not answer, refuses, or ended the program."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run.

    *label* marks everything that the run starts, so that it can be found again; the seat of who starts it. *name*
    says to people whose program it is.
    *root* is the folder that the program sees as /opt/ml. *argument* is what SageMaker appends to the image's
    entrypoint (``train`` or ``serve``) unless *entrypoint* or *arguments* replace it (contract A.1).
    *serves* asks for an address; /opt/ml/model is then read-only.
    *outputs* are the folders below *root* whose contents are wanted back.
    *memory_mib* limits its memory, where the runner can; 0 leaves it to the runner.
    *host* is its name in the *network* of its job's hosts (:meth:`Runner.open_network`), where there is one.
    """

    label: str
    name: str
    image: str
    root: Path
    log_path: Path
    argument: str
    outputs: tuple[str, ...] = ("model", "output")
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    serves: bool = False
    instance_type: str = ""
    memory_mib: int = 0
    is_isolated: bool = False
    network: str = ""
    host: str = ""


class Running(ABC):
    """A program that was started."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """Host and port at which the program's server is reached; port 0 if it serves nothing."""

    @abstractmethod
    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end; the exit code as Docker would give it (137 for SIGKILL), None if still running.

        Raises:
            RunnerFailed: the platform ended it.
        """

    def diagnosis(self) -> str:
        """What is known of an end beyond its exit code, such as an out-of-memory kill, and what to do; mostly empty."""
        return ""

    @abstractmethod
    def collect(self) -> None:
        """Bring what the program left in its output folders to the root; once, after its end.

        Raises:
            archives.ArchiveRefused: it left what no archive may hold.
        """

    @abstractmethod
    def peek(self, folder: str, draft: Path) -> Path:
        """Where what the program has in the output *folder* by now can be read: there, or copied to *draft*.

        Raises:
            archives.ArchiveRefused: it has what no archive may hold.
            RunnerFailed: the place cannot be reached now.
        """

    @abstractmethod
    def terminate(self) -> None:
        """Ask the program's first process to end (SIGTERM); quiet if it has."""

    @abstractmethod
    def kill(self) -> None:
        """End everything that the program started, at once; quiet if nothing is left."""

    def end(self, grace_seconds: float) -> int:
        """``docker stop``: SIGTERM, *grace_seconds* to obey, then SIGKILL. Returns the exit code."""
        return end_all([self], grace_seconds)[0]

    def remove(self) -> None:
        """End it at once and remove what was made for it; its root and its log stay."""
        self.kill()


def end_all(programs: Sequence[Running], grace_seconds: float) -> list[int]:
    """End *programs* together, as :meth:`Running.end` does; their exit codes."""
    for program in programs:
        program.terminate()
    deadline = time.monotonic() + grace_seconds
    codes = []
    for program in programs:
        program.wait(max(0.0, deadline - time.monotonic()))
        program.kill()
        code = program.wait()
        assert code is not None
        codes.append(code)
    return codes


class Runner(ABC):
    """Where programs run. ``most_hosts`` is how many hosts one job may have."""

    most_hosts: int

    @abstractmethod
    def check(self, image: str) -> None:
        """Raise ImageMissing unless *image* could be run."""

    @abstractmethod
    def start(self, program: Program) -> Running:
        """Start *program*. Raises ImageMissing, or OSError if it cannot be started."""

    def open_network(self, label: str, name: str, *, is_isolated: bool) -> str:
        """Make a network for the hosts of the job *name*, who find one another by name; its name there.

        :meth:`sweep` removes it.
        """
        raise NotImplementedError  # Where most_hosts is 1, nobody asks.

    @abstractmethod
    def sweep(self, label: str) -> int:
        """End whatever was left under *label*; return how many things that were.

        Raises:
            RunnerFailed: the place cannot be reached now.
        """
