"""Greenroom: SageMaker's training, batch transform and endpoints behind one small interface, here or on AWS."""

from importlib import import_module
from typing import TYPE_CHECKING

from backends.base import Backend, Endpoints, ObjectStore, SupportsLogs, TrainingJobs, TransformJobs
from backends.errors import BackendError

if TYPE_CHECKING:
    from backends.config import BackendConfig

__all__ = [
    "Backend",
    "BackendError",
    "Endpoints",
    "ObjectStore",
    "SupportsLogs",
    "TrainingJobs",
    "TransformJobs",
    "open_backend",
]

# Imported on demand, so that using one backend never needs another's libraries.
_OPENERS = {
    "local": ("backends.local.backend", "open_local"),
    "aws": ("backends.aws.backend", "open_aws"),
}


def open_backend(config: "BackendConfig") -> Backend:
    """Open the backend that *config* names; close it when done, which stops nothing that runs there.

    Raises:
        BackendUnavailable: the place cannot be reached, or a library that it needs is not installed.
    """
    module, opener = _OPENERS[config.backend]
    backend: Backend = getattr(import_module(module), opener)(config)
    return backend
