"""HTTP ⇄ event, without any server."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.gateway.events import (
    SHAPES,
    Api,
    Failure,
    HttpApi1,
    HttpApi2,
    HttpRequest,
    HttpResponse,
    MalformedReply,
    Matched,
    RestApi,
)

MATCHED = Matched("POST /predict", "/predict")
ALL_SHAPES = sorted(SHAPES)


def request(**changes: Any) -> HttpRequest:
    fields: dict[str, Any] = {
        "method": "POST",
        "path": "/predict",
        "query": "a=1&a=2&b=",
        "headers": (
            ("host", "127.0.0.1:8000"),
            ("content-type", "application/json"),
            ("user-agent", "curl/8"),
            ("x-multi", "v1"),
            ("x-multi", "v2"),
            ("cookie", "c1=v1; c2=v2"),
            ("connection", "keep-alive"),
            ("accept", "*/*"),
        ),
        "body": b'{"text":"x"}',
    }
    return HttpRequest(**{**fields, **changes})


def event_of(shape: str, asked: HttpRequest, api: Api | None = None, matched: Matched = MATCHED) -> dict[str, Any]:
    return SHAPES[shape](api or Api()).event(asked, matched, request_id="JKJaXmPLvHcESHA=", epoch_seconds=1583348638.39)


def respond(shape: str, reply: object, asked: HttpRequest | None = None, api: Api | None = None) -> HttpResponse:
    return SHAPES[shape](api or Api()).response(json.dumps(reply).encode(), asked or request())


def test_payload_2_keys() -> None:
    """Payload 2.0 has exactly the documented members; what is absent is absent, not null."""
    event = event_of("http-2.0", request())
    assert set(event) == {
        "version", "routeKey", "rawPath", "rawQueryString", "cookies", "headers", "queryStringParameters",
        "requestContext", "body", "isBase64Encoded",
    }  # fmt: skip
    assert set(event["requestContext"]) == {
        "accountId", "apiId", "domainName", "domainPrefix", "http", "requestId", "routeKey", "stage", "time",
        "timeEpoch",
    }  # fmt: skip
    assert event["requestContext"]["http"] == {
        "method": "POST", "path": "/predict", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "curl/8",
    }  # fmt: skip
    assert event["requestContext"]["time"] == "04/Mar/2020:19:03:58 +0000"
    assert event["requestContext"]["timeEpoch"] == 1583348638390
    bare = event_of("http-2.0", request(method="GET", query="", body=b"", headers=(("host", "x"),)))
    assert not {"cookies", "queryStringParameters", "pathParameters", "stageVariables", "body"} & set(bare)


def test_payload_2_joins() -> None:
    """Payload 2.0 joins repeats by commas, takes cookies out of the headers, and drops the connection's headers."""
    event = event_of("http-2.0", request())
    assert event["headers"]["x-multi"] == "v1,v2"
    assert event["queryStringParameters"] == {"a": "1,2", "b": ""}
    assert event["cookies"] == ["c1=v1", "c2=v2"]
    assert not {"cookie", "connection"} & set(event["headers"])
    assert event["headers"]["x-forwarded-port"] == "8000"


def test_stage_and_variables() -> None:
    """A named stage stands before rawPath; path variables and stage variables appear when there are any."""
    api = Api(stage="prod", stage_variables={"k": "v"})
    event = event_of("http-2.0", request(), api, Matched("GET /r/{id}", "/r/{id}", {"id": "7"}))
    assert event["rawPath"] == "/prod/predict"
    assert event["stageVariables"] == {"k": "v"}
    assert event["pathParameters"] == {"id": "7"}
    rest = event_of("rest", request(), api, Matched("GET /r/{id}", "/r/{id}", {"id": "7"}))
    assert (rest["path"], rest["requestContext"]["path"]) == ("/predict", "/prod/predict")
    assert (rest["resource"], rest["requestContext"]["resourcePath"]) == ("/r/{id}", "/r/{id}")


@pytest.mark.parametrize("shape", ["rest", "http-1.0"])
def test_payload_1_keys(shape: str) -> None:
    """REST and payload 1.0 have exactly the documented members; only 1.0 says its version."""
    event = event_of(shape, request())
    members = {
        "resource", "path", "httpMethod", "headers", "multiValueHeaders", "queryStringParameters",
        "multiValueQueryStringParameters", "pathParameters", "stageVariables", "requestContext", "body",
        "isBase64Encoded",
    }  # fmt: skip
    assert set(event) == members | ({"version"} if shape == "http-1.0" else set())
    assert event.get("version") == ("1.0" if shape == "http-1.0" else None)
    assert event["headers"]["X-Multi"] == "v2"
    assert event["multiValueHeaders"]["X-Multi"] == ["v1", "v2"]
    assert event["queryStringParameters"] == {"a": "2", "b": ""}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": [""]}
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["identity"]["userArn"] is None


