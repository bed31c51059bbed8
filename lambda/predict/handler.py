"""The function behind the page: one review in, one opinion out.

    API Gateway (HTTP API or REST) ── proxy event ──> handler() ── InvokeEndpoint ──> the model's endpoint

The same file runs in AWS Lambda and in the local gateway. Only the environment differs, and of that only
``AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME``, which boto3 reads by itself.
"""

import base64
import binascii
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    ReadTimeoutError,
)

Event = Mapping[str, Any]
Response = dict[str, Any]

logger = logging.getLogger(__name__)

# A byte of a review takes at most six in JSON (backslash-u and four digits).
LONGEST_JSON_ESCAPE = 6
ROOM_FOR_JSON_KEYS = 1024
# Lambda refuses a reply of more than 6 MB; the rest is room for its envelope, in which our quotes are escaped.
LARGEST_REPLY_BYTES = 5 * 1024 * 1024
# What is left of the function's time to say so when the endpoint did not answer.
SECONDS_TO_ANSWER = 0.5
SHORTEST_TIMEOUT_SECONDS = 0.5
LONGEST_CONNECT_SECONDS = 2.0
# SageMaker itself gives a model 60 seconds.
LONGEST_READ_SECONDS = 60.0
CORS_MAX_AGE_SECONDS = 600
EVEN_ODDS = 0.5


class LambdaContext(Protocol):
    """The part of Lambda's context object that is used here."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""
        ...


@dataclass(frozen=True)
class Settings:
    """What the function's environment says."""

    endpoint: str
    allowed_origins: frozenset[str]
    max_review_bytes: int
    backend: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read ENDPOINT_NAME, ALLOWED_ORIGINS (comma-separated), MAX_REVIEW_BYTES and GREENROOM_BACKEND."""
        origins = (origin.strip() for origin in environment.get("ALLOWED_ORIGINS", "").split(","))
        return cls(
            endpoint=environment.get("ENDPOINT_NAME", ""),
            allowed_origins=frozenset(origin for origin in origins if origin),
            max_review_bytes=int(environment.get("MAX_REVIEW_BYTES", "100000")),
            backend=environment.get("GREENROOM_BACKEND", "aws"),
        )


@dataclass(frozen=True)
class Request:
    """An API Gateway request, whichever of the two event shapes it came in."""

    method: str
    route: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case; empty when the client named none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The charset parameter in lower case, or utf-8."""
        for parameter in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip('"').lower()
        return "utf-8"


@dataclass(frozen=True)
class Question:
    """A review and whether its words are to be weighed."""

    text: str
    explain: bool


