"""The Lambda handler against a runtime API of bytes on a socket."""

import importlib.util
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BUNDLE = Path(__file__).parents[2] / "lambda" / "predict"
APP = "https://app.example"
REVIEW = "Not a bad film: I laughed, I cried, I stayed for the credits."
GOOD = {"label": "positive", "probability": 0.9}


@dataclass
class Runtime:
    """A runtime API on loopback that answers as it is told to and keeps what it was asked."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"x-Amzn-Invoked-Production-Variant": "AllTraffic"})
    body: bytes = json.dumps(GOOD).encode()
    delay_seconds: float = 0.0
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def say(self, document: object) -> None:
        self.body = json.dumps(document).encode()

    def refuse(self, status: int, code: str, message: str, **members: object) -> None:
        self.status = status
        self.headers = {"x-amzn-ErrorType": code}
        self.say({"Message": message, "message": message, **members})


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    state = Runtime()
    ended = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            ended.wait(state.delay_seconds)
            self.send_response(state.status)
            for name, value in {**state.headers, "content-length": str(len(state.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        ended.set()
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Context:
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    remaining_millis: int = 10_000

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_millis


Handler = Callable[..., dict[str, Any]]


@pytest.fixture
def environment(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The function's variables, as the gateway and Lambda would set them."""
    for name, value in {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ENDPOINT_NAME": "sentiment",
        "ALLOWED_ORIGINS": f"{APP}, https://other.example",
        "GREENROOM_BACKEND": "local",
    }.items():
        monkeypatch.setenv(name, value)
    for name in "AWS_PROFILE", "AWS_SESSION_TOKEN", "MAX_REVIEW_BYTES":
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def load() -> ModuleType:
    """A fresh copy of the handler, as in a new environment."""
    spec = importlib.util.spec_from_file_location("predict_handler", BUNDLE / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def handler(environment: pytest.MonkeyPatch) -> Handler:
    del environment
    module = load()

    def call(event: dict[str, Any], **context: Any) -> dict[str, Any]:
        response: dict[str, Any] = module.handler(event, Context(**context))
        assert set(response) == {"statusCode", "headers", "body", "isBase64Encoded"}
        assert response["headers"]["Vary"] == "Origin"
        assert isinstance(response["body"], str)
        return response

    return call


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((BUNDLE / "events" / f"{name}.json").read_text())
    return event


def asking(body: str | None, content_type: str | None = "application/json", **changes: Any) -> dict[str, Any]:
    event = {**sample("predict-v2"), **changes}
    event["headers"] = {**event["headers"], "content-type": content_type}
    if content_type is None:
        del event["headers"]["content-type"]
    event.pop("body")
    return event if body is None else {**event, "body": body}


def error_of(response: dict[str, Any]) -> tuple[int, str]:
    """Status and code of an error; anything that could pass for a result fails the test."""
    document = json.loads(response["body"])
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message"}
    assert "positive" not in response["body"].replace("neither positive nor negative", "")
    return response["statusCode"], document["error"]["code"]


@pytest.mark.parametrize("name", ["predict-v2", "predict-v1", "predict-rest", "predict-v2-base64", "predict-v2-text"])
def test_samples(handler: Handler, runtime: Runtime, name: str) -> None:
    """Each shape of event gets the model's answer, with the endpoint, variant and backend that gave it."""
    response = handler(sample(name))
    assert response["statusCode"] == 200
    assert json.loads(response["body"]) == {
        **GOOD, "variant": "AllTraffic", "endpoint": "sentiment", "backend": "local",
    }  # fmt: skip
    ((path, headers, body),) = runtime.asked
    assert path == "/endpoints/sentiment/invocations"
    assert (headers["content-type"], headers["accept"]) == ("application/json", "application/json")
    assert json.loads(body) == {"text": "Très émouvant, 8/10 🎬" if "base64" in name else REVIEW}


def test_explain(handler: Handler, runtime: Runtime) -> None:
    """Asked to explain, it passes the words on, whose texts make up the review."""
    words = [{"text": REVIEW[:9], "weight": 0.5}, {"text": REVIEW[9:], "weight": -0.25}]
    runtime.say({**GOOD, "words": words, "bias": 0.1, "margin": 0.35})
    document = json.loads(handler(sample("predict-v2-explain"))["body"])
    assert (document["words"], document["bias"], document["margin"]) == (words, 0.1, 0.35)
    assert json.loads(runtime.asked[0][2])["explain"] is True
    assert "words" not in json.loads(handler(sample("predict-v2"))["body"])


def test_about(handler: Handler, runtime: Runtime) -> None:
    """GET /about names endpoint and backend without asking the model."""
    response = handler(sample("about-v2"))
    assert (response["statusCode"], json.loads(response["body"])) == (
        200,
        {"endpoint": "sentiment", "backend": "local"},
    )
    assert runtime.asked == []


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (sample("predict-v2-empty"), 400, "EmptyReview"),
        (asking("", "text/plain"), 400, "EmptyReview"),
        (asking(None, "text/plain"), 400, "EmptyReview"),
        (asking("\u3000\n", "text/plain"), 400, "EmptyReview"),
        (asking(None), 400, "InvalidJson"),
        (asking("{"), 400, "InvalidJson"),
        (asking("[]"), 400, "InvalidJson"),
        (asking("NaN"), 400, "InvalidJson"),
        (asking("[" * 100_000), 400, "InvalidJson"),
        (asking('{"review": "good"}'), 400, "InvalidJson"),
        (asking('{"text": 7}'), 400, "InvalidJson"),
        (asking('{"text": "good", "explain": "yes"}'), 400, "InvalidJson"),
        (asking('{"text": "\\ud800"}'), 400, "InvalidJson"),
        (asking("***", isBase64Encoded=True), 400, "InvalidJson"),
        (asking("/w==", "text/plain", isBase64Encoded=True), 400, "InvalidJson"),
        (asking("good", "application/x-www-form-urlencoded"), 415, "UnsupportedMediaType"),
        (asking("good", None), 415, "UnsupportedMediaType"),
        (asking("good", "text/plain; charset=latin-1"), 415, "UnsupportedMediaType"),
        (asking("x" * 100_001, "text/plain"), 413, "ReviewTooLong"),
        (asking(json.dumps({"text": "é" * 50_001})), 413, "ReviewTooLong"),
        (asking(json.dumps({"text": "x", "more": "y" * 700_000})), 413, "ReviewTooLong"),
        ({**sample("predict-v2"), "rawPath": "/nope"}, 404, "NotFound"),
        ({**sample("predict-rest"), "httpMethod": "GET"}, 405, "MethodNotAllowed"),
        ({**sample("predict-rest"), "path": "/about"}, 405, "MethodNotAllowed"),
    ],
)
def test_bad_requests(handler: Handler, runtime: Runtime, event: dict[str, Any], status: int, code: str) -> None:
    """What is no review is refused with a code and a sentence, and the model is not asked."""
    assert error_of(handler(event)) == (status, code)
    assert runtime.asked == []


