"""The same requests to two backends, and what differs in the answers.

Nothing is started or changed: each side is asked through its newest endpoint, and what its newest training job and
its newest batch transform left is read. Numbers may differ by a tolerance, for another processor sums in another order.
"""

import csv
import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from backends.base import Backend
from backends.errors import BackendError, ModelError, NotFound
from backends.specs import JobState
from sentiment.settings import PROJECT

_JSON, _JSON_LINES, _CSV, _PLAIN = "application/json", "application/jsonlines", "text/csv", "text/plain"
_CHUNK = 1 << 20
_SHOWN_CHARS = 80
_ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One invocation that both sides are asked."""

    name: str
    body: bytes
    content_type: str | None = _JSON
    accept: str | None = None
    variant: str | None = None


QUESTIONS = (
    Question(name="a review as text", body=b"A wonderful film, moving and funny.", content_type=_PLAIN),
    Question(name="one review as JSON", body=b'{"text": "Dull from start to end."}'),
    Question(name="with the weight of each word", body=b'{"text": "Not bad at all, but too long.", "explain": true}'),
    Question(name="several as JSON", body=b'{"instances": ["Great.", {"text": "Awful."}, "So-so."]}'),
    Question(name="several as JSON Lines", body=b'"Great."\n{"text": "Awful."}\n', content_type=_JSON_LINES),
    Question(name="several as CSV", body=b'Great.\n"Awful, really."\n', content_type=_CSV),
    Question(name="CSV in, JSON out", body=b"Great.\n", content_type=_CSV, accept=_JSON),
    Question(name="not English", body='{"text": "Ein großartiger Film 🎬, très émouvant"}'.encode()),
    Question(name="a long review", body=json.dumps({"text": "good and bad " * 5_000}).encode()),
    Question(name="an empty review", body=b'{"text": ""}'),
    Question(name="no JSON", body=b"{"),
    Question(name="no UTF-8", body=b"\xff\xfe", content_type=_PLAIN),
    Question(name="a type that is not read", body=b"<review/>", content_type="application/xml"),
    Question(name="a type that is not written", body=b'{"text": "Great."}', accept="image/png"),
    Question(name="a variant that is not there", body=b'{"text": "Great."}', variant="no-such-variant"),
)


class Side(Protocol):
    """One of the two that are compared: a backend, and the application's pipeline on it."""

    @property
    def backend(self) -> Backend:
        """Where it is."""
        ...

    @property
    def pipeline(self) -> Any:
        """What finds the newest endpoint and model."""
        ...


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: *what* was asked, *where* in the answer, what either side has."""

    what: str
    where: str
    here: str
    there: str


@dataclass(frozen=True)
class Comparison:
    """What was compared, and every difference found."""

    here: str
    there: str
    requests: int
    artifacts: int
    rows: int
    differences: list[Difference]


def compare(here: Side, there: Side, *, tolerance: float, say: Callable[[str], None]) -> Comparison:
    """Ask both sides the same and compare statuses, headers, bodies, the model's archive and the predictions.

    *tolerance* is how far apart two numbers may be. *say* is told what goes on.

    Raises:
        NotFound: a side has no endpoint, no model or no finished transform.
    """
    sides = (here, there)
    endpoints = [side.pipeline.endpoint() for side in sides]
    say(f"asking endpoint {endpoints[0]} on {here.backend.place} and {endpoints[1]} on {there.backend.place}")
    differences: list[Difference] = []
    for question in QUESTIONS:
        answers = [_answer(side.backend, name, question) for side, name in zip(sides, endpoints, strict=True)]
        differences += _members(question.name, *answers, tolerance=tolerance)
    models = [side.pipeline.newest_model().artifact_uri for side in sides]
    say(f"comparing {' with '.join(models)}")
    archives = [_contents(side.backend, uri) for side, uri in zip(sides, models, strict=True)]
    differences += _members("model.tar.gz", *archives, tolerance=tolerance)
    outputs = [_newest_output(side.backend) for side in sides]
    say(f"comparing {' with '.join(outputs)}")
    predictions = (_lines(side.backend, uri) for side, uri in zip(sides, outputs, strict=True))
    rows, differing = _count_rows(*predictions, tolerance=tolerance)
    return Comparison(
        here=here.backend.place,
        there=there.backend.place,
        requests=len(QUESTIONS),
        artifacts=len(archives[0].keys() | archives[1].keys()),
        rows=rows,
        differences=differences + differing,
    )


def comparison_table(found: Comparison) -> str:
    """The comparison as text."""
    counts = f"{found.requests} requests, {found.artifacts} files of the model, {found.rows:,} rows of predictions"
    if not found.differences:
        return f"{found.here} and {found.there} agree: {counts}"
    lines = [f"{found.here} (<) and {found.there} (>) differ {len(found.differences)} times; {counts}:"]
    for difference in found.differences:
        lines += [f"{difference.what}: {difference.where}", f"  < {difference.here}", f"  > {difference.there}"]
    return "\n".join(lines)


# --- what a side says


def _answer(backend: Backend, endpoint: str, question: Question) -> dict[str, str]:
    """Status, headers and body; of an error its kind and text, in which the endpoint has no name of its own."""
    try:
        reply = backend.endpoints.invoke(
            endpoint,
            question.body,
            content_type=question.content_type,
            accept=question.accept,
            variant=question.variant,
        )
    except ModelError as exc:
        return {"status": str(exc.status), "body": exc.reason}
    except BackendError as exc:
        return {"error": type(exc).__name__, "text": _anonymous(exc.reason, endpoint)}
    return {
        "status": "200",
        "content type": str(reply.content_type),
        "variant": reply.variant,
        "body": reply.body.decode(errors="backslashreplace"),
    }


def _anonymous(text: str, endpoint: str) -> str:
    """*text* without what must differ: ARN, account, the endpoint's name."""
    return re.sub(r"arn:aws[\w-]*:[^\s'\"]+", "(arn)", text).replace(endpoint, "(endpoint)")