class Refusal(Exception):
    """The request ends here, with *status* and an error document."""

    def __init__(self, status: int, code: str, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.allow = allow


def handler(event: Event, context: LambdaContext) -> Response:
    """Answer one API Gateway proxy event (payload 1.0, 2.0 or REST) with a proxy response.

    Raises:
        ValueError: *event* is no proxy event, so there is no caller to answer.
    """
    settings = Settings.read(os.environ)
    origin = _headers(event).get("origin", "")
    try:
        status, document, extra = _answer(event, context, settings)
    except Refusal as refusal:
        status = refusal.status
        document = {"error": {"code": refusal.code, "message": refusal.message}}
        extra = {"Allow": refusal.allow} if refusal.allow else {}
    headers = {**_cors(origin, settings), **extra, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if document is None:
        return {"statusCode": status, "headers": headers, "body": "", "isBase64Encoded": False}
    headers["Content-Type"] = "application/json"
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return {"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": False}


def _answer(
    event: Event, context: LambdaContext, settings: Settings
) -> tuple[int, dict[str, Any] | None, dict[str, str]]:
    """Status, document and further headers for *event*."""
    request = _read(event)
    method = {"predict": "POST", "about": "GET"}.get(request.route)
    if method is None:
        raise Refusal(404, "NotFound", "There is POST /predict and GET /about.")
    if request.method == "OPTIONS":
        return 204, None, _preflight(method, request.headers.get("origin", ""), settings)
    if request.method != method:
        message = f"/{request.route} takes {method}, not {request.method}."
        raise Refusal(405, "MethodNotAllowed", message, allow=f"{method}, OPTIONS")
    about = {"endpoint": settings.endpoint, "backend": settings.backend}
    if request.route == "about":
        return 200, about, {}
    question = _question(request, settings.max_review_bytes)
    opinion = _ask(question, settings, context)
    return 200, {**opinion, **about}, {}


# --- the request ---------------------------------------------------------------------------------


def _headers(event: Event) -> dict[str, str]:
    """The event's headers under lower-case names; REST keeps the client's spelling, and null for none."""
    return {name.lower(): value for name, value in (event.get("headers") or {}).items()}


def _read(event: Event) -> Request:
    if event.get("version") == "2.0":
        http = event["requestContext"]["http"]
        method, path = http["method"], event["rawPath"]
    elif "httpMethod" in event:
        method, path = event["httpMethod"], event["path"]
    else:
        raise ValueError("this function answers API Gateway proxy events (payload 2.0, 1.0 or REST)")
    # A stage name or a custom domain's base path may stand before the route.
    route = path.rstrip("/").rpartition("/")[2]
    return Request(method=method, route=route, headers=_headers(event), body=_body(event))


def _body(event: Event) -> bytes:
    body = event.get("body") or ""
    try:
        if event.get("isBase64Encoded"):
            return base64.b64decode(body, validate=True)
        return str(body).encode()
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "InvalidJson", "The request's body is not valid base64 or UTF-8.") from error


def _question(request: Request, max_review_bytes: int) -> Question:
    """The review in *request*, checked.

    Raises:
        Refusal: 400, 413 or 415.
    """
    if request.content_type not in ("application/json", "text/plain") or request.charset not in ("utf-8", "utf8"):
        said = request.headers.get("content-type", "none")
        message = f"Send the review as application/json or text/plain in UTF-8; the content type was {said}."
        raise Refusal(415, "UnsupportedMediaType", message)
    if request.content_type == "text/plain":
        _check_size(len(request.body), max_review_bytes)
        question = Question(_utf8(request.body), explain=False)
    else:
        # Looked at before parsing, so that nobody makes us parse megabytes to say no.
        if len(request.body) > LONGEST_JSON_ESCAPE * max_review_bytes + ROOM_FOR_JSON_KEYS:
            raise _too_long(max_review_bytes)
        question = _json_question(request.body)
        _check_size(len(_encoded(question.text)), max_review_bytes)
    if not question.text.strip():
        raise Refusal(400, "EmptyReview", "There is no review to judge: the text is empty.")
    return question


def _json_question(body: bytes) -> Question:
    try:
        document = json.loads(_utf8(body), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "InvalidJson", f"The body is not valid JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise Refusal(400, "InvalidJson", 'The body must be a JSON object such as {"text": "a review"}.')
    explain = document.get("explain", False)
    if not isinstance(explain, bool):
        raise Refusal(400, "InvalidJson", '"explain" must be true or false.')
    return Question(document["text"], explain=explain)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, "InvalidJson", f"The body is not valid UTF-8 at byte {error.start}.") from error


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(400, "InvalidJson", "The text holds half a surrogate pair, which is no character.") from error


def _check_size(size_bytes: int, max_review_bytes: int) -> None:
    if size_bytes > max_review_bytes:
        raise _too_long(max_review_bytes)


def _too_long(max_review_bytes: int) -> Refusal:
    return Refusal(413, "ReviewTooLong", f"A review may have at most {max_review_bytes} bytes of UTF-8.")


# --- cross-origin rules --------------------------------------------------------------------------


def _cors(origin: str, settings: Settings) -> dict[str, str]:
    """The headers every answer bears, so that caches and browsers are right about errors too."""
    headers = {"Vary": "Origin"}
    if origin in settings.allowed_origins:
        headers["Access-Control-Allow-Origin"] = origin
    return headers


def _preflight(method: str, origin: str, settings: Settings) -> dict[str, str]:
    allow = {"Allow": f"{method}, OPTIONS"}
    if origin not in settings.allowed_origins:
        return allow
    return allow | {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": str(CORS_MAX_AGE_SECONDS),
    }


# --- the endpoint --------------------------------------------------------------------------------


# One per environment, as every client costs a third of a second to make.
_clients: dict[str, Any] = {}


def _runtime(context: LambdaContext) -> Any:
    """The SageMaker runtime client, whose time-outs end before the function's own time does.

    Every invocation of a function has the same time, so the first one's sets the client's.
    """
    if "runtime" not in _clients:
        budget = context.get_remaining_time_in_millis() / 1000 - SECONDS_TO_ANSWER
        connect = min(LONGEST_CONNECT_SECONDS, max(budget / 4, SHORTEST_TIMEOUT_SECONDS))
        read = min(LONGEST_READ_SECONDS, max(budget - connect, SHORTEST_TIMEOUT_SECONDS))
        config = Config(
            connect_timeout=connect,
            read_timeout=read,
            # A second try would need the time of a second answer.
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            # Where none is given, botocore works a long one out anew in each call, which takes a fifth of the call.
            user_agent="greenroom-predict",
        )
        _clients["runtime"] = boto3.client("sagemaker-runtime", config=config)
    return _clients["runtime"]


def _ask(question: Question, settings: Settings, context: LambdaContext) -> dict[str, Any]:
    """The model's opinion, with the variant that gave it.

    Raises:
        Refusal: 502, 503 or 504, never a guess.
    """
    if not settings.endpoint:
        raise Refusal(503, "EndpointNotFound", "This function was deployed without ENDPOINT_NAME.")
    sent: dict[str, Any] = {"text": question.text}
    if question.explain:
        sent["explain"] = True
    try:
        reply = _runtime(context).invoke_endpoint(
            EndpointName=settings.endpoint,
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps(sent, ensure_ascii=False).encode(),
        )
        body = reply["Body"].read(LARGEST_REPLY_BYTES + 1)
    except ClientError as error:
        raise _refused(error, settings.endpoint) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise Refusal(504, "Timeout", f"Endpoint {settings.endpoint} did not answer in time.") from error
    except BotoCoreError as error:
        logger.warning("endpoint %s cannot be reached: %s", settings.endpoint, error)
        message = f"Endpoint {settings.endpoint} cannot be reached: {type(error).__name__}."
        raise Refusal(503, "EndpointUnavailable", message) from error
    return {**_opinion(body, question), "variant": reply.get("InvokedProductionVariant", "")}


def _refused(error: ClientError, endpoint: str) -> Refusal:
    """What an error answer of the runtime API means to the one who asked."""
    details = error.response.get("Error", {})
    code, text = details.get("Code", ""), details.get("Message", "")
    logger.warning("endpoint %s refused: %s: %s", endpoint, code, text)
    if code == "ModelError":
        status = error.response.get("OriginalStatusCode")
        # Status 0 is the platform's word for a model that never answered.
        if status == 0 and "timed out" in text:
            return Refusal(504, "Timeout", f"The model behind endpoint {endpoint} did not answer in time.")
        return Refusal(502, "ModelError", f"The model behind endpoint {endpoint} failed with status {status}.")
    if code == "ValidationError" and "not found" in text:
        return Refusal(503, "EndpointNotFound", f"There is no endpoint {endpoint}; deploy it first.")
    return Refusal(503, "EndpointUnavailable", f"Endpoint {endpoint} did not take the request: {code}.")


def _opinion(body: bytes, question: Question) -> dict[str, Any]:
    """The prediction in *body*, taken only if it is one beyond doubt.

    Raises:
        Refusal: 502 BadModelReply for anything else; half a reply must never look like an opinion.
    """
    if len(body) > LARGEST_REPLY_BYTES:
        message = f"The model's reply has more than {LARGEST_REPLY_BYTES} bytes; ask without explain."
        raise Refusal(502, "BadModelReply", message)
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad_reply("it is not JSON") from error
    if not isinstance(reply, dict):
        raise _bad_reply("it is not an object")
    label, probability = reply.get("label"), reply.get("probability")
    if not _is_number(probability) or not 0 <= probability <= 1:
        raise _bad_reply("its probability is not a number from 0 to 1")
    if label not in ("positive", "negative"):
        raise _bad_reply("its label is neither positive nor negative")
    if probability != EVEN_ODDS and (label == "positive") != (probability > EVEN_ODDS):
        raise _bad_reply("its label contradicts its probability")
    opinion = {"label": label, "probability": probability}
    return opinion | (_explanation(reply, question.text) if question.explain else {})


def _explanation(reply: dict[str, Any], text: str) -> dict[str, Any]:
    """The weights in *reply*; nothing when the model gives none, as explaining is optional."""
    if "words" not in reply:
        return {}
    words = reply["words"]
    if not isinstance(words, list) or not all(_is_word(word) for word in words):
        raise _bad_reply("its words are not a list of texts with weights")
    if "".join(word["text"] for word in words) != text:
        raise _bad_reply("its words are not those of the review")
    if not _is_number(reply.get("bias")) or not _is_number(reply.get("margin")):
        raise _bad_reply("its bias or margin is missing")
    return {"words": words, "bias": reply["bias"], "margin": reply["margin"]}


def _is_word(word: object) -> bool:
    return isinstance(word, dict) and isinstance(word.get("text"), str) and _is_number(word.get("weight"))


def _is_number(value: object) -> TypeGuard[float]:
    # JSON's true is an int to Python, and Python's parser takes NaN.
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _bad_reply(what: str) -> Refusal:
    return Refusal(502, "BadModelReply", f"The model's reply cannot be trusted: {what}.")