def test_longest_review(handler: Handler) -> None:
    """A review of exactly the limit is taken, also when JSON writes each byte as six."""
    text = "\x01" * 99_999 + "x"
    assert handler(asking(json.dumps({"text": text})))["statusCode"] == 200


def test_limit_is_configurable(handler: Handler, environment: pytest.MonkeyPatch) -> None:
    """MAX_REVIEW_BYTES sets the limit, in bytes of UTF-8."""
    environment.setenv("MAX_REVIEW_BYTES", "4")
    assert handler(asking("éé", "text/plain"))["statusCode"] == 200
    assert error_of(handler(asking("ééx", "text/plain"))) == (413, "ReviewTooLong")


@pytest.mark.parametrize(
    "reply",
    [
        {}, [], "positive", None, {"label": "positive"}, {"probability": 0.9},
        {"label": "POSITIVE", "probability": 0.9}, {"label": "neutral", "probability": 0.9},
        {"label": 1, "probability": 0.9}, {"label": ["positive"], "probability": 0.9},
        {"label": "positive", "probability": 1.0000001}, {"label": "positive", "probability": -0.1},
        {"label": "positive", "probability": True}, {"label": "positive", "probability": "0.9"},
        {"label": "positive", "probability": float("nan")}, {"label": "positive", "probability": float("inf")},
        {"label": "positive", "probability": 10**400}, {"label": "positive", "probability": None},
        {"label": "positive", "probability": 0.1}, {"label": "negative", "probability": 0.9},
        {"predictions": [GOOD]}, {"error": {"code": "x", "message": "y"}},
    ],
)  # fmt: skip
def test_bad_replies(handler: Handler, runtime: Runtime, reply: object) -> None:
    """Anything but a known label with a probability that agrees with it is an error, never an opinion."""
    runtime.say(reply)
    assert error_of(handler(sample("predict-v2"))) == (502, "BadModelReply")


