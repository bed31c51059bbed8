"""SageMaker on this machine: jobs, models, endpoints and what is known of them.

:meth:`Engine.call` takes the request documents of SageMaker's API and answers with its response documents; the
errors are :class:`~backends.sagemaker.readings.ServiceError`. An engine holds no thread and no job: everything
that runs is carried by a supervisor process of its own (:mod:`backends.engine.supervision`), and what is known
lies in one SQLite file, so that any number of engines may have the same place open, and any may be killed.
"""

from collections.abc import Callable, Iterator

from backends.engine import hosting, logs, recovery, training, transform
from backends.engine.settings import EngineSettings
from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM, Site, open_site
from backends.engine.state import Document
from backends.sagemaker.readings import ServiceError

__all__ = ["Engine", "EngineSettings"]

_OPERATIONS: dict[str, Callable[[Site, Document], Document]] = {
    "CreateTrainingJob": training.create,
    "DescribeTrainingJob": training.describe,
    "StopTrainingJob": training.stop,
    "DeleteTrainingJob": training.delete,
    "ListTrainingJobs": training.listing,
    "CreateTransformJob": transform.create,
    "DescribeTransformJob": transform.describe,
    "StopTransformJob": transform.stop,
    "ListTransformJobs": transform.listing,
    "CreateModel": hosting.create_model,
    "DescribeModel": hosting.describe_model,
    "DeleteModel": hosting.delete_model,
    "ListModels": hosting.list_models,
    "CreateEndpointConfig": hosting.create_config,
    "DescribeEndpointConfig": hosting.describe_config,
    "DeleteEndpointConfig": hosting.delete_config,
    "ListEndpointConfigs": hosting.list_configs,
    "CreateEndpoint": hosting.create_endpoint,
    "DescribeEndpoint": hosting.describe_endpoint,
    "DeleteEndpoint": hosting.delete_endpoint,
    "ListEndpoints": hosting.list_endpoints,
}


class Engine:
    """An open engine. Opening one first sets right what a crash has left (:mod:`backends.engine.recovery`)."""

    def __init__(self, settings: EngineSettings) -> None:
        self._site = open_site(settings)
        self._invoker = hosting.Invoker(self._site)
        recovery.recover(self._site)

    @property
    def site(self) -> Site:
        """Where the engine works."""
        return self._site

    def call(self, operation: str, request: Document) -> Document:
        """Carry out one operation of the SageMaker or SageMaker Runtime API.

        Raises:
            ServiceError: in SageMaker's words; UnknownOperationException for what is not emulated.
        """
        if operation == "InvokeEndpoint":
            return self._invoker.invoke(request)
        if operation not in _OPERATIONS:
            raise ServiceError("UnknownOperationException", f"The engine does not carry out {operation}.")
        return _OPERATIONS[operation](self._site, request)

    def read_log(self, kind: str, name: str, *, follow: bool) -> Iterator[str]:
        """The output of a job's or endpoint's programs, line by line; *follow* until it has ended."""

        def ended() -> bool:
            resource = self._site.state.find(kind, name)
            return resource is None or resource.facts["status"] in {"Completed", "Failed", "Stopped", "Deleting"}

        return logs.follow(self._site.folder(kind, name), ended if follow else None)

    def is_idle(self) -> bool:
        """True when no job and no endpoint is carried by a supervisor."""
        return not any(
            recovery.is_carried(self._site, resource)
            for kind in (TRAINING, TRANSFORM, ENDPOINT)
            for resource in self._site.state.every(kind)
        )

    def close(self) -> None:
        """Let go of files and connections; jobs and endpoints go on."""
        self._invoker.close()
        self._site.close()
