"""SageMaker on this machine: jobs, models, endpoints and what is known of them.

:meth:`Engine.call` takes the request documents of SageMaker's API and answers with its response documents; the
errors are :class:`~backends.sagemaker.readings.ServiceError`. An engine holds no thread and no job: everything
that runs is carried by a supervisor process of its own (:mod:`backends.engine.supervision`), and what is known
lies in one SQLite file, so that any number of engines may have the same place open, and any may be killed.
"""

import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from backends.engine import supervision
from backends.engine.settings import EngineSettings
from backends.engine.site import ENDED, ENDPOINT, TRAINING, TRANSFORM, Site, open_site
from backends.engine.state import Document

if TYPE_CHECKING:
    from backends.engine.invocations import Invocation, Invoker

__all__ = ["Engine", "EngineSettings"]

# Imported on demand: a supervisor passes through this package on its way to one module of it, and its start is
# most of a short job's overhead.
_OPERATIONS = {
    "CreateTrainingJob": "training.create",
    "DescribeTrainingJob": "training.describe",
    "StopTrainingJob": "training.stop",
    "UpdateTrainingJob": "training.update",
    "DeleteTrainingJob": "training.delete",
    "ListTrainingJobs": "training.listing",
    "CreateTransformJob": "transform.create",
    "DescribeTransformJob": "transform.describe",
    "StopTransformJob": "transform.stop",
    "ListTransformJobs": "transform.listing",
    "CreateModel": "models.create_model",
    "DescribeModel": "models.describe_model",
    "DeleteModel": "models.delete_model",
    "ListModels": "models.list_models",
    "CreateEndpointConfig": "models.create_config",
    "DescribeEndpointConfig": "models.describe_config",
    "DeleteEndpointConfig": "models.delete_config",
    "ListEndpointConfigs": "models.list_configs",
    "CreateEndpoint": "hosting.create_endpoint",
    "DescribeEndpoint": "hosting.describe_endpoint",
    "UpdateEndpoint": "updates.update_endpoint",
    "UpdateEndpointWeightsAndCapacities": "updates.update_weights",
    "DeleteEndpoint": "hosting.delete_endpoint",
    "ListEndpoints": "hosting.list_endpoints",
    "AddTags": "tags.add",
    "ListTags": "tags.listing",
    "DeleteTags": "tags.delete",
}
_LAST_STEPS_SECONDS = 5.0


class Engine:
    """An open engine. Opening one first sets right what a crash has left (:mod:`backends.engine.recovery`).

    Raises:
        BackendUnavailable: the place cannot be opened.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._site = open_site(settings)
        self._known_invoker: Invoker | None = None
        self._lock = threading.Lock()
        try:
            self.recover()
        except BaseException:
            self._site.close()
            raise

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
            return self._invoker().invoke(request)
        if operation == "InvokeEndpointWithResponseStream":
            return self._invoker().stream(request)
        if not self.carries_out(operation):
            from backends.sagemaker.readings import ServiceError  # noqa: PLC0415  see _OPERATIONS

            raise ServiceError("UnknownOperationException", f"The engine does not carry out {operation}.")
        module, function = _OPERATIONS[operation].split(".")
        response: Document = getattr(import_module(f"backends.engine.{module}"), function)(self._site, request)
        return response

    def invocation(self, request: Document) -> "Invocation":
        """InvokeEndpoint for a caller that sends it to the container by itself. Raises ServiceError."""
        return self._invoker().begin(request)

    def call_off(self, endpoint: str, reason: str) -> bool:
        """Have an update that bakes taken back, as SageMaker does when an alarm goes off; False if none bakes."""
        from backends.engine.updates import call_off  # noqa: PLC0415  see _OPERATIONS

        return call_off(self._site, endpoint, reason)

    def recover(self) -> None:
        """Set right what crashes have left since the engine was opened; for those who keep it open for long."""
        from backends.engine.recovery import recover  # noqa: PLC0415  see _OPERATIONS

        recover(self._site)

    def carries_out(self, operation: str) -> bool:
        """True if :meth:`call` knows *operation*."""
        return operation in _OPERATIONS or operation in {"InvokeEndpoint", "InvokeEndpointWithResponseStream"}

    def read_log(self, kind: str, name: str, *, follow: bool) -> Iterator[str]:
        """The output of a job's or endpoint's programs, line by line; *follow* until it has ended."""
        from backends.engine import logs  # noqa: PLC0415  see _OPERATIONS

        resource = self._site.state.find(kind, name)
        if resource is None:
            return iter(())

        def ended() -> bool:
            now = self._site.state.again(resource)
            return now is None or now.facts["status"] in {*ENDED, "Deleting"}

        return logs.follow(self._site.folder(resource), ended if follow else None)

    def is_idle(self) -> bool:
        """True when no supervisor runs; waits a moment for those whose job or endpoint has just ended."""
        deadline = time.monotonic() + _LAST_STEPS_SECONDS
        while self._has_supervisor():
            if self._has_work() or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Let go of files and connections; jobs and endpoints go on."""
        if self._known_invoker is not None:
            self._known_invoker.close()
        self._site.close()

    def _invoker(self) -> "Invoker":
        with self._lock:
            if self._known_invoker is None:
                from backends.engine.invocations import Invoker  # noqa: PLC0415  see _OPERATIONS

                self._known_invoker = Invoker(self._site)
            return self._known_invoker

    def _has_supervisor(self) -> bool:
        home = self._site.settings.home
        return any(supervision.is_alive(home, seat) for seat in supervision.seats(home))

    def _has_work(self) -> bool:
        return any(
            resource.facts["status"] not in ENDED
            for kind in (TRAINING, TRANSFORM, ENDPOINT)
            for resource in self._site.state.every(kind)
        )
