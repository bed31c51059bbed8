import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from backends.errors import AlreadyExists, InvalidSpec, JobFailed, ModelError, NotFound, NotSupported, Throttled
from backends.specs import EndpointSpec, EndpointState, ModelSpec, Scaling, Serverless, Variant
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


def serverless(rig: Rig, name: str, prefix: str, *, most: int = 2) -> EndpointSpec:
    variant = Variant(model=model(rig, prefix), serverless=Serverless(memory_mb=1024, max_concurrency=most))
    return EndpointSpec(name=name, variants=(variant,))


def test_a_serverless_endpoint_answers(rig: Rig, name: str, prefix: str) -> None:
    """As any other; its capacity is told."""
    endpoints = rig.backend.endpoints
    assert endpoints.deploy(serverless(rig, name, prefix), timeout_seconds=LIMIT_SECONDS)
    assert endpoints.status(name).serverless == {"AllTraffic": Serverless(memory_mb=1024, max_concurrency=2)}
    assert endpoints.invoke(name, b"model").body == prefix.encode()
    endpoints.delete(name)


def _outcome(rig: Rig, name: str, body: bytes) -> bytes:
    try:
        return rig.backend.endpoints.invoke(name, body).body
    except Throttled:
        return b"throttled"


def test_a_serverless_endpoint_answers_so_many_at_once(rig: Rig, name: str, prefix: str) -> None:
    """The next request is throttled; one that comes later is not, and the others have their answers."""
    endpoints = rig.backend.endpoints
    endpoints.deploy(serverless(rig, name, prefix), timeout_seconds=LIMIT_SECONDS)
    with ThreadPoolExecutor(3) as threads:
        asked = list(threads.map(lambda _: _outcome(rig, name, b"sleep=3"), range(3)))
    assert sorted(asked) == [b"SLEEP=3", b"SLEEP=3", b"throttled"]
    assert endpoints.invoke(name, b"x").body == b"X"
    endpoints.delete(name)


@pytest.mark.parametrize(
    "capacity", [Serverless(memory_mb=1000), Serverless(max_concurrency=201), Serverless(provisioned_concurrency=11)]
)
def test_no_endpoint_has_such_a_capacity(rig: Rig, name: str, capacity: Serverless) -> None:
    """Refused before anything is sent."""
    variant = Variant(model=ModelSpec(image=rig.image), serverless=capacity)
    with pytest.raises(InvalidSpec):
        rig.backend.endpoints.plan(EndpointSpec(name=name, variants=(variant,)))


def test_an_endpoint_is_changed_while_it_answers(rig: Rig, name: str, prefix: str) -> None:
    """Every request has an answer, of the old model or the new one; what is served already is not deployed again."""
    endpoints = rig.backend.endpoints
    first, second = (serverless(rig, name, f"{prefix}/{version}") for version in ("1", "2"))
    assert endpoints.deploy(first, timeout_seconds=LIMIT_SECONDS)
    created = endpoints.status(name).created
    with ThreadPoolExecutor(1) as threads:
        changing = threads.submit(endpoints.deploy, second, timeout_seconds=LIMIT_SECONDS)
        seen = {endpoints.invoke(name, b"model").body}
        while not changing.done():
            seen.add(endpoints.invoke(name, b"model").body)
        assert changing.result()
    assert seen <= {f"{prefix}/{version}".encode() for version in ("1", "2")}
    assert endpoints.invoke(name, b"model").body == f"{prefix}/2".encode()
    assert (endpoints.serves(first), endpoints.serves(second)) == (False, True)
    assert not endpoints.deploy(second, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.status(name).created == created
    assert endpoints.deploy(first, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.invoke(name, b"model").body == f"{prefix}/1".encode()
    endpoints.delete(name)


def test_a_change_that_does_not_start_changes_nothing(rig: Rig, name: str, prefix: str) -> None:
    """The earlier model answers on; the reason is told, and the next change is taken."""
    endpoints = rig.backend.endpoints
    sound = serverless(rig, name, prefix)
    endpoints.deploy(sound, timeout_seconds=LIMIT_SECONDS)
    broken = replace(sound, variants=(replace(sound.variants[0], model=model(rig, f"{prefix}/broken", exit=3)),))
    with pytest.raises(JobFailed, match="ping health check"):
        endpoints.deploy(broken, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.serves(sound)
    assert endpoints.invoke(name, b"model").body == prefix.encode()
    assert endpoints.deploy(serverless(rig, name, prefix, most=3), timeout_seconds=LIMIT_SECONDS)
    assert endpoints.status(name).serverless["AllTraffic"].max_concurrency == 3
    endpoints.delete(name)


def test_a_failed_endpoint_is_made_anew(rig: Rig, name: str, prefix: str) -> None:
    """By the next deployment, without being asked."""
    endpoints = rig.backend.endpoints
    broken = EndpointSpec(name=name, variants=(Variant(model=model(rig, f"{prefix}/broken", exit=3)),))
    with pytest.raises(JobFailed):
        endpoints.deploy(broken, timeout_seconds=LIMIT_SECONDS)
    assert endpoints.deploy(serverless(rig, name, prefix), timeout_seconds=LIMIT_SECONDS)
    assert endpoints.invoke(name, b"model").body == prefix.encode()
    endpoints.delete(name)


def test_instances_do_not_become_serverless(rig: Rig, name: str, prefix: str) -> None:
    """SageMaker cannot change that; the endpoint answers on."""
    endpoints = rig.backend.endpoints
    endpoints.deploy(
        EndpointSpec(name=name, variants=(Variant(model=model(rig, prefix)),)), timeout_seconds=LIMIT_SECONDS
    )
    with pytest.raises(InvalidSpec, match="cannot be updated to serverless"):
        endpoints.deploy(serverless(rig, name, prefix), timeout_seconds=LIMIT_SECONDS)
    assert endpoints.invoke(name, b"model").body == prefix.encode()
    endpoints.delete(name)


def test_what_cannot_scale_says_so(rig: Rig, name: str, prefix: str) -> None:
    """Before anything is made."""
    endpoints = rig.backend.endpoints
    scaling = Scaling(min_instances=1, max_instances=2)
    spec = EndpointSpec(name=name, variants=(Variant(model=model(rig, prefix), scaling=scaling),))
    try:
        assert endpoints.plan_scaling(spec).requests
    except NotSupported:
        with pytest.raises(NotSupported, match="nothing to scale"):
            endpoints.deploy(spec)
        with pytest.raises(NotFound):
            endpoints.status(name)
