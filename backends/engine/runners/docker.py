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
from concurrent.futures import ThreadPoolExecutor
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
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from backends.engine import archives, layout
from backends.engine.logs import tail
from backends.engine.runners import containers, debugging
from backends.engine.runners.base import NO_SPACE, Address, ImageMissing, Program, Runner, RunnerFailed, Running
from backends.engine.runners.containers import DEBUG_PORT, LOOPBACK, RUN_LABEL, SERVING_PORT, Machine, Reach
from backends.engine.settings import DockerSettings

_TIMEOUT_SECONDS = 600
_LAST_OUTPUT_SECONDS = 10
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOREIGN = "exec format error"
_NOT_STARTABLE = re.compile(f"executable file not found|no such file or directory|{_FOREIGN}|permission denied")
DISK_FULL = (
    "the Docker engine's disk is full: 'docker system df' shows what lies there, 'docker image prune' and 'docker "
    "builder prune' make room; then run it again"
)
# The engine's own container shows its id in the files that Docker mounts into every container.
_OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/")


class DockerRunner(Runner):
    """Runs programs as containers of the Docker engine that ``DOCKER_HOST`` or the current context names."""

    most_hosts = 20

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings

    def check(self, image: str) -> None:
        with answering("look for the image"):
            self._find_image(image)

    def start(self, program: Program) -> Running:
        with answering(f"start {program.name!r}"):
            image = self._find_image(program.image)
            if self._settings.debug != "off":
                program = debugging.equipped(program, image["Config"].get("Env") or (), self._settings.debug)
            container = _Container(self, program, image)
            try:
                container.create()
                container.start()
            except BaseException:
                container.remove()
                raise
            return container

    def open_network(self, label: str, name: str, *, is_isolated: bool) -> str:
        network = f"greenroom-{name}-{os.urandom(4).hex()}"
        with answering("make a network"):
            self.client.create_network(network, labels=containers.labels(label, name), internal=is_isolated)
        return network

    def close_network(self, network: str) -> None:
        """Remove the *network*; quiet if it is gone."""
        with suppress(NotFound):
            for member in self.client.inspect_network(network)["Containers"]:
                # The engine's own, for what else was in it is gone.
                self.client.disconnect_container_from_network(member, network, force=True)
            self.client.remove_network(network)

    def sweep(self, label: str) -> int:
        chosen = {"label": f"{RUN_LABEL}={label}"}
        with answering("look for what was left over"):
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
                self.close_network(network)
        return len(found) + len(volumes) + len(networks)

    @cached_property
    def client(self) -> APIClient:
        """The connection to the engine, made when it is first needed."""
        return connect()

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

    def reach(self, program: Program) -> Reach:
        """How this process will get to the server *program* in its container; an isolated one has its own network."""
        if not program.is_isolated:
            return self._reach
        if self._reach.published_at not in {LOOPBACK, ""}:
            raise RunnerFailed(
                "EnableNetworkIsolation: a server without network can only be reached on the Docker engine's own "
                f"machine, and this one is at {self._reach.published_at}."
            )
        network = self.open_network(program.label, program.name, is_isolated=True)
        if self._reach.network:
            self.client.connect_container_to_network(_own_container(), network)
        return Reach(network=network)

    @cached_property
    def _reach(self) -> Reach:
        own = _own_container()
        if own:
            with suppress(NotFound):  # Another engine's container.
                networks = self.client.inspect_container(own)["NetworkSettings"]["Networks"]
                if network := next(iter(networks.keys() - {"host", "none"}), ""):
                    return Reach(network=network)
        where = urlsplit(os.environ.get("DOCKER_HOST") or ContextAPI.kwargs_from_context().get("base_url", ""))
        if where.hostname and where.scheme in {"tcp", "http", "https"}:
            return Reach(published_at=socket.gethostbyname(where.hostname))
        return Reach(published_at=LOOPBACK)

    def _find_image(self, name: str) -> dict[str, Any]:
        spellings = list(spellings_of(name))
        for spelling in spellings:
            with suppress(ImageNotFound):
                return dict(self.client.inspect_image(spelling))  # type: ignore[no-untyped-call]
        raise ImageMissing(
            f"the Docker engine has no image {' or '.join(map(repr, spellings))}. Build it ('sentiment image build' "
            f"builds the application's), or fetch it: docker pull {name}."
        )


