"""Real containers: an image's own ``train`` and ``serve`` through the Docker Engine API.

Files travel as archives, never by bind mounts, so the daemon may be anywhere: on this machine, behind ``DOCKER_HOST``
or a context, or beside the container in which the engine itself runs; and nothing of root's is left on the host.
What a container looks like is said in :mod:`backends.engine.runners.containers`.
"""

import os
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker import APIClient
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env
from requests import RequestException

from backends.engine import archives, layout
from backends.engine.runners import containers
from backends.engine.runners.base import Address, ImageMissing, Program, Runner, RunnerFailed, Running
from backends.engine.runners.containers import RUN_LABEL, SERVING_PORT, Machine, Reach
from backends.engine.settings import DockerSettings

_TIMEOUT_SECONDS = 600
_LAST_OUTPUT_SECONDS = 10
_LOOPBACK = "127.0.0.1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CANNOT_EXECUTE = frozenset({1, 126, 255})
_NOT_STARTABLE = re.compile("executable file not found|no such file or directory|exec format error|permission denied")
# The engine's own container shows its id in the files that Docker mounts into every container.
_OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/")


class DockerRunner(Runner):
    """Runs programs as containers of the Docker engine that ``DOCKER_HOST`` or the current context names."""

    most_hosts = 20

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings

    def check(self, image: str) -> None:
        with _answering("look for the image"):
            self._find_image(image)

    def start(self, program: Program) -> Running:
        with _answering(f"start {program.name!r}"):
            image = self._find_image(program.image)
            network = self._isolated_network(program) if program.serves and program.is_isolated else ""
            container = _Container(self, program, image)
            try:
                container.create(Reach(network=network) if network else self._reach)
                container.start()
            except BaseException:
                container.remove()
                raise
            return container

    def open_network(self, label: str, *, is_isolated: bool) -> str:
        with _answering("make a network"):
            return self._make_network(label, is_isolated=is_isolated)

    def sweep(self, label: str) -> int:
        chosen = {"label": f"{RUN_LABEL}={label}"}
        with _answering("look for what was left over"):
            found = [container["Id"] for container in self.client.containers(all=True, filters=chosen)]
            for container in found:
                with suppress(NotFound):
                    self.client.remove_container(container, force=True, v=True)
            volumes = [volume["Name"] for volume in self.client.volumes(filters=chosen)["Volumes"] or ()]
            for volume in volumes:
                with suppress(NotFound):
                    self.client.remove_volume(volume)
            networks = [network["Id"] for network in self.client.networks(filters=chosen)]
            for network in networks:
                with suppress(NotFound):
                    self.client.remove_network(network)
        return len(found) + len(volumes) + len(networks)

    @cached_property
    def client(self) -> APIClient:
        """The connection to the engine, made when it is first needed."""
        where = kwargs_from_env() if os.environ.get("DOCKER_HOST") else ContextAPI.kwargs_from_context()
        return APIClient(**where, version="auto", timeout=_TIMEOUT_SECONDS)

    @property
    def settings(self) -> DockerSettings:
        """How containers are treated."""
        return self._settings

    @cached_property
    def machine(self) -> Machine:
        """What the engine's machine has."""
        info = self._info
        return Machine(
            memory_bytes=info["MemTotal"], processors=info["NCPU"], has_gpus="nvidia" in info.get("Runtimes", {})
        )

    @property
    def architecture(self) -> str:
        """The engine's processor architecture in the words of images."""
        native: str = self._info["Architecture"]
        return _ARCHITECTURES.get(native, native)

    @cached_property
    def _info(self) -> dict[str, Any]:
        return dict(self.client.info())

    @cached_property
    def _reach(self) -> Reach:
        """How this process gets to a server in a container."""
        own = _own_container()
        if own:
            with suppress(NotFound):  # Another engine's container.
                networks = self.client.inspect_container(own)["NetworkSettings"]["Networks"]
                return Reach(network=next(iter(networks)))
        where = urlsplit(os.environ.get("DOCKER_HOST") or ContextAPI.kwargs_from_context().get("base_url", ""))
        if where.hostname and where.scheme in {"tcp", "http", "https", "ssh"}:
            return Reach(published_at=socket.gethostbyname(where.hostname))
        return Reach(published_at=_LOOPBACK)

    def _isolated_network(self, program: Program) -> str:
        """A network without a way out, over which only the engine's machine reaches the container."""
        if self._reach.published_at not in {_LOOPBACK, ""}:
            raise RunnerFailed(
                "EnableNetworkIsolation: a server without network can only be reached on the Docker engine's own "
                f"machine, and this one is at {self._reach.published_at}."
            )
        name = self._make_network(program.label, is_isolated=True)
        if own := _own_container():
            self.client.connect_container_to_network(own, name)
        return name

    def _make_network(self, label: str, *, is_isolated: bool) -> str:
        name = f"greenroom-{os.urandom(6).hex()}"
        self.client.create_network(name, labels={RUN_LABEL: label}, internal=is_isolated)
        return name

    def _find_image(self, name: str) -> dict[str, Any]:
        spellings = list(spellings_of(name))
        for spelling in spellings:
            with suppress(ImageNotFound):
                return dict(self.client.inspect_image(spelling))  # type: ignore[no-untyped-call]
        raise ImageMissing(
            f"the Docker engine has no image {' or '.join(map(repr, spellings))}. Build it ('sentiment image build' "
            f"builds the application's), or fetch it: docker pull {name}."
        )