@pytest.mark.parametrize("shape", ["rest", "http-1.0"])
def test_payload_1_nulls(shape: str) -> None:
    """REST and payload 1.0 say null where there is nothing."""
    event = event_of(shape, request(method="GET", query="", body=b"", headers=(("host", "x"),)))
    for member in (
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
        "body",
    ):
        assert event[member] is None


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    [
        ("application/json; charset=utf-8", True),
        ("text/plain", True),
        ("application/problem+json", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("application/x-www-form-urlencoded", True),
        ("application/octet-stream", False),
        ("image/png", False),
        ("multipart/form-data; boundary=x", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("shape", ["http-2.0", "http-1.0"])
def test_http_api_base64(shape: str, content_type: str, is_text: bool) -> None:  # noqa: FBT001 - a parameter
    """An HTTP API passes text as text and all else as base64."""
    event = event_of(shape, request(headers=(("content-type", content_type),), body=b"abc"))
    assert (event["body"], event["isBase64Encoded"]) == (("abc", False) if is_text else ("YWJj", True))


def test_http_api_compressed() -> None:
    """A compressed body is bytes, whatever its type says."""
    headers = (("content-type", "application/json"), ("content-encoding", "gzip"))
    assert event_of("http-2.0", request(headers=headers, body=b"\x1f\x8b"))["isBase64Encoded"] is True


def test_rest_base64_by_media_type() -> None:
    """A REST API encodes only the media types it was told are binary."""
    asked = request(headers=(("content-type", "image/png"),), body=b"abc")
    assert event_of("rest", asked)["isBase64Encoded"] is False
    for types in ("image/png",), ("image/*",), ("*/*",):
        assert event_of("rest", asked, Api(binary_media_types=types))["isBase64Encoded"] is True


@given(body=st.binary(min_size=1), content_type=st.sampled_from(["text/plain", "application/octet-stream"]))
def test_body_survives(body: bytes, content_type: str) -> None:
    """The function can always get back the very bytes that were sent."""
    for shape in ALL_SHAPES:
        event = event_of(shape, request(headers=(("content-type", content_type),), body=body))
        got = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
        assert got == body


@given(st.text(), st.lists(st.tuples(st.text(), st.text())))
def test_any_request_is_json(query: str, headers: list[tuple[str, str]]) -> None:
    """Whatever a client sends, the event is one JSON document."""
    asked = request(query=query, headers=tuple((n.lower(), v) for n, v in headers))
    for shape in ALL_SHAPES:
        assert json.loads(json.dumps(event_of(shape, asked)))


def test_response_2() -> None:
    """Payload 2.0: status, headers, cookies, and base64 decoded whenever it says so."""
    reply = {
        "statusCode": 201,
        "headers": {"X-One": 1, "X-Yes": True, "Content-Length": "999"},
        "cookies": ["a=b", "c=d; Secure"],
        "isBase64Encoded": True,
        "body": "YWJj",
    }
    response = respond("http-2.0", reply)
    assert (response.status, response.body) == (201, b"abc")
    assert response.headers == (
        ("x-one", "1"),
        ("x-yes", "true"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d; Secure"),
        ("content-type", "text/plain; charset=utf-8"),
    )


@pytest.mark.parametrize("value", [{"a": 1}, "hello", [1, 2], None, 7, {"body": "no status"}])
def test_inferred_response(value: object) -> None:
    """Payload 2.0: a value without statusCode is the JSON body of a 200."""
    response = respond("http-2.0", value)
    assert (response.status, json.loads(response.body)) == (200, value)
    assert response.headers == (("content-type", "application/json"),)


def test_object_body() -> None:
    """Payload 2.0 serialises a body that is an object; REST takes it for malformed."""
    reply = {"statusCode": 200, "body": {"a": 1}}
    assert json.loads(respond("http-2.0", reply).body) == {"a": 1}
    with pytest.raises(MalformedReply, match="body is an object"):
        respond("rest", reply)


@pytest.mark.parametrize("shape", ["rest", "http-1.0"])
def test_multi_value_headers_win(shape: str) -> None:
    """Headers and multiValueHeaders are merged; on the same name, in any case, the latter win."""
    reply = {"statusCode": 200, "headers": {"X-A": "1", "X-B": "2"}, "multiValueHeaders": {"x-a": ["3", "4"]}}
    assert respond(shape, reply).headers == (("x-b", "2"), ("x-a", "3"), ("x-a", "4"))


def test_rest_base64_response() -> None:
    """REST decodes base64 only for a binary media type, asked for or answered; else the text goes out as it is."""
    reply = {"statusCode": 200, "headers": {"content-type": "image/png"}, "isBase64Encoded": True, "body": "YWJj"}
    assert respond("rest", reply).body == b"YWJj"
    assert respond("rest", reply, api=Api(binary_media_types=("image/png",))).body == b"abc"
    asked = request(headers=(("accept", "image/webp,*/*"),))
    assert respond("rest", reply, asked, Api(binary_media_types=("image/webp",))).body == b"abc"


def test_default_content_type() -> None:
    """REST calls a body without a type JSON, an HTTP API text."""
    reply = {"statusCode": 200, "body": "x"}
    assert respond("rest", reply).headers == (("content-type", "application/json"),)
    assert respond("http-1.0", reply).headers == (("content-type", "text/plain; charset=utf-8"),)


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize(
    "reply",
    [
        {"statusCode": "abc"},
        {"statusCode": True},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": 200.0},
        {"statusCode": None},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"a": {"b": 1}}},
        {"statusCode": 200, "headers": {"a": "x\r\nset-cookie: evil=1"}},
        {"statusCode": 200, "headers": {"a b": "x"}},
        {"statusCode": 200, "headers": {"a": "\u20ac"}},
        {"statusCode": 200, "isBase64Encoded": "yes"},
    ],
)
def test_malformed(shape: str, reply: object) -> None:
    """A reply that is no HTTP response is never sent as one, and no header can bring another with it."""
    with pytest.raises(MalformedReply):
        respond(shape, reply)


def test_malformed_bodies() -> None:
    """Broken base64, half a surrogate pair and text that is no JSON are malformed."""
    with pytest.raises(MalformedReply):
        respond("http-2.0", {"statusCode": 200, "isBase64Encoded": True, "body": "***"})
    with pytest.raises(MalformedReply):
        respond("http-2.0", {"statusCode": 200, "body": "\ud800"})
    for payload in b"NaN", b'{"statusCode": NaN}', b"[" * 100_000, b"\xff":
        with pytest.raises(MalformedReply):
            HttpApi2(Api()).response(payload, request())


@pytest.mark.parametrize("shape", ["rest", "http-1.0"])
def test_status_is_required(shape: str) -> None:
    """REST and payload 1.0 infer nothing."""
    with pytest.raises(MalformedReply, match="statusCode"):
        respond(shape, {"body": "x"})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "statusCode": st.integers(100, 700) | JSON_VALUES,
            "headers": st.dictionaries(st.text(), st.text()) | JSON_VALUES,
            "multiValueHeaders": st.dictionaries(st.text(), st.lists(st.text())) | JSON_VALUES,
            "cookies": st.lists(st.text()) | JSON_VALUES,
            "body": JSON_VALUES,
            "isBase64Encoded": st.booleans() | JSON_VALUES,
        },
    )
)
def test_any_reply(reply: dict[str, object]) -> None:
    """Any JSON a function returns is either malformed or a response that can be written to a socket."""
    for shape in ALL_SHAPES:
        try:
            response = respond(shape, reply)
        except MalformedReply:
            continue
        assert 200 <= response.status <= 599
        for name, value in response.headers:
            assert not set("\r\n\0") & set(name + value)
            assert (name + value).encode("latin-1")


