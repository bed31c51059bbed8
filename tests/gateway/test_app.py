"""The gateway over real HTTP."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends import http_server as server_module
from backends.errors import BackendUnavailable
from backends.gateway import app as app_module
from backends.gateway.app import GatewaySettings, create_app
from backends.gateway.cors import CorsRule
from backends.gateway.functions import FunctionSettings
from backends.http_server import Server

if TYPE_CHECKING:
    from tests.gateway.conftest import RunningGateway, StartGateway

LIMIT_SECONDS = 20
JSON = {"content-type": "application/json"}
APP = "https://app.example"


def raw(gateway: "RunningGateway", data: bytes) -> bytes:
    """Everything the gateway answers to *data* until it closes the connection."""
    with socket.create_connection((gateway.host, gateway.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_round_trip(start_gateway: "StartGateway") -> None:
    """A request reaches the handler as an event, and what it returns comes back with the request's id."""
    gateway = start_gateway()
    reply = gateway.send("POST", "/predict?a=1", b'{"text":"x"}', JSON)
    event = json.loads(reply.body)
    assert (reply.status, event["routeKey"], event["body"]) == (200, "POST /predict", '{"text":"x"}')
    assert event["queryStringParameters"] == {"a": "1"}
    assert reply.header("apigw-requestid") == event["requestContext"]["requestId"]
    assert reply.header("server") is None


def test_two_bodies_never_mix(start_gateway: "StartGateway") -> None:
    """Many clients at once each get the answer to their own request."""
    gateway = start_gateway()
    wrong: list[object] = []

    def client(number: int) -> None:
        for turn in range(20):
            text = f"{number}-{turn}"
            reply = gateway.send("POST", "/predict", text.encode(), {"content-type": "text/plain"})
            if reply.status != 200 or json.loads(reply.body)["body"] != text:
                wrong.append(reply)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert wrong == []


@pytest.mark.parametrize(("shape", "status", "message"), [
    ("http-2.0", 404, "Not Found"), ("http-1.0", 404, "Not Found"), ("rest", 403, "Missing Authentication Token"),
])  # fmt: skip
def test_no_route(start_gateway: "StartGateway", shape: str, status: int, message: str) -> None:
    """What is neither a route nor a file gets the kind's own answer."""
    gateway = start_gateway(shape=shape)
    for method, path in ("GET", "/nope"), ("DELETE", "/predict"), ("POST", "/"):
        reply = gateway.send(method, path)
        assert (reply.status, json.loads(reply.body)) == (status, {"message": message})


FAILING = """
import time
def handler(event, context):
    text = event["body"]
    if text == "raise":
        raise RuntimeError("secret detail")
    if text == "sleep":
        time.sleep(60)
    return {"statusCode": "what"} if text == "malformed" else {"statusCode": 200, "body": "well"}
"""


@pytest.mark.parametrize(
    ("shape", "failed", "timed_out"), [("http-2.0", 500, 503), ("http-1.0", 500, 503), ("rest", 502, 504)]
)
def test_failing_function(start_gateway: "StartGateway", shape: str, failed: int, timed_out: int) -> None:
    """A raise, a malformed reply and a time-out each get the kind's status, tell nothing, and harm no one after."""
    gateway = start_gateway(FAILING, shape=shape, function={"timeout_seconds": 0.5})
    plain = {"content-type": "text/plain"}
    for body, status in (b"raise", failed), (b"malformed", failed), (b"sleep", timed_out), (b"", 200):
        if not body:
            reply = gateway.send("POST", "/predict", b"go", plain)
            assert (reply.status, reply.body) == (200, b"well")
            continue
        reply = gateway.send("POST", "/predict", body, plain)
        assert reply.status == status
        assert set(json.loads(reply.body)) == {"message"}
        assert b"secret" not in reply.body


def test_integration_timeout(start_gateway: "StartGateway") -> None:
    """The gateway's own patience may end before the function's time does."""
    gateway = start_gateway(FAILING, integration_timeout_seconds=0.3, function={"timeout_seconds": 30})
    started = time.monotonic()
    assert gateway.send("POST", "/predict", b"sleep", {"content-type": "text/plain"}).status == 503
    assert time.monotonic() - started < 5


