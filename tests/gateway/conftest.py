"""A gateway on a free port in a thread, in front of a handler written by the test."""

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from backends.gateway.app import GatewaySettings, create_app
from backends.gateway.functions import FunctionSettings
from backends.http_server import Server

LIMIT_SECONDS = 20

ECHO = """
import json

def handler(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}
"""


@dataclass(frozen=True)
class Reply:
    """What came back; header names in lower case, repeats kept."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that answers at ``host:port``."""

    host: str
    port: int

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=LIMIT_SECONDS)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            found = [(name.lower(), value) for name, value in response.getheaders()]
            return Reply(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def running(settings: GatewaySettings) -> Iterator[RunningGateway]:
    ready = threading.Event()
    server = Server(create_app(settings), on_ready=lambda _url: ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(LIMIT_SECONDS), "the gateway did not start"
        address = urlsplit(server.url)
        assert address.hostname is not None
        assert address.port is not None
        yield RunningGateway(address.hostname, address.port)
    finally:
        server.should_exit = True
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive(), "the gateway did not end"


StartGateway = Callable[..., RunningGateway]


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start a gateway in front of *source*; function settings and gateway settings are taken by name."""
    with ExitStack() as stack:

        def start(source: str = ECHO, *, function: dict[str, Any] | None = None, **settings: Any) -> RunningGateway:
            bundle = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
            bundle.mkdir()
            (bundle / "handler.py").write_text(source)
            made = FunctionSettings(bundle, **(function or {}))
            return stack.enter_context(running(GatewaySettings(made, **settings)))

        yield start


@pytest.fixture
def function_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The function's log lines, from START on."""
    caplog.set_level(logging.INFO, logger="greenroom.function")
    caplog.set_level(logging.INFO, logger="greenroom.gateway.access")
    return caplog
