"""The local backend: SageMaker's rooms over an engine and a store of this machine."""

from typing import TypeVar

from backends.base import Backend
from backends.config import BackendConfig
from backends.engine import Engine, EngineSettings
from backends.engine.settings import ACCOUNT
from backends.sagemaker.rooms import SageMakerEndpoints, SageMakerTraining, SageMakerTransform

# Nothing on this machine asks for a role, but the documents carry one.
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/greenroom-local"
_POLL_SECONDS = 0.1

RoomT = TypeVar("RoomT", SageMakerTraining, SageMakerTransform, SageMakerEndpoints)


def engine_settings(config: BackendConfig) -> EngineSettings:
    """What the engine needs to know of *config*."""
    return EngineSettings(
        home=config.home.absolute(),
        runner=config.runner,
        images={name: str(folder.absolute()) for name, folder in config.images.items()},
        region=config.region,
        s3_endpoint_url=config.endpoint_url,
    )


def open_local(config: BackendConfig) -> Backend:
    """Everything runs on this machine, knows no AWS credentials and connects to nothing but loopback."""
    engine = Engine(engine_settings(config))
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