def test_throttling(start_gateway: "StartGateway", function_log: pytest.LogCaptureFixture) -> None:
    """Requests beyond what may run and wait are told so at once."""
    gateway = start_gateway(FAILING, function={"timeout_seconds": 2, "max_concurrency": 1, "max_waiting": 0})
    plain = {"content-type": "text/plain"}
    statuses: list[int] = []
    slow = threading.Thread(target=lambda: statuses.append(gateway.send("POST", "/predict", b"sleep", plain).status))
    slow.start()
    until(lambda: "START" in function_log.text)
    reply = gateway.send("POST", "/predict", b"go", plain)
    assert (reply.status, json.loads(reply.body)) == (429, {"message": "Too Many Requests"})
    slow.join(LIMIT_SECONDS)
    assert statuses == [503]


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_body_limit(start_gateway: "StartGateway", chunked: bool) -> None:  # noqa: FBT001 - a parameter
    """A body over 10 MB is refused, whether it says its length or not, and the client sees why."""
    gateway = start_gateway()
    data: Any = b"x" * (app_module.MAX_BODY_BYTES + 1)
    body = (data[i : i + 1_000_000] for i in range(0, len(data), 1_000_000)) if chunked else data
    reply = gateway.send("POST", "/predict", body, {"content-type": "text/plain"})
    assert (reply.status, json.loads(reply.body)) == (413, {"message": "Request Entity Too Large"})


def test_lambda_limit(start_gateway: "StartGateway") -> None:
    """A body that the gateway takes but Lambda does not, over 6 MB as an event, is 413 too."""
    gateway = start_gateway()
    assert gateway.send("POST", "/predict", b"x" * (7 * 1024 * 1024), {"content-type": "text/plain"}).status == 413


