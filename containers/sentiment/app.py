"""The model behind HTTP: GET /ping, GET /execution-parameters, POST /invocations.

    body ── Content-Type ──> reviews ── model ──> predictions ── Accept ──> body

Starlette, which FastAPI is built on, rather than FastAPI itself: nothing here needs the difference, and importing
it would double the time from start to the first good /ping and the work of a request.

Source: SageMaker developer guide, "Custom Inference Code with Hosting Services" and "... with Batch Transform".
"""

import asyncio
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from sentiment.model import SentimentModel

JSON, JSON_LINES, CSV, PLAIN = "application/json", "application/jsonlines", "text/csv", "text/plain"
EVEN_ODDS = 0.5
# The largest body worked on at once: more of it would keep a /ping on the same worker waiting.
SMALL_BODY_BYTES = 16 * 1024
# So much more is read and dropped, as a client still sending would not see the answer before a reset.
LINGER_BYTES = 32 * 1024 * 1024
BATCH_PAYLOAD_MIB = 6
_CODES = MappingProxyType({404: "NotFound", 405: "MethodNotAllowed"})

csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True)
class Review:
    """One text to judge, and whether its words are to be weighed."""

    text: str
    explain: bool = False


@dataclass(frozen=True)
class Batch:
    """The reviews of one request; ``is_single`` when it asked for one prediction rather than a list."""

    reviews: Sequence[Review]
    is_single: bool = False