@pytest.mark.parametrize(
    ("kind", "failure", "status", "message"),
    [
        (HttpApi2, Failure.FUNCTION, 500, "Internal Server Error"),
        (HttpApi1, Failure.TIMEOUT, 503, "Service Unavailable"),
        (HttpApi2, Failure.NO_ROUTE, 404, "Not Found"),
        (HttpApi2, Failure.TOO_LARGE, 413, "Request Entity Too Large"),
        (HttpApi2, Failure.THROTTLED, 429, "Too Many Requests"),
        (RestApi, Failure.FUNCTION, 502, "Internal server error"),
        (RestApi, Failure.REFUSED, 500, "Internal server error"),
        (RestApi, Failure.TIMEOUT, 504, "Endpoint request timed out"),
        (RestApi, Failure.NO_ROUTE, 403, "Missing Authentication Token"),
        (RestApi, Failure.TOO_LARGE, 413, "Request Too Long"),
    ],
)
def test_own_errors(kind: type[HttpApi2 | HttpApi1 | RestApi], failure: Failure, status: int, message: str) -> None:
    """Each kind of API has its own status and words for each failure."""
    response = kind(Api()).error(failure)
    assert (response.status, json.loads(response.body)) == (status, {"message": message})
    for every in Failure:
        assert kind(Api()).error(every).status >= 400
