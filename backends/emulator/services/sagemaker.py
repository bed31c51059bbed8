"""SageMaker's two APIs: the engine's own language."""

from functools import partial

from backends.emulator.protocol.models import Members
from backends.emulator.services import Operation, Service
from backends.engine import Engine


class SageMaker(Service):
    """The control plane; the engine says itself which operations it carries out."""

    name = "sagemaker"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operation(self, name: str) -> Operation | None:
        return partial(self._engine.call, name) if self._engine.carries_out(name) else None


class SageMakerRuntime(Service):
    """Invocations."""

    name = "sagemaker-runtime"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def invoke_endpoint(self, request: Members) -> Members:
        """InvokeEndpoint."""
        return self._engine.call("InvokeEndpoint", request)

    def invoke_endpoint_with_response_stream(self, request: Members) -> Members:
        """InvokeEndpointWithResponseStream."""
        return self._engine.call("InvokeEndpointWithResponseStream", request)