def test_endless_body(start_gateway: "StartGateway") -> None:
    """A chunked body that never ends is cut off with its connection."""
    gateway = start_gateway()
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection((gateway.host, gateway.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 100 * 1024 * 1024:
                connection.sendall(chunk)
                sent += len(chunk)
    assert sent < 40 * 1024 * 1024


def test_half_a_body(start_gateway: "StartGateway", function_log: pytest.LogCaptureFixture) -> None:
    """A client that goes away in the middle of its body never reaches the function."""
    gateway = start_gateway()
    with socket.create_connection((gateway.host, gateway.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\nhalf")
    until(lambda: "POST /predict" in function_log.text)
    assert "START" not in function_log.text


def test_slow_body(start_gateway: "StartGateway", monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive is not waited for."""
    monkeypatch.setattr(app_module, "BODY_TIMEOUT_SECONDS", 0.2)
    gateway = start_gateway()
    answer = raw(gateway, b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\nhalf")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_header_flood(start_gateway: "StartGateway") -> None:
    """Headers over the limit are refused; headers without end are cut off."""
    gateway = start_gateway()
    headers = b"".join(b"x-%d: %s\r\n" % (n, b"y" * 100) for n in range(150))
    answer = raw(gateway, b"GET /about HTTP/1.1\r\nhost: 127.0.0.1\r\n" + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    with socket.create_connection((gateway.host, gateway.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"GET /about HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 50 * 1024 * 1024:
                connection.sendall(b"x: " + b"y" * 60_000 + b"\r\n")
                sent += 60_000
    assert sent < 20 * 1024 * 1024


@pytest.mark.parametrize("requests_before", [0, 1])
def test_slow_loris(start_gateway: "StartGateway", monkeypatch: pytest.MonkeyPatch, requests_before: int) -> None:
    """A head that does not come to its end in time loses its connection, also behind others that did."""
    monkeypatch.setattr(server_module, "HEADER_TIMEOUT_SECONDS", 0.2)
    gateway = start_gateway()
    whole = b"GET /about HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    answer = raw(gateway, whole * requests_before + b"GET /about HTTP/1.1\r\nhost: 12")
    assert answer.count(b"HTTP/1.1 ") == requests_before


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"content-length: -1\r\n",
        b"bad header\r\n",
    ],
)
def test_smuggling(start_gateway: "StartGateway", head: bytes) -> None:
    """A request whose length can be read in two ways is refused, and its connection closed."""
    gateway = start_gateway()
    data = (
        b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\n" + head + b"\r\n0\r\n\r\nGET /about HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    answer = raw(gateway, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


# --- who may ask ---------------------------------------------------------------------------------


def test_host_allow_list(start_gateway: "StartGateway") -> None:
    """A request for another host name is refused: a page could have pointed its own name at this machine."""
    gateway = start_gateway()
    for host in "127.0.0.1", "localhost:8000", "LOCALHOST":
        assert gateway.send("GET", "/about", headers={"host": host}).status == 200
    for host in "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "":
        assert gateway.send("GET", "/about", headers={"host": host}).status == 403
    assert raw(gateway, b"GET /about HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_origin_check(start_gateway: "StartGateway") -> None:
    """Another site's page cannot post here; the gateway's own page and those on the list can."""
    gateway = start_gateway(allowed_origins=frozenset((APP,)))
    own = f"http://{gateway.host}:{gateway.port}"
    for origin in own, APP:
        assert gateway.send("POST", "/predict", b"x", {"origin": origin}).status == 200
    for origin in "https://evil.example", "null", own + "0", own.replace("http", "https"):
        assert gateway.send("POST", "/predict", b"x", {"origin": origin}).status == 403


CORS = CorsRule(allow_origins=(APP,), expose_headers=("x-a",), allow_credentials=True)
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
LOOSE = """
def handler(event, context):
    return {"statusCode": 200, "headers": {"access-control-allow-origin": "*", "vary": "accept"}, "body": "x"}
"""


def test_preflight(start_gateway: "StartGateway") -> None:
    """With rules of its own, an HTTP API answers every preflight itself, and permits only what is on the list."""
    gateway = start_gateway(cors=CORS)
    for path in "/predict", "/nope":
        reply = gateway.send("OPTIONS", path, headers={"origin": APP, **PREFLIGHT})
        assert (reply.status, reply.body) == (204, b"")
        assert reply.header("access-control-allow-origin") == APP
        assert reply.header("access-control-allow-methods") == "GET,POST"
        assert reply.header("access-control-allow-headers") == "content-type"
        assert reply.header("vary") == "Origin"
    reply = gateway.send("OPTIONS", "/predict", headers={"origin": "https://evil.example", **PREFLIGHT})
    assert reply.status == 204
    assert not [name for name, _ in reply.headers if name.startswith("access-control-")]


def test_cors_replaces(start_gateway: "StartGateway") -> None:
    """With rules of its own, the gateway drops the function's, and its headers are on errors too."""
    gateway = start_gateway(LOOSE, cors=CORS)
    for path in "/about", "/nope":
        reply = gateway.send("GET", path, headers={"origin": APP})
        allowed = [value for name, value in reply.headers if name == "access-control-allow-origin"]
        assert allowed == [APP]
        assert reply.header("access-control-allow-credentials") == "true"
        assert "Origin" in [value for name, value in reply.headers if name == "vary"]
    other = gateway.send("GET", "/about", headers={"origin": "https://evil.example"})
    assert other.header("access-control-allow-origin") is None


def test_function_cors(start_gateway: "StartGateway") -> None:
    """Without rules of its own, the gateway passes the function's headers and its OPTIONS route through."""
    gateway = start_gateway(LOOSE, shape="rest", routes=("GET /about", "OPTIONS /about"))
    assert gateway.send("GET", "/about").header("access-control-allow-origin") == "*"
    assert gateway.send("OPTIONS", "/about", headers={"origin": APP, **PREFLIGHT}).status == 200


def test_impossible_settings(tmp_path: Path) -> None:
    """Settings that no API could have are refused when they are made."""
    function = FunctionSettings(tmp_path)
    with pytest.raises(ValueError, match="REST"):
        GatewaySettings(function, shape="rest", cors=CORS)
    with pytest.raises(ValueError, match="shape"):
        GatewaySettings(function, shape="soap")
    with pytest.raises(ValueError, match="waits at most"):
        GatewaySettings(function, integration_timeout_seconds=31)
    with pytest.raises(ValueError, match="one by one"):
        CorsRule(allow_origins=("*",))


# --- the page's files ----------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Path:
    root = tmp_path / "web"
    (root / "console").mkdir(parents=True)
    (root / "index.html").write_text("<h1>page</h1>")
    (root / "app.js").write_text("1")
    (root / "console" / "index.html").write_text("console")
    (root / ".env").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "outside").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def test_files(start_gateway: "StartGateway", web: Path) -> None:
    """Files are served with their types and the strict headers; folders by their index.html."""
    gateway = start_gateway(web_folder=web)
    page = gateway.send("GET", "/")
    assert (page.status, page.body) == (200, b"<h1>page</h1>")
    assert page.header("content-type") == "text/html; charset=utf-8"
    policy = page.header("content-security-policy") or ""
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.header("x-content-type-options") == "nosniff"
    assert page.header("referrer-policy") == "no-referrer"
    assert gateway.send("GET", "/app.js").header("content-type") == "text/javascript; charset=utf-8"
    assert gateway.send("GET", "/console/").body == b"console"
    redirect = gateway.send("GET", "/console")
    assert (redirect.status, redirect.header("location")) == (308, "/console/")
    assert gateway.send("GET", "//console").header("location") == "/console/"
    head = gateway.send("HEAD", "/")
    assert (head.status, head.body, head.header("content-length")) == (200, b"", "13")


def test_not_modified(start_gateway: "StartGateway", web: Path) -> None:
    """A file the client has already is not sent again; a changed one is."""
    gateway = start_gateway(web_folder=web)
    etag = gateway.send("GET", "/").header("etag")
    assert etag is not None
    again = gateway.send("GET", "/", headers={"if-none-match": f'"x", W/{etag}'})
    assert (again.status, again.body) == (304, b"")
    (web / "index.html").write_text("<h1>another page</h1>")
    assert gateway.send("GET", "/", headers={"if-none-match": etag}).status == 200


OUTSIDE = (
    "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/%252e%252e/secret.txt", "/..%5csecret.txt",
    "/console/../../secret.txt", "/.env", "/%2eenv", "/link.txt", "/outside/secret.txt", "/index.html%00.js",
    "/pipe", "/index.html/", "/console/index.html/x", "/" + "a" * 300, "/%ff", "/~root", "//etc/passwd",
)  # fmt: skip


def test_no_way_out(start_gateway: "StartGateway", web: Path) -> None:
    """Nothing outside the folder, hidden in it, behind a link, or not a file is ever served."""
    gateway = start_gateway(web_folder=web)
    for path in OUTSIDE:
        answer = raw(gateway, f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), path
        assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


# --- log and server ------------------------------------------------------------------------------


def test_access_log(start_gateway: "StartGateway", function_log: pytest.LogCaptureFixture) -> None:
    """Each request leaves one line: method, path, status, milliseconds, request id; no line can be forged."""
    gateway = start_gateway()
    reply = gateway.send("GET", "/nope%0aGET%20/forged")
    until(lambda: "nope" in function_log.text)
    (line,) = [r.getMessage() for r in function_log.records if r.name == "greenroom.gateway.access"]
    assert line.startswith("GET /nope%0aGET%20/forged 404 ")
    assert line.endswith(f" ms {reply.header('apigw-requestid')}")


def test_loopback_only(tmp_path: Path) -> None:
    """The server takes an address other machines can reach only when told to."""
    app = create_app(GatewaySettings(FunctionSettings(tmp_path)))
    for host in "0.0.0.0", "::", "192.0.2.1", "example.org":
        with pytest.raises(ValueError, match="other machines"):
            Server(app, host=host)


def test_port_taken(tmp_path: Path) -> None:
    """A taken port is told when the server is made, before anything is started."""
    app = create_app(GatewaySettings(FunctionSettings(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(BackendUnavailable, match=r"in use.*--port"):
        Server(app, port=other.getsockname()[1])


def test_broken_function(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway whose handler cannot be loaded does not start, and says why."""
    (tmp_path / "handler.py").write_text("import nowhere_to_be_found")
    server = Server(create_app(GatewaySettings(FunctionSettings(tmp_path))))
    with pytest.raises(SystemExit) as ended:
        server.run()
    assert ended.value.code != 0
    assert "nowhere_to_be_found" in caplog.text