class _LongLived(HTTPAdapter):
    """Connections to an engine elsewhere that wait for a container's end for days: kept open, and missed when gone."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        probes = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
        chosen = [
            (socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in probes.items()
            if hasattr(socket, name)  # Not every system has them all.
        ]
        super().init_poolmanager(
            *arguments, socket_options=[*HTTPConnection.default_socket_options, *chosen], **options
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
        self._reach = Reach()
        self._filler = ""
        self._address = ("", 0)
        self._ended = threading.Event()
        self._code = 0
        self._lost: Exception | None = None

    def create(self) -> None:
        """Make the container with its files in it."""
        image = self._image["Id"]
        if self._volume:
            self._reach = self._runner.reach(self._program)
            filler = containers.filler_document(self._program, image=image, volume=self._volume)
            self._filler = self._client.create_container_from_config(filler)["Id"]  # type: ignore[no-untyped-call]
            self._put(self._filler, "/opt/ml/model", archives.tar(self._program.root / "model"))
        document = containers.create_document(
            self._program,
            image=image,
            volume=self._volume,
            settings=self._runner.settings,
            machine=self._runner.machine,
            reach=self._reach,
        )
        self._client.create_container_from_config(document, self._name)  # type: ignore[no-untyped-call]
        if not self._volume:
            self._put(self._name, "/opt/ml", archives.tar(self._program.root))
        if self._is_debugged:
            self._put(self._name, "/", debugging.files())
        if self._runner.settings.prints_command:
            asked = document | {"Image": self._program.image}
            shown = containers.command(asked, f"{self._name}-by-hand", self._program.root)
            self._note(shown)

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
            self._remove_filler()  # Now, for the server needs a moment to start in any case.
        if self._is_debugged:
            host, port = self._published(DEBUG_PORT)
            self._note(f"the container's debugger is at {host}:{port}")

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
            container = self._client.inspect_container(self._name)
        except (DockerException, RequestException):
            return ""
        if container["State"].get("OOMKilled"):
            limit = container["HostConfig"]["Memory"] // 1024**2
            return (
                f"out of memory: the container was killed at its limit of {limit} MiB; use an instance type with more "
                "memory, or raise docker.memory_mib"
            )
        last_words = tail(self._program.log_path)
        if _FOREIGN in last_words and (foreign := self._foreign()):
            return f"{_FOREIGN}: {foreign}"
        return DISK_FULL if NO_SPACE in last_words else ""

    def collect(self) -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(self._fetch, self._program.outputs))

    def peek(self, folder: str, draft: Path) -> Path:
        self._copy(folder, draft)
        return draft

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._signal("SIGKILL")

    def remove(self) -> None:
        # What cannot be removed now is swept later by its label.
        with suppress(DockerException, RequestException):
            self._client.remove_container(self._name, force=True, v=True)
        self._remove_filler()
        if self._volume:
            with suppress(DockerException, RequestException):
                self._client.remove_volume(self._volume)
            if self._program.is_isolated and self._reach.network:
                with suppress(DockerException, RequestException):
                    self._runner.close_network(self._reach.network)

    def _remove_filler(self) -> None:
        if self._filler:
            with suppress(DockerException, RequestException):
                self._client.remove_container(self._filler)
            self._filler = ""

    @property
    def _is_debugged(self) -> bool:
        return self._runner.settings.debug != "off"

    def _note(self, text: str) -> None:
        with self._program.log_path.open("a", encoding="utf-8") as log:
            log.write(f"[greenroom] {text}\n")

    def _signal(self, name: str) -> None:
        if self._ended.is_set():
            return
        with suppress(DockerException, RequestException):  # It has ended, or nobody can be asked.
            self._client.kill(self._name, signal=name)

    def _unstartable(self, explanation: str) -> str:
        image = self._program.image
        if _FOREIGN in explanation and (foreign := self._foreign()):
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
        return (
            f"the image is for {theirs} and the Docker engine's machine is {ours}; build it with --platform "
            f"linux/{ours}"
        )

    def _fetch(self, folder: str) -> None:
        self._copy(folder, self._program.root / folder)

    def _copy(self, folder: str, target: Path) -> None:
        layout.remove(target)
        target.mkdir(parents=True)
        with answering(f"give back /opt/ml/{folder}"):
            try:
                chunks, _ = self._client.get_archive(self._name, f"/opt/ml/{folder}", chunk_size=1 << 20)
            except NotFound:
                self._client.inspect_container(self._name)  # It is there, so the program has removed the folder.
            else:
                archives.receive(chunks, target, origin=f"/opt/ml/{folder}")

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
            # An engine that is being stopped ends its containers after it has closed its doors: then the code, which
            # may well be 0, says nothing of the program.
            self._client.inspect_container(self._name)
        except (DockerException, RequestException) as exc:
            self._lost = exc
        reader.join(_LAST_OUTPUT_SECONDS)
        self._ended.set()

    def _find_address(self) -> Address:
        if self._reach.network:
            found = self._client.inspect_container(self._name)["NetworkSettings"]
            return found["Networks"][self._reach.network]["IPAddress"], SERVING_PORT
        return self._published(SERVING_PORT)

    def _published(self, port: int) -> Address:
        bindings = self._client.inspect_container(self._name)["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        if not bindings:  # It has ended already.
            return LOOPBACK, 0
        return bindings[0]["HostIp"], int(bindings[0]["HostPort"])


def connect(*, timeout_seconds: int = _TIMEOUT_SECONDS) -> APIClient:
    """The engine that ``DOCKER_HOST`` or the current context names.

    Raises:
        RunnerFailed: it is to be reached by SSH.
        DockerException: it is not there.
    """
    where = kwargs_from_env() if os.environ.get("DOCKER_HOST") else ContextAPI.kwargs_from_context()
    if where.get("base_url", "").startswith("ssh:"):
        raise RunnerFailed(
            f"the Docker engine at {where['base_url']} cannot be used: SSH leads to the engine, but not to the ports "
            "of the servers in its containers. Give its TCP address: DOCKER_HOST=tcp://HOST:2376 with "
            "DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH."
        )
    client = APIClient(**where, version="auto", timeout=timeout_seconds)
    if client.base_url.startswith(("http://", "https://")):  # Not a socket or a pipe.
        client.mount(client.base_url, _LongLived())
    return client


@contextmanager
def answering(tried: str) -> Iterator[None]:
    """Say in one way that the engine refuses or does not answer.

    Raises:
        RunnerFailed: it did.
    """
    try:
        yield
    except APIError as exc:
        explanation = str(exc.explanation or exc)
        hint = f" ({DISK_FULL})" if NO_SPACE.lower() in explanation.lower() else ""
        raise RunnerFailed(f"the Docker engine could not {tried}: {explanation}{hint}") from exc
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