class _Container(Running):
    def __init__(self, runner: DockerRunner, program: Program, image: dict[str, Any]) -> None:
        self._runner = runner
        self._client = runner.client
        self._program = program
        self._image = image
        host = f"-{program.host}" if program.host else ""
        self._name = f"greenroom-{program.name}{host}-{os.urandom(4).hex()}"
        self._volume = f"{self._name}-model" if program.serves else ""
        self._address = ("", 0)
        self._ended = threading.Event()
        self._code = 0
        self._lost: Exception | None = None

    def create(self, reach: Reach) -> None:
        """Make the container with its files in it."""
        image = self._image["Id"]
        if self._volume:
            filler = containers.filler_document(self._program, image=image, volume=self._volume)
            made = self._client.create_container_from_config(filler)["Id"]  # type: ignore[no-untyped-call]
            self._put(made, "/opt/ml/model", archives.tar(self._program.root / "model"))
            self._client.remove_container(made)
        document = containers.create_document(
            self._program,
            image=image,
            volume=self._volume,
            settings=self._runner.settings,
            machine=self._runner.machine,
            reach=reach,
        )
        self._client.create_container_from_config(document, self._name)  # type: ignore[no-untyped-call]
        if not self._volume:
            self._put(self._name, "/opt/ml", archives.tar(self._program.root))
        if self._runner.settings.prints_command:
            shown = containers.command(document | {"Image": self._program.image}, self._name, self._program.root)
            with self._program.log_path.open("a", encoding="utf-8") as log:
                log.write(f"[greenroom] {shown}\n")
        self._network = reach.network

    def start(self) -> None:
        """Let it run; its output goes to the log."""
        output = self._client.attach(self._name, stdout=True, stderr=True, stream=True)
        reader = threading.Thread(target=self._copy_output, args=(output,), daemon=True)
        reader.start()
        try:
            self._client.start(self._name)
        except APIError as exc:
            output.close()
            if _NOT_STARTABLE.search(str(exc.explanation)):
                raise ImageMissing(self._unstartable(str(exc.explanation))) from exc
            raise
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        if self._program.serves:
            self._address = self._find_address()

    @property
    def address(self) -> Address:
        return self._address

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        if not self._ended.wait(timeout_seconds):
            return None
        if self._lost is not None:
            raise RunnerFailed(
                f"the Docker engine was stopped or lost the container {self._name}: {self._lost}. See that "
                "'docker info' answers, then run it again."
            ) from self._lost
        return self._code

    def diagnosis(self) -> str:
        try:
            state = self._client.inspect_container(self._name)["State"]
        except (DockerException, RequestException):
            return ""
        if state.get("OOMKilled"):
            limit = self._client.inspect_container(self._name)["HostConfig"]["Memory"] // 1024**2
            return (
                f"out of memory: the container was killed at its limit of {limit} MiB; use an instance type with more "
                "memory, or raise docker.memory_mib"
            )
        return self._foreign() if self._code in _CANNOT_EXECUTE else ""

    def collect(self) -> None:
        for folder in self._program.outputs:
            target = self._program.root / folder
            layout.remove(target)
            target.mkdir(parents=True)
            with _answering(f"give back /opt/ml/{folder}"):
                try:
                    chunks, _ = self._client.get_archive(self._name, f"/opt/ml/{folder}", chunk_size=1 << 20)
                except NotFound:
                    continue  # The program has removed it.
                archives.receive(chunks, target, origin=f"/opt/ml/{folder}")

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._signal("SIGKILL")

    def remove(self) -> None:
        # What cannot be removed now is swept later by its label.
        with suppress(DockerException, RequestException):
            self._client.remove_container(self._name, force=True, v=True)
        if self._volume:
            with suppress(DockerException, RequestException):
                self._client.remove_volume(self._volume)

    def _signal(self, name: str) -> None:
        if self._ended.is_set():
            return
        with suppress(DockerException, RequestException):  # It has ended, or nobody can be asked.
            self._client.kill(self._name, signal=name)

    def _unstartable(self, explanation: str) -> str:
        image = self._program.image
        if foreign := self._foreign():
            return f"image {image!r}: {foreign}."
        wanted = [*self._program.entrypoint, *self._program.arguments] or [self._program.argument]
        return (
            f"image {image!r} has no executable {wanted[0]!r} on its PATH, and no ENTRYPOINT that takes it: copy one "
            f"there (COPY --chmod=755 {wanted[0]} /usr/local/bin/), or give the job an entrypoint. ({explanation})"
        )

    def _foreign(self) -> str:
        """Where the image is for other processors than the engine's: that, and what to do."""
        theirs, ours = self._image.get("Architecture", ""), self._runner.architecture
        if theirs == ours:
            return ""
        return f"it is for {theirs} and the Docker engine's machine is {ours}; build it with --platform linux/{ours}"

    def _put(self, container: str, folder: str, chunks: Iterable[bytes]) -> None:
        self._client.put_archive(container, folder, chunks)

    def _copy_output(self, output: Iterable[bytes]) -> None:
        with (
            self._program.log_path.open("ab", buffering=0) as log,
            suppress(DockerException, RequestException, OSError),
        ):
            for piece in output:
                log.write(piece)

    def _watch(self, reader: threading.Thread) -> None:
        try:
            self._code = self._client.wait(self._name, timeout=None)["StatusCode"]
        except (DockerException, RequestException) as exc:
            self._lost = exc
        reader.join(_LAST_OUTPUT_SECONDS)
        self._ended.set()

    def _find_address(self) -> Address:
        found = self._client.inspect_container(self._name)["NetworkSettings"]
        if self._network:
            return found["Networks"][self._network]["IPAddress"], SERVING_PORT
        bindings = found["Ports"].get(f"{SERVING_PORT}/tcp")
        if not bindings:  # It has ended already.
            return _LOOPBACK, 0
        return bindings[0]["HostIp"], int(bindings[0]["HostPort"])


@contextmanager
def _answering(tried: str) -> Iterator[None]:
    """Say in one way that the engine refuses or does not answer."""
    try:
        yield
    except APIError as exc:
        raise RunnerFailed(f"the Docker engine could not {tried}: {exc.explanation or exc}") from exc
    except (DockerException, RequestException) as exc:
        raise RunnerFailed(
            f"the Docker engine does not answer (it was to {tried}): {exc}. 'docker info' should answer; start the "
            "engine, set DOCKER_HOST, or use the process runner."
        ) from exc


def spellings_of(image: str) -> Iterator[str]:
    """*image*, then without its registry's host: scripts written for ECR find the local image of that name."""
    yield image
    host, slash, rest = image.partition("/")
    if slash and ("." in host or ":" in host):
        yield rest


def _own_container() -> str:
    """The id of the container in which this process runs; empty outside."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = _OWN_ID.search(mounts)
    return found[1] if found else ""
