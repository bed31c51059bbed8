"""The local backend: SageMaker's rooms over an engine and a store of this machine."""

import shutil
from typing import Any, TypeVar

from backends.base import Backend
from backends.config import BackendConfig
from backends.engine import Engine, EngineSettings
from backends.engine.settings import ACCOUNT, DockerSettings
from backends.errors import BackendError, BackendUnavailable, Conflict, InvalidSpec
from backends.sagemaker.rooms import SageMakerEndpoints, SageMakerTraining, SageMakerTransform

# Nothing on this machine asks for a role, but the documents carry one.
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/greenroom-local"
_POLL_SECONDS = 0.02
_A_DAY_SECONDS = 86_400

RoomT = TypeVar("RoomT", SageMakerTraining, SageMakerTransform, SageMakerEndpoints)


def engine_settings(config: BackendConfig) -> EngineSettings:
    """What the engine needs to know of *config*. A program under a debugger is not hurried."""
    patience: dict[str, Any] = {}
    if config.runner == "docker" and config.docker.debug != "off":
        patience = {
            "startup_timeout_seconds": _A_DAY_SECONDS,
            "serverless_startup_timeout_seconds": _A_DAY_SECONDS,
            "invocation_timeout_seconds": _A_DAY_SECONDS,
            "stream_timeout_seconds": _A_DAY_SECONDS,
            "pings_to_lose": _A_DAY_SECONDS,
        }
    return EngineSettings(
        home=config.home.absolute(),
        runner=config.runner,
        images={name: str(folder.absolute()) for name, folder in config.images.items()},
        docker=DockerSettings(**config.docker.model_dump()),
        durable_objects=config.durable,
        region=config.region,
        s3_endpoint_url=config.endpoint_url,
        **patience,
    )


def open_local(config: BackendConfig) -> Backend:
    """Everything runs on this machine, knows no AWS credentials and connects to nothing but loopback.

    Raises:
        BackendUnavailable: the state folder cannot be used, or the Docker engine not reached.
    """
    try:
        engine = Engine(engine_settings(config))
    except BackendError:
        raise
    except OSError as exc:
        text = f"the state folder {config.home.absolute()} cannot be used: {exc.strerror}."
        raise BackendUnavailable(f"{text} Choose another by GREENROOM_HOME.") from exc
    place = f"this machine ({config.runner} runner, {config.home})"

    def room(kind: type[RoomT]) -> RoomT:
        return kind(
            engine.call,
            place=place,
            role_arn=config.role_arn or ROLE_ARN,
            read_log=engine.read_log,
            poll_seconds=_POLL_SECONDS,
        )

    return Backend(
        name="local",
        place=place,
        store=engine.site.store,
        training=room(SageMakerTraining),
        transform=room(SageMakerTransform),
        endpoints=room(SageMakerEndpoints),
        closing=engine.close,
    )


def remove_home(config: BackendConfig) -> None:
    """Remove the state folder and all in it; quiet if there is none.

    Raises:
        Conflict: something of it still runs.
        InvalidSpec: the folder does not look like ours, so nothing was touched.
    """
    home = config.home.absolute()
    if not home.exists():
        return
    if not (home / "state.db").exists():
        raise InvalidSpec(f"{home} holds no Greenroom state; remove it by hand if it is to go.", kind="folder")
    engine = Engine(engine_settings(config))
    try:
        if not engine.is_idle():
            raise Conflict(f"jobs or endpoints of {home} still run; stop them first.", kind="folder", name=str(home))
    finally:
        engine.close()
    shutil.rmtree(home, onerror=_unless_gone)


def _unless_gone(_function: object, _path: str, caught: tuple[type[BaseException], BaseException, object]) -> None:
    """A supervisor on its way out removes SQLite's own files at the same time."""
    if not isinstance(caught[1], FileNotFoundError):
        raise caught[1]
