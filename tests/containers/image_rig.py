"""The programs in real containers of the built image, locked in as the docker runner does it.

`serve` runs as an ordinary user on a read-only file system; `train` runs as root, as SageMaker has it.
"""

import http.client
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import Mount

from tests.containers.rigs import LIMIT_SECONDS, Job, Rig, Served, Trained, files_in, serving_tree, until, write_tree
from tests.docker_engine import sentiment_image

_PORT = 8080
# This process's own, so that it may signal the workers; an ordinary one in any case.
_USER = str(os.getuid() or 1000)


class ImageRig(Rig):
    """Containers of the image that `sentiment image build` makes."""

    def __init__(self) -> None:
        self._image = sentiment_image()

    def train(self, job: Job, folder: Path) -> Trained:
        write_tree(folder / "ml", job)
        with self._created("train", folder / "ml", network_mode="none") as container:
            container.start()
            lines = []
            for line in _lines(container.logs(stream=True, follow=True)):
                lines.append(line)
                if job.stop_at and job.stop_at in line:
                    container.kill("SIGTERM")
            status = container.wait(timeout=LIMIT_SECONDS)["StatusCode"]
            left = folder / "left"
            for name in ("model", "output", *(["checkpoints"] if job.checkpoints is not None else [])):
                chunks, _ = container.get_archive(f"/opt/ml/{name}")
                with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tape:
                    tape.extractall(left, filter="data")
        failure = left / "output" / "failure"
        text = failure.read_text() if failure.exists() else None
        kept = files_in(left / "checkpoints")
        return Trained(status, "".join(lines), text, left / "model", left / "output" / "data", kept)

    @contextmanager
    def serve(self, model: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
        published = {f"{_PORT}/tcp": ("127.0.0.1", None)}
        with self._serving(model, folder, environment or {}, ports=published) as container:
            container.start()
            served = ServedContainer(container)
            until(lambda: served.has_ended() or served.is_up())
            assert not served.has_ended(), "serve ended before it answered"
            yield served

    def serve_fails(
        self, model: Path, folder: Path, environment: Mapping[str, str], beside: Served | None = None
    ) -> tuple[int, str]:
        network = {"network_mode": f"container:{beside.name}"} if isinstance(beside, ServedContainer) else {}
        with self._serving(model, folder, environment, **network) as container:
            container.start()
            status = container.wait(timeout=LIMIT_SECONDS)["StatusCode"]
            return status, container.logs().decode()

    @contextmanager
    def _serving(
        self, model: Path, folder: Path, environment: Mapping[str, str], **options: Any
    ) -> Iterator[Container]:
        tree = serving_tree(model, folder)
        settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", **environment}
        with self._created("serve", tree, user=_USER, read_only=True, environment=settings, **options) as container:
            yield container

    @contextmanager
    def _created(self, program: str, tree: Path, **options: Any) -> Iterator[Container]:
        """A container with *tree* at /opt/ml, of which nothing is left afterwards."""
        client = docker.from_env()
        container = client.containers.create(
            self._image,
            program,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mounts=[Mount("/opt/ml", None, no_copy=True)],
            **options,
        )
        try:
            container.put_archive("/opt/ml", _packed(tree))
            yield container
        finally:
            container.remove(force=True, v=True)
            client.close()


class ServedContainer(Served):
    """A container that runs `serve`."""

    def __init__(self, container: Container) -> None:
        container.reload()
        self._container = container
        self.name = str(container.name)
        bindings = container.ports.get(f"{_PORT}/tcp")
        self.port = int(bindings[0]["HostPort"]) if bindings else 0

    def has_ended(self) -> bool:
        self._container.reload()
        return bool(self._container.status == "exited")

    def is_up(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/ping").status == 200
        return False

    def stop(self) -> int:
        self._container.stop(timeout=LIMIT_SECONDS)
        return int(self._container.wait(timeout=LIMIT_SECONDS)["StatusCode"])

    def worker_pids(self) -> list[int]:
        self._container.reload()
        first = str(self._container.attrs["State"]["Pid"])
        processes = self._container.top(ps_args="-eo pid,ppid")["Processes"]
        return [int(process) for process, parent in processes if parent == first]


def _packed(tree: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tape:
        for path in sorted(tree.iterdir()):
            tape.add(path, path.name)
    return buffer.getvalue()


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() + "\n" for line in whole)
    if rest:
        yield rest.decode()
