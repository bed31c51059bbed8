"""The `serve` program under the contract."""

import csv
import io
import json
import math
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.containers.rigs import LIMIT_SECONDS, Rig, Served, Trained, until

LIKED = "A wonderful, moving film. The acting is great & I loved it: 9/10!"
HATED = "A boring waste of time, the worst script and awful acting. 2/10"
JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"


def opinions(served: Served, texts: list[str]) -> list[float]:
    body = json.dumps({"instances": [{"text": text} for text in texts]})
    return [p["probability"] for p in served.invoke(body, JSON).document["predictions"]]


def error_of(answer: Any) -> tuple[int, str, str]:
    """Status, code and message of an error document."""
    assert set(answer.document) == {"error"}
    return answer.status, answer.document["error"]["code"], answer.document["error"]["message"]


def test_ping(served: Served) -> None:
    """GET /ping is 200 with an empty body."""
    answer = served.ask("GET", "/ping")
    assert (answer.status, answer.body) == (200, b"")


def test_execution_parameters(served: Served) -> None:
    """GET /execution-parameters tells batch transform how to use the model."""
    answer = served.ask("GET", "/execution-parameters")
    assert answer.document == {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


def test_plain(served: Served) -> None:
    """A text is one review, in whatever the charset parameter spells as UTF-8; the opinion is a right one."""
    for content_type in "text/plain", "text/plain; charset=UTF-8", "TEXT/PLAIN":
        liked, hated = (served.invoke(text.encode(), content_type).document for text in (LIKED, HATED))
        assert (liked["label"], hated["label"]) == ("positive", "negative")
        assert 0 <= hated["probability"] < 0.5 < liked["probability"] <= 1
        assert set(liked) == {"label", "probability"}


def test_json(served: Served) -> None:
    """One object gets one prediction; instances, objects or texts, get a list in their order."""
    alone = served.invoke(json.dumps({"text": LIKED}), JSON).document
    both = served.invoke(json.dumps({"instances": [{"text": HATED}, LIKED]}), JSON).document
    assert list(both) == ["predictions"]
    assert [p["label"] for p in both["predictions"]] == ["negative", "positive"]
    assert both["predictions"][1] == alone


def test_json_lines(served: Served) -> None:
    """Each line gets a line, in order; keys beside text are tolerated, and a last line feed changes nothing."""
    lines = [json.dumps({"text": HATED, "id": 1}), json.dumps(LIKED)]
    for body in "\n".join(lines), "\n".join(lines) + "\n", "\r\n".join(lines):
        answer = served.invoke(body, LINES)
        assert answer.headers["content-type"] == LINES
        assert [json.loads(line)["label"] for line in answer.body.splitlines()] == ["negative", "positive"]


def test_csv(served: Served) -> None:
    """Each row gets a row "label,probability"; quotes, commas and line breaks belong to the review."""
    text = io.StringIO()
    rows = [HATED, LIKED, 'He said "good, great"\nand left.', "Grüße 🎬"]
    csv.writer(text).writerows([row] for row in rows)
    answer = served.invoke(text.getvalue().encode(), CSV)
    assert answer.headers["content-type"].startswith(CSV)
    found = [row.split(",") for row in answer.body.decode().splitlines()]
    assert [label for label, _ in found][:2] == ["negative", "positive"]
    assert [float(probability) for _, probability in found] == pytest.approx(opinions(served, rows))


@pytest.mark.parametrize(
    ("content_type", "body", "accept", "answered"),
    [
        ("text/plain", LIKED, None, JSON),
        ("text/plain", LIKED, "*/*", JSON),
        ("text/plain", LIKED, LINES, LINES),
        ("text/plain", LIKED, CSV, CSV),
        (JSON, json.dumps({"text": LIKED}), CSV, CSV),
        (CSV, "x\n", None, CSV),
        (CSV, "x\n", JSON, JSON),
        (CSV, "x\n", "application/octet-stream", CSV),
        (LINES, '"x"\n', None, LINES),
        (LINES, '"x"\n', "text/html, text/csv;q=0.9, */*;q=0.1", CSV),
    ],
)
def test_accept(served: Served, content_type: str, body: str, accept: str | None, answered: str) -> None:
    """The answer is in the first acceptable format, and without a wish in the one that fits the question."""
    answer = served.invoke(body.encode(), content_type, accept)
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == answered
    if answered == JSON:
        assert ("predictions" in answer.document) == (content_type == CSV)


def test_not_acceptable(served: Served) -> None:
    """A format that cannot be written is 406, with those that can."""
    status, _, message = error_of(served.invoke(LIKED, "text/plain", "image/png"))
    assert status == 406
    assert all(known in message for known in (JSON, LINES, CSV))


@pytest.mark.parametrize(
    "content_type", [None, "", "application/octet-stream", "text/html", "text/plain; charset=latin-1"]
)
def test_unsupported_media_type(served: Served, content_type: str | None) -> None:
    """What is not understood, or not named, is 415, with what is."""
    status, code, message = error_of(served.invoke(LIKED, content_type))
    assert (status, code) == (415, "UnsupportedMediaType")
    assert all(known in message for known in ("text/plain", JSON, LINES, CSV))


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("text/plain", b"", "record 1 is empty"),
        ("text/plain", b" \n\t\xe3\x80\x80", "record 1 is empty"),
        ("text/plain", b"caf\xe9", "not UTF-8 at byte 3"),
        (CSV, b"", "no review"),
        (CSV, b"a\nb,c\n", "row 2 has 2 columns"),
        (CSV, b"a\n\nb\n", "row 2 has 0 columns"),
        (CSV, b'a\n""\n', "record 2 is empty"),
        (CSV, b'a\n"b', "row 2 is not CSV"),
        (JSON, b"", "not JSON"),
        (JSON, b"{", "not JSON"),
        (JSON, b"[" * 100_000, "not JSON"),
        (JSON, b"[]", "must be"),
        (JSON, b'"a text"', "must be"),
        (JSON, b'{"text": 7}', '"text"'),
        (JSON, b'{"text": NaN}', "not JSON"),
        (JSON, b'{"text": "a", "explain": 1}', "explain"),
        (JSON, b'{"text": "\\ud800"}', "surrogate"),
        (JSON, b'{"instances": []}', "no review"),
        (JSON, b'{"instances": "ab"}', "list"),
        (JSON, b'{"instances": ["a", {"text": " "}]}', "record 2 is empty"),
        (JSON, b'{"instances": ["a", 7]}', "instance 2"),
        (LINES, b"", "no review"),
        (LINES, b'"a"\n{"text":\n', "line 2 is not JSON"),
        (LINES, b'"a"\n\n"b"\n', "line 2 is not JSON"),
        (LINES, b'"a"\n{"review": "b"}\n', "line 2 must be"),
        (LINES, b'"a"\n""\n', "record 2 is empty"),
    ],
)
def test_bad_input(served: Served, content_type: str, body: bytes, says: str) -> None:
    """Bad input is 400 and a sentence that says which record and what is wrong; never an opinion."""
    status, _, message = error_of(served.invoke(body, content_type))
    assert status == 400
    assert says in message


