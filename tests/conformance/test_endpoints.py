import json
from collections import Counter
from collections.abc import Iterator

import pytest

from backends.errors import AlreadyExists, InvalidSpec, JobFailed, ModelError, NotFound
from backends.specs import EndpointSpec, EndpointState, ModelSpec, Variant
from tests.conformance.rigs import BUCKET, Rig

LIMIT_SECONDS = 30


def model(rig: Rig, prefix: str, **settings: object) -> ModelSpec:
    artifact = f"{prefix}/model/{len(settings)}/model.tar.gz"
    rig.plant_model(artifact, {"model.txt": prefix.encode(), "serve.json": json.dumps(settings).encode()})
    return ModelSpec(image=rig.image, artifact_uri=artifact)


@pytest.fixture(scope="module")
def endpoint(rig: Rig) -> Iterator[str]:
    """An endpoint in service, for tests that only ask it."""
    name = "shared"
    rig.backend.endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model(rig, f"s3://{BUCKET}/shared")),)))
    rig.backend.endpoints.wait_in_service(name, timeout_seconds=LIMIT_SECONDS)
    yield name
    rig.backend.endpoints.delete(name)
    rig.backend.endpoints.wait_deleted(name, timeout_seconds=LIMIT_SECONDS)


def test_an_endpoint_answers_until_it_is_deleted(rig: Rig, name: str, prefix: str) -> None:
    """Created, asked, deleted; deleting again is quiet, asking after that is not."""
    endpoints = rig.backend.endpoints
    endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model(rig, prefix)),)))
    assert endpoints.wait_in_service(name, timeout_seconds=LIMIT_SECONDS).weights == {"AllTraffic": 1.0}
    reply = endpoints.invoke(name, b"hello", content_type="text/plain")
    assert (reply.body, reply.content_type, reply.variant) == (b"HELLO", "text/plain", "AllTraffic")
    assert name in list(endpoints.names())
    endpoints.delete(name)
    endpoints.wait_deleted(name, timeout_seconds=LIMIT_SECONDS)
    endpoints.delete(name)
    with pytest.raises(NotFound, match=name):
        endpoints.invoke(name, b"hello")
    assert name not in list(endpoints.names())


def test_the_model_is_the_artifact(rig: Rig, endpoint: str) -> None:
    """What the artifact holds is what the container serves."""
    assert rig.backend.endpoints.invoke(endpoint, b"model").body == f"s3://{BUCKET}/shared".encode()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_error_of_the_container_is_a_model_error(rig: Rig, endpoint: str, status: int) -> None:
    """Its status and its words come with it; the endpoint goes on."""
    with pytest.raises(ModelError) as caught:
        rig.backend.endpoints.invoke(endpoint, f"status={status}".encode())
    assert (caught.value.status, caught.value.reason) == (status, "told to fail")
    assert rig.backend.endpoints.invoke(endpoint, b"still here").body == b"STILL HERE"


def test_two_endpoints_do_not_answer_for_each_other(rig: Rig, endpoint: str, name: str, prefix: str) -> None:
    """Each has its own model, at the same time."""
    endpoints = rig.backend.endpoints
    endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model(rig, prefix)),)))
    endpoints.wait_in_service(name, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.invoke(name, b"model").body == prefix.encode()
    assert endpoints.invoke(endpoint, b"model").body == f"s3://{BUCKET}/shared".encode()
    endpoints.delete(name)


def test_traffic_follows_the_weights(rig: Rig, name: str, prefix: str) -> None:
    """Weights 1:3 give about a quarter and three quarters; a named variant always answers."""
    endpoints = rig.backend.endpoints
    variants = (
        Variant(name="small", weight=1.0, model=model(rig, f"{prefix}/small")),
        Variant(name="large", weight=3.0, model=model(rig, f"{prefix}/large")),
    )
    endpoints.start(EndpointSpec(name=name, variants=variants))
    endpoints.wait_in_service(name, timeout_seconds=LIMIT_SECONDS)
    seen = Counter(endpoints.invoke(name, b"model").variant for _ in range(400))
    assert 0.15 < seen["small"] / 400 < 0.35  # Six standard deviations are 0.13.
    assert endpoints.invoke(name, b"model", variant="small").body == f"{prefix}/small".encode()
    with pytest.raises(InvalidSpec, match="no-such"):
        endpoints.invoke(name, b"model", variant="no-such")
    endpoints.delete(name)


def test_names_are_unique(rig: Rig, endpoint: str) -> None:
    """A second endpoint of one name is refused and the first is untouched."""
    with pytest.raises(AlreadyExists, match=endpoint):
        rig.backend.endpoints.start(
            EndpointSpec(name=endpoint, variants=(Variant(model=model(rig, f"s3://{BUCKET}/other")),))
        )
    assert rig.backend.endpoints.invoke(endpoint, b"model").body == f"s3://{BUCKET}/shared".encode()


def test_a_container_that_does_not_start_fails_the_endpoint(rig: Rig, name: str, prefix: str) -> None:
    """The reason says so; the failed endpoint can be deleted."""
    endpoints = rig.backend.endpoints
    endpoints.start(EndpointSpec(name=name, variants=(Variant(model=model(rig, prefix, exit=3)),)))
    with pytest.raises(JobFailed, match="ping health check"):
        endpoints.wait_in_service(name, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.status(name).state is EndpointState.FAILED
    with pytest.raises(NotFound):
        endpoints.invoke(name, b"x")
    endpoints.delete(name)
    endpoints.wait_deleted(name, timeout_seconds=LIMIT_SECONDS)


def test_a_missing_model_is_refused(rig: Rig, name: str, prefix: str) -> None:
    """Nothing is created for a model that is not there."""
    gone = ModelSpec(image=rig.image, artifact_uri=f"{prefix}/nowhere/model.tar.gz")
    with pytest.raises(InvalidSpec, match="nowhere"):
        rig.backend.endpoints.start(EndpointSpec(name=name, variants=(Variant(model=gone),)))
    with pytest.raises(NotFound):
        rig.backend.endpoints.status(name)


def test_what_does_not_exist_is_not_found(rig: Rig, name: str) -> None:
    """Unknown names; only deleting is quiet."""
    with pytest.raises(NotFound, match=name):
        rig.backend.endpoints.status(name)
    with pytest.raises(NotFound, match=name):
        rig.backend.endpoints.invoke(name, b"x")
    rig.backend.endpoints.delete(name)
