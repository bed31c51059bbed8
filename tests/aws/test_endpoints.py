"""Scaling and alarms: the AWS backend against the emulator, which sends what is not SageMaker's on to moto.

moto's validation of Application Auto Scaling and CloudWatch is not ours. Real AWS has not seen these requests.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.emulator.upstream import Upstream
from backends.engine import Engine
from backends.errors import BackendError, JobFailed
from backends.local.backend import ROLE_ARN, engine_settings
from backends.specs import Canary, EndpointSpec, ModelSpec, Scaling, Serverless, Variant
from backends.waiting import wait_until
from tests.archives import archive
from tests.conformance.rigs import PROBE
from tests.emulator import serving
from tests.peers import client, moto_server

LIMIT_SECONDS = 30
SCALING = Scaling(min_instances=1, max_instances=4, invocations_per_minute=600.0)
TAGS = {"greenroom:application": "test"}
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Moto in the place of AWS."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """SageMaker."""
    home: Path = tmp_path_factory.mktemp("aws") / "home"
    engine = Engine(engine_settings(BackendConfig(home=home, images={"probe": PROBE})))
    engine.site.store.ensure_bucket("bucket")
    for version in ("1", "2"):
        engine.site.store.put(f"s3://bucket/{version}.tar.gz", archive({"model.txt": version.encode()}))
    engine.site.store.put("s3://bucket/broken.tar.gz", archive({"serve.json": b'{"exit": 3}'}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def backend(engine: Engine, moto: str) -> Iterator[Backend]:
    """The AWS backend, which knows neither of the two."""
    with (
        serving(create_app(engine, upstream=Upstream(moto))) as url,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        with open_backend(BackendConfig(backend="aws", endpoint_url=url, role_arn=ROLE_ARN)) as opened:
            yield opened
            for name in list(opened.endpoints.names()):
                opened.endpoints.delete(name)
                opened.endpoints.wait_deleted(name, timeout_seconds=LIMIT_SECONDS)


@pytest.fixture
def spec() -> EndpointSpec:
    """A real-time endpoint of the test's own."""
    variant = Variant(model=ModelSpec(image="probe", artifact_uri="s3://bucket/1.tar.gz"), instance_count=2)
    return EndpointSpec(name=f"endpoint-{next(_NUMBERS)}", variants=(variant,), tags=TAGS)


def changed(spec: EndpointSpec, **members: Any) -> EndpointSpec:
    """*spec* with another variant."""
    return replace(spec, variants=(replace(spec.variants[0], **members),))


def targets(moto: str, endpoint: str) -> list[dict[str, Any]]:
    found = client("application-autoscaling", moto).describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{endpoint}/variant/AllTraffic"]
    )["ScalableTargets"]
    assert isinstance(found, list)
    return found


def alarms(moto: str) -> list[dict[str, Any]]:
    found = client("cloudwatch", moto).describe_alarms()["MetricAlarms"]
    assert isinstance(found, list)
    return found


