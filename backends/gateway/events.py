"""HTTP ⇄ proxy event: what API Gateway makes of a request, and of what the function returned. Pure.

One class for each event shape. Everything that differs between HTTP APIs (payload 2.0 and 1.0) and REST APIs is
a method or a table here; nothing else in the gateway asks which kind it is.

Source: API Gateway developer guide, "Lambda proxy integrations in API Gateway" (REST) and "Create AWS Lambda
proxy integrations for HTTP APIs"; "Gateway responses" for the errors.
"""

import base64
import binascii
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from backends.naming import partition_of

Headers = tuple[tuple[str, str], ...]

# They speak of one connection, not of the request; RFC 9110, section 7.6.1.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
# The server writes these itself; a second one would contradict it.
_SERVERS_OWN = HOP_BY_HOP | {"content-length", "date", "server"}
_TEXT_TYPE = re.compile(r"text/.*|application/(.*\+)?(json|javascript|xml)|application/x-www-form-urlencoded")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LOWEST_STATUS, _HIGHEST_STATUS = 200, 599


class MalformedReply(ValueError):
    """The function returned something that is no response of this kind."""


class Failure(Enum):
    """Why the gateway answers by itself."""

    FUNCTION = "the function raised, exited or returned a malformed response"
    REFUSED = "the function could not be invoked"
    TIMEOUT = "the function did not answer in time"
    NO_ROUTE = "no route matches"
    TOO_LARGE = "the request's body is over the limit"
    HEADERS_TOO_LARGE = "the request's headers are over the limit"
    THROTTLED = "too many requests at once"
    FORBIDDEN = "the request comes from where it should not"
    SLOW_BODY = "the request's body did not arrive in time"


@dataclass(frozen=True)
class HttpRequest:
    """A request as it arrived. ``path`` is percent-encoded; header names are in lower case, repeats kept."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    source_ip: str = "127.0.0.1"
    protocol: str = "HTTP/1.1"

    def header(self, name: str) -> str:
        """The last value of header *name*, or the empty string."""
        return next((value for key, value in reversed(self.headers) if key == name), "")


@dataclass(frozen=True)
class HttpResponse:
    """A response to be sent; the server adds Content-Length, Date and Connection."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Api:
    """The API that is played: its identity, stage and the media types a REST API takes for binary."""

    account_id: str = "000000000000"
    api_id: str = "greenroom"
    region: str = "us-east-1"
    stage: str = "$default"
    stage_variables: Mapping[str, str] = field(default_factory=dict)
    binary_media_types: tuple[str, ...] = ()

    @property
    def domain_name(self) -> str:
        """The host name AWS would have given the API."""
        return f"{self.api_id}.execute-api.{self.region}.{partition_of(self.region).domain}"


@dataclass(frozen=True)
class Matched:
    """The route a request took: ``POST /predict``, ``/predict``, and the path's variables."""

    route_key: str
    resource: str
    path_parameters: Mapping[str, str] = field(default_factory=dict)


class EventShape(ABC):
    """One way in which API Gateway speaks with a function."""

    name: str
    # The gateway gives up on the function after so long, whatever the function's own limit is.
    integration_timeout_seconds: float
    # Whether the gateway itself can answer for cross-origin rules.
    has_cors: bool
    errors: Mapping[Failure, tuple[int, str]]

    def __init__(self, api: Api) -> None:
        self.api = api

    @abstractmethod
    def event(self, request: HttpRequest, matched: Matched, *, request_id: str, epoch_seconds: float) -> dict[str, Any]:
        """The event the function is given for *request*."""

    @abstractmethod
    def response(self, payload: bytes, request: HttpRequest) -> HttpResponse:
        """The HTTP response for *payload*, the JSON the function returned.

        Raises:
            MalformedReply: it is none.
        """

    @abstractmethod
    def trace_headers(self, request_id: str) -> Headers:
        """The headers by which a response names its request."""

    def error(self, failure: Failure) -> HttpResponse:
        """The gateway's own answer to *failure*."""
        status, message = self.errors[failure]
        body = json.dumps({"message": message}).encode()
        return HttpResponse(status, (("content-type", "application/json"),), body)

    def _forwarded(self, request: HttpRequest, trace_id: str) -> list[tuple[str, str]]:
        """The request's headers as the function sees them."""
        host, _, port = request.header("host").rpartition(":")
        before = [value for name, value in request.headers if name == "x-forwarded-for"]
        kept = [(n, v) for n, v in request.headers if n not in HOP_BY_HOP and not n.startswith("x-forwarded-")]
        return [
            *kept,
            ("x-amzn-trace-id", trace_id),
            ("x-forwarded-for", ", ".join([*before, request.source_ip])),
            ("x-forwarded-port", port if host and port.isdigit() else "80"),
            ("x-forwarded-proto", "http"),
        ]


