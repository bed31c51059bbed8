"""Starts that another client cut short, or made at the same moment."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.engine import Engine
from backends.errors import AlreadyExists
from backends.local.backend import ROLE_ARN, engine_settings
from backends.sagemaker.rooms import SageMakerEndpoints
from backends.specs import EndpointSpec, ModelSpec, Split, TransformSpec, Variant
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


ENDPOINT = EndpointSpec(name="upper", variants=(Variant(model=WANTED.model),))


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


@pytest.mark.usefixtures("backend")
def test_two_that_deploy_at_once_share_the_endpoint(tmp_path: Path) -> None:
    """Whoever is later takes nothing of it away, and finds that it serves what it should."""
    engine = Engine(engine_settings(BackendConfig(home=tmp_path / "home", images={"probe": PROBE})))

    def overtaken(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = engine.call(operation, document)
        if operation == "CreateModel":
            other.start(ENDPOINT)
        return answer

    mine, other = (
        SageMakerEndpoints(call, place="here", role_arn=ROLE_ARN, read_log=engine.read_log, poll_seconds=0.02)
        for call in (overtaken, engine.call)
    )
    try:
        assert mine.deploy(ENDPOINT, timeout_seconds=LIMIT_SECONDS) is False
        assert mine.invoke("upper", b"x", content_type="text/csv").body == b"X"
        assert len(engine.call("ListModels", {})["Models"]) == 1
    finally:
        mine.delete("upper")
        mine.wait_deleted("upper", timeout_seconds=LIMIT_SECONDS)
        engine.close()
