"""A debugger in a container, met by a client that speaks the Debug Adapter Protocol over a plain socket.

Source: https://microsoft.github.io/debug-adapter-protocol/specification
"""

import itertools
import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import pytest

from backends.engine.runners.containers import NAME_LABEL
from backends.engine.settings import DockerSettings
from tests.docker_engine import probe_image
from tests.engine.conftest import LIMIT_SECONDS, ROLE, Stage, variant
from tests.engine.test_docker import program

SECRET = "secret = 6 * 7\nopen('/opt/ml/model/seen', 'w').write(str(secret))\n"
PROGRAM = "/opt/ml/input/data/train/program.py"
SERVE = Path(__file__).parents[1] / "images" / "probe" / "serve"


class DebugClient:
    """An editor's side of the protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS)
        self._file = self._socket.makefile("rwb")
        self._numbers = itertools.count(1)
        self._seen: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        self._file.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._file.flush()
        return number

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer; the answer's body."""
        number = self.send(command, **arguments)
        answer = self._until(lambda message: message.get("request_seq") == number)
        assert answer["success"], answer
        return answer.get("body")

    def event(self, name: str) -> Any:
        """Wait for an event; its body."""
        return self._until(lambda message: message.get("event") == name).get("body")

    def attach(self, path: str, line: int) -> None:
        """The handshake, with a breakpoint."""
        self.ask("initialize", adapterID="test", clientID="test", linesStartAt1=True, pathFormat="path")
        self.send("attach", justMyCode=False, subProcess=False)
        self.event("initialized")
        (point,) = self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line}])["breakpoints"]
        assert point["line"] == line
        self.ask("configurationDone")

    def stopped_at(self) -> tuple[str, int, int]:
        """Wait for a breakpoint: file, line and frame."""
        thread = self.event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        return frame["source"]["path"], frame["line"], frame["id"]

    def _until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for message in self._seen:
            if fits(message):
                self._seen.remove(message)
                return message
        while not fits(message := self._read()):
            self._seen.append(message)
        return message

    def _read(self) -> dict[str, Any]:
        header = self._file.readline()
        assert header, "the debugger hung up"
        size = int(header.split(b":")[1])
        self._file.readline()
        message: dict[str, Any] = json.loads(self._file.read(size))
        return message


@pytest.fixture
def make(make_stage: Callable[..., Stage]) -> Callable[..., Stage]:
    """Opens an engine on the docker runner whose containers have a debugger at a free port."""
    probe_image()
    return lambda debug: make_stage(
        runner="docker",
        docker=DockerSettings(debug=debug, debug_port=0),
        invocation_timeout_seconds=LIMIT_SECONDS,
        startup_timeout_seconds=LIMIT_SECONDS,
        pings_to_lose=1000,
        training_grace_seconds=2 * LIMIT_SECONDS,
    )


def debugger_of(stage: Stage, kind: str, name: str) -> int:
    """The port at which the debugger of *name* waits, once it does."""
    stage.until(lambda: "debugpy" in log(stage, kind, name), bool)
    (port,) = re.findall(r"debugger is at 127\.0\.0\.1:(\d+)", log(stage, kind, name))
    return int(port)


def log(stage: Stage, kind: str, name: str) -> str:
    return "\n".join(stage.engine.read_log(kind, name, follow=False))


def test_a_training_program_waits_for_its_debugger(make: Callable[..., Stage]) -> None:
    """It stops where it was told to, its variables can be read and changed, and it goes on to its end."""
    stage = make("wait")
    stage.call("CreateTrainingJob", **stage.training_request("watched", algorithm=program(stage, SECRET)))
    with DebugClient(debugger_of(stage, "training job", "watched")) as client:
        client.attach(PROGRAM, 2)
        path, line, frame = client.stopped_at()
        assert (path, line) == (PROGRAM, 2)
        assert client.ask("evaluate", expression="secret", frameId=frame)["result"] == "42"
        client.ask("evaluate", expression="secret = 43", frameId=frame, context="repl")
        client.ask("continue", threadId=1)
        client.event("terminated")
    assert stage.trained("watched")["TrainingJobStatus"] == "Completed"


def test_a_debugger_is_reached_from_this_machine_only(make: Callable[..., Stage]) -> None:
    """Its port is published on loopback; a program that waits ends at SIGTERM."""
    stage = make("wait")
    stage.call("CreateTrainingJob", **stage.training_request("private", algorithm=program(stage, SECRET)))
    debugger_of(stage, "training job", "private")
    client = docker.from_env()
    (container,) = client.containers.list(filters={"label": f"{NAME_LABEL}=private"})
    (bindings,) = container.attrs["HostConfig"]["PortBindings"].values()
    client.close()
    assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]
    stage.call("StopTrainingJob", TrainingJobName="private")
    assert stage.trained("private")["TrainingJobStatus"] == "Stopped"


def test_serve_is_debugged_in_service(make: Callable[..., Stage]) -> None:
    """It is in service without a client; one that comes later stops it within a request, and the answer still comes."""
    stage = make("listen")
    stage.call("CreateModel", ModelName="open", PrimaryContainer={"Image": probe_image()}, ExecutionRoleArn=ROLE)
    stage.call("CreateEndpointConfig", EndpointConfigName="open", ProductionVariants=[variant("open")])
    stage.call("CreateEndpoint", EndpointName="open", EndpointConfigName="open")
    endpoint = stage.settled("open")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    wanted = SERVE.read_text().splitlines().index('        if "die" in text.split():') + 1
    with DebugClient(debugger_of(stage, "endpoint", "open")) as client, ThreadPoolExecutor() as threads:
        client.attach("/usr/local/bin/serve", wanted)
        answer = threads.submit(stage.invoke, "open", b"watched")
        path, line, frame = client.stopped_at()
        assert (path, line) == ("/usr/local/bin/serve", wanted)
        assert client.ask("evaluate", expression="text", frameId=frame)["result"] == "'watched'"
        client.ask("disconnect", restart=False, terminateDebuggee=False)
        assert answer.result()["Body"] == b"WATCHED"


def test_no_network_no_debugger(make: Callable[..., Stage]) -> None:
    """The job fails with the reason rather than wait for a client who cannot come."""
    stage = make("wait")
    job = stage.train("cut-off", algorithm=program(stage, SECRET), EnableNetworkIsolation=True)
    assert job["TrainingJobStatus"] == "Failed"
    assert "EnableNetworkIsolation" in job["FailureReason"]