def test_instances_follow_the_traffic(backend: Backend, moto: str, spec: EndpointSpec) -> None:
    """Registered with its limits and a policy that tracks invocations; deregistered before the endpoint goes."""
    endpoints = backend.endpoints
    endpoints.deploy(changed(spec, scaling=SCALING), timeout_seconds=LIMIT_SECONDS)
    (target,) = targets(moto, spec.name)
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    assert target["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount"
    (policy,) = client("application-autoscaling", moto).describe_scaling_policies(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
    )["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert policy["PolicyType"] == "TargetTrackingScaling"
    assert tracking["TargetValue"] == 600.0
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "SageMakerVariantInvocationsPerInstance"
    endpoints.delete(spec.name)
    assert targets(moto, spec.name) == []


def test_scaling_changes_alone(backend: Backend, moto: str, spec: EndpointSpec) -> None:
    """New limits, or none, without another configuration."""
    endpoints = backend.endpoints
    assert endpoints.deploy(changed(spec, scaling=SCALING), timeout_seconds=LIMIT_SECONDS)
    assert not endpoints.deploy(changed(spec, scaling=replace(SCALING, max_instances=6)))
    assert targets(moto, spec.name)[0]["MaxCapacity"] == 6
    assert not endpoints.deploy(spec)
    assert targets(moto, spec.name) == []


def test_a_new_model_keeps_the_scaling(backend: Backend, moto: str, engine: Engine, spec: EndpointSpec) -> None:
    """And the number of instances at which it stands; instances of another type are registered anew (B.5)."""
    endpoints = backend.endpoints
    scaled = changed(spec, scaling=SCALING)
    endpoints.deploy(scaled, timeout_seconds=LIMIT_SECONDS)
    wish = {"VariantName": "AllTraffic", "DesiredInstanceCount": 4}
    engine.call(
        "UpdateEndpointWeightsAndCapacities", {"EndpointName": spec.name, "DesiredWeightsAndCapacities": [wish]}
    )
    endpoints.wait_in_service(spec.name, timeout_seconds=LIMIT_SECONDS)
    (before,) = targets(moto, spec.name)
    newer = changed(scaled, model=ModelSpec(image="probe", artifact_uri="s3://bucket/2.tar.gz"))
    assert endpoints.deploy(newer, timeout_seconds=LIMIT_SECONDS)
    described = engine.call("DescribeEndpoint", {"EndpointName": spec.name})
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 4
    assert targets(moto, spec.name)[0]["CreationTime"] == before["CreationTime"]
    assert endpoints.deploy(changed(newer, instance_type="ml.c5.large"), timeout_seconds=LIMIT_SECONDS)
    assert targets(moto, spec.name)[0]["CreationTime"] != before["CreationTime"]


def test_alarms_watch_a_canary(backend: Backend, moto: str, engine: Engine, spec: EndpointSpec) -> None:
    """They are there while it bakes, named in the update, and gone afterwards."""
    endpoints = backend.endpoints
    tried = replace(spec, canary=Canary(percent=20, wait_seconds=1, error_share=0.05, latency_ms=500))
    endpoints.deploy(tried, timeout_seconds=LIMIT_SECONDS)
    assert alarms(moto) == []  # A first deployment has nothing to go back to.
    newer = changed(tried, model=ModelSpec(image="probe", artifact_uri="s3://bucket/2.tar.gz"))
    endpoints.submit(endpoints.plan_update(newer))
    errors, latency = sorted(alarms(moto), key=lambda alarm: str(alarm["AlarmName"]))
    assert (errors["MetricName"], errors["Statistic"], errors["Threshold"]) == ("Invocation5XXErrors", "Average", 0.05)
    assert (latency["MetricName"], latency["ExtendedStatistic"]) == ("ModelLatency", "p90")
    assert latency["Threshold"] == 500_000.0
    for alarm in (errors, latency):
        assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {
            "EndpointName": spec.name,
            "VariantName": "AllTraffic",
        }
    endpoints.wait_in_service(spec.name, timeout_seconds=LIMIT_SECONDS)
    deployment = engine.call("DescribeEndpoint", {"EndpointName": spec.name})["LastDeploymentConfig"]
    watched = [alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]]
    assert watched == [errors["AlarmName"], latency["AlarmName"]]
    assert not endpoints.deploy(newer)
    assert alarms(moto) == []
    endpoints.delete(spec.name)  # Alarms that are gone already are no error.


def test_an_alarm_takes_a_canary_back(backend: Backend, moto: str, spec: EndpointSpec) -> None:
    """It goes off in the other server while the canary bakes, which would last for minutes; the old model is back."""
    endpoints = backend.endpoints
    tried = replace(spec, canary=Canary(percent=50, wait_seconds=600))
    endpoints.deploy(tried, timeout_seconds=LIMIT_SECONDS)
    newer = changed(tried, model=ModelSpec(image="probe", artifact_uri="s3://bucket/2.tar.gz"))
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(endpoints.deploy, newer, timeout_seconds=LIMIT_SECONDS)
        wait_until(lambda: len(alarms(moto)), (2).__eq__, what="both alarms", timeout_seconds=LIMIT_SECONDS)
        alarm = f"greenroom/{spec.name}/AllTraffic/latency"
        client("cloudwatch", moto).set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="a rehearsal")
        with pytest.raises(JobFailed, match=f"Alarms in ALARM while it baked: {alarm}$"):
            change.result()
    assert {endpoints.invoke(spec.name, b"model").body for _ in range(20)} == {b"1"}
    assert alarms(moto) == []
    endpoints.delete(spec.name)