class Refusal(Exception):
    """The request cannot be answered with predictions."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def create_app(model: "SentimentModel", *, workers: int, max_payload_bytes: int | None) -> Starlette:
    """The inference server around *model*, which must bear concurrent calls."""
    parameters = {
        "MaxConcurrentTransforms": workers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": BATCH_PAYLOAD_MIB,
    }

    async def ping(request: Request) -> Response:
        del request
        return Response(status_code=200)

    async def execution_parameters(request: Request) -> Response:
        del request
        return Response(json.dumps(parameters), media_type=JSON)

    async def invocations(request: Request) -> Response:
        if "origin" in request.headers:
            # Only a browser sends it, and no page has business here; on a user's machine any page could try.
            raise Refusal(403, "Forbidden", "this server does not answer web pages")
        read = _reader(request.headers.get("content-type", ""))
        accept = _accepted(request.headers.get("accept", ""), request.headers["content-type"])
        body = await _body(request, max_payload_bytes)

        def work() -> bytes:
            return _answer(model, read(body), accept)

        answer = work() if len(body) <= SMALL_BODY_BYTES else await asyncio.to_thread(work)
        return Response(answer, media_type=accept)

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/execution-parameters", execution_parameters),
            Route("/invocations", invocations, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _http_error, Exception: _broken},
    )


# --- in ------------------------------------------------------------------------------------------


def _plain(body: bytes) -> Batch:
    return Batch([Review(_utf8(body))], is_single=True)


def _csv(body: bytes) -> Batch:
    return Batch(list(_csv_rows(_utf8(body))))


def _csv_rows(text: str) -> Iterator[Review]:
    number = 0
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), start=1):
            if len(row) != 1:
                raise _invalid(
                    f"row {number} has {len(row)} columns; each row must be one review, quoted if it has commas"
                )
            yield Review(row[0])
    except csv.Error as error:
        raise _invalid(f"row {number + 1} is not CSV: {error}") from error


def _json(body: bytes) -> Batch:
    document = _parsed(_utf8(body), "the body")
    if isinstance(document, dict) and "instances" in document:
        explain = _flag(document, "the body")
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _invalid('"instances" must be a list')
        return Batch([_review(item, f"instance {n}", explain=explain) for n, item in enumerate(instances, start=1)])
    if not isinstance(document, dict):
        raise _invalid('the body must be {"text": "..."} or {"instances": [...]}')
    return Batch([_review(document, "the body")], is_single=True)


def _json_lines(body: bytes) -> Batch:
    lines = _utf8(body).split("\n")
    if not lines[-1].strip():
        lines.pop()
    return Batch([_review(_parsed(line, f"line {n}"), f"line {n}") for n, line in enumerate(lines, start=1)])


_READERS: Mapping[str, Callable[[bytes], Batch]] = MappingProxyType(
    {PLAIN: _plain, CSV: _csv, JSON: _json, JSON_LINES: _json_lines}
)


def _reader(content_type: str) -> Callable[[bytes], Batch]:
    reader = _READERS.get(_media_type(content_type))
    charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if reader is None or charset not in ("", "utf-8", "utf8", "us-ascii"):
        said = content_type or "none"
        raise Refusal(415, "UnsupportedMediaType", f"content type {said}: send one of {', '.join(_READERS)}, in UTF-8")
    return reader


async def _body(request: Request, max_payload_bytes: int | None) -> bytes:
    """The whole body, counted while it arrives."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if max_payload_bytes is None or size <= max_payload_bytes:
            chunks.append(chunk)
        elif size > max_payload_bytes + LINGER_BYTES:
            break
    if max_payload_bytes is not None and size > max_payload_bytes:
        raise Refusal(413, "PayloadTooLarge", f"the body is over the limit of {max_payload_bytes} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _review(value: object, where: str, *, explain: bool = False) -> Review:
    if isinstance(value, str):
        return Review(value, explain=explain)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return Review(value["text"], explain=explain or _flag(value, where))
    raise _invalid(f'{where} must be a text or an object with a "text"')


def _flag(document: Mapping[str, Any], where: str) -> bool:
    value = document.get("explain", False)
    if not isinstance(value, bool):
        raise _invalid(f'{where}: "explain" must be true or false')
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{where} is not JSON: {error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8 at byte {error.start}") from error


# --- out -----------------------------------------------------------------------------------------


_DEFAULT_ACCEPT = MappingProxyType({PLAIN: JSON, JSON: JSON, CSV: CSV, JSON_LINES: JSON_LINES})
_WRITTEN = (JSON, JSON_LINES, CSV)


def _accepted(accept: str, content_type: str) -> str:
    """The media type to answer in: the first in *accept* that can be written."""
    default = _DEFAULT_ACCEPT[_media_type(content_type)]
    wanted = [_media_type(part) for part in accept.split(",") if part.strip()]
    for media_type in wanted or ["*/*"]:
        if media_type in _WRITTEN:
            return media_type
        # What SageMaker's own clients send when their user said nothing.
        if media_type in ("*/*", "application/octet-stream"):
            return default
    raise Refusal(406, "NotAcceptable", f"accept {accept}: this model answers in {', '.join(_WRITTEN)}")


def _answer(model: "SentimentModel", batch: Batch, accept: str) -> bytes:
    """The predictions for *batch* as a body of type *accept*."""
    _check(batch.reviews)
    probabilities: list[float] = model.predict([review.text for review in batch.reviews]).tolist()
    if accept == CSV:
        return "".join(f"{_label(p)},{p!r}\n" for p in probabilities).encode()
    predictions = [_prediction(model, *pair) for pair in zip(batch.reviews, probabilities, strict=True)]
    if accept == JSON_LINES:
        return "".join(_dumped(prediction) + "\n" for prediction in predictions).encode()
    return _dumped(predictions[0] if batch.is_single else {"predictions": predictions}).encode()


def _check(reviews: Sequence[Review]) -> None:
    """Refuse what has no right answer, naming the record: an empty batch, an empty text, half a character."""
    if not reviews:
        raise _invalid("there is no review in the body")
    for number, review in enumerate(reviews, start=1):
        if not review.text or review.text.isspace():
            raise Refusal(400, "EmptyReview", f"record {number} is empty; there is nothing to judge")
        try:
            review.text.encode()
        except UnicodeEncodeError:
            raise _invalid(f"record {number} holds half a surrogate pair, which is no character") from None


def _prediction(model: "SentimentModel", review: Review, probability: float) -> dict[str, Any]:
    prediction: dict[str, Any] = {"label": _label(probability), "probability": probability}
    if review.explain:
        explanation = model.explain(review.text)
        prediction["bias"] = explanation.bias
        prediction["margin"] = explanation.margin
        prediction["words"] = [{"text": word.text, "weight": word.weight} for word in explanation.words]
    return prediction


def _label(probability: float) -> str:
    return "positive" if probability >= EVEN_ODDS else "negative"


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


# --- errors --------------------------------------------------------------------------------------


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidInput", message)


async def _refused(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, Refusal):
        raise error
    response = _error(error.status, error.code, str(error))
    if error.status == 413:
        response.headers["connection"] = "close"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = _error(error.status_code, _CODES.get(error.status_code, "BadRequest"), message)
    response.headers.update(error.headers or {})
    return response


async def _broken(request: Request, error: Exception) -> Response:
    del request
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    return _error(500, "InternalError", f"{type(error).__name__}; the server's log has the details")


def _error(status: int, code: str, message: str) -> Response:
    return Response(_dumped({"error": {"code": code, "message": message}}), status_code=status, media_type=JSON)


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()
