"""What every part of the engine works with: settings, state, objects and a runner."""

import errno
from dataclasses import dataclass
from pathlib import Path

from backends.base import ObjectStore
from backends.engine.runners import Runner, make_runner
from backends.engine.settings import ACCOUNT, EngineSettings
from backends.engine.state import Resource, State
from backends.engine.supervision import Nursery
from backends.naming import arn

TRAINING = "training job"
TRANSFORM = "transform job"
MODEL = "model"
ENDPOINT_CONFIG = "endpoint configuration"
ENDPOINT = "endpoint"
_ARN_TYPES = {
    TRAINING: "training-job",
    TRANSFORM: "transform-job",
    MODEL: "model",
    ENDPOINT_CONFIG: "endpoint-config",
    ENDPOINT: "endpoint",
}
KINDS = tuple(_ARN_TYPES)
# A job or endpoint in one of these has nothing running.
ENDED = frozenset({"Completed", "Failed", "Stopped"})


@dataclass(frozen=True, kw_only=True)
class Site:
    """One engine's place on this machine. Several processes may have the same place open."""

    settings: EngineSettings
    state: State
    store: ObjectStore
    runner: Runner
    nursery: Nursery

    def folder(self, resource: Resource) -> Path:
        """Where the files of one job or endpoint lie: never those of an earlier one of that name."""
        return self.settings.home / resource.kind.partition(" ")[0] / f"{resource.name}@{resource.created:.6f}"

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a resource of one of the kinds above."""
        return arn(self.settings.region, ACCOUNT, _ARN_TYPES[kind], name)

    def named_by(self, arn: str) -> tuple[str, str]:
        """Kind and lower-cased name of what *arn* names; two empty strings if it cannot be a resource of this place."""
        for kind in _ARN_TYPES:
            before_name = self.arn(kind, "")
            if arn.lower().startswith(before_name):
                return kind, arn[len(before_name) :].lower()
        return "", ""

    def complaint(self, error: Exception) -> str:
        """An error that no program caused, as a FailureReason says it."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"the disk is full: make room for {self.settings.home}, then run it again ({error})"
        return f"{type(error).__name__}: {error}"

    def is_gone(self) -> bool:
        """True once somebody has removed the place by hand: nobody can ask for anything here any more."""
        return not self.settings.home.exists()

    def close(self) -> None:
        """Let go of the files that are held open."""
        self.nursery.close()
        self.store.close()
        self.state.close()


def open_site(settings: EngineSettings) -> Site:
    """Open the place that *settings* name, making its folder if it is new."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Site(
        settings=settings,
        state=State(settings.home / "state.db"),
        store=_open_store(settings),
        runner=make_runner(settings),
        nursery=Nursery(settings),
    )


def _open_store(settings: EngineSettings) -> ObjectStore:
    if settings.s3_endpoint_url:
        from backends.stores.s3 import S3Store  # noqa: PLC0415  boto3 is an extra

        # Dummies: the local backend never looks for the user's credentials.
        return S3Store.connect(
            endpoint_url=settings.s3_endpoint_url,
            region=settings.region,
            access_key_id="test",
            secret_access_key="test",  # noqa: S106  no secret: it opens nothing
        )
    from backends.stores.files import FileStore  # noqa: PLC0415  only what is used is loaded

    return FileStore(settings.home / "objects", durable=settings.durable_objects)
