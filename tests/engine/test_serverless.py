"""Serverless endpoints (contract B.4)."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backends.engine.slots import NoSlot, Slots
from backends.sagemaker.readings import ServiceError
from tests.engine.conftest import ROLE, Stage, variant

CAPACITY = {"MemorySizeInMB": 1024, "MaxConcurrency": 2}


def serverless(model: str, **members: Any) -> dict[str, Any]:
    """A variant without instances."""
    return {"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": CAPACITY | members}


def deploy(stage: Stage, name: str, **members: Any) -> str:
    """An endpoint in service, with a model of its own."""
    stage.model(name)
    stage.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[serverless(name, **members)])
    stage.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
    assert stage.settled(name)["EndpointStatus"] == "InService"
    return name


def described(stage: Stage, name: str) -> dict[str, Any]:
    """The one variant."""
    (only,) = stage.call("DescribeEndpoint", EndpointName=name)["ProductionVariants"]
    assert isinstance(only, dict)
    return only


def test_a_serverless_endpoint_is_described(stage: Stage) -> None:
    """Configuration as it was asked for; capacity in the place of instances."""
    name = deploy(stage, "described", ProvisionedConcurrency=1)
    capacity = CAPACITY | {"ProvisionedConcurrency": 1}
    config = stage.call("DescribeEndpointConfig", EndpointConfigName=name)
    assert config["ProductionVariants"][0]["ServerlessConfig"] == capacity
    seen = described(stage, name)
    assert (seen["CurrentServerlessConfig"], seen["DesiredServerlessConfig"]) == (capacity, capacity)
    assert not {"CurrentInstanceCount", "DesiredInstanceCount"} & seen.keys()
    stage.delete_endpoint(name)


def test_a_stream_is_a_request_until_its_end(stage: Stage) -> None:
    """It keeps its place among the requests at once, and gives it back when its last part was read or it is closed."""
    name = deploy(stage, "streaming", MaxConcurrency=1)
    request = {"EndpointName": name, "Body": b"a film"}
    for end in (list, lambda events: next(events) and events.close()):
        events = stage.engine.call("InvokeEndpointWithResponseStream", request)["Body"]
        assert stage.refusal("InvokeEndpoint", **request).code == "ThrottlingException"
        end(events)
        assert stage.invoke(name, b"a film")["Body"] == b"A FILM"
    stage.delete_endpoint(name)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"MemorySizeInMB": 1500}, "one of 1024, 2048"),
        ({"MemorySizeInMB": 512}, "one of 1024, 2048"),
        ({"MaxConcurrency": 0}, "greater than or equal to 1"),
        ({"MaxConcurrency": 201}, "less than or equal to 200"),
        ({"ProvisionedConcurrency": 3}, "more than MaxConcurrency"),
        ({"MaxConcurrency": None}, "must not be null"),
    ],
)
def test_capacity_has_limits(stage: Stage, members: dict[str, Any], said: str) -> None:
    """Contract B.4."""
    if not stage.engine.site.state.find("model", "limits"):
        stage.model("limits")
    error = stage.refusal(
        "CreateEndpointConfig", EndpointConfigName="limits", ProductionVariants=[serverless("limits", **members)]
    )
    assert (error.code, said in error.message) == ("ValidationException", True), error.message


def test_what_serverless_cannot_do_is_refused(stage: Stage) -> None:
    """Instances, several variants, VPC, isolation, data capture, uncompressed models (B.4)."""
    stage.model("plain")
    url = stage.put("models/plain/", b"")
    container = {"Image": stage.image, "ModelDataUrl": stage.put("models/plain.tar.gz", b"x")}
    source = {"S3Uri": url, "S3DataType": "S3Prefix", "CompressionType": "None"}
    files = {"Image": stage.image, "ModelDataSource": {"S3DataSource": source}}
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    models: dict[str, dict[str, Any]] = {
        "isolated": {"PrimaryContainer": container, "EnableNetworkIsolation": True},
        "inside": {"PrimaryContainer": container, "VpcConfig": vpc},
        "files": {"PrimaryContainer": files},
    }
    for name, members in models.items():
        stage.call("CreateModel", ModelName=name, ExecutionRoleArn=ROLE, **members)
    capture = {
        "InitialSamplingPercentage": 1,
        "DestinationS3Uri": "s3://bucket/c",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    requests: list[tuple[dict[str, Any], str]] = [
        ({"ProductionVariants": [serverless("plain") | {"InstanceType": "ml.g4dn.xlarge"}]}, "InstanceType"),
        ({"ProductionVariants": [serverless("plain") | {"InitialInstanceCount": 1}]}, "InitialInstanceCount"),
        ({"ProductionVariants": [serverless("plain"), variant("plain", "Second")]}, "the only one"),
        ({"ProductionVariants": [serverless("isolated")]}, "EnableNetworkIsolation"),
        ({"ProductionVariants": [serverless("inside")]}, "VpcConfig"),
        ({"ProductionVariants": [serverless("files")]}, "ModelDataUrl"),
        ({"ProductionVariants": [serverless("plain")], "VpcConfig": vpc}, "VpcConfig"),
        ({"ProductionVariants": [serverless("plain")], "EnableNetworkIsolation": True}, "EnableNetworkIsolation"),
        ({"ProductionVariants": [serverless("plain")], "DataCaptureConfig": capture}, "DataCaptureConfig"),
    ]
    for request, said in requests:
        error = stage.refusal("CreateEndpointConfig", EndpointConfigName="refused", **request)
        assert (error.code, said in error.message) == ("ValidationException", True), error.message


def test_a_body_of_more_than_4_mb_is_refused(stage: Stage) -> None:
    """As much as that passes (B.1)."""
    name = deploy(stage, "bodies")
    limit = 4 * 1024 * 1024
    assert len(stage.invoke(name, b"x" * limit)["Body"]) == limit
    error = stage.refusal("InvokeEndpoint", EndpointName=name, Body=b"x" * (limit + 1))
    assert error.code == "ValidationError"
    assert error.message.startswith("Request ")
    assert error.message.endswith(" has oversize body.")
    stage.delete_endpoint(name)


def outcome(stage: Stage, name: str, body: bytes) -> object:
    try:
        return stage.invoke(name, body)["Body"]
    except ServiceError as error:
        return error.status, error.code


def test_more_than_max_concurrency_is_throttled(stage: Stage) -> None:
    """429 at once, whoever asks; then the capacity is changed without a restart (B.4)."""
    name = deploy(stage, "busy")
    with ThreadPoolExecutor(3) as threads:
        seen = list(threads.map(lambda _: outcome(stage, name, b"sleep=1"), range(3)))
        assert sorted(map(str, seen)) == ["(429, 'ThrottlingException')", "b'SLEEP=1'", "b'SLEEP=1'"]
        wish = {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 3}}
        stage.call("UpdateEndpointWeightsAndCapacities", EndpointName=name, DesiredWeightsAndCapacities=[wish])
        stage.settled(name)
        assert list(threads.map(lambda _: outcome(stage, name, b"sleep=1"), range(3))) == [b"SLEEP=1"] * 3
    assert described(stage, name)["CurrentServerlessConfig"] == CAPACITY | {"MaxConcurrency": 3}
    stage.delete_endpoint(name)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"DesiredInstanceCount": 2}, "cannot have DesiredInstanceCount"),
        ({"ServerlessUpdateConfig": {"ProvisionedConcurrency": 3}}, "more than MaxConcurrency 2"),
        ({"ServerlessUpdateConfig": {"MaxConcurrency": 201}}, "less than or equal to 200"),
    ],
)
def test_an_update_of_capacity_has_limits(stage: Stage, wish: dict[str, Any], said: str) -> None:
    """Those of the configuration."""
    if not stage.exists("wishes"):
        deploy(stage, "wishes")
    wishes = [{"VariantName": "AllTraffic", **wish}]
    error = stage.refusal(
        "UpdateEndpointWeightsAndCapacities", EndpointName="wishes", DesiredWeightsAndCapacities=wishes
    )
    assert said in error.message


def test_instances_cannot_be_made_serverless(stage: Stage) -> None:
    """Neither by another configuration nor by a wish; the other way is taken."""
    name = stage.deploy("fixed")
    stage.call("CreateEndpointConfig", EndpointConfigName="flexible", ProductionVariants=[serverless("fixed")])
    error = stage.refusal("UpdateEndpoint", EndpointName=name, EndpointConfigName="flexible")
    assert "cannot be updated to serverless" in error.message
    wish = {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 1}}
    error = stage.refusal("UpdateEndpointWeightsAndCapacities", EndpointName=name, DesiredWeightsAndCapacities=[wish])
    assert "is on instances" in error.message
    assert stage.invoke(name, b"x")["Body"] == b"X"
    stage.delete_endpoint(name)
    other = deploy(stage, "other")
    stage.call("UpdateEndpoint", EndpointName=other, EndpointConfigName="fixed", RetainAllVariantProperties=True)
    stage.settled(other)
    assert described(stage, other)["CurrentInstanceCount"] == 1
    stage.delete_endpoint(other)


def test_a_container_has_less_time_to_start(make_stage: Callable[..., Stage]) -> None:
    """SageMaker gives it 3 minutes in the place of 8."""
    stage = make_stage(serverless_startup_timeout_seconds=0.5)
    stage.model("slow", ping=500)
    stage.call("CreateEndpointConfig", EndpointConfigName="slow", ProductionVariants=[serverless("slow")])
    stage.call("CreateEndpoint", EndpointName="slow", EndpointConfigName="slow")
    assert "within 0.5 s" in stage.settled("slow")["FailureReason"]


HOLD = """
import sys, time
from pathlib import Path
from backends.engine.slots import Slots
with Slots(Path(sys.argv[1])).one_of(2):
    print("held", flush=True)
    time.sleep(60)
"""


def test_slots_are_counted_over_processes(tmp_path: Path) -> None:
    """One is another process's until it is killed; those of two counters in one process add up."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        ours, more = Slots(tmp_path), Slots(tmp_path)
        with ours.one_of(2), pytest.raises(NoSlot), more.one_of(2):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with ours.one_of(2), more.one_of(2), pytest.raises(NoSlot), ours.one_of(2):
        pass
    ours.close()
    more.close()


def test_slots_that_are_closed_in_use_are_given_back(tmp_path: Path) -> None:
    """The block ends as it would have."""
    slots, held, closed = Slots(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with slots.one_of(1):
            held.set()
            assert closed.wait(10)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert held.wait(10)
        slots.close()
        closed.set()
        holding.result()
    with Slots(tmp_path).one_of(1):
        pass
