"""SageMaker's two APIs: the engine's own language."""

from collections.abc import Callable
from functools import partial

from backends.emulator.alarms import AlarmWatch
from backends.emulator.containers import Containers
from backends.emulator.protocol.models import Members
from backends.emulator.services import Operation, Service
from backends.engine import Engine


class SageMaker(Service):
    """The control plane; the engine says itself which operations it carries out."""

    name = "sagemaker"

    def __init__(self, engine: Engine, alarms: AlarmWatch | None = None) -> None:
        self._engine = engine
        self._alarms = alarms

    def operation(self, name: str) -> Operation | None:
        if name == "UpdateEndpoint":
            return self.update_endpoint
        if not self._engine.carries_out(name):
            return None
        call = partial(self._engine.call, name)
        return _at_once(call) if name.startswith(("Describe", "List")) else call

    def update_endpoint(self, request: Members) -> Members:
        """UpdateEndpoint; its alarms are watched where there is somebody to ask for them."""
        answer = self._engine.call("UpdateEndpoint", request)
        if self._alarms:
            self._alarms.follow(request["EndpointName"])
        return answer

    def close(self) -> None:
        if self._alarms:
            self._alarms.close()


class SageMakerRuntime(Service):
    """Invocations."""

    name = "sagemaker-runtime"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = Containers()

    async def invoke_endpoint(self, request: Members) -> Members:
        """InvokeEndpoint."""
        invocation = self._engine.invocation(request)
        with invocation.answering():
            answer = await self._containers.post(
                invocation.address,
                "/invocations",
                body=invocation.body,
                headers=invocation.headers,
                timeout_seconds=invocation.timeout_seconds,
                answer_limit_bytes=invocation.answer_limit_bytes,
            )
        return invocation.response(answer)

    def invoke_endpoint_with_response_stream(self, request: Members) -> Members:
        """InvokeEndpointWithResponseStream."""
        return self._engine.call("InvokeEndpointWithResponseStream", request)

    def close(self) -> None:
        self._containers.close()


def _at_once(look_up: Callable[[Members], Members]) -> Operation:
    """*look_up* on the event loop: what reads a few rows takes less than to hand it to a thread."""

    async def carry_out(request: Members) -> Members:
        return look_up(request)

    return carry_out