def test_a_change_that_is_refused_leaves_no_alarm(backend: Backend, moto: str, spec: EndpointSpec) -> None:
    """Nor models and configurations; one that fails later neither."""
    endpoints = backend.endpoints
    tried = replace(spec, canary=Canary(wait_seconds=1))
    endpoints.deploy(tried, timeout_seconds=LIMIT_SECONDS)
    broken = changed(tried, model=ModelSpec(image="probe", artifact_uri="s3://bucket/broken.tar.gz"))
    update = endpoints.plan_update(broken)
    *before, last = update.requests
    unknown = replace(last, document={**last.document, "EndpointConfigName": "no-such"})
    with pytest.raises(BackendError, match="no-such"):
        endpoints.submit(replace(update, requests=(*before, unknown)))
    assert alarms(moto) == []
    with pytest.raises(JobFailed, match="ping health check"):
        endpoints.deploy(broken, timeout_seconds=LIMIT_SECONDS)
    assert alarms(moto) == []
    assert endpoints.serves(tried)


def test_what_a_change_leaves_is_removed(backend: Backend, engine: Engine, spec: EndpointSpec) -> None:
    """One configuration and one model for each endpoint, none when it is deleted; those of others stay."""
    endpoints = backend.endpoints
    other = replace(spec, name=f"{spec.name}-more")
    endpoints.deploy(other, timeout_seconds=LIMIT_SECONDS)
    endpoints.deploy(spec, timeout_seconds=LIMIT_SECONDS)
    endpoints.deploy(changed(spec, instance_count=3), timeout_seconds=LIMIT_SECONDS)

    def left() -> tuple[int, int]:
        configs = engine.call("ListEndpointConfigs", {"NameContains": spec.name})["EndpointConfigs"]
        models = engine.call("ListModels", {"NameContains": spec.name})["Models"]
        return len(configs), len(models)

    assert left() == (2, 2)
    endpoints.delete(spec.name)
    endpoints.wait_deleted(spec.name, timeout_seconds=LIMIT_SECONDS)
    assert left() == (1, 1)
    assert endpoints.invoke(other.name, b"model").body == b"1"


def test_without_those_services_there_is_nothing_to_scale(
    engine: Engine, moto: str, spec: EndpointSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator alone serves endpoints that do not ask for scaling, and says how to get it to those that do."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with serving(create_app(engine)) as url:
        config = BackendConfig(backend="aws", endpoint_url=url, role_arn=ROLE_ARN)
        with open_backend(config) as alone:
            alone.endpoints.deploy(spec, timeout_seconds=LIMIT_SECONDS)
            with pytest.raises(BackendError, match="--upstream"):
                alone.endpoints.deploy(changed(spec, scaling=SCALING), timeout_seconds=LIMIT_SECONDS)
            alone.endpoints.delete(spec.name)
            serverless = replace(changed(spec, serverless=Serverless()), name=f"{spec.name}-s")
            alone.endpoints.deploy(serverless, timeout_seconds=LIMIT_SECONDS)
            alone.endpoints.delete(serverless.name)
            alone.endpoints.wait_deleted(serverless.name, timeout_seconds=LIMIT_SECONDS)