def _contents(backend: Backend, uri: str) -> dict[str, str]:
    """Each file of the archive at *uri* with its SHA-256; nothing is unpacked."""
    digests = {}
    with backend.store.reader(uri) as stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                digests[member.name.removeprefix("./")] = _sha256(file)
    return digests


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _newest_output(backend: Backend) -> str:
    """The URI of the predictions that the newest completed test left."""
    for name in backend.transform.names():
        if name.startswith(f"{PROJECT}-test-"):
            status = backend.transform.status(name)
            if status.state is JobState.COMPLETED:
                for stored in backend.store.list_objects(f"{status.output_uri}/"):
                    if stored.uri.endswith(".out"):
                        return stored.uri
    raise NotFound(f"no batch transform has completed on {backend.place}. Run one with `sentiment evaluate`.")


def _lines(backend: Backend, uri: str) -> Iterator[list[str]]:
    with backend.store.reader(uri) as stream:
        yield from csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))


# --- what differs


def _members(what: str, here: Mapping[str, str], there: Mapping[str, str], *, tolerance: float) -> Iterator[Difference]:
    for member in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(member, _ABSENT), there.get(member, _ABSENT)
        if not alike(ours, theirs, tolerance):
            yield Difference(what, member, _shown(ours), _shown(theirs))


def _count_rows(
    here: Iterable[list[str]], there: Iterable[list[str]], *, tolerance: float
) -> tuple[int, list[Difference]]:
    """How many rows there are, and as one difference the first that is not alike with the number of such rows."""
    rows, unlike = 0, 0
    first: tuple[int, str, str] | None = None
    for rows, (ours, theirs) in enumerate(zip_longest(here, there), start=1):
        if ours is None or theirs is None or not _near(ours, theirs, tolerance):
            unlike += 1
            first = first or (rows, _row(ours), _row(theirs))
    if first is None:
        return rows, []
    number, ours, theirs = first
    return rows, [Difference("predictions", f"{unlike} of {rows} rows, first row {number}", ours, theirs)]


def _row(cells: list[str] | None) -> str:
    """The end of a row, where the prediction is."""
    return _ABSENT if cells is None else "…" + ",".join(cells)[-_SHOWN_CHARS:]


def alike(here: str, there: str, tolerance: float) -> bool:
    """Whether they are the same text, or the same document with numbers that lie within *tolerance*."""
    return here == there or _near(_read(here), _read(there), tolerance)


def _read(text: str) -> Any:
    """*text* as JSON, JSON Lines or CSV: whichever it is first."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return list(csv.reader(io.StringIO(text, newline="")))


def _near(here: Any, there: Any, tolerance: float) -> bool:
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(_near(here[key], there[key], tolerance) for key in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(_near(*pair, tolerance) for pair in zip(here, there, strict=True))
    # A number is not its text, nor true, though Python and a CSV's cell may take one for the other.
    if any(isinstance(here, kind) != isinstance(there, kind) for kind in (str, bool)):
        return False
    if here == there:
        return True
    try:
        return math.isclose(float(here), float(there), rel_tol=0.0, abs_tol=tolerance)
    except (TypeError, ValueError):
        return False


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"