@pytest.mark.parametrize("body", [b"", b"<html>positive</html>", b'{"label": "positive"', b"\xff", b"[" * 100_000])
def test_replies_that_are_no_json(handler: Handler, runtime: Runtime, body: bytes) -> None:
    """A reply that cannot be read is an error too."""
    runtime.body = body
    assert error_of(handler(sample("predict-v2"))) == (502, "BadModelReply")


@pytest.mark.parametrize(
    "explanation",
    [
        {"words": "all"}, {"words": [REVIEW]}, {"words": [{"text": REVIEW}]},
        {"words": [{"text": REVIEW, "weight": "much"}]}, {"words": [{"text": REVIEW + "!", "weight": 1}]},
        {"words": [{"text": REVIEW, "weight": 1}], "bias": None}, {"words": [{"text": REVIEW, "weight": 1}], "bias": 1},
    ],
)  # fmt: skip
def test_bad_explanations(handler: Handler, runtime: Runtime, explanation: dict[str, Any]) -> None:
    """An explanation of another text, or without its numbers, is not passed on."""
    runtime.say({**GOOD, **explanation})
    assert error_of(handler(sample("predict-v2-explain"))) == (502, "BadModelReply")


def test_no_explanation(handler: Handler) -> None:
    """A model that cannot explain still answers."""
    document = json.loads(handler(sample("predict-v2-explain"))["body"])
    assert document["label"] == "positive"
    assert "words" not in document


def test_even_odds(handler: Handler, runtime: Runtime) -> None:
    """At one half, either label agrees."""
    for label in "positive", "negative":
        runtime.say({"label": label, "probability": 0.5})
        assert json.loads(handler(sample("predict-v2"))["body"])["label"] == label


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        ((400, "ValidationError", "Endpoint sentiment of account 000000000000 not found."), 503, "EndpointNotFound"),
        ((400, "ValidationError", "something else"), 503, "EndpointUnavailable"),
        ((403, "AccessDeniedException", "no"), 503, "EndpointUnavailable"),
        ((429, "ThrottlingException", "Rate exceeded"), 429, "TooManyRequests"),
        ((500, "InternalFailure", "oops"), 503, "EndpointUnavailable"),
        ((503, "ServiceUnavailable", "later"), 503, "EndpointUnavailable"),
    ],
)
def test_refusals(handler: Handler, runtime: Runtime, refusal: tuple[int, str, str], status: int, code: str) -> None:
    """Each refusal of the runtime API becomes one of ours, after one try."""
    runtime.refuse(*refusal)
    assert error_of(handler(sample("predict-v2"))) == (status, code)
    assert len(runtime.asked) == 1


def test_model_errors(handler: Handler, runtime: Runtime) -> None:
    """A model's own failure is ModelError; one that never answered, by SageMaker's words, is Timeout."""
    text = 'Received server error (500) from primary with message "positive".'
    runtime.refuse(424, "ModelError", text, OriginalStatusCode=500, OriginalMessage="positive")
    assert error_of(handler(sample("predict-v2"))) == (502, "ModelError")
    text = 'Received server error (0) from primary with message "Your invocation timed out while waiting".'
    runtime.refuse(424, "ModelError", text, OriginalStatusCode=0, OriginalMessage="")
    assert error_of(handler(sample("predict-v2"))) == (504, "Timeout")


