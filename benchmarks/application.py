"""The sentiment application end to end: its batch transform beside predicting the same reviews in one process.

Everything is pinned to the same cores on both sides; a job's start is counted, its container's start too.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends import open_backend
from backends.config import load_config
from backends.specs import ModelSpec, Split, TransformSpec
from benchmarks.figures import Figure
from sentiment import data
from sentiment.bundle import CONTAINER

_COPIES = 10
_IMAGE = "sentiment"

# A fresh process, so that both sides begin with nothing loaded.
_IN_PROCESS = """
import csv, sys, time
from sentiment import model
loaded = model.load(sys.argv[1])
with open(sys.argv[2], newline="") as file, open(sys.argv[3], "w", newline="") as out:
    rows, writer = csv.reader(file), csv.writer(out)
    batch = []
    def flush():
        texts = [text for text, _ in batch]
        for (text, label), chance in zip(batch, loaded.predict(texts)):
            writer.writerow([text, label, "positive" if chance >= 0.5 else "negative", chance])
        batch.clear()
    for row in rows:
        batch.append(row)
        if len(batch) == 500:
            flush()
    flush()
"""


def figures() -> list[Figure]:
    """50,000 reviews, on one core and on all."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = data.prepare(data.package_reviews(), place / "data").parts
        source = place / "reviews.csv"
        source.write_bytes(parts["test"].csv_path.read_bytes() * _COPIES)
        count = parts["test"].reviews * _COPIES
        artifact = _trained(place, parts["train"].csv_path)
        rows = []
        for cores in ({0}, set(range(os.cpu_count() or 1))):
            with _pinned(cores):
                alone = count / _in_process(place / "model", source, place / "out.csv")
                job = count / _transform(place, artifact, source, f"{len(cores)}-cores")
            rows.append(
                Figure(
                    what=f"application's batch transform, {len(cores)} core{'s' * (len(cores) > 1)}",
                    ours=f"{job:,.0f} reviews/s",
                    peer=f"one process {alone:,.0f} reviews/s",
                    ratio=f"{job / alone:.2f}",
                    target="≥ 0.80",
                )
            )
    return rows


def _trained(place: Path, channel: Path) -> Path:
    """Train by the container's own program, by hand; returns the folder that it fills."""
    root = place / "ml"
    (root / "input" / "config").mkdir(parents=True)
    (root / "input" / "data" / "train").mkdir(parents=True)
    (root / "input" / "data" / "train" / "train.csv").symlink_to(channel)
    config = root / "input" / "config"
    (config / "hyperparameters.json").write_text("{}")
    (config / "inputdataconfig.json").write_text(json.dumps({"train": {"ContentType": "text/csv"}}))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    environment = os.environ | {"SAGEMAKER_BASE_DIR": str(root), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([str(CONTAINER / "train")], env=environment, check=True, capture_output=True)
    (root / "model").rename(place / "model")
    subprocess.run(["tar", "-czf", str(place / "model.tar.gz"), "-C", str(place / "model"), "."], check=True)
    return place / "model.tar.gz"


def _in_process(folder: Path, source: Path, target: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IN_PROCESS, str(folder), str(source), str(target)], check=True)
    return time.perf_counter() - started


def _transform(place: Path, artifact: Path, source: Path, name: str) -> float:
    config = load_config(home=place / "home", images={_IMAGE: CONTAINER})
    with open_backend(config) as backend:
        backend.store.ensure_bucket("bench")
        backend.store.upload(artifact, "s3://bench/model.tar.gz")
        backend.store.upload(source, "s3://bench/reviews.csv")
        started = time.perf_counter()
        backend.transform.start(
            TransformSpec(
                name=name,
                model=ModelSpec(image=_IMAGE, artifact_uri="s3://bench/model.tar.gz"),
                input_uri="s3://bench/reviews.csv",
                output_uri=f"s3://bench/{name}",
                content_type="text/csv",
                accept="text/csv",
                split=Split.LINE,
                assemble=Split.LINE,
                input_filter="$[0]",
                join_input=True,
            )
        )
        backend.transform.finish(name)
        taken = time.perf_counter() - started
        with backend.store.reader(f"s3://bench/{name}/reviews.csv.out") as stream:
            lines = sum(1 for _ in csv.reader(line.decode() for line in stream))
        assert lines == sum(1 for _ in source.open("rb")), "every review has one answer"
    return taken


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """This process, and all that it starts meanwhile, on *cores* only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
