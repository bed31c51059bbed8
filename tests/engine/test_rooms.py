"""Starts that another client cut short, or made at the same moment."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.errors import AlreadyExists
from backends.specs import ModelSpec, Split, TransformSpec
from tests.archives import archive
from tests.engine.conftest import PROBE

LIMIT_SECONDS = 30
WANTED = TransformSpec(
    name="upper",
    model=ModelSpec(image="probe", artifact_uri="s3://bucket/model.tar.gz"),
    input_uri="s3://bucket/in/",
    output_uri="s3://bucket/out",
    content_type="text/csv",
    accept="text/csv",
    split=Split.LINE,
    assemble=Split.LINE,
)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with open_backend(BackendConfig(home=tmp_path / "home", images={"probe": PROBE})) as opened:
        opened.store.ensure_bucket("bucket")
        opened.store.put("s3://bucket/model.tar.gz", archive({"model.txt": b"m"}))
        opened.store.put("s3://bucket/in/a.csv", b"x\n")
        yield opened


def test_a_transform_whose_start_was_cut_short_is_started(backend: Backend) -> None:
    """The model that it left is what is asked for; another model of that name is in the way, and stays."""
    create_model, _ = (plan := backend.transform.plan(WANTED)).requests
    backend.transform.submit(replace(plan, requests=(create_model,)))
    other = replace(WANTED, model=replace(WANTED.model, environment={"OTHER": "1"}))
    with pytest.raises(AlreadyExists, match="already existing model"):
        backend.transform.start(other)
    backend.transform.start(WANTED)
    backend.transform.finish(WANTED.name, timeout_seconds=LIMIT_SECONDS)
    with pytest.raises(AlreadyExists, match="upper"):
        backend.transform.start(WANTED)
    assert backend.store.get("s3://bucket/out/a.csv.out") == b"X\n"