class HttpApi2(EventShape):
    """HTTP API, payload 2.0; function URLs too."""

    name = "http-2.0"
    integration_timeout_seconds = 30.0
    has_cors = True
    errors = MappingProxyType(
        {
            Failure.FUNCTION: (500, "Internal Server Error"),
            Failure.REFUSED: (500, "Internal Server Error"),
            Failure.TIMEOUT: (503, "Service Unavailable"),
            Failure.NO_ROUTE: (404, "Not Found"),
            Failure.TOO_LARGE: (413, "Request Entity Too Large"),
            Failure.HEADERS_TOO_LARGE: (431, "Request Header Fields Too Large"),
            Failure.THROTTLED: (429, "Too Many Requests"),
            Failure.FORBIDDEN: (403, "Forbidden"),
            Failure.SLOW_BODY: (408, "Request Timeout"),
        }
    )

    def event(self, request: HttpRequest, matched: Matched, *, request_id: str, epoch_seconds: float) -> dict[str, Any]:
        api, path = self.api, _with_stage(self.api, request.path)
        headers = self._forwarded(request, _trace_id(request_id, epoch_seconds))
        cookies = [part.strip() for name, value in headers if name == "cookie" for part in value.split(";")]
        query = parse_qsl(request.query, keep_blank_values=True)
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": matched.route_key,
            "rawPath": path,
            "rawQueryString": request.query,
            "headers": _joined((n, v) for n, v in headers if n != "cookie"),
            "requestContext": {
                "accountId": api.account_id,
                "apiId": api.api_id,
                "domainName": api.domain_name,
                "domainPrefix": api.api_id,
                "http": {
                    "method": request.method,
                    "path": path,
                    "protocol": request.protocol,
                    "sourceIp": request.source_ip,
                    "userAgent": request.header("user-agent"),
                },
                "requestId": request_id,
                "routeKey": matched.route_key,
                "stage": api.stage,
                "time": _log_time(epoch_seconds),
                "timeEpoch": int(epoch_seconds * 1000),
            },
            "isBase64Encoded": False,
        }
        # Absent here means absent, where payload 1.0 says null.
        optional = {
            "cookies": [cookie for cookie in cookies if cookie],
            "queryStringParameters": _joined(query),
            "pathParameters": dict(matched.path_parameters),
            "stageVariables": dict(api.stage_variables),
        }
        event.update({key: value for key, value in optional.items() if value})
        if request.body:
            event["body"], event["isBase64Encoded"] = _encoded(request, as_text=_says_text(request))
        return event

    def response(self, payload: bytes, request: HttpRequest) -> HttpResponse:
        del request  # HTTP APIs do not negotiate
        reply = _parsed(payload)
        if not isinstance(reply, dict) or "statusCode" not in reply:
            # Payload 2.0 infers a response from any other value.
            return HttpResponse(200, (("content-type", "application/json"),), payload)
        body = reply.get("body")
        if not isinstance(body, str | None):
            body = json.dumps(body)
        headers = _reply_headers(reply.get("headers"))
        headers += [("set-cookie", _header_value("cookie", cookie)) for cookie in _listed(reply, "cookies")]
        return _http_response(reply, headers, _decoded(body, decode=_is_base64(reply)), "text/plain; charset=utf-8")

    def trace_headers(self, request_id: str) -> Headers:
        return (("apigw-requestid", request_id), ("x-amzn-requestid", request_id))


