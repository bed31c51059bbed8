"""Predicting a file of reviews: what goes to the endpoint, what is written, what is refused."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backends.memory import MemoryImage, Model, TrainingRun, open_memory
from backends.specs import ModelSpec
from sentiment.hosting import Hosting
from sentiment.pipeline import Pipeline
from sentiment.predictions import predict_file
from sentiment.reporter import Silent
from sentiment.settings import IMAGE, SentimentSettings

SERVERLESS_LIMIT_BYTES = 4 * 1024 * 1024


def _train(run: TrainingRun) -> None:
    raise AssertionError(f"nobody trains {run}")


def _serve(_files: Mapping[str, bytes]) -> Model:
    """A model that likes long reviews, and takes as much at once as a serverless endpoint does."""

    def answer(body: bytes, _content_type: str | None, _accept: str | None) -> tuple[int, bytes, str]:
        if len(body) > SERVERLESS_LIMIT_BYTES:
            return 413, b"oversize body", "text/plain"
        texts = json.loads(body)["instances"]
        predictions = [{"label": "positive", "probability": 1 - 1 / (1 + len(text))} for text in texts]
        return 200, json.dumps({"predictions": predictions}).encode(), "application/json"

    return answer


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """With an endpoint called ``sentiment``."""
    with open_memory({IMAGE: MemoryImage(_train, _serve)}) as backend:
        backend.store.ensure_bucket("bucket")
        backend.store.put("s3://bucket/model.tar.gz", b"")
        model = ModelSpec(image=IMAGE, artifact_uri="s3://bucket/model.tar.gz")
        backend.endpoints.start(Hosting().spec("sentiment", model, tags={}))
        backend.endpoints.wait_in_service("sentiment")
        yield Pipeline(backend, SentimentSettings(home=tmp_path / "home"), Silent())


def predicted(pipeline: Pipeline, source: Path, target: Path) -> list[dict[str, str]]:
    count = predict_file(pipeline, "sentiment", source, target, Silent())
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    return rows


def test_long_reviews_are_sent_in_pieces(pipeline: Pipeline, tmp_path: Path) -> None:
    """However long they are together, and in JSON, where a control character takes six bytes."""
    texts = [f"{number} " + "long " * 8_000 + "\x02" * 5_000 for number in range(250)]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    assert [row["text"] for row in predicted(pipeline, tmp_path / "in.csv", tmp_path / "out.csv")] == texts


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "in.csv is empty"),
        (b"review,stars\nfine,5\n", r"in.csv needs a header with the columns text; its first row has \['review'"),
        (b"text\ncaf\xe9\n", "in.csv, row 1 is not UTF-8 CSV"),
        (b'text\nfine\n"never closed\nfine\n', "in.csv, row 3 is not UTF-8 CSV"),
        (b'text\nfine\n"  "\n', "in.csv, row 3: the text is empty"),
    ],
)
def test_what_cannot_be_used_is_named(pipeline: Pipeline, tmp_path: Path, content: bytes, says: str) -> None:
    """With file and row; what was at the target before stays, and nothing beside it."""
    (tmp_path / "in.csv").write_bytes(content)
    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(ValueError, match=says):
        predict_file(pipeline, "sentiment", tmp_path / "in.csv", tmp_path / "out.csv", Silent())
    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_the_target_must_be_a_file_that_can_be(pipeline: Pipeline, tmp_path: Path) -> None:
    """That is said before a review is sent."""
    (tmp_path / "in.csv").write_text("text\nfine\n")
    for target, why in ((tmp_path, "it is a folder"), (tmp_path / "no" / "out.csv", "there is no folder")):
        with pytest.raises(ValueError, match=f"{target} cannot be written: {why}"):
            predict_file(pipeline, "sentiment", tmp_path / "in.csv", target, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_target_is_a_file_like_others(pipeline: Pipeline, tmp_path: Path) -> None:
    """Whoever may read what the user writes may read it."""
    (tmp_path / "in.csv").write_text("text\nfine\n")
    predicted(pipeline, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "in.csv").stat().st_mode
