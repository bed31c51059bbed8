"""One rig per backend: it starts a backend, knows the probe image there, and has back doors to the objects."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.local.backend import ROLE_ARN, engine_settings
from backends.memory import MemoryImage, Model, ProgramFailed, TrainingRun, open_memory
from backends.naming import split_uri
from backends.stores.files import FileStore
from tests.archives import archive, unarchived
from tests.docker_engine import probe_image
from tests.emulator import serving
from tests.peers import PEERS, client, peer

PROBE = Path(__file__).parents[1] / "images" / "probe"
BUCKET = "conformance"


@dataclass(frozen=True)
class Rig:
    """A started backend. *plant* and *peek* reach objects without the store under test.

    *plant_model* stores a model's files as an artifact; *model_files* reads one back.
    """

    name: str
    backend: Backend
    image: str
    plant: Callable[[str, bytes], None]
    peek: Callable[[str], bytes]
    plant_model: Callable[[str, Mapping[str, bytes]], None]
    model_files: Callable[[str], dict[str, bytes]]


@contextmanager
def memory(folder: Path) -> Iterator[Rig]:
    """The fake, with the probe as Python functions."""
    backend = open_memory({"probe": MemoryImage(_train, _serve)})
    store = backend.store

    def plant_model(uri: str, files: Mapping[str, bytes]) -> None:
        store.put(uri, b"")
        for name, data in files.items():
            store.put(f"{uri}/{name}", data)

    def model_files(uri: str) -> dict[str, bytes]:
        return {info.uri.removeprefix(uri + "/"): store.get(info.uri) for info in store.list_objects(uri + "/")}

    with backend:
        yield Rig(
            "memory",
            backend,
            "probe",
            lambda uri, data: _drop(store.put(uri, data)),
            store.get,
            plant_model,
            model_files,
        )


@contextmanager
def local_process(folder: Path) -> Iterator[Rig]:
    """The engine with real processes, and a file store seen through a second door."""
    home = folder / "home"
    back_door = FileStore(home / "objects")
    back_door.ensure_bucket(BUCKET)
    config = BackendConfig(home=home, images={"probe": PROBE})
    with _engine("local-process", config, lambda uri, data: _drop(back_door.put(uri, data)), back_door.get) as rig:
        yield rig


@contextmanager
def local_docker(folder: Path) -> Iterator[Rig]:
    """The engine with real containers of an image that holds the probe's programs."""
    image = probe_image()
    home = folder / "home"
    back_door = FileStore(home / "objects")
    back_door.ensure_bucket(BUCKET)
    config = BackendConfig(home=home, runner="docker")
    with _engine("local-docker", config, lambda uri, data: _drop(back_door.put(uri, data)), back_door.get) as rig:
        yield replace(rig, image=image)


@contextmanager
def on_peer(name: str, folder: Path) -> Iterator[Rig]:
    """The engine with real processes, and objects in a real S3 server, seen through plain boto3."""
    with peer(name, folder) as url:
        s3 = client("s3", url)
        s3.create_bucket(Bucket=BUCKET)

        def plant(uri: str, data: bytes) -> None:
            bucket, key = split_uri(uri)
            s3.put_object(Bucket=bucket, Key=key, Body=data)

        def peek(uri: str) -> bytes:
            bucket, key = split_uri(uri)
            data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return data

        config = BackendConfig(home=folder / "home", images={"probe": PROBE}, endpoint_url=url)
        with _engine(name, config, plant, peek) as rig:
            yield rig
        s3.close()


@contextmanager
def aws_on_the_wire(folder: Path) -> Iterator[Rig]:
    """The AWS backend's own code, sent to the emulator in front of an engine with real processes."""
    with _wire("aws-on-the-wire", BackendConfig(home=folder / "home", images={"probe": PROBE})) as rig:
        yield rig


@contextmanager
def aws_on_the_wire_docker(folder: Path) -> Iterator[Rig]:
    """The AWS backend's own code, sent to the emulator in front of an engine with real containers."""
    image = probe_image()
    with _wire("aws-on-the-wire-docker", BackendConfig(home=folder / "home", runner="docker")) as rig:
        yield replace(rig, image=image)


@contextmanager
def _wire(name: str, served: BackendConfig) -> Iterator[Rig]:
    engine = Engine(engine_settings(served))
    store = engine.site.store
    store.ensure_bucket(BUCKET)
    with serving(create_app(engine)) as url, pytest.MonkeyPatch.context() as environment:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(variable, "test")
        config = BackendConfig(backend="aws", endpoint_url=url, role_arn=ROLE_ARN)
        with _engine(name, config, lambda uri, data: _drop(store.put(uri, data)), store.get) as rig:
            yield rig
    engine.close()


@contextmanager
def _engine(
    name: str, config: BackendConfig, plant: Callable[[str, bytes], None], peek: Callable[[str], bytes]
) -> Iterator[Rig]:
    def plant_model(uri: str, files: Mapping[str, bytes]) -> None:
        plant(uri, archive(files))

    with open_backend(config) as backend:
        try:
            yield Rig(name, backend, "probe", plant, peek, plant_model, lambda uri: unarchived(peek(uri)))
        finally:
            for endpoint in list(backend.endpoints.names()):
                backend.endpoints.wait_in_service(endpoint, timeout_seconds=30)
                backend.endpoints.delete(endpoint)
                backend.endpoints.wait_deleted(endpoint, timeout_seconds=30)


def _drop(_: object) -> None:
    """Forget what a call returned."""


def _train(run: TrainingRun) -> None:
    mode = run.hyperparameters.get("mode", "copy")
    run.log.append(f"mode={mode}")
    if mode == "fail":
        raise ProgramFailed(
            run.hyperparameters.get("failure", "it broke"), int(run.hyperparameters.get("exit_code", "1"))
        )
    if mode == "hang":
        run.stopping.wait(60)
        run.model["model.txt"] = b"saved on the way out"
        return
    channel = run.channels.get("train", {})
    run.model["model.txt"] = b"".join(channel[name] for name in sorted(channel))
    run.model["serve.json"] = run.hyperparameters.get("serve", "{}").encode()


def _serve(files: Mapping[str, bytes]) -> Model:
    settings = json.loads(files.get("serve.json", b"{}"))
    if "exit" in settings:
        raise ProgramFailed("told to exit", settings["exit"])

    def answer(body: bytes, content_type: str | None, accept: str | None) -> tuple[int, bytes, str]:
        words = body.decode(errors="replace").split()
        for word in words:
            if word.startswith("sleep="):
                time.sleep(float(word.removeprefix("sleep=")))
            if word.startswith("status="):
                return int(word.removeprefix("status=")), b"told to fail", "text/plain"
        if "model" in words:
            return 200, files["model.txt"], "text/plain"
        return 200, body.upper(), accept or "text/plain"

    return answer


RIGS: dict[str, Callable[[Path], AbstractContextManager[Rig]]] = {
    "memory": memory,
    "local-process": local_process,
    "local-docker": local_docker,
    "aws-on-the-wire": aws_on_the_wire,
    "aws-on-the-wire-docker": aws_on_the_wire_docker,
    **{name: partial(on_peer, name) for name in PEERS},
}
