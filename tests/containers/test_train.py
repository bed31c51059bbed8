"""The `train` program under the contract."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.containers.rigs import Job, Rig, Trained, as_csv

GOOD = b"a wonderful film,positive\na dreadful film,negative\n" * 5


def test_model_and_metrics(trained: Trained) -> None:
    """A good job exits 0, leaves the model, no failure file, metrics in its log and figures beside the model."""
    assert (trained.status, trained.failure) == (0, None), trained.log
    assert {path.name for path in trained.model.iterdir()} == {"model.json", "model.npz"}
    figures = json.loads((trained.output / "validation.json").read_text())
    assert figures["reviews"] == 100
    assert figures["accuracy"] > 0.65
    assert f"validation:accuracy={figures['accuracy']:.6g};" in trained.log
    assert "train:accuracy=0." in trained.log


def test_formats(rig: Rig, tmp_path: Path) -> None:
    """CSV and JSON Lines are read, by ending or by content type, with the usual spellings of the labels."""
    files = {
        "a.csv": GOOD,
        "header.csv": b"text,label\n" + GOOD,
        "bom.csv": b"\xef\xbb\xbf" + GOOD,
        "no-ending": GOOD,
        "deep/er/a.csv": b'"a ""quoted"", film\nof two lines",pos\nbad one,0\n' * 5,
        "a.jsonl": b'{"text":"a wonderful film","label":"positive"}\n{"text":"a dreadful film","label":0}\n' * 5,
    }
    validation = {"no-ending": b'{"text":"wonderful","label":1}\n{"text":"dreadful","label":"neg"}\n' * 5}
    types = {"train": "text/csv; charset=utf-8", "validation": "application/jsonlines"}
    done = rig.train(Job({"train": files, "validation": validation}, content_types=types), tmp_path)
    assert done.status == 0, done.log
    assert "train: 60 reviews, 30 positive" in done.log
    assert "validation:reviews=10;" in done.log


def test_what_was_taken_back_is_taken_up(rig: Rig, tmp_path: Path) -> None:
    """A job that is ended between its fits leaves the first in its checkpoints; the next one does not do it again."""
    job = Job({"train": {"a.csv": GOOD}}, checkpoints={})
    first = rig.train(replace(job, stop_at="fitting the model to all"), tmp_path / "first")
    assert len(first.checkpoints) == 1
    second = rig.train(replace(job, checkpoints=first.checkpoints), tmp_path / "second")
    assert second.status == 0, second.log
    assert "a checkpoint has the result" in second.log
    assert second.checkpoints == first.checkpoints
    whole = rig.train(replace(job, checkpoints=None), tmp_path / "whole")
    assert (whole.model / "model.npz").read_bytes() == (second.model / "model.npz").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.csv", GOOD + b"one column\n", "train/a.csv, row 11: expected the columns text,label, found 1"),
        ("a.csv", GOOD + b"two,commas,positive\n", "train/a.csv, row 11: expected the columns text,label, found 3"),
        ("a.csv", GOOD + b"fine,perhaps\n", "train/a.csv, row 11: label 'perhaps' is none of positive"),
        ("a.csv", GOOD + b"  ,positive\n", "train/a.csv, row 11: the text is missing or empty"),
        ("a.csv", GOOD + b"caf\xe9,positive\n", "train/a.csv, row 11: the text is not UTF-8"),
        ("a.csv", GOOD + b'"open,positive\n', "train/a.csv, row 11: unexpected end of data"),
        ("a.csv", GOOD + b"\n", "train/a.csv, row 11: expected the columns text,label, found 0"),
        ("sub/b.jsonl", b'{"text":"x","label":"pos"}\n{"text":\n', "train/sub/b.jsonl, row 2:"),
        ("b.jsonl", b"[1]\n", "train/b.jsonl, row 1: expected {"),
        ("b.jsonl", b'{"text":7,"label":1}\n', "train/b.jsonl, row 1: the text is missing"),
        ("b.jsonl", b'{"text":"\\ud800","label":1}\n', "train/b.jsonl, row 1: the text is not UTF-8"),
        ("notes.txt", GOOD, "train/notes.txt: neither its ending nor the content type"),
        ("a.csv", b"", "channel 'train' holds no reviews"),
        ("a.csv", b"good,positive\n" * 5, "0 are negative"),
    ],
)  # fmt: skip
def test_bad_data(rig: Rig, tmp_path: Path, name: str, content: bytes, where: str) -> None:
    """Bad data ends in exit status 1 and a failure file that names the file and the row; no model is left."""
    done = rig.train(Job({"train": {name: content}}), tmp_path)
    assert done.status == 1
    assert done.failure is not None
    assert where in done.failure
    assert list(done.model.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (Job({}), "there must be a channel 'train'; there are: none"),
        (Job({"test": {"a.csv": GOOD}}), "there are: test"),
        (Job({"train": {}}), "channel 'train' holds no files"),
        (Job({"train": {"a.csv": GOOD}}, {"min_fd": "3"}), "min_df"),
        (Job({"train": {"a.csv": GOOD}}, {"c": "much"}), "'much'"),
        (Job({"train": {"a.csv": GOOD}}, {"c": 1}), "every value must be a string"),
        (Job({"train": {"a.csv": GOOD}}, {"min_df": "99"}), "99"),
    ],
)
def test_bad_requests(rig: Rig, tmp_path: Path, job: Job, reason: str) -> None:
    """A missing channel, an unknown or impossible hyperparameter: exit status 1 and a reason."""
    done = rig.train(job, tmp_path)
    assert done.status == 1
    assert reason in (done.failure or "")


def test_hyperparameters(rig: Rig, tmp_path: Path) -> None:
    """Hyperparameters are strings, plain or JSON-quoted; those of SageMaker's toolkit are passed over."""
    values = {"min_df": "1", "c": '"0.5"', "sagemaker_program": '"train.py"', "sagemaker_region": "us-east-1"}
    done = rig.train(Job({"train": {"a.csv": GOOD}}, values), tmp_path)
    assert done.status == 0, done.log
    stored = json.loads((done.model / "model.json").read_text())["hyperparameters"]
    assert (stored["min_df"], stored["c"]) == (1, 0.5)