@pytest.mark.parametrize(
    "text",
    [LIKED, "<br />&amp; it's 8/10 !!!", "\u202eevil\x00\x1b[31m 🎬👩\u200d👩\u200d👧 Ünïcode", "x", "?!", " . "],
)
def test_explain(served: Served, text: str) -> None:
    """Asked to explain, it gives pieces that make up the review exactly, and weights that sum up to the margin."""
    said = served.invoke(json.dumps({"text": text, "explain": True}), JSON).document
    assert "".join(word["text"] for word in said["words"]) == text
    assert math.fsum(word["weight"] for word in said["words"]) + said["bias"] == pytest.approx(said["margin"], abs=1e-4)
    assert said["probability"] == opinions(served, [text])[0]
    (line,) = served.invoke(json.dumps({"text": text, "explain": True}), LINES).body.splitlines()
    assert json.loads(line) == said
    batch = served.invoke(json.dumps({"instances": [text], "explain": True}), JSON).document
    assert batch["predictions"] == [said]


def test_wrong_ways(served: Served) -> None:
    """Unknown paths and methods are refused in the same form as all errors."""
    assert error_of(served.ask("GET", "/nope"))[:2] == (404, "NotFound")
    assert error_of(served.ask("GET", "/invocations"))[:2] == (405, "MethodNotAllowed")
    assert error_of(served.ask("POST", "/invocations", b"x", {"origin": "http://evil.example"}))[0] == 403