class _Version1(EventShape):
    """What payload 1.0 and REST share."""

    default_content_type: str

    def event(self, request: HttpRequest, matched: Matched, *, request_id: str, epoch_seconds: float) -> dict[str, Any]:
        api = self.api
        # The server has folded the names; this is how nearly every client writes them.
        headers = [(n.title(), v) for n, v in self._forwarded(request, _trace_id(request_id, epoch_seconds))]
        query = parse_qsl(request.query, keep_blank_values=True)
        body, is_base64 = _encoded(request, as_text=self._takes_as_text(request)) if request.body else (None, False)
        return {
            "resource": matched.resource,
            "path": request.path,
            "httpMethod": request.method,
            "headers": dict(headers) or None,
            "multiValueHeaders": _grouped(headers) or None,
            "queryStringParameters": dict(query) or None,
            "multiValueQueryStringParameters": _grouped(query) or None,
            "pathParameters": dict(matched.path_parameters) or None,
            "stageVariables": dict(api.stage_variables) or None,
            "requestContext": {
                "accountId": api.account_id,
                "apiId": api.api_id,
                "authorizer": {},
                "domainName": api.domain_name,
                "domainPrefix": api.api_id,
                "extendedRequestId": request_id,
                "httpMethod": request.method,
                "identity": _identity(request),
                "path": _with_stage(api, request.path),
                "protocol": request.protocol,
                "requestId": request_id,
                "requestTime": _log_time(epoch_seconds),
                "requestTimeEpoch": int(epoch_seconds * 1000),
                "resourceId": f"{_checksum(matched.resource):06x}",
                "resourcePath": matched.resource,
                "stage": api.stage,
            },
            "body": body,
            "isBase64Encoded": is_base64,
        }

    def response(self, payload: bytes, request: HttpRequest) -> HttpResponse:
        reply = _parsed(payload)
        if not isinstance(reply, dict) or "statusCode" not in reply:
            raise MalformedReply("it has no statusCode")
        body = reply.get("body")
        if not isinstance(body, str | None):
            raise MalformedReply(f"its body is {_kind(body)}, not a string")
        headers = _merged(_reply_headers(reply.get("headers")), _multi_headers(reply.get("multiValueHeaders")))
        decode = _is_base64(reply) and self._sends_binary(headers, request)
        return _http_response(reply, headers, _decoded(body, decode=decode), self.default_content_type)

    @abstractmethod
    def _takes_as_text(self, request: HttpRequest) -> bool: ...

    @abstractmethod
    def _sends_binary(self, headers: list[tuple[str, str]], request: HttpRequest) -> bool: ...


class HttpApi1(_Version1):
    """HTTP API, payload 1.0."""

    name = "http-1.0"
    integration_timeout_seconds = HttpApi2.integration_timeout_seconds
    has_cors = True
    errors = HttpApi2.errors
    default_content_type = "text/plain; charset=utf-8"

    def event(self, request: HttpRequest, matched: Matched, *, request_id: str, epoch_seconds: float) -> dict[str, Any]:
        event = super().event(request, matched, request_id=request_id, epoch_seconds=epoch_seconds)
        return {"version": "1.0", **event}

    def trace_headers(self, request_id: str) -> Headers:
        return (("apigw-requestid", request_id), ("x-amzn-requestid", request_id))

    def _takes_as_text(self, request: HttpRequest) -> bool:
        return _says_text(request)

    def _sends_binary(self, headers: list[tuple[str, str]], request: HttpRequest) -> bool:
        del headers, request
        return True


class RestApi(_Version1):
    """REST API with a Lambda proxy integration. Its events carry no ``version``."""

    name = "rest"
    integration_timeout_seconds = 29.0
    # A REST API's function answers preflights itself.
    has_cors = False
    errors = MappingProxyType(
        {
            **HttpApi2.errors,
            Failure.FUNCTION: (502, "Internal server error"),
            Failure.REFUSED: (500, "Internal server error"),
            Failure.TIMEOUT: (504, "Endpoint request timed out"),
            Failure.NO_ROUTE: (403, "Missing Authentication Token"),
            Failure.TOO_LARGE: (413, "Request Too Long"),
        }
    )
    default_content_type = "application/json"

    def trace_headers(self, request_id: str) -> Headers:
        return (("x-amzn-requestid", request_id), ("x-amz-apigw-id", request_id))

    def error(self, failure: Failure) -> HttpResponse:
        plain = super().error(failure)
        error_type = "".join(word.title() for word in failure.name.split("_")) + "Exception"
        return HttpResponse(plain.status, (*plain.headers, ("x-amzn-errortype", error_type)), plain.body)

    def _takes_as_text(self, request: HttpRequest) -> bool:
        return not self._is_binary(request.header("content-type"))

    def _sends_binary(self, headers: list[tuple[str, str]], request: HttpRequest) -> bool:
        said = next((value for name, value in headers if name == "content-type"), self.default_content_type)
        wanted = request.header("accept").partition(",")[0]
        return self._is_binary(wanted) or self._is_binary(said)

    def _is_binary(self, content_type: str) -> bool:
        media_type = _media_type(content_type)
        family = media_type.partition("/")[0] + "/*"
        return bool(media_type) and any(t in ("*/*", family, media_type) for t in self.api.binary_media_types)


SHAPES: Mapping[str, type[EventShape]] = MappingProxyType(
    {shape.name: shape for shape in (HttpApi2, HttpApi1, RestApi)}
)


