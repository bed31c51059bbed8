"""The face of a runner: start one program under the /opt/ml contract, watch it, end it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class ImageMissing(Exception):
    """The image is not here; the text says where it was looked for and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run.

    *label* marks everything that the run starts, so that it can be found again; the seat of who starts it.
    *root* is the folder that the program sees as /opt/ml. *argument* is what SageMaker appends to the image's
    entrypoint (``train`` or ``serve``) unless *entrypoint* or *arguments* replace it (contract A.1).
    *serves* asks for a port.
    """

    label: str
    image: str
    root: Path
    log_path: Path
    argument: str
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    serves: bool = False


class Running(ABC):
    """A program that was started."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The loopback port at which the program's server is reached; 0 if it serves nothing."""

    @abstractmethod
    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end; the exit code as Docker would give it (137 for SIGKILL), None if still running."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask the program's first process to end (SIGTERM); quiet if it has."""

    @abstractmethod
    def kill(self) -> None:
        """End everything that the program started, at once; quiet if nothing is left."""

    def end(self, grace_seconds: float) -> int:
        """``docker stop``: SIGTERM, *grace_seconds* to obey, then SIGKILL. Returns the exit code."""
        self.terminate()
        self.wait(grace_seconds)
        self.kill()
        code = self.wait()
        assert code is not None
        return code


class Runner(ABC):
    """Where programs run."""

    @abstractmethod
    def check(self, image: str) -> None:
        """Raise ImageMissing unless *image* could be run."""

    @abstractmethod
    def start(self, program: Program) -> Running:
        """Start *program*. Raises ImageMissing, or OSError if it cannot be started."""

    @abstractmethod
    def sweep(self, label: str) -> int:
        """End whatever a dead supervisor left under *label*; return how many things that were."""