def test_batches_equal_single_ones(served: Served, reviews: list[tuple[str, str]]) -> None:
    """A review gets the same opinion alone, in a batch, and while many others are asked for at once."""
    texts = [text for text, _ in reviews[:40]]
    expected = opinions(served, texts)
    wrong: list[str] = []

    def client(start: int) -> None:
        for turn in range(len(texts)):
            number = (start + turn) % len(texts)
            document = served.invoke(texts[number].encode(), "text/plain").document
            if document["probability"] != expected[number]:
                wrong.append(texts[number])

    threads = [threading.Thread(target=client, args=(5 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert wrong == []


def test_ping_during_a_batch(rig: Rig, trained: Trained, tmp_path: Path) -> None:
    """A large batch keeps no /ping waiting, even on the only worker."""
    with rig.serve(trained.model, tmp_path, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as served:
        body = "\n".join(f'"{LIKED * 20} {n}"' for n in range(4000)).encode()
        statuses: list[int] = []
        batch = threading.Thread(target=lambda: statuses.append(served.invoke(body, LINES).status))
        batch.start()
        slowest = 0.0
        while batch.is_alive():
            started = time.monotonic()
            assert served.ask("GET", "/ping").status == 200
            slowest = max(slowest, time.monotonic() - started)
        assert statuses == [200]
        assert slowest < 2, "SageMaker takes a container for dead after two seconds"


@pytest.mark.parametrize("chunked", [False, True])
def test_payload_limit(rig: Rig, trained: Trained, tmp_path: Path, chunked: bool) -> None:  # noqa: FBT001 - a parameter
    """A body over SAGEMAKER_MAX_PAYLOAD_IN_MB is 413, whether it says its length or not; one of the limit is not."""
    with rig.serve(trained.model, tmp_path, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}) as served:
        size = 1024 * 1024
        body: Any = b"x" * (size + 1)
        answer = served.invoke((body[i : i + 100_000] for i in range(0, len(body), 100_000)) if chunked else body)
        assert error_of(answer)[:2] == (413, "PayloadTooLarge")
        assert served.invoke(b"good " * (size // 5)).status == 200


def test_ten_megabytes(served: Served) -> None:
    """A review of 10 MB is judged like any other."""
    assert served.invoke((LIKED + " ").encode() * 150_000).document["label"] == "positive"


def test_stop(rig: Rig, trained: Trained, tmp_path: Path) -> None:
    """SIGTERM ends everything promptly, also with clients connected, and with exit status 0."""
    with rig.serve(trained.model, tmp_path) as served:
        workers = served.worker_pids()
        with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS):
            started = time.monotonic()
            assert served.stop() == 0
        assert time.monotonic() - started < 5
        until(lambda: not any(_exists(pid) for pid in workers))


def test_dead_worker(rig: Rig, trained: Trained, tmp_path: Path) -> None:
    """A worker that dies is replaced, and the server goes on."""
    with rig.serve(trained.model, tmp_path) as served:
        before = served.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(served.worker_pids()) == 2 and before[0] not in served.worker_pids())
        assert served.invoke(LIKED).status == 200


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"SAGEMAKER_BIND_TO_PORT": "http"}, "SAGEMAKER_BIND_TO_PORT must be a whole number"),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "-1"}, "SAGEMAKER_MODEL_SERVER_WORKERS"),
    ],
)
def test_bad_environment(rig: Rig, trained: Trained, tmp_path: Path, environment: dict[str, str], says: str) -> None:
    """A variable that cannot be meant is told, with a non-zero exit status."""
    status, log = rig.serve_fails(trained.model, tmp_path, environment)
    assert status != 0
    assert says in log


@pytest.mark.parametrize("damage", ["empty", "torn", "other version"])
def test_bad_model(rig: Rig, trained: Trained, tmp_path: Path, damage: str) -> None:
    """Without a whole model of its own version, serve says so and exits non-zero; it never answers /ping."""
    model = tmp_path / "model"
    model.mkdir()
    if damage != "empty":
        for path in trained.model.iterdir():
            content = path.read_bytes()
            (model / path.name).write_bytes(content[:-100] if damage == "torn" else content)
    if damage == "other version":
        description = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps({**description, "format_version": 999}))
    status, log = rig.serve_fails(model, tmp_path, {})
    assert status != 0
    assert "cannot start" in log
    assert "Traceback" not in log


def test_port_taken(rig: Rig, trained: Trained, served: Served, tmp_path: Path) -> None:
    """A port that is taken is told."""
    status, log = rig.serve_fails(trained.model, tmp_path, {}, beside=served)
    assert status != 0
    assert "Address already in use" in log


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