def test_failure_is_short(rig: Rig, tmp_path: Path) -> None:
    """The failure file has at most the 1024 characters that become the FailureReason."""
    name = "/".join(["folder" * 30] * 12) + ".txt"
    done = rig.train(Job({"train": {name: GOOD}}), tmp_path)
    assert len(done.failure or "") == 1024


def test_other_hosts(rig: Rig, tmp_path: Path) -> None:
    """Of several hosts the first does all the work; the others end well and leave nothing to clash with it."""
    job = Job({"train": {"a.csv": GOOD}}, hosts=("algo-1", "algo-2"), current_host="algo-2")
    done = rig.train(job, tmp_path)
    assert done.status == 0
    assert list(done.model.iterdir()) == []


def test_stopped_early(rig: Rig, reviews: list[tuple[str, str]], tmp_path: Path) -> None:
    """SIGTERM before there is a model ends the job without one, and without half of one."""
    job = Job({"train": {"a.csv": as_csv(reviews * 20)}}, stop_at="reading the n-grams")
    done = rig.train(job, tmp_path)
    assert done.status != 0
    assert list(done.model.iterdir()) == []
    assert done.failure is None


def test_stopped_late(rig: Rig, reviews: list[tuple[str, str]], tmp_path: Path) -> None:
    """SIGTERM once there is a model keeps it, whole."""
    job = Job(
        {"train": {"a.csv": as_csv(reviews)}, "validation": {"v.csv": as_csv(reviews * 10)}}, stop_at="model saved"
    )
    done = rig.train(job, tmp_path)
    assert {path.name for path in done.model.iterdir()} == {"model.json", "model.npz"}
    assert (done.status, done.failure) == (0, None)
    assert list(done.output.iterdir()) == [], "it went on after the signal"


def test_same_model_twice(rig: Rig, tmp_path: Path) -> None:
    """The same job leaves the same bytes."""
    job = Job({"train": {"a.csv": GOOD, "b.csv": GOOD}}, {"min_df": "1"})
    first, second = (rig.train(job, tmp_path / name) for name in ("one", "two"))
    for path in first.model.iterdir():
        assert path.read_bytes() == (second.model / path.name).read_bytes()