# --- request → event -----------------------------------------------------------------------------


def _with_stage(api: Api, path: str) -> str:
    return path if api.stage == "$default" else f"/{api.stage}{path}"


def _trace_id(request_id: str, epoch_seconds: float) -> str:
    # AWS X-Ray's form: version, seconds in hex, 96 bits.
    return f"Root=1-{int(epoch_seconds):08x}-{request_id.encode().hex()[:24]:0<24}"


def _log_time(epoch_seconds: float) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(epoch_seconds))


def _checksum(text: str) -> int:
    """A number below 2**24 that stays the same for the same *text*."""
    return binascii.crc32(text.encode()) & 0xFFFFFF


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: ",".join(values) for name, values in _grouped(pairs).items()}


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _identity(request: HttpRequest) -> dict[str, str | None]:
    nobody = dict.fromkeys(
        (
            "accessKey",
            "accountId",
            "caller",
            "cognitoAuthenticationProvider",
            "cognitoAuthenticationType",
            "cognitoIdentityId",
            "cognitoIdentityPoolId",
            "principalOrgId",
            "user",
            "userArn",
            "clientCert",
        )
    )
    return {**nobody, "sourceIp": request.source_ip, "userAgent": request.header("user-agent")}


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _says_text(request: HttpRequest) -> bool:
    compressed = request.header("content-encoding") not in ("", "identity")
    return not compressed and _TEXT_TYPE.fullmatch(_media_type(request.header("content-type"))) is not None


def _encoded(request: HttpRequest, *, as_text: bool) -> tuple[str, bool]:
    """The body as the event carries it, and whether it is base64."""
    if as_text:
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            # Bytes that are no text would be lost for good as text.
            pass
    return base64.b64encode(request.body).decode(), True


# --- function's reply → response -----------------------------------------------------------------


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedReply(f"it is not JSON: {error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _kind(value: object) -> str:
    return {dict: "an object", list: "an array", bool: "a boolean"}.get(type(value), "a number")


def _listed(reply: Mapping[str, Any], key: str) -> list[Any]:
    values = reply.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise MalformedReply(f"its {key} are not a list")
    return values


def _is_base64(reply: Mapping[str, Any]) -> bool:
    value = reply.get("isBase64Encoded", False)
    if not isinstance(value, bool | None):
        raise MalformedReply("its isBase64Encoded is neither true nor false")
    return bool(value)


def _decoded(body: str | None, *, decode: bool) -> bytes:
    text = body or ""
    try:
        return base64.b64decode(text, validate=True) if decode else text.encode()
    except (binascii.Error, ValueError) as error:
        raise MalformedReply(f"its body is not base64 or not UTF-8: {error}") from error


def _status(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == len("200"):
        value = int(value)
    if type(value) is not int or not _LOWEST_STATUS <= value <= _HIGHEST_STATUS:
        raise MalformedReply(f"its statusCode is no HTTP status: {value!r:.50}")
    return value


def _reply_headers(headers: object) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if not isinstance(headers, dict):
        raise MalformedReply("its headers are not an object")
    return [(_header_name(name), _header_value(name, value)) for name, value in headers.items()]


def _multi_headers(headers: object) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if not isinstance(headers, dict) or not all(isinstance(values, list) for values in headers.values()):
        raise MalformedReply("its multiValueHeaders are not an object of lists")
    return [(_header_name(name), _header_value(name, value)) for name, values in headers.items() for value in values]


def _merged(single: list[tuple[str, str]], multiple: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Both kinds together; on the same name, multiValueHeaders win."""
    named = {name for name, _ in multiple}
    return [(name, value) for name, value in single if name not in named] + multiple


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise MalformedReply(f"it has a header with an impossible name: {name!r:.50}")
    return name.lower()


def _header_value(name: str, value: object) -> str:
    if isinstance(value, dict | list | None):
        raise MalformedReply(f"its header {name} is no text")
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    # A line break here would let the function's input write headers of its own.
    if not _HEADER_VALUE.fullmatch(text):
        raise MalformedReply(f"its header {name} holds characters that no header may")
    return text


def _http_response(
    reply: Mapping[str, Any], headers: list[tuple[str, str]], body: bytes, default_content_type: str
) -> HttpResponse:
    kept = [(name, value) for name, value in headers if name not in _SERVERS_OWN]
    if not any(name == "content-type" for name, _ in kept) and body:
        kept.append(("content-type", default_content_type))
    return HttpResponse(_status(reply["statusCode"]), tuple(kept), body)