def test_timeout(handler: Handler, runtime: Runtime) -> None:
    """A model slower than the function's time is told as such, before Lambda ends the function."""
    runtime.delay_seconds = 30
    started = time.monotonic()
    assert error_of(handler(sample("predict-v2"), remaining_millis=2000)) == (504, "Timeout")
    assert time.monotonic() - started < 2
    assert len(runtime.asked) == 1


def test_nobody_there(environment: pytest.MonkeyPatch) -> None:
    """A runtime API that cannot be reached is EndpointUnavailable."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{port}")
    assert error_of(load().handler(sample("predict-v2"), Context())) == (503, "EndpointUnavailable")


def test_no_endpoint_name(handler: Handler, environment: pytest.MonkeyPatch) -> None:
    """A function without ENDPOINT_NAME says so."""
    environment.delenv("ENDPOINT_NAME")
    assert error_of(handler(sample("predict-v2"))) == (503, "EndpointNotFound")


def test_one_client(environment: pytest.MonkeyPatch, runtime: Runtime) -> None:
    """One client serves all invocations of an environment, over one connection."""
    del environment
    module = load()
    for _ in range(3):
        assert module.handler(sample("predict-v2"), Context())["statusCode"] == 200
    assert len(module._clients) == 1
    assert len(runtime.asked) == 3


def test_cors(handler: Handler, runtime: Runtime) -> None:
    """An origin on the list is named back on every status; any other is not, and none is reflected or '*'."""
    for name, changes in ("predict-v2", {}), ("predict-v2-empty", {}), ("about-v2", {"rawPath": "/nope"}):
        event = {**sample(name), **changes}
        assert handler(event)["headers"]["Access-Control-Allow-Origin"] == APP
        for origin in "https://evil.example", APP + ".evil.example", APP + "/", "null", "":
            event["headers"] = {**event["headers"], "origin": origin}
            assert "Access-Control-Allow-Origin" not in handler(event)["headers"]
    runtime.say({})
    assert handler(sample("predict-v2"))["headers"]["Access-Control-Allow-Origin"] == APP


def test_preflight(handler: Handler, runtime: Runtime) -> None:
    """OPTIONS permits exactly what the route takes, to those on the list alone."""
    event = sample("preflight-rest")
    response = handler(event)
    assert (response["statusCode"], response["body"]) == (204, "")
    assert response["headers"]["Access-Control-Allow-Methods"] == "POST"
    assert response["headers"]["Access-Control-Allow-Headers"] == "Content-Type"
    event["headers"]["Origin"] = "https://evil.example"
    assert not [name for name in handler(event)["headers"] if name.startswith("Access-Control-")]
    assert runtime.asked == []


def test_no_origins_by_default(handler: Handler, environment: pytest.MonkeyPatch) -> None:
    """Without ALLOWED_ORIGINS no other origin is allowed."""
    environment.delenv("ALLOWED_ORIGINS")
    assert "Access-Control-Allow-Origin" not in handler(sample("predict-v2"))["headers"]


def test_not_a_proxy_event(handler: Handler) -> None:
    """An event that is no HTTP request is an error of the function, not an answer."""
    with pytest.raises(ValueError, match="proxy events"):
        handler({"text": "good"})


def test_only_boto3() -> None:
    """The bundle needs the standard library and boto3 alone, which Lambda has."""
    source = (BUNDLE / "handler.py").read_text()
    imported = {line[1] for line in re.finditer(r"^(?:from|import) (\w+)", source, re.MULTILINE)}
    assert imported <= {
        "base64", "binascii", "boto3", "botocore", "collections", "dataclasses", "json", "logging",
        "math", "os", "typing",
    }  # fmt: skip
