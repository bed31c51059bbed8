"""Bodies to reviews and predictions to bodies, whoever serves: all that is sent and answered is read and written here.

    body ── Content-Type ──> reviews ── model ──> predictions ── Accept ──> body

Source: SageMaker developer guide, "Common Data Formats for Inference".
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentiment.model import SentimentModel

JSON, JSON_LINES, CSV, PLAIN = "application/json", "application/jsonlines", "text/csv", "text/plain"
EVEN_ODDS = 0.5

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


def reader(content_type: str) -> Callable[[bytes], Batch]:
    """How to read a body of *content_type*.

    Raises:
        Refusal: it is none that this model reads.
    """
    read = _READERS.get(_media_type(content_type))
    charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if read is None or charset not in ("", "utf-8", "utf8", "us-ascii"):
        said = content_type or "none"
        raise Refusal(415, "UnsupportedMediaType", f"content type {said}: send one of {', '.join(_READERS)}, in UTF-8")
    return read


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


def accepted(accept: str, content_type: str) -> str:
    """The media type to answer in: the first in *accept* that can be written.

    Raises:
        Refusal: none can.
    """
    default = _DEFAULT_ACCEPT[_media_type(content_type)]
    wanted = [_media_type(part) for part in accept.split(",") if part.strip()]
    for media_type in wanted or ["*/*"]:
        if media_type in _WRITTEN:
            return media_type
        # What SageMaker's own clients send when their user said nothing.
        if media_type in ("*/*", "application/octet-stream"):
            return default
    raise Refusal(406, "NotAcceptable", f"accept {accept}: this model answers in {', '.join(_WRITTEN)}")


def answer(model: "SentimentModel", batch: Batch, accept: str) -> bytes:
    """The predictions for *batch* as a body of type *accept*.

    Raises:
        Refusal: a review is none.
    """
    _check(batch.reviews)
    probabilities: list[float] = model.predict([review.text for review in batch.reviews]).tolist()
    if accept == CSV:
        return "".join(f"{_label(p)},{p!r}\n" for p in probabilities).encode()
    predictions = [_prediction(model, *pair) for pair in zip(batch.reviews, probabilities, strict=True)]
    if accept == JSON_LINES:
        return "".join(dumped(prediction) + "\n" for prediction in predictions).encode()
    return dumped(predictions[0] if batch.is_single else {"predictions": predictions}).encode()


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


def dumped(value: object) -> str:
    """*value* as JSON, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidInput", message)


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()
