"""One serving container: its model laid out, its ``serve`` program started, pinged until it is healthy (B.1, B.3)."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from backends.engine import archives, channels, layout
from backends.engine.exchange import Exchange
from backends.engine.logs import tail
from backends.engine.reply import NoAnswer
from backends.engine.runners import Address, Program, RunnerFailed, Running
from backends.engine.site import Site
from backends.engine.state import Document

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.25
_HEALTHY = 200


class NotHealthy(Exception):
    """The container did not become healthy; the text says what was seen last."""


class GivenUp(Exception):
    """The wait was ended from outside."""


@dataclass(kw_only=True)
class ServingContainer:
    """A container that serves one model.

    *folder* is the container's own; *log_path* its output. *model* is the CreateModel document and
    *environment* what is added to its variables; *name* says whose container it is. *memory_mib* 0 leaves its memory
    to the runner.
    """

    site: Site
    label: str
    name: str
    instance_type: str
    folder: Path
    log_path: Path
    model: Document
    memory_mib: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    _running: Running | None = None
    _exchange: Exchange | None = None
    _has_served: bool = False

    @property
    def address(self) -> Address:
        """Where the container is reached."""
        return self._started().address

    @property
    def exchange(self) -> Exchange:
        """The way to talk to the container."""
        assert self._exchange is not None
        return self._exchange

    def prepare(self) -> None:
        """Lay out /opt/ml and unpack the model into it, read-only; what an earlier life left is removed.

        Raises:
            NotFound: the model is gone from the store.
            archives.ArchiveRefused: it is not a tar.gz that may be unpacked.
            channels.UnusableKey: a key of an uncompressed one cannot be a file.
        """
        layout.remove(self.folder)
        container = self.model["PrimaryContainer"]
        model_folder = layout.lay_out_serving(self.folder / "ml")
        self._fetch_model(container, model_folder)
        layout.make_read_only(model_folder)

    def _fetch_model(self, container: Document, folder: Path) -> None:
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        uri = container.get("ModelDataUrl") or source.get("S3Uri")
        if uri is None:
            return
        if source.get("CompressionType", "Gzip") == "Gzip":
            with self.site.store.reader(uri) as stream:
                archives.extract(stream, folder)
        elif source["S3DataType"] == "S3Object":
            channels.download_one(self.site.store, uri, folder)
        else:
            channels.download(self.site.store, uri, folder, takes_folders=False)

    def start(self) -> None:
        """Start ``serve``. Raises ImageMissing or OSError."""
        container = self.model["PrimaryContainer"]
        program = Program(
            label=self.label,
            name=self.name,
            image=container["Image"],
            root=self.folder / "ml",
            log_path=self.log_path,
            argument="serve",
            environment={
                "AWS_REGION": self.site.settings.region,
                **container.get("Environment", {}),
                **self.environment,
            },
            serves=True,
            instance_type=self.instance_type,
            memory_mib=self.memory_mib,
            is_isolated=self.model.get("EnableNetworkIsolation", False),
        )
        self._running = self.site.runner.start(program)
        self._exchange = Exchange(self._running.address)

    def wait_healthy(self, timeout_seconds: float, given_up: Callable[[], bool]) -> None:
        """Ping until the answer is 200.

        Raises:
            NotHealthy: the program ended, or *timeout_seconds* passed.
            RunnerFailed: the platform ended it.
            GivenUp: *given_up* returned true.
        """
        deadline = time.monotonic() + timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        seen = "it was never asked"
        while True:
            healthy, seen = self.ping()
            if epitaph := self.epitaph():
                raise NotHealthy(f"{epitaph}{self._last_words()}")
            if healthy:
                return
            if given_up():
                raise GivenUp
            if time.monotonic() >= deadline:
                raise NotHealthy(
                    f"GET /ping was not answered with 200 within {timeout_seconds:g} s (last: {seen})"
                    f"{self._last_words()}"
                )
            self._started().wait(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def ping(self) -> tuple[bool, str]:
        """Whether /ping answers 200 in time, and what was seen."""
        try:
            answer = self.exchange.send("GET", "/ping", timeout_seconds=self.site.settings.ping_timeout_seconds)
        except NoAnswer as exc:
            return False, str(exc)
        is_healthy = answer.status == _HEALTHY
        self._has_served |= is_healthy
        return is_healthy, f"status {answer.status}"

    def epitaph(self) -> str:
        """How the program ended; empty while it runs. Raises RunnerFailed as :meth:`Running.wait` does."""
        program = self._started()
        code = program.wait(0)
        if code is None:
            return ""
        diagnosis = program.diagnosis()
        return f"its program ended with exit code {code}" + (f" ({diagnosis})" if diagnosis else "")

    def has_ended_within(self, seconds: float) -> bool:
        """Wait until the program has exited, at most *seconds*; whether it has."""
        try:
            return self._started().wait(seconds) is not None
        except RunnerFailed:
            return True

    def restart(self) -> None:
        """Remove what is left of the program and start it again, at another address. Raises as :meth:`start`."""
        self._started().remove()
        self.exchange.close()
        self._has_served = False
        self.start()

    def kill(self) -> None:
        """End the program at once: whoever waits for an answer is told that there is none."""
        if self._running is not None:
            self._running.kill()

    def end(self) -> None:
        """``docker stop``, then remove the container's files; its log stays.

        A server that never was healthy has nothing to finish, and may not yet listen to SIGTERM: it ends at once.
        """
        if self._exchange is not None:
            self._exchange.close()  # First, for a server that is told to end waits for open connections.
        if self._running is not None:
            with suppress(RunnerFailed):
                self._running.end(self.site.settings.serving_grace_seconds if self._has_served else 0.0)
            self._running.remove()
        layout.remove(self.folder)

    def _started(self) -> Running:
        assert self._running is not None
        return self._running

    def _last_words(self) -> str:
        words = tail(self.log_path)
        return f"; last lines of its log:\n{words}" if words else "; it printed nothing"
